"""Recipes to be judged -> their out-of-fold answers: all folds of all of them in one queue for all cores.

A recipe is judged on folds: as many members as there are folds are trained, each image is answered by the member that
did not train on it. Every recipe has the same folds, so that recipes are compared image by image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import CommitteeSection, Holdout, Recipe
from committee.data.dataset import ImageDataset
from committee.data.splits import validation_positions
from committee.data.summary import describe
from committee.errors import TrainingError
from committee.folders.member_folder import Positions
from committee.folders.records import RunData
from committee.folders.tuning_folder import Evaluated, TuningFolder
from committee.training.executors import executor_for, inline
from committee.training.jobs import Died, Event, Failed, Job
from committee.training.pipeline import train_members
from committee.training.plan import TrainingPlan, check_network
from committee.training.setting import Setting
from committee.training.shared_images import SharedImages

STARTING_SECONDS = 2.5
"""Worker processes take so long to start: shorter work is done in this process, with the same result."""


@dataclass(frozen=True)
class Candidate:
    """A recipe on a seed, under the name of its folder."""

    name: str
    recipe: Recipe
    seed: int


@dataclass
class Evaluations:
    """Where recipes are judged: the data, the folder, the executor.

    Attributes:
        setting: resolved.
        folds: how many parts each recipe is judged on.
        images: the training images, as all jobs map them.
        on_event: called with every event of the training.
        on_work: called with the members about to be trained: (name, member) -> epochs.
        fold_seconds: that the starting recipe's members took, each; 0 while that is unknown.
    """

    dataset: ImageDataset
    folder: TuningFolder
    setting: Setting
    folds: int
    images: SharedImages
    on_event: Callable[[Event], None]
    on_work: Callable[[dict[tuple[str, int], int]], None]
    fold_seconds: float = 0.0
    _validation: dict[int, list[Positions]] = field(default_factory=dict)

    def validation(self, seed: int) -> list[Positions]:
        """The validation images of each fold on a seed."""
        if seed not in self._validation:
            train, names = self.dataset.train, self.dataset.class_names
            self._validation[seed] = validation_positions(
                train.labels, Holdout(folds=self.folds), self.folds, seed, names, train.groups
            )
        return self._validation[seed]

    def train(self, candidates: Sequence[Candidate], first: int, last: int) -> dict[str, str]:
        """Train the folds from `first` to before `last` of several recipes in one queue.

        Returns:
            Why a recipe cannot be trained, by its name; such a recipe is left out from now on.

        Raises:
            TrainingError: the process of a member died; the same command goes on.
            StorageError: a file cannot be written or read.
        """
        jobs: list[Job] = []
        for candidate in candidates:
            jobs += self._jobs(candidate)[first:last]
        missing = [job for job in jobs if not (job.folder and job.folder.is_done)]
        self.on_work({(job.model, job.member): job.recipe.training.epochs for job in missing})
        found: dict[str, str] = {}

        def listen(event: Event) -> None:
            self.on_event(event)
            if isinstance(event, Failed | Died):
                found[event.model] = event.why
            if isinstance(event, Died):
                raise TrainingError(
                    f"a member of {event.model}: {event.why}; the same command goes on where it stopped"
                )

        alone = self.fold_seconds and len(missing) * self.fold_seconds < STARTING_SECONDS
        executor = inline.run if alone and self.setting.device == "cpu" else executor_for(self.setting, len(missing))
        try:
            train_members(jobs, executor, "leave_out", on_event=listen)
        except TrainingError:
            if len(found) < len(candidates) or not all(candidate.name in found for candidate in candidates):
                raise
        for candidate in candidates:
            for number in range(first, last):
                member = self.folder.trained(candidate.name).member(number)
                if member.is_done and member.record.status == "failed":
                    found[candidate.name] = member.record.remark
        return found

    def answers(self, candidate: Candidate) -> NDArray[np.float32]:
        """(image, class): a recipe's out-of-fold answers so far; rows of NaN where there is none."""
        if self.folder.evaluated(candidate.name):
            return self.folder.answers(candidate.name)
        shape = len(self.dataset.train), len(self.dataset.class_names)
        found = np.full(shape, np.nan, dtype=np.float32)
        for number in range(self.folds):
            member = self.folder.trained(candidate.name).member(number)
            if member.is_done and member.record.status == "finished":
                found[member.validation] = member.train_probabilities[member.validation]
        return found

    def close(self, candidate: Candidate, why: str = "", *, failed: bool = False) -> None:
        """Write down what became of a recipe and its answers."""
        if self.folder.evaluated(candidate.name):
            return
        members = [self.folder.trained(candidate.name).member(number) for number in range(self.folds)]
        done = [member.record for member in members if member.is_done and member.record.status == "finished"]
        evaluated = Evaluated(
            folds=len(done), seconds=round(sum(record.seconds for record in done), 3), why=why, failed=failed
        )
        self.folder.write_evaluated(candidate.name, evaluated, self.answers(candidate))

    @cached_property
    def data(self) -> RunData:
        """The data set in numbers."""
        return RunData(**describe(self.dataset).model_dump())

    def _jobs(self, candidate: Candidate) -> list[Job]:
        """A job for each fold; the folder of the recipe is begun."""
        folder = self.folder.trained(candidate.name)
        plan = self._plan(candidate)
        if not self.folder.evaluated(candidate.name):
            folder.begin(plan.identity)
            folder.write_recipe(plan.recipe)
        return plan.jobs(self.images, None, folder)

    def _plan(self, candidate: Candidate) -> TrainingPlan:
        """How a recipe is judged.

        Raises:
            RecipeError: the network does not fit the images.
        """
        check_network(self.dataset, candidate.recipe)
        return TrainingPlan(
            self.dataset,
            judged(candidate.recipe, self.folds),
            replace(self.setting, seed=candidate.seed),
            self.validation(candidate.seed),
            model=candidate.name,
        )


def judged(recipe: Recipe, folds: int) -> Recipe:
    """A recipe as it is judged: a member for each fold, whatever hold-out and number of members it has."""
    committee: CommitteeSection = recipe.committee.model_copy(update={"members": folds})
    return recipe.model_copy(update={"holdout": Holdout(folds=folds), "committee": committee})
