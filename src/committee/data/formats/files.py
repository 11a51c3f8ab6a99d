"""A folder, a zip and a single file look alike: names with bytes behind them. Nothing is unpacked to disk.

Every reader takes a `Files`, so that each format can be read from a folder and from a zip, and messages name the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import mmap
import os
import re
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from committee.errors import DataError, counted

MAX_BYTES = 8 * 2**30
"""The most bytes that a data set may have once decoded; headers and archives that announce more are not read."""

MAX_IMAGE_PIXELS = 64_000_000
"""The most pixels that an image file may have."""

MAPPED_BYTES = 64 * 2**20
"""Arrays of at least this size that lie uncompressed in a file of their own are memory-mapped instead of read."""

MAX_FILES = 2_000_000

HEAD_BYTES = 32
"""How much of a file tells what it holds."""

_FAULTS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(SyntaxError, struct.error, zlib.error),
)
"""What decoders raise at damaged files, where one would expect a single type."""

_READ = os.O_RDONLY | getattr(os, "O_BINARY", 0)

_CLUTTER = {"__MACOSX", "Thumbs.db", "desktop.ini", "Icon\r"}


def reason(error: Exception) -> str:
    """A library's error message in a form that fits into a sentence: one line, at most 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."


def check_image_size(height: int, width: int, label: str) -> None:
    """Refuse an image with more than `MAX_IMAGE_PIXELS`, before any of it is decoded."""
    if width * height > MAX_IMAGE_PIXELS:
        raise DataError(
            f"{label}: an image of at most {MAX_IMAGE_PIXELS:,} pixels is expected, got {width}x{height}; shrink it"
        )


@contextmanager
def decoding(label: str) -> Iterator[None]:
    """While an image is decoded: whatever a decoder raises at a damaged file becomes a `DataError`."""
    try:
        yield
    except DataError:
        raise
    except NotImplementedError as error:  # a compression or packing that is left to another package
        raise DataError(
            f"{label}: an image stored in this way is not read ({reason(error)}); install it, or save it with "
            "8 or 16 bits and without compression"
        ) from error
    except _FAULTS as error:
        raise DataError(
            f"{label}: the image is damaged or cut off ({reason(error)}); replace or remove the file"
        ) from error


@dataclass(frozen=True)
class Files:
    """Files by name.

    Attributes:
        where: the folder or zip that the names are relative to, for messages.
        names: sorted, with forward slashes, without hidden files and clutter.
        opener: full name (with the prefix) -> the file, opened for reading bytes.
        sizer: full name -> bytes as they are stored, before a ``.gz`` is decompressed.
        prefix: what precedes each name in the folder or zip.
        separator: what stands between `where` and a name in messages.
        folders: the names of all folders, sorted, without hidden ones; empty folders are found here alone.
        notes: remarks for people, such as about links that were not followed.
        reader: full name, a number -> so many bytes from the beginning, or all; quicker than `opener` for small files.
        heads: the first bytes of the files that `head` has looked at, by full name.
    """

    where: str
    names: tuple[str, ...]
    opener: Callable[[str], BinaryIO]
    sizer: Callable[[str], int]
    prefix: str = ""
    separator: str = "/"
    folders: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reader: Callable[[str, int], bytes] | None = None
    heads: dict[str, bytes] = field(default_factory=dict, repr=False, compare=False)

    def label(self, name: str) -> str:
        """The name for messages: with the folder or zip before it."""
        return f"{self.where}{self.separator}{self.prefix}{name}" if name else self.where

    def size(self, name: str) -> int:
        """Bytes according to the file system or the zip's directory.

        Raises:
            DataError: there is no such file, as behind a symbolic link that leads nowhere.
        """
        try:
            return self.sizer(self.prefix + name)
        except OSError as error:
            raise self._unreadable(name, error) from error

    def head(self, name: str) -> bytes:
        """The first `HEAD_BYTES` bytes as they are stored; none where the file cannot be read; kept once read."""
        full = self.prefix + name
        if full not in self.heads:
            try:
                with self.open(name, unzip=False) as file:
                    self.heads[full] = file.read(HEAD_BYTES)
            except DataError:
                self.heads[full] = b""
        return self.heads[full]

    def _unreadable(self, name: str, error: Exception) -> DataError:
        return DataError(f"{self.label(name)}: the file cannot be read ({reason(error)}); copy or download it again")

    @contextmanager
    def open(self, name: str, unzip: bool = True) -> Iterator[BinaryIO]:
        """Open one file for reading bytes; a ``.gz`` or ``.bz2`` is decompressed on the way unless `unzip` is false.

        Raises:
            DataError: the file cannot be opened, read or decompressed.
        """
        try:
            with self.opener(self.prefix + name) as file:
                if unzip and name.endswith(".gz") and self._is_gzip(file, name):
                    with gzip.open(file) as unzipped:
                        yield cast(BinaryIO, unzipped)
                elif unzip and name.endswith(".bz2"):
                    with bz2.open(file) as unzipped:
                        yield cast(BinaryIO, unzipped)
                else:
                    yield file
        except DataError:
            raise
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise self._unreadable(name, error) from error

    def _is_gzip(self, file: BinaryIO, name: str) -> bool:
        """Whether a file called .gz is compressed: browsers unpack some and keep the name, or save a page instead."""
        head = cast(io.BufferedReader, file).peek(256)[:256]
        if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise DataError(
                f"{self.label(name)}: a compressed file is expected, got an HTML page (perhaps the page of its "
                "download, or of an error); download the file itself"
            )
        return head[:2] == b"\x1f\x8b" or not head

    def read(self, name: str, limit: int = MAX_BYTES) -> bytes:
        """All bytes of one file, decompressed where it is a ``.gz`` or ``.bz2``.

        Raises:
            DataError: as in `open`, or there are more than `limit` bytes.
        """
        if self.reader is not None and not name.endswith((".gz", ".bz2")):
            try:
                content = self.reader(self.prefix + name, limit + 1)
            except OSError as error:
                raise self._unreadable(name, error) from error
            if len(content) <= limit:
                return content
        elif self.size(name) <= limit:
            with self.open(name) as file:
                content = file.read(limit + 1)
            if len(content) <= limit:
                return content
        raise DataError(
            f"{self.label(name)}: at most {limit:,} bytes are read, and the file has more; give a part of it"
        )

    def without_top_folder(self, chosen: Sequence[str] | None = None) -> Files:
        """The files, named from within the innermost folder that holds all of them, or those chosen; without others."""
        parents = [name.split("/")[:-1] for name in (self.names if chosen is None else chosen)]
        first, last = min(parents, default=[]), max(parents, default=[])
        top = first[: next((i for i, (a, b) in enumerate(zip(first, last, strict=False)) if a != b), len(first))]
        if not top:
            return self
        inside = "/".join(top) + "/"
        names = tuple(name[len(inside) :] for name in self.names if name.startswith(inside))
        folders = tuple(name[len(inside) :] for name in self.folders if name.startswith(inside))
        return replace(self, names=names, folders=folders, prefix=self.prefix + inside)


PARTS = {
    "train": "train", "training": "train",
    "val": "val", "valid": "val", "validation": "val",
    "test": "test", "testing": "test", "t10k": "test",
}  # fmt: skip
"""The part of a data set that a word in a folder's or file's name stands for."""


def part_of(name: str) -> str | None:
    """The part of a data set that the words in a file's name, or else in its folders' names, stand for."""
    folder, _, base = name.rpartition("/")
    words = [*re.split("[^a-z0-9]+", base.lower()), *reversed(folder.lower().split("/"))]
    return next((PARTS[word] for word in words if word in PARTS), None)


def names_by_part(files: Files, suffixes: tuple[str, ...]) -> dict[str, list[str]]:
    """The files with these endings by part: "train" first, then "val" and "test", as their names say.

    A single file is the training part whatever its name, and so are files that differ in their numbers only; of others,
    those whose names say no part are left out.

    Raises:
        DataError: there are several files and none is called train, or there are several data sets.
    """
    names = [name for name in files.names if name.lower().endswith(suffixes)]
    if len(names) == 1:
        return {"train": names}
    found: dict[str, list[str]] = {}
    sets: dict[str, set[str]] = {}
    for name in names:
        part = part_of(name)
        if part is not None:
            found.setdefault(part, []).append(name)
            sets.setdefault(part, set()).add(_set_name(name, suffixes))
    if not found and len({_set_name(name, suffixes) for name in names}) == 1:
        return {"train": names}
    if "train" not in found:
        listed = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise DataError(
            f"{files.where}: a file called train is expected, got {listed}; rename the training file or give its path"
        )
    several = next((each for each in sets.values() if len(each) > 1), None)
    if several:
        listed = ", ".join(name or "(no prefix)" for name in sorted(several))
        raise DataError(
            f"{files.where}: files of one data set are expected, got those of {len(several)} ({listed}); give the path "
            "of one file, or of a folder that holds only one"
        )
    return {part: found[part] for part in ("train", "val", "test") if part in found}


def _set_name(name: str, suffixes: tuple[str, ...]) -> str:
    """What a file's name says besides its part and its number among others: which data set it belongs to."""
    folder, _, base = name.rpartition("/")
    stem = base[: -len(max((suffix for suffix in suffixes if base.lower().endswith(suffix)), key=len, default=""))]
    no_set = re.compile("|".join([*PARTS, "of", "part", "shard", r"\d+", r"(?=\w*\d)[0-9a-f]{8,}"]))
    words = (
        [word for word in re.split("[^a-z0-9]+", each.lower()) if word and not no_set.fullmatch(word)]
        for each in [*folder.split("/"), stem]
    )
    return "/".join("-".join(each) for each in words if each)


def _plain_file(file: BinaryIO, expected: int) -> str:
    """The path of an open uncompressed file that has at least `expected` bytes left to read; "" for anything else."""
    raw = getattr(file, "raw", None)
    if not isinstance(raw, io.FileIO) or not isinstance(raw.name, (str, os.PathLike)):
        return ""
    return os.fspath(raw.name) if os.fstat(raw.fileno()).st_size - file.tell() >= expected else ""


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is, or is a view of, a memory-mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return isinstance(base, (np.memmap, mmap.mmap))


def rows_of(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """array[positions], without memory for it where the array is memory-mapped.

    The rows of a memory-mapped array are copied into a temporary file, which is memory-mapped in turn and goes when the
    result is no longer used.
    """
    if not is_mapped(array):
        return array[positions]
    with tempfile.TemporaryFile() as file:
        rows = np.memmap(file, array.dtype, "w+", shape=(len(positions), *array.shape[1:]))
    for start in range(0, len(positions), 10_000):
        rows[start : start + 10_000] = array[positions[start : start + 10_000]]
    return np.asarray(rows)


def split_rows(
    array: NDArray[Any], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """array[first] and array[second], both in the memory of the array, which must not be used any more.

    Only as much room as `second` needs is taken meanwhile. An array that cannot be written to is copied, one that is
    memory-mapped as `rows_of` does it.

    Args:
        array: (row, ...).
        first: positions, ascending.
        second: all other positions, ascending.
    """
    if is_mapped(array) or not array.flags.writeable:
        return rows_of(array, first), rows_of(array, second)
    kept_aside = array[second]
    for start in range(0, len(first), 1000):  # rows only move towards the beginning
        some = first[start : start + 1000]
        array[start : start + len(some)] = array[some]
    array[len(first) :] = kept_aside
    return array[: len(first)], array[len(first) :]


def read_exactly(file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any], label: str) -> NDArray[Any]:
    """The array that a file holds from here on: a large one in an uncompressed file is memory-mapped, others are read.

    Args:
        file: open, positioned behind the header.
        shape: as the header says.
        dtype: as the header says.
        label: name for messages.

    Raises:
        DataError: the array would be larger than `MAX_BYTES`, or the file ends early.
    """
    expected = int(np.prod([int(size) for size in shape], dtype=object)) * dtype.itemsize
    if expected > MAX_BYTES:
        raise DataError(
            f"{label}: at most {MAX_BYTES:,} bytes are read, and the header announces {expected:,} (shape {shape}, "
            f"{dtype}); check the file or give fewer images"
        )
    if expected >= MAPPED_BYTES and (path := _plain_file(file, expected)):
        array = np.asarray(np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape))
        file.seek(expected, os.SEEK_CUR)
        return array
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
            f"{label}: the file is cut off: {expected:,} bytes of data are expected, got {got:,}; "
            "copy or download it again"
        )
    return array


def _wanted(parts: list[str]) -> bool:
    """Whether no part of a name is hidden or clutter that operating systems leave behind."""
    return not any(part.startswith(".") or part in _CLUTTER for part in parts)


def _beginning(path: str, limit: int) -> bytes:
    """At most so many bytes of a file, without what Python's file objects cost: a third of decoding a small image."""
    handle = os.open(path, _READ)
    try:
        content = os.read(handle, min(limit, 2**16))
        if len(content) < 2**16:
            return content
        parts = [content]
        while parts[-1] and (left := limit - sum(map(len, parts))):
            parts.append(os.read(handle, min(left, 2**24)))
        return b"".join(parts)
    finally:
        os.close(handle)


def _walked(path: Path, deep: bool) -> tuple[list[str], list[str], list[str]]:
    """The names of the files and of the folders at a path, sorted, and notes about links that were not followed.

    All folders are read before the first link is followed, so that a folder keeps its own name where a link leads to it
    as well, and no folder is read twice.
    """
    names: list[str] = []
    folders: list[str] = []
    passed_over: list[str] = []
    root = path.resolve()
    seen: set[Path] = set()
    real: list[tuple[str, Path]] = [("", root)]
    linked: list[tuple[str, Path]] = []
    while real or linked:
        if real:
            name, target = real.pop()
        else:
            name, target = linked.pop(linked.index(min(linked)))
            if target in seen or root.is_relative_to(target):
                passed_over.append(name)
                continue
        if target in seen:  # a link led here before
            continue
        seen.add(target)
        folders.append(name)
        files, inner, links = _listed(path / name, f"{name}/" if name else "")
        names += files
        if len(names) > MAX_FILES:
            raise DataError(
                f"{path}: at most {MAX_FILES:,} files are read, and the folder has more; give the path of the "
                "folder that holds the images"
            )
        if not deep:
            break
        real += [(folder, target / folder.rpartition("/")[2]) for folder in inner]
        linked += [(link, (path / link).resolve()) for link in links]
    notes = []
    if passed_over:
        listed = ", ".join(passed_over[:5]) + (", ..." if len(passed_over) > 5 else "")
        notes.append(
            f"{counted(len(passed_over), 'linked folder')} ({listed}) {'was' if len(passed_over) == 1 else 'were'} "
            "passed over, leading to folders that are read already or hold the data"
        )
    return sorted(names), sorted(folders)[1:], notes


def _listed(folder: Path, prefix: str) -> tuple[list[str], list[str], list[str]]:
    """The files, the real folders and the linked folders in a folder, with a prefix before their names.

    A link that leads nowhere counts as a file, which cannot be read; pipes, sockets and devices are passed over.
    """
    files: list[str] = []
    folders: list[str] = []
    links: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                name = prefix + entry.name
                if entry.name.startswith(".") or entry.name in _CLUTTER:
                    continue
                if entry.is_file(follow_symlinks=False):
                    files.append(name)
                elif entry.is_dir(follow_symlinks=False):
                    folders.append(name)
                elif entry.is_symlink():
                    place = Path(entry.path)
                    if place.is_dir():
                        links.append(name)
                    elif place.is_file() or not place.exists():
                        files.append(name)
    except OSError as error:
        raise DataError(
            f"{folder}: the folder cannot be read ({error.strerror}); allow it, or give the path of another"
        ) from error
    return files, folders, links


@contextmanager
def open_files(path: Path, deep: bool = True) -> Iterator[Files]:
    """The files at a path: those in a folder, those in a zip or NPZ, or the one file that it names.

    Args:
        path: a folder, a zip or a file. Symbolic links to folders are followed, each real folder once.
        deep: whether those in a folder's subfolders belong to it.

    Raises:
        DataError: the path or a folder in it does not exist or cannot be read, or it is a damaged zip.
    """
    if path.is_dir():
        names, folders, notes = _walked(path, deep)
        yield Files(
            str(path),
            tuple(names),
            lambda name: (path / name).open("rb"),
            lambda name: (path / name).stat().st_size,
            reader=lambda name, limit: _beginning(f"{path}/{name}", limit),
            folders=tuple(folders),
            notes=tuple(notes),
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
    """The members of a zip, such as an NPZ, that is one of `files`."""
    with files.open(name) as file, _opened_zip(file, files.label(name)) as members:
        yield members


def _folders_of_zip(archive: zipfile.ZipFile) -> set[str]:
    """The folders that a zip names, and those above its files."""
    found: set[str] = set()
    for name in archive.namelist():
        parts = name.split("/")[:-1]
        if _wanted(parts):
            found.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return found


@contextmanager
def _opened_zip(file: BinaryIO, where: str) -> Iterator[Files]:
    with file:
        try:
            archive = zipfile.ZipFile(file)
            infos = {info.filename: info for info in archive.infolist() if not info.is_dir()}
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
            raise DataError(
                f"{where}: a zip is expected, got something else ({reason(error)}); copy or download it again"
            ) from error
        with archive:
            promised = sum(info.file_size for info in infos.values())
            if promised > MAX_BYTES:
                raise DataError(
                    f"{where}: at most {MAX_BYTES:,} bytes are read, and it would unpack to {promised:,}; "
                    "unpack it yourself and give the part you need"
                )
            yield Files(
                where,
                tuple(sorted(name for name in infos if _wanted(name.split("/")))),
                lambda name: cast(BinaryIO, archive.open(infos[name])),
                lambda name: infos[name].file_size,
                separator=": ",
                folders=tuple(sorted(_folders_of_zip(archive))),
            )
