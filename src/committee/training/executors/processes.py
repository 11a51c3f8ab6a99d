"""Jobs in worker processes, each with one thread; all of them map the same image files into memory. On Linux they also
share the memory of what they import, see `committee.training.fork_server`.

The parent hands a worker its next job when it finishes one. A worker that a signal kills (memory ran out, or somebody
did) is started again with the same job, from its checkpoint; one that ends by itself has met a bug, which it would meet
again. Only the parent sees Ctrl-C; it ends the workers, whose checkpoints are whole.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from committee.training import fork_server
from committee.training.fork_server import ForkedProcess, ForkServer
from committee.training.jobs import Died, Event, Failed, Finished, Job, Remark
from committee.training.worker import Stop, work

MOST_STARTS = 3  # of a job whose worker is killed
ORDINALS = {1: "the first", 2: "the second", 3: "the third"}


@dataclass
class _Worker:
    process: ForkedProcess | SpawnProcess
    pipe: Connection
    job: Job


def run(jobs: Sequence[Job], workers: int) -> Generator[Event]:
    """Execute the jobs in this many processes, in their order, as workers become free.

    Raises:
        CommitteeError: a worker cannot write or read a file; all workers are ended, and their checkpoints stay.
    """
    refuse_to_train_while_imported()
    waiting = deque(jobs)
    starts = Counter[tuple[str, int]]()
    active: dict[Connection, _Worker] = {}
    server: ForkServer | None = None
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                server = _living(server)
                worker = _start(waiting.popleft(), server)
                active[worker.pipe] = worker
            for pipe in wait(list(active)):
                assert isinstance(pipe, Connection)
                worker = active[pipe]
                try:
                    event: Event | Stop = pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    del active[pipe]
                    job = worker.job
                    starts[job.model, job.member] += 1
                    event = _after_death(job, worker.process.exitcode, starts[job.model, job.member])
                    if isinstance(event, Remark):
                        waiting.appendleft(job)
                    yield event
                    continue
                if isinstance(event, Stop):
                    raise event.error
                yield event
                if isinstance(event, Finished | Failed):
                    if waiting:
                        _give(worker, waiting.popleft())
                    else:
                        _end(active.pop(pipe))
    finally:
        for worker in active.values():
            _end(worker)
        if server:
            server.close()


def refuse_to_train_while_imported() -> None:
    """End a worker process that imports its parent's script, and so was about to train itself, with what to do."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # SystemExit, since this process can only end, and a traceback would bury what to do
        raise SystemExit(
            "Error: this script trains as soon as it is imported, and worker processes import it; put its calls under "
            '`if __name__ == "__main__":`, or train with workers=1 (in committee.Setting or CommitteeClassifier)'
        )


def _after_death(job: Job, status: int | None, starts: int) -> Remark | Died | Finished:
    """What a worker's death means for its job: a remark where it is started again."""
    if job.folder and job.folder.is_done:  # it died between the last file and the event
        return Finished(job.member, job.folder.record, model=job.model)
    why = f"its worker process {_how_it_died(status)}"
    if status is None or status >= 0:
        return Died(job.member, f"{why}; its own error message is above", job.model)
    if starts >= MOST_STARTS:
        return Died(job.member, f"{why}, {ORDINALS[starts]} time", job.model)
    start = "from its checkpoint" if job.folder and job.folder.has_begun else "from the beginning"
    return Remark(job.member, f"{why}, {ORDINALS[starts]} time; it is started again {start}", job.model)


def _how_it_died(status: int | None) -> str:
    """What an exit status says, as a phrase."""
    if status is None or status >= 0:
        return f"ended with status {status}"
    names = {each.value: each.name for each in signal.Signals}
    name = names.get(-status, f"signal {-status}")
    usual = " (the usual reason is that memory ran out; fewer --workers need less)" if name == "SIGKILL" else ""
    return f"was killed by {name}{usual}"


def _living(server: ForkServer | None) -> ForkServer | None:
    """The server that starts workers: this one, or a new one where there is none or somebody ended it; None where
    workers are spawned.
    """
    if not fork_server.AVAILABLE or (server and (server.process.is_alive() or not server.is_safe)):
        return server
    if server:
        server.close()
    with _interrupts_ignored():  # inherited, so that a worker ignores Ctrl-C from its first moment
        return ForkServer()


def _start(job: Job, server: ForkServer | None) -> _Worker:
    process, ours = server.start() if server and server.is_safe else _spawn()
    worker = _Worker(process, ours, job)
    _give(worker, job)
    return worker


def _spawn() -> tuple[SpawnProcess, Connection]:
    """A worker that imports everything itself."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=work, args=(theirs,), daemon=True)
    with _interrupts_ignored():
        process.start()
    theirs.close()
    return process, ours


def _give(worker: _Worker, job: Job) -> None:
    worker.job = job
    with suppress(OSError):  # a worker that is already dead is noticed when its event is awaited
        worker.pipe.send(job)


def _end(worker: _Worker) -> None:
    """End a worker at once: what it finished is written, and unloading PyTorch would take a second."""
    worker.process.terminate()
    worker.process.join()
    worker.pipe.close()


@contextmanager
def _interrupts_ignored() -> Iterator[None]:
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
