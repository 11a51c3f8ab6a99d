"""Every figure of a search for a recipe, as one typed value: stored as `results.json`, read by its page."""

from __future__ import annotations

from typing import Literal

from committee.config.record import Record
from committee.metrics.results import Interval

ObjectiveName = Literal["accuracy", "balanced-accuracy", "auc", "log-loss"]
SearchName = Literal["tpe", "random"]
PruneName = Literal["folds", "none"]
Ending = Literal["whole", "stopped", "too slow", "failed", "under way"]


class TrialResult(Record):
    """One recipe that was tried.

    Attributes:
        number: Optuna's; the first is the starting recipe.
        ending: all folds were trained; it lost the race and was stopped; it answers too slowly; it could not be
            trained; another machine is still at it.
        folds: that were trained.
        score: the mean of the objective's values, higher is better; of a trial that was stopped, that of the trial it
            lost to plus the difference on the same images; None without any.
        against_start: the score minus the starting recipe's.
        accuracy, log_loss: on these images.
        seconds: that its members trained, together.
        cost: of its training, as a multiple of the starting recipe's.
        milliseconds: that the committee takes for one image, where that is limited.
        epochs: of each member.
        values: of the tuned parameters.
        why: it was stopped or failed, in words.
    """

    number: int
    ending: Ending
    folds: int
    score: float | None = None
    against_start: float | None = None
    accuracy: float | None = None
    log_loss: float | None = None
    seconds: float = 0.0
    cost: float = 1.0
    milliseconds: float | None = None
    epochs: int
    values: dict[str, float | int | str]
    why: str = ""


class FieldResult(Record):
    """A tuned parameter: its value in the starting recipe and in the winner, and how much it mattered.

    Attributes:
        importance: its share of the scores' variance over the space (fANOVA), mean over resampled trials; None where
            there are too few trials to say.
        spread: the standard deviation of that share over the resampled trials.
    """

    name: str
    start: float | int | str
    winner: float | int | str
    importance: float | None = None
    spread: float | None = None


class SeedScores(Record):
    """The starting recipe and the winner, trained anew on one seed: other folds, other weights, other orders."""

    seed: int
    start: float
    winner: float


class Candidate(Record):
    """A finalist: its score in the search and on the seed that chose among the finalists."""

    number: int
    searched: float
    again: float | None


class Comparison(Record):
    """Mean difference of two rows of scores, pair by pair, over images and seeds."""

    mean: float
    interval: Interval
    p: float


class TuningResults(Record):
    """A finished search.

    Attributes:
        data, start: names of the data set and of the starting recipe.
        objective, search, space: what was maximised, how, among what.
        prune, cost: whether trials were stopped early; what training might cost, as a multiple of the starting
            recipe's.
        images, folds, members: training images; parts each trial is judged on; members of the final committee.
        trials: by their numbers.
        winner: the number of the best trial; 0 where nothing was better than the starting recipe.
        winner_recipe, start_recipe: complete, as TOML.
        finalists: the best trials, trained again to choose among them.
        seeds: the winner and the starting recipe on fresh seeds.
        gain: the winner minus the starting recipe, on the fresh seeds; None where nothing was better.
        flattery: the winner's score in the search minus that on the fresh seeds; None where nothing was better.
        fields: the parameters, the most important first.
        latency_limit: milliseconds for one image; None without.
        start_milliseconds, winner_milliseconds: measured side by side at the end, where there is a limit.
        winner_seconds, start_seconds: of training, a committee on the fresh seeds.
        seconds: of the whole search, over all sessions.
        many_machines: whether trials of others may be among these.
    """

    data: str
    start: str
    objective: ObjectiveName
    search: SearchName
    prune: PruneName
    cost: float
    space: str
    images: int
    folds: int
    members: int
    trials: tuple[TrialResult, ...]
    winner: int
    winner_recipe: str
    start_recipe: str
    finalists: tuple[Candidate, ...]
    seeds: tuple[SeedScores, ...]
    gain: Comparison | None
    flattery: Comparison | None
    fields: tuple[FieldResult, ...]
    latency_limit: float | None = None
    start_milliseconds: float | None = None
    winner_milliseconds: float | None = None
    winner_seconds: float = 0.0
    start_seconds: float = 0.0
    seconds: float = 0.0
    many_machines: bool = False
