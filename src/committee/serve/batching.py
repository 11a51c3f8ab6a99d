"""Jobs of many clients -> batches for one worker thread -> each job's result; a bounded queue between them."""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from committee.serve.problems import busy

COMPANY = 16
"""Jobs for which a batch waits at most: more save little, and the event loop works on the others meanwhile."""

J = TypeVar("J")
R = TypeVar("R")


@dataclass(eq=False)
class _Entry(Generic[J, R]):
    """A job in the queue: how many images it has, until when its result is of use, and who waits for it."""

    job: J
    size: int
    deadline: float
    result: asyncio.Future[R]


class Batcher(Generic[J, R]):
    """A queue of jobs and the thread that works them off, several at once.

    The worker takes whatever waits, up to `most` images. A job that comes while nothing else is under way is begun at
    once; after a batch of several jobs the worker waits up to `wait` seconds for as many again, since their clients
    are about to ask anew.

    Args:
        work: jobs -> for each a result, or the exception that it gets; called in the worker thread only.
        most: images of a batch; a larger job is a batch of its own.
        queue: images that may wait.
        wait: seconds.
        observe: is told how many images each batch had, in the worker thread.
    """

    def __init__(
        self,
        work: Callable[[Sequence[J]], Sequence[R | Exception]],
        *,
        most: int,
        queue: int,
        wait: float,
        observe: Callable[[int], None] = lambda images: None,
    ) -> None:
        self._work, self._most, self._queue, self._wait, self._observe = work, most, queue, wait, observe
        self._jobs: deque[_Entry[J, R]] = deque()
        self._waiting, self._ending = 0, False
        self._changed = threading.Condition()
        self._loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._run, name="committee-answers", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Images that wait."""
        return self._waiting

    async def submit(self, job: J, size: int, seconds: float) -> R:
        """The result of a job.

        Args:
            job: what `work` gets.
            size: how many images it has.
            seconds: after which its result is of no use to anybody.

        Raises:
            RefusedError: the queue is full, or the time is over.
        """
        mine = _Entry[J, R](job, size, time.monotonic() + seconds, self._loop.create_future())
        with self._changed:
            if self._ending or (self._waiting and self._waiting + size > self._queue):
                raise busy(f"at most {self._queue:,} images wait at a time, and now they do")
            self._jobs.append(mine)
            self._waiting += size
            self._changed.notify()
        try:
            async with asyncio.timeout(seconds):
                return await mine.result
        except TimeoutError:
            raise busy(f"no answer was ready within {seconds:g} seconds") from None

    def close(self) -> None:
        """End the worker once the queue is empty."""
        with self._changed:
            self._ending = True
            self._changed.notify()

    def _run(self) -> None:
        expected = 1
        while batch := self._next(expected):
            expected = min(len(batch), COMPANY)
            self._observe(sum(each.size for each in batch))
            try:
                results = self._work([each.job for each in batch])
            except Exception as error:  # of no job in particular: all of them get it
                results = [error] * len(batch)
            try:
                self._loop.call_soon_threadsafe(_hand_out, batch, results)
            except RuntimeError:  # the loop is closed: the server ended without waiting any longer
                return

    def _next(self, expected: int) -> list[_Entry[J, R]]:
        """The next batch, without jobs whose time is over; empty where the worker is to end."""
        with self._changed:
            while True:
                began = time.monotonic()
                self._changed.wait_for(lambda: self._jobs or self._ending)
                was_idle = time.monotonic() - began > self._wait
                if len(self._jobs) < expected and not was_idle and not self._ending:
                    self._changed.wait_for(lambda: len(self._jobs) >= expected or self._ending, self._wait)
                batch, now = self._take(), time.monotonic()
                live = [each for each in batch if each.deadline > now and not each.result.done()]
                if live or not batch:
                    return live

    def _take(self) -> list[_Entry[J, R]]:
        batch: list[_Entry[J, R]] = []
        size = 0
        while self._jobs and (not batch or size + self._jobs[0].size <= self._most):
            batch.append(self._jobs.popleft())
            size += batch[-1].size
        self._waiting -= size
        return batch


def _hand_out(batch: Sequence[_Entry[J, R]], results: Sequence[R | Exception]) -> None:
    """Give each job its result, in the event loop; whoever has gone is left out."""
    for each, result in zip(batch, results, strict=True):
        if each.result.done():
            continue
        if isinstance(result, Exception):
            each.result.set_exception(result)
        else:
            each.result.set_result(result)
