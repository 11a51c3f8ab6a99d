"""Figures of a search: its results in, a `matplotlib.figure.Figure` out; nothing is computed, saved or shown here."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, MaxNLocator

from committee.metrics.tuning import FieldResult, ObjectiveName, SeedScores, TrialResult, TuningResults
from committee.report.style import (
    BLUE,
    INK,
    MUTED,
    OCHRE,
    RULE,
    VERMILION,
    count_axis,
    finish,
    label,
    legend,
    new_figure,
    rows_style,
    style,
)

SHOWN_FIELDS = 8
JITTER = 0.18


def history(results: TuningResults) -> Figure:
    """The score of every trial in the order of the search, and the best one so far."""
    figure, axes = new_figure(9.6, 4.6, title=_title(results.objective))
    scored = [trial for trial in results.trials if trial.score is not None]
    best, line = -math.inf, []
    for trial in scored:
        if trial.ending == "whole":
            best = max(best, _height(results, trial))
        line.append((trial.number, best))
    axes.step([x for x, _ in line], [y for _, y in line], where="post", color=BLUE, lw=1.4, alpha=0.6)
    _dots(axes, results, [trial for trial in scored if trial.ending != "whole"], "o", OCHRE, hollow=True)
    _dots(axes, results, [trial for trial in scored if trial.ending == "whole"], "o", BLUE)
    _dots(axes, results, [trial for trial in scored if trial.number == results.winner], "D", VERMILION)
    start = _height(results, scored[0])
    axes.axhline(start, color=MUTED, lw=1, ls=(0, (5, 3)))
    _focus(axes, [_height(results, trial) for trial in scored])
    _score_axis(axes.yaxis, results.objective)
    count_axis(axes, "trial")
    handles = [
        Line2D([], [], ls="none", marker="o", color=BLUE, ms=6, label="trained on all folds"),
        Line2D([], [], ls="none", marker="o", color=OCHRE, mfc="white", ms=6, label="stopped early"),
        Line2D([], [], ls="none", marker="D", color=VERMILION, ms=6, label="winner"),
        Line2D([], [], color=MUTED, lw=1, ls=(0, (5, 3)), label="starting recipe"),
    ]
    legend(axes, handles)
    return finish(figure)


def importances(fields: Sequence[FieldResult]) -> Figure:
    """Each parameter's share of the scores' variance, with its spread."""
    shown = [field for field in fields if field.importance is not None][::-1]
    figure, axes = new_figure(6.4, 1.1 + 0.27 * len(shown), title="")
    rows_style(axes)
    for y, field in enumerate(shown):
        share, spread = field.importance or 0.0, field.spread or 0.0
        axes.barh([y], [share], height=0.62, color=BLUE, alpha=0.75)
        axes.plot([max(share - spread, 0), share + spread], [y, y], color=INK, lw=1.1)
    axes.set_yticks(range(len(shown)), [label(field.name, None, 32) for field in shown])
    axes.set_ylim(-0.6, len(shown) - 0.4)
    axes.set_xlim(left=0)
    axes.xaxis.set_major_locator(MaxNLocator(5))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axes.set_xlabel("share of the scores' variance")
    return finish(figure)


def slices(results: TuningResults) -> Figure:
    """Scores against the values of the most important parameters, one after the other."""
    fields = results.fields[:SHOWN_FIELDS]
    columns = min(len(fields), 4)
    rows = math.ceil(len(fields) / columns)
    figure = Figure(figsize=(9.6, 0.4 + 2.5 * rows), layout="constrained", facecolor="white")
    scored = [trial for trial in results.trials if trial.score is not None and trial.values]
    heights = [_height(results, trial) for trial in scored]
    for place, field in enumerate(fields):
        axes = figure.add_subplot(rows, columns, place + 1)
        style(axes, label(field.name, None, 30))
        _slice(axes, results, field, scored)
        _focus(axes, heights)
        _score_axis(axes.yaxis, results.objective)
        if place % columns:
            axes.tick_params(labelleft=False)
    return finish(figure)


def fresh_seeds(results: TuningResults) -> Figure:
    """The starting recipe and the winner on each fresh seed."""
    seeds = results.seeds
    figure, axes = new_figure(5.2, 1.5 + 0.42 * (len(seeds) + 1), title="")
    rows_style(axes)
    mean = SeedScores(
        seed=-1,
        start=sum(each.start for each in seeds) / len(seeds),
        winner=sum(each.winner for each in seeds) / len(seeds),
    )
    for y, each in enumerate([mean, *seeds[::-1]]):
        low, high = (_turned(results.objective, value) for value in (each.start, each.winner))
        axes.plot([low, high], [y, y], color=RULE, lw=3, solid_capstyle="round", zorder=1)
        size = 9 if each is mean else 6.5
        axes.plot([low], [y], "o", color=OCHRE, ms=size, zorder=2)
        axes.plot([high], [y], "o", color=BLUE, ms=size, zorder=3)
    names = ["mean", *(f"seed {each.seed}" for each in seeds[::-1])]
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
    _score_axis(axes.xaxis, results.objective)
    legend(axes, [
        Line2D([], [], ls="none", marker="o", color=OCHRE, ms=7, label=label(results.start, None, 24)),
        Line2D([], [], ls="none", marker="o", color=BLUE, ms=7, label="winner"),
    ])  # fmt: skip
    return finish(figure)


def pareto(results: TuningResults) -> Figure:
    """Scores against the time for one image; the front of those that no trial beats in both, and the limit."""
    figure, axes = new_figure(6.4, 4.4, title=_title(results.objective))
    timed = [trial for trial in results.trials if trial.milliseconds and trial.score is not None]
    for trial in timed:
        is_winner, is_start = trial.number == results.winner, trial is results.trials[0]
        colour = VERMILION if is_winner else OCHRE if is_start else BLUE
        filled = colour if trial.ending in ("whole", "too slow") else "white"
        marker = "D" if is_winner else "s" if is_start else "o"
        axes.plot([trial.milliseconds or 0.0], [_height(results, trial)], marker, color=colour, mfc=filled, ms=6)
    front, best = [], -math.inf
    for trial in sorted((each for each in timed if each.ending != "stopped"), key=lambda each: each.milliseconds or 0):
        if (trial.score or 0.0) > best:
            best = trial.score or 0.0
            front.append((trial.milliseconds or 0.0, _height(results, trial)))
    axes.step([x for x, _ in front], [y for _, y in front], where="post", color=BLUE, lw=1.2, alpha=0.6)
    if results.latency_limit:
        axes.axvline(results.latency_limit, color=VERMILION, lw=1, ls=(0, (5, 3)))
    _focus(axes, [_height(results, trial) for trial in timed])
    _score_axis(axes.yaxis, results.objective)
    axes.set_xlabel("milliseconds for one image")
    legend(axes, [
        Line2D([], [], ls="none", marker="o", color=BLUE, ms=6, label="trial"),
        Line2D([], [], ls="none", marker="s", color=OCHRE, ms=6, label="starting recipe"),
        Line2D([], [], ls="none", marker="D", color=VERMILION, ms=6, label="winner"),
        Line2D([], [], color=VERMILION, lw=1, ls=(0, (5, 3)), label="limit"),
    ])  # fmt: skip
    return finish(figure)


def _title(objective: ObjectiveName) -> str:
    """What the vertical axis shows."""
    return {"log-loss": "Log-loss in nats", "auc": "Area under the ROC curve"}.get(
        objective, objective.replace("-", " ").capitalize()
    ) + ", out of fold"


def _turned(objective: ObjectiveName, score: float) -> float:
    """A score as it is drawn: a log-loss with its own sign."""
    return -score if objective == "log-loss" else score


def _height(results: TuningResults, trial: TrialResult) -> float:
    """A trial's score as it is drawn, and as it decides; where it has none, NaN."""
    return math.nan if trial.score is None else trial.score


def _score_axis(axis: object, objective: ObjectiveName) -> None:
    """Scores as percentages, or as log-losses, whose axis grows downwards."""
    from matplotlib.axis import Axis

    assert isinstance(axis, Axis)
    axis.set_major_locator(MaxNLocator(5, steps=[1, 2, 2.5, 5, 10]))
    if objective == "log-loss":
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{abs(value):.3g}"))
    else:
        axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def _focus(axes: Axes, heights: Sequence[float]) -> None:
    """Show the better half at length: hopeless trials are drawn at the bottom edge."""
    best, middle = max(heights), float(np.median(heights))
    room = max(best - middle, 1e-6)
    bottom = max(min(heights), best - 3.0 * room)
    axes.set_ylim(bottom - 0.06 * (best - bottom + 1e-9), best + 0.12 * (best - bottom + 1e-9))
    for line in axes.get_lines():
        if line.get_marker() not in ("None", None, ""):
            drawn = np.asarray(line.get_ydata(), dtype=float)
            line.set_ydata(np.maximum(drawn, bottom))
            line.set_clip_on(False)


def _dots(axes: Axes, results: TuningResults, trials: Sequence[TrialResult], marker: str, colour: str, *,
          hollow: bool = False) -> None:  # fmt: skip
    axes.plot(
        [trial.number for trial in trials],
        [_height(results, trial) for trial in trials],
        marker,
        color=colour,
        mfc="white" if hollow else colour,
        ms=6,
        ls="none",
    )


def _slice(axes: Axes, results: TuningResults, field: FieldResult, scored: Sequence[TrialResult]) -> None:
    """A parameter's values against scores; names get a column each, their dots beside each other."""
    numbers = all(isinstance(trial.values[field.name], int | float) for trial in scored)
    names: list[str] = [] if numbers else sorted({str(trial.values[field.name]) for trial in scored})
    for trial in scored:
        value = trial.values[field.name]
        x = float(value) if numbers else names.index(str(value)) + JITTER * math.sin(7.0 * trial.number)
        colour = VERMILION if trial.number == results.winner else BLUE if trial.ending == "whole" else OCHRE
        marker = "D" if trial.number == results.winner else "o"
        filled = "white" if trial.ending != "whole" else colour
        axes.plot([x], [_height(results, trial)], marker, color=colour, mfc=filled, ms=4.5)
    if numbers:
        values = [float(trial.values[field.name]) for trial in scored]
        if min(values) > 0 and max(values) / min(values) > 30:
            axes.set_xscale("log")
        else:
            axes.xaxis.set_major_locator(MaxNLocator(4))
    else:
        axes.set_xlim(-0.6, len(names) - 0.4)
        axes.set_xticks(range(len(names)), [label(name.strip('"'), None, 14) for name in names],
                        rotation=30, ha="right", rotation_mode="anchor", fontsize=8)  # fmt: skip
