"""Images at the corners of what can be asked: plain, striped, checkered, noise, ramps, single pixels."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.rng import numpy_generator

Values = NDArray[np.float64]

COUNT = 1000


def corners(image_shape: tuple[int, int, int], pixel_range: int, count: int = COUNT) -> Pixels:
    """Images that are unlike any training image, the same for every call.

    Args:
        image_shape: (height, width, channels).
        pixel_range: 255 for uint8 images, 65535 for uint16 ones.
        count: how many.

    Returns:
        (count, height, width, channel). Every fifth pattern: an extreme value in each channel; stripes and checkers of
        all widths; noise of two values, of all values or around one; ramps; a few pixels alone.
    """
    kind = np.uint8 if pixel_range == 255 else np.uint16
    made = np.empty((count, *image_shape), kind)
    for number in range(count):
        rng = numpy_generator("corners", number)
        made[number] = np.rint(pixel_range * PATTERNS[number % len(PATTERNS)](image_shape, rng)).astype(kind)
    return made


def _plain(shape: tuple[int, int, int], rng: np.random.Generator) -> Values:
    return np.broadcast_to(rng.integers(0, 2, shape[2]).astype(float), shape)


def _stripes(shape: tuple[int, int, int], rng: np.random.Generator) -> Values:
    rows, columns, channels = np.indices(shape)
    down, across = rng.integers(0, 2), rng.integers(0, 2)
    width = int(rng.integers(1, max(2, max(shape[:2]) // 2)))
    bands = (rows // width) * (down or not across) + (columns // width) * across + channels * rng.integers(0, 2)
    return np.asarray((bands % 2) ^ rng.integers(0, 2), float)


def _noise(shape: tuple[int, int, int], rng: np.random.Generator) -> Values:
    if rng.random() < 0.5:
        return (rng.random(shape) < rng.random()).astype(float)
    low, high = np.sort(rng.random(2))
    return rng.uniform(low, high, shape)


def _ramp(shape: tuple[int, int, int], rng: np.random.Generator) -> Values:
    rows, columns, _ = np.indices(shape)
    slope = rng.uniform(-1, 1, 2)
    values = slope[0] * rows / shape[0] + slope[1] * columns / shape[1]
    spread = values.max() - values.min()
    ramp: Values = (values - values.min()) / (spread or 1.0)
    return ramp


def _few_pixels(shape: tuple[int, int, int], rng: np.random.Generator) -> Values:
    values = np.full(shape, float(rng.integers(0, 2)))
    for _ in range(int(rng.integers(1, 5))):
        values[rng.integers(shape[0]), rng.integers(shape[1])] = rng.integers(0, 2, shape[2])
    return values


PATTERNS = (_plain, _stripes, _noise, _ramp, _few_pixels)
