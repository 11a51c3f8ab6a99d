"""Test-time augmentation: further views of an image, and how much they count in a member's prediction."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class View(NamedTuple):
    """An image mirrored left to right or not, then moved by whole pixels; what comes in repeats the edge."""

    mirrored: bool
    right: int = 0
    down: int = 0


SIDES = ((1, 0), (-1, 0), (0, 1), (0, -1))  # right, down
FURTHER: dict[str, tuple[View, ...]] = {
    "none": (),
    "horizontal_flip": (View(True),),
    "shifts": tuple(View(False, *side) for side in SIDES),
    "flip_and_shifts": (View(True), *(View(mirrored, *side) for mirrored in (False, True) for side in SIDES)),
}


@dataclass(frozen=True)
class Views:
    """Which views of an image a member sees; see `committee.config.recipe.CommitteeSection`.

    Attributes:
        tta: a name in FURTHER.
        confidence: the other views count where a member gives its most probable class less than this.
    """

    tta: str = "none"
    confidence: float = 1.0

    @property
    def further(self) -> tuple[View, ...]:
        """The views besides the image itself."""
        return FURTHER[self.tta]

    def weight(self, probabilities: Tensor) -> Tensor:
        """How much the mean over all views counts, the image itself having the rest: (..., class) -> (..., 1).

        It falls evenly from 1 to 0 where the member's confidence goes from 2 `confidence` - 1 up to `confidence`, since
        with a jump there, a prediction would hang on the last bits of another one. With a confidence of 1 it is always
        1.
        """
        if self.confidence == 1:
            return torch.ones_like(probabilities[..., :1])
        most = probabilities.amax(-1, keepdim=True)
        return ((self.confidence - most) / (1 - self.confidence)).clamp(0, 1)

    def blend(self, own: Tensor, others: Sequence[Tensor]) -> Tensor:
        """A member's prediction from those for the image itself and for its further views, each (..., class).

        One by one: the last bits of torch's mean of five and of its lerp depend on where a value lies in memory.
        """
        total = own
        for other in others:
            total = total + other
        weight = self.weight(own)
        return total / (1 + len(others)) * weight + own * (1 - weight)

    @property
    def cost(self) -> float:
        """Forward passes for an image, roughly: with a confidence below 1, a tenth of the images may need all."""
        return 1 + len(self.further) * (1.0 if self.confidence == 1 else 0.1)


def seen(pixels: Tensor, view: View) -> Tensor:
    """A view of images: (image, height, width, channel) of any type -> the same."""
    pixels = pixels.flip(2) if view.mirrored else pixels
    return _moved(_moved(pixels, 2, view.right), 1, view.down)


def _moved(pixels: Tensor, axis: int, by: int) -> Tensor:
    """Moved along an axis by a pixel up (1), down (-1) or not at all (0)."""
    length = pixels.shape[axis]
    if by == 0:
        return pixels
    if by == 1:
        return torch.cat([pixels.narrow(axis, 0, 1), pixels.narrow(axis, 0, length - 1)], axis)
    return torch.cat([pixels.narrow(axis, 1, length - 1), pixels.narrow(axis, length - 1, 1)], axis)
