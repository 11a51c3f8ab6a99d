"""How far a command has got that goes through many pieces: a bar on a terminal, now and then a line elsewhere."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from committee.terminal import console, say

SECONDS_PER_LINE = 10

Count = Callable[[int, int], None]  # how many are done, and how many there are; 0 where that is not known


@contextmanager
def counting(what: str) -> Iterator[Count]:
    """A block that says how many of something it has done, such as "shards"; all of it on standard error."""
    if not sys.stderr.isatty():
        last = time.monotonic()

        def line(done: int, total: int) -> None:
            nonlocal last
            if (now := time.monotonic()) - last >= SECONDS_PER_LINE:
                last = now
                say(f"{done:,}{f' of {total:,}' if total else ''} {what}", err=True)

        yield line
        return
    columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console(err=True), transient=True) as progress:
        task = progress.add_task(what, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total or None)
