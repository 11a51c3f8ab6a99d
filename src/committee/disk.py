"""Files that are whole or not there: written beside their place, on the disk when the call returns.

A file's bytes go into a hidden neighbour, which is synced and then renamed, and the folder is synced: after a kill or a
power cut the file is the old one or the new one, and what was written earlier is there if what was written later is
(Pillai et al. 2014, "All file systems are not created equal", OSDI). Every failure is a `StorageError` of one sentence.
"""

from __future__ import annotations

import contextlib
import errno
import os
import warnings
from collections.abc import Iterable, Iterator
from pathlib import Path

from committee.errors import StorageError

UNSUPPORTED = {errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP}
"""What file systems answer that lack an operation, such as fsync on some network shares."""

BLOCK = 16 * 2**20  # bytes of a file that are copied at once

REMEDIES = {
    errno.ENOSPC: "free some space and give the same command again",
    errno.EDQUOT: "free some of your quota and give the same command again",
    errno.EROFS: "give a folder on a disk that can be written to",
    errno.EACCES: "give a folder that you may write to, or its permissions",
    errno.EPERM: "give a folder that you may write to, or its permissions",
    errno.ENOENT: "its folder does not exist, or not any more; make it or put it back and give the same command again",
    errno.ENAMETOOLONG: "give a shorter name",
}


class DurabilityNote(UserWarning):
    """A file system cannot do what a power cut would ask of it."""


def write(path: Path, content: bytes | memoryview, *, synced: bool = True) -> None:
    """A file, whole or not at all; see `write_parts`, which it is with one part."""
    write_parts(path, (content,), synced=synced)


def write_parts(path: Path, parts: Iterable[bytes | memoryview], *, synced: bool = True) -> None:
    """A file, whole or not at all.

    Args:
        path: the file; an older one is replaced. Its folder must be there: one that was moved away while a training
            runs must not come back in part.
        parts: its content, one behind the other; each is asked for when the one before is written.
        synced: whether it must survive a power cut; what is written often and kept elsewhere, too, need not.

    Raises:
        StorageError: it cannot be written; an older file is still there, and nothing else.

    Warns:
        DurabilityNote: the file system cannot sync or rename.
    """
    with failures_said(path):
        unfinished = path.with_name(f".{path.name}.part")
        try:
            _put(unfinished, parts, synced)
            try:
                os.replace(unfinished, path)
            except OSError as error:
                if error.errno not in UNSUPPORTED:
                    raise
                _note(f"{path.parent} is on a file system that cannot rename files")
                _copy(unfinished, path, synced)
            if synced:
                _sync_folder(path.parent)
        finally:
            discard(unfinished)


@contextlib.contextmanager
def replaced(path: Path) -> Iterator[Path]:
    """A block that fills a hidden neighbour of a file, which then takes its place; nothing is left where it fails.

    Raises:
        StorageError: it cannot be written.
    """
    unfinished = path.with_name(f".{path.name}.part")
    with failures_said(path):
        try:
            yield unfinished
            file = os.open(unfinished, os.O_RDWR | getattr(os, "O_BINARY", 0))
            try:
                _sync(file, path)
            finally:
                os.close(file)
            os.replace(unfinished, path)
            _sync_folder(path.parent)
        finally:
            discard(unfinished)


def make_folder(folder: Path, *, within: Path | None = None) -> None:
    """A folder with all above it, each synced into the one that holds it.

    Args:
        folder: what is to be there.
        within: the folder above it that must be there already; None makes any.

    Raises:
        StorageError: it cannot be made.
    """
    with failures_said(folder):
        if within is not None and not within.is_dir():
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(within))
        _make_folder(folder)


def append(path: Path, content: bytes) -> None:
    """More bytes at the end of a small file, which is written anew, so that they are there whole or not at all.

    Raises:
        StorageError: it cannot be written.
    """
    with failures_said(path):
        before = path.read_bytes() if path.exists() else b""
    write(path, before + content)


def remove(path: Path) -> None:
    """Delete a file if it is there, and from the disk before anything later is written.

    Raises:
        StorageError: it cannot be deleted.
    """
    with failures_said(path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return
        _sync_folder(path.parent)


def remove_unfinished(folder: Path) -> None:
    """Delete what killed processes have left half-written in a folder and below."""
    for path in folder.rglob(".*.part"):
        discard(path)


def discard(path: Path) -> None:
    """Delete a file that is of no use any more, if that is possible."""
    with contextlib.suppress(OSError):
        os.unlink(path)


@contextlib.contextmanager
def failures_said(path: Path | str) -> Iterator[None]:
    """An OSError of the block as a `StorageError` that says what to do.

    Args:
        path: what was to be written.
    """
    try:
        yield
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path | str, error: OSError) -> StorageError:
    """The error of a file that cannot be written."""
    remedy = REMEDIES.get(error.errno or 0, "check the disk and give the same command again")
    return StorageError(f"{path} cannot be written ({error.strerror or error}); {remedy}")


def _make_folder(folder: Path) -> None:
    """A folder with all above it, each synced into the one that holds it."""
    if folder.is_dir():
        return
    _make_folder(folder.parent)
    with contextlib.suppress(FileExistsError):
        os.mkdir(folder)
    if not folder.is_dir():
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(folder))
    _sync_folder(folder.parent)


def _copy(source: Path, path: Path, synced: bool) -> None:
    with source.open("rb") as content:
        _put(path, iter(lambda: content.read(BLOCK), b""), synced)


def _put(path: Path, parts: Iterable[bytes | memoryview], synced: bool) -> None:
    file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | getattr(os, "O_BINARY", 0), 0o666)
    try:
        for part in parts:
            left = memoryview(part)
            while left:
                left = left[os.write(file, left) :]
        if synced:
            _sync(file, path)
    finally:
        os.close(file)


def _sync(file: int, path: Path) -> None:
    try:
        os.fsync(file)
    except OSError as error:
        if error.errno not in UNSUPPORTED:
            raise
        _note(f"{path.parent} is on a file system that cannot sync files to its disk")


def _sync_folder(folder: Path) -> None:
    if os.name == "nt":  # folders cannot be opened there, and a rename is in the journal
        return
    file = os.open(folder, os.O_RDONLY)
    try:
        _sync(file, folder)
    finally:
        os.close(file)


def _note(what: str) -> None:
    risk = "a power cut may damage the files written last; damaged files are noticed when they are read"
    warnings.warn(f"{what}, so that {risk}", DurabilityNote, stacklevel=2)
