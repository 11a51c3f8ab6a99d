"""How every figure looks: colours, typeface, axes, and names that come from data.

Blue is validation, test and correct predictions, ochre is training, vermilion is errors: colours that colour-blind
readers can tell apart and that differ in lightness when printed in grey. There is no pyplot and no global setting, so
figures can be drawn in any thread.
"""

from __future__ import annotations

import io
import math
import warnings
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.text import Text
from matplotlib.ticker import FixedLocator, FuncFormatter, MaxNLocator, NullLocator, ScalarFormatter
from numpy.typing import NDArray

from committee.names import visible

INK, MUTED, RULE, PALE = "#22262e", "#686e79", "#d5d9df", "#f1f3f5"
BLUE, OCHRE, VERMILION = "#12608f", "#d49a2a", "#c44e1c"
ERRORS = LinearSegmentedColormap.from_list("errors", ["#fdf1e9", "#f3b78f", VERMILION, "#7d2a08"])
DIFFERENCES = LinearSegmentedColormap.from_list("differences", ["#f0f5f9", "#9cc3dc", BLUE])
RIGHT = LinearSegmentedColormap.from_list("right", ["#e3e8ed", "#e3e8ed"])
SMALL = (4.8, 3.5)
DPI = 200  # two pixels for each pixel of the page
LEGEND: dict[str, Any] = {"frameon": False, "fontsize": 9, "labelcolor": INK, "handlelength": 1.6}

_TEXT_FONTS = ("Inter", "Source Sans 3", "Helvetica Neue", "Arial", "Liberation Sans", "DejaVu Sans")
_MORE_FONTS = (
    *("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Source Han Sans", "Hiragino Sans", "PingFang SC"),
    *("Yu Gothic", "Microsoft YaHei", "IPAGothic", "WenQuanYi Zen Hei", "Droid Sans Fallback", "Noto Sans Devanagari"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Thai", "Noto Sans Symbols 2", "Arial Unicode MS"),
)


def label(name: str, number: int | None, width: int = 16) -> str:
    """A name from data for a figure: one line, at most `width` characters, never read as mathematics.

    Hidden characters are `visible`. A name that no installed font can draw becomes "class N", or "?" without a number.
    """
    text = visible(" ".join(name.split()))
    if not text or not drawable(text):
        text = "?" if number is None else f"class {number}"
    if len(text) > width:
        text = text[: width - 1].rstrip() + "…"
    return text.replace("$", r"\$")


def drawable(name: str) -> bool:
    """Whether the installed fonts have every character of a name."""
    return all(ord(character) in _drawable() for character in visible(" ".join(name.split())))


def new_figure(width: float, height: float, title: str) -> tuple[Figure, Axes]:
    """A figure with one pair of axes, in inches of 100 page pixels each; the title names the vertical axis."""
    figure = Figure(figsize=(width, height), layout="constrained", facecolor="white")
    axes = figure.add_subplot()
    style(axes, title)
    return figure, axes


def style(axes: Axes, title: str) -> None:
    """Quiet axes: horizontal rules, no box, the title small and on the left."""
    if title:
        axes.set_title(title, loc="left", fontsize=10, color=MUTED, pad=8, parse_math=False)
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.spines["bottom"].set_color(RULE)
    axes.tick_params(colors=MUTED, labelsize=9, length=0, pad=5, labelfontfamily=list(_families()))
    axes.xaxis.label.set_color(MUTED)
    axes.yaxis.label.set_color(MUTED)
    axes.grid(visible=True, axis="y", color=RULE, lw=0.7)
    axes.set_axisbelow(True)


def rows_style(axes: Axes) -> None:
    """Axes with a list of names on the left, and vertical rules."""
    axes.tick_params(axis="y", labelsize=9.5, labelcolor=INK, length=0)
    axes.grid(visible=False, axis="y")
    axes.grid(visible=True, axis="x", color=RULE, lw=0.7)


def bare(axes: Axes) -> None:
    """Axes that show only the names on the left."""
    axes.set_xticks([])
    axes.spines[:].set_visible(False)
    axes.grid(visible=False)
    axes.tick_params(axis="y", labelcolor=INK, length=0)


def legend(axes: Axes, handles: Sequence[Any] | None = None) -> None:
    """A legend in a line below the axes, where it covers nothing."""
    figure = axes.get_figure()
    shown = handles if handles is not None else axes.get_legend_handles_labels()[0]
    if isinstance(figure, Figure) and shown:
        figure.legend(handles=shown, loc="outside lower center", ncols=len(shown), columnspacing=1.4, **LEGEND)


def finish(figure: Figure) -> Figure:
    """The last step of every figure: its typeface."""
    for text in figure.findobj(Text):
        text.set_fontfamily(list(_families()))
    return figure


def as_png(figure: Figure) -> bytes:
    """A figure as a PNG file, at two pixels for each pixel of the page."""
    content = io.BytesIO()
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        figure.savefig(content, format="png", dpi=DPI, metadata={"Software": None})
    return content.getvalue()


def plain_axis(axis: Any, ticks: int) -> None:
    """Numbers written out, without a factor or an offset beside the axis."""
    axis.set_major_locator(MaxNLocator(ticks))
    formatter = ScalarFormatter(useOffset=False)
    formatter.set_scientific(False)
    axis.set_major_formatter(formatter)


def percent_axis(axis: Any, ticks: int) -> None:
    """Fractions shown as percentages, from 0 to 100 at most; what lies at an end is drawn whole."""
    low, high = sorted(axis.get_view_interval())
    if low < 0 or high > 1:
        (axis.axes.set_xlim if axis.axis_name == "x" else axis.axes.set_ylim)(max(low, 0.0), min(high, 1.0))
        for line in axis.axes.get_lines():
            line.set_clip_on(False)
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


def accuracy_scale(axes: Axes, images: int) -> None:
    """Accuracies on a scale on which each halving of the errors has the same height.

    Args:
        axes: with all its lines.
        images: how many the accuracies rest on; no error at all is as high as half an error among them would be.
    """
    heights = [float(y) for line in axes.get_lines() for y in np.asarray(line.get_ydata()) if math.isfinite(y)]
    floor = 0.5 / max(images, 1)
    top, margin = -math.log10(floor), math.log10(1.3)
    errors = [max(1 - y, floor) for y in heights] or [0.1, 1.0]
    perfect = min(errors) < 1.001 * floor
    least, most = max(min(errors) / 1.3, floor), min(max(*errors, 6 * floor) * 1.25, 1.0)

    def height(accuracy: NDArray[Any]) -> NDArray[Any]:  # goes on above 1, so that there is room above "100 %"
        high: NDArray[Any] = np.maximum(accuracy - 1, 0) - np.log10(np.maximum(1 - accuracy, floor))
        return high

    def accuracy(height: NDArray[Any]) -> NDArray[Any]:
        return np.where(height <= top, 1 - 10.0 ** (-height), 1 + height - top)

    axes.set_yscale("function", functions=(height, accuracy))
    axes.set_ylim(1 - most, 1 + margin if perfect else 1 - least)
    axes.yaxis.set_minor_locator(NullLocator())
    ticks = [1 - tick for tick in round_ticks(1.4 * floor if perfect else least, most)]
    axes.yaxis.set_major_locator(FixedLocator([*ticks, 1.0] if perfect else ticks))
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
