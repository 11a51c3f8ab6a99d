"""A data set in numbers and pictures, for `committee data info` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from pydantic import ConfigDict

from committee.config.recipe import Augmentation
from committee.config.record import Record
from committee.data.augment import augment
from committee.data.check import leak_note
from committee.data.dataset import ImageDataset, Pixels
from committee.data.read_options import ReadOptions, ValueRange
from committee.rng import torch_generator


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
            means[c] = np.rint(pixels[positions].mean(axis=0, dtype=np.float64))
    return samples, means


def augmented_pictures(
    dataset: ImageDataset, settings: Augmentation, seed: int, draws: int = 9
) -> list[tuple[str, Pixels]]:
    """What an augmentation does to training images: rows of an image and changed copies of it.

    The first rows show the first image of each of the first six classes with all changes together; where there are
    several changes, further rows show each of them alone on the last of these images.

    Args:
        dataset: where the images come from.
        settings: the augmentation.
        seed: of the augmentation.
        draws: how many changed copies a row has.

    Returns:
        For each row its name and (1 + draws, height, width, channel) in the data set's type, the original first.
    """
    labels = dataset.train.labels
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:6]]
    off = Augmentation(fill=settings.fill, zoom_axes=settings.zoom_axes)
    alone = {name: off.model_copy(update={name: value}) for name, value in settings.changes.items()}
    rows = [(dataset.class_names[labels[first]], first, settings) for first in firsts]
    rows += [(f"{name.replace('_', ' ')} alone", firsts[-1], each) for name, each in alone.items()] * (len(alone) > 1)
    return [
        (name, _draws(dataset.train.pixels[first], each, torch_generator(seed, "augmented", number), draws))
        for number, (name, first, each) in enumerate(rows)
    ]


def _draws(image: Pixels, settings: Augmentation, generator: torch.Generator, draws: int) -> Pixels:
    """An image (height, width, channel) and changed copies of it."""
    batch = torch.from_numpy(image.astype(np.float32)).permute(2, 0, 1).repeat(draws, 1, 1, 1)
    changed = augment(batch, settings, generator).permute(0, 2, 3, 1).round().numpy().astype(image.dtype)
    return cast(Pixels, np.concatenate([image[None], changed]))
