"""From a starting recipe to a better one and its page: prepare, search, choose among the best, judge anew; in order."""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from optuna.trial import FrozenTrial

from committee.config import space as spaces
from committee.config.recipe import Recipe
from committee.config.space import Parameter, Space, Surroundings
from committee.data.dataset import ImageDataset
from committee.data.splits import validation_positions
from committee.data.summary import describe
from committee.errors import StorageError, TrainingError, counted
from committee.folders.records import RunData
from committee.folders.tuning_folder import TuningFolder, TuningIdentity
from committee.metrics.tuning import ObjectiveName, PruneName, SearchName, TuningResults
from committee.names import file_name
from committee.report.tuning_page import write_tuning_page
from committee.rng import derive
from committee.training.executors.processes import refuse_to_train_while_imported
from committee.training.plan import check_network
from committee.training.setting import Setting
from committee.training.shared_images import SharedImages, shared
from committee.tuning import latency
from committee.tuning.evaluations import Candidate, Evaluations, judged
from committee.tuning.listener import Listener, Silent
from committee.tuning.objective import OBJECTIVES
from committee.tuning.proposals import Proposals, machine
from committee.tuning.search import START_NAME, Searching, affordable, best_of, recipe_of, search_trials
from committee.tuning.verdict import results_of
from committee.version import trains_like

FOLDS = 5
"""Parts that a recipe is judged on where its own hold-out has none."""

TRIALS = 40
"""Trials where neither a number nor a budget is given."""


@dataclass(frozen=True)
class Search:
    """What is asked of a search.

    Attributes:
        start: the starting recipe, which is the first trial.
        space: what is tuned.
        fixed: recipe fields that keep the starting recipe's values.
        objective: what is maximised, out of fold.
        search: "tpe" (tree-structured Parzen estimators: Bergstra et al. 2011, arXiv 1206.2944 for the practice) or
            "random", which draws every field anew each time.
        trials: how many recipes are tried, the starting recipe among them; None for as many as the budget allows.
        budget: seconds for everything, over all sessions; None for as long as it takes.
        prune: whether trials that lose the race are stopped after a few folds ("folds"), or none is ("none").
        cost: what training a recipe may cost, as a multiple of the starting recipe's.
        latency: most milliseconds that the committee may take for one image; None for no limit.
        finalists: the best trials that are trained once more to choose among them; with a budget perhaps fewer.
        fresh: seeds on which the winner and the starting recipe are compared at the end; with a budget perhaps fewer.
        together: trials that are proposed before any of them is known; more keep more cores busy.
        storage: where the trials are kept, see `committee.tuning.proposals`; None for the search's own journal.
    """

    start: Recipe
    space: Space
    fixed: tuple[str, ...] = ()
    objective: ObjectiveName = "accuracy"
    search: SearchName = "tpe"
    trials: int | None = None
    budget: float | None = None
    prune: PruneName = "folds"
    cost: float = 1.0
    latency: float | None = None
    finalists: int = 3
    fresh: int = 5
    together: int = 4
    storage: str | None = None

    @property
    def folds(self) -> int:
        """Parts that each recipe is judged on."""
        return self.start.holdout.folds if self.start.holdout.kind == "folds" else FOLDS

    @property
    def most_trials(self) -> float:
        """The number of trials after which the search ends."""
        return self.trials or (math.inf if self.budget else TRIALS)


@dataclass(frozen=True)
class Prepared:
    """A search that has entered its folder."""

    asked: Search
    dataset: ImageDataset
    folder: TuningFolder
    setting: Setting
    parameters: tuple[Parameter, ...]
    identity: TuningIdentity


def folder_name(dataset: ImageDataset, search: Search, seed: int) -> str:
    """The name of a search's folder under runs/."""
    return f"{file_name(dataset.name)}-tune-{file_name(search.start.name)}-{search.objective}-seed{seed}"


def prepare(dataset: ImageDataset, search: Search, out: str | Path, setting: Setting | None = None) -> Prepared:
    """Check that everything fits, and enter the folder.

    Args:
        dataset: its training images are used; its test images stay sealed.
        search: what is asked for.
        out: the folder: a new one, or one that the same search began or finished.
        setting: seed, device, precision, workers; None takes the defaults.

    Raises:
        RunError: the folder holds something else.
        RecipeError: the space or the starting recipe has faults, or does not fit the images.
        DataError: a class has fewer images than there are folds.
    """
    refuse_to_train_while_imported()
    resolved, folder = (setting or Setting()).resolved(10**6), TuningFolder(out)
    check_network(dataset, search.start)
    train = dataset.train
    validation_positions(
        train.labels, judged(search.start, search.folds).holdout, search.folds, resolved.seed, dataset.class_names,
        train.groups,
    )  # fmt: skip
    parameters = spaces.resolved(search.space, search.start, surroundings(dataset), search.fixed)
    identity = identity_of(dataset, search, resolved, parameters)
    folder.check_free(identity)
    with folder.locked():
        folder.begin(identity)
        folder.write_data(RunData(**describe(dataset).model_dump(), reload=resolved.reload))
        folder.write_command(resolved.command)
        folder.write_environment(resolved.environment())
    return Prepared(search, dataset, folder, resolved, parameters, identity)


def surroundings(dataset: ImageDataset) -> Surroundings:
    """What of a data set a space depends on."""
    height, width, _ = dataset.image_shape
    counts = dataset.train.counts(len(dataset.class_names))
    return Surroundings(min(height, width), max(counts) > 1.5 * max(min(counts), 1))


def identity_of(
    dataset: ImageDataset, search: Search, setting: Setting, parameters: Sequence[Parameter]
) -> TuningIdentity:
    """What makes a folder that of this search; how long it may go on, and for how many seeds, is no part of it."""
    space = {
        each.name: list(each.choices) if each.choices else [each.low, each.high, "log" if each.log else "linear"]
        for each in parameters
    }
    return TuningIdentity(
        start=search.start.content(),
        space=space,
        objective=search.objective,
        search=search.search,
        prune=search.prune,
        seed=setting.seed,
        folds=search.folds,
        together=search.together,
        cost=search.cost,
        latency=search.latency,
        train_images=dataset.part_digests()[0],
        groups=dataset.train.groups_digest() or None,
        device=setting.device,
        precision=setting.precision,
        kernels=setting.kernels(),
        committee=trains_like,
        torch=torch.__version__,
    )


def tune(
    dataset: ImageDataset,
    search: Search,
    out: str | Path,
    setting: Setting | None = None,
    listener: Listener | None = None,
) -> TuningResults:
    """Search for a better recipe; what an earlier call has done is kept. The test images stay sealed.

    Args:
        dataset, search, out, setting: as for `prepare`.
        listener: told of everything that happens.

    Raises:
        RunError, RecipeError, DataError: as for `prepare`.
        TrainingError: the starting recipe cannot be trained, or none is fast enough.
    """
    return run_prepared(prepare(dataset, search, out, setting), listener or Silent())


def run_prepared(prepared: Prepared, listener: Listener) -> TuningResults:
    """Search, choose, judge anew, write recipe and page.

    Raises:
        TrainingError: the starting recipe cannot be trained, or none is fast enough.
        StorageError: a file cannot be written or read.
    """
    folder, began = prepared.folder, time.monotonic()
    with folder.locked():
        before = folder.seconds
        try:
            with shared(prepared.dataset.train) as (images,):
                assert images is not None
                return _run(prepared, listener, _searching(prepared, listener, images, began - before))
        finally:
            with suppress(StorageError):  # where a disk is full, the search's own error says so
                folder.write_seconds(before + time.monotonic() - began)


def _searching(prepared: Prepared, listener: Listener, images: SharedImages, began: float) -> Searching:
    """The state of a search, as its folder and its storage have it."""
    asked, folder = prepared.asked, prepared.folder
    evaluations = Evaluations(
        prepared.dataset, folder, prepared.setting, asked.folds, images, listener.on_event, listener.on_work
    )
    shown = prepared.identity.model_dump_json()
    proposals = Proposals(
        asked.storage or folder.journal,
        f"committee-{derive('tuning', shown):016x}",
        prepared.parameters,
        search=asked.search,
        seed=prepared.setting.seed,
        owner=machine(folder.path),
    )
    return Searching(asked, prepared.dataset, evaluations, proposals, OBJECTIVES[asked.objective], listener, began)


def _run(prepared: Prepared, listener: Listener, searching: Searching) -> TuningResults:
    asked, folder = prepared.asked, prepared.folder
    search_trials(searching)
    winner, finalists = _winner(searching, prepared.setting.seed)
    fresh_seeds = affordable(searching)[1]
    seeds = [derive(prepared.setting.seed, "tuning", "fresh", number) % 10**6 for number in range(fresh_seeds)]
    recipe = named(recipe_of(searching, winner), prepared, winner.number) if winner else asked.start
    fresh = _on_fresh_seeds(searching, recipe, winner, seeds)
    slow = latency.milliseconds([asked.start, recipe], prepared.dataset, prepared.setting) if asked.latency else None
    seconds = time.monotonic() - searching.began
    results = results_of(searching, winner, recipe, finalists, seeds, fresh, slow, seconds)
    folder.write_recipe(recipe)
    folder.write_results(results)
    write_tuning_page(folder.results, folder.figures, folder.tables, folder.page)
    return results


def named(recipe: Recipe, prepared: Prepared, number: int) -> Recipe:
    """A winner with a name of its own, and a summary that says where it comes from."""
    start, data = prepared.asked.start.name, prepared.dataset.name
    summary = f"{start} tuned on {data} for {prepared.asked.objective}: trial {number} of the search"
    return recipe.model_copy(update={"name": f"{start}-tuned", "summary": summary})


def _winner(searching: Searching, seed: int) -> tuple[FrozenTrial | None, dict[int, tuple[float, float | None]]]:
    """The best trial; None for the starting recipe. And the finalists: their scores in the search and once more.

    The highest of many noisy scores is more often lucky than good, so the best few are trained once more, on another
    seed, and the mean of both decides.

    Raises:
        TrainingError: none is fast enough.
    """
    asked = searching.asked
    best = best_of(searching)[: affordable(searching)[0]]
    if not best:
        known = [trial.user_attrs.get("milliseconds", math.inf) for trial in searching.proposals.valid]
        raise TrainingError(
            f"no recipe answers within {asked.latency or 0:g} ms, the fastest took {min(known, default=math.inf):.2f}; "
            "allow more with --latency, or fewer --members"
        )
    again_seed = derive(seed, "tuning", "finalists") % 10**6
    candidates = [Candidate(f"finalist-{trial.number:04d}", recipe_of(searching, trial), again_seed) for trial in best]
    again: list[float | None] = [None] * len(best)
    if len(best) > 1:
        searching.listener.on_stage(f"The best {len(best)} once more, on another seed")
        again = [searching.score(values) for values in searching.judged_whole(candidates)]
    scores = {trial.number: (float(trial.user_attrs["score"]), each) for trial, each in zip(best, again, strict=True)}
    winner = max(best, key=lambda trial: sum(each or 0.0 for each in scores[trial.number]))
    return (None if winner.user_attrs["name"] == START_NAME else winner), scores


def _on_fresh_seeds(
    searching: Searching, recipe: Recipe, winner: FrozenTrial | None, seeds: Sequence[int]
) -> tuple[list[Candidate], list[Candidate]] | None:
    """The starting recipe and the winner on fresh seeds, trained in one queue; None where nothing was better."""
    if winner is None or not seeds:
        return None
    searching.listener.on_stage(f"The winner and the starting recipe on {counted(len(seeds), 'fresh seed')}")
    starts = [Candidate(f"fresh-{seed}-start", searching.asked.start, seed) for seed in seeds]
    winners = [Candidate(f"fresh-{seed}-{winner.number:04d}", recipe, seed) for seed in seeds]
    searching.judged_whole([each for pair in zip(starts, winners, strict=True) for each in pair])  # side by side
    return starts, winners
