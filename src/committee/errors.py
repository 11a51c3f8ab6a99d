"""Every error that a user can meet, in one place.

    CommitteeError            one sentence: what was expected, what was got, what to do
    ├── DataError             the images, the labels or their files
    │   └── DownloadError     a data set with a name could not be had from any place
    ├── RecipeError           a recipe that is unknown, unreadable or inconsistent
    ├── RunError              a run folder that is missing, unfinished or damaged
    ├── StorageError          a file that cannot be written: no space, no permission, a failing disk
    ├── TrainingError         no member could be trained
    └── MissingExtraError     an optional package is not installed

The command line prints the message of a `CommitteeError` and exits with status 2; any other exception is a bug.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType


class CommitteeError(Exception):
    """Base of all errors that are the input's fault or the machine's, never the program's."""


class DataError(CommitteeError, ValueError):
    """The images, the labels or the files that hold them are not usable."""


class DownloadError(DataError):
    """A data set with a name could not be had from any of the places that may hold it."""


class RecipeError(CommitteeError, ValueError):
    """A recipe is unknown, unreadable or inconsistent; the message lists all faults at once."""


class RunError(CommitteeError):
    """A run folder is missing, unfinished, damaged, or belongs to another training."""


class StorageError(CommitteeError):
    """A file cannot be written: there is no space or no permission, or the disk fails; what was there before is."""


class TrainingError(CommitteeError):
    """Training gave no usable member."""


class MissingExtraError(CommitteeError, ImportError):
    """An optional package is needed and not installed."""


def require(module: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say which command installs it.

    Args:
        module: name to import, such as ``"pyarrow.parquet"``.
        extra: the extra of this package that brings it.
        purpose: what it is needed for, as the subject of the message ("Reading Parquet files").

    Raises:
        MissingExtraError: the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.partition(".")[0]
        raise MissingExtraError(
            f"{purpose} needs the package {package}, which is not installed; "
            f"install it with: pip install 'committee[{extra}]'"
        ) from error


@contextmanager
def torch_needed_said() -> Iterator[None]:
    """PyTorch is left out where a committee only answers; what needs it says so in one sentence.

    Raises:
        MissingExtraError: torch was imported within and is not installed.
    """
    try:
        yield
    except ModuleNotFoundError as error:
        if error.name != "torch":
            raise
        raise MissingExtraError(
            "training, and whatever opens a run folder, needs the package torch, which is not installed; install it "
            "with: pip install 'committee[train]'"
        ) from error


def counted(number: int, noun: str) -> str:
    """A number of things: "1 member", "1,200 images"."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def nearest(name: str, names: list[str]) -> str:
    """The ending of a message about an unknown name: " (did you mean 'x'?)", or nothing where none is near."""
    import difflib

    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
