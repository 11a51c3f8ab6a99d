"""Jobs in worker processes, each with one thread; all of them map the same image files into memory.

The parent hands a worker its next job when it finishes one. If a worker dies (killed, out of memory), its job fails and
another worker takes its place. Only the parent sees Ctrl-C; it ends the workers, whose checkpoints are whole.
"""

from __future__ import annotations

import multiprocessing
import signal
import threading
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess

from committee.training.jobs import Event, Failed, Finished, Job, execute


@dataclass
class _Worker:
    process: SpawnProcess
    pipe: Connection
    job: Job


def run(jobs: Sequence[Job], workers: int) -> Generator[Event]:
    """Execute the jobs in this many processes, in their order, as workers become free."""
    refuse_to_train_while_imported()
    waiting = deque(jobs)
    active: dict[Connection, _Worker] = {}
    try:
        while waiting or active:
            while waiting and len(active) < workers:
                worker = _start(waiting.popleft())
                active[worker.pipe] = worker
            for pipe in wait(list(active)):
                assert isinstance(pipe, Connection)
                worker = active[pipe]
                try:
                    event: Event = pipe.recv()
                except (EOFError, OSError):
                    worker.process.join()
                    del active[pipe]
                    yield Failed(worker.job.member, _why_it_died(worker.process.exitcode), worker.job.model)
                    continue
                yield event
                if isinstance(event, (Finished, Failed)):
                    if waiting:
                        worker.job = waiting.popleft()
                        pipe.send(worker.job)
                    else:
                        pipe.send(None)
                        worker.process.join()
                        del active[pipe]
    finally:
        for worker in active.values():
            worker.process.terminate()
            worker.process.join()


def refuse_to_train_while_imported() -> None:
    """End a worker process that imports its parent's script, and so was about to train itself, with what to do."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # SystemExit, since this process can only end, and a traceback would bury what to do
        raise SystemExit(
            "Error: this script trains as soon as it is imported, and worker processes import it; put its calls under "
            '`if __name__ == "__main__":`, or train with workers=1 (in committee.Setting or CommitteeClassifier)'
        )


def _why_it_died(status: int | None) -> str:
    """What a worker's exit status says."""
    if status is not None and status < 0:
        return f"its worker process was killed by signal {-status}; if memory ran out, use fewer --workers"
    return f"its worker process ended with status {status}; its own error message is above"


def _start(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked copy of torch's threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _interrupts_ignored():  # inherited, so that a worker ignores Ctrl-C from its first moment
        process.start()
    theirs.close()
    with suppress(OSError):  # a worker that is already dead is noticed when its event is awaited
        ours.send(job)
    return _Worker(process, ours, job)


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


def _work(pipe: Connection) -> None:
    """What a worker does: jobs in, events out, until it gets None."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while (job := pipe.recv()) is not None:
            for event in execute(job):
                pipe.send(event)
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
