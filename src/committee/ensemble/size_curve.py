"""How good committees of 1, 2, ... of the members are."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.ensemble.temperature import Floats
from committee.metrics.results import SizePoint
from committee.metrics.scores import accuracy, log_loss

LIMIT = 100  # committees of each size, at most


def curve_sizes(largest: int, limit: int = LIMIT) -> list[tuple[int, int]]:
    """The sizes of a curve that ends with `largest` members, and how many committees of each it tries."""
    return [(size, min(comb(largest, size), limit)) for size in range(1, largest + 1)]


def size_curve(
    probabilities: Floats,
    labels: Labels,
    combine: Callable[[Floats], NDArray[np.float64]],
    rng: np.random.Generator,
    limit: int = LIMIT,
) -> tuple[SizePoint, ...]:
    """Accuracy and log-loss of committees of 1, 2, ... members: mean and range over subsets.

    With rows of NaN, a committee of k is drawn image by image from the members that may predict the image. The curve
    ends with the largest k that at least half of the images allow, and all its points are of those images.

    Args:
        probabilities: (member, image, class), rows of NaN where a member must not predict.
        labels: (image,).
        combine: (member, image, class) -> (image, class).
        rng: draws the subsets where there are more than `limit`.
        limit: subsets of each size.
    """
    allowed = ~np.isnan(probabilities[:, :, 0])
    able = allowed.sum(axis=0)
    if not able.any():
        return ()
    largest = int(np.median(able[able > 0]))
    images = able >= largest
    probabilities, labels, allowed = probabilities[:, images], labels[images], allowed[:, images]
    # Each image's members in one order, those that may predict it first: a subset of the first places serves all
    # images.
    order = np.argsort(~allowed, axis=0, kind="stable")[:largest]
    points = []
    for size, number in curve_sizes(largest, limit):
        if comb(largest, size) == number:
            subsets = [list(subset) for subset in combinations(range(largest), size)]
        else:
            subsets = [list(rng.choice(largest, size, replace=False)) for _ in range(number)]
        accuracies, losses = [], []
        for subset in subsets:
            chosen = np.zeros_like(allowed)
            np.put_along_axis(chosen, order[subset], True, axis=0)
            combined = combine(np.where(chosen[:, :, None], probabilities, np.nan))
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
