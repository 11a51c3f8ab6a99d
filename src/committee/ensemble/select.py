"""Members' weights and the committee-size curve, from out-of-fold probabilities."""

from __future__ import annotations

from collections.abc import Callable
from itertools import combinations
from math import comb

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.ensemble.combine import Floats
from committee.metrics.results import SizePoint
from committee.metrics.scores import accuracy, log_loss


def fit_weights(probabilities: Floats, labels: Labels, steps: int = 300) -> NDArray[np.float64]:
    """Weights of the members that make the out-of-fold log-loss of their weighted mean least.

    Exponentiated-gradient descent on the simplex (Kivinen & Warmuth 1997), from equal weights. An image that only one
    member held out says nothing about weights; where no image was held out by two, the weights stay equal.

    Args:
        probabilities: (member, image, class) with rows of NaN where a member trained on the image.
        labels: (image,).
        steps: of the descent.

    Returns:
        (member,), not negative, summing to 1.
    """
    members = len(probabilities)
    own = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    asked = ~np.isnan(own)
    own = np.where(asked, own, 0.0)
    several = asked.sum(axis=0) >= 2
    weights = np.full(members, 1 / members)
    if not several.any():
        return weights
    own, asked = own[:, several], asked[:, several]
    for _ in range(steps):
        mixed = np.clip(weights @ own, 1e-12, None)
        present = weights @ asked
        gradient = (asked / present - own / mixed).mean(axis=1)
        weights = weights * np.exp(-2.0 * gradient)
        weights /= weights.sum()
    return weights


def size_curve(
    probabilities: Floats,
    labels: Labels,
    combine: Callable[[Floats], NDArray[np.float64]],
    rng: np.random.Generator,
    limit: int = 100,
) -> tuple[SizePoint, ...]:
    """Accuracy and log-loss of committees of 1, 2, ... members: mean and range over subsets.

    With rows of NaN, a committee of k is drawn image by image from the members that may judge the image. The curve ends
    with the largest k that at least half of the judged images allow, and all its points are of those images.

    Args:
        probabilities: (member, image, class), rows of NaN where a member must not be asked.
        labels: (image,).
        combine: what makes one of the members, such as `Committee.combine`.
        rng: draws the subsets where there are more than `limit`.
        limit: subsets a size.
    """
    asked = ~np.isnan(probabilities[:, :, 0])
    able = asked.sum(axis=0)
    if not able.any():
        return ()
    largest = int(np.median(able[able > 0]))
    judged = able >= largest
    probabilities, labels, asked = probabilities[:, judged], labels[judged], asked[:, judged]
    # Each image's members in one order, those that may judge it first: a subset of the first places serves all images.
    order = np.argsort(~asked, axis=0, kind="stable")[:largest]
    points = []
    for size in range(1, largest + 1):
        if comb(largest, size) <= limit:
            subsets = [list(subset) for subset in combinations(range(largest), size)]
        else:
            subsets = [list(rng.choice(largest, size, replace=False)) for _ in range(limit)]
        accuracies, losses = [], []
        for subset in subsets:
            chosen = np.zeros_like(asked)
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
