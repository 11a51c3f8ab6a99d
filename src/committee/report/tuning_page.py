"""The page of a search for a recipe: one HTML file that needs nothing else, its figures as PNG and tables as CSV beside
it.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from matplotlib.figure import Figure

from committee import disk
from committee.metrics.formatting import NOTHING, duration, score_difference, score_text
from committee.metrics.tuning import TrialResult, TuningResults
from committee.names import csv_text
from committee.report import tuning_plots, tuning_words
from committee.report.formatting import spell
from committee.report.page import Page, Plot, Section, embed
from committee.version import version

SHOWN_TRIALS = 25


@dataclass(frozen=True)
class Row:
    """A row of a table: its name, its cells, whether it is the winner's."""

    name: str
    cells: tuple[str, ...]
    is_winner: bool = False


@dataclass(frozen=True)
class Gained(Section):
    """The winner and the starting recipe on fresh seeds."""

    key: ClassVar[str] = "gained"
    title: ClassVar[str] = "What was gained"

    cost: str
    plot: Plot | None
    rows: tuple[Row, ...]
    start: str


@dataclass(frozen=True)
class Changed(Section):
    """What the winner changes."""

    key: ClassVar[str] = "changed"
    title: ClassVar[str] = "What the winner changes"

    rows: tuple[Row, ...]
    start: str


@dataclass(frozen=True)
class Course(Section):
    """The trials in their order."""

    key: ClassVar[str] = "course"
    title: ClassVar[str] = "The search"

    count: str
    plot: Plot
    finalists: tuple[Row, ...]


@dataclass(frozen=True)
class Mattered(Section):
    """The importance of each parameter."""

    key: ClassVar[str] = "mattered"
    title: ClassVar[str] = "What mattered"

    importances: Plot | None
    slices: Plot | None


@dataclass(frozen=True)
class Speed(Section):
    """Scores against the time for one image."""

    key: ClassVar[str] = "speed"
    title: ClassVar[str] = "Accuracy and time"

    sentence: str
    plot: Plot


@dataclass(frozen=True)
class Trials(Section):
    """The best trials."""

    key: ClassVar[str] = "trials"
    title: ClassVar[str] = "Trials"

    headings: tuple[str, ...]
    rows: tuple[Row, ...]
    total: int


@dataclass(frozen=True)
class Protocol(Section):
    """How the figures came about."""

    key: ClassVar[str] = "protocol"
    title: ClassVar[str] = "How this was found"

    texts: tuple[str, ...]
    toml: str


@dataclass(frozen=True)
class TuningPage(Page):
    """The page of a search.

    Attributes:
        data: of the data set.
        lead: the gain in a sentence.
        flattery: by how much the search flattered its winner.
    """

    template: ClassVar[str] = "tuning.html"

    data: str
    lead: str
    flattery: str


def write_tuning_page(results: TuningResults, figures: Path, tables: Path, page: Path) -> None:
    """Tables, figures and page of a search.

    Args:
        results: all that is shown.
        figures, tables: folders, which are made.
        page: the file.
    """
    disk.make_folder(tables, within=tables.parent)
    for name, text in csv_tables(results).items():
        disk.write(tables / f"{name}.csv", text.encode())
    plots = embed(drawn(results), figures)
    disk.write(page, tuning_page(results, plots).render().encode())


def drawn(results: TuningResults) -> dict[str, Figure]:
    """The figures of a search, by name."""
    found = {"history": tuning_plots.history(results)}
    if results.seeds:
        found["fresh_seeds"] = tuning_plots.fresh_seeds(results)
    if any(field.importance is not None for field in results.fields):
        found["importances"] = tuning_plots.importances(results.fields)
        found["slices"] = tuning_plots.slices(results)
    if results.latency_limit is not None:
        found["pareto"] = tuning_plots.pareto(results)
    return found


def csv_tables(results: TuningResults) -> dict[str, str]:
    """The tables of a search as CSV, by name."""
    fields = [field.name for field in results.fields]
    columns = ("trial", "ending", "folds", "score", "against_start", "accuracy", "log_loss", "seconds", "cost",
               "epochs", "milliseconds", *fields, "why")  # fmt: skip
    rows = [
        (t.number, t.ending, t.folds, t.score, t.against_start, t.accuracy, t.log_loss, t.seconds, t.cost, t.epochs,
         t.milliseconds, *(t.values.get(name) for name in fields), t.why) for t in results.trials
    ]  # fmt: skip
    return {
        "trials": csv_text(columns, rows),
        "importances": csv_text(
            ("field", "start", "winner", "importance", "spread"),
            [(f.name, f.start, f.winner, f.importance, f.spread) for f in results.fields],
        ),
        "fresh_seeds": csv_text(
            ("seed", "start", "winner"), [(each.seed, each.start, each.winner) for each in results.seeds]
        ),
    }


def tuning_page(results: TuningResults, plots: Mapping[str, Plot]) -> TuningPage:
    """The page of a search whose figures are embedded."""
    found: list[Section | None] = [
        gained(results, plots),
        changed(results),
        Course(tuning_words.count(results), plots["history"], finalists(results)),
        Mattered(plots.get("importances"), plots.get("slices")) if "importances" in plots else None,
        Speed(tuning_words.speed(results), plots["pareto"]) if "pareto" in plots else None,
        trials(results),
        Protocol(protocol(results), results.winner_recipe),
    ]
    return TuningPage(
        title=tuning_words.verdict(results),
        version=version,
        warnings=(),
        sections=tuple(section for section in found if section is not None),
        data=results.data,
        lead=tuning_words.gain(results),
        flattery=tuning_words.flattery(results),
    )


def gained(results: TuningResults, plots: Mapping[str, Plot]) -> Gained | None:
    """The comparison on fresh seeds; None where there is none."""
    if results.gain is None:
        return None
    objective = results.objective
    rows = tuple(
        Row(
            f"seed {each.seed}",
            (
                score_text(objective, each.start),
                score_text(objective, each.winner),
                score_difference(objective, each.winner - each.start),
            ),
        )
        for each in results.seeds
    )
    return Gained(tuning_words.cost(results), plots.get("fresh_seeds"), rows, results.start)


def changed(results: TuningResults) -> Changed | None:
    """The fields of the recipe in which the winner differs; None where it is the starting recipe."""
    start, winner = (_flat(tomllib.loads(text)) for text in (results.start_recipe, results.winner_recipe))
    hidden = ("name", "summary", "citation")
    rows = tuple(
        Row(name, (spell(start.get(name)), spell(winner.get(name))))
        for name in dict.fromkeys([*start, *winner])
        if name not in hidden and start.get(name) != winner.get(name)
    )
    return Changed(rows, results.start) if rows else None


def _flat(recipe: Mapping[str, object]) -> dict[str, object]:
    """A recipe's fields by section.field."""
    found: dict[str, object] = {}
    for section, content in recipe.items():
        if isinstance(content, dict):
            found |= {f"{section}.{name}": value for name, value in content.items()}
        else:
            found[section] = content
    return found


def finalists(results: TuningResults) -> tuple[Row, ...]:
    """The best trials, in the search and once more; () where there was one."""
    if len(results.finalists) < 2:
        return ()
    return tuple(
        Row(
            f"trial {each.number}",
            (
                score_text(results.objective, each.searched),
                NOTHING if each.again is None else score_text(results.objective, each.again),
            ),
            each.number == results.winner,
        )
        for each in results.finalists
    )


def trials(results: TuningResults) -> Trials:
    """The best trials with what they change."""
    best = sorted(results.trials, key=lambda each: (each.ending != "whole", -(each.score or -1e9)))[:SHOWN_TRIALS]
    headings = ("trial", "score", f"minus {results.start}", "folds", "epochs", "cost", "training", "changes")
    return Trials(headings, tuple(_trial(results, each) for each in best), len(results.trials))


def _trial(results: TuningResults, trial: TrialResult) -> Row:
    score = NOTHING if trial.score is None else score_text(results.objective, trial.score)
    against = NOTHING if trial.against_start is None else score_difference(results.objective, trial.against_start)
    ending = f"{trial.folds} of {results.folds}" if trial.ending in ("whole", "stopped") else trial.ending
    changes = ", ".join(
        f"{field.name} {value_text(trial.values[field.name])}"
        for field in results.fields
        if field.name in trial.values and trial.values[field.name] != field.start
    )
    cells = (
        score,
        against,
        ending,
        str(trial.epochs),
        f"{trial.cost:.2f}",
        duration(trial.seconds),
        changes or NOTHING,
    )
    return Row(str(trial.number), cells, trial.number == results.winner)


def value_text(value: float | int | str) -> str:
    """A parameter's value for people."""
    return value.strip('"') if isinstance(value, str) else f"{value:.3g}"


def protocol(results: TuningResults) -> tuple[str, ...]:
    """How the figures came about, a sentence each."""
    how = {
        "random": "every field was drawn anew for each trial",
        "tpe": "the first trials change some fields of the starting recipe at random, later ones some of the best "
        "trial's, to values that Optuna's tree-structured Parzen "
        "estimators propose",
    }[results.search]
    texts = [
        "The test images were not opened. Every figure here is out of fold: each training image is answered by a "
        "network that did not train on it.",
        f"A trial is a recipe, trained on {results.folds} folds of the {results.images:,} training images, the same "
        f"ones for every trial. Its score is the mean {tuning_words.NAMES[results.objective]} over the images.",
        f"The space is {results.space}, around the recipe {results.start}; {how}.",
    ]
    if results.prune == "folds":
        texts.append(
            "After the first fold, the second, and about half of them, a trial ends that is worse than the best one "
            "before it on the same images, by more than chance explains (one-sided, 10 % a look). Its score is then "
            "that of the trial it lost to plus the difference on the images that both have answered."
        )
    texts.append(
        f"Training a recipe costs at most {results.cost:g} times what the starting recipe's costs, counted in "
        "multiply-adds and optimiser steps: a wider network gets fewer epochs."
    )
    if len(results.finalists) > 1:
        texts.append(
            f"The best {len(results.finalists)} were trained once more on another seed, and the mean of both decided."
        )
    if results.seeds:
        texts.append(
            "The winner and the starting recipe were then trained on fresh seeds: other folds, weights and orders. "
            "These are still the images on which the fields were chosen; only the sealed test images, opened once at "
            "the very end, know nothing of it."
        )
    texts.append(
        "Importance is fANOVA's (Hutter, Hoos & Leyton-Brown 2014): a forest learns scores from values; the lines show "
        "the standard deviation over trials drawn with replacement. With a few dozen trials it is a hint."
    )
    if results.many_machines:
        texts.append("Several machines share this search; trials of others are among these.")
    return tuple(texts)
