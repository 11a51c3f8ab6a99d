"""What one member is to learn, how far it is, and what it became: the values that pass through training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn

from committee.config.recipe import Recipe, Stage
from committee.data.dataset import LabelledImages
from committee.folders.records import EpochRecord

Tensors = dict[str, Tensor]
OptimiserState = dict[str, Any]  # torch's own: "state" by parameter number, and "param_groups"

NUMBERS_OF_0_4 = {  # a checkpoint's numbers by their names up to version 0.4
    "kept_epoch": "best_epoch",
    "best": "best_score",
    "rate_factor": "lr_factor",
    "best_watched": "best_monitored",
    "epochs_since_watched": "epochs_since_improvement",
}


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; the member cannot go on."""


@dataclass(frozen=True)
class Task:
    """What one member is to learn, apart from the images.

    Attributes:
        train, validation: positions in the images; those of the validation images may be empty.
        classes: their number.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" (autocast; parameters and sums stay float32) or "float32".
        first_epoch: epochs that the initial weights have behind them; they number the history and key the draws.
        start: weights to begin with instead of random ones.
        pseudo: pseudo-labelled images; they make up `pseudo_labels.batch_fraction` of every batch.
    """

    recipe: Recipe
    member: int
    seed: int
    train: NDArray[np.int64]
    validation: NDArray[np.int64]
    classes: int
    device: str
    precision: str
    first_epoch: int = 0
    start: Tensors | None = None
    pseudo: LabelledImages | None = None

    @property
    def last_epoch(self) -> int:
        """The number of the last epoch."""
        return self.first_epoch + self.recipe.training.epochs

    def stage(self, epoch: int) -> Stage:
        """The stage of the recipe's schedule that an epoch belongs to."""
        return self.recipe.stage_at(epoch - 1 - self.first_epoch)

    def augmented(self, epoch: int) -> bool:
        """Whether images are augmented in an epoch."""
        settings, number = self.recipe.augmentation, epoch - self.first_epoch
        early = number <= self.recipe.training.epochs - settings.no_aug_epochs
        return settings.active and early and self.stage(epoch).augment

    def batch_size(self, epoch: int) -> int:
        """Images in a batch; see `committee.config.recipe.Training`."""
        return min(self.stage(epoch).batch_size or self.recipe.training.batch_size, max(8, len(self.train) // 10))

    def batch_parts(self, epoch: int) -> tuple[int, int]:
        """How many images of a batch are labelled, and how many pseudo-labelled."""
        size = self.batch_size(epoch)
        pseudo = round(size * self.recipe.pseudo_labels.batch_fraction) if self.pseudo else 0
        return size - pseudo, pseudo

    def steps(self, epoch: int) -> int:
        """Steps of an epoch: one pass over the labelled images."""
        return math.ceil(len(self.train) / self.batch_parts(epoch)[0])

    def steps_before(self, epoch: int) -> int:
        """Steps of all earlier epochs of this training; of `last_epoch` + 1, the steps of all of it."""
        return sum(self.steps(number) for number in range(self.first_epoch + 1, epoch))


@dataclass
class TrainingState:
    """Everything that the loop needs to go on after an epoch; a checkpoint holds it.

    Attributes:
        epoch: the last one that is done, counted from 1 (from first_epoch + 1 in a continued run).
        best_weights, best_epoch: the weights to keep, and of which epoch they are.
        best_score: of what `training.checkpoint` chooses by; greater is better.
        lowest_loss, epochs_since_lowest: of the validation loss, for early stopping.
        lr_factor: what the plateau schedule has left of the learning rate.
        best_monitored: of what the plateau schedule monitors; greater is better.
        epochs_since_improvement: of that, or since the last reduction.
        average: the moving average of the weights, where the recipe asks for one.
    """

    epoch: int
    network: Tensors
    optimiser: OptimiserState
    best_weights: Tensors
    best_epoch: int
    best_score: float = -math.inf
    lowest_loss: float = math.inf
    epochs_since_lowest: int = 0
    lr_factor: float = 1.0
    best_monitored: float = -math.inf
    epochs_since_improvement: int = 0
    average: Tensors = field(default_factory=dict)
    history: tuple[EpochRecord, ...] = ()

    @classmethod
    def initial(cls, first_epoch: int) -> TrainingState:
        """Before the first epoch."""
        return cls(first_epoch, {}, {}, {}, first_epoch)

    def to_tensors(self) -> tuple[Tensors, dict[str, JsonValue]]:
        """The state as tensors by name, and everything else as JSON values."""
        tensors = {f"network/{name}": tensor for name, tensor in self.network.items()}
        tensors |= {f"kept/{name}": tensor for name, tensor in self.best_weights.items()}
        tensors |= {f"average/{name}": tensor for name, tensor in self.average.items()}
        tensors |= {
            f"optimiser/{slot}/{name}": value
            for slot, values in self.optimiser["state"].items()
            for name, value in values.items()
            if isinstance(value, Tensor)
        }
        numbers: dict[str, JsonValue] = {
            "state": {name: getattr(self, name) for name in _NUMBERS},
            "groups": self.optimiser["param_groups"],
            "history": [epoch.model_dump(mode="json") for epoch in self.history],
        }
        return tensors, numbers

    @classmethod
    def from_tensors(cls, tensors: Tensors, numbers: dict[str, JsonValue]) -> TrainingState:
        """The state that `to_tensors` gave, also that of a checkpoint of version 0.4."""
        parts: dict[str, Tensors] = {"network": {}, "kept": {}, "average": {}}
        slots: dict[int, Tensors] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if part == "optimiser":
                slot, _, field_name = rest.partition("/")
                slots.setdefault(int(slot), {})[field_name] = tensor
            else:
                parts[part][rest] = tensor
        scalars, epochs = numbers["state"], numbers["history"]
        assert isinstance(scalars, dict)
        assert isinstance(epochs, list)
        groups = [
            {"lr_factor" if name == "share" else name: value for name, value in group.items()}
            for group in cast(list[dict[str, Any]], numbers["groups"])
        ]
        stated: dict[str, Any] = {NUMBERS_OF_0_4.get(name, name): value for name, value in scalars.items()}
        return cls(
            network=parts["network"],
            best_weights=parts["kept"],
            average=parts["average"],
            optimiser={"state": slots, "param_groups": groups},
            history=tuple(EpochRecord.model_validate(epoch) for epoch in epochs),
            **stated,
        )


_NUMBERS = (
    "epoch",
    "best_epoch",
    "best_score",
    "lowest_loss",
    "epochs_since_lowest",
    "lr_factor",
    "best_monitored",
    "epochs_since_improvement",
)


@dataclass(frozen=True)
class StepProgress:
    """How far an epoch is, about twice a second; `loss` is the mean so far, `model` as in a job."""

    member: int
    epoch: int
    step: int
    steps: int
    loss: float
    model: str = ""


@dataclass(frozen=True)
class TrainedNetwork:
    """The network of a trained member with the weights that are kept, and how it was trained."""

    network: nn.Module
    best_epoch: int
    history: tuple[EpochRecord, ...]
    remark: str
