"""A folder, a zip or a single file, seen the same way: names, and bytes behind them. Nothing is ever extracted to disk.

Every reader takes a `Files`, so each format works from a folder and from a zip, and each message names the file.
"""

from __future__ import annotations

import gzip
import io
import mmap
import os
import re
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from committee.errors import DataError

MAX_BYTES = 8 * 2**30
"""Decoded bytes that a data set may have; a header or an archive that asks for more is refused before it is read."""

MAPPED_BYTES = 64 * 2**20
"""An array of so many bytes in a plain file is mapped into memory, not read: the system fetches what is looked at."""

MAX_FILES = 2_000_000

_CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}


def reason(error: Exception) -> str:
    """What a library said about a fault, fit for the middle of a sentence: one line, not too long."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."


@dataclass(frozen=True)
class Files:
    """Files by name.

    Attributes:
        where: the folder, zip or file that a person gave, for messages.
        names: names relative to it, with forward slashes, sorted; hidden files and clutter left out.
        prefix: what stands before each name in the folder or zip itself.
    """

    where: str
    names: tuple[str, ...]
    opener: Callable[[str], BinaryIO]
    sizer: Callable[[str], int]
    prefix: str = ""
    separator: str = "/"

    def label(self, name: str) -> str:
        """The name for a message: with its folder, zip or parent."""
        return f"{self.where}{self.separator}{self.prefix}{name}" if name else self.where

    def size(self, name: str) -> int:
        """Bytes as the folder or the zip's list of contents has it."""
        return self.sizer(self.prefix + name)

    @contextmanager
    def open(self, name: str, unzip: bool = True) -> Iterator[BinaryIO]:
        """Open one file for reading bytes; a ``.gz`` is uncompressed on the way unless `unzip` is false.

        Raises:
            DataError: the file cannot be opened or read, or its compressed bytes are damaged.
        """
        try:
            with self.opener(self.prefix + name) as file:
                if unzip and name.endswith(".gz"):
                    with gzip.open(file) as unzipped:
                        yield cast(BinaryIO, unzipped)
                else:
                    yield file
        except DataError:
            raise
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise DataError(
                f"{self.label(name)}: the file cannot be read ({reason(error)}); copy or download it again"
            ) from error

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """All bytes of one file (uncompressed where it is a ``.gz``).

        Raises:
            DataError: as `open`, or there are more than `limit` bytes.
        """
        if self.size(name) <= limit:
            with self.open(name) as file:
                content = file.read(limit + 1)
            if len(content) <= limit:
                return content
        raise DataError(f"{self.label(name)}: the file has more than {limit:,} bytes, the most that is read at once")

    def without_top_folder(self) -> Files:
        """The same files seen from inside the one folder that holds them all, however deep it is."""
        parents = [name.split("/")[:-1] for name in self.names]
        first, last = min(parents, default=[]), max(parents, default=[])
        top = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
        if not top:
            return self
        inside = "/".join(top) + "/"
        names = tuple(name[len(inside) :] for name in self.names)
        return replace(self, names=names, prefix=self.prefix + inside)


PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "t10k": "test",
}  # fmt: skip
"""Words for the parts of a data set, as folders and files are called."""


def names_by_part(files: Files, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """The files of one format by part: "train" first, then "val" and "test" where their names say so.

    A single file is the training part whatever it is called; otherwise files that name no part are left out.

    Raises:
        DataError: several files and none of training images, or files of several data sets side by side.
    """
    names = [name for name in files.names if name.lower().endswith(suffixes)]
    if len(names) == 1:
        return {"train": names}
    found: dict[str, list[str]] = {}
    folders = set()
    for name in names:
        folder, _, base = name.rpartition("/")
        words = [*re.split("[^a-z0-9]+", base.lower()), *reversed(folder.lower().split("/"))]
        part = next((PARTS[word] for word in words if word in PARTS), None)
        if part is not None:
            found.setdefault(part, []).append(name)
            folders.add("/".join(word for word in folder.split("/") if word.lower() not in PARTS))
    if "train" not in found:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise DataError(
            f"{files.where}: it holds {listed}, and none is called train; rename the training file or give its path"
        )
    if len(folders) > 1:
        raise DataError(
            f"{files.where}: there are data sets in several folders ({', '.join(sorted(folders))}); give the path of "
            "one"
        )
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _plain_file(file: BinaryIO, expected: int) -> str:
    """The path of an uncompressed file on disk that holds so many bytes from here on; "" for anything else."""
    raw = getattr(file, "raw", None)
    if not isinstance(raw, io.FileIO) or not isinstance(raw.name, (str, os.PathLike)):
        return ""
    return os.fspath(raw.name) if os.fstat(raw.fileno()).st_size - file.tell() >= expected else ""


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array lies in a file that is mapped into memory."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return isinstance(base, (np.memmap, mmap.mmap))


def rows_of(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """array[positions]; of a mapped array in a temporary file, mapped likewise, that is gone when it is let go."""
    if not is_mapped(array):
        return array[positions]
    with tempfile.TemporaryFile() as file:
        rows = np.memmap(file, array.dtype, "w+", shape=(len(positions), *array.shape[1:]))
    for start in range(0, len(positions), 10_000):
        rows[start : start + 10_000] = array[positions[start : start + 10_000]]
    return np.asarray(rows)


def read_exactly(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> NDArray[Any]:
    """Fill a new array from a file, in one piece and without a copy; map a large one that lies there uncompressed.

    Raises:
        DataError: the array would be larger than `MAX_BYTES`, or the file ends early (both numbers are named).
    """
    expected = int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
    if expected > MAX_BYTES:
        raise DataError(
            f"{label}: its header asks for {expected:,} bytes (shape {shape}, {dtype}), more than the limit of "
            f"{MAX_BYTES:,}; "
            "check the file or give fewer images"
        )
    if expected >= MAPPED_BYTES and (path := _plain_file(file, expected)):
        return np.asarray(np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape))
    array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data if expected else memoryview(bytearray())
    got = 0
    try:
        while got < expected and (count := cast(io.BufferedIOBase, file).readinto(view[got:])):
            got += count
    except (EOFError, zlib.error):
        pass
    if got < expected:
        raise DataError(
            f"{label}: the file is cut off: its header promises {expected:,} bytes of data, {got:,} are there; "
            "copy or download it again"
        )
    return array


def _wanted(parts: list[str]) -> bool:
    return not any(part.startswith(".") or part in _CLUTTER for part in parts)


@contextmanager
def open_files(path: Path, deep: bool = True) -> Iterator[Files]:
    """The files behind a path: those of a folder (with its subfolders where `deep`), of a zip, or the file itself.

    Raises:
        DataError: the path does not exist, is not readable, or is a damaged zip.
    """
    if path.is_dir():
        names = []
        for folder, folders, found in os.walk(path):
            folders[:] = sorted(name for name in folders if deep and _wanted([name]))
            relative = Path(folder).relative_to(path)
            names += [(relative / name).as_posix() for name in found if _wanted([name])]
            if len(names) > MAX_FILES:
                raise DataError(
                    f"{path}: there are more than {MAX_FILES:,} files below this folder; name the folder that holds "
                    "the images"
                )
        yield Files(
            str(path),
            tuple(sorted(names)),
            lambda name: (path / name).open("rb"),
            lambda name: (path / name).stat().st_size,
        )
    elif not path.is_file():
        raise DataError(f"{path}: there is no such file or folder; check the path")
    elif path.suffix.lower() in (".zip", ".npz"):
        with _opened_zip(path.open("rb"), str(path)) as files:
            yield files
    else:
        yield Files(str(path.parent), (path.name,), lambda name: path.open("rb"), lambda name: path.stat().st_size)


@contextmanager
def open_zip(files: Files, name: str) -> Iterator[Files]:
    """The members of a zip (such as an NPZ) that is itself one of `files`."""
    with files.open(name) as file, _opened_zip(file, files.label(name)) as members:
        yield members


@contextmanager
def _opened_zip(file: BinaryIO, where: str) -> Iterator[Files]:
    with file:
        try:
            archive = zipfile.ZipFile(file)
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{where}: this is not a readable zip ({reason(error)}); copy or download it again"
            ) from error
        with archive:
            promised = sum(info.file_size for info in infos.values())
            if promised > MAX_BYTES:
                raise DataError(
                    f"{where}: its members would take {promised:,} bytes unpacked, more than the limit of "
                    f"{MAX_BYTES:,}; "
                    "unpack it yourself and give the part you need"
                )
            yield Files(
                where,
                tuple(sorted(name for name in infos if _wanted(name.split("/")))),
                lambda name: cast(BinaryIO, archive.open(infos[name])),
                lambda name: infos[name].file_size,
                separator=": ",
            )
