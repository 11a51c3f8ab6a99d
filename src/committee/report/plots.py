"""Figures: rows of a table in, a `matplotlib.figure.Figure` out; nothing is computed, saved or shown here."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, NullLocator
from numpy.typing import NDArray

from committee.folders.records import EpochRecord
from committee.metrics.conformal import AnsweredShare
from committee.metrics.error_analysis import ConfusedPair
from committee.metrics.formatting import percent
from committee.metrics.results import ClassRow, Interval, ReliabilityBin, SizePoint
from committee.report.style import (
    BLUE,
    DIFFERENCES,
    ERRORS,
    INK,
    LEGEND,
    MUTED,
    OCHRE,
    PALE,
    RIGHT,
    RULE,
    SMALL,
    VERMILION,
    accuracy_scale,
    count_axis,
    finish,
    label,
    legend,
    loss_scale,
    new_figure,
    percent_axis,
    plain_axis,
    rows_style,
    style,
)

History = Sequence[EpochRecord]
Curve = Sequence[tuple[float, float]]
"""A learning rate: (epochs done, learning rate)."""
Colour = str | tuple[float, float, float, float]
Field = Literal["train_loss", "validation_loss", "validation_accuracy"]
viridis = colormaps["viridis"]


def loss_curves(histories: Sequence[History], best_epochs: Sequence[int | None]) -> Figure:
    """Training and validation loss of every member against epochs, with a dot at the epoch whose weights were kept."""
    figure, axes = new_figure(*SMALL, title="Loss in nats")
    dotted: Field = (
        "validation_loss" if any(_has(history, "validation_loss") for history in histories) else "train_loss"
    )
    for history, best in zip(histories, best_epochs, strict=True):
        _curve(axes, history, "train_loss", len(histories))
        _curve(axes, history, "validation_loss", len(histories))
        _dot(axes, history, dotted, best)
    loss_scale(axes)
    count_axis(axes, "epoch")
    handles = [_line_handle(OCHRE, "training")]
    if dotted == "validation_loss":
        handles.append(_line_handle(BLUE, "validation"))
    legend(axes, [*handles, _best_handle(dotted)])
    return finish(figure)


def accuracy_curves(
    histories: Sequence[History], best_epochs: Sequence[int | None], out_of_fold: float | None, images: int
) -> Figure:
    """Validation accuracy of every member against epochs, with the committee's out-of-fold accuracy as a line.

    The scale ends where half an error among `images` would be.
    """
    figure, axes = new_figure(*SMALL, title="Validation accuracy")
    for history, best in zip(histories, best_epochs, strict=True):
        _curve(axes, history, "validation_accuracy", len(histories))
        _dot(axes, history, "validation_accuracy", best)
    handles = [_line_handle(BLUE, "a member"), _best_handle("validation_accuracy")]
    if out_of_fold is not None:
        axes.axhline(out_of_fold, color=INK, lw=1.1, ls=(0, (5, 3)), zorder=4)
        handles.append(Line2D([], [], color=INK, lw=1.1, ls=(0, (5, 3)), label="committee, out of fold"))
    accuracy_scale(axes, images)
    count_axis(axes, "epoch")
    legend(axes, handles)
    return finish(figure)


def member_accuracies(members: Sequence[float], committee: float, interval: Interval, title: str) -> Figure:
    """Each member's accuracy as a dot, the committee's with its interval, on one line each."""
    figure, axes = new_figure(4.8, 1.75, title=title)
    axes.plot([interval.low, interval.high], [0, 0], color=BLUE, lw=5, alpha=0.28, solid_capstyle="round")
    axes.plot([committee], [0], "o", color=BLUE, ms=9, mec="white", mew=1.2)
    names = ["committee"]
    if members:
        axes.plot(members, [1] * len(members), "o", color=OCHRE, ms=7.5, alpha=0.65, mec="white", mew=0.8)
        names.append("members" if len(members) > 1 else "member")
    axes.set_ylim(-0.55, len(names) - 0.45)
    axes.set_yticks(range(len(names)), names)
    rows_style(axes)
    percent_axis(axes.xaxis, 5)
    return finish(figure)


def size_accuracy(curves: Mapping[str, Sequence[SizePoint]]) -> Figure:
    """Accuracy against the number of members: the mean over subsets, and a band from the lowest to the highest."""
    figure, axes = new_figure(*SMALL, title="Accuracy")
    for (name, points), (colour, marker) in zip(curves.items(), _PARTS, strict=False):
        x = [point.members for point in points]
        low, high = [point.accuracy_low for point in points], [point.accuracy_high for point in points]
        axes.fill_between(x, low, high, color=colour, alpha=0.13, lw=0)
        axes.plot(x, [point.accuracy for point in points], color=colour, lw=1.8, marker=marker, ms=5, label=name)
    percent_axis(axes.yaxis, 6)
    count_axis(axes, "members in the committee")
    legend(axes)
    return finish(figure)


def size_loss(curves: Mapping[str, Sequence[SizePoint]]) -> Figure:
    """Log-loss against the number of members, mean over subsets."""
    figure, axes = new_figure(*SMALL, title="Log-loss in nats")
    for (name, points), (colour, marker) in zip(curves.items(), _PARTS, strict=False):
        losses = [point.log_loss for point in points]
        axes.plot([point.members for point in points], losses, color=colour, lw=1.8, marker=marker, ms=5, label=name)
    plain_axis(axes.yaxis, 6)
    count_axis(axes, "members in the committee")
    legend(axes)
    return finish(figure)


def answered(curves: Mapping[str, Sequence[AnsweredShare]]) -> Figure:
    """Accuracy, with its interval, against the share of images that are answered, the most certain ones."""
    figure, axes = new_figure(4.8, 3.4, "Accuracy of the answers")
    for colour, (name, points) in zip((BLUE, MUTED), curves.items(), strict=False):
        shares = [point.share for point in points]
        axes.fill_between(
            shares, [p.interval.low for p in points], [p.interval.high for p in points], color=colour, alpha=0.15, lw=0
        )
        axes.plot(shares, [point.accuracy for point in points], color=colour, lw=1.8, label=name)
    axes.set_xlabel("share of images answered, the most certain first")
    for axis in (axes.xaxis, axes.yaxis):
        percent_axis(axis, 6)
    axes.set_xlim(0, 1.012)
    shown = [p.interval.low for points in curves.values() for p in points if p.share > 0.15 or p is points[-1]]
    axes.set_ylim(min(shown) - 0.1 * (1 - min(shown)), 1.0 + 0.04 * (1 - min(shown)))  # few answers: wide intervals
    axes.legend(frameon=False, loc="lower left")
    return finish(figure)


def learning_rates(lines: Mapping[str, Curve], width: float = 4.8) -> Figure:
    """The learning rate against epochs on a logarithmic scale; a learning rate of 0 is not drawn."""
    figure, axes = new_figure(width, 3.5 if width < 6 else 3.2, title="Learning rate (log scale)")
    handles = []
    for (name, line), colour in zip(lines.items(), ramp(len(lines)), strict=True):
        above = [(epoch, lr) for epoch, lr in line if lr > 0]
        axes.plot([epoch for epoch, _ in above], [lr for _, lr in above], color=colour, lw=1.6)
        handles.append(Line2D([], [], color=colour, lw=1.8, label=label(name, None, 24)))
    loss_scale(axes)
    count_axis(axes, "epochs done")
    if len(lines) > 1:
        figure.legend(handles=handles, loc="outside right upper", **LEGEND)
    return finish(figure)


def ramp(number: int) -> list[Colour]:
    """Colours for lines that have an order: few are far apart, many run from dark to light."""
    if number <= len(_LINES):
        return list(_LINES[:number])
    return [viridis(0.95 * place / (number - 1)) for place in range(number)]


def reliability(rows: Sequence[tuple[ReliabilityBin, Interval]]) -> Figure:
    """Accuracy, with its interval, against confidence in each bin, and how many images a bin has."""
    figure = Figure(figsize=(4.8, 4.6), layout="constrained", facecolor="white")
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3.4, 1])
    for axes, title in ((upper, "Accuracy"), (lower, "Images (log scale)")):
        style(axes, title)
    start = min(0.5, *(math.floor(10 * r.low) / 10 for r, _ in rows)) if rows else 0.0
    upper.plot([start, 1], [start, 1], color=MUTED, lw=1, ls=(0, (4, 3)))
    for row, interval in rows:
        upper.plot([row.confidence] * 2, [interval.low, interval.high], color=BLUE, lw=1.4, alpha=0.45)
    upper.plot(
        [r.confidence for r, _ in rows], [r.accuracy for r, _ in rows], "o", color=BLUE, ms=6, mec="white", mew=0.8
    )
    lower.bar([r.low for r, _ in rows], [r.images for r, _ in rows], [0.92 * (r.high - r.low) for r, _ in rows],
              align="edge", color=BLUE, alpha=0.55)  # fmt: skip
    lower.set_yscale("log")
    lower.yaxis.set_minor_locator(NullLocator())
    lower.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    lower.set_ylim(bottom=0.7)
    upper.set_xlim(start, 1.012)
    upper.set_ylim(-0.02, 1.03)
    for axis in (upper.yaxis, upper.xaxis):
        percent_axis(axis, 6)
    lower.set_xlabel("confidence: probability of the predicted class")
    return finish(figure)


def confusion(matrix: Sequence[Sequence[int]], class_names: Sequence[str]) -> Figure:
    """Counts by true (row) and predicted class (column); errors coloured by their share of the row, the others grey.

    Counts are written up to 60 classes, the recall of each class up to 25.
    """
    counts = np.array(matrix, dtype=np.int64)
    n = len(counts)
    names = [label(name, number, 14) for number, name in enumerate(class_names)]
    longest = max(map(len, names))
    side = min(12.0, max(5.2, 0.46 * n + 0.075 * longest + 0.8)) if n <= 20 else min(13.0, 4.2 + 0.19 * n)
    cell = 72 * (side - 1.3) / n  # points
    figure, axes = new_figure(side, 0.97 * side, title="")
    diagonal = np.eye(n, dtype=bool)
    shares = np.ma.masked_where(diagonal | (counts == 0), counts / np.maximum(counts.sum(axis=1, keepdims=True), 1))
    axes.imshow(np.where(diagonal, 1.0, np.nan), cmap=RIGHT)
    axes.imshow(shares, cmap=ERRORS, vmin=0, vmax=float(shares.max()) if shares.count() else 1.0,
                interpolation="nearest")  # fmt: skip
    if n <= 60:
        _write_counts(axes, counts, shares, cell)
    if n <= 25:
        _write_recalls(axes, counts, cell)
    _matrix_axes(axes, names, cell, turned=longest * _tick_size(cell) * 0.55 > 0.95 * cell)
    return finish(figure)


def _write_counts(
    axes: Axes, counts: NDArray[np.int64], shares: np.ma.MaskedArray[Any, np.dtype[np.float64]], cell: float
) -> None:
    """The count in every cell that has one; white where the cell is dark."""
    n, most = len(counts), float(shares.max()) if shares.count() else 1.0
    for row, column in zip(*np.nonzero(counts), strict=True):
        text = f"{counts[row, column]:,}" if n <= 20 else f"{counts[row, column]}"
        dark = row != column and shares[row, column] > 0.5 * most
        size = min(10.0, 0.34 * cell, 1.5 * cell / len(text))
        axes.text(column, row, text, ha="center", va="center", fontsize=size, color="white" if dark else INK)


def _write_recalls(axes: Axes, counts: NDArray[np.int64], cell: float) -> None:
    """The share of each row that is predicted correctly, to the right of it."""
    n, size = len(counts), min(9.0, 0.34 * cell)
    axes.text(n - 0.35, -0.8, "recall", va="center", fontsize=size, color=MUTED)
    for row in range(n):
        if counts[row].any():
            text = percent(float(counts[row, row] / counts[row].sum()), 1)
            axes.text(n - 0.35, row, text, va="center", fontsize=size, color=MUTED)


def _tick_size(cell: float) -> float:
    return min(10.0, max(5.0, 0.42 * cell))


def _matrix_axes(axes: Axes, names: Sequence[str], cell: float, *, turned: bool) -> None:
    """Classes along both axes, with pale lines between the cells."""
    n = len(names)
    ticks = range(n) if n <= 60 else range(0, n, math.ceil(n / 40))
    shown = [names[tick] for tick in ticks]
    axes.set_xticks(ticks, shown, rotation=90 if turned else 0, fontsize=_tick_size(cell))
    axes.set_yticks(ticks, shown, fontsize=_tick_size(cell))
    axes.tick_params(length=0, labelcolor=INK)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.grid(visible=False)
    axes.set_xticks(np.arange(n + 1) - 0.5, minor=True)
    axes.set_yticks(np.arange(n + 1) - 0.5, minor=True)
    axes.grid(visible=True, which="minor", color=PALE, lw=0.8)
    axes.tick_params(which="minor", length=0)
    axes.spines[:].set_visible(False)


def pairs(rows: Sequence[ConfusedPair]) -> Figure:
    """The most confused pairs of classes, as bars with the number of images and their share of the true class."""
    figure, axes = new_figure(4.8, 0.6 + 0.33 * max(len(rows), 1), title="Images of one class predicted as another")
    names = [f"{label(row.true, None, 16)} → {label(row.predicted, None, 16)}" for row in rows]
    axes.barh(range(len(rows)), [row.images for row in rows], color=VERMILION, alpha=0.8, height=0.62)
    for place, row in enumerate(rows):
        axes.annotate(f"{row.images:,}  ({100 * row.share:.1f} %)", (row.images, place), (5, 0), va="center",
                      textcoords="offset points", fontsize=9, color=INK)  # fmt: skip
    axes.set_yticks(range(len(rows)), names)
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK, length=0)
    axes.set_xlim(0, 1.28 * max((row.images for row in rows), default=1))
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.invert_yaxis()
    return finish(figure)


def agreement(matrix: Sequence[Sequence[float | None]], labels: Sequence[str]) -> Figure:
    """The percentage of images for which two members predict different classes."""
    shares = np.array([[math.nan if share is None else share for share in row] for row in matrix], dtype=np.float64)
    n = len(shares)
    below = np.tril(np.ones((n, n), dtype=bool), -1)
    differ = np.ma.masked_where(~below | np.isnan(shares), 100 * (1 - shares))
    decimals = 0 if differ.count() and float(differ.max()) >= 10 else 1
    side = min(4.8, 1.6 + 0.42 * n)
    figure, axes = new_figure(max(side, 3.0), 0.9 * side, title="Images on which two members differ, %")
    axes.imshow(differ, cmap=DIFFERENCES, vmin=0, vmax=max(float(differ.max()), 1e-9) if differ.count() else 1)
    if n <= 16:
        for row, column in zip(*np.nonzero(below), strict=True):
            known = not np.ma.getmaskarray(differ)[row, column]
            text = f"{differ[row, column]:.{decimals}f}" if known else "–"
            dark = known and differ[row, column] > 0.6 * differ.max()
            axes.text(column, row, text, ha="center", va="center", fontsize=min(9, 90 / n),
                      color="white" if dark else INK if known else MUTED)  # fmt: skip
    step = max(1, math.ceil(n / 16))
    axes.set_xticks(range(0, n - 1, step), labels[:-1:step])
    axes.set_yticks(range(1, n, step), labels[1::step])
    axes.set_xlim(-0.5, n - 1.5)
    axes.set_ylim(n - 0.5, 0.5)
    axes.set_xlabel("member")
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    return finish(figure)


def classes(rows: Sequence[ClassRow]) -> Figure:
    """Precision and recall of each class, as two dots on a line."""
    figure, axes = new_figure(4.8, 0.9 + 0.26 * len(rows), title="Precision and recall of each class")
    for place, row in enumerate(rows):
        if row.precision is not None and row.recall is not None:
            axes.plot([row.precision, row.recall], [place] * 2, color=RULE, lw=2.5, zorder=1, solid_capstyle="round")
    for field, colour, marker in (("recall", BLUE, "o"), ("precision", OCHRE, "D")):
        known = [(getattr(row, field), place) for place, row in enumerate(rows) if getattr(row, field) is not None]
        axes.plot([value for value, _ in known], [place for _, place in known], marker, color=colour,
                  ms=6.5 if marker == "o" else 5.2, mec="white", mew=0.7, label=field, ls="none")  # fmt: skip
    axes.set_yticks(range(len(rows)), [label(row.name, number, 18) for number, row in enumerate(rows)])
    rows_style(axes)
    axes.set_ylim(len(rows) - 0.4, -0.6)
    percent_axis(axes.xaxis, 5)
    legend(axes)
    return finish(figure)


_PARTS = ((BLUE, "o"), (OCHRE, "D"))
_LINES = (BLUE, OCHRE, VERMILION, "#3f8f6b", "#7d4f9e", INK)


def _has(history: History, field: Field) -> bool:
    return any(getattr(epoch, field) is not None for epoch in history)


def _value(epoch: EpochRecord, field: Field) -> float:
    value: float | None = getattr(epoch, field)
    return math.nan if value is None or not math.isfinite(value) else value


def _colour(field: Field) -> str:
    return OCHRE if field == "train_loss" else BLUE


def _curve(axes: Axes, history: History, field: Field, members: int) -> None:
    epochs, values = [epoch.epoch for epoch in history], [_value(epoch, field) for epoch in history]
    if any(map(math.isfinite, values)):
        few = members <= 2
        width, alpha, marker = 1.8 if few else 1.1, 1 if few else 0.6, "." if len(epochs) == 1 else ""
        axes.plot(epochs, values, color=_colour(field), lw=width, alpha=alpha, marker=marker)


def _dot(axes: Axes, history: History, field: Field, best: int | None) -> None:
    for epoch in history:
        if epoch.epoch == best and math.isfinite(_value(epoch, field)):
            axes.plot([best], [_value(epoch, field)], "o", color=_colour(field), ms=6, mec="white", mew=0.9, zorder=5)


def _line_handle(colour: str, text: str) -> Line2D:
    return Line2D([], [], color=colour, lw=1.8, label=text)


def _best_handle(field: Field) -> Line2D:
    return Line2D([], [], ls="none", marker="o", color=_colour(field), ms=6, mec="white", mew=0.9, label="weights kept")
