"""Two committees on the same images: is one of them better, or could the difference be chance?

The comparison is between these two trained committees, on other images of the same kind. Whether one *recipe* is better
than another also depends on the seeds: train each several times and use `committee.metrics.repeats`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.metrics.formatting import p_value
from committee.metrics.intervals import bootstrap_mean_difference, paired_difference, wilson
from committee.metrics.results import Interval
from committee.metrics.scores import log_losses


@dataclass(frozen=True)
class Comparison:
    """Committees A and B on the same images; differences are B minus A, intervals are at 95 %.

    Attributes:
        images: that both predicted.
        accuracy_a, accuracy_b: each with its Wilson interval.
        accuracy_difference: above 0 where B is better; with Tango's interval.
        log_loss_a, log_loss_b: in nats.
        log_loss_difference: below 0 where B is better; with a paired-bootstrap interval.
        only_a_right, only_b_right: images that exactly one of them classifies correctly.
        both_right, both_wrong: the other images.
        mcnemar_p: of the two-sided exact McNemar test.
        verdict: the result in words.
    """

    images: int
    accuracy_a: float
    accuracy_b: float
    accuracy_interval_a: Interval
    accuracy_interval_b: Interval
    accuracy_difference: float
    accuracy_difference_interval: Interval
    log_loss_a: float
    log_loss_b: float
    log_loss_difference: float
    log_loss_difference_interval: Interval
    only_a_right: int
    only_b_right: int
    both_right: int
    both_wrong: int
    mcnemar_p: float
    verdict: str


def compare(
    probabilities_a: NDArray[np.floating[Any]],
    probabilities_b: NDArray[np.floating[Any]],
    labels: NDArray[np.integer[Any]],
    generator: np.random.Generator,
    *,
    names: tuple[str, str] = ("A", "B"),
    level: float = 0.05,
) -> Comparison:
    """Compare two committees on the same images.

    Args:
        probabilities_a: (image, class), combined probabilities of the first.
        probabilities_b: (image, class), of the second; the rows are the same images.
        labels: (image,), positions of the classes.
        generator: for the bootstrap.
        names: what the verdict calls them.
        level: the accuracies are called different where McNemar's p is below it.

    Raises:
        ValueError: the shapes differ.
    """
    if probabilities_a.shape != probabilities_b.shape:
        raise ValueError(
            "Two committees are compared on the same images and classes; "
            f"got probabilities of shapes {probabilities_a.shape} and {probabilities_b.shape}"
        )
    loss_a, loss_b = log_losses(probabilities_a, labels), log_losses(probabilities_b, labels)
    right_a = probabilities_a.argmax(axis=1) == labels
    right_b = probabilities_b.argmax(axis=1) == labels
    n, count_a, count_b = len(labels), int(right_a.sum()), int(right_b.sum())
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    p = mcnemar_exact(only_a, only_b)
    loss_interval = bootstrap_mean_difference(loss_a, loss_b, generator)
    return Comparison(
        images=n,
        accuracy_a=count_a / n,
        accuracy_b=count_b / n,
        accuracy_interval_a=wilson(count_a, n),
        accuracy_interval_b=wilson(count_b, n),
        accuracy_difference=(count_b - count_a) / n,
        accuracy_difference_interval=paired_difference(only_a, only_b, n),
        log_loss_a=float(loss_a.mean()),
        log_loss_b=float(loss_b.mean()),
        log_loss_difference=float((loss_b - loss_a).mean()),
        log_loss_difference_interval=loss_interval,
        only_a_right=only_a,
        only_b_right=only_b,
        both_right=int((right_a & right_b).sum()),
        both_wrong=int((~right_a & ~right_b).sum()),
        mcnemar_p=p,
        verdict=_verdict(only_a, only_b, n, p, loss_interval, names, level),
    )


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """The p-value of the two-sided exact McNemar test: the binomial test of only_a among only_a + only_b at 1/2.

    Q. McNemar, Psychometrika 12, 1947. The chi-squared approximation is not used: it is poor for the few images on
    which good classifiers differ.

    Args:
        only_a: images that only A classifies correctly.
        only_b: images that only B classifies correctly.

    Returns:
        The probability of counts at least this uneven if both were equally accurate; 1 where the counts are equal.

    Raises:
        ValueError: a negative count.
    """
    if only_a < 0 or only_b < 0:
        raise ValueError(f"McNemar's test needs counts of images; got {only_a} and {only_b}")
    n, fewer = only_a + only_b, min(only_a, only_b)
    if only_a == only_b:
        return 1.0
    log_total = math.lgamma(n + 1) - n * math.log(2)
    tail = math.fsum(math.exp(log_total - math.lgamma(k + 1) - math.lgamma(n - k + 1)) for k in range(fewer + 1))
    return min(1.0, 2 * tail)


def _verdict(only_a: int, only_b: int, n: int, p: float, loss: Interval, names: tuple[str, str], level: float) -> str:
    a, b = names
    split = (
        f"of {n:,} images, only {a} classifies {only_a:,} correctly and only {b} {only_b:,}; exact McNemar test, "
        f"p {p_value(p)}"
    )
    if p >= level:
        first = f"The accuracies of {a} and {b} are not distinguishable on these images ({split})."
    else:
        better, worse = (b, a) if only_b > only_a else (a, b)
        first = f"{better} is more accurate than {worse} on these images ({split})."
    if loss.low <= 0 <= loss.high:
        second = (
            "Their log-losses are not distinguishable either."
            if p >= level
            else "Their log-losses are not distinguishable."
        )
    else:
        better = b if loss.high < 0 else a
        second = f"{better} has the lower log-loss."
    return f"{first} {second}"
