"""Scores of probabilities against labels: pure functions of numpy arrays.

`accuracy`: higher is better. `log_loss`, `brier_score`, `expected_calibration_error`: lower is better. Each of them
scores one array of probabilities (image, class), a committee's or one member's. To score a committee, combine its
members first; the mean of the members' scores is another number, and a worse one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.metrics.balanced import balanced_scores
from committee.metrics.intervals import wilson
from committee.metrics.results import ClassRow, ReliabilityBin, Scores
from committee.pages import by_blocks

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]

SMALLEST_PROBABILITY = 1e-12
"""Probabilities are raised to this before their logarithm, so one certain error costs 27.6 nats and not infinity."""

BINS = 15


def score(probabilities: Probabilities, labels: Labels, class_names: Sequence[str]) -> Scores:
    """Every score of one set of probabilities.

    Args:
        probabilities: (image, class), rows sum to 1. Images without a prediction must be left out; NaN is an error.
        labels: (image,), positions in `class_names`.
        class_names: one name for each class.

    Raises:
        ValueError: the shapes do not fit together, there are no images, or a value is not finite or out of range.
    """
    _check(probabilities, labels)
    if probabilities.shape[1] != len(class_names):
        raise ValueError(
            f"The probabilities have {probabilities.shape[1]} classes, but there are {len(class_names)} class names."
        )
    right = int((probabilities.argmax(axis=1) == labels).sum())
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, len(class_names))
    return Scores(
        images=len(labels),
        errors=len(labels) - right,
        accuracy=right / len(labels),
        accuracy_interval=wilson(right, len(labels)),
        log_loss=log_loss(probabilities, labels),
        brier=brier_score(probabilities, labels),
        calibration_error=expected_calibration_error(probabilities, labels),
        classes=class_rows(confusion, class_names),
        confusion=tuple(tuple(int(count) for count in row) for row in confusion),
        reliability=reliability_bins(probabilities, labels),
        balanced=balanced_scores(probabilities, labels, confusion),
    )


def accuracy(probabilities: Probabilities, labels: Labels) -> float:
    """The share of images whose most probable class is the label; of equal ones, the first counts. Higher is better."""
    _check(probabilities, labels)
    return float((probabilities.argmax(axis=1) == labels).mean())


def log_losses(probabilities: Probabilities, labels: Labels) -> NDArray[np.float64]:
    """(image,): minus the logarithm of the label's probability, in nats, at most 27.6 (see SMALLEST_PROBABILITY)."""
    _check(probabilities, labels)
    of_label = probabilities[np.arange(len(labels)), labels].astype(np.float64)
    return np.asarray(-np.log(np.clip(of_label, SMALLEST_PROBABILITY, 1.0)))


def log_loss(probabilities: Probabilities, labels: Labels) -> float:
    """Mean negative logarithm of the label's probability, in nats (cross-entropy). Lower is better.

    Probabilities below 1e-12 count as 1e-12.
    """
    return float(log_losses(probabilities, labels).mean())


def brier_score(probabilities: Probabilities, labels: Labels) -> float:
    """Squared difference of probabilities and one-hot label, summed over classes, mean over images. Lower is better.

    This is the original definition (Brier, Monthly Weather Review 78, 1950), from 0 to 2; for two classes it is twice
    the score that is usual there.
    """
    _check(probabilities, labels)

    def of(start: int, stop: int) -> NDArray[np.float64]:
        values = probabilities[start:stop].astype(np.float64)
        of_label = values[np.arange(len(values)), labels[start:stop]]
        return np.asarray(np.square(values).sum(axis=1) - 2 * of_label + 1)

    return float(by_blocks(of, labels.shape, np.float64).mean())


def expected_calibration_error(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> float:
    """The mean difference of confidence and accuracy over bins of equal width. Lower is better.

    The confidence is the probability of the predicted class; each bin is weighted by its number of images (Guo et al.
    2017, arXiv 1706.04599). The figure depends on the number of bins and is biased upwards where images are few.
    """
    rows = reliability_bins(probabilities, labels, bins)
    return sum(row.images * abs(row.accuracy - row.confidence) for row in rows) / len(labels)


def reliability_bins(probabilities: Probabilities, labels: Labels, bins: int = BINS) -> tuple[ReliabilityBin, ...]:
    """The bins of the reliability diagram, [low, high), the last one including 1; bins without images are left out."""
    _check(probabilities, labels)
    confidence = probabilities.max(axis=1).astype(np.float64)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    place = np.clip((confidence * bins).astype(np.int64), 0, bins - 1)
    images = np.bincount(place, minlength=bins)
    confidences = np.bincount(place, weights=confidence, minlength=bins)
    rights = np.bincount(place, weights=right, minlength=bins)
    return tuple(
        ReliabilityBin(
            low=b / bins,
            high=(b + 1) / bins,
            images=int(images[b]),
            confidence=float(confidences[b] / images[b]),
            accuracy=float(rights[b] / images[b]),
        )
        for b in range(bins)
        if images[b]
    )


def confusion_matrix(predicted: Labels, labels: Labels, classes: int) -> NDArray[np.int64]:
    """(true class, predicted class): counts of images."""
    if predicted.shape != labels.shape:
        raise ValueError(
            f"There are {len(predicted)} predictions and {len(labels)} labels; each label needs one prediction."
        )
    pairs = labels.astype(np.int64) * classes + predicted.astype(np.int64)
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes).astype(np.int64)


def class_rows(confusion: NDArray[np.int64], class_names: Sequence[str]) -> tuple[ClassRow, ...]:
    """Precision, recall and F1 of each class, None where there is nothing to divide by.

    Args:
        confusion: (true class, predicted class), counts.
        class_names: one name for each class.
    """
    rows = []
    for number, name in enumerate(class_names):
        right, images, named = (
            int(confusion[number, number]),
            int(confusion[number].sum()),
            int(confusion[:, number].sum()),
        )
        rows.append(
            ClassRow(
                name=name,
                images=images,
                precision=right / named if named else None,
                recall=right / images if images else None,
                f1=2 * right / (images + named) if images + named else None,
            )
        )
    return tuple(rows)


def _check(probabilities: Probabilities, labels: Labels) -> None:
    if probabilities.ndim != 2 or labels.shape != probabilities.shape[:1] or not len(labels):
        raise ValueError(
            "Probabilities of shape (image, class) and labels of shape (image,) with at least one image are needed; "
            f"got {probabilities.shape} and {labels.shape}"
        )
    if not np.isfinite(probabilities).all():
        first = int(np.flatnonzero(~np.isfinite(probabilities).all(axis=1))[0])
        raise ValueError(f"The probabilities of image {first} are not finite; leave out images without a prediction.")
    if labels.min() < 0 or labels.max() >= probabilities.shape[1]:
        raise ValueError(f"Labels must be 0 to {probabilities.shape[1] - 1}; got {labels.min()} to {labels.max()}")
