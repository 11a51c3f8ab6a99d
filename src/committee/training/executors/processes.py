"""Jobs in worker processes: one a core, each with one thread; the images are one memory-mapped file for all.

The parent hands a worker its next job when it finishes one. A worker that dies (out of memory, killed) fails its job,
named, and another takes its place. Ctrl-C reaches the parent alone; it ends the workers, whose checkpoints are whole.
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
    """Execute the jobs in this many processes, in their order as workers become free."""
    if getattr(multiprocessing.current_process(), "_inheriting", False):
        # no exception of ours: this process has no business but to end, and a traceback would bury what to do
        raise SystemExit(
            "Error: this script trains where it is imported, and its worker processes import it; put its calls under "
            '`if __name__ == "__main__":`, or train with workers=1 (of committee.Setting or of the estimator)'
        )
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
                    yield Failed(
                        worker.job.member,
                        f"its worker process ended with status {worker.process.exitcode}, see its own message",
                        worker.job.model,
                    )
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


def _start(job: Job) -> _Worker:
    context = multiprocessing.get_context("spawn")  # a forked copy of torch's threads may hang
    ours, theirs = context.Pipe()
    process = context.Process(target=_work, args=(theirs,), daemon=True)
    with _interrupts_ignored():  # inherited: a Ctrl-C while the worker starts is the parent's alone, too
        process.start()
    theirs.close()
    with suppress(OSError):  # a worker that is dead already is noticed when its event is awaited
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
    """A worker's life: jobs in, events out, until there is no more."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        while (job := pipe.recv()) is not None:
            for event in execute(job):
                pipe.send(event)
    except (EOFError, BrokenPipeError):  # the parent is gone
        return
