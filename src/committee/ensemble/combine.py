"""The only place where members become one: (member, image, class) -> (image, class).

A row of NaN means that a member must not be asked about an image (it trained on it); the others decide. An image that
no member may judge has a row of NaN in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.floating[Any]]


def combine(probabilities: Floats, how: str = "mean", weights: Floats | None = None) -> NDArray[np.float64]:
    """The committee's probabilities.

    Args:
        probabilities: (member, image, class), each row summing to 1, or NaN where a member must not be asked.
        how: "mean"; "geometric" (mean of the logarithms, normalised again); "weighted" (mean with `weights`);
            "vote" (share of the members whose first choice is the class).
        weights: (member,), not negative; "weighted" alone uses them.

    Returns:
        (image, class) float64; rows sum to 1, or are NaN.
    """
    asked = ~np.isnan(probabilities[:, :, 0])
    share = asked.astype(np.float64)
    if how == "weighted" and weights is not None:
        share = share * np.asarray(weights, dtype=np.float64)[:, None]
    total = share.sum(axis=0)
    share = np.divide(share, total, out=np.full_like(share, np.nan), where=total > 0)
    return COMBINATIONS[how](np.where(asked[:, :, None], probabilities, 0.0).astype(np.float64), share)


def _mean(probabilities: Floats, share: Floats) -> NDArray[np.float64]:
    return np.asarray(np.einsum("mic,mi->ic", probabilities, share))


def _geometric(probabilities: Floats, share: Floats) -> NDArray[np.float64]:
    logarithms = np.log(np.clip(probabilities, 1e-12, 1.0))
    powers: NDArray[np.float64] = np.exp(np.einsum("mic,mi->ic", logarithms, share))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def _vote(probabilities: Floats, share: Floats) -> NDArray[np.float64]:
    choices = np.eye(probabilities.shape[2])[probabilities.argmax(axis=2)]
    return _mean(choices, share)


COMBINATIONS: dict[str, Callable[[Floats, Floats], NDArray[np.float64]]] = {
    "mean": _mean,
    "weighted": _mean,
    "geometric": _geometric,
    "vote": _vote,
}


def out_of_fold(probabilities: NDArray[np.float32], held_out: list[NDArray[np.int64]]) -> NDArray[np.float32]:
    """Members' probabilities for the training images, with NaN where a member trained on the image.

    Args:
        probabilities: (member, image, class).
        held_out: for each member, the positions of the images that it did not train on.
    """
    honest = np.full_like(probabilities, np.nan)
    for member, positions in enumerate(held_out):
        honest[member, positions] = probabilities[member, positions]
    return honest
