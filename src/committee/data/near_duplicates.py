"""Small images -> pairs that differ by no more than a pixel's shift, brightness and what JPEG loses.

Two steps, with no labels and no network:

1. Candidates. The magnitudes of an image's low Fourier coefficients hardly change when it is shifted (the shift
   theorem), and after normalisation not with brightness. A linear map takes them to 32 numbers: the one that copies of
   some of the images, changed on purpose, alter least beside how images differ (Fisher's linear discriminant, an image
   a class). Images that are near each other in these are candidates; they are few.
2. Proof. Each candidate is compared pixel by pixel over shifts of up to one pixel, with the best gain and offset
   (least squares) between the two smoothed images. What is left must be as small as JPEG's errors are: these grow about
   as the square root of contrast.

Images of more than 32 pixels a side are averaged down first, so that a pixel's shift of these is several of the
original's.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from committee.data.dataset import Pixels
from committee.rng import numpy_generator

Small = NDArray[np.uint8]
Floats = NDArray[np.float32]

SIDE = 32
"""Longest side, in pixels, at which images are compared."""

DIMENSIONS = 32
"""Numbers by which candidates are found."""

LARGEST_RESIDUAL = 0.44
"""Of a pair, in grey levels of 255, divided by the square root of the contrast in such levels.

Chosen on training images alone. Of 3,000 copies of MNIST's (JPEG of quality 75, a shift of one pixel, brightness 15 %
more or less, all at once) all pass the proof, of 3,000 of Fashion-MNIST's all but one. So do 67 other pairs of
Fashion-MNIST's 60,000, nearly all of the same article as far as the eye can tell, and none of MNIST's.
"""

CEILINGS = (235, 222, 205)
"""Grey levels at which a pair's darker image is cut off, too: where the brighter one is white, it tells no more."""

LARGEST_DIFFERENCE = 0.12
"""The same as a fraction of the contrast: smooth images, such as pieces of sky, are alike and no duplicates."""

LARGEST_GAIN = 4 / 3
"""How many times as much contrast one image of a pair may have as the other."""

COPIES = 1600
"""Copies of images that are changed on purpose, to learn from one half of them which numbers are stable."""

MOST, PER_IMAGE = 50_000, 1
"""Candidates beyond which the search is narrowed: in all, or for each image, whichever is more.

Where images are so alike that narrowing does not help, it stops at twice as many.
"""

CHUNK = 4096


@dataclass(frozen=True)
class NearPairs:
    """Pairs of images that are nearly the same.

    Attributes:
        first, second: (pair,), positions of the images of a pair, the first being the smaller.
        difference: (pair,), what gain, offset and shift do not explain, as a fraction of the contrast (standard
            deviation of the pixels).
        found: the fraction of copies, made of these images and changed on purpose, that the search finds: about what
            it finds of such near duplicates.
        complete: whether all candidates were compared; False where far too many images are nearly the same.
    """

    first: NDArray[np.int64]
    second: NDArray[np.int64]
    difference: Floats
    found: float
    complete: bool


def reduced(pixels: Pixels) -> Small:
    """Images of at most `SIDE` pixels a side: means over squares, 8 bits.

    Args:
        pixels: (image, height, width, channel), uint8 or uint16.
    """
    height, width, channels = pixels.shape[1:]
    factor = -(-max(height, width) // SIDE)
    rows, columns = max(height // factor, 1), max(width // factor, 1)
    scale = 255 / np.iinfo(pixels.dtype).max
    if factor == 1 and scale == 1:
        return cast(Small, np.asarray(pixels))
    small = np.empty((len(pixels), rows, columns, channels), np.uint8)
    step = max(1, CHUNK // factor**2)
    for start in range(0, len(pixels), step):
        part = pixels[start : start + step, : rows * factor, : columns * factor].astype(np.float32)
        means = part.reshape(len(part), rows, min(factor, height), columns, min(factor, width), channels).mean((2, 4))
        small[start : start + step] = np.rint(scale * means)
    return small


def grey(images: Small) -> Floats:
    """The mean of the channels: (image, height, width)."""
    if images.shape[3] == 1:
        return images[..., 0].astype(np.float32)
    return np.asarray(images.mean(axis=3, dtype=np.float32), np.float32)


def near_duplicates(images: Small, averaged: bool = False) -> NearPairs:
    """All pairs of images that are nearly the same.

    Args:
        images: (image, height, width, channel), as `reduced` gives them, all different; constant ones are in no pair.
        averaged: whether they were averaged down, so that the originals' shifts are fractions of a pixel here.
    """
    drawn = numpy_generator("near duplicates", len(images))
    sample = np.resize(drawn.permutation(len(images)), COPIES)  # of few images several copies
    copies = changed_copies(images[sample], drawn)
    learnt = np.arange(COPIES) % len(images) % 2 == 0
    numbers, of_copies = _stable_numbers(images, sample, copies, learnt)
    own = np.linalg.norm(numbers[sample] - of_copies, axis=1)[~learnt]
    with one_thread():
        reach = _reach(numbers, own, drawn)
        most = 2 * max(MOST, PER_IMAGE * len(images))
        first, second, complete = _pairs_within(numbers, reach, most)
    first, second = _of_like_contrast(images, first, second)
    difference, same = _compared(images, images, first, second, averaged)
    _, proven = _compared(images, copies[~learnt], sample[~learnt], np.arange(len(own)), averaged)
    first, second, difference = first[same], second[same], difference[same]
    order = np.lexsort((second, first))
    found = float((proven & (own <= reach)).mean())
    return NearPairs(first[order], second[order], difference[order], found, complete)


def changed_copies(images: Small, drawn: np.random.Generator) -> Small:
    """Copies: shifted by one pixel along one or both axes, 15 % brighter or darker, saved as JPEG of quality 75.

    Args:
        images: (image, height, width, channel).
        drawn: what the shifts and the brightness are drawn from.
    """
    height, width = images.shape[1:3]
    shifts = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]
    copies = np.empty_like(images)
    for number, image in enumerate(images):
        dy, dx = shifts[drawn.integers(len(shifts))]
        framed = np.pad(image, ((1, 1), (1, 1), (0, 0)), mode="edge")
        moved = framed[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
        lit = np.clip(np.rint(moved * drawn.choice([0.85, 1.15])), 0, 255).astype(np.uint8)
        for channel in range(lit.shape[2]):
            file = io.BytesIO()
            Image.fromarray(np.ascontiguousarray(lit[..., channel])).save(file, "JPEG", quality=75)
            copies[number, ..., channel] = np.asarray(Image.open(file))
    return copies


# --- candidates -------------------------------------------------------------------------------------------------------


def _stable_numbers(
    images: Small, sample: NDArray[np.int64], copies: Small, learnt: NDArray[np.bool_]
) -> tuple[Floats, Floats]:
    """A few numbers for each image, and each copy of those in `sample`: those that copies change least.

    The map is learnt from some of the copies only, so that the others show how well it does.
    """
    known, of_copies = _spectra(images), _spectra(copies)
    change = (of_copies - known[sample])[learnt].astype(np.float64)
    within = change.T @ change / len(change)
    within += np.eye(len(within)) * (0.02 * np.trace(within) / len(within) + 1e-12)
    chosen = known[:: max(1, len(known) // 20_000)]
    white = np.linalg.inv(np.linalg.cholesky(within))
    centre = chosen.mean(0)
    between = ((chosen - centre).T @ (chosen - centre)).astype(np.float64) / len(chosen)
    _, directions = np.linalg.eigh(white @ between @ white.T)
    matrix = (directions[:, ::-1][:, :DIMENSIONS].T @ white).T.astype(np.float32)
    return (known - centre) @ matrix, (of_copies - centre) @ matrix


def _spectra(images: Small) -> Floats:
    """The square roots of Fourier magnitudes, with and without a window: (image, number)."""
    height, width = images.shape[1:3]
    tables = [_waves(height, width, cutoff, windowed) for cutoff, windowed in ((7, True), (5, False))]
    parts = []
    for start in range(0, len(images), CHUNK):
        flat = grey(images[start : start + CHUNK]).reshape(-1, height * width)
        flat -= flat.mean(1, keepdims=True)
        found = []
        for waves in tables:
            both = (flat @ waves).reshape(len(flat), 2, -1)
            roots = np.sqrt(np.hypot(both[:, 0], both[:, 1]))
            found.append(roots / (np.linalg.norm(roots, axis=1, keepdims=True) + 1e-6))
        parts.append(np.concatenate(found, axis=1))
    return np.concatenate(parts)


def _waves(height: int, width: int, cutoff: int, windowed: bool) -> Floats:
    """Cosines, then sines, of all frequencies up to `cutoff` periods an image: (pixel, 2 * frequency)."""
    y, x = np.arange(height)[:, None], np.arange(width)[None]
    window = np.sin(np.pi * (y + 0.5) / height) * np.sin(np.pi * (x + 0.5) / width) if windowed else np.ones((1, 1))
    tall, wide = min(cutoff, (height - 1) // 2), min(cutoff, (width - 1) // 2)
    phases = [
        2 * np.pi * (u * y / height + v * x / width)
        for u in range(-tall, tall + 1)
        for v in range(wide + 1)
        if (v or u > 0) and u * u + v * v <= cutoff * cutoff + 0.5
    ]
    waves = [np.cos(each) * window for each in phases] + [np.sin(each) * window for each in phases]
    return np.stack(waves).reshape(len(waves), -1).T.astype(np.float32)


def _reach(numbers: Floats, own: Floats, drawn: np.random.Generator) -> float:
    """The distance within which pairs are candidates.

    It holds nearly all changed copies with a fifth to spare, unless there would be too many candidates.
    """
    some = numbers[drawn.permutation(len(numbers))[:300]]
    squares = (numbers**2).sum(1)
    distances = (some**2).sum(1)[:, None] + squares - 2 * some @ numbers.T
    each = (
        max(2 * PER_IMAGE, 2 * MOST // len(numbers)) + 1
    )  # every pair is seen from both sides, each image sees itself
    count = min(distances.size, each * len(some)) - 1
    narrow = float(np.sqrt(max(np.partition(distances, count, axis=None)[count], 0)))
    middle, most = np.quantile(own, [0.5, 0.998])
    return min(1.2 * float(most), max(narrow, float(middle)))


def _pairs_within(
    numbers: Floats, reach: float, most: int, rows: int = 256
) -> tuple[NDArray[np.int64], NDArray[np.int64], bool]:
    """All pairs of rows that are no farther apart than `reach`, or `most` of them; and whether these are all.

    Rows are halved into ever smaller boxes, as in a k-d tree (Bentley 1975). Into each half go on, as possible
    partners, those rows alone that are within reach of its box; the last boxes, of at most `rows` rows, are compared
    with theirs.
    """
    order, starts = _sorted_by_box(numbers)
    points = torch.from_numpy(numbers[order])
    squares = (points**2).sum(1)
    waiting = []
    for start, end in zip(starts, [*starts[1:], len(points)], strict=True):
        inside = torch.arange(start, end)
        waiting.append((inside, _within_reach(points, inside, torch.arange(start, len(points)), reach)))
    first, second, found = [], [], 0
    while waiting and found <= most:
        inside, partners = waiting.pop()
        own = points[inside]
        if len(inside) > rows:
            by = own[:, int((own.amax(0) - own.amin(0)).argmax())].argsort()
            for half in (inside[by[: len(by) // 2]], inside[by[len(by) // 2 :]]):
                waiting.append((half, _within_reach(points, half, partners, reach)))
            continue
        near = torch.addmm(-0.5 * squares[partners], own, points[partners].T)  # |a - b| <= r where
        row, column = torch.nonzero(near >= 0.5 * (squares[inside] - reach**2)[:, None], as_tuple=True)
        one, two = inside[row], partners[column]
        later = two > one
        first.append(one[later])
        second.append(two[later])
        found += int(later.sum())
    pairs = order[torch.stack([torch.cat(first), torch.cat(second)]).numpy()]
    return pairs.min(0)[:most], pairs.max(0)[:most], found <= most


def _sorted_by_box(numbers: Floats, rows: int = 2048) -> tuple[NDArray[np.int64], list[int]]:
    """Rows in an order in which each box of them is in one piece, and where the boxes begin."""
    order, starts, waiting = np.arange(len(numbers)), [], [(0, len(numbers))]
    while waiting:
        start, end = waiting.pop()
        inside, middle = order[start:end], (end - start) // 2
        if end - start <= rows:
            starts.append(start)
            continue
        axis = int(np.ptp(numbers[inside], axis=0).argmax())
        order[start:end] = inside[np.argpartition(numbers[inside, axis], middle)]
        waiting += [(start, start + middle), (start + middle, end)]
    return order, sorted(starts)


def _within_reach(points: torch.Tensor, box: torch.Tensor, rows: torch.Tensor, reach: float) -> torch.Tensor:
    """Those of the rows that are within reach of the smallest box around others."""
    low, high = points[box].amin(0), points[box].amax(0)
    asked = points[rows]
    outside = asked - torch.minimum(torch.maximum(asked, low), high)
    return rows[outside.square_().sum(1) <= reach**2]


@contextmanager
def one_thread() -> Iterator[None]:
    """PyTorch on one thread: these many small steps gain little from several, and lose much where cores are busy."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


# --- proof ------------------------------------------------------------------------------------------------------------


def _of_like_contrast(
    images: Small, first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The pairs without those that are far beyond `LARGEST_GAIN`, which shifts and white do not explain."""
    parts = [grey(images[start : start + CHUNK]).std((1, 2)) for start in range(0, len(images), CHUNK)]
    contrast = np.concatenate(parts)
    one, two = contrast[first], contrast[second]
    like = np.maximum(one, two) <= 1.25 * LARGEST_GAIN * np.minimum(one, two)
    return first[like], second[like]


def _compared(
    one: Small, two: Small, first: NDArray[np.int64], second: NDArray[np.int64], averaged: bool
) -> tuple[Floats, NDArray[np.bool_]]:
    """What is left of each pair's contrast at the best shift, and whether they are nearly the same."""
    relative, same = np.empty(len(first), np.float32), np.empty(len(first), np.bool_)

    def compare(part: slice) -> None:
        a, b = one[first[part]], two[second[part]]
        darker = a.mean((1, 2, 3)) < b.mean((1, 2, 3))
        a, b = np.where(darker[:, None, None, None], [a, b], [b, a])  # a is the darker one
        left, scaled = _difference(a, b, averaged)
        for ceiling in CEILINGS:
            doubtful = np.flatnonzero((scaled > LARGEST_RESIDUAL) & (scaled <= 2 * LARGEST_RESIDUAL))
            again, scaled_again = _difference(np.minimum(a[doubtful], ceiling), b[doubtful], averaged)
            left[doubtful] = np.minimum(left[doubtful], again)
            scaled[doubtful] = np.minimum(scaled[doubtful], scaled_again)
        relative[part] = left
        same[part] = (scaled <= LARGEST_RESIDUAL) & (left <= LARGEST_DIFFERENCE)

    with ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as threads:  # NumPy lets go of Python's lock while it computes
        list(threads.map(compare, [slice(start, start + 1024) for start in range(0, len(first), 1024)]))
    return relative, same


def _difference(one: Small, two: Small, averaged: bool) -> tuple[Floats, Floats]:
    """What is left at the best shift, of the contrast, and in grey levels by the square root of the contrast.

    Args:
        one, two: (pair, height, width, channel).
        averaged: whether shifts by half a pixel are tried, too.

    Returns:
        Two of (pair,); the second is infinite where gains are beyond the limits or an image is all but constant.
    """
    height, width = one.shape[1:3]
    margin = 2 if min(height, width) >= 16 else 1  # the frame that smoothing spoils is left out where there is room
    tall, wide = height - 2 * margin, width - 2 * margin
    if min(tall, wide) < 2:
        return np.ones(len(one), np.float32), np.full(len(one), np.inf, np.float32)
    a, b = _smoothed(one), _smoothed(two)
    if averaged:  # what averaging folds into low frequencies differs from shift to shift
        a, b = _smoothed(a), _smoothed(b)
    a = a[:, margin : margin + tall, margin : margin + wide]
    a = a - a.mean((1, 2), keepdims=True)  # of each channel: a colour common to all pixels is no contrast
    area, size = tall * wide, tall * wide * a.shape[3]
    of_a = np.einsum("nhwc,nhwc->n", a, a)
    best, contrast = np.full(len(a), np.inf, np.float32), np.ones(len(a), np.float32)
    moved = [(b, 0, 0)]
    if averaged:
        down = _halfway(b)
        right, both = (_halfway(each.swapaxes(1, 2)).swapaxes(1, 2) for each in (b, down))
        moved += [(down, 1, 0), (right, 0, 1), (both, 1, 1)]
    for image, half_y, half_x in moved:
        for y in range(margin - 1, margin + 2 - half_y):
            for x in range(margin - 1, margin + 2 - half_x):
                c = image[:, y : y + tall, x : x + wide]
                total = np.einsum("nhwc->nc", c)
                product = np.einsum("nhwc,nhwc->n", a, c)
                of_c = np.maximum(np.einsum("nhwc,nhwc->n", c, c) - (total**2).sum(1) / area, 0)
                left = 1 - product * np.abs(product) / np.maximum(of_a * of_c, 1e-3)  # a negative is another image
                better = left < best
                best, contrast = np.where(better, left, best), np.where(better, of_c, contrast)
    relative = np.sqrt(np.maximum(best, 0))
    spread_a, spread_b = np.sqrt(of_a / size), np.sqrt(contrast / size)
    mean = np.sqrt(spread_a * spread_b)
    usable = np.maximum(spread_a, spread_b) <= LARGEST_GAIN * np.minimum(spread_a, spread_b)
    usable &= (mean >= 2) & (relative <= 4 * LARGEST_DIFFERENCE)
    return relative, np.where(usable, relative * np.sqrt(mean), np.float32(np.inf))


def _smoothed(images: Small | Floats) -> Floats:
    """Images smoothed by (1, 2, 1) / 4 along both axes, so that JPEG's errors nearly cancel."""
    part = np.pad(images.astype(np.float32), ((0, 0), (1, 1), (1, 1), (0, 0)), mode="edge")
    part = part[:, :-2] + 2 * part[:, 1:-1] + part[:, 2:]
    return np.asarray((part[:, :, :-2] + 2 * part[:, :, 1:-1] + part[:, :, 2:]) / 16, np.float32)


def _halfway(images: Floats) -> Floats:
    """The values half a pixel below each, by cubic interpolation: (-1, 9, 9, -1) / 16."""
    rows = images.shape[1]
    framed = np.pad(images, ((0, 0), (1, 2), (0, 0), (0, 0)), mode="edge")
    outer, inner = framed[:, :rows] + framed[:, 3:], framed[:, 1 : rows + 1] + framed[:, 2 : rows + 2]
    return np.asarray((9 * inner - outer) / 16, np.float32)
