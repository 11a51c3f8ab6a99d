"""How good committees of 1, 2, ... of the members are."""

from __future__ import annotations

from itertools import combinations
from math import comb

import numpy as np

from committee.data.dataset import Labels
from committee.ensemble.temperature import ALL_SIZES, Combine, Floats, some_sizes
from committee.metrics.results import SizePoint
from committee.metrics.scores import accuracy, log_loss

LIMIT = 100  # committees of each size, at most
FEWEST = 5  # of a large size, whose committees hardly differ


def curve_sizes(largest: int, limit: int = LIMIT) -> list[tuple[int, int]]:
    """The sizes of a curve that ends with `largest` members, and how many committees of each it tries.

    So many fewer of a size beyond ALL_SIZES that each size takes the same time: that of all sizes would grow with the
    cube of the members.
    """
    limits = {size: max(min(limit, limit * ALL_SIZES // size), FEWEST) for size in some_sizes(largest)}
    return [(size, min(comb(largest, size), most)) for size, most in limits.items()]


def size_curve(
    probabilities: Floats, labels: Labels, combine: Combine, rng: np.random.Generator, limit: int = LIMIT
) -> tuple[SizePoint, ...]:
    """Accuracy and log-loss of committees of `curve_sizes`: mean and range over subsets.

    With rows of NaN, a committee of k is drawn image by image from the members that may predict the image. The curve
    ends with the largest k that at least half of the images allow, and all its points are of those images.

    Args:
        probabilities: (member, image, class), rows of NaN where a member must not predict.
        labels: (image,).
        combine: as `CombinationRule.combine`.
        rng: draws the subsets where there are more than are tried.
        limit: subsets of each size.
    """
    allowed = ~np.isnan(probabilities[:, :, 0])
    able = allowed.sum(axis=0)
    if not able.any():
        return ()
    largest = int(np.median(able[able > 0]))
    images = np.flatnonzero(able >= largest)
    labels, allowed = labels[images], allowed[:, images]
    # Each image's members in one order, those that may predict it first: a subset of the first places serves all
    # images.
    order = np.argsort(~allowed, axis=0, kind="stable")[:largest]
    points = []
    for size, number in curve_sizes(largest, limit):
        if comb(largest, size) == number:
            subsets = [list(subset) for subset in combinations(range(largest), size)]
        else:
            subsets = [sorted(rng.choice(largest, size, replace=False)) for _ in range(number)]
        accuracies, losses = [], []
        for subset in subsets:
            chosen = order[subset]
            combined = combine(probabilities[chosen, images], chosen)
            accuracies.append(accuracy(combined, labels))
            losses.append(log_loss(combined, labels))
        points.append(
            SizePoint(
                members=size,
                subsets=len(subsets),
                accuracy=float(np.mean(accuracies)),
                accuracy_low=min(accuracies),
                accuracy_high=max(accuracies),
                log_loss=float(np.mean(losses)),
            )
        )
    return tuple(points)
