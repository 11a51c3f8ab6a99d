"""Numbers of any type -> pixels: which numbers mean black and white, one rule for arrays, tables and image files.

The range is found from the whole training part, never from a single image or file: a dark image is to stay dark. It is
recorded with the data set, so that images to classify are read as the training images were.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.read_options import ValueRange
from committee.errors import DataError, counted

_USUAL = {(0.0, 1.0), (-1.0, 1.0), (0.0, 255.0)}
"""Ranges in which other programs keep 8-bit pixels as floats. What lies outside them is of another kind, not bright."""

_SLACK = {True: 0.1, False: 1.0}
"""How far beyond a usual range, or another that was found, values are cut off instead of refused; in its widths."""

_CHUNK = 2**22


@dataclass(frozen=True)
class _Spread:
    """The lowest and highest value of arrays, and whether all are whole numbers."""

    low: float
    high: float
    whole: bool


def is_plain(array: NDArray[Any]) -> bool:
    """Whether numbers are pixels already: unsigned, of 8 or 16 bits."""
    return array.dtype in (np.uint8, np.uint16)


def value_range(
    arrays: Sequence[NDArray[Any]], where: Sequence[str], given: tuple[float, float] | None
) -> tuple[ValueRange | None, list[str]]:
    """The numbers that mean black and white in a data set, and notes about them.

    Floats from 0 to 1, from -1 to 1 or up to 255 have that range; other fractions have that of their lowest and highest
    training values. Whole numbers from 0 to 255, or to 65535, are pixels whatever their type.

    Args:
        arrays: numbers of the training part and, if there is one, of the test part, the image first.
        where: a file name for each.
        given: what the user says instead.

    Returns:
        None where they are integers, which are pixels already.

    Raises:
        DataError: a value is NaN or infinite, or the test part has another range than the training part.
    """
    if given is not None:
        if not (np.isfinite(given).all() and given[0] < given[1] and _can_be_scaled(*given)):
            raise DataError(
                f"the pixel range must be two numbers, that of black below that of white, got {given[0]:g} and "
                f"{given[1]:g}; give them as LOW,HIGH"
            )
        values = ValueRange(low=given[0], high=given[1], given=True)
        return values, [_said(values), *_cut_off(arrays, where, values)]
    if all(array.dtype.kind == "b" or is_plain(array) for array in arrays):
        return None, []
    if not all(array.dtype.kind in "biuf" for array in arrays):
        raise DataError(f"{where[0]}: pixels must be numbers, got the type {arrays[0].dtype}; convert them")
    train = _spread(arrays[0], where[0])
    if train.whole and train.low >= 0 and train.high <= 65535 and _like_pixels(arrays[0], train):
        _check_like_pixels(arrays[1:], where[1:], train)
        is_float = arrays[0].dtype.kind == "f"
        return (ValueRange(low=0, high=255) if is_float else None), _dark(train)
    values = _found(train)
    if not _can_be_scaled(values.low, values.high):
        raise DataError(
            f"{where[0]}: values that differ are expected, got {values.low:g} to {values.high:g}; rescale them"
        )
    notes = [_said(values)]
    for array, place in zip(arrays[1:], where[1:], strict=True):
        if array.size:
            _check_near(_spread(array, place), values, place, f"the training images (of {where[0]})")
            notes += _cut_off([array], [place], values)
    return values, notes


def _can_be_scaled(low: float, high: float) -> bool:
    """Whether the width of a range is a number that others can be divided by."""
    return math.isfinite(high - low) and high - low > 1e-300


def to_pixels(array: NDArray[Any], where: str, values: ValueRange, pixel_range: int) -> Pixels:
    """Numbers as pixels: `values.low` becomes 0, `values.high` becomes `pixel_range`, what lies outside is cut off.

    Args:
        array: (image, height, width, channel), of any type of numbers.
        where: name for messages.
        values: the numbers that mean black and white.
        pixel_range: 255 for 8 bits, 65535 for 16.

    Raises:
        DataError: a value is NaN or infinite, or lies far outside a range that was found and not given.
    """
    spread = _spread(array, where)
    if not values.given:
        _check_near(spread, values, where, "the training images")
        if values.high == 255 and 0 < spread.high <= 1 and not spread.whole:
            raise DataError(
                f"{where}: values from 0 to 255 are expected, like the training images, got fractions up to "
                f"{spread.high:g}; multiply them by 255"
            )
    pixels = np.empty(array.shape, np.uint8 if pixel_range == 255 else np.uint16)
    scale = pixel_range / (values.high - values.low)
    for start, chunk in _chunks(array):
        scaled = (chunk.astype(np.float64) - values.low) * scale
        pixels[start : start + len(chunk)] = np.rint(scaled.clip(0, pixel_range))
    return cast(Pixels, pixels)


def depth(arrays: Sequence[NDArray[Any]], values: ValueRange) -> int:
    """The pixel range that keeps what the training part tells apart: 255 for 8 bits, 65535 for 16."""
    if (values.low, values.high) in _USUAL and not is_plain(arrays[0]):
        return 255
    whole = values.high - values.low <= 255 and (arrays[0].dtype.kind != "f" or _whole(arrays[0]))
    return 255 if whole else 65535


def takes(values: ValueRange, array: NDArray[Any]) -> bool:
    """Whether images to classify are numbers of the training's range, and not pixels of 8 or 16 bits.

    Floats are. Unsigned integers of 8 or 16 bits are pixels, unless the user gave a range and they can hold it. Other
    integers, which tables give, are where all of them lie in the range.
    """
    if array.dtype.kind == "f":
        return True
    if is_plain(array):
        return values.given and bool(np.iinfo(array.dtype).max >= values.high)
    inside = bool(array.size == 0 or (array.min() >= values.low and array.max() <= values.high))
    return array.dtype.kind in "iu" and (inside or values.given)


def _spread(array: NDArray[Any], where: str) -> _Spread:
    """The range of an array, which must hold finite numbers alone."""
    if not array.size:
        return _Spread(0.0, 0.0, True)
    low, high = float(array.min()), float(array.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        broken = next(
            start + int(np.flatnonzero(wrong)[0])
            for start, chunk in _chunks(array)
            if (wrong := ~np.isfinite(chunk).reshape(len(chunk), -1).all(axis=1)).any()
        )
        what = "NaN" if np.isnan(low) else "an infinite value"
        raise DataError(
            f"{where}: image {broken} (counted from 0) holds {what}, but every pixel must be a number; correct or "
            "remove it"
        )
    return _Spread(low, high, array.dtype.kind != "f" or _whole(array))


def _whole(array: NDArray[Any]) -> bool:
    return all(np.array_equal(chunk, np.rint(chunk)) for _, chunk in _chunks(array))


def _chunks(array: NDArray[Any]) -> Iterator[tuple[int, NDArray[Any]]]:
    """A few images at a time, with the position of the first: what is computed of them needs little memory."""
    step = max(1, _CHUNK // max(1, math.prod(array.shape[1:])))
    return ((start, array[start : start + step]) for start in range(0, len(array), step))


def _like_pixels(array: NDArray[Any], spread: _Spread) -> bool:
    """Whether whole numbers are pixels: integers are, floats where some are above 1 and none above 255."""
    return array.dtype.kind != "f" or 1 < spread.high <= 255


def _found(train: _Spread) -> ValueRange:
    """The range of floats: the usual one that they fill, or else their own."""
    low, high = train.low, train.high
    if low >= 0 and high <= 1:
        return ValueRange(low=0, high=1)
    if low >= -1 and high <= 1 and max(-low, high) > 0.5:
        return ValueRange(low=-1, high=1)
    if low >= 0 and 127 < high <= 255:
        return ValueRange(low=0, high=255)
    return ValueRange(low=low, high=high if high > low else low + 1)


def _check_like_pixels(arrays: Sequence[NDArray[Any]], where: Sequence[str], train: _Spread) -> None:
    """The test part must hold whole numbers, too, where the training part does."""
    for array, place in zip(arrays, where, strict=True):
        test = _spread(array, place)
        if not test.whole or test.low < 0 or test.high > 65535:
            raise DataError(
                f"{place}: whole numbers like the training images' ({train.low:g} to {train.high:g}) are expected, got "
                f"values from {test.low:g} to {test.high:g}; bring both parts to one range"
            )


def _check_near(spread: _Spread, values: ValueRange, where: str, like: str) -> None:
    """Values far outside a range were scaled in another way."""
    usual = (values.low, values.high) in _USUAL
    slack = _SLACK[usual] * (values.high - values.low)
    if spread.low < values.low - slack or spread.high > values.high + slack:
        raise DataError(
            f"{where}: values from {values.low:g} to {values.high:g} are expected, like {like}, got {spread.low:g} to "
            f"{spread.high:g}; bring them to one range, or train with --pixel-range LOW,HIGH"
        )


def _said(values: ValueRange) -> str:
    given = ", as given" if values.given else ""
    return f"values from {values.low:g} (black) to {values.high:g} (white) were scaled to pixels{given}"


def _dark(train: _Spread) -> list[str]:
    """A note where whole numbers use so little of the range of 8 bits that they may mean another one."""
    if not 0 < train.high < 64:
        return []
    return [
        f"the highest value of a pixel is {train.high:g} of 255; if {train.high:g} means white, give --pixel-range "
        f"0,{train.high:g}"
    ]


def _cut_off(arrays: Sequence[NDArray[Any]], where: Sequence[str], values: ValueRange) -> list[str]:
    """A note about images with values outside the range."""
    images = 0
    for array, place in zip(arrays, where, strict=True):
        if array.size:
            _spread(array, place)
        for _, chunk in _chunks(array):
            flat = chunk.reshape(len(chunk), -1)
            images += int(((flat < values.low) | (flat > values.high)).any(axis=1).sum())
    if not images:
        return []
    verb = "has" if images == 1 else "have"
    return [f"{counted(images, 'image')} {verb} values outside this range, which became black or white"]
