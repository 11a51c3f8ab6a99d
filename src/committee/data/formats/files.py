"""A folder, a zip and a single file look alike: names with bytes behind them. Nothing is unpacked to disk.

Every reader takes a `Files`, so that each format can be read from a folder and from a zip, and messages name the file.
"""

from __future__ import annotations

import bz2
import gzip
import io
import re
import struct
import tokenize
import zipfile
import zlib
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any, BinaryIO, cast

from committee.data.limits import VARIABLE, Limit, limits
from committee.errors import DataError

_BLOCK = 2**17

HEAD_BYTES = 32
"""How much of a file tells what it holds."""

FAULTS = (
    *(OSError, EOFError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RuntimeError),
    *(SyntaxError, MemoryError, struct.error, zlib.error, zipfile.BadZipFile, tokenize.TokenError),
)
"""What decoders raise at damaged files, where one would expect a single type."""


def reason(error: Exception) -> str:
    """A library's error message in a form that fits into a sentence: one line, at most 200 characters."""
    words = " ".join(str(error).split()) or type(error).__name__
    return words if len(words) <= 200 else words[:197] + "..."


def check_image_size(height: int, width: int, channels: int, bits: int, packed: int, label: str) -> None:
    """Refuse an image of too many pixels, or one that unpacks to too many bytes, before any of it is decoded.

    Args:
        height, width: in pixels, as the header says.
        channels: of a pixel.
        bits: of a channel.
        packed: bytes of the file.
        label: name for messages.

    Raises:
        DataError: the image has no pixels, or is over the limit `pixels` or `expansion`.
    """
    most = limits()
    if min(height, width) < 1:
        raise DataError(f"{label}: an image of pixels is expected, got {width}x{height}; replace or remove the file")
    if width * height > most.pixels:
        raise DataError(
            f"{label}: an image of at most {most.pixels:,} pixels is expected, got {width}x{height}; shrink it, or if "
            f"you trust it, set {VARIABLE}={most.raised('pixels', width * height)}"
        )
    most.check_unpacked(width * height * channels * max(bits, 8) // 8, packed, label)


class _Bounded(io.RawIOBase):
    """A decompressed stream, which fails once it has given more bytes than a file of its size may unpack to."""

    def __init__(self, file: BinaryIO, packed: int, label: str) -> None:
        self.file, self.packed, self.label, self.given = file, packed, label, 0
        self.most = limits().unpacked(packed)

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        some = cast(io.BufferedIOBase, self.file).read1(min(len(buffer), _BLOCK))  # what there is
        got = len(some)
        buffer[:got] = some
        self.given += got
        if self.given > self.most:
            limits().check_unpacked(self.given, self.packed, self.label)
        return got


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
    except FAULTS as error:
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
        sizer: full name -> bytes of a file, before a ``.gz`` is decompressed.
        packer: full name -> bytes that a file takes up in the outermost zip that holds it; None for a folder.
        prefix: what precedes each name in the folder or zip.
        separator: what stands between `where` and a name in messages.
        folders: the names of all folders, sorted, without hidden ones; empty folders are found here alone.
        notes: remarks for people, such as about links that were not followed.
        reader: full name, a number -> all bytes, or None where there are more than so many; quicker than `opener` for
            small files.
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
    reader: Callable[[str, int], bytes | None] | None = None
    packer: Callable[[str], int] | None = None
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

    def packed(self, name: str) -> int:
        """Bytes that a file takes up where it is stored, compressed as it is there: in a folder, or in a zip.

        Raises:
            DataError: as in `size`.
        """
        return self.size(name) if self.packer is None else self.packer(self.prefix + name)

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
            DataError: the file cannot be opened, read or decompressed, or unpacks to more than the limits allow.
        """
        try:
            with self.opener(self.prefix + name) as file:
                if unzip and name.endswith(".gz") and self._is_gzip(file, name):
                    with gzip.open(file) as unzipped:
                        yield self._bounded(unzipped, name)
                elif unzip and name.endswith(".bz2"):
                    with bz2.open(file) as unzipped:
                        yield self._bounded(unzipped, name)
                else:
                    yield file
        except DataError:
            raise
        except (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError, NotImplementedError) as error:
            raise self._unreadable(name, error) from error

    def _bounded(self, unzipped: Any, name: str) -> BinaryIO:
        """A decompressed file, which may be as large as the limits allow."""
        return cast(BinaryIO, io.BufferedReader(_Bounded(unzipped, self.packed(name), self.label(name)), _BLOCK))

    def _is_gzip(self, file: BinaryIO, name: str) -> bool:
        """Whether a file called .gz is compressed: browsers unpack some and keep the name, or save a page instead."""
        head = cast(io.BufferedReader, file).peek(256)[:256]
        if head.lstrip().lower().startswith((b"<!doctype html", b"<html")):
            raise DataError(
                f"{self.label(name)}: a compressed file is expected, got an HTML page (perhaps the page of its "
                "download, or of an error); download the file itself"
            )
        return head[:2] == b"\x1f\x8b" or not head

    def read(self, name: str, limit: Limit = "bytes") -> bytes:
        """All bytes of one file, decompressed where it is a ``.gz`` or ``.bz2``.

        Args:
            name: of the file.
            limit: which limit its length must be within, before any more is read.

        Raises:
            DataError: as in `open`, or it is longer.
        """
        most = getattr(limits(), limit)
        packed = name.endswith((".gz", ".bz2"))
        if self.reader is not None and not packed:
            try:
                content = self.reader(self.prefix + name, most)
            except OSError as error:
                raise self._unreadable(name, error) from error
            if content is not None:
                return content
        self._check_length(self.size(name), limit, name)
        with self.open(name) as file:
            content = file.read()
        self._check_length(len(content), limit, name)
        return content

    def lines(self, name: str) -> Generator[bytes]:
        """The lines of a text file with their ends, none longer than the limit `line`.

        Raises:
            DataError: as in `open`, or a line is longer.
        """
        most = limits().line
        self._check_length(self.size(name), "bytes", name)
        with self.open(name) as file:
            number = 0
            while line := file.readline(most + 1):
                number += 1
                if len(line) > most:
                    limits().check("line", len(line), f"{self.label(name)}: line {number}", "bytes in a line")
                yield line

    def _check_length(self, got: int, limit: Limit, name: str) -> None:
        limits().check(limit, got, self.label(name), "bytes of a file", "give a part of it")

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
