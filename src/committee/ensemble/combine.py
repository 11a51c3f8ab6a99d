"""The only place where members become one: (member, image, class) -> (image, class).

A row of NaN means that a member must not predict an image (it trained on it); the others decide. An image that no
member may predict has a row of NaN in the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.ensemble.temperature import temper
from committee.folders.records import Combination
from committee.pages import by_blocks

Floats = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class CombinationRule:
    """How members' probabilities become the committee's.

    Attributes:
        how: "mean"; "geometric" (mean of the logarithms, normalised again); "weighted" (mean with `weights`); "vote"
            (the fraction of the members whose first choice is the class).
        weights: (member,), not negative; for "weighted" only.
        temperature: of the combined probabilities; 1 changes nothing.
    """

    how: Combination = "mean"
    weights: tuple[float, ...] | None = None
    temperature: float = 1.0

    def combine(self, probabilities: Floats, members: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The members' probabilities combined, without the temperature.

        Args:
            probabilities: (member, image, class), each row summing to 1, or NaN where a member must not predict.
            members: (member, image), which of the committee's members these are, for each image; None for all of them
                in their order.

        Returns:
            (image, class); rows sum to 1, or are NaN.
        """
        weights = None if self.weights is None else np.asarray(self.weights)
        return combine(probabilities, self.how, weights if weights is None or members is None else weights[members])

    def predict(self, probabilities: Floats, members: NDArray[np.int64] | None = None) -> NDArray[np.float64]:
        """The members' probabilities combined and calibrated: what the committee predicts. Shapes as in `combine`."""
        combined = self.combine(probabilities, members)
        if self.temperature == 1.0:
            return combined
        return by_blocks(lambda a, b: temper(combined[a:b], self.temperature), combined.shape, np.float64)


def combine(probabilities: Floats, how: str = "mean", weights: Floats | None = None) -> NDArray[np.float64]:
    """The members' probabilities combined; see `CombinationRule`.

    Args:
        probabilities: (member, image, class), each row summing to 1, or NaN where a member must not predict.
        how: the rule.
        weights: (member,), or (member, image) where images have members of their own; not negative; for "weighted"
            only.

    Returns:
        (image, class) float64; rows sum to 1, or are NaN.
    """
    return by_blocks(lambda a, b: _combined(probabilities[:, a:b], how, weights), probabilities.shape[1:], np.float64)


def _combined(probabilities: Floats, how: str, weights: Floats | None) -> NDArray[np.float64]:
    """`combine` of some images."""
    allowed = ~np.isnan(probabilities[:, :, 0])
    share = allowed.astype(np.float64)
    if how == "weighted" and weights is not None:
        weights = np.asarray(weights, dtype=np.float64)
        share = share * (weights if weights.ndim == 2 else weights[:, None])
    total = share.sum(axis=0)
    share = np.divide(share, total, out=np.full_like(share, np.nan), where=total > 0)
    return COMBINATIONS[how](np.where(allowed[:, :, None], probabilities, 0.0).astype(np.float64), share)


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
