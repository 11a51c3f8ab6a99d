"""IDX files like MNIST's: EMNIST's are put upright, QMNIST's writers become groups."""

from __future__ import annotations

import re
import struct
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrays import check_same_number, with_validation
from committee.data.formats.assemble import RawPart, RawSet
from committee.data.formats.emnist import EMNIST, as_emnist
from committee.data.formats.files import Files
from committee.data.formats.mapped import read_exactly
from committee.errors import DataError

_IDX_NAME = re.compile(
    r"(?:.*/)?(?P<set>.*?)(?P<part>train|training|t10k|test|valid|val)[-_.](?P<kind>images|labels)[-_.]idx[1-4][-_.](?:ubyte|short|int)(?:\.gz)?",
    re.IGNORECASE,
)
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

QMNIST_NOTE = "QMNIST's labels have eight columns: the first is the class, the third, the writer, became the group"
"""Columns: class, NIST's HSF series, writer, digit of this writer, NIST's class, global digit, duplicate, unused.

Source: Yadav & Bottou 2019, "Cold case: the lost MNIST digits", arXiv 1905.10498, and its repository's README.
"""


def idx_files(files: Files, only: str | None = None) -> dict[tuple[str, str], str]:
    """The IDX files by part ("train", "val", "test") and kind ("images", "labels").

    Args:
        files: where to look.
        only: what the wanted names begin with, before the part, such as ``"emnist-letters-"``; None for anything.

    Raises:
        DataError: there are IDX files of several data sets, and `only` does not choose among them.
    """
    found: dict[tuple[str, str], str] = {}
    sets = set()
    for name in files.names:
        match = _IDX_NAME.fullmatch(name)
        if match is None or (only is not None and match["set"].lower() != only):
            continue
        part = {"training": "train", "t10k": "test", "valid": "val"}.get(match["part"].lower(), match["part"].lower())
        sets.add((_without_own_folder(name), match["set"]))
        known = found.setdefault((part, match["kind"].lower()), name)
        if len(known) > len(name):
            found[part, match["kind"].lower()] = name
    if len(sets) > 1:
        listed = ", ".join(sorted("/".join(filter(None, pair)) or "(no prefix)" for pair in sets))
        emnist = all(prefix.lower().removesuffix("-") in EMNIST for _, prefix in sets)
        named = f", or a name such as emnist-letters with --data-dir {files.where}" if emnist else ""
        raise DataError(
            f"{files.where}: IDX files of one data set are expected, got those of {len(sets)} ({listed}); "
            f"give the path of a folder that holds only one{named}"
        )
    return found


def read_idx_set(files: Files, only: str | None = None) -> RawSet:
    """The data set in a folder of IDX files; a validation part is joined to the training part.

    Args:
        files: where to look.
        only: as in `idx_files`.

    Raises:
        DataError: a file of images or labels is missing, damaged or cut off.
    """
    found = idx_files(files, only)
    parts = {}
    notes: list[str] = []
    for part in ("train", "val", "test"):
        kinds = [kind for kind in ("images", "labels") if (part, kind) in found]
        if len(kinds) == 1:
            other = "labels" if kinds == ["images"] else "images"
            raise DataError(
                f"{files.label(found[part, kinds[0]])}: the file of its {other} is missing; put both into one folder "
                "and give the path of that"
            )
        if kinds:
            images, labels = (read_idx(files, found[part, kind]) for kind in ("images", "labels"))
            check_same_number(images, labels, files.label(found[part, "images"]), files.label(found[part, "labels"]))
            parts[part] = RawPart(images, labels, files.label(found[part, "images"]))
            if is_qmnist(labels):
                parts[part] = replace(parts[part], labels=labels[:, 0], groups=labels[:, 2].astype(np.str_))
                notes = [QMNIST_NOTE]
    if "train" not in parts:
        raise DataError(
            f"{files.where}: IDX files of training images (train-images-idx3-ubyte) are expected, got only others; "
            "add them"
        )
    match = None if only is not None else _IDX_NAME.fullmatch(found["train", "images"])
    return (as_emnist(match["set"], parts) if match else None) or with_validation(parts, notes=tuple(notes))


def _without_own_folder(name: str) -> str:
    """The folder of a file; the one above where a folder holds it alone and has its name, as in Kaggle's MNIST."""
    folder, _, base = name.rpartition("/")
    above, _, own = folder.rpartition("/")
    plain = [re.sub(r"[-_.]", "-", each.lower().removesuffix(".gz")) for each in (own, base)]
    return above if plain[0] == plain[1] else folder


def is_qmnist(labels: NDArray[Any]) -> bool:
    """Whether labels are QMNIST's eight columns of 32 bits, and not one-hot."""
    eight = labels.ndim == 2 and labels.shape[1] == 8 and labels.dtype == np.int32 and len(labels)
    return bool(eight and (labels[:, 0] >= 0).all() and (labels[:, 0] <= 9).all() and labels.sum() > len(labels))


def read_idx(files: Files, name: str) -> NDArray[Any]:
    """One IDX file as an array.

    Raises:
        DataError: the file is not an IDX file, is cut off, or is longer than its header says.
    """
    label = files.label(name)
    with files.open(name) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 4:
            raise DataError(
                f"{label}: an IDX file begins with bytes such as 00 00 08 03, this one with "
                f"{head.hex(' ') or 'nothing'}{' (as an HTML page does)' if head[:1] == b'<' else ''}; replace the file"
            )
        sizes = file.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataError(
                f"{label}: the file is cut off: a header of {4 + 4 * head[3]} bytes is expected, got "
                f"{4 + len(sizes)}; copy or download it again"
            )
        shape = struct.unpack(f">{head[3]}I", sizes)
        array = read_exactly(files, name, file, shape, np.dtype(_IDX_TYPES[head[2]]))
        if file.read(1):
            raise DataError(
                f"{label}: the file is longer than its header says (shape {shape}); copy or download it again"
            )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def read_idx_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one IDX file, with their place for messages; nothing where it holds labels."""
    match = _IDX_NAME.fullmatch(name)
    if match and match["kind"].lower() == "images":
        yield files.label(name), read_idx(files, name)
