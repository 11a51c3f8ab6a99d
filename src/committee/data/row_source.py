"""What is to be prepared: all of a data set but its pixels, and how these are read a piece at a time."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, Labels, Names, Pixels
from committee.data.read_options import ValueRange

Part = Literal["train", "test"]
Read = Callable[[Part, NDArray[np.int64]], Pixels]


@dataclass(frozen=True)
class SourcePart:
    """One part without its pixels.

    Attributes:
        labels, names, groups: as in `LabelledImages`.
        rows: (image,), ascending: by which the source finds its images.
    """

    labels: Labels
    names: Names | None
    groups: Labels | None
    rows: NDArray[np.int64]


@dataclass(frozen=True)
class Source:
    """A data set whose pixels are read piece by piece.

    Attributes:
        name, source, class_names, notes, warnings, value_range: as in `ImageDataset`.
        shape: height, width, channels.
        dtype: of the pixels.
        train, test: all else about their images.
        read: a part, some of its `rows` one behind the other -> these images (image, height, width, channel); other
            processes may be handed it where `stamp` is not empty.
        stamp: what the files were when this was made, so that pieces of an interrupted preparation are known to be of
            the same files; "" where the pixels are at hand, and can be compared.
        notes_after: notes that follow those on the labels, which only all images together show; None where `notes` has
            all of them.
    """

    name: str
    source: str
    class_names: tuple[str, ...]
    notes: tuple[str, ...]
    warnings: tuple[str, ...]
    value_range: ValueRange | None
    shape: tuple[int, int, int]
    dtype: np.dtype[np.uint8] | np.dtype[np.uint16]
    train: SourcePart
    test: SourcePart
    read: Read
    stamp: str = ""
    notes_after: tuple[str, ...] | None = None

    def part(self, name: Part) -> SourcePart:
        """A part by its name."""
        return self.train if name == "train" else self.test


def of_dataset(dataset: ImageDataset, test: LabelledImages) -> Source:
    """A data set that is at hand, in memory or mapped.

    Args:
        dataset: whose training images.
        test: its test images, opened.
    """
    parts = {"train": dataset.train, "test": test}

    def read(part: Part, rows: NDArray[np.int64]) -> Pixels:
        return cast(Pixels, np.ascontiguousarray(parts[part].pixels[rows[0] : rows[-1] + 1]))

    train, tested = (
        SourcePart(each.labels, each.names, each.groups, np.arange(len(each.labels))) for each in parts.values()
    )
    dtype = cast("np.dtype[np.uint8]", dataset.train.pixels.dtype)
    return Source(
        dataset.name,
        dataset.source,
        dataset.class_names,
        dataset.notes,
        dataset.warnings,
        dataset.value_range,
        dataset.image_shape,
        dtype,
        train,
        tested,
        read,
    )
