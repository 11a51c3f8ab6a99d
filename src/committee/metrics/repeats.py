"""Accuracies over repeated trainings: how uncertain a mean is, whether two recipes differ, all comparisons of a study.

The mean accuracy of a recipe varies with the images that were drawn and with the seeds. With n images and S repeats
crossed, Var(mean) = Var_images / n + Var_seeds / S. The variance of the repeats' accuracies gives the second term whole
(including what is particular to an image and a seed); the variance of the images' means, less what the seeds contribute
to it, gives the first. One repeat says nothing about seeds: its interval covers images alone, and is labelled so.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.metrics.intervals import (
    mean_and_spread,
    paired_difference,
    t_probability,
    t_quantile,
    wilson,
)
from committee.metrics.paired import mcnemar_exact
from committee.metrics.results import Difference, Interval, RepeatScore

Right = NDArray[np.floating[Any]]  # (repeat, image): 1 correct, 0 wrong, NaN not predicted

LEVEL = 0.05


def score_repeats(right: Right) -> RepeatScore:
    """Mean accuracy over repeats with its 95 % interval.

    Args:
        right: (repeat, image).

    The interval combines Wilson's over images (1927) with, for two repeats or more, Student's over seeds: on each side
    the distance from the mean is the root of the sum of squares of the two.
    """
    accuracies = [float(value) for value in np.nanmean(right, axis=1)]
    n, mean, spread = mean_and_spread(accuracies)
    images = int((~np.isnan(right)).sum(axis=1).min())
    over_images = wilson(round(mean * images), images)
    half = 0.0 if spread is None else t_quantile(n - 1) * spread / math.sqrt(n)
    return RepeatScore(
        repeats=n,
        images=images,
        accuracies=tuple(accuracies),
        mean=mean,
        spread=spread,
        interval=Interval(
            low=max(0.0, mean - math.hypot(mean - over_images.low, half)),
            high=min(1.0, mean + math.hypot(over_images.high - mean, half)),
        ),
        over="images" if spread is None else "seeds and images",
    )


@dataclass(frozen=True)
class Correctness:
    """What is compared: a row's repeats on one set of images.

    Attributes:
        correct: (repeat, image).
        members: (member, image), where the only repeat is a committee: its members on their own. The standard deviation
            of committees over seeds is unknown then and is estimated as s / sqrt(members).
    """

    correct: Right
    members: Right | None = None

    def seeds(self) -> tuple[float, int] | None:
        """The variance of the mean accuracy over seeds and its degrees of freedom; None where it is unknown."""
        rows = self.correct if len(self.correct) > 1 else self.members
        if rows is None or len(rows) < 2:
            return None
        return float(np.nanmean(rows, axis=1).var(ddof=1)) / len(rows), len(rows) - 1


def difference(this: Correctness, other: Correctness, *, against: str, on: str) -> Difference:
    """This row minus another on the same images; p is not adjusted yet and the verdict is for this pair alone.

    Args:
        this, other: on the same images.
        against: the other's name.
        on: "test" or "validation".

    Where the variance over seeds is known, Welch's test and interval over seeds and images together, with
    Satterthwaite's degrees of freedom rounded down. With a single training each, the exact McNemar test (Psychometrika
    12, 1947) and Tango's interval (Statistics in Medicine 17, 1998) over images; they compare these two trainings only,
    and so does the verdict.
    """
    points = float(np.nanmean(this.correct) - np.nanmean(other.correct))
    once = len(this.correct) == len(other.correct) == 1 and not np.isnan(this.correct + other.correct).any()
    only = ((this.correct > other.correct).sum(), (other.correct > this.correct).sum()) if once else None
    if once and this.seeds() is None and other.seeds() is None:
        assert only is not None
        p = mcnemar_exact(int(only[0]), int(only[1]))
        interval = paired_difference(int(only[1]), int(only[0]), this.correct.shape[1])
        method = "exact McNemar"
    else:
        variance, freedom = _variance(this, other)
        half = t_quantile(freedom) * math.sqrt(variance)
        interval = Interval(low=max(points - half, -1.0), high=min(points + half, 1.0))
        p = t_probability(points / math.sqrt(variance), freedom) if variance > 0 else float(points == 0)
        method = "seeds and images"
    return Difference(
        against=against,
        on=on,
        points=points,
        interval=interval,
        p=p,
        p_adjusted=p,
        method=method,
        mcnemar_p=mcnemar_exact(int(only[0]), int(only[1])) if only else None,
        only_this_right=int(only[0]) if only else None,
        only_other_right=int(only[1]) if only else None,
        verdict=_verdict(points, p, method),
    )


def _variance(this: Correctness, other: Correctness) -> tuple[float, int]:
    """Variance of the difference of two mean accuracies, and its degrees of freedom."""
    a, b = this.correct, other.correct
    parts = [part for part in (this.seeds(), other.seeds()) if part]
    least = 0.0  # a few seeds may agree by chance more than the images allow
    if not np.isnan(a).any() and not np.isnan(b).any():
        per_image = a.mean(axis=0) - b.mean(axis=0)
        by_seeds = sum(float(rows.var(axis=0, ddof=1).mean()) / len(rows) for rows in (a, b) if len(rows) > 1)
        parts.append((max(float(per_image.var(ddof=1)) - by_seeds, 0.0) / len(per_image), len(per_image) - 1))
        least = float(per_image.var(ddof=1)) / len(per_image)
    else:  # predicted on different images: the two accuracies are independent
        for rows in (a, b):
            mean, n = float(np.nanmean(rows)), int((~np.isnan(rows)).any(axis=0).sum())
            parts.append((mean * (1 - mean) / n, n - 1))
    total = math.fsum(value for value, _ in parts)
    below = math.fsum(value**2 / max(freedom, 1) for value, freedom in parts)
    return max(total, least), max(1, int(total**2 / below)) if below > 0 else 1


def adjust_for_multiplicity(differences: Sequence[Difference | None]) -> list[Difference | None]:
    """The comparisons of a study with p-values adjusted for their number, and the verdicts that follow.

    Holm's step-down method (S. Holm, Scandinavian Journal of Statistics 6, 1979): if no rows differ, the probability
    that a study reports any difference is at most `LEVEL`.
    """
    known = [(d.p, number) for number, d in enumerate(differences) if d is not None]
    result = list(differences)
    largest = 0.0
    for rank, (p, number) in enumerate(sorted(known)):
        largest = max(largest, min(1.0, p * (len(known) - rank)))
        old = differences[number]
        assert old is not None
        result[number] = old.model_copy(
            update={"p_adjusted": largest, "verdict": _verdict(old.points, largest, old.method)}
        )
    return result


def _verdict(points: float, p: float, method: str) -> str:
    if p >= LEVEL:
        return "not distinguishable"
    if method == "exact McNemar":
        return "these two trainings differ"
    return "better" if points > 0 else "worse"


def paired_mean(differences: Right) -> tuple[float, Interval, float]:
    """The mean of differences paired by repeat and by image, its 95 % interval, and the p-value of no difference.

    Over images and repeats together, as in `difference`: repeats of the two that are compared share their seeds and
    folds, so that their differences are taken before any variance is.

    Args:
        differences: (repeat, image); without NaN. One repeat says nothing about seeds: then over images alone.
    """
    per_image, per_repeat = differences.mean(axis=0), differences.mean(axis=1)
    mean, (repeats, images) = float(differences.mean()), differences.shape
    over_images = float(per_image.var(ddof=1)) if images > 1 else 0.0
    if repeats == 1:
        variance, freedom = over_images / images, max(images - 1, 1)
    else:
        by_repeats = float(per_repeat.var(ddof=1)) / repeats
        within = float(differences.var(axis=0, ddof=1).mean()) / repeats
        parts = ((by_repeats, repeats - 1), (max(over_images - within, 0.0) / images, max(images - 1, 1)))
        variance = max(by_repeats + parts[1][0], over_images / images)
        below = math.fsum(value**2 / freedom for value, freedom in parts)
        freedom = max(1, int((by_repeats + parts[1][0]) ** 2 / below)) if below > 0 else 1
    half = t_quantile(freedom) * math.sqrt(variance)
    p = t_probability(mean / math.sqrt(variance), freedom) if variance > 0 else float(mean == 0)
    return mean, Interval(low=mean - half, high=mean + half), p
