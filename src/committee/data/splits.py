"""Which images are trained on and which are held out: stratified, and drawn from a key alone."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels


def stratified_part(labels: Labels, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of a random part of the images in which every class has its share.

    Args:
        labels: (image,) int64.
        fraction: the part's size, between 0 and 1.
        rng: where the draw comes from.

    Returns:
        Sorted positions. Their number is ``round(fraction * images)`` where the classes allow it; a class with two
        images or more has at least one image on either side, and a class with a single image stays outside the part.
    """
    classes, positions_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = counts * fraction
    sizes = np.floor(shares).astype(np.int64)
    missing = round(len(labels) * fraction) - int(sizes.sum())
    sizes[np.argsort(sizes - shares, kind="stable")[:missing]] += 1
    sizes = np.minimum(np.maximum(sizes, counts > 1), counts - 1)
    chosen = [rng.permutation(np.flatnonzero(positions_class == c))[: sizes[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)
