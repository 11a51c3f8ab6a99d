"""Figures of images: pixels in, a `matplotlib.figure.Figure` out; nothing is computed, saved or shown here."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from committee.metrics.results import Gallery
from committee.report.pictures import displayable, strips
from committee.report.style import BLUE, INK, MUTED, VERMILION, bare, finish, label, new_figure


def samples_and_means(samples: NDArray[Any], means: NDArray[Any], class_names: Sequence[str]) -> Figure:
    """One row for each class: its mean image, then its first images.

    Args:
        samples: (class, sample, height, width, channel), uint8 or uint16.
        means: (class, height, width, channel), the same type.
        class_names: one name for each class.
    """
    shown, average = displayable(samples), displayable(means)
    columns, (height, width) = shown.shape[1], shown.shape[2:4]
    cell = max(0.24, min(0.52, 26 / len(shown)))
    figure, axes = new_figure(1.6 + cell * (columns + 1.4), 0.5 + cell * len(shown) * height / width, title="")
    for row, strip in enumerate(strips(shown)):
        _tile(axes, average[row], -1.4, row)
        axes.imshow(
            strip, extent=(-0.46, columns - 0.54, row + 0.46, row - 0.46), interpolation="nearest", aspect="auto"
        )
    for x, heading in ((-1.4, "mean"), (-0.46, f"the first {columns} images")):
        axes.text(x, -0.62, heading, fontsize=9, color=MUTED, va="bottom", ha="left" if x > -1 else "center")
    axes.set_xlim(-1.9, columns - 0.5)
    axes.set_ylim(len(shown) - 0.5, -1.2)
    axes.set_yticks(range(len(shown)), [label(name, number, 16) for number, name in enumerate(class_names)])
    axes.set_aspect(height / width)
    bare(axes)
    return finish(figure)


def augmentation(rows: Sequence[tuple[str, NDArray[Any]]]) -> Figure:
    """One row for each image: the original, then changed copies.

    Args:
        rows: a name and (1 + draws, height, width, channel), uint8 or uint16, the original first.
    """
    columns, (height, width) = len(rows[0][1]), rows[0][1].shape[1:3]
    cell = max(0.5, min(0.75, 12 / len(rows)))
    figure, axes = new_figure(2.1 + cell * (columns + 0.4), 0.5 + cell * len(rows) * height / width, title="")
    for row, (_, images) in enumerate(rows):
        for column, image in enumerate(displayable(images)):
            _tile(axes, image, column - (0.4 if column == 0 else 0), row)
    for x, heading in ((-0.4, "original"), ((columns - 1) / 2, f"{columns - 1} random draws")):
        axes.text(x, -0.6, heading, fontsize=9, color=MUTED, va="bottom", ha="center")
    axes.set_xlim(-0.95, columns - 0.5)
    axes.set_ylim(len(rows) - 0.5, -1.0)
    axes.set_yticks(range(len(rows)), [label(name, number, 24) for number, (name, _) in enumerate(rows)])
    axes.set_aspect(height / width)
    bare(axes)
    return finish(figure)


def class_means(means: NDArray[Any], class_names: Sequence[str]) -> Figure:
    """The mean image of each class; (class, height, width, channel), uint8 or uint16."""
    shown = displayable(means)
    columns = min(10, len(shown))
    rows = math.ceil(len(shown) / columns)
    figure, axes = new_figure(0.8 * columns + 0.1, 1.02 * rows + 0.1, title="")
    for number, name in enumerate(class_names):
        column, row = number % columns, number // columns
        _tile(axes, shown[number], column, 1.28 * row)
        axes.text(column, 1.28 * row + 0.5, label(name, number, 12), ha="center", va="top", fontsize=8.5, color=INK)
    _fit_tiles(axes, columns, 1.28 * rows - 0.5)
    return finish(figure)


def gallery(shown: Gallery, images: NDArray[Any], class_names: Sequence[str]) -> Figure:
    """The images of a gallery, each with its true and its predicted class and their probabilities.

    Args:
        shown: whose pictures' slots are rows of `images`.
        images: (slot, height, width, channel), uint8 or uint16.
        class_names: one name for each class.
    """
    pixels, columns = displayable(images), 10
    rows = max(1, math.ceil(len(shown.pictures) / columns))
    title = f"{shown.title}: true → predicted, probability of each"
    figure, axes = new_figure(9.2, 1.36 * rows + 0.4, title=title)
    for place, picture in enumerate(shown.pictures):
        column, row = place % columns, 1.55 * (place // columns)
        _tile(axes, pixels[picture.slot], column, row)
        names = " → ".join(label(class_names[number], number, 9) for number in (picture.true, picture.predicted))
        chances = f"{picture.probability_true:.3f}   {picture.probability_predicted:.3f}"
        colour = VERMILION if picture.true != picture.predicted else BLUE
        size = min(8.0, 90 / len(names))
        axes.text(column, row + 0.49, names, ha="center", va="top", fontsize=size, color=colour)
        axes.text(column, row + 0.72, chances, ha="center", va="top", fontsize=6.5, color=MUTED)
    _fit_tiles(axes, columns, 1.55 * rows - 0.45)
    return finish(figure)


def _fit_tiles(axes: Axes, columns: int, bottom: float) -> None:
    """Square axes around rows of tiles, from the top down, without ticks or frame."""
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(bottom, -0.5)
    axes.set_yticks([])
    axes.set_aspect("equal")
    bare(axes)


def _tile(axes: Axes, image: NDArray[np.uint8], x: float, y: float) -> None:
    height, width = image.shape[:2]
    half_x, half_y = 0.46 * min(1, width / height), 0.46 * min(1, height / width)
    axes.imshow(image, extent=(x - half_x, x + half_x, y + half_y, y - half_y), interpolation="nearest", aspect="auto")
