"""What a data set holds, in numbers and in pictures, for `committee data info` and the report."""

from __future__ import annotations

from typing import Any

import numpy as np

from committee.data.dataset import ImageDataset, Pixels


def describe(dataset: ImageDataset) -> dict[str, Any]:
    """A data set in plain values, ready for JSON; the test images count but are not shown.

    Returns:
        ``images``, ``train_images``, ``test_images``, ``classes`` (their number), ``class_names``, ``shape`` (height,
        width, channels), ``bits``, ``counts`` (class name -> ``train``, ``test``), ``digest``, ``train_digest``,
        ``test_digest``, ``name``, ``source``, ``notes``.
    """
    classes = len(dataset.class_names)
    train_counts, test_counts = dataset.train.counts(classes), dataset.test.counts(classes)
    train_digest, test_digest = dataset.part_digests()
    return {
        "name": dataset.name,
        "images": len(dataset.train) + len(dataset.test),
        "train_images": len(dataset.train),
        "test_images": len(dataset.test),
        "classes": classes,
        "class_names": list(dataset.class_names),
        "shape": list(dataset.image_shape),
        "bits": dataset.pixel_range.bit_length(),
        "counts": {
            name: {"train": train, "test": test}
            for name, train, test in zip(dataset.class_names, train_counts, test_counts, strict=True)
        },
        "digest": dataset.digest(),
        "train_digest": train_digest,
        "test_digest": test_digest,
        "source": dataset.source,
        "notes": list(dataset.notes),
    }


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
