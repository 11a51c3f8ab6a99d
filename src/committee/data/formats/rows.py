"""Images as rows of numbers: how many values a row has -> height, width and channels, where that is clear."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from math import isqrt, prod
from typing import TYPE_CHECKING

from committee.errors import DataError

if TYPE_CHECKING:
    from committee.data.formats.assemble import RawPart

Shape = tuple[int, int, int]
"""Height, width, channels."""

_USUAL_SIDES = (8, 16, 28, 32, 48, 64, 96, 128, 224)
"""Sides of the squares that colour images in rows are stored as, by those who make such files."""

_LONGEST = 2
"""How many times as long as the shorter side the longer one may be, for a guess."""


def square_shape(columns: int) -> Shape | None:
    """(height, width, channels) of a flattened square image, channels last; None if no square image fits."""
    for channels in (1, 3, 4):
        side = isqrt(columns // channels)
        if side and side * side * channels == columns:
            return side, side, channels
    return None


def plausible_shapes(columns: int) -> list[Shape]:
    """What a row of so many values may be, the likeliest first: an only one is certain enough to be taken.

    A square number is a grey square, and three times the square of a usual side is a square in three colours. Else grey
    and colour images come into question whose longer side is at most twice the shorter one.
    """
    square = square_shape(columns)
    if square and (square[2] == 1 or square[0] in _USUAL_SIDES):
        return [square]
    shapes = [
        (height, columns // channels // height, channels)
        for channels in (1, 3)
        for height in range(2, isqrt(columns * _LONGEST // channels) + 1)
        if columns % (channels * height) == 0 and 2 <= columns // channels // height <= _LONGEST * height
    ]
    return sorted(shapes, key=lambda shape: (abs(shape[0] - shape[1]) / (shape[0] + shape[1]), -shape[0]))


def with_shapes(parts: Sequence[RawPart], shape: Shape | None) -> tuple[list[RawPart], list[str]]:
    """Parts whose rows of values have become images, and notes about what was guessed.

    Args:
        parts: those whose values are (image, value) are changed; others must be of the given size already.
        shape: what the user says; None to guess.

    Raises:
        DataError: a row does not have the values of the given shape, or several shapes are plausible.
    """
    shaped, notes = [], []
    for part in parts:
        values = part.values
        if values.ndim == 2:
            chosen, note = shape_of_row(values.shape[1], part.where, shape)
            notes += note
            part = replace(part, values=values.reshape(len(values), *chosen))
        elif shape is not None and prod(values.shape[1:]) != prod(shape):
            raise _wrong_size(part.where, prod(values.shape[1:]), shape)
        shaped.append(part)
    return shaped, list(dict.fromkeys(notes))


def shape_of_row(columns: int, where: str, given: Shape | None = None) -> tuple[Shape, list[str]]:
    """The shape of an image that is a row of so many values, and a note where it is a guess.

    Raises:
        DataError: as in `with_shapes`.
    """
    if given is not None:
        if prod(given) != columns:
            raise _wrong_size(where, columns, given)
        return given, []
    plausible = plausible_shapes(columns)
    if len(plausible) == 1:
        height, width, channels = plausible[0]
        if channels == 1:
            return plausible[0], []
        return plausible[0], [
            f"rows of {columns:,} values were read as {height}x{width} pixels of {channels} colours, the colours of a "
            "pixel side by side; --shape H,W,C says otherwise"
        ]
    if not plausible:
        raise DataError(
            f"{where}: {columns:,} values in a row do not make a square image of 1 or 3 channels; give k*k or 3*k*k "
            "values, the shape of the images (--shape H,W or H,W,C), or an array (image, height, width, channel)"
        )
    listed = ", ".join("x".join(map(str, each)) for each in plausible[:4]) + (", ..." if len(plausible) > 4 else "")
    raise DataError(
        f"{where}: {columns:,} values in a row may be images of several shapes (height x width x channels: {listed}); "
        "say which with --shape H,W or H,W,C"
    )


def _wrong_size(where: str, columns: int, given: Shape) -> DataError:
    return DataError(
        f"{where}: images of {'x'.join(map(str, given))} ({prod(given):,} values) are expected as --shape says, got "
        f"{columns:,} values each; correct the shape, or leave it out"
    )
