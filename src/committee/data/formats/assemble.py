"""What all formats share: arrays and labels of any kind are checked and become an `ImageDataset`.

A format's reader returns a `RawSet`, the contents of its files as they are; `assemble` does the rest.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass, field, replace
from itertools import compress
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, Labels, Names, Pixels, SealedTest, checked_images
from committee.data.formats.contradictions import near_name, notes_on_labels
from committee.data.formats.decode import (
    LONGEST_SIDE,
    fitted,
    promoted,
    resized,
    wanted_channels,
    with_channels,
)
from committee.data.formats.groups import with_groups
from committee.data.formats.mapped import split_rows
from committee.data.formats.rows import shape_of_row, with_shapes
from committee.data.formats.values import depth, is_plain, takes, to_pixels, value_range
from committee.data.limits import limits
from committee.data.read_options import ReadOptions, ValueRange
from committee.data.splits import stratified_part
from committee.errors import DataError, counted
from committee.names import unicode_text
from committee.rng import numpy_generator

TEST_FRACTION = 0.2
"""The fraction of the images that is sealed as the test part of a data set that has none."""


@dataclass(frozen=True)
class RawPart:
    """Images and labels as they are in the file.

    Attributes:
        values: (image, height, width), (image, height, width, channel), (image, channel, height, width) or
            (image, pixel), whose shape is guessed or given; booleans, integers or floats.
        labels: (image,), (image, 1) or one-hot (image, class): integers, integral floats or strings.
        where: the file, for messages.
        files: the name of each image's own file; empty where one file holds them all.
        groups: (image,) strings: which images belong together; None where the file does not say.
    """

    values: NDArray[Any]
    labels: NDArray[Any]
    where: str
    files: tuple[str, ...] = ()
    groups: NDArray[np.str_] | None = None


@dataclass(frozen=True)
class RawSet:
    """The parts of a data set, not checked yet.

    Attributes:
        train: the training images, with a validation part joined to them.
        test: the test images; None where there are none, so that `assemble` splits some off.
        class_names: None to take them from the labels.
        notes: remarks for people about what was done in reading.
    """

    train: RawPart
    test: RawPart | None
    class_names: tuple[str, ...] | None = None
    notes: tuple[str, ...] = field(default=())


def assemble(raw: RawSet, *, name: str, source: str, options: ReadOptions) -> ImageDataset:
    """A checked data set: 8- or 16-bit pixels of one size, labels as positions in the class names, test images sealed.

    Args:
        raw: what was read; its arrays may be overwritten, so that no copy of them is needed.
        name: short name of the data set.
        source: where it came from, in words.
        options: how it was read.

    Raises:
        DataError: any fault in the images or labels; the message names the file and the image.
    """
    parts = [raw.train] if raw.test is None else [raw.train, raw.test]
    for part in parts:
        if part.values.ndim and len(part.values) == 0:
            raise DataError(f"{part.where}: there are no images; give at least two classes with several images each")
    parts, shape_notes = with_shapes(parts, options.shape)
    where = [part.where for part in parts]
    shaped = [_shaped(part.values, part.where) for part in parts]
    values, range_notes = value_range(shaped, where, options.pixel_range)
    pixels = _pixels(shaped, where, depth(shaped, values) if values else 255, values)
    if options.channels is not None:
        number = wanted_channels({array.shape[3] for array in pixels}, options.channels)
        pixels = [with_channels(array, number, place) for array, place in zip(pixels, where, strict=True)]
    pixels, size_notes = _same_form(pixels, parts, options.image_size)
    labels, raw_names = encoded_labels(parts, raw.class_names)
    class_names = tuple(map(unicode_text, raw_names))
    images = [
        replace(checked_images(array, encoded, class_names, part.where), names=_names(part, whole=len(parts) == 1))
        for array, encoded, part in zip(pixels, labels, parts, strict=True)
    ]
    check_classes(images, parts, class_names)
    label_notes = notes_on_labels(images, class_names)
    images, group_notes = with_groups(
        images, [part.files for part in parts], [part.groups for part in parts], options.groups
    )
    notes = (*raw.notes, *shape_notes, *range_notes, *size_notes, *label_notes, *group_notes)
    if len(images) == 2:
        train, test = images
    else:
        train, test = _split(images[0], raw.train.where)
        notes = (*notes, split_note(len(test)))
    return ImageDataset(name, train, SealedTest(test), class_names, source, notes, value_range=values)


def by_part(
    pixels: NDArray[Any],
    labels: NDArray[Any],
    files: Sequence[str],
    parts: NDArray[np.str_],
    where: str,
    class_names: tuple[str, ...] | None,
    notes: tuple[str, ...],
    groups: NDArray[np.str_] | None = None,
) -> RawSet:
    """The data set of images that were decoded together.

    Args:
        pixels: (image, height, width, channel), of all parts; may be overwritten.
        labels: (image,).
        files: each image's own file.
        parts: (image,), "train", "val" or "test"; "val" is joined to "train".
        where: the folder or file that holds them all, for messages.
        class_names: None to take them from the labels.
        notes: remarks for people.
        groups: (image,); None where the files do not say them.
    """
    is_test = parts == "test"
    notes = (*notes, *joining_note(int((parts == "val").sum())))
    if not is_test.any():
        return RawSet(RawPart(pixels, labels, where, tuple(files), groups), None, class_names, notes)
    chosen = ~is_test, is_test
    rows = split_rows(pixels, np.flatnonzero(chosen[0]), np.flatnonzero(chosen[1]))
    train, test = (
        RawPart(values, labels[part], where, tuple(compress(files, part)), None if groups is None else groups[part])
        for values, part in zip(rows, chosen, strict=True)
    )
    return RawSet(train, test, class_names, notes)


def joining_note(validation_images: int) -> tuple[str, ...]:
    """A note that the validation part was joined to the training images; empty where there was no such part."""
    if not validation_images:
        return ()
    return (
        f"the validation part ({counted(validation_images, 'image')}) was joined to the training images, "
        "since each recipe draws its own validation images",
    )


def _names(part: RawPart, *, whole: bool) -> Names | None:
    """The images' names. Those of one file get their positions in it where a split is to come, and otherwise none."""
    return Names(part.files or part.where, np.arange(len(part.values))) if part.files or whole else None


def split_note(test_images: int) -> str:
    """A note that so many images became the test part."""
    fifth = f"a stratified fifth ({counted(test_images, 'image')}, the same for every seed)"
    return f"no test part was given: {fifth} was sealed as the test part"


def _split(images: LabelledImages, where: str) -> tuple[LabelledImages, LabelledImages]:
    """A training part and a test part."""
    kept, chosen = sealed_positions(images.labels, images.groups, where)
    train, test = split_rows(images.pixels, kept, chosen)
    return images.with_pixels(cast(Pixels, train), kept), images.with_pixels(cast(Pixels, test), chosen)


def sealed_positions(labels: Labels, groups: Labels | None, where: str) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Positions of the training and of the test images of data without a test part, ascending.

    The draw depends on the labels alone, not on any seed of a training: what is sealed once stays sealed.

    Raises:
        DataError: there are too few images, or groups.
    """
    chosen = stratified_part(labels, TEST_FRACTION, numpy_generator(0, "split", "test"), groups)
    if not len(chosen):
        present, number = len(np.unique(labels)), len(labels)
        if groups is not None:
            raise DataError(
                f"{where}: {counted(len(np.unique(groups)), 'group')} of images cannot be split into a training "
                "and a test part that both have every class; give more groups, or a test part"
            )
        raise DataError(
            f"{where}: {number} images of {present} classes are too few to split off a test part; "
            f"give at least two images of each class ({2 * present} images), or a test part"
        )
    return np.setdiff1d(np.arange(len(labels)), chosen, assume_unique=True), chosen


def as_pixels(array: NDArray[Any], where: str, pixel_range: int = 255, values: ValueRange | None = None) -> Pixels:
    """8- or 16-bit pixels of images to classify, of any numeric type.

    Numbers of the training's range are scaled by it. Otherwise unsigned 8- and 16-bit integers stay as they are;
    booleans become 0 and 255; other whole numbers must be from 0 to 255, or from 0 to 65535, and floats from 0 to 1, or
    from 0 to 255: a few images alone do not show any other range.

    Args:
        array: a shape as in `RawPart.values`.
        where: name for messages.
        pixel_range: 65535 to make 16-bit pixels of numbers of other types even where none is over 255.
        values: the numbers that meant black and white in training; None where the training images were pixels.

    Returns:
        (image, height, width, channel), uint8 or uint16.

    Raises:
        DataError: a shape that is not of images, a value outside these ranges, NaN (the image is named).
    """
    shaped = _shaped(array, where)
    if values is None or not takes(values, shaped):
        values = value_range([shaped], [where], None)[0]
        if values is not None and (values.low, values.high) not in ((0, 1), (0, 255)):
            raise DataError(
                f"{where}: integers from 0 to 255 or 65535, or floats from 0 to 1 or 0 to 255, are expected, since the "
                f"training images were pixels, got values from {values.low:g} to {values.high:g}; rescale them"
            )
    return _pixels([shaped], [where], pixel_range, values)[0]


def _pixels(
    shaped: Sequence[NDArray[Any]], where: Sequence[str], pixel_range: int, values: ValueRange | None
) -> list[Pixels]:
    """Pixels of numbers (image, height, width, channel) whose range is known; None where they are pixels already."""
    if values is not None:
        return [to_pixels(array, place, values, pixel_range) for array, place in zip(shaped, where, strict=True)]
    pixels = [array.astype(np.uint8) * np.uint8(255) if array.dtype.kind == "b" else array for array in shaped]
    if all(map(is_plain, pixels)):
        return promoted([cast(Pixels, array.astype(array.dtype.newbyteorder("="), copy=False)) for array in pixels])
    highest = max(pixel_range, *(float(array.max()) for array in pixels if array.size))
    return [cast(Pixels, array.astype(np.uint8 if highest <= 255 else np.uint16)) for array in pixels]


def _shaped(array: NDArray[Any], where: str) -> NDArray[Any]:
    """(image, height, width, channel) from any of the shapes of `RawPart.values`."""
    if array.ndim == 2:
        return array.reshape(len(array), *shape_of_row(array.shape[1], where)[0])
    if array.ndim == 3:
        return array[..., None]
    if array.ndim == 4 and array.shape[3] > 4 >= array.shape[1]:
        return np.ascontiguousarray(np.moveaxis(array, 1, 3))
    if array.ndim != 4 or not 1 <= array.shape[3] <= 4 or 0 in array.shape[1:]:
        raise DataError(
            f"{where}: images must be an array (image, height, width, 1 to 4 channels), got the shape {array.shape}; "
            "reshape it"
        )
    return array


def _same_form(
    pixels: list[Pixels], parts: Sequence[RawPart], image_size: int | None
) -> tuple[list[Pixels], list[str]]:
    """All parts with one image size, and notes about resizing; their numbers of channels must agree."""
    channels = [array.shape[3] for array in pixels]
    if len(set(channels)) > 1:
        raise DataError(
            f"{parts[0].where}: mixed channels: the training images have {channels[0]}, the test images "
            f"({parts[1].where}) {channels[1]}; give --channels grey or --channels colour to convert all images"
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


def encoded_labels(parts: Sequence[RawPart], given: tuple[str, ...] | None) -> tuple[list[Labels], tuple[str, ...]]:
    """Labels as positions in the class names, and these: the names given, or else the sorted values of the labels."""
    _check_number(given or (), parts[0].where)
    flat = [_flat_labels(part) for part in parts]
    if len({labels.dtype.kind for labels in flat}) > 1:
        flat = [labels.astype(np.str_) for labels in flat]
    if given is not None and flat[0].dtype.kind == "i":
        return [labels.astype(np.int64) for labels in flat], given
    values = np.unique(np.concatenate(flat))
    _check_number(values, parts[0].where)
    names = tuple(str(value) for value in values)
    if given is not None and set(names) - set(given):
        stranger = sorted(set(names) - set(given))[0]
        raise DataError(
            f"{parts[0].where}: the label {stranger!r} is not one of the {len(given)} class names; correct either"
        )
    if given is not None:
        position = {name: index for index, name in enumerate(given)}
        return [np.array([position[str(label)] for label in labels], dtype=np.int64) for labels in flat], given
    return [np.searchsorted(values, labels).astype(np.int64) for labels in flat], names


def _check_number(classes: Sized, where: str) -> None:
    limits().check("classes", len(classes), where, "classes", "correct the labels")


def _flat_labels(part: RawPart) -> NDArray[Any]:
    """Labels as (image,), int64 or strings; strings become integers where all of them spell integers."""
    labels = part.labels
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    elif labels.ndim == 2 and labels.dtype.kind in "biuf" and len(labels):
        if not (np.isin(labels, (0, 1)).all() and (labels.sum(axis=1) == 1).all()):
            raise DataError(
                f"{part.where}: one label per image is expected, got the shape {labels.shape}, and rows with none or "
                "several; give a class number or name for each, since images of several labels are not read"
            )
        labels = labels.argmax(axis=1)
    if labels.ndim != 1 or len(labels) != len(part.values):
        raise DataError(
            f"{part.where}: one label per image is expected, got {len(part.values):,} images and labels of the shape "
            f"{labels.shape}; make the numbers agree"
        )
    if labels.dtype.kind in "SU":
        return as_integers(labels.astype(np.str_))
    if labels.dtype.kind == "f":
        wrong = np.flatnonzero(~np.isfinite(labels) | (labels != np.rint(labels)))
        if len(wrong):
            raise DataError(
                f"{part.where}: labels must be whole numbers or names, got {labels[wrong[0]]} for image {wrong[0]} "
                "(counted from 0); correct it"
            )
    elif labels.dtype.kind not in "biu":
        raise DataError(
            f"{part.where}: labels must be whole numbers or names, got the type {labels.dtype}; convert them"
        )
    return labels.astype(np.int64)


def as_integers(names: NDArray[np.str_]) -> NDArray[Any]:
    """Names as int64 where every one of them spells an integer ("7", not "07"); otherwise the names themselves."""
    unique, inverse = np.unique(names, return_inverse=True)
    try:
        numbers = [int(name) for name in unique]
    except ValueError:
        return names
    if any(str(number) != name or abs(number) >= 2**63 for number, name in zip(numbers, unique, strict=True)):
        return names
    return np.array(numbers, dtype=np.int64)[inverse]


def check_classes(images: Sequence[LabelledImages], parts: Sequence[RawPart], class_names: tuple[str, ...]) -> None:
    """Every class of the test part must have training images, and there must be two classes at least."""
    counts = images[0].counts(len(class_names))
    for count, tested, name in zip(counts, images[-1].counts(len(class_names)), class_names, strict=True):
        if tested and not count:
            near = near_name(name, [known for known, number in zip(class_names, counts, strict=True) if number])
            raise DataError(
                f"{parts[-1].where}: the test part has {counted(tested, 'image')} of the class {name!r}, the training "
                f"part has none{f' (but {near!r}: is it the same?)' if near else ''}; "
                f"{'use one spelling, ' if near else ''}add training images of it or remove it from the test part"
            )
    if sum(count > 0 for count in counts) < 2:
        raise DataError(
            f"{parts[0].where}: at least two classes are expected, got one ({class_names[int(images[0].labels[0])]}); "
            "add images of another class"
        )
