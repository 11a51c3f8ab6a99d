"""The values that pass through training: a member's task, its state between two steps, the trained network."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor, nn

from committee.config.recipe import Recipe, Stage
from committee.data.dataset import LabelledImages
from committee.folders.records import EpochRecord
from committee.training.teaching import Teaching

Tensors = dict[str, Tensor]  # by the names of a network's state_dict
OptimiserState = dict[str, Any]  # torch's state_dict of an optimiser: "state" by parameter number, and "param_groups"

PARTS_OF_0_4 = {"kept": "best"}  # what parts and fields of a checkpoint were called up to version 0.4
FIELDS_OF_0_4 = {
    "share": "lr_factor",  # in Muon's parameter groups
    "kept_epoch": "best_epoch",
    "best": "best_score",
    "rate_factor": "lr_factor",
    "best_watched": "best_monitored",
    "epochs_since_watched": "epochs_since_improvement",
}


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number, so that the member cannot be trained further."""


@dataclass(frozen=True)
class Task:
    """One member's training, apart from the images.

    Attributes:
        train, validation: (image,), positions in the data set's training images; there may be no validation images.
        classes: their number.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" (autocast; parameters and sums stay float32) or "float32".
        first_epoch: how many epochs the initial weights have been trained for; epochs are counted on from there, in the
            history and in the keys of all random numbers.
        start: initial weights; None for random ones.
        pseudo: pseudo-labelled images; they make up `pseudo_labels.batch_fraction` of every batch.
        weights: (image,) float32, of all the data set's training images: what an image counts in the loss, 1 on average
            over `train`; None where all count alike.
        teaching: the teacher whose answers it imitates, or None.
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
    weights: NDArray[np.float32] | None = None
    teaching: Teaching | None = None

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
        """How many images of a batch are labelled, and how many are pseudo-labelled."""
        size = self.batch_size(epoch)
        pseudo = round(size * self.recipe.pseudo_labels.batch_fraction) if self.pseudo else 0
        return size - pseudo, pseudo

    def steps(self, epoch: int) -> int:
        """The number of steps in an epoch, one pass over the labelled images."""
        return math.ceil(len(self.train) / self.batch_parts(epoch)[0])

    def steps_before(self, epoch: int) -> int:
        """The number of steps in all epochs of this training before an epoch; up to `last_epoch` + 1."""
        return sum(self.steps(number) for number in range(self.first_epoch + 1, epoch))


@dataclass(frozen=True)
class EpochUnderWay:
    """How far an epoch has got between two of its steps.

    Attributes:
        step: how many of its steps are done. The order of its images follows from its key.
        augmentation, dropout: the states of its generators, as `torch.Generator.get_state` gives them.
        images, correct: how many images it has trained on, and how many of them were predicted correctly in their step.
        loss: the sum over those images.
        lr: of the last step.
        seconds: that these steps took, in all sessions together.
    """

    step: int
    augmentation: Tensor
    dropout: Tensor
    images: int = 0
    correct: int = 0
    loss: float = 0.0
    lr: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class TrainingState:
    """Everything that training needs to continue, after an epoch or in the middle of one; a checkpoint holds it.

    The tensors of `network`, `optimiser` and `average` are those of the training, which its next step changes.

    Attributes:
        epoch: the last finished epoch, counted from 1, or on from the task's first_epoch.
        network, optimiser: their state_dicts.
        best_weights, best_epoch: the weights that `training.checkpoint` selects so far, and their epoch.
        best_score: of those weights, by what `training.checkpoint` names; greater is better.
        lowest_loss: the lowest validation loss so far.
        epochs_since_lowest: epochs since then; early stopping counts them.
        lr_factor: the product of all reductions of the learning rate by the plateau schedule.
        best_monitored: the best value so far of what the plateau schedule monitors; greater is better.
        epochs_since_improvement: epochs since then, or since the last reduction.
        average: the moving average of the weights; empty without one.
        history: a record of each finished epoch.
        under_way: the epoch after those, where some of its steps are done; `network`, `optimiser` and `average` are
            then those after these steps, everything else is as after the last finished epoch. None between epochs.
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
    under_way: EpochUnderWay | None = None

    @property
    def step(self) -> int:
        """How many steps of the epoch under way are done; 0 between epochs."""
        return self.under_way.step if self.under_way else 0

    @classmethod
    def initial(cls, first_epoch: int) -> TrainingState:
        """The state before the first epoch, in which network and optimiser are still empty."""
        return cls(first_epoch, {}, {}, {}, first_epoch)

    def to_tensors(self) -> tuple[Tensors, dict[str, JsonValue]]:
        """The state for a checkpoint.

        Returns:
            All tensors, named "network/...", "best/...", "average/...", "optimiser/NUMBER/..." and "under_way/...";
            and everything else as JSON values (some of which may be infinite).
        """
        parts = {"network": self.network, "best": self.best_weights, "average": self.average}
        tensors = {f"{part}/{name}": tensor for part, each in parts.items() for name, tensor in each.items()}
        for slot, values in self.optimiser["state"].items():
            for name, value in values.items():
                assert value is None or isinstance(value, Tensor), f"{name}: an optimiser keeps its state in tensors"
                if value is not None:  # as the momentum of plain SGD is
                    tensors[f"optimiser/{slot}/{name}"] = value
        numbers: dict[str, JsonValue] = {
            "state": {name: getattr(self, name) for name in _NUMBERS},
            "groups": self.optimiser["param_groups"],
            "history": [epoch.model_dump(mode="json") for epoch in self.history],
        }
        if self.under_way:
            tensors |= {f"under_way/{name}": getattr(self.under_way, name) for name in _GENERATORS}
            numbers["under_way"] = {name: getattr(self.under_way, name) for name in _SUMS}
        return tensors, numbers

    @classmethod
    def from_tensors(cls, tensors: Tensors, numbers: dict[str, JsonValue]) -> TrainingState:
        """The state that `to_tensors` gave, or that of a checkpoint of version 0.4.

        Args:
            tensors: by name.
            numbers: the JSON values.
        """
        parts: dict[str, Tensors] = {"network": {}, "best": {}, "average": {}, "under_way": {}}
        slots: dict[int, Tensors] = {}
        for name, tensor in tensors.items():
            part, _, rest = name.partition("/")
            if part == "optimiser":
                number, _, slot = rest.partition("/")
                slots.setdefault(int(number), {})[slot] = tensor
            else:
                parts[PARTS_OF_0_4.get(part, part)][rest] = tensor
        scalars, epochs, sums = numbers["state"], numbers["history"], numbers.get("under_way", {})
        assert isinstance(scalars, dict)
        assert isinstance(sums, dict)
        assert isinstance(epochs, list)
        groups = cast(list[OptimiserState], numbers["groups"])
        return cls(
            network=parts["network"],
            best_weights=parts["best"],
            average=parts["average"],
            optimiser={"state": slots, "param_groups": [_with_current_names(group) for group in groups]},
            history=tuple(EpochRecord.model_validate(epoch) for epoch in epochs),
            under_way=EpochUnderWay(**cast(dict[str, Any], parts["under_way"] | sums)) if sums else None,
            **_with_current_names(scalars),
        )


def _with_current_names(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {FIELDS_OF_0_4.get(name, name): value for name, value in fields.items()}


_NUMBERS = (  # the fields of a state that are neither tensors nor records
    "epoch",
    "best_epoch",
    "best_score",
    "lowest_loss",
    "epochs_since_lowest",
    "lr_factor",
    "best_monitored",
    "epochs_since_improvement",
)
_GENERATORS = ("augmentation", "dropout")  # the fields of an epoch under way that are tensors
_SUMS = ("step", "images", "correct", "loss", "lr", "seconds")  # and those that are numbers


@dataclass(frozen=True)
class StepProgress:
    """How far an epoch has got.

    Attributes:
        step, steps: finished, and of the whole epoch.
        loss: the mean over the epoch so far.
        model: the member's model, as in its job.
    """

    member: int
    epoch: int
    step: int
    steps: int
    loss: float
    model: str = ""


@dataclass(frozen=True)
class TrainedNetwork:
    """A trained member.

    Attributes:
        network: with the weights that `training.checkpoint` selects, in evaluation mode.
        best_epoch: the epoch of those weights.
        history: a record of each epoch.
        remark: why training ended.
    """

    network: nn.Module
    best_epoch: int
    history: tuple[EpochRecord, ...]
    remark: str
