"""EMNIST as its makers and Kaggle hand it out: recognised by name and content, put upright, its classes named.

Source: Cohen, Afshar, Tapson & van Schaik 2017, "EMNIST: an extension of MNIST to handwritten letters", arXiv
1702.05373; all of its files store an image column by column.
"""

from __future__ import annotations

import string
from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from committee.data.formats.assemble import RawPart, RawSet

_DIGITS = tuple(string.digits)
_MERGED = (*_DIGITS, *string.ascii_uppercase, *"abdefghnqrt")

EMNIST = {
    "emnist-balanced": (0, _MERGED),
    "emnist-bymerge": (0, _MERGED),
    "emnist-byclass": (0, (*_DIGITS, *string.ascii_uppercase, *string.ascii_lowercase)),
    "emnist-letters": (1, tuple(string.ascii_uppercase)),
    "emnist-digits": (0, _DIGITS),
    "emnist-mnist": (0, _DIGITS),
}
"""The label of the first class, and the classes."""


def upright(part: RawPart, first_label: int) -> RawPart:
    """EMNIST's images (image, height, width) as people see them, and its labels as positions in the class names."""
    return replace(part, values=part.values.swapaxes(1, 2), labels=part.labels.astype(np.int64) - first_label)


def as_emnist(name: str, parts: Mapping[str, RawPart]) -> RawSet | None:
    """The parts of a set upright, the training part and perhaps the test part, with class names and a note.

    Args:
        name: of the files, before the part: "emnist-letters".
        parts: "train", and perhaps "test": images as rows of 784 values or 28x28, whole-number labels.

    Returns:
        None where name, sizes or labels are not EMNIST's.
    """
    set_name = name.lower().rstrip("-_.")
    if set_name not in EMNIST or not set(parts) <= {"train", "test"}:
        return None
    first, class_names = EMNIST[set_name]
    if not all(_is_emnist(part, first, len(class_names)) for part in parts.values()):
        return None
    note = f"the files are those of {set_name}: the images, stored with rows and columns exchanged, were put upright"
    if first:
        note += f", and labels from {first} on became class names from {class_names[0]} on"
    square = {key: replace(part, values=part.values.reshape(-1, 28, 28)) for key, part in parts.items()}
    made = {key: upright(part, first) for key, part in square.items()}
    return RawSet(made["train"], made.get("test"), class_names, (note,))


def _is_emnist(part: RawPart, first: int, classes: int) -> bool:
    """Whether images and labels have EMNIST's sizes and range."""
    return (
        part.values.shape[1:] in ((784,), (28, 28))
        and part.labels.ndim == 1
        and part.labels.dtype.kind in "iu"
        and bool(first <= part.labels.min(initial=first) and part.labels.max(initial=first) < first + classes)
    )
