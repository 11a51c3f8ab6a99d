"""A photograph of something written -> its ink: how much of each pixel is ink, whatever pen, paper and light.

What is written is darker than its surroundings, or lighter, and of one colour. The paper is a running median, so that
shadows and lamps do not matter; lines of the paper are long, straight and even; what is left is divided into ink and
paper by Otsu's threshold, and what is connected and large enough is kept.
"""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from committee.data.dataset import Pixels

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

WORKING_SIDE = 384  # pixels of the longer side while looking for ink
PAPER_SIDE = 32  # and while looking for the paper below it, whose median is taken over half of that
STROKE = 96  # a stroke is narrower than this while looking for ink
MARGIN = 0.6  # around the ink in the second look, as a share of the ink's longer side
LINE_SLOPES = np.linspace(-0.14, 0.14, 57)  # of a ruled line: 8 degrees, in steps that move its ends by a pixel


class Box(NamedTuple):
    """Rows and columns of an image, the last ones excluded."""

    top: int
    bottom: int
    left: int
    right: int

    @property
    def longer(self) -> int:
        """Pixels of the longer side."""
        return max(self.bottom - self.top, self.right - self.left)


def find_ink(image: Pixels) -> Floats | None:
    """How much of each pixel is ink, from 0 to 1, in the part of a photograph where something is written.

    The photograph is looked at twice: all of it for where the ink is, then that place, as large as it can be had.

    Args:
        image: (height, width, channel) with 1 to 4 channels.

    Returns:
        (row, column), about `WORKING_SIDE` pixels on the longer side, with some paper around the ink; None where there
        is no ink.
    """
    height, width = image.shape[:2]
    if (image == image[0, 0]).all():  # as what follows would find, in a thousandth of its time
        return None
    first = _ink_of(*_scaled(image))
    if first is None:
        return None
    box, scale = box_of(first > 0.5), max(height, width) / max(first.shape)
    around = MARGIN * box.longer
    top, bottom = (min(max(round(scale * row), 0), height) for row in (box.top - around, box.bottom + around))
    left, right = (min(max(round(scale * column), 0), width) for column in (box.left - around, box.right + around))
    second = _ink_of(*_scaled(image[top:bottom, left:right]))
    return first if second is None else second


def box_of(mask: Mask) -> Box:
    """The smallest box around the true pixels of a mask that has some."""
    rows, columns = (np.flatnonzero(mask.any(axis=axis)) for axis in (1, 0))
    return Box(int(rows[0]), int(rows[-1]) + 1, int(columns[0]), int(columns[-1]) + 1)


def resampled(plane: Floats, size: tuple[int, int], box: Box | None = None, *, by_area: bool = False) -> Floats:
    """A plane (row, column), or a box of it, in another size (rows, columns): bicubic, or by the area's mean."""
    image = Image.fromarray(np.ascontiguousarray(plane, dtype=np.float32))
    part = None if box is None else (box.left, box.top, box.right, box.bottom)
    how = Image.Resampling.BOX if by_area else Image.Resampling.BICUBIC
    return np.asarray(image.resize(size[::-1], how, box=part))


def _scaled(image: Pixels) -> tuple[Floats, float]:
    """An image with `WORKING_SIDE` pixels on the longer side, as colours (row, column, 3) from 0 to 1; and the scale.

    What is transparent becomes white paper, or black where the rest is white.
    """
    scale = WORKING_SIDE / max(image.shape[:2])
    size = (max(8, round(image.shape[1] * scale)), max(8, round(image.shape[0] * scale)))
    how = Image.Resampling.BOX if scale < 1 else Image.Resampling.BICUBIC
    planes = []
    for channel in range(image.shape[2]):  # 8 bits are enough for ink, and floats of a large photograph are too many
        plane = image[..., channel] if image.dtype == np.uint8 else (image[..., channel] >> 8).astype(np.uint8)
        planes.append(np.asarray(Image.fromarray(np.ascontiguousarray(plane)).resize(size, how), np.float32) / 255)
    channels = np.stack(planes, axis=2)
    if image.shape[2] in (1, 3):
        return np.broadcast_to(channels, (*channels.shape[:2], 3)), scale
    colours, alpha = np.broadcast_to(channels[..., :-1], (*channels.shape[:2], 3)), channels[..., -1:]
    opaque = colours[alpha[..., 0] > 0.5]
    paper = 0.0 if opaque.size and opaque.mean() > 0.5 else 1.0
    return colours * alpha + paper * (1 - alpha), scale


def _ink_of(colours: Floats, grain: float) -> Floats | None:
    """How much of each pixel (row, column, colour) is ink; None where there is none.

    A pixel of the photograph has become `grain` pixels wide.
    """
    contrast, room = _contrast(colours)
    contrast = _without_lines(_without_lines(contrast).T).T
    grey = colours.mean(axis=2)
    apart = 1 + max(1, round(grain))
    noise = 1.05 * float(np.median(np.abs(grey[:, apart:] - grey[:, :-apart])))  # its standard deviation, if normal
    candidates = contrast[contrast > max(6 * noise / room, 0.06)]
    if len(candidates) < 8:
        return None
    threshold = _otsu(candidates)
    kept = _kept(contrast > 0.6 * threshold, contrast)
    strong = contrast[kept & (contrast > threshold)]
    if len(strong) == 0 or (core := float(np.median(strong))) < 0.08:
        return None
    near = grown(kept, 2)
    return np.where(near, np.clip((contrast / core - 0.25) / 0.5, 0, 1), 0).astype(np.float32)


def _contrast(colours: Floats) -> tuple[Floats, float]:
    """By how much each pixel differs from the paper below it in the ink's direction: 0 paper, 1 black on white.

    And the brightness, mostly, of which 1 is the whole.
    """
    paper = _paper(colours)
    lit = np.minimum(paper, _extreme(_extreme(colours, np.maximum), np.minimum))  # a closing keeps a shadow's edge
    unlit = np.maximum(paper, _extreme(_extreme(colours, np.minimum), np.maximum))
    dark, light = np.maximum(lit - colours, 0), np.maximum(colours - unlit, 0)
    inside = [np.minimum(np.arange(side), np.arange(side)[::-1]) / STROKE for side in colours.shape[:2]]
    weight = np.minimum(np.minimum.outer(*inside), 0.5) ** 2  # shadows that the frame cuts may be narrow
    is_dark = np.sum(weight * dark.mean(axis=2) ** 3) > np.sum(weight * light.mean(axis=2) ** 3)
    room = np.maximum(lit if is_dark else 1 - unlit, 0.25)
    ratio = (dark if is_dark else light) / room
    strength = ratio.mean(axis=2)
    strongest = ratio[strength >= np.quantile(strength, 0.99)].mean(axis=0)
    direction = strongest / max(float(np.linalg.norm(strongest)), 1e-6)
    return cast(Floats, ratio @ direction / max(float(direction.sum()), 1.0)), float(np.median(room))


def _paper(colours: Floats) -> Floats:
    """The paper or board without what is written on it: a running median of a small copy, enlarged again."""
    height, width = colours.shape[:2]
    scale = PAPER_SIDE / max(height, width)
    size = (max(4, round(height * scale)), max(4, round(width * scale)))
    reach = PAPER_SIDE // 4
    planes = []
    for channel in range(3):
        small = np.pad(resampled(colours[..., channel], size, by_area=True), reach, mode="symmetric")
        windows = np.lib.stride_tricks.sliding_window_view(small, (2 * reach + 1, 2 * reach + 1))
        planes.append(resampled(np.median(windows, axis=(2, 3)), (height, width)))
    return np.stack(planes, axis=2)


def _extreme(colours: Floats, of: np.ufunc) -> Floats:
    """The largest or smallest value of each colour in the square around each pixel that is `STROKE` wide."""
    reach = STROKE // 2
    for axis in (0, 1):
        pads = [(0, 0)] * 3
        pads[axis] = (reach, reach)
        padded, width, length = np.pad(colours, pads, mode="edge"), 1, colours.shape[axis]
        while width < 2 * reach + 1:  # the extreme of 2, 4, 8, ... pixels, and at the end of all
            step = min(width, 2 * reach + 1 - width)
            kept = padded.shape[axis] - step
            first, second = (padded.take(range(start, start + kept), axis=axis) for start in (0, step))
            padded, width = of(first, second), width + step
        colours = padded.take(range(length), axis=axis)
    return colours


def _without_lines(contrast: Floats) -> Floats:
    """Contrast without the lines of ruled paper that run along its rows, more or less.

    Rows are sheared by every slope of `LINE_SLOPES`; where lines run along them, the medians of rows are far from 0. On
    a line's rows only what is much darker than the line stays, and what joins the ink above to the ink below.
    """
    height, width = contrast.shape
    columns = np.arange(width)
    some = columns[:: max(1, width // 40)]
    at = np.arange(height)[:, None]

    def lined(slope: float) -> float:
        rows = (at + np.rint(slope * (some - width / 2)).astype(int)) % height
        return float(np.sum(np.maximum(np.median(contrast[rows, some], axis=1), 0) ** 2))

    slope = max(LINE_SLOPES, key=lined)
    slope = max((slope, slope - 0.0025, slope + 0.0025), key=lined)
    shift = np.rint(slope * (columns - width / 2)).astype(int)
    sheared = contrast[(at + shift) % height, columns]
    outer = max(width // 5, 1)  # a line of the paper also runs where nothing is written
    parts = (sheared, sheared[:, :outer], sheared[:, -outer:])
    line = cast(Floats, np.min([np.median(part, axis=1) for part in parts], axis=0))
    noise = 1.4826 * float(np.median(np.abs(sheared - line[:, None])))
    is_line = line > max(0.03, 1.5 * noise)
    if not is_line.any() or is_line.mean() > 0.5:
        return contrast
    spread = np.median(np.abs(sheared - line[:, None]), axis=1)
    kept = np.where(is_line[:, None] & (sheared < (1.6 * line + 3 * spread)[:, None]), 0, sheared)
    for first, last in _runs(is_line):
        above, below = sheared[max(first - 3, 0) : first], sheared[last : last + 3]
        if len(above) and len(below):
            kept[first:last] = np.maximum(kept[first:last], np.minimum(above.min(axis=0), below.min(axis=0)))
    return cast(Floats, kept[(at - shift) % height, columns])


def _runs(line: Mask) -> list[tuple[int, int]]:
    """First and last position (excluded) of each run of true values."""
    ends = np.flatnonzero(np.diff(np.concatenate([[0], line.astype(np.int8), [0]])))
    return [(int(first), int(last)) for first, last in ends.reshape(-1, 2)]


def _otsu(values: Floats) -> float:
    """The threshold between two kinds of values that makes the variance between them largest (Otsu, 1979)."""
    counts, edges = np.histogram(values, bins=128)
    middles = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = counts.sum() - below
    sums = np.cumsum(counts * middles)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    return float(edges[1:-1][np.argmax(below * above * (means[1] - means[0]) ** 2)])


def _kept(mask: Mask, contrast: Floats) -> Mask:
    """The connected parts of a mask that are writing: the heaviest one, and those near it that are not specks.

    Parts that touch the edge of the image are the table, a finger or a shadow, unless there is nothing else.
    """
    labels, count = components(mask)
    weight = np.bincount(labels.ravel(), np.maximum(contrast, 0).ravel(), count + 1)[1:]
    edge = np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])
    inside = np.bincount(edge, minlength=count + 1)[1:] == 0
    main = int(np.argmax(weight * np.where(inside, 1, 0.02)))
    box = box_of(labels == main + 1)
    reach = box.longer // 3
    near = np.zeros_like(mask)
    near[max(box.top - reach, 0) : box.bottom + reach, max(box.left - reach, 0) : box.right + reach] = True
    is_near = np.bincount(labels[near], minlength=count + 1)[1:] > 0
    good = (weight >= 0.04 * weight[main]) & is_near & (inside | ~inside[main])
    good[main] = True
    return cast(Mask, np.concatenate([[False], good])[labels])


def components(mask: Mask) -> tuple[NDArray[np.int64], int]:
    """The connected parts of a mask, neighbours at corners included.

    Returns:
        (row, column), 0 outside the mask and 1, 2, ... for the parts; and how many parts there are.
    """
    rows, firsts, lasts = [], [], []
    for row, line in enumerate(mask):
        for first, last in _runs(line):
            rows.append(row)
            firsts.append(first)
            lasts.append(last)
    parent = list(range(len(rows)))

    def root(run: int) -> int:
        while parent[run] != run:
            parent[run] = parent[parent[run]]
            run = parent[run]
        return run

    previous, start = 0, 0  # the first run that may touch; the first run of this row
    for run, row in enumerate(rows):
        if run and row != rows[run - 1]:
            previous, start = (start if rows[run - 1] == row - 1 else run), run
        above = previous
        while above < start and rows[above] == row - 1 and firsts[above] <= lasts[run]:
            if lasts[above] >= firsts[run]:
                parent[root(above)] = root(run)
            above += 1
    numbers: dict[int, int] = {}
    labels = np.zeros(mask.shape, np.int64)
    for run, row in enumerate(rows):
        labels[row, firsts[run] : lasts[run]] = numbers.setdefault(root(run), len(numbers) + 1)
    return labels, len(numbers)


def grown(plane: NDArray[Any], radius: int) -> NDArray[Any]:
    """A mask, or a plane of values, whose true or large parts are `radius` pixels wider on every side, and round."""
    padded = np.pad(plane, radius)
    result = plane
    height, width = plane.shape
    for y in range(-radius, radius + 1):
        half = int((radius**2 - y**2) ** 0.5 + 0.5)
        for x in {-half, half} | ({0} if half else set()):
            result = np.maximum(result, padded[radius + y : radius + y + height, radius + x : radius + x + width])
    return result
