"""From what a file holds (numbers and labels of any kind) to an `ImageDataset`: the checks that all formats share."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import compress
from math import isqrt
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, Labels, Names, Pixels, SealedTest, checked_images
from committee.data.formats.decode import LONGEST_SIDE, fitted, promoted, resized
from committee.data.formats.files import rows_of
from committee.data.splits import stratified_part
from committee.errors import DataError
from committee.rng import numpy_generator

TEST_FRACTION = 0.2
"""The share of the images that becomes the sealed test part where none is given."""


@dataclass(frozen=True)
class RawPart:
    """Images and labels as a file has them.

    Attributes:
        values: (image, height, width), (image, height, width, channel), (image, channel, height, width) or
            (image, pixels of a square image); booleans, integers or floats.
        labels: (image,), (image, 1) or one-hot (image, class): integers, integral floats or strings.
        where: the file, for messages.
        files: the name of each image's own file; none where all are in one.
    """

    values: NDArray[Any]
    labels: NDArray[Any]
    where: str
    files: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawSet:
    """The parts of a data set before they are checked and brought to one form."""

    train: RawPart
    test: RawPart | None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def assemble(raw: RawSet, *, name: str, source: str, image_size: int | None) -> ImageDataset:
    """A checked data set: pixels in one form, labels as positions in the class names, test images sealed.

    Args:
        raw: what was read.
        name: short name of the data set.
        source: where it came from, in words.
        image_size: side of the square that images are resized to, in pixels; None keeps their size, or shrinks them
            until the longer side has `LONGEST_SIDE` pixels.

    Raises:
        DataError: any fault of the images or labels; the message names the file and the image.
    """
    parts = [raw.train] if raw.test is None else [raw.train, raw.test]
    notes = list(raw.notes)
    for part in parts:
        if part.values.ndim and len(part.values) == 0:
            raise DataError(f"{part.where}: there are no images; give at least two classes with several images each")
    pixels = as_pixels([part.values for part in parts], [part.where for part in parts])
    pixels, size_notes = _same_form(pixels, parts, image_size)
    notes += size_notes
    labels, class_names = _encoded(parts, raw.class_names)
    images = [
        replace(checked_images(array, encoded, class_names, part.where), names=_names(part, whole=len(parts) == 1))
        for array, encoded, part in zip(pixels, labels, parts, strict=True)
    ]
    _check_classes(images, parts, class_names)
    if len(images) == 1:
        train, test = _split(images[0])
        if not len(test):
            present, number = len(np.unique(train.labels)), len(train)
            raise DataError(
                f"{raw.train.where}: {number} images of {present} classes are too few to seal a part of them as test; "
                f"give at least two images of each class ({2 * present} images), or a test part"
            )
        notes.append(
            f"no test part was given: a stratified fifth ({len(test):,} images, the same for every seed) was sealed "
            "as test"
        )
    else:
        train, test = images
    return ImageDataset(name, train, SealedTest(test), class_names, source, tuple(notes))


def by_part(
    pixels: NDArray[Any],
    labels: NDArray[Any],
    files: Sequence[str],
    parts: NDArray[np.str_],
    where: str,
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
) -> RawSet:
    """Images that were decoded together, told apart again: "train" and "val" to train with, "test" to test."""
    is_test = parts == "test"
    notes = (*notes, *joining_note(int((parts == "val").sum())))
    if not is_test.any():
        return RawSet(RawPart(pixels, labels, where, tuple(files)), None, class_names, notes)
    train, test = (
        RawPart(pixels[chosen], labels[chosen], where, tuple(compress(files, chosen))) for chosen in (~is_test, is_test)
    )
    return RawSet(train, test, class_names, notes)


def joining_note(validation_images: int) -> tuple[str, ...]:
    """The remark that a validation part became training images; nothing where there was none."""
    if not validation_images:
        return ()
    number = "1 image" if validation_images == 1 else f"{validation_images:,} images"
    return (
        f"the validation part ({number}) was joined to the training images: held-out images are drawn by the recipe",
    )


def _names(part: RawPart, *, whole: bool) -> Names | None:
    """The images' names; where they are in one file, their places are worth keeping if the set is yet to be split."""
    return Names(part.files or part.where, np.arange(len(part.values))) if part.files or whole else None


def _split(images: LabelledImages) -> tuple[LabelledImages, LabelledImages]:
    """A training and a test part; what is sealed once stays sealed, so no seed of a training takes part in the draw."""
    chosen = stratified_part(images.labels, TEST_FRACTION, numpy_generator(0, "split", "test"))
    kept = np.setdiff1d(np.arange(len(images)), chosen, assume_unique=True)
    train, test = (
        LabelledImages(rows_of(images.pixels, part), images.labels[part], images.names and images.names.part(part))
        for part in (kept, chosen)
    )
    return train, test


def as_pixels(arrays: Sequence[NDArray[Any]], where: Sequence[str], pixel_range: int = 255) -> list[Pixels]:
    """Numbers of any kind -> 8- or 16-bit pixels, all arrays by the same rule.

    Unsigned 8 and 16 bits stay; booleans become 0 and 255; other integers must be 0 to 255 or 0 to 65535; floats must
    be 0 to 1 (times 255, rounded) or integral from 0 to 255.

    Args:
        arrays: shapes as in `RawPart.values`.
        where: a file name for each.
        pixel_range: the range that integers of no particular kind are read in where 255 would do.

    Returns:
        (image, height, width, channel) arrays, uint8 or uint16.

    Raises:
        DataError: a shape that is no image, a value outside the ranges, NaN (the image is named).
    """
    shaped = [_shaped(array, place) for array, place in zip(arrays, where, strict=True)]
    kinds = {array.dtype.kind for array in shaped}
    if kinds == {"b"}:
        return [array.astype(np.uint8) * np.uint8(255) for array in shaped]
    if all(array.dtype in (np.uint8, np.uint16) for array in shaped):
        return promoted([cast(Pixels, array.astype(array.dtype.newbyteorder("="), copy=False)) for array in shaped])
    if not kinds <= set("biuf"):
        raise DataError(f"{where[0]}: pixels must be numbers; got the type {shaped[0].dtype}")
    filled = [(array, place) for array, place in zip(shaped, where, strict=True) if array.size]
    highest = 0.0
    for array, place in filled:
        low, high = float(array.min()), float(array.max())
        if np.isnan(low):
            row = int(np.flatnonzero(np.isnan(array).reshape(len(array), -1).any(axis=1))[0])
            raise DataError(
                f"{place}: image {row} (counted from 0) holds NaN; every pixel must be a number, so mend or remove it"
            )
        if low < 0 or high > (255 if "f" in kinds else 65535):
            raise DataError(
                f"{place}: pixels must be integers from 0 to 255 or 65535, or floats from 0 to 1 or 0 to 255; "
                f"got values from {low:g} to {high:g}, so rescale them"
            )
        highest = max(highest, high)
    if "f" not in kinds:
        if max(highest, pixel_range) <= 255:
            return [array.astype(np.uint8) for array in shaped]
        return [array.astype(np.uint16) for array in shaped]
    if highest <= 1:
        return [np.rint(array * 255).astype(np.uint8) for array in shaped]
    for array, place in filled:
        if not np.array_equal(array, np.rint(array)):
            raise DataError(
                f"{place}: float pixels must be from 0 to 1, or whole numbers from 0 to 255; "
                f"got fractions in values up to {highest:g}, so divide them by 255 or round them"
            )
    return [array.astype(np.uint8) for array in shaped]


def square_shape(columns: int) -> tuple[int, int, int] | None:
    """(height, width, channels) of a flattened square image, channels last; None where no square has so many values."""
    for channels in (1, 3, 4):
        side = isqrt(columns // channels)
        if side and side * side * channels == columns:
            return side, side, channels
    return None


def _shaped(array: NDArray[Any], where: str) -> NDArray[Any]:
    """Any of the shapes of `RawPart.values` -> (image, height, width, channel)."""
    if array.ndim == 2:
        shape = square_shape(array.shape[1])
        if shape is None:
            raise DataError(
                f"{where}: a row of {array.shape[1]} pixels is no square image of 1, 3 or 4 channels; "
                "give k*k, 3*k*k or 4*k*k pixels, or an array (image, height, width, channel)"
            )
        return array.reshape(len(array), *shape)
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and array.shape[3] > 4 >= array.shape[1]:
        return np.ascontiguousarray(np.moveaxis(array, 1, 3))
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape[1:]:
        raise DataError(
            f"{where}: images must be an array (image, height, width, 1 to 4 channels); got the shape {array.shape}"
        )
    return array


def _same_form(
    pixels: list[Pixels], parts: Sequence[RawPart], image_size: int | None
) -> tuple[list[Pixels], list[str]]:
    """One number of channels (or an error) and one size for all parts."""
    channels = [array.shape[3] for array in pixels]
    if len(set(channels)) > 1:
        raise DataError(
            f"{parts[0].where}: mixed channels: the training images have {channels[0]}, the test images "
            f"({parts[1].where}) {channels[1]}; convert them to one kind"
        )
    height, width = pixels[0].shape[1:3]
    target = (image_size, image_size) if image_size else fitted(height, width)
    notes = []
    for array in pixels:
        if array.shape[1:3] != target:
            sizes = f"{array.shape[1]}x{array.shape[2]} to {target[0]}x{target[1]}"
            asked = "" if image_size else f" (at most {LONGEST_SIDE} unless image_size is given)"
            notes.append(f"images were resized from {sizes} pixels{asked}")
    return [resized(array, target) for array in pixels], list(dict.fromkeys(notes))


def _encoded(parts: Sequence[RawPart], given: tuple[str, ...] | None) -> tuple[list[Labels], tuple[str, ...]]:
    """Labels as positions, and the class names: those given, or the labels' own spellings in order."""
    flat = [_flat_labels(part) for part in parts]
    if len({labels.dtype.kind for labels in flat}) > 1:
        flat = [labels.astype(np.str_) for labels in flat]
    if given is not None and flat[0].dtype.kind == "i":
        return [labels.astype(np.int64) for labels in flat], given
    values = np.unique(np.concatenate(flat))
    names = tuple(str(value) for value in values)
    if given is not None and set(names) - set(given):
        stranger = sorted(set(names) - set(given))[0]
        raise DataError(
            f"{parts[0].where}: the label {stranger!r} is not among the {len(given)} class names; correct one of them"
        )
    if given is not None:
        position = {name: index for index, name in enumerate(given)}
        return [np.array([position[str(label)] for label in labels], dtype=np.int64) for labels in flat], given
    return [np.searchsorted(values, labels).astype(np.int64) for labels in flat], names


def _flat_labels(part: RawPart) -> NDArray[Any]:
    """(image,) int64 or strings; strings that all spell integers become integers."""
    labels = part.labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "biuf" and len(labels):
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DataError(
                f"{part.where}: labels have the shape {labels.shape} and are not one-hot; one label an image is "
                "expected"
            )
        labels = labels.argmax(axis=1)
    if labels.ndim != 1 or len(labels) != len(part.values):
        raise DataError(
            f"{part.where}: there are {len(part.values):,} images and labels of shape {labels.shape}; one label an "
            "image is expected"
        )
    if labels.dtype.kind in "SU":
        return as_integers(labels.astype(np.str_))
    if labels.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(labels) | (labels != np.rint(labels)))
        if len(wrong):
            raise DataError(
                f"{part.where}: image {wrong[0]} (counted from 0) has the label {labels[wrong[0]]}; labels must be "
                "whole numbers or names"
            )
    elif labels.dtype.kind not in "biu":
        raise DataError(f"{part.where}: labels must be whole numbers or names; got the type {labels.dtype}")
    return labels.astype(np.int64)


def as_integers(names: NDArray[np.str_]) -> NDArray[Any]:
    """Names as int64 where every one of them is the plain spelling of an integer; otherwise the names themselves."""
    unique, inverse = np.unique(names, return_inverse=True)
    try:
        numbers = [int(name) for name in unique]
    except ValueError:
        return names
    if any(str(number) != name for number, name in zip(numbers, unique, strict=True)):
        return names
    return np.array(numbers, dtype=np.int64)[inverse]


def _check_classes(images: Sequence[LabelledImages], parts: Sequence[RawPart], class_names: tuple[str, ...]) -> None:
    counts = images[0].counts(len(class_names))
    present = sum(count > 0 for count in counts)
    for count, tested, name in zip(counts, images[-1].counts(len(class_names)), class_names, strict=True):
        if tested and not count:
            raise DataError(
                f"{parts[-1].where}: the test part has {tested} image(s) of the class {name!r}, the training part "
                "none; "
                "add training images of it or remove it from the test part"
            )
    if present < 2:
        raise DataError(
            f"{parts[0].where}: only one class was found ({class_names[int(images[0].labels[0])]}), and a classifier "
            "needs at least two; add images of another class"
        )
