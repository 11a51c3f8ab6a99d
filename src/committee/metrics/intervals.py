"""How uncertain a figure is: over the images that it was measured on, and over seeds.

These are two sources of variation. An interval over images (`wilson`, `paired_difference`) is about one trained
committee on other images of the same kind. An interval over seeds (`seed_interval`) is about the recipe: what another
training would reach on the same images. Neither contains the other.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from committee.metrics.results import Interval


class MeanAndSpread(NamedTuple):
    """`spread` is the sample standard deviation (divided by n - 1); None for a single value."""

    n: int
    mean: float
    spread: float | None


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """Wilson's score interval of a proportion, as fractions in [0, 1].

    E. B. Wilson, Journal of the American Statistical Association 22, 1927. It holds its level near 0 and 1, too, where
    the usual mean plus or minus two standard errors does not.

    Raises:
        ValueError: n is not positive, or successes is not in 0..n.
    """
    if n < 1 or not 0 <= successes <= n:
        raise ValueError(f"Wilson's interval needs 0 <= successes <= n and n >= 1; got {successes} of {n}")
    z = normal_quantile(confidence)
    share = successes / n
    centre = share + z * z / (2 * n)
    half = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low, high = (centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)
    return Interval(low=0.0 if successes == 0 else max(0.0, low), high=1.0 if successes == n else min(1.0, high))


def paired_difference(only_first: int, only_second: int, n: int, confidence: float = 0.95) -> Interval:
    """Tango's score interval of the difference of two accuracies on the same images, second minus first.

    T. Tango, Statistics in Medicine 17, 1998. It is to McNemar's test what Wilson's interval is to the test of one
    proportion: unlike a bootstrap interval, it is neither too short where few images differ nor a point where none do.

    Args:
        only_first, only_second: images that only the one or the other classifies correctly.
        n: all images.

    Raises:
        ValueError: a count is negative, or they are more than all images together.
    """
    if min(only_first, only_second) < 0 or not 0 < n >= only_first + only_second:
        raise ValueError(f"A paired difference needs counts of images; got {only_first}, {only_second} of {n}")
    z, found = normal_quantile(confidence), (only_second - only_first) / n

    def score(difference: float) -> float:
        """By how many standard errors the counts differ from those expected with this difference."""
        b = (2 * n + only_first - only_second) * difference - only_first - only_second
        lost = only_first * difference * (1 - difference)
        share = (math.sqrt(b * b + 8 * n * lost) - b) / (4 * n)
        variance = n * (2 * share + difference * (1 - difference))
        return (only_second - only_first - n * difference) / math.sqrt(variance) if variance > 0 else 0.0

    def end(inside: float, outside: float) -> float:
        """Where the score is z, by halving."""
        for _ in range(60):
            middle = (inside + outside) / 2
            inside, outside = (middle, outside) if abs(score(middle)) < z else (inside, middle)
        return inside

    return Interval(low=end(found, -1.0), high=end(found, 1.0))


def bootstrap_mean_difference(
    first: NDArray[np.floating[Any]],
    second: NDArray[np.floating[Any]],
    generator: np.random.Generator,
    resamples: int = 2000,
    confidence: float = 0.95,
) -> Interval:
    """The bootstrap percentile interval of mean(second) - mean(first), from resampled images; pairs stay together.

    Args:
        first: (image,), one value for each image, such as its log-loss.
        second: (image,), the values of the same images by the other committee.
        generator: draws the resamples.
        resamples: how many.
        confidence: the share of the resampled differences inside the interval.

    Where all pairs are equal, the interval has no width: no difference was observed, which does not rule one out.

    Raises:
        ValueError: the shapes differ, or there are no images.
    """
    if first.shape != second.shape or first.ndim != 1 or not len(first):
        raise ValueError(
            f"A paired bootstrap needs two equally long rows of values; got {first.shape} and {second.shape}"
        )
    values, counts = np.unique(second.astype(np.float64) - first.astype(np.float64), return_counts=True)
    n = len(first)
    if len(values) <= 64:  # few distinct values: drawing their counts is the same as drawing images
        means = generator.multinomial(n, counts / n, size=resamples) @ values / n
    else:
        differences = second.astype(np.float64) - first.astype(np.float64)
        step = max(1, 4_000_000 // n)  # at most 32 MB of positions at once
        means = np.concatenate(
            [
                differences[generator.integers(n, size=(min(step, resamples - start), n))].mean(axis=1)
                for start in range(0, resamples, step)
            ]
        )
    tail = (1 - confidence) / 2
    low, high = np.quantile(means, [tail, 1 - tail])
    return Interval(low=float(low), high=float(high))


def mean_and_spread(values: Sequence[float]) -> MeanAndSpread:
    """The mean and the sample standard deviation.

    Raises:
        ValueError: no values.
    """
    if not len(values):
        raise ValueError("A mean needs at least one value; got none")
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return MeanAndSpread(1, mean, None)
    squares = math.fsum((value - mean) ** 2 for value in values)
    return MeanAndSpread(len(values), mean, math.sqrt(squares / (len(values) - 1)))


def seed_interval(values: Sequence[float], confidence: float = 0.95) -> Interval:
    """Student's interval of the mean over seeds: what the recipe reaches on average over all seeds.

    Args:
        values: one for each seed, two or more.
        confidence: how often such intervals contain the true mean, if the values are roughly normal.

    Raises:
        ValueError: fewer than two values.
    """
    n, mean, spread = mean_and_spread(values)
    if spread is None:
        raise ValueError("An interval over seeds needs at least two seeds; got one")
    half = t_quantile(n - 1, confidence) * spread / math.sqrt(n)
    return Interval(low=mean - half, high=mean + half)


def t_quantile(freedom: int, confidence: float = 0.95) -> float:
    """The t with P(|T| < t) = confidence for Student's distribution with a whole number of degrees of freedom.

    Bisection on the finite series of Abramowitz and Stegun, 26.7.3 and 26.7.4; accurate to about 1e-10.

    Raises:
        ValueError: fewer than one degree of freedom, or a confidence outside (0, 1).
    """
    if freedom < 1 or not 0 < confidence < 1:
        raise ValueError(
            f"Student's quantile needs freedom >= 1 and 0 < confidence < 1; got {freedom} and {confidence}"
        )
    low, high = 0.0, math.pi / 2
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_central(middle, freedom) < confidence else (low, middle)
    return math.sqrt(freedom) * math.tan((low + high) / 2)


def t_probability(t: float, freedom: int) -> float:
    """P(|T| >= t) for Student's distribution: the two-sided p-value of a statistic."""
    return max(0.0, 1.0 - _t_central(math.atan(abs(t) / math.sqrt(freedom)), freedom))


def _t_central(angle: float, freedom: int) -> float:
    """P(|T| < sqrt(freedom) tan(angle))."""
    sine, cosine = math.sin(angle), math.cos(angle)
    term, total = (cosine, 0.0) if freedom % 2 else (1.0, 0.0)
    for power in range(1 if freedom % 2 else 0, freedom - 1, 2):
        total += term
        term *= cosine * cosine * (power + 1) / (power + 2)
    return 2 / math.pi * (angle + sine * total) if freedom % 2 else sine * total


def normal_quantile(confidence: float) -> float:
    """The z with P(|Z| < z) = confidence for the standard normal distribution."""
    if not 0 < confidence < 1:
        raise ValueError(f"The confidence must be between 0 and 1; got {confidence}")
    return NormalDist().inv_cdf((1 + confidence) / 2)
