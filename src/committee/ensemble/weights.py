"""Members' weights, from out-of-fold probabilities."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.ensemble.temperature import Floats


def fit_weights(probabilities: Floats, labels: Labels, steps: int = 300) -> NDArray[np.float64]:
    """The members' weights that minimise the out-of-fold log-loss of their weighted mean.

    Exponentiated-gradient descent on the simplex (Kivinen & Warmuth 1997, "Exponentiated gradient versus gradient
    descent for linear predictors", doi 10.1006/inco.1996.2612), from equal weights. An image that only one member may
    predict says nothing about weights; where no two members may predict the same image, the weights stay equal.

    Args:
        probabilities: (member, image, class) with rows of NaN where a member trained on the image.
        labels: (image,).
        steps: of the descent.

    Returns:
        (member,), not negative, summing to 1.
    """
    members = len(probabilities)
    own = probabilities[:, np.arange(len(labels)), labels].astype(np.float64)
    allowed = ~np.isnan(own)
    own = np.where(allowed, own, 0.0)
    several = allowed.sum(axis=0) >= 2
    weights = np.full(members, 1 / members)
    if not several.any():
        return weights
    own, allowed = own[:, several], allowed[:, several]
    for _ in range(steps):
        mixed = np.clip(weights @ own, 1e-12, None)
        present = weights @ allowed
        gradient = (allowed / present - own / mixed).mean(axis=1)
        weights = weights * np.exp(-2.0 * gradient)
        weights /= weights.sum()
    return weights
