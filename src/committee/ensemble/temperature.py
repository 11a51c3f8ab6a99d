"""Temperature scaling of the committee's probabilities, from out-of-fold probabilities alone.

After Guo, Pleiss, Sun & Weinberger 2017, "On calibration of modern neural networks", arXiv 1706.04599. Out of fold, an
image is predicted by a few members only, and a mean of few is more confident than a mean of many: the temperature of a
small committee is too high for the whole one. So it is fitted for each size that the validation images allow and
extrapolated to the whole committee, see `extrapolate`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.metrics.results import SizeTemperature

Floats = NDArray[np.floating[Any]]
Combine = Callable[[Floats, NDArray[np.int64]], NDArray[np.float64]]

FEWEST_IMAGES = 200  # on which a temperature is fitted for two members or more
LOWEST = 0.5  # of a whole committee's temperature
ALL_SIZES = 20  # up to here every size of a committee is looked at, beyond one in ten


def some_sizes(largest: int) -> list[int]:
    """Sizes of committees up to the largest: all small ones, then each a tenth larger than the one before."""
    sizes = list(range(1, min(largest, ALL_SIZES) + 1))
    while sizes and sizes[-1] < largest:
        sizes.append(min(largest, math.ceil(1.1 * sizes[-1])))
    return sizes


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
    """The most probable temperature between 0.1 and 10, to three digits or better.

    The log-loss decides, with a weak prior that keeps the logarithm of the temperature near 0 (standard deviation 0.5):
    it matters on a few dozen images only, where the absence of errors would otherwise mean unbounded confidence.

    Args:
        probabilities: (image, class), out of fold; without NaN.
        labels: (image,).
    """
    rows = np.arange(len(labels))

    def loss(logarithm: float) -> float:
        tempered = temper(probabilities, float(np.exp(logarithm)))
        return float(-np.log(np.clip(tempered[rows, labels], 1e-12, 1.0)).sum()) + 2 * logarithm**2

    # The loss has one minimum in 1 / temperature, which a golden-section search finds.
    low, high, golden = np.log(0.1), np.log(10.0), (np.sqrt(5) - 1) / 2
    while high - low > 1e-4:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if loss(left) < loss(right):
            high = right
        else:
            low = left
    return float(np.exp((low + high) / 2))


def temperatures_by_size(
    probabilities: Floats, labels: Labels, combine: Combine, rng: np.random.Generator
) -> tuple[SizeTemperature, ...]:
    """The temperature of committees of `some_sizes`, as far as validation images allow.

    Args:
        probabilities: (member, image, class), rows of NaN where a member trained on the image.
        labels: (image,).
        combine: as `CombinationRule.combine`.
        rng: draws which of an image's members are used.
    """
    allowed = ~np.isnan(probabilities[:, :, 0])
    able = allowed.sum(axis=0)
    order = np.argsort(rng.random(allowed.shape) + ~allowed, axis=0)  # those that may predict first, in random order
    found: list[SizeTemperature] = []
    for size in some_sizes(int(able.max(initial=0))):
        images = np.flatnonzero(able >= size)
        if size > 1 and len(images) < max(FEWEST_IMAGES, 0.1 * found[0].images):
            break
        chosen = np.sort(order[:size, images], axis=0)
        combined = combine(probabilities[chosen, images], chosen)
        temperature = fit_temperature(combined, labels[images])
        found.append(SizeTemperature(members=size, images=len(images), temperature=temperature))
    return tuple(found)


def extrapolate(by_size: Sequence[SizeTemperature], members: int) -> float:
    """The temperature of the whole committee from those of smaller ones.

    Two sizes or more: a line in 1 / size (each size weighted by its images), never above the temperature of the largest
    size. The variance of a mean falls with 1 / size, and so, measured out of fold, does its temperature. One size
    alone: its temperature where it sharpens, since a larger committee needs at least as much sharpening; else 1, since
    how much softening a larger one needs, if any, is unknown. Never below `LOWEST`: a few images without an error would
    ask for unbounded confidence, also about images of no class.

    Args:
        by_size: what `temperatures_by_size` found; at least one.
        members: of the whole committee.
    """
    largest = by_size[-1]
    if largest.members >= members:
        return largest.temperature
    if len(by_size) == 1:
        return float(np.clip(largest.temperature, LOWEST, 1.0))
    inverse = np.array([1 / point.members for point in by_size])
    weights = np.sqrt([point.images for point in by_size])
    slope, level = np.polyfit(inverse, [point.temperature for point in by_size], 1, w=weights)
    return float(np.clip(level + slope / members, min(LOWEST, largest.temperature), largest.temperature))
