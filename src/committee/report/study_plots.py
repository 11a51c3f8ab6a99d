"""Figures of a study: its rows in, a `matplotlib.figure.Figure` out; nothing is computed, saved or shown here."""

from __future__ import annotations

import math
from collections.abc import Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from committee.metrics.results import RepeatScore, RowResult
from committee.report.plots import ramp
from committee.report.style import (
    BLUE,
    LEGEND,
    OCHRE,
    VERMILION,
    accuracy_scale,
    count_axis,
    finish,
    label,
    legend,
    new_figure,
)


def row_accuracies(rows: Sequence[RowResult], *, published: bool) -> Figure:
    """The accuracy of every row of a study with its interval, committees' members, and published figures if asked for.

    An interval that goes far above all accuracies is cut there and ends in a tip, so that it does not stretch the axis.
    """
    longest = max(len(row.name) for row in rows)
    figure, axes = new_figure(max(6.0, min(11.0, 1.6 + 0.72 * len(rows))), 4.2 + 0.045 * longest, title="Accuracy")
    ceiling = 1 - 0.4 * (1 - _highest(rows, published=published))
    for x, row in enumerate(rows):
        if score := row.test or row.validation:
            _score(axes, x, score, row.member_test, ceiling)
        if published and row.published is not None:
            axes.plot([x + 0.2], [row.published], "D", color=VERMILION, mfc="white", ms=6, mew=1.5)
    axes.set_xticks(range(len(rows)), [label(row.name, number, 24) for number, row in enumerate(rows)],
                    rotation=38, ha="right", rotation_mode="anchor")  # fmt: skip
    axes.set_xlim(-0.6, len(rows) - 0.4)
    accuracy_scale(axes, _images(rows))
    handles = [Line2D([], [], ls="none", marker="o", color=BLUE, ms=7, label="measured, with 95 % interval")]
    if any(row.member_test for row in rows):
        handles.append(Line2D([], [], ls="none", marker="o", color=OCHRE, ms=4, label="the members alone"))
    if published and any(row.published is not None for row in rows):
        handles.append(Line2D([], [], ls="none", marker="D", color=VERMILION, mfc="white", ms=6, mew=1.5,
                              label="published"))  # fmt: skip
    legend(axes, handles)
    return finish(figure)


def _highest(rows: Sequence[RowResult], *, published: bool) -> float:
    """The highest accuracy that is drawn."""
    heights = [
        height
        for row in rows
        if (score := row.test or row.validation)
        for height in (score.mean, *row.member_test, row.published if published and row.published else 0.0)
    ]
    return max(heights, default=1.0)


def _images(rows: Sequence[RowResult]) -> int:
    """The most images that an accuracy rests on."""
    return max((score.images for row in rows if (score := row.test or row.validation)), default=1)


def _score(axes: Axes, x: int, score: RepeatScore, members: Sequence[float], ceiling: float) -> None:
    """The mean as a dot on its interval, and the members beside it."""
    low, high = score.interval.low, score.interval.high
    axes.plot([x, x], [low, min(high, ceiling)], color=BLUE, lw=5, alpha=0.28, solid_capstyle="round")
    if high > ceiling:
        axes.plot([x], [ceiling], "^", color=BLUE, ms=8, alpha=0.45, mew=0)
    if members:
        axes.plot([x - 0.16] * len(members), members, "o", color=OCHRE, ms=4, alpha=0.7)
    axes.plot([x], [score.mean], "o", color=BLUE, ms=8, mec="white", mew=1.1)


def learning_curves(rows: Sequence[RowResult]) -> Figure:
    """Validation and training accuracy of every model against epochs, its test accuracy as a line across."""
    drawn = [row for row in rows if row.curve and row.members == 1] or [row for row in rows if row.curve]
    figure, axes = new_figure(9.6, 5.4, title="Accuracy")
    handles = []
    for row, colour in zip(drawn, ramp(len(drawn)), strict=True):
        epochs = range(1, len(row.curve) + 1)
        train = [math.nan if value is None else value for value, _ in row.curve]
        validation = [math.nan if value is None else value for _, value in row.curve]
        marker = "." if len(row.curve) == 1 else ""
        axes.plot(epochs, train, color=colour, lw=1.0, ls=":", alpha=0.8, marker=marker)
        axes.plot(epochs, validation, color=colour, lw=1.8, marker=marker)
        if row.test:
            axes.axhline(row.test.mean, color=colour, lw=1.0, ls=(0, (5, 3)), alpha=0.8)
        handles.append(Line2D([], [], color=colour, lw=1.8, label=label(row.name, None, 24)))
    accuracy_scale(axes, _images(drawn))
    count_axis(axes, "epoch")
    figure.legend(handles=handles, loc="outside right upper", **LEGEND)
    return finish(figure)
