"""Images -> files that all jobs of a training map into memory, for as long as it runs.

They lie in a folder `committee-XXXXXXXX` where temporary files belong (TMPDIR). A training that is killed cannot remove
its folder, so it holds a lock on a file in it, which the system gives back whatever way the process ends: the next
training on this machine removes every folder whose lock can be had. Platforms without `fcntl` leave such folders.
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
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from committee.data.dataset import LabelledImages
from committee.errors import StorageError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

PREFIX, LOCK = "committee-", "owner.lock"
OURS = re.compile(rf"\d+-(pixels|labels)\.npy|{re.escape(LOCK)}(\.new)?")  # what such a folder holds, and nothing else
WEEK = 7 * 24 * 3600.0
HEADER = 4096  # bytes of an NPY header and of the file system's own, at most


@dataclass(frozen=True)
class SharedImages:
    """Images and labels as NPY files that all jobs map into memory."""

    pixels: Path
    labels: Path

    def load(self) -> LabelledImages:
        """The images, mapped copy on write: shared by all processes, never written to."""
        return LabelledImages(np.load(self.pixels, mmap_mode="c"), np.load(self.labels))


@contextmanager
def shared(*parts: LabelledImages | None) -> Iterator[list[SharedImages | None]]:
    """Images as files for all workers, deleted at the end; None stays None.

    Raises:
        StorageError: there is no room for them, or they cannot be written.
    """
    needed = sum(part.pixels.nbytes + part.labels.nbytes + 2 * HEADER for part in parts if part is not None)
    remove_abandoned()
    with _temporary_folder(needed) as folder:
        found: list[SharedImages | None] = []
        for number, part in enumerate(parts):
            files = SharedImages(folder / f"{number}-pixels.npy", folder / f"{number}-labels.npy")
            if part is not None:
                with _refusal_in_a_sentence(folder, needed):
                    np.save(files.pixels, part.pixels)
                    np.save(files.labels, part.labels)
            found.append(None if part is None else files)
        yield found


@contextmanager
def _temporary_folder(needed: int) -> Iterator[Path]:
    """A new folder with room for so many bytes, locked while it is in use, removed at the end."""
    with _refusal_in_a_sentence(None, needed):
        folder = Path(tempfile.mkdtemp(prefix=PREFIX))
    try:
        if shutil.disk_usage(folder).free < needed:
            raise StorageError(_no_room(folder, needed))
        with _refusal_in_a_sentence(folder, needed):
            lock = _locked(folder)
        try:
            yield folder
        finally:
            if lock is not None:
                os.close(lock)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _refusal_in_a_sentence(folder: Path | None, needed: int) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # numpy's has no errno where a disk is full: "4000 requested and 1008 written"
        raise StorageError(_no_room(folder, needed, error)) from error


def _no_room(folder: Path | None, needed: int, error: OSError | None = None) -> str:
    why = "" if error is None else f" ({error.strerror or error})"
    if folder is None:
        return f"no temporary folder can be written{why}; set TMPDIR to a folder with {needed:,} bytes free"
    return (
        f"{folder.parent} has {shutil.disk_usage(folder).free:,} bytes free, but the copies of the images that all "
        f"workers read need {needed:,}{why}; free some space, or set TMPDIR to a folder that has more"
    )


# --- folders of trainings that were killed ----------------------------------------------------------------------------


def _locked(folder: Path) -> int | None:
    """The descriptor of a new locked file in a folder; None where there are no such locks.

    It is locked before it gets its name: another training never sees it without the lock.
    """
    if fcntl is None:
        return None
    descriptor = os.open(folder / f"{LOCK}.new", os.O_CREAT | os.O_RDWR, 0o600)
    with suppress(OSError):  # a file system without locks; the folder then counts as one in use, see below
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        (folder / f"{LOCK}.new").rename(folder / LOCK)
    return descriptor


def remove_abandoned() -> None:
    """Remove this user's folders of images whose training is dead; whatever cannot be removed stays."""
    if fcntl is None:
        return
    with suppress(OSError):
        for folder in Path(tempfile.gettempdir()).glob(f"{PREFIX}*"):
            with suppress(OSError):
                if _is_ours(folder) and _is_abandoned(folder):
                    shutil.rmtree(folder, ignore_errors=True)


def _is_ours(folder: Path) -> bool:
    """Whether a folder is this user's and holds nothing but copies of images."""
    found = folder.lstat()
    names = [path.name for path in folder.iterdir()] if stat.S_ISDIR(found.st_mode) else []
    is_own_folder = stat.S_ISDIR(found.st_mode) and found.st_uid == os.getuid()
    return is_own_folder and all(OURS.fullmatch(name) for name in names)


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
