"""What the columns of a table of images hold: options, header and values say which is the label."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.rows import plausible_shapes, square_shape
from committee.errors import DataError, nearest

LABEL_NAMES = ("label", "class", "target", "y", "labels", "digit")
_ROW_NUMBER_NAMES = ("id", "imageid", "image_id", "index", "", "unnamed: 0")

_PIXEL_CORRELATION = 0.4
"""A column that is correlated with its inner neighbour this much is a pixel: neighbouring pixels are alike."""


def header_of(first_row: Sequence[str]) -> tuple[str, ...] | None:
    """The names of the columns, in lower case, or None where the first row is not a header but an image.

    A header has no numbers behind its first cell, or names the label, or counts the columns (0, 1, 2, ...), or has
    pandas' names of repeated cells (0, 0.1, 0.2, ...): the first row of a table without a header, saved again.
    """
    cells = tuple(one_line(cell).lower() for cell in first_row)
    tail = list(cells[1:])
    named = any(name in cells for name in LABEL_NAMES)
    is_header = named or _is_counting(cells) or _is_renamed(cells) or not any(map(is_number, tail))
    return cells if is_header else None


def one_line(cell: object) -> str:
    """A cell without line ends, and without white space around it."""
    return " ".join(str(cell).split())


def _is_counting(cells: Sequence[str]) -> bool:
    """Whether the cells count the columns; the label's, the first or the last, may have a name instead."""
    numbers = [str(i) for i in range(len(cells) + 1)]
    if list(cells) == numbers[:-1]:
        return True
    return len(cells) > 9 and any(
        list(part) == numbers[start : start + len(part)] for part in (cells[1:], cells[:-1]) for start in (0, 1)
    )


def _is_renamed(cells: Sequence[str]) -> bool:
    """Whether repeated cells have got the names that pandas gives them: 0, 0.1, 0.2, ... for 0, 0, 0."""
    seen: Counter[str] = Counter()
    for cell in cells:
        base, _, number = cell.partition(".")
        if number != (str(seen[base]) if seen[base] else "") or not base.isdigit():
            return False
        seen[base] += 1
    return max(seen.values(), default=0) > 2


def is_number(cell: str) -> bool:
    """Whether a cell spells a number."""
    try:
        float(cell)
    except ValueError:
        return False
    return True


def row_numbers(names: Sequence[str] | None) -> tuple[int, ...]:
    """The columns that only number the rows, as their names say."""
    return tuple(i for i, name in enumerate(names or ()) if name in _ROW_NUMBER_NAMES)


def named_label(names: Sequence[str] | None, count: int, given: str | None, where: str) -> int | None:
    """The column of labels as the user or the header says; None where neither does.

    Args:
        names: the header, in lower case; None where there is none.
        count: how many columns there are.
        given: a name, or a position counted from 0 (from -1 backwards); None where the user says nothing.
        where: for messages.

    Raises:
        DataError: there is no such column.
    """
    names = names or ()
    if given is not None:
        return given_column(names, count, given, where)
    known_name = next((names.index(name) for name in LABEL_NAMES if name in names), None)
    return known_name if known_name is not None else _odd_name(names)


def given_column(names: Sequence[str], count: int, given: str, where: str) -> int:
    """The column that the user names, or whose position it gives, as in `named_label`.

    Raises:
        DataError: there is no such column.
    """
    wanted = given.strip().lower()
    if wanted in names:
        return list(names).index(wanted)
    try:
        return range(count)[int(wanted)]
    except (ValueError, IndexError):
        known = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "") if names else "no header"
        raise DataError(
            f"{where}: a column of labels called {given}, or one at that position (0 to {count - 1}, -1 for the "
            f"last), is expected as --label says, got {known}{nearest(wanted, list(names))}; correct it"
        ) from None


def _odd_name(names: Sequence[str]) -> int | None:
    """The only first or last column whose name is not made like all others: ``pixel0, pixel1, ..., character``."""
    inner = [i for i in range(len(names)) if i not in row_numbers(names)]
    stems = [re.sub(r"\d+", "0", names[i]) for i in inner]
    common, number = Counter(stems).most_common(1)[0] if stems else ("", 0)
    if "0" not in common or number != len(stems) - 1 or len(stems) < 4 or _is_renamed(names):
        return None
    return next((inner[i] for i in (0, -1) if stems[i] != common), None)


def grid_shape(names: Sequence[str]) -> tuple[int, int] | None:
    """Height and width of an image whose pixels are called by row and column: ``1x1, 1x2, ..., 20x15``."""
    matches = [re.fullmatch(r"\D*(\d+)\D+(\d+)", name) for name in names]
    places = [(int(match[1]), int(match[2])) for match in matches if match]
    if len(places) < max(len(names), 4):
        return None
    (top, left), (bottom, right) = places[0], places[-1]
    if places != [(row, column) for row in range(top, bottom + 1) for column in range(left, right + 1)]:
        return None
    height, width = bottom - top + 1, right - left + 1
    return (height, width) if min(height, width) > 1 else None


def label_columns(
    values: NDArray[Any],
    apart: Mapping[int, NDArray[Any]],
    columns: Sequence[int],
    pixels: int | None,
    where: str,
) -> tuple[int, ...]:
    """The columns of labels, found by their number and their values: one, several that are one-hot, or none.

    Args:
        values: (row, column) numbers.
        apart: the first and the last of `columns` as they are in the file: int64, or strings.
        columns: those that may be labels or pixels, at least two.
        pixels: how many pixels an image has; None where the user does not say.
        where: for messages.

    Raises:
        DataError: neither end looks like labels, or both do.
    """
    count = len(columns)
    for extra in (1, 0):
        if count - extra == pixels or (pixels is None and square_shape(count - extra)):
            return (_label_at_an_end(values, apart, columns, where),) if extra else ()
    if one_hot := _one_hot(values, columns, pixels):
        return one_hot
    if pixels is None and bool(plausible_shapes(count - 1)) != bool(plausible_shapes(count)):
        return (_label_at_an_end(values, apart, columns, where),) if plausible_shapes(count - 1) else ()
    expected = f"{pixels} pixels, as --shape says," if pixels else "k*k pixels (3*k*k for colour)"
    raise DataError(
        f"{where}: a label and {expected} are expected, such as 785 columns for 28x28, got {count} columns in the "
        "first row; add or remove some, or say which column is the label (--label) and what shape images have (--shape)"
    )


def _one_hot(values: NDArray[Any], columns: Sequence[int], pixels: int | None) -> tuple[int, ...]:
    """Columns at either end that are 0 but for a single 1 in each row, where the others make a square (semeion)."""
    for number in range(2, len(columns) // 2 + 1):
        left = len(columns) - number
        if left != pixels and (pixels is not None or not square_shape(left)):
            continue
        for chosen in (columns[-number:], columns[:number]):
            block = values[:, list(chosen)]
            if ((block == 0) | (block == 1)).all() and (block.sum(axis=1) == 1).all() and block.any(axis=0).all():
                return tuple(chosen)
    return ()


def _label_at_an_end(
    values: NDArray[Any], apart: Mapping[int, NDArray[Any]], columns: Sequence[int], where: str
) -> int:
    """The first or the last column, whichever holds classes where the other looks like a pixel."""
    first, last = columns[0], columns[-1]
    inner = {first: values[:, columns[1]], last: values[:, columns[-2]]}
    possible = {column: each for column in (first, last) if (each := _classes(apart[column])) is not None}
    text = [column for column, each in possible.items() if each.dtype.kind == "U"]
    unlike = [column for column in possible if column in text or not _like(possible[column], inner[column])]
    steady = [column for column in unlike if column in text or not _is_sparse(possible[column])]
    for remaining in (list(possible), unlike, steady, text):
        if len(remaining) == 1:
            return remaining[0]
    described = " and ".join(
        f"the {end} column ({_described(apart[column])})" for end, column in (("first", first), ("last", last))
    )
    both = "both may be" if len(possible) == 2 else "neither looks like"
    raise DataError(
        f"{where}: a column of labels is expected, got {described}, and {both} it; say which it is with --label "
        f"{first} or --label {-1 if last == max(apart) else last}, or name it in a header"
    )


def _classes(column: NDArray[Any]) -> NDArray[Any] | None:
    """A column as class numbers or names; None where it has fractions, one value only, or too many to be classes."""
    if column.dtype.kind == "U":
        try:
            numbers = column.astype(np.float64)
        except ValueError:
            numbers = None
        if numbers is not None:
            if not (np.abs(numbers) < 2**63).all() or (numbers != np.rint(numbers)).any():
                return None
            column = numbers.astype(np.int64)
    number = len(np.unique(column))
    return column if 2 <= number <= max(len(column) // 2, 2) else None


def _like(column: NDArray[np.int64], neighbour: NDArray[Any]) -> bool:
    """Whether a column goes with its inner neighbour, as pixels do: in its values, or in being background or not."""
    background = [np.abs(each - _most_common(each)) > 0 for each in (column, neighbour.astype(np.float64))]
    pairs = ((column, neighbour), tuple(background))
    return any(_correlation(*pair) >= _PIXEL_CORRELATION for pair in pairs)


def _correlation(one: NDArray[Any], other: NDArray[Any]) -> float:
    a, b = (each.astype(np.float64) - each.astype(np.float64).mean() for each in (one, other))
    scale = float(np.sqrt((a * a).sum() * (b * b).sum()))
    return float((a * b).sum()) / scale if scale else 0.0


def _most_common(column: NDArray[Any]) -> Any:
    values, counts = np.unique(column, return_counts=True)
    return values[counts.argmax()]


def _is_sparse(column: NDArray[np.int64]) -> bool:
    """Whether most values are one and the others have gaps, as in a corner that few images reach."""
    values, counts = np.unique(column, return_counts=True)
    return bool(counts.max() > len(column) / 2 and values[-1] - values[0] >= len(values))


def _described(column: NDArray[Any]) -> str:
    values = np.unique(column)
    if column.dtype.kind == "U":
        values = np.array(sorted(values, key=lambda cell: (not is_number(cell), float(cell) if is_number(cell) else 0)))
    if len(values) == 1:
        return f"always {one_line(values[0])[:40]}"
    return f"{len(values):,} values from {one_line(values[0])[:40]} to {one_line(values[-1])[:40]}"
