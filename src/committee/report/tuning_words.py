"""What a search found, in sentences that each rest on its numbers: for the page and for the terminal."""

from __future__ import annotations

from collections import Counter

from committee.errors import counted
from committee.metrics.formatting import duration, p_value, score_difference, score_text, score_unit
from committee.metrics.results import Interval
from committee.metrics.tuning import Comparison, Ending, ObjectiveName, TuningResults

NAMES: dict[ObjectiveName, str] = {
    "accuracy": "accuracy",
    "balanced-accuracy": "balanced accuracy",
    "auc": "area under the ROC curve",
    "log-loss": "log-loss",
}
LEVEL = 0.05


def verdict(results: TuningResults) -> str:
    """Whether the winner is better than the starting recipe."""
    if results.winner == results.trials[0].number:
        return f"Nothing was found that is better than {results.start}"
    if results.gain is None:
        return f"The best trial is number {results.winner}; it was not judged anew"
    if results.gain.p >= LEVEL:
        return f"The winner is not distinguishable from {results.start}"
    return f"The winner is {'better' if results.gain.mean > 0 else 'worse'} than {results.start}"


def gain(results: TuningResults) -> str:
    """The winner and the starting recipe on fresh seeds; "" where they were not compared."""
    if results.gain is None:
        return ""
    objective, seeds = results.objective, len(results.seeds)
    start, winner = (sum(scores) / seeds for scores in zip(*((each.start, each.winner) for each in results.seeds),
                                                           strict=True))  # fmt: skip
    return (
        f"On {counted(seeds, 'fresh seed')}: {score_text(objective, winner)}, where {results.start} has "
        f"{score_text(objective, start)}; difference {difference(objective, results.gain)}, p {p_value(results.gain.p)}"
    )


def flattery(results: TuningResults) -> str:
    """By how much the search flattered its winner; "" where that is not known."""
    trial = next(each for each in results.trials if each.number == results.winner)
    if results.flattery is None or trial.score is None:
        return ""
    amount = results.flattery.mean
    had = f"In the search the winner had {score_text(results.objective, trial.score)}"
    number = counted(len(results.trials), "trial")
    flattered = f": the best of {number} flattered itself by " if amount > 0 else ", not more than on fresh seeds: "
    return f"{had}{flattered}{difference(results.objective, results.flattery)}"


def difference(objective: ObjectiveName, found: Comparison) -> str:
    """A difference with its unit and interval."""
    return (
        f"{score_difference(objective, found.mean)} {score_unit(objective)} "
        f"(95 % interval {ends(objective, found.interval)})"
    )


def ends(objective: ObjectiveName, interval: Interval) -> str:
    """The ends of an interval of differences."""
    return f"{score_difference(objective, interval.low)} to {score_difference(objective, interval.high)}"


def count(results: TuningResults) -> str:
    """How many trials there were, and how they ended."""
    endings = Counter(each.ending for each in results.trials)
    spelled: dict[Ending, str] = {
        "whole": "trained on all folds",
        "stopped": "stopped early",
        "too slow": "too slow to be trained",
        "failed": "failed",
        "under way": "still under way elsewhere",
    }
    parts = [f"{endings[each]} {words}" for each, words in spelled.items() if endings[each]]
    return f"{counted(len(results.trials), 'trial')} in {duration(results.seconds)}: {', '.join(parts)}"


def speed(results: TuningResults) -> str:
    """What one image takes, where that is limited; else ""."""
    if results.latency_limit is None or results.winner_milliseconds is None:
        return ""
    return (
        f"One image takes the winner {results.winner_milliseconds:.2f} ms on this machine and {results.start} "
        f"{results.start_milliseconds or 0.0:.2f} ms; at most {results.latency_limit:g} ms were asked for"
    )


def cost(results: TuningResults) -> str:
    """What training the winner costs beside the starting recipe; "" where they were not trained side by side."""
    if not results.start_seconds or not results.winner_seconds:
        return ""
    return (
        f"The members of a committee trained for {duration(results.winner_seconds)} together, those of {results.start} "
        f"for {duration(results.start_seconds)}"
    )
