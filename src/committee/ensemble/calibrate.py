"""Temperature scaling of the committee's probabilities, fitted on out-of-fold probabilities (Guo et al. 2017)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.ensemble.combine import Floats


def temper(probabilities: Floats, temperature: float) -> NDArray[np.float64]:
    """Probabilities raised to 1 / temperature and normalised; above 1 softens, below 1 sharpens; the order stays.

    Args:
        probabilities: (image, class); rows of NaN stay.
        temperature: above 0.
    """
    logarithms = np.log(np.clip(np.asarray(probabilities, dtype=np.float64), 1e-12, 1.0)) / temperature
    powers: NDArray[np.float64] = np.exp(logarithms - logarithms.max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def fit_temperature(probabilities: Floats, labels: Labels) -> float:
    """The temperature with the least mean log-loss, between 0.1 and 10, to three digits or better.

    Args:
        probabilities: (image, class), out-of-fold; without NaN.
        labels: (image,).
    """
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        tempered = temper(probabilities, float(np.exp(logarithm)))
        return float(-np.log(np.clip(tempered[rows, labels], 1e-12, 1.0)).mean())

    # The loss has one minimum in 1 / temperature, so halving by the golden section finds it.
    low, high, golden = np.log(0.1), np.log(10.0), (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))
