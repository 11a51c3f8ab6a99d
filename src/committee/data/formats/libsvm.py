"""LIBSVM's text files ("7 1:-1 2:-.3 ...", a line for each image), also compressed: USPS -> RawSet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from math import ceil, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrays import joined, with_validation
from committee.data.formats.assemble import RawPart, RawSet
from committee.data.formats.files import Files, part_of
from committee.data.formats.kinds import image_kind
from committee.data.limits import limits
from committee.data.read_options import ReadOptions
from committee.errors import DataError

_ENDINGS = (".libsvm", ".svm", ".svmlight")
_PARTS = {"t": "test", "tr": "train", "val": "val"}
_MOST_FILES = 16
_LINE = re.compile(rb"\s*[-+]?[\d.]+(e[-+]?\d+)?([ \t]+\d+:[-+.\deE]+){2}")


def libsvm_names(files: Files) -> list[str]:
    """The files that are called so, or have such lines though their name says nothing (``usps``, ``usps.t.bz2``)."""
    named = [name for name in files.names if _plain(name).endswith(_ENDINGS)]
    if named or len(files.names) > _MOST_FILES:
        return named
    return [name for name in files.names if _may_be(name) and not image_kind(files.head(name)) and _is_so(files, name)]


def read_libsvm_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in LIBSVM's files; ``NAME.t`` is the test part of ``NAME``.

    What a line leaves out is 0, and so are the last pixels if no image has them: rows are filled up to a square, if
    less than a side of it is missing. USPS's labels are the digits plus one (Hull 1994, "A database for handwritten
    text recognition research", IEEE Transactions on Pattern Analysis and Machine Intelligence 16, 550-554).

    Raises:
        DataError: a line is no label with pixels; it is named.
    """
    names = libsvm_names(files)
    read = {name: _lines(files, name) for name in names}
    widest = max(width for _, _, width in read.values())
    pixels = prod(options.shape) if options.shape else _filled(widest)
    if widest > pixels:
        raise DataError(
            f"{files.where}: images of {pixels:,} values are expected as --shape says, got {widest:,}; correct it"
        )
    parts: dict[str, RawPart] = {}
    for name, (labels, entries, _) in read.items():
        part = _part(name) if len(names) > 1 else "train"
        new = RawPart(_dense(entries, pixels, files.packed(name), files.label(name)), labels, files.label(name))
        parts[part] = joined(parts[part], new) if part in parts else new
    if "train" not in parts:
        raise DataError(f"{files.where}: a file of training images is expected, got {', '.join(names[:5])}; add it")
    notes = [f"rows of {widest:,} values were filled up to {pixels:,}"] if pixels > widest else []
    usps = all("usps" in name.lower() and len(np.setdiff1d(read[name][0], range(1, 11))) == 0 for name in names)
    if not (usps and pixels == 256):
        return with_validation(parts, notes=tuple(notes))
    parts = {part: RawPart(raw.values, raw.labels - 1, raw.where) for part, raw in parts.items()}
    return with_validation(parts, notes=(*notes, "labels 1 to 10 became the digits 0 to 9, as USPS means them"))


def read_libsvm_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one of LIBSVM's files, with their place for messages."""
    _, entries, width = _lines(files, name)
    yield files.label(name), _dense(entries, _filled(width), files.packed(name), files.label(name))


def _plain(name: str) -> str:
    """A name in lower case without the ending of its compression."""
    return name.lower().removesuffix(".bz2").removesuffix(".gz")


def _may_be(name: str) -> bool:
    """Whether a name says nothing about what its file holds."""
    base = _plain(name).rpartition("/")[2]
    return "." not in base or base.rpartition(".")[2] in (*_PARTS, "scale")


def _is_so(files: Files, name: str) -> bool:
    if not name.endswith((".bz2", ".gz")):
        return bool(_LINE.match(files.head(name)))
    try:
        with files.open(name) as file:
            return bool(_LINE.match(file.read(256)))
    except DataError:
        return False


def _part(name: str) -> str:
    return _PARTS.get(_plain(name).rpartition(".")[2], "") or part_of(name) or "train"


def _filled(width: int) -> int:
    """The number of pixels of the square that rows of this width fill but for less than one side."""
    side = ceil(sqrt(width))
    return side * side if side * side - width < side else width


Entries = list[tuple[NDArray[np.int64], NDArray[np.float32]]]
"""For each image the positions of its pixels, counted from 0, and their values."""


def _lines(files: Files, name: str) -> tuple[NDArray[Any], Entries, int]:
    """The labels, the pixels and the highest number of a pixel."""
    where = files.label(name)
    labels: list[str] = []
    entries: Entries = []
    most = limits()
    for number, line in enumerate(files.lines(name), start=1):
        if len(line) > most.columns:
            most.check("columns", line.count(b":"), f"{where}: line {number}", "pixels of an image")
        label, _, rest = line.partition(b"#")[0].strip().partition(b" ")
        if not label:
            continue
        try:
            pairs = np.array(rest.replace(b":", b" ").split(), dtype=np.float64).reshape(-1, 2)
            value = float(label)
            if not abs(value) < 2**53:
                raise ValueError
        except ValueError:
            raise DataError(
                f"{where}: line {number} must be a label and pairs such as 1:0.5, got {line[:40]!r}; correct it"
            ) from None
        with np.errstate(invalid="ignore", over="ignore"):  # no number and infinity are found here, and with all values
            positions, values = pairs[:, 0].astype(np.int64) - 1, pairs[:, 1].astype(np.float32)
        if (positions < 0).any() or not np.array_equal(positions + 1, pairs[:, 0]):
            raise DataError(f"{where}: pixels are numbered from 1 on, got another number in line {number}; correct it")
        labels.append(str(int(value)) if value == int(value) else label.decode())
        entries.append((positions, values))
    most.check("images", len(labels), where, "images", "give a part of them")
    if not labels:
        raise DataError(f"{where}: a line for each image is expected, got none; add the images")
    numbers = np.array([int(label) for label in labels]) if all(map(_is_whole, labels)) else np.array(labels)
    width = max((int(positions.max()) + 1 for positions, _ in entries if len(positions)), default=1)
    most.check("columns", width, where, "pixels of an image", "give smaller images")
    return numbers, entries, width


def _is_whole(label: str) -> bool:
    return label.lstrip("-").isdigit()


def _dense(entries: Entries, pixels: int, packed: int, where: str) -> NDArray[np.float32]:
    """(image, pixel), 0 where a line says nothing; not many times the bytes of the file, `packed`."""
    limits().check_unpacked(len(entries) * pixels * 4, packed, where)
    values = np.zeros((len(entries), pixels), np.float32)
    for row, (positions, cells) in zip(values, entries, strict=True):
        row[positions] = cells
    return values
