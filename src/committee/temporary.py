"""Temporary folders that are removed at the end, whatever way it comes.

They lie in `committee-XXXXXXXX` where temporary files belong (TMPDIR). A process that is killed cannot remove its
folder, so it holds a lock on a file in it, which the system gives back whatever way the process ends: the next one on
this machine that makes such a folder removes all whose lock can be had. Platforms without `fcntl` leave them.
"""

from __future__ import annotations

import os
import re
import shutil
import stat
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from committee.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX, LOCK = "committee-", "owner.lock"
COPIES = re.compile(r"\d+-(pixels|labels)\.npy")  # what folders of version 0.5 and before hold, which have no lock
WEEK = 7 * 24 * 3600.0


@contextmanager
def temporary_folder(needed: int, content: str) -> Iterator[Path]:
    """A new folder with room for so many bytes, locked while it is in use, removed at the end.

    Args:
        needed: bytes.
        content: what takes them, in words, for messages.

    Raises:
        StorageError: there is no room, or what the block writes cannot be written.
    """
    remove_abandoned()
    with _refusal_in_a_sentence(None, needed, content):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        if shutil.disk_usage(folder).free < needed:
            raise StorageError(_no_room(folder, needed, content))
        with writing_into(folder, needed, content):
            lock = _locked(folder)
        try:
            yield folder
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def writing_into(folder: Path, needed: int, content: str) -> Iterator[None]:
    """A block that fills a `temporary_folder`, whose OSErrors become one sentence.

    Raises:
        StorageError: there was no room after all, or the disk fails.
    """
    with _refusal_in_a_sentence(folder, needed, content):
        yield


@contextmanager
def _refusal_in_a_sentence(folder: Path | None, needed: int, content: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # numpy's has no errno where a disk is full: "4000 requested and 1008 written"
        raise StorageError(_no_room(folder, needed, content, error)) from error


def _no_room(folder: Path | None, needed: int, content: str, error: OSError | None = None) -> str:
    why = "" if error is None else f" ({error.strerror or error})"
    if folder is None:
        return f"no temporary folder can be written{why}; set TMPDIR to a folder with {needed:,} bytes free"
    return (
        f"{folder.parent} has {shutil.disk_usage(folder).free:,} bytes free, but {content} need {needed:,}{why}; "
        "free some space, or set TMPDIR to a folder that has more"
    )


# --- folders of processes that were killed ----------------------------------------------------------------------------


def _locked(folder: Path) -> int | None:
    """The descriptor of a new locked file in a folder; None where there are no such locks.

    It is locked before it gets its name: another process never sees it without the lock.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
    with suppress(OSError):  # a file system without locks; the folder then counts as one in use, see below
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
    return descriptor


def remove_abandoned() -> None:
    """Remove this user's folders whose process is dead; whatever cannot be removed stays."""
    if fcntl is None:
        return
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                if _is_ours(folder) and _is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is this user's, and made here: it has a lock, or holds nothing but copies of images."""
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        return False
    names = [path.name for path in folder.iterdir()]
    return LOCK in names or all(COPIES.fullmatch(name) or name == f"{LOCK}.new" for name in names)


def _is_abandoned(folder: Path) -> bool:
    """Whether the lock in a folder can be had.

    A folder without a lock is one that is being made, or that a version up to 0.5 left. Whether those are in use cannot
    be known: they are removed when they are a week old, longer than any training of that time took.
    """
    try:
        descriptor = os.open(folder / LOCK, os.O_RDWR | getattr(os, "O_NOFOLLOW", 0))
    except FileNotFoundError:
        return time.time() - folder.stat().st_mtime > WEEK
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # its owner lives, perhaps in another container
        return False
    finally:
        os.close(descriptor)
    return True
