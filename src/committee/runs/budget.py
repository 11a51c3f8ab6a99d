"""A wall-clock budget becomes members and epochs: this machine's speed is measured, then the best plan that fits is
taken.

`plan_budget` trains the recipe for a few short epochs with as many members at once as the run will have
(`committee.runs.trial`), predicts from them how long any number of members and epochs would take
(`committee.runs.cost`), and changes the recipe to those that promise the fewest errors. What is planned takes nine
tenths of the budget; members that would still overrun it are cut off at a deadline.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.errors import RecipeError, counted
from committee.folders.run_folder import RunFolder
from committee.runs.cost import Sizes, member_seconds, sizes_of
from committee.runs.trial import TrainingCosts, training_costs, views
from committee.training.setting import Setting

PLANNED_SHARE = 0.9  # of the budget; the rest is for a machine that becomes slower than in the trial
START_SECONDS = 3.0  # of a process that loads torch: the workers of the trial, then those of the run
MOST_MEMBERS, MOST_EPOCHS = 20, 60


@dataclass(frozen=True)
class BudgetPlan:
    """What a budget allows: the recipe with its members and epochs, and a sentence that says why."""

    recipe: Recipe
    note: str


def plan_budget(
    dataset: ImageDataset,
    recipe: Recipe,
    seconds: float,
    setting: Setting | None = None,
    *,
    members: int | None = None,
    epochs: int | None = None,
    run: RunFolder | None = None,
) -> BudgetPlan:
    """The recipe with the members and epochs that a budget allows on this machine.

    Args:
        dataset: what will be trained on; the trial sees a few thousand of its training images.
        recipe: everything else.
        seconds: from now to the finished report.
        setting: of the run that follows.
        members, epochs: one of them may be fixed already.
        run: a run folder that may have been begun with this budget; its training then goes on by its plan.

    Raises:
        RecipeError: the recipe's stages fix its epochs, or the budget is too short.
        TrainingError: the trial failed.
    """
    if recipe.schedule.stages:
        raise RecipeError(
            f"recipe {recipe.name} has a schedule of stages, which fixes its epochs; give a recipe without stages, or "
            "no budget"
        )
    if run and (earlier := planned_before(run, recipe, members, epochs)):
        return BudgetPlan(earlier, "The run goes on with the plan that it was begun with.")
    began, images = time.monotonic(), len(dataset.train)
    fixed = math.ceil((2 * START_SECONDS + end_seconds(images)) / PLANNED_SHARE)
    if seconds < fixed:
        raise RecipeError(
            f"the budget is too short: a trial of this machine's speed, the start and the report of {images:,} images "
            f"alone take about {fixed} seconds; give more, or --members and --epochs instead of a budget"
        )
    costs, sizes = training_costs(dataset, recipe, setting or Setting()), sizes_of(dataset, recipe)
    left = PLANNED_SHARE * seconds - (time.monotonic() - began)
    fitting = {
        (m, e): expected_error(m, e, images)
        for m in ([members] if members else member_numbers(costs.at_once))
        for e in ([epochs] if epochs else range(1, MOST_EPOCHS + 1))
        if needed_seconds(recipe, sizes, costs, m, e) <= left
    }
    if not fitting:
        least = needed_seconds(recipe, sizes, costs, members or member_numbers(costs.at_once)[0], epochs or 1)
        shortest = (least + time.monotonic() - began) / PLANNED_SHARE
        raise RecipeError(
            f"the budget is too short: the least that can be trained takes about {math.ceil(shortest)} seconds here "
            f"({costs.images_per_second:,.0f} images per second and member, and {fixed} seconds for start and report); "
            "give more, or --members and --epochs instead of a budget"
        )
    m, e = min(fitting, key=lambda each: (fitting[each], each))
    expected = time.monotonic() - began + needed_seconds(recipe, sizes, costs, m, e)
    note = (
        f"{counted(costs.at_once, 'member')} at a time train at {costs.images_per_second:,.0f} images per second each; "
        f"{counted(m, 'member')} of {counted(e, 'epoch')} should take {expected:.0f} of the {seconds:.0f} seconds."
    )
    if not members and not epochs and e == MOST_EPOCHS and m + costs.at_once > MOST_MEMBERS:
        note += f" More than {MOST_MEMBERS} members or {MOST_EPOCHS} epochs are never planned: they gain too little."
    return BudgetPlan(with_numbers(recipe, m, e), note)


def planned_before(run: RunFolder, recipe: Recipe, members: int | None, epochs: int | None) -> Recipe | None:
    """The recipe that a run folder was begun with, if it differs from this one only in what the budget chooses."""
    if not run.has_recipe:
        return None
    stored = run.recipe
    planned = with_numbers(recipe, members or stored.committee.members, epochs or stored.training.epochs)
    return planned if planned.digest() == stored.digest() else None


def with_numbers(recipe: Recipe, members: int, epochs: int) -> Recipe:
    """The recipe with other numbers of members and epochs."""
    changed = {
        "committee": recipe.committee.model_copy(update={"members": members}),
        "training": recipe.training.model_copy(update={"epochs": epochs}),
    }
    return recipe.model_copy(update=changed)


def member_numbers(at_once: int) -> list[int]:
    """Numbers of members that leave no worker idle; one member is not a committee."""
    return [m for m in range(at_once, max(MOST_MEMBERS, at_once) + 1, at_once) if m > 1]


def expected_error(members: int, epochs: int, images: int) -> float:
    """The committee's error, as a multiple of that after unlimited training with unlimited members: a rule of thumb.

    A single network's error is proportional to 1 + k / epochs, and a committee of M has .7 + .3 / M of it. Both were
    read off trainings of the compact network on validation images of MNIST and mnist-5k (docs/log.md). Small data sets
    need more epochs: k is 1.35 for 60,000 images and grows with the square root of 60,000 / images.
    """
    k = 1.35 * math.sqrt(60_000 / images)
    return (1 + k / epochs) * (0.7 + 0.3 / members)


def needed_seconds(recipe: Recipe, sizes: Sizes, costs: TrainingCosts, members: int, epochs: int) -> float:
    """How long a run takes from its start to its report."""
    sized = with_numbers(recipe, members, epochs)
    waves = math.ceil(members / costs.at_once)
    testing = views(recipe) * sizes.test_images * costs.predicted_image
    training = waves * (member_seconds(costs, sized, sizes) + testing)
    return START_SECONDS + training + end_seconds(sizes.images)


def end_seconds(images: int) -> float:
    """How long everything after the training takes: combining, calibrating, intervals, figures, the page."""
    return 4 + images / 20_000
