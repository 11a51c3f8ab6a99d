"""Figures in which every class counts alike, however many images it has: balanced accuracy, macro F1, AUC.

Where classes differ in size, accuracy is mostly that of the largest ones: always predicting a class with 97 % of the
images is right for 97 % of them. Only classes that have images count.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.metrics.intervals import normal_quantile, wilson
from committee.metrics.results import BalancedScores, Interval
from committee.rng import numpy_generator

RESAMPLES = 2000
MOST_CELLS = 4_000_000  # of resampled confusion matrices at once: 32 MB


def balanced_scores(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]], confusion: NDArray[np.int64]
) -> BalancedScores:
    """All of them, each with its 95 % interval.

    Args:
        probabilities: (image, class).
        labels: (image,), positions of classes.
        confusion: (true class, predicted class), counts of the same images.
    """
    areas, area_interval = auc(probabilities, labels)
    return BalancedScores(
        accuracy=balanced_accuracy(confusion),
        accuracy_interval=balanced_accuracy_interval(confusion),
        macro_f1=float(_macro_f1(confusion[None])[0]),
        macro_f1_interval=macro_f1_interval(confusion),
        auc=areas,
        auc_interval=area_interval,
    )


def balanced_accuracy(confusion: NDArray[np.int64]) -> float:
    """The mean of the classes' recalls; 1 / classes for a guess that ignores the image. Higher is better."""
    present = confusion.sum(axis=1) > 0
    return float((np.diag(confusion)[present] / confusion.sum(axis=1)[present]).mean())


def balanced_accuracy_interval(confusion: NDArray[np.int64]) -> Interval:
    """The 95 % interval of the balanced accuracy, from the Wilson intervals of the recalls.

    The distances of their ends from the recalls are added as variances are (MOVER: Zou & Donner 2008, Statistics in
    Medicine 27, doi 10.1002/sim.3095), so that it has a width where every image is right, too.
    """
    present = [(int(row[c]), int(row.sum())) for c, row in enumerate(confusion) if row.sum()]
    ends = [wilson(right, images) for right, images in present]
    recalls = [right / images for right, images in present]
    below = math.hypot(*(recall - end.low for recall, end in zip(recalls, ends, strict=True))) / len(present)
    above = math.hypot(*(end.high - recall for recall, end in zip(recalls, ends, strict=True))) / len(present)
    mean = balanced_accuracy(confusion)
    return Interval(low=max(mean - below, 0.0), high=min(mean + above, 1.0))


def macro_f1_interval(confusion: NDArray[np.int64]) -> Interval:
    """The 95 % bootstrap percentile interval of the mean F1, from resampled images.

    Resampling images is drawing the cells of the confusion matrix from a multinomial distribution.
    """
    cells, images = confusion.ravel(), int(confusion.sum())
    generator = numpy_generator("macro F1")
    step = max(1, MOST_CELLS // len(cells))
    found = []
    for start in range(0, RESAMPLES, step):
        drawn = generator.multinomial(images, cells / images, size=min(step, RESAMPLES - start))
        found.append(_macro_f1(drawn.reshape(-1, *confusion.shape)))
    low, high = np.quantile(np.concatenate(found), [0.025, 0.975])
    return Interval(low=float(low), high=float(high))


def _macro_f1(confusion: NDArray[np.int64]) -> NDArray[np.float64]:
    """(matrix,): the mean over classes of the F1 of confusion matrices (matrix, true class, predicted class)."""
    right = np.diagonal(confusion, axis1=1, axis2=2)
    images, predicted = confusion.sum(axis=2), confusion.sum(axis=1)
    counted = images + predicted > 0
    f1 = np.divide(2.0 * right, images + predicted, out=np.zeros(right.shape), where=counted)
    return np.asarray(f1.sum(axis=1) / np.maximum(counted.sum(axis=1), 1))


def auc(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.integer[Any]]
) -> tuple[float | None, Interval | None]:
    """The area under the ROC curve of each class against the rest, mean over classes, and its 95 % interval.

    It is how often an image of a class has a higher probability of it than an image of another class, as MedMNIST
    (Yang et al. 2023, doi 10.1038/s41597-022-01721-8) reports it. The interval is normal on the logit scale; the
    variance is DeLong, DeLong & Clarke-Pearson's (Biometrics 44, 1988) for the mean of correlated areas.

    Returns:
        None where fewer than two classes have images; the interval is None, too, where every area is 1 or 0.
    """
    present = np.unique(labels)
    if len(present) < 2:
        return None, None
    areas, influence = [], np.zeros(len(labels))
    for each in present:
        inside = labels == each
        scores = probabilities[:, each].astype(np.float64)
        above = _shares_below(scores[inside], scores[~inside])
        area = float(above.mean())
        influence[inside] += (above - area) / inside.sum()
        influence[~inside] += (1 - _shares_below(scores[~inside], scores[inside]) - area) / (~inside).sum()
        areas.append(area)
    mean, error = float(np.mean(areas)), float(np.sqrt(np.square(influence).sum())) / len(present)
    if not 0 < mean < 1:
        return mean, None
    centre, half = math.log(mean / (1 - mean)), normal_quantile(0.95) * error / (mean * (1 - mean))
    return mean, Interval(low=_logistic(centre - half), high=_logistic(centre + half))


def _shares_below(values: NDArray[np.float64], others: NDArray[np.float64]) -> NDArray[np.float64]:
    """(value,): the share of the others that lie below each value; equal ones count half."""
    ordered = np.sort(others)
    below = ordered.searchsorted(values, "left") + ordered.searchsorted(values, "right")
    return np.asarray(below / (2 * len(others)))


def _logistic(value: float) -> float:
    return 1 / (1 + math.exp(-value)) if value > -700 else 0.0
