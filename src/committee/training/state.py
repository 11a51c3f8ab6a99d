"""What one member is to learn, how far it is, and what it became: the values that pass through training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from committee.config.recipe import Recipe, Stage
from committee.data.dataset import LabelledImages


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; the member cannot go on."""


@dataclass(frozen=True)
class Task:
    """What one member is to learn, apart from the images.

    Attributes:
        train, held_out: positions in the images; the held-out ones may be empty.
        classes: number of classes.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" (autocast; parameters and sums stay float32) or "float32".
        first_epoch: epochs that the start weights have behind them; numbers the history and keys the draws.
        start: weights to begin from instead of fresh ones.
        pseudo: images with labels that a committee gave them; they make up `pseudo_labels.batch_fraction` of every
            batch.
    """

    recipe: Recipe
    member: int
    seed: int
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: int
    device: str
    precision: str
    first_epoch: int = 0
    start: dict[str, Tensor] | None = None
    pseudo: LabelledImages | None = None

    def stage(self, epoch: int) -> Stage:
        """The stage of the recipe's schedule that an epoch belongs to."""
        return self.recipe.stage_at(epoch - 1 - self.first_epoch)

    def augmented(self, epoch: int) -> bool:
        """Whether images are changed in an epoch."""
        settings, number = self.recipe.augmentation, epoch - self.first_epoch
        early = number <= self.recipe.training.epochs - settings.no_aug_epochs
        return settings.active and early and self.stage(epoch).augment

    def batch(self, epoch: int) -> int:
        """Images a step; see `committee.config.recipe.Training`."""
        return min(self.stage(epoch).batch_size or self.recipe.training.batch_size, max(8, len(self.train) // 10))

    def batch_parts(self, epoch: int) -> tuple[int, int]:
        """How many images of a batch have labels of their own, and how many a committee's."""
        batch = self.batch(epoch)
        pseudo = round(batch * self.recipe.pseudo_labels.batch_fraction) if self.pseudo else 0
        return batch - pseudo, pseudo

    def steps(self, epoch: int) -> int:
        """Steps of an epoch: one pass over the images with labels of their own."""
        return math.ceil(len(self.train) / self.batch_parts(epoch)[0])


@dataclass
class State:
    """All that the loop needs to go on after an epoch; its tensors and numbers are what a checkpoint holds."""

    epoch: int  # the last one done, numbered from 1 (and from first_epoch)
    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    kept: dict[str, Tensor]
    kept_epoch: int
    best: float = -math.inf  # of what `checkpoint` looks at, greater is better
    lowest_loss: float = math.inf  # held-out; what patience looks at
    epochs_since_lowest: int = 0
    rate_factor: float = 1.0  # what the plateaus have left of the rate
    best_watched: float = -math.inf  # of what the plateau schedule monitors, greater is better
    epochs_since_watched: int = 0  # since it last bettered, or since the last reduction
    average: dict[str, Tensor] = field(default_factory=dict)  # the running average of the weights, where asked for
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def numbers(self) -> dict[str, float | int]:
        """The scalar part of the state."""
        stopping = ("epoch", "kept_epoch", "best", "lowest_loss", "epochs_since_lowest")
        names = (*stopping, "rate_factor", "best_watched", "epochs_since_watched")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Progress:
    """How far an epoch is: told about twice a second. `loss` is the mean so far; `model` as in a job."""

    member: int
    epoch: int
    step: int
    steps: int
    loss: float
    model: str = ""


@dataclass(frozen=True)
class Fitted:
    """A trained member: the network with the kept weights, and how it came about."""

    network: nn.Module
    kept_epoch: int
    history: list[dict[str, Any]]
    remark: str
