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
    INCOMPLETE: "done, but not whole: a run that was trained or evaluated lacks members of its recipe (their processes "
    "died, their losses were not finite, or a budget was over), or `predict` met images that cannot be read; the "
    "output names them",
    130: "interrupted by Ctrl-C; the same training command goes on",
    143: "stopped by SIGTERM; the same training command goes on",
}


class Terminated(KeyboardInterrupt):
    """SIGTERM came; whatever cleans up after Ctrl-C cleans up after it, too."""


STOPS: dict[signal.Signals, type[KeyboardInterrupt]] = {
    signal.SIGINT: KeyboardInterrupt,
    signal.SIGTERM: Terminated,
}


@contextmanager
def stopped_once() -> Iterator[None]:
    """Let Ctrl-C and SIGTERM raise in the main thread, so that a command cleans up and says where it stands.

    They do so once: whoever presses Ctrl-C again would only interrupt that.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    stopped = False

    def stop(number: int, frame: FrameType | None) -> None:
        nonlocal stopped
        stopped = True
        for each in STOPS:
            signal.signal(each, signal.SIG_IGN)  # to the end of the process, whose last functions are Python's, too
        raise STOPS[signal.Signals(number)]

    before = {each: signal.signal(each, stop) for each in STOPS if signal.getsignal(each) != signal.SIG_IGN}
    try:
        yield
    finally:
        for each, handler in before.items():
            if not stopped:
                signal.signal(each, handler)


def words_and_code(stop: KeyboardInterrupt) -> tuple[str, int]:
    """What stopped a command, in words, and its exit code."""
    return ("Stopped by SIGTERM", 143) if isinstance(stop, Terminated) else ("Interrupted", 130)


def note_missing_members(*runs: Path) -> None:
    """A note about each run, or bundle, whose committee lacks members of its recipe."""
    from committee.folders.folder import kind_of
    from committee.folders.run_folder import RunFolder

    for folder in map(RunFolder.at, runs):
        if kind_of(folder.path) == "run" and (lacking := folder.manifest.lacking):
            say(f"Note: {folder} {lacking}", err=True)


def note_missing_kernels(device: str) -> None:
    """A note where the CPU computes without the kernels that there are for it.

    Args:
        device: where the command computes, or "auto".
    """
    from committee import kernels
    from committee.nn.devices import usable

    if usable(device) == "cpu" and kernels.are_missing():
        say(
            "Note: the kernels for this processor were not compiled when committee was installed, so PyTorch's own "
            "layers do the work, two to three times as slowly; install it from a prebuilt wheel, or again where there "
            "is a C++ compiler (COMMITTEE_CPU=torch: leave it at that)",
            err=True,
        )


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
