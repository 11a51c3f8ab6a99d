"""The trials of a search: batches of proposed recipes, raced fold by fold against the best one before them."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from committee.config import space as spaces
from committee.config.recipe import Recipe
from committee.config.space import EPOCHS
from committee.data.dataset import ImageDataset
from committee.errors import RecipeError, TrainingError
from committee.metrics.scores import accuracy, log_loss
from committee.metrics.tuning import Ending, TrialResult
from committee.training.plan import check_network
from committee.tuning import latency
from committee.tuning.cost import at_equal_cost, epoch_cost
from committee.tuning.evaluations import Candidate, Evaluations
from committee.tuning.listener import Listener
from committee.tuning.objective import ImageValues, Objective, image_values, is_worse
from committee.tuning.proposals import Proposals, values_of

if TYPE_CHECKING:
    from committee.tuning.run import Search

START_NAME = "start"
LEVEL = 0.1
"""The probability that a trial as good as the best one is stopped at a look; see `is_worse`."""

PAGE_SECONDS = 8.0
SLACK = 1.15
ENDING_SHARE = 0.4
"""Of a budget: what the finalists and the fresh seeds may take."""


@dataclass
class Searching:
    """A search under way; all that must outlive the process is in its folder and its storage.

    Attributes:
        began: the `time.monotonic()` at which it would have begun if it had never been interrupted.
        batch_seconds: how long each batch of this session took.
    """

    asked: Search
    dataset: ImageDataset
    evaluations: Evaluations
    proposals: Proposals
    objective: Objective
    listener: Listener
    began: float
    batch_seconds: list[float] = field(default_factory=list)

    def values(self, candidate: Candidate) -> ImageValues:
        """(image,): the objective's values of a recipe's answers so far, NaN where there is none."""
        return image_values(self.objective, self.evaluations.answers(candidate), self.dataset.train.labels)

    def score(self, values: ImageValues) -> float:
        """The mean over the images that have an answer."""
        return float(np.nanmean(values))

    def judged_whole(self, candidates: Sequence[Candidate]) -> list[ImageValues]:
        """(image,) for each recipe, all of whose folds are trained now.

        Raises:
            TrainingError: one cannot be trained.
        """
        waiting = [each for each in candidates if not self.evaluations.folder.evaluated(each.name)]
        failed = self.evaluations.train(waiting, 0, self.evaluations.folds) if waiting else {}
        if failed:
            name, why = next(iter(failed.items()))
            raise TrainingError(f"recipe {name} cannot be trained: {why}")
        for each in waiting:
            self.evaluations.close(each)
            self.evaluations.folder.discard_members(each.name)
        return [self.values(each) for each in candidates]

    @property
    def start(self) -> Candidate:
        """The starting recipe as it is judged in the search."""
        return Candidate(START_NAME, self.asked.start, self.proposals.seed)


def search_trials(searching: Searching) -> None:
    """Try recipes until the trials or the budget are used up.

    Raises:
        TrainingError: the starting recipe cannot be trained, or a member's process died.
        RecipeError: the budget is too short for more than the starting recipe.
    """
    searching.listener.on_stage("The starting recipe")
    searching.judged_whole([searching.start])
    evaluated = searching.evaluations.folder.evaluated(START_NAME)
    assert evaluated is not None
    searching.evaluations.fold_seconds = evaluated.seconds / searching.evaluations.folds
    searching.listener.on_stage("Trials")
    while True:
        batch, place = _next_batch(searching)
        if not batch:
            break
        began = time.monotonic()
        _try(searching, batch, place)
        searching.batch_seconds.append(time.monotonic() - began)
    if searching.asked.budget and len(searching.proposals.valid) < 2:
        needed = time.monotonic() - searching.began + _needed_seconds(searching)
        raise RecipeError(
            "the budget is too short: only the starting recipe was tried, and a few trials with all that follows need "
            f"about {needed:.0f} seconds here; give the same command with more, which keeps what is done, or fewer "
            "--fresh and --finalists"
        )


def rungs(folds: int) -> list[tuple[int, int]]:
    """The folds that are trained between two looks at a trial: the first, the second, up to a half, the rest."""
    ends = sorted({1, min(2, folds), max(folds // 2, min(2, folds)), folds})
    return list(zip([0, *ends], ends, strict=False))


def recipe_of(searching: Searching, trial: FrozenTrial) -> Recipe:
    """The recipe that a trial is about, with as many epochs as its cost allows.

    Raises:
        RecipeError: its values do not fit together, or the images.
    """
    asked, parameters = searching.asked, searching.proposals.parameters
    values = values_of(trial, parameters)
    if trial.user_attrs["name"] == START_NAME:
        return asked.start
    recipe = spaces.changed(asked.start, parameters, values)
    check_network(searching.dataset, recipe)
    if EPOCHS in asked.fixed:
        return recipe
    allowed = asked.cost * float(values.get(EPOCHS, 1.0))
    return at_equal_cost(recipe, asked.start, allowed, *_sizes(searching))


def best_of(searching: Searching, before: float = math.inf) -> list[FrozenTrial]:
    """Trials that were trained whole and are fast enough, the best first; of equal scores, the lower log-loss first.

    Args:
        searching: the search.
        before: only trials proposed before this place.
    """
    found = [
        trial
        for trial in searching.proposals.valid
        if trial.state == TrialState.COMPLETE
        and trial.user_attrs["place"] < before
        and not trial.user_attrs.get("too slow", False)
    ]
    return sorted(found, key=lambda trial: (-trial.user_attrs["score"], trial.user_attrs["log loss"]))


def trial_result(searching: Searching, trial: FrozenTrial) -> TrialResult:
    """A trial as it is shown."""
    known, parameters = trial.user_attrs, searching.proposals.parameters
    endings: dict[TrialState, Ending] = {TrialState.COMPLETE: "whole", TrialState.PRUNED: "stopped"}
    ending = endings.get(trial.state, "failed" if trial.state == TrialState.FAIL else "under way")
    return TrialResult(
        number=trial.number,
        ending="too slow" if known.get("too slow") else ending,
        folds=known.get("folds", 0),
        score=known.get("score"),
        against_start=known.get("against start"),
        accuracy=known.get("accuracy"),
        log_loss=known.get("log loss"),
        seconds=known.get("seconds", 0.0),
        cost=known.get("cost", 1.0),
        milliseconds=known.get("milliseconds"),
        epochs=known.get("epochs", 1),
        values=dict(values_of(trial, parameters)) if len(trial.params) == len(parameters) else {},
        why=known.get("why", ""),
    )


def _sizes(searching: Searching) -> tuple[tuple[int, int, int], int, int]:
    """Image shape, classes, images that a member trains on."""
    dataset, folds = searching.dataset, searching.evaluations.folds
    return dataset.image_shape, len(dataset.class_names), len(dataset.train) * (folds - 1) // folds


def _next_batch(searching: Searching) -> tuple[list[FrozenTrial], int]:
    """The trials to go on with, or to begin: first the starting recipe alone, then so many together at a time.

    A batch that was interrupted is completed, so that each trial is proposed knowing the same ones as without that.

    Returns:
        The batch, and the place of its first trial; () where trials or budget are used up.
    """
    proposals, asked = searching.proposals, searching.asked
    under_way = sorted(proposals.own_under_way, key=lambda trial: trial.user_attrs["place"])
    known = len(proposals.valid)
    if not under_way and (known >= asked.most_trials or not _has_time(searching)):
        return [], known
    place = under_way[0].user_attrs["place"] if under_way else known
    first = 0 if place == 0 else 1 + (place - 1) // asked.together * asked.together
    if proposals.is_shared:
        end, first = known + (1 if place == 0 else asked.together) - len(under_way), place
    else:
        end = 1 if place == 0 else first + asked.together
    batch = under_way
    while len(proposals.valid) < min(end, asked.most_trials):
        batch.append(proposals.propose())
    for trial in batch:
        if "name" not in trial.user_attrs:
            is_start = trial.user_attrs["place"] == 0
            proposals.note(trial.number, name=START_NAME if is_start else f"trial-{trial.number:04d}")
    return [proposals.trial(trial.number) for trial in batch], first


def _has_time(searching: Searching) -> bool:
    """Whether another batch, and all that comes after the search, would end within the budget."""
    asked = searching.asked
    if asked.budget is None or not searching.proposals.valid:
        return True
    return time.monotonic() - searching.began + _needed_seconds(searching) <= asked.budget


def _needed_seconds(searching: Searching) -> float:
    """What another batch, the finalists, the fresh seeds and the page take."""
    whole, (finalists, fresh) = _whole_seconds(searching), affordable(searching)
    after = (finalists + 2 * fresh) * whole + PAGE_SECONDS
    longest = max(searching.batch_seconds, default=searching.asked.together * whole)
    return longest + after


def affordable(searching: Searching) -> tuple[int, int]:
    """How many finalists and fresh seeds there are: what was asked for, or fewer where a budget allows no more.

    On many images a training is long and its score sure, so that fewer are needed, too.
    """
    asked = searching.asked
    finalists, fresh = max(asked.finalists, 1), asked.fresh
    steps = [(finalists, fresh), *((finalists, each) for each in range(fresh - 1, 1, -1))]
    steps += [(1, min(fresh, 2)), (1, min(fresh, 1))]
    most = math.inf if asked.budget is None else ENDING_SHARE * asked.budget / max(_whole_seconds(searching), 1e-9)
    return next((step for step in steps if step[0] + 2 * step[1] <= most), steps[-1])


def _whole_seconds(searching: Searching) -> float:
    """What all folds of a recipe take on all cores."""
    asked, workers = searching.asked, searching.evaluations.setting.workers
    return searching.evaluations.fold_seconds * asked.folds / workers * asked.cost * SLACK


def _try(searching: Searching, batch: Sequence[FrozenTrial], first: int) -> None:
    """Train and judge the trials of a batch, and tell Optuna of each, in order."""
    proposals, evaluations = searching.proposals, searching.evaluations
    start = searching.values(searching.start)
    best = [start] if not _is_too_slow(searching, searching.asked.start) else []
    for trial in best_of(searching, first):
        name = trial.user_attrs["name"]
        if evaluations.folder.evaluated(name):
            best = [searching.values(Candidate(name, searching.asked.start, proposals.seed))]
            break
    candidates: dict[int, Candidate] = {}
    unfit: dict[int, str] = {}
    for trial in batch:
        try:
            recipe = recipe_of(searching, trial)
        except RecipeError as error:
            unfit[trial.number] = str(error)
            continue
        shape, classes, images = _sizes(searching)
        costs = [each.training.epochs * epoch_cost(each, shape, classes, images)
                 for each in (recipe, searching.asked.start)]  # fmt: skip
        proposals.note(trial.number, epochs=recipe.training.epochs, cost=round(costs[0] / costs[1], 3))
        slow = _measure(searching, trial, recipe)
        if slow > 0 and trial.user_attrs["name"] != START_NAME:
            unfit[trial.number] = ""
            continue
        candidates[trial.number] = Candidate(trial.user_attrs["name"], recipe, proposals.seed)
    against = best[0] if best and searching.asked.prune == "folds" else None
    _race(searching, list(candidates.values()), against)
    for trial in batch:
        candidate = candidates.get(trial.number)
        _tell(searching, proposals.trial(trial.number), candidate, best[0] if best else start, unfit)
    for candidate in candidates.values():
        evaluations.folder.discard_members(candidate.name)


def _race(searching: Searching, candidates: Sequence[Candidate], best: ImageValues | None) -> None:
    """Train recipes fold by fold; those that are clearly worse than the best one go no further."""
    evaluations = searching.evaluations
    alive = [each for each in candidates if not evaluations.folder.evaluated(each.name)]
    for begin, end in rungs(evaluations.folds):
        if not alive:
            return
        failed = evaluations.train(alive, begin, end)
        for candidate in alive:
            if candidate.name in failed:
                evaluations.close(candidate, failed[candidate.name], failed=True)
            elif end == evaluations.folds:
                evaluations.close(candidate)
            elif best is not None and is_worse(searching.values(candidate), best, LEVEL):
                evaluations.close(
                    candidate, "worse than the best trial on the same images, by more than chance explains"
                )
        alive = [each for each in alive if not evaluations.folder.evaluated(each.name)]


def _measure(searching: Searching, trial: FrozenTrial, recipe: Recipe) -> float:
    """By how many milliseconds a recipe is too slow; 0 or less where it is not, or nothing is limited."""
    limit = searching.asked.latency
    if limit is None:
        return 0.0
    if "milliseconds" not in trial.user_attrs:
        (found,) = latency.milliseconds([recipe], searching.dataset, searching.evaluations.setting)
        searching.proposals.note(trial.number, milliseconds=found, **{"too slow": found > limit})
        return found - limit
    return float(trial.user_attrs["milliseconds"]) - limit


def _is_too_slow(searching: Searching, recipe: Recipe) -> bool:
    """Whether the starting recipe is over the limit."""
    limit = searching.asked.latency
    return (
        limit is not None
        and latency.milliseconds([recipe], searching.dataset, searching.evaluations.setting)[0] > limit
    )


def _tell(
    searching: Searching,
    trial: FrozenTrial,
    candidate: Candidate | None,
    best: ImageValues,
    unfit: Mapping[int, str],
) -> None:
    """End a trial with what it has reached.

    A trial that was stopped has answered some images only. Its score is that of the trial that it lost to on all images
    plus the difference to it on those that both have answered: a trial on easy folds is not taken for a good one.
    """
    proposals, limit = searching.proposals, searching.asked.latency
    over = 0.0 if limit is None else float(trial.user_attrs.get("milliseconds", 0.0)) - limit
    evaluated = searching.evaluations.folder.evaluated(candidate.name) if candidate else None
    score: float | None = None
    if candidate is None or evaluated is None or evaluated.failed:
        slow = f"one image takes {trial.user_attrs.get('milliseconds', 0.0):.2f} ms"
        why = unfit.get(trial.number, "") or (evaluated.why if evaluated else slow)
        proposals.note(trial.number, folds=0, why=why)
    else:
        answers, labels = searching.evaluations.answers(candidate), searching.dataset.train.labels
        known = ~np.isnan(answers[:, 0])
        values, whole = searching.values(candidate), evaluated.folds == searching.evaluations.folds
        score = searching.score(values) if whole else searching.score(best) + float(np.nanmean(values - best))
        proposals.note(
            trial.number,
            folds=evaluated.folds,
            seconds=evaluated.seconds,
            why=evaluated.why,
            score=score,
            accuracy=accuracy(answers[known], labels[known]),
            **{
                "against start": score - searching.score(searching.values(searching.start)),
                "log loss": log_loss(answers[known], labels[known]),
            },
        )
    folds = evaluated.folds if evaluated else 0
    proposals.tell(trial.number, score, folds, whole=folds == searching.evaluations.folds, too_slow_by=over)
    ranked = best_of(searching)
    shown = float(ranked[0].user_attrs["score"]) if ranked else None
    searching.listener.on_trial(trial_result(searching, proposals.trial(trial.number)), shown)
