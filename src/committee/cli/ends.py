"""How commands end: their exit codes, and what Ctrl-C and SIGTERM do to them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from committee.terminal import say

INCOMPLETE = 3
EXIT_CODES = {
    0: "done",
    1: "a bug: an exception with its traceback",
    2: "nothing was done, or the command could not go on; one sentence says why and what to do",
    INCOMPLETE: "done, but not whole: a training lacks members of its recipe (their processes died, their losses were "
    "not finite, or a budget was over), or `predict` met images that cannot be read; the output names them",
    130: "interrupted by Ctrl-C; the same training command goes on",
    143: "stopped by SIGTERM; the same training command goes on",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM came; whatever cleans up after Ctrl-C cleans up after it, too."""


@contextmanager
def sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise `Terminated` in the main thread, so that a command cleans up and says where it stands."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def terminate(number: int, frame: FrameType | None) -> None:
        raise Terminated

    before = signal.signal(signal.SIGTERM, terminate)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def words_and_code(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What stopped a command, in words, and its exit code."""
    return ("Stopped by SIGTERM", 143) if isinstance(stop, Terminated) else ("Interrupted", 130)


def kept(finished: int, under_way: int, all_of_them: int, what: str, folder: Path) -> str:
    """What is kept of a training that was stopped: finished members, and checkpoints of those under way."""
    said = f"{finished} of {all_of_them} {what} are finished"
    if not under_way:
        return f"{said} and kept in {folder}"
    checkpoints = "has a checkpoint" if under_way == 1 else "have checkpoints"
    return f"{said}, and {under_way} under way {checkpoints} to go on from; all of this is kept in {folder}"


@contextmanager
def told_how_to_go_on(kept: Callable[[], str]) -> Iterator[None]:
    """Where Ctrl-C or SIGTERM ends a training, say what of it is kept, and that the same command goes on."""
    try:
        yield
    except KeyboardInterrupt as stop:
        words, code = words_and_code(stop)
        say(f"{words}; {kept()}. Give the same command again to continue.", err=True)
        raise SystemExit(code) from None
