"""A data set in numbers and pictures, for `committee data info` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict

from committee.config.record import Record
from committee.data.dataset import CHUNK, ImageDataset, Pixels
from committee.data.read_options import ReadOptions, ValueRange
from committee.errors import counted
from committee.pages import looked_at


class ClassCount(Record):
    """How many images of a class there are in each part."""

    train: int
    test: int


class DatasetSummary(Record):
    """A data set in numbers; the test images are counted but not shown.

    Attributes:
        classes: how many there are.
        shape: height, width, channels.
        bits: of a pixel's value, 8 or 16.
        counts: by class name.
        digest: of both parts together; their order, the split and the file format do not matter.
        warnings: what every output of a training on this data set must say.
        notes: the data set's own notes, and remarks about classes without test images and about duplicates.
        value_range: the numbers that became black and white; None where the files hold pixels.
    """

    names_of_0_4: ClassVar[Mapping[str, str]] = {"marks": "warnings"}

    name: str
    images: int
    train_images: int
    test_images: int
    classes: int
    class_names: tuple[str, ...]
    shape: tuple[int, int, int]
    bits: int
    counts: dict[str, ClassCount]
    digest: str
    train_digest: str
    test_digest: str
    test_images_also_in_train: int
    source: str
    warnings: tuple[str, ...]
    notes: tuple[str, ...]
    value_range: ValueRange | None = None


class DataSource(ReadOptions):
    """The arguments with which `load_dataset` gives the same data set again."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # 0.2 also stored a seed

    data: str
    data_dir: str | None = None

    @property
    def options(self) -> ReadOptions:
        """How its files are read."""
        return ReadOptions.model_validate(self.model_dump(include=set(ReadOptions.model_fields)))


def describe(dataset: ImageDataset) -> DatasetSummary:
    """A data set in numbers."""
    classes = len(dataset.class_names)
    train_counts, test_counts = dataset.train.counts(classes), dataset.test.counts(classes)
    train_digest, test_digest = dataset.part_digests()
    duplicates = dataset.test_images_also_in_train()
    return DatasetSummary(
        name=dataset.name,
        images=len(dataset.train) + len(dataset.test),
        train_images=len(dataset.train),
        test_images=len(dataset.test),
        classes=classes,
        class_names=dataset.class_names,
        shape=dataset.image_shape,
        bits=dataset.pixel_range.bit_length(),
        counts={
            name: ClassCount(train=train, test=test)
            for name, train, test in zip(dataset.class_names, train_counts, test_counts, strict=True)
        },
        digest=dataset.digest(),
        train_digest=train_digest,
        test_digest=test_digest,
        test_images_also_in_train=duplicates,
        source=dataset.source,
        warnings=dataset.warnings,
        value_range=dataset.value_range,
        notes=(
            *dataset.notes,
            *_single(dataset.class_names, train_counts),
            *_untested(dataset.class_names, train_counts, test_counts),
            *leak_note(duplicates, len(dataset.test)),
        ),
    )


def _single(class_names: Sequence[str], train_counts: Sequence[int]) -> list[str]:
    """A note about classes with one training image, which cannot be trained on and validated at once."""
    single = [name for name, train in zip(class_names, train_counts, strict=True) if train == 1]
    if not single:
        return []
    named = ", ".join(single[:5]) + (f" and {len(single) - 5} more" if len(single) > 5 else "")
    classes = f"the class {named} has" if len(single) == 1 else f"{len(single)} classes ({named}) have"
    return [
        f"{classes} one training image only, too few for folds: add images, leave "
        f"{'it' if len(single) == 1 else 'them'} out, or train with --set holdout.kind=shared"
    ]


def _untested(class_names: Sequence[str], train_counts: Sequence[int], test_counts: Sequence[int]) -> list[str]:
    """A note about classes that have training images but no test images; none where there is no test image at all."""
    counts = zip(class_names, train_counts, test_counts, strict=True)
    missing = [name for name, train, test in counts if train and not test]
    if not missing or not any(test_counts):
        return []
    named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    if len(missing) == 1:
        return [f"the test part has no images of the class {named}, so test figures say nothing about it"]
    return [f"the test part has no images of {len(missing)} classes ({named}), so test figures say nothing about them"]


def leak_note(duplicates: int, test_images: int) -> list[str]:
    """A note about test images that are among the training images, too."""
    if not duplicates:
        return []
    verb = "is" if duplicates == 1 else "are"
    return [
        f"{duplicates:,} of {counted(test_images, 'test image')} {verb} also in the training part, identical in every "
        "pixel and in class, so test figures are too favourable"
    ]


def sample_pictures(dataset: ImageDataset, per_class: int = 12) -> tuple[Pixels, Pixels]:
    """The first training images of each class, and each class's mean training image.

    Args:
        dataset: the data set; its test images are not touched.
        per_class: how many samples of each class.

    Returns:
        The samples (class, sample, height, width, channel), black where a class has fewer images, and the means
        (class, height, width, channel), rounded; both in the data set's own type.
    """
    pixels, labels = dataset.train.pixels, dataset.train.labels
    classes = len(dataset.class_names)
    samples = np.zeros((classes, per_class, *dataset.image_shape), pixels.dtype)
    means = np.zeros((classes, *dataset.image_shape), pixels.dtype)
    for c in range(classes):
        positions = np.flatnonzero(labels == c)
        samples[c, : min(per_class, len(positions))] = pixels[positions[:per_class]]
        if len(positions):
            means[c] = np.rint(_sum(pixels, positions) / len(positions))
    return samples, means


def _sum(pixels: Pixels, positions: NDArray[np.int64]) -> NDArray[np.float64]:
    """The sum of images (height, width, channel), some at a time; it is exact, as whole numbers are."""
    total = np.zeros(pixels.shape[1:])
    for start in range(0, len(positions), CHUNK):
        total += pixels[positions[start : start + CHUNK]].sum(axis=0, dtype=np.float64)
        looked_at(CHUNK)
    return total
