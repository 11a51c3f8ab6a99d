"""From a data set and a recipe to a finished run folder: the order of the stages.

`train` trains the members that the folder lacks, then evaluates them (evaluation.py). `evaluate` evaluates again, with
the test images of a run that kept them sealed.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages
from committee.data.summary import describe
from committee.errors import RunError, StorageError
from committee.folders.records import RunData
from committee.folders.run_folder import RunFolder
from committee.metrics.results import Results
from committee.runs.evaluation import evaluate_run
from committee.training.executors import executor_for
from committee.training.executors.processes import refuse_to_train_while_imported
from committee.training.jobs import Event
from committee.training.pipeline import ignore, train_members
from committee.training.plan import TrainingPlan, plan_training
from committee.training.setting import Setting
from committee.training.shared_images import shared


def train(
    dataset: ImageDataset,
    recipe: Recipe,
    out: str | Path,
    setting: Setting | None = None,
    *,
    keep_sealed: bool = False,
    continued: str | Path | None = None,
    pseudo: LabelledImages | None = None,
    deadline: float = math.inf,
    on_event: Callable[[Event], None] = ignore,
) -> Results:
    """Train a committee into a run folder; members that are already there are kept.

    A member that cannot be trained is left out, and `results.members` says why: one that "failed" (its loss is not
    finite) for good, one that "died" (its process did) until the same call trains it.

    Args:
        dataset: its training images are used, its test images only at the end.
        recipe: what to train.
        out: the run folder: a new one, or one that the same training began or finished.
        setting: seed, device, precision, workers; None takes the defaults.
        keep_sealed: leave the test images sealed; they stay so, too, where the process of a member died.
        continued: a finished run whose members are trained on for the recipe's epochs.
        pseudo: images with labels that a committee gave them; they join every batch.
        deadline: the `time.monotonic()` from which members that still train are given up, once as many are finished
            as train at a time.
        on_event: called with every event of the training.

    Raises:
        RunError: the folder holds another training, or `continued` does not fit.
        DataError: a class has fewer images than there are folds.
        RecipeError: the network does not fit the images.
        TrainingError: no member could be trained.
        TypeError: `dataset` or `recipe` is something else, such as a name.
    """
    for given, wanted, maker in ((dataset, ImageDataset, "load_dataset"), (recipe, Recipe, "load_recipe")):
        if not isinstance(given, wanted):
            got = f"expected an object of the class {wanted.__name__}, got {type(given).__name__}"
            raise TypeError(f"train: {got}; committee.{maker}(...) gives one")
    before = None if continued is None else RunFolder.finished(continued)
    plan = plan_training(dataset, recipe, setting or Setting(), continued=before, pseudo=pseudo)
    return train_plan(plan, RunFolder(out), keep_sealed=keep_sealed, deadline=deadline, on_event=on_event)


def train_plan(
    plan: TrainingPlan,
    folder: RunFolder,
    *,
    keep_sealed: bool = False,
    deadline: float = math.inf,
    on_event: Callable[[Event], None] = ignore,
) -> Results:
    """Train what is planned into a folder and evaluate it; the arguments and errors are those of `train`.

    The test images stay sealed while the run lacks a member whose process died, so that they are opened once, for the
    committee that was planned. Called again, it trains that member and opens them.
    """
    refuse_to_train_while_imported()
    folder.check_free(plan.identity)
    if folder.is_finished:
        folder = RunFolder.finished(folder.path)
        if not plan.missing(folder):
            return folder.results
    with folder.locked():
        folder.reopen()
        _train_members(plan, folder, deadline, on_event)
        stays_sealed = folder.is_sealed and (keep_sealed or bool(plan.missing(folder)))  # what was opened stays open
        return evaluate_run(folder, plan.dataset, open_for=None if stays_sealed else "the end of training")


def _train_members(plan: TrainingPlan, folder: RunFolder, deadline: float, on_event: Callable[[Event], None]) -> None:
    """The members that the folder lacks."""
    began, setting = time.monotonic(), plan.setting
    folder.begin(plan.identity)
    folder.write_recipe(plan.recipe)
    folder.write_environment(setting.environment())
    folder.write_data(RunData(**describe(plan.dataset).model_dump(), reload=setting.reload))
    folder.write_train_labels(plan.dataset.train.labels)
    folder.write_command(setting.command)
    before = folder.seconds_training  # of earlier sessions, where the run was interrupted
    try:
        with shared(plan.dataset.train if plan.missing(folder) else None, plan.pseudo) as (images, pseudo):
            if images is not None:
                train_members(
                    plan.jobs(images, pseudo, folder),
                    executor_for(setting, len(plan.missing(folder))),
                    deadline=deadline,
                    keep_at_least=setting.workers,
                    on_event=on_event,
                )
    finally:
        with suppress(StorageError):  # where a disk is full, the training's own error says so
            folder.write_seconds_training(before + time.monotonic() - began)


def evaluate(run: str | Path, dataset: ImageDataset) -> Results:
    """Open the test images of a run that kept them sealed, and write its results and report again.

    Args:
        run: the folder of a finished run; no bundle, since it is written to.
        dataset: what it was trained on.

    Raises:
        RunError: the folder is not a finished run, or it was trained on other images.
    """
    folder = RunFolder.finished(run, to_write=True)
    if dataset.part_digests() != (folder.identity.train_images, folder.identity.test_images):
        raise RunError(
            f"{run} was trained on other images than {dataset.name} has now; give the data set of the training"
        )
    with folder.locked():
        known = folder.results.distillation  # of a student: what it was compared with stays so
        return evaluate_run(folder, dataset, open_for="committee evaluate", distillation=known)
