"""A search that has ended -> its results: what was gained, how much the search flattered itself, what mattered."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray
from optuna.trial import FrozenTrial, TrialState

from committee.config.recipe import Recipe
from committee.metrics.repeats import paired_mean
from committee.metrics.tuning import Candidate as Finalist
from committee.metrics.tuning import Comparison, SeedScores, TuningResults
from committee.tuning.evaluations import Candidate
from committee.tuning.importance import field_results
from committee.tuning.search import START_NAME, Searching, trial_result

Fresh = tuple[list[Candidate], list[Candidate]]


def results_of(
    searching: Searching,
    winner: FrozenTrial | None,
    recipe: Recipe,
    finalists: Mapping[int, tuple[float, float | None]],
    seeds: Sequence[int],
    fresh: Fresh | None,
    milliseconds: Sequence[float] | None,
    seconds: float,
) -> TuningResults:
    """Every figure of a search.

    Args:
        searching: the search, all trained.
        winner: the best trial; None where that is the starting recipe.
        recipe: the winner's.
        finalists: by number: the score in the search, and once more.
        seeds: the fresh ones.
        fresh: the starting recipe and the winner on each of them; None where nothing was better.
        milliseconds: for one image by the starting recipe and the winner, where that is limited.
        seconds: that the search has taken.
    """
    asked, proposals = searching.asked, searching.proposals
    trials = proposals.valid
    first = next(trial for trial in trials if trial.user_attrs.get("name") == START_NAME)
    scored = [
        (trial, float(trial.user_attrs["score"]))
        for trial in trials
        if trial.state in (TrialState.COMPLETE, TrialState.PRUNED) and "score" in trial.user_attrs
    ]
    rows, gain, flattery = _compared(searching, winner, seeds, fresh)
    spent = [sum(_seconds(searching, each) for each in side) / len(side) for side in fresh] if fresh else [0.0, 0.0]
    return TuningResults(
        data=searching.dataset.name,
        start=asked.start.name,
        objective=asked.objective,
        search=asked.search,
        prune=asked.prune,
        cost=asked.cost,
        space=asked.space.name,
        images=len(searching.dataset.train),
        folds=asked.folds,
        members=asked.start.committee.members,
        trials=tuple(trial_result(searching, trial) for trial in trials),
        winner=winner.number if winner else first.number,
        winner_recipe=recipe.to_toml(),
        start_recipe=asked.start.to_toml(),
        finalists=tuple(
            Finalist(number=number, searched=searched, again=again) for number, (searched, again) in finalists.items()
        ),
        seeds=rows,
        gain=gain,
        flattery=flattery,
        fields=field_results(proposals.parameters, scored, winner or first),
        latency_limit=asked.latency,
        start_milliseconds=milliseconds[0] if milliseconds else None,
        winner_milliseconds=milliseconds[1] if milliseconds else None,
        start_seconds=spent[0],
        winner_seconds=spent[1],
        seconds=round(seconds, 1),
        many_machines=proposals.is_shared,
    )


def _compared(
    searching: Searching, winner: FrozenTrial | None, seeds: Sequence[int], fresh: Fresh | None
) -> tuple[tuple[SeedScores, ...], Comparison | None, Comparison | None]:
    """Scores on the fresh seeds; the winner minus the start there; the search's own figure minus the fresh ones."""
    if fresh is None or winner is None:
        return (), None, None
    start, best = (np.stack([searching.values(each) for each in side]) for side in fresh)
    rows = tuple(
        SeedScores(seed=seed, start=float(a.mean()), winner=float(b.mean()))
        for seed, a, b in zip(seeds, start, best, strict=True)
    )
    name, flattery = winner.user_attrs["name"], None
    if searching.evaluations.folder.evaluated(name):  # not another machine's
        searched = searching.values(Candidate(name, searching.asked.start, searching.proposals.seed))
        flattery = _comparison(searched[None] - best)
    return rows, _comparison(best - start), flattery


def _comparison(differences: NDArray[np.float64]) -> Comparison:
    mean, interval, p = paired_mean(differences)
    return Comparison(mean=mean, interval=interval, p=p)


def _seconds(searching: Searching, candidate: Candidate) -> float:
    """How long a recipe's members trained on a seed, together."""
    evaluated = searching.evaluations.folder.evaluated(candidate.name)
    return evaluated.seconds if evaluated else 0.0
