"""One recipe on one data set, checked and ready: which member is validated on what, and the jobs that follow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from hashlib import sha256
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages
from committee.data.splits import validation_positions
from committee.errors import RunError
from committee.folders.member_folder import Positions
from committee.folders.records import DistilledFrom, RunIdentity
from committee.folders.run_folder import RunFolder
from committee.nn.architectures import plan_layers
from committee.training.jobs import Job
from committee.training.setting import Setting
from committee.training.shared_images import SharedImages
from committee.training.teaching import Teaching
from committee.version import trains_like


@dataclass(frozen=True)
class TrainingPlan:
    """The members of one recipe that are to be trained on one data set.

    Attributes:
        setting: resolved: no field is "auto".
        validation: for each member, the positions of its validation images.
        excluded: positions of images that no member is trained or validated on.
        pseudo: pseudo-labelled images that join every batch.
        continued: a finished run whose members are trained on.
        teaching: the teacher that the members learn from.
        distilled: how the identity names that teacher.
        model: the name of a study's model; "" for a run.
        weights: (image,), what each training image counts in the loss; None for 1 each.
    """

    dataset: ImageDataset
    recipe: Recipe
    setting: Setting
    validation: Sequence[Positions]
    excluded: Positions | None = None
    pseudo: LabelledImages | None = None
    continued: RunFolder | None = None
    teaching: Teaching | None = None
    distilled: DistilledFrom | None = None
    model: str = ""
    weights: NDArray[np.float64] | None = None

    @cached_property
    def identity(self) -> RunIdentity:
        """What makes this training this one: with the same identity, the same weights.

        A study's model is trained for several rows, so how its members become a committee is no part of its identity.
        """
        train_digest, test_digest = self.dataset.part_digests()
        content = self.recipe.content()
        return RunIdentity(
            recipe={name: value for name, value in content.items() if not (self.model and name == "committee")},
            train_images=train_digest,
            test_images=test_digest,
            seed=self.setting.seed,
            device=self.setting.device,
            precision=self.setting.precision,
            kernels=self.setting.kernels(),
            committee=trains_like,
            torch=torch.__version__,
            continued_from=self.continued.weights_digest() if self.continued else None,
            pseudo_labels=self.pseudo.digest() if self.pseudo else None,
            groups=self.dataset.train.groups_digest() or None,
            distilled=self.distilled,
        )

    def jobs(self, images: SharedImages, pseudo: SharedImages | None, folder: RunFolder | None) -> list[Job]:
        """A job for each member.

        Args:
            images: the data set's training images.
            pseudo: the pseudo-labelled images.
            folder: where the members are stored; None keeps them in memory.

        Raises:
            RunError: the run to go on from does not fit.
        """
        found = []
        run = sha256(self.identity.model_dump_json().encode()).hexdigest() if folder else ""
        for member, validation in enumerate(self.validation):
            start, first_epoch = self._start(member, validation)
            found.append(
                Job(
                    recipe=self.recipe,
                    member=member,
                    seed=self.setting.seed,
                    images=images,
                    validation=validation,
                    classes=len(self.dataset.class_names),
                    device=self.setting.device,
                    precision=self.setting.precision,
                    folder=folder.member(member) if folder else None,
                    start=start,
                    first_epoch=first_epoch,
                    excluded=self.excluded,
                    pseudo=pseudo,
                    teaching=self.teaching,
                    run=run,
                    model=self.model,
                    weights=self.weights,
                    checkpoint_seconds=self.setting.checkpoint_seconds,
                )
            )
        return found

    def missing(self, folder: RunFolder) -> list[int]:
        """The members that a folder does not hold yet."""
        return [member for member in range(len(self.validation)) if not folder.member(member).is_done]

    def _start(self, member: int, validation: Positions) -> tuple[Path | None, int]:
        """The weights file from which a member goes on, and how many epochs it has behind it."""
        if self.continued is None:
            return None, 0
        earlier = self.continued.member(member)
        if not earlier.has_weights:
            raise RunError(
                f"{earlier.path} holds no finished member to go on from; give --members as in that run, or leave "
                "--from away"
            )
        if not np.array_equal(earlier.validation, validation):
            raise RunError(
                f"member {member} of {self.continued} was validated on other images; go on with the same data, seed, "
                "members and hold-out, so that no member is validated on images that it has seen"
            )
        record = earlier.record
        return earlier.weights_file, record.first_epoch + record.epochs


def plan_training(
    dataset: ImageDataset,
    recipe: Recipe,
    setting: Setting,
    *,
    continued: RunFolder | None = None,
    pseudo: LabelledImages | None = None,
) -> TrainingPlan:
    """Check that recipe and images fit each other, before anything is written.

    Raises:
        CommitteeError: a device or precision that this machine does not have.
        DataError: a class has fewer images than there are folds.
        RecipeError: the network does not fit the images.
    """
    resolved = setting.resolved(recipe.committee.members)
    check_network(dataset, recipe)
    train, members = dataset.train, recipe.committee.members
    validation = validation_positions(
        train.labels, recipe.holdout, members, resolved.seed, dataset.class_names, train.groups
    )
    return TrainingPlan(dataset, recipe, resolved, validation, pseudo=pseudo, continued=continued)


def check_network(dataset: ImageDataset, recipe: Recipe) -> None:
    """Refuse a network that does not fit the images.

    Raises:
        RecipeError: it does not.
    """
    height, width, channels = dataset.image_shape
    plan_layers(recipe.network, (channels, height, width), len(dataset.class_names))
