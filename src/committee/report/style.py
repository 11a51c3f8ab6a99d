"""How every figure looks: colours, type, axes, and names that come from data.

Blue is what was held out or is right, ochre is training, vermilion is errors; colour-blind readers tell them apart, and
in grey they differ by lightness. No pyplot and no global settings, so figures can be drawn in any thread.
"""

from __future__ import annotations

import math
import warnings
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator

INK, MUTED, RULE, PALE = "#22262e", "#686e79", "#d5d9df", "#f1f3f5"
BLUE, OCHRE, VERMILION = "#12608f", "#d49a2a", "#c44e1c"
ERRORS = LinearSegmentedColormap.from_list("errors", ["#fdf1e9", "#f3b78f", VERMILION, "#7d2a08"])
DIFFERENCES = LinearSegmentedColormap.from_list("differences", ["#f0f5f9", "#9cc3dc", BLUE])
RIGHT = LinearSegmentedColormap.from_list("right", ["#e3e8ed", "#e3e8ed"])
SMALL = (4.8, 3.5)
LEGEND: dict[str, Any] = {"loc": "upper right", "frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 1.6}

_TEXT_FONTS = ("Inter", "Source Sans 3", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
_MORE_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC"),
    *("Yu Gothic", "Microsoft YaHei", "IPAGothic", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans Devanagari"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Thai", "Noto Sans Symbols 2", "Arial Unicode MS"),
)


def label(name: str, number: int | None, width: int = 16) -> str:
    """A name from data for a figure: one line, at most `width` characters, never read as mathematics.

    A name that no installed font can draw becomes "class N", or "?" without a number.
    """
    text = " ".join(name.split())
    if not text or any(ord(character) not in _drawable() for character in text):
        text = "?" if number is None else f"class {number}"
    if len(text) > width:
        text = text[: width - 1].rstrip() + "…"
    return text.replace("$", r"\$")


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes; inches, at 100 of the page's pixels each. The title says what the heights are."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    style(axes, title)
    return figure, axes


def style(axes: Axes, title: str) -> None:
    """Quiet axes: horizontal rules, no box, the title small and on the left."""
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=MUTED, pad=8)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=MUTED, labelsize=9, length=0, pad=5, labelfontfamily=list(_families()))
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.grid(visible=True, axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)


def rows_style(axes: Axes) -> None:
    """Axes whose heights are a list of names, with vertical rules."""
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=RULE, lw=0.7)


def bare(axes: Axes) -> None:
    """Axes of which only the names on the left are seen."""
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(axis="y", labelcolor=INK, length=0)


def finish(figure: Figure) -> Figure:
    """The last step of every figure: its type."""
    for text in figure.findobj(Text):
        text.set_fontfamily(list(_families()))
    return figure


def save(figure: Figure, path: Path) -> Path:
    """Write a figure as PNG, at two pixels for each of the page's."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(path, dpi=200, metadata={"Software": None})
    return path


def percent_axis(axis: Any, ticks: int) -> None:
    """Fractions shown as percentages."""
    axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def count_axis(axes: Axes, name: str) -> None:
    """Whole numbers along the bottom."""
    axes.set_xlabel(name)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8))


def loss_scale(axes: Axes) -> None:
    """Losses on a logarithmic scale with round numbers."""
    axes.set_yscale("log")
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator(round_ticks(*axes.get_ylim())))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def accuracy_scale(axes: Axes) -> None:
    """Accuracies on a scale on which halving the errors is always the same distance."""
    heights = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata()) if math.isfinite(y)]
    floor = 1e-4
    errors = [max(1 - y, floor) for y in heights] or [0.1, 1.0]
    least, most = min(errors) / 1.3, min(max(errors) * 1.25, 1.0)
    axes.set_yscale(
        "function", functions=(lambda y: -np.log10(np.maximum(1 - y, floor / 4)), lambda v: 1 - 10.0 ** (-v))
    )
    axes.set_ylim(1 - most, 1 - least)
    axes.yaxis.set_minor_locator(NullLocator())
    axes.yaxis.set_major_locator(FixedLocator([1 - tick for tick in round_ticks(least, most)]))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.4g} %"))


def round_ticks(low: float, high: float) -> list[float]:
    """Four to eight round numbers between two positive ones, about evenly spread on a logarithmic axis."""
    decades = range(math.floor(math.log10(low)) - 1, math.ceil(math.log10(high)) + 1)
    ticks: list[float] = []
    for steps in ((1,), (1, 3), (1, 2, 5), (1, 1.5, 2, 3, 4, 5, 7), tuple(i / 10 for i in range(10, 100))):
        ticks = [round(step * 10.0**decade, 12) for decade in decades for step in steps]
        ticks = [tick for tick in ticks if low <= tick <= high]
        if len(ticks) >= 4:
            break
    return ticks[:: max(1, math.ceil(len(ticks) / 8))]


@lru_cache(maxsize=1)
def _families() -> tuple[str, ...]:
    installed = set(font_manager.get_font_names())
    first = next(name for name in _TEXT_FONTS if name in installed)
    return (first, *(name for name in _MORE_FONTS if name in installed and name != first))


@lru_cache(maxsize=1)
def _drawable() -> frozenset[int]:
    fonts = (font_manager.get_font(font_manager.findfont(name)) for name in _families())
    return frozenset(code for font in fonts for code in font.get_charmap())
