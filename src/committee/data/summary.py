"""What a data set holds, in numbers and in pictures, for `committee data info` and the report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, cast

import numpy as np
import torch
from pydantic import ConfigDict

from committee.config.recipe import Augmentation
from committee.config.record import Record
from committee.data.augment import augment
from committee.data.dataset import ImageDataset, Pixels
from committee.rng import torch_generator


class ClassCount(Record):
    """How many images of a class there are in each part."""

    train: int
    test: int


class DatasetSummary(Record):
    """A data set in numbers; the test images are counted but not shown.

    Attributes:
        classes: their number.
        shape: height, width, channels.
        bits: of a pixel's value, 8 or 16.
        counts: by class name.
        digest: of both parts together, whatever their order, split or file format.
        warnings: what every output of a training on it must say.
        notes: the data set's own, and what the counts and copies of training images in the test part give reason to
            say.
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


class DataSource(Record):
    """The arguments of `load_dataset` that give a data set again."""

    model_config = ConfigDict(frozen=True, extra="ignore")  # 0.2 also stored a seed

    data: str
    data_dir: str | None = None
    image_size: int | None = None


def describe(dataset: ImageDataset) -> DatasetSummary:
    """A data set in numbers."""
    classes = len(dataset.class_names)
    train_counts, test_counts = dataset.train.counts(classes), dataset.test.counts(classes)
    train_digest, test_digest = dataset.part_digests()
    copies = dataset.test_images_also_in_train()
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
        test_images_also_in_train=copies,
        source=dataset.source,
        warnings=dataset.warnings,
        notes=(
            *dataset.notes,
            *_untested(dataset.class_names, train_counts, test_counts),
            *_copied(copies, dataset),
        ),
    )


def _untested(class_names: Sequence[str], train_counts: Sequence[int], test_counts: Sequence[int]) -> list[str]:
    """The remark that some classes have no test images, where there are test images at all."""
    counts = zip(class_names, train_counts, test_counts, strict=True)
    missing = [name for name, train, test in counts if train and not test]
    if not missing or not any(test_counts):
        return []
    named = ", ".join(missing[:5]) + (f" and {len(missing) - 5} more" if len(missing) > 5 else "")
    classes = "the class" if len(missing) == 1 else f"{len(missing)} classes:"
    verdict = "it says nothing about it" if len(missing) == 1 else "it says nothing about them"
    return [f"the test part has no images of {classes} {named}; {verdict}"]


def _copied(copies: int, dataset: ImageDataset) -> list[str]:
    """The remark that test images are among the training images too."""
    if not copies:
        return []
    return [
        f"{copies:,} of {len(dataset.test):,} test images {'is' if copies == 1 else 'are'} pixel for pixel among the "
        "training images too, so the test figure is flattering"
    ]


def sample_pictures(dataset: ImageDataset, per_class: int = 12) -> tuple[Pixels, Pixels]:
    """The first training images of each class, and each class's mean training image.

    Args:
        dataset: the data set; its test images are not touched.
        per_class: samples a class.

    Returns:
        (class, sample, height, width, channel), black where a class has fewer images, and
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
    """What an augmentation does to training images: rows of an original and random draws of it.

    Args:
        dataset: the first image of each of its first six classes is shown.
        settings: with all of them together first, then each one alone on the last of these images.
        seed: of the draws.
        draws: changed images a row.

    Returns:
        For each row its name and (1 + draws, height, width, channel) in the data set's type; the original comes first.
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
