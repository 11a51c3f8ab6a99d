"""When a committee should not name one class: prediction sets that hold the true class as often as promised, and a
threshold below which it says nothing.

Both are calibrated on out-of-fold images. Sets are split conformal ones with the score 1 - p(true class) (Vovk,
Gammerman & Shafer, 2005; Sadinle, Lei & Wasserman, 2019): of n such images the ceil((n + 1) * coverage)-th smallest
score is the limit, for all classes together or, class-conditional, for each by itself. A set always has the most
probable class, so that a committee whose accuracy is above the coverage covers more than was asked.

The threshold to abstain is the one with the most answers whose precision is, with a confidence of 95 %, at least what
is wanted: exact binomial bounds (Clopper & Pearson, 1934), divided among the shares that are tried (as Geifman &
El-Yaniv, 2017, "Selective classification for deep neural networks", arXiv 1705.08500).
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from committee.config.record import Record
from committee.errors import CommitteeError
from committee.metrics.intervals import wilson
from committee.metrics.results import Interval

Floats = NDArray[np.floating[Any]]

DOUBT = 0.05  # that the precision is lower than promised
SHARES = 50  # shares answered that are tried
FEWEST_ANSWERED = 10


class PredictionSets(Record):
    """Which classes belong to a set.

    Attributes:
        coverage: the promised share of sets with the true class.
        by_class: whether it is promised for the images of every class.
        least: (class,), the probability from which a class belongs to the set.
        images: that they were calibrated on.
        mean_size: of these images' sets.
        unlimited: classes with too few images for a limit, which belong to every set.
    """

    coverage: float = Field(gt=0, lt=1)
    by_class: bool
    least: tuple[float, ...]
    images: int
    mean_size: float
    unlimited: int = 0

    def sets(self, probabilities: Floats) -> NDArray[np.bool_]:
        """(image, class) probabilities -> (image, class), whether the class belongs to the image's set."""
        found = probabilities >= np.array(self.least)
        found[np.arange(len(found)), probabilities.argmax(axis=1)] = True
        return np.asarray(found)


class Abstention(Record):
    """When to say nothing.

    Attributes:
        precision: the promised share of answers that are right.
        least: an answer's probability; below it there is none.
        images, answered, right: that it was calibrated on, those answered, and those of them answered rightly.
        lower_bound: of the precision, with a confidence of 95 %, whichever of the tried thresholds was chosen.
    """

    precision: float = Field(gt=0, lt=1)
    least: float
    images: int
    answered: int
    right: int
    lower_bound: float

    def abstains(self, probabilities: Floats) -> NDArray[np.bool_]:
        """(image, class) probabilities -> (image,)."""
        return np.asarray(probabilities.max(axis=1) < self.least)


class AnsweredShare(Record):
    """Accuracy where a share of the images is answered, the most certain ones.

    Attributes:
        answered: how many.
        interval: Wilson's, at 95 %.
    """

    share: float
    answered: int
    accuracy: float
    interval: Interval


class NotSure(Record):
    """What a committee may say instead of one class; None where it was not asked for."""

    sets: PredictionSets | None = None
    abstention: Abstention | None = None


def fit_sets(
    probabilities: Floats, labels: NDArray[np.integer[Any]], coverage: float, *, by_class: bool = False
) -> PredictionSets:
    """Limits of prediction sets.

    Args:
        probabilities: (image, class) of images that the members did not train on, without NaN.
        labels: (image,).
        coverage: the share of sets that shall hold the true class, above 0 and below 1.
        by_class: for every class by itself (Mondrian); else for all images together.
    """
    scores = 1 - probabilities[np.arange(len(labels)), labels]
    classes = probabilities.shape[1]
    groups = [scores[labels == c] for c in range(classes)] if by_class else [scores]
    limits = [_limit(group, coverage) for group in groups] * (1 if by_class else classes)
    least = tuple(max(0.0, 1 - limit - 1e-12) for limit in limits)
    fitted = PredictionSets(
        coverage=coverage,
        by_class=by_class,
        least=least,
        images=len(labels),
        mean_size=1.0,
        unlimited=sum(limit >= 1 for limit in limits),
    )
    return fitted.model_copy(update={"mean_size": float(fitted.sets(probabilities).sum(axis=1).mean())})


def _limit(scores: Floats, coverage: float) -> float:
    """The smallest score that so many scores, and a new one, do not exceed; 1, which nothing does, for too few."""
    rank = math.ceil((len(scores) + 1) * coverage - 1e-9)
    return 1.0 if rank > len(scores) else float(np.sort(scores)[rank - 1])


def fit_abstention(probabilities: Floats, labels: NDArray[np.integer[Any]], precision: float) -> Abstention:
    """The threshold with the most answers that are right as often as wanted.

    Args:
        probabilities: (image, class) of images that the members did not train on, without NaN.
        labels: (image,).
        precision: the share of answers that shall be right, above 0 and below 1.

    Raises:
        CommitteeError: no threshold promises that; the message has the highest precision that one does.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-certainty, kind="stable")
    rights = np.cumsum(right[order])
    best = 0.0
    for share in range(SHARES, 0, -1):
        count = math.ceil(len(order) * share / SHARES)
        least = float(certainty[order[count - 1]])
        count = int((certainty >= least).sum())  # with all that are as certain
        bound = precision_bound(int(rights[count - 1]), count, DOUBT / SHARES)
        best = max(best, bound)
        if bound >= precision:
            return Abstention(
                precision=precision,
                least=0.0 if count == len(order) else least,
                images=len(order),
                answered=count,
                right=int(rights[count - 1]),
                lower_bound=bound,
            )
    raise CommitteeError(
        f"a precision of {precision:g} cannot be promised on {len(order):,} out-of-fold images, where at most "
        f"{math.floor(best * 10_000) / 10_000:g} can; ask for less, or train with more images"
    )


def answered_accuracy(probabilities: Floats, labels: NDArray[np.integer[Any]]) -> tuple[AnsweredShare, ...]:
    """Accuracy where only the most certain images are answered, from few of them to all.

    Args:
        probabilities: (image, class), without NaN.
        labels: (image,).

    Returns:
        One for each of `SHARES` shares with ten answers or more; images as certain as the last one are answered, too.
    """
    certainty, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    order = np.argsort(-certainty, kind="stable")
    rights, found = np.cumsum(right[order]), list[AnsweredShare]()
    for share in range(1, SHARES + 1):
        count = int((certainty >= certainty[order[math.ceil(len(order) * share / SHARES) - 1]]).sum())
        if count >= FEWEST_ANSWERED and (not found or count > found[-1].answered):
            number = int(rights[count - 1])
            interval = wilson(number, count)
            found.append(
                AnsweredShare(share=count / len(order), answered=count, accuracy=number / count, interval=interval)
            )
    return tuple(found)


def precision_bound(right: int, answered: int, doubt: float) -> float:
    """Clopper and Pearson's lower bound: of all precisions that give so many right answers at least so often."""
    if right == 0:
        return 0.0
    low, high = 0.0, 1.0
    wrong = np.arange(answered - right + 1)
    ways = _log_factorial(answered) - _log_factorials(wrong) - _log_factorials(answered - wrong)
    for _ in range(60):  # P(wrong answers <= those seen) falls with the share of wrong ones
        error = (low + high) / 2
        if error in (0.0, 1.0):
            break
        terms = ways + wrong * math.log(error) + (answered - wrong) * math.log1p(-error)
        if float(np.exp(terms - terms.max()).sum()) * math.exp(float(terms.max())) > doubt:
            low = error
        else:
            high = error
    return 1 - high


def _log_factorial(number: int) -> float:
    return math.lgamma(number + 1)


def _log_factorials(numbers: NDArray[np.integer[Any]]) -> NDArray[np.float64]:
    return np.array([math.lgamma(number + 1) for number in numbers.tolist()])
