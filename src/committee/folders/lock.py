"""One process at a time writes a folder: the lock of a run or a study, and who holds it."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from committee import disk
from committee.errors import RunError

LOCK, HOLDER = ".lock", ".lock-holder.json"
"""The locked file, which stays, and who has it. Hidden files are no content of a folder."""


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Hold the lock of a folder for a block; what killed processes left half-written in it is removed first.

    The system takes the lock from a process that dies.

    Raises:
        RunError: another process has it; the message names that.
        StorageError: the folder cannot be written to.

    Warns:
        DurabilityNote: the file system has no locks.
    """
    disk.make_folder(folder)
    lock = FileLock(folder / LOCK, thread_local=False)
    with disk.failures_said(folder):
        try:
            lock.acquire(blocking=False)
        except Timeout:
            raise RunError(
                f"{folder} is being written by {_words(folder)}; wait for it to end, or give another folder (--out)"
            ) from None
        except NotImplementedError:
            text = f"{folder} is on a file system without locks; do not let two processes write it at once"
            warnings.warn(text, disk.DurabilityNote, stacklevel=3)
    try:
        disk.remove_unfinished(folder)
        me = {
            "process": os.getpid(),
            "host": platform.node(),
            "since": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]]),
        }
        disk.write(folder / HOLDER, json.dumps(me).encode(), synced=False)
        yield
    finally:
        with suppress(OSError):
            (folder / HOLDER).unlink(missing_ok=True)
        lock.release()


def is_empty(folder: Path) -> bool:
    """Whether a folder holds nothing but what a killed process leaves that had not written a whole file yet."""
    return all(each.name in (LOCK, HOLDER) or each.match(".*.part") for each in folder.iterdir())


def holder(folder: Path) -> str:
    """Who is writing a folder at this moment, in words; "" where nobody is.

    Where a process has said that it does, and did not say that it ended, its lock is tried and at once let go.
    """
    if not (folder / HOLDER).exists() or (folder / LOCK).is_symlink():  # trying a lock opens it to be written
        return ""
    lock = FileLock(folder / LOCK, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return _words(folder)
    except (OSError, NotImplementedError):  # a folder that may only be read, or has no locks: nobody can tell
        return ""
    lock.release()
    return ""


def _words(folder: Path) -> str:
    """Who has a folder's lock."""
    try:
        me = json.loads((folder / HOLDER).read_bytes())
        return f"process {me['process']} on {me['host']} since {me['since']} ({me['command']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "another process"
