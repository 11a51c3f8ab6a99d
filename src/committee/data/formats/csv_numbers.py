"""The cells of a CSV file -> numbers: digits by arrays of bytes, anything else row by row."""

from __future__ import annotations

import csv
import io
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.csv_columns import is_number
from committee.data.formats.files import reason
from committee.errors import DataError, counted

_CHUNK = 2**23


@dataclass(frozen=True)
class NumberTable:
    """The cells of a table.

    Attributes:
        values: (row, column): integers, or float32 where there are fractions; NaN where a cell kept apart is no number.
        apart: the columns that may be labels, as they are in the file: int64, or strings.
        rows: (row,) the row's number in the file, counted from 1 with the header, for messages.
    """

    values: NDArray[Any]
    apart: dict[int, NDArray[Any]]
    rows: NDArray[np.int64]


def number_table(
    body: bytes, count: int, delimiter: str, apart: Collection[int], first_row: int, where: str
) -> NumberTable:
    """The table in the text of a CSV file.

    Args:
        body: the text without its header.
        count: how many columns a row has.
        delimiter: what stands between cells.
        apart: the columns that may be labels: all others must be numbers.
        first_row: the number of the first row in the file.
        where: for messages.

    Raises:
        DataError: a row has too many or too few columns or a cell that is not a finite number (the row is named), or
            this is no CSV.
    """
    numbers = digit_table(body, count) if delimiter == "," else None
    if numbers is not None:
        rows = np.arange(first_row, first_row + len(numbers))
        return NumberTable(numbers, {column: numbers[:, column].astype(np.int64) for column in apart}, rows)
    try:
        return _any_table(
            csv.reader(io.StringIO(decoded(body, where), newline=""), delimiter=delimiter),
            count,
            apart,
            first_row,
            where,
        )
    except csv.Error as error:
        raise DataError(
            f"{where}: a CSV table is expected, got something else ({reason(error)}); save it again"
        ) from error


def decoded(content: bytes, where: str) -> str:
    """Text in UTF-8.

    Raises:
        DataError: it is not.
    """
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: text in UTF-8 is expected, got something else ({reason(error)}); save the table as CSV in UTF-8"
        ) from error


def _any_table(
    rows: Iterator[list[str]], count: int, apart: Collection[int], first_row: int, where: str
) -> NumberTable:
    """The slow way, row by row: for names as labels and fractions as pixels, and to name the row of a fault."""
    images: list[NDArray[np.float32]] = []
    kept: dict[int, list[str]] = {column: [] for column in apart}
    numbers = []
    for number, row in enumerate(rows, start=first_row):
        if not row:
            continue
        place = f"{where}: row {number}"
        if len(row) != count:
            raise DataError(
                f"{place} has {counted(len(row), 'column')}, but the first row has {count}; correct or remove the row"
            )
        for column, cells in kept.items():
            cells.append(row[column].strip())
            if not is_number(row[column]):
                row[column] = "nan"
        images.append(_numbers_of(row, apart, place))
        numbers.append(number)
    values = np.stack(images)
    whole = values[:, [column for column in range(count) if column not in kept]]
    if whole.size and whole.max() > 1 and (whole == np.rint(whole)).all():
        bounded = np.nan_to_num(values, nan=0.0)
        if (bounded == np.rint(bounded)).all():
            values = bounded.astype(np.int32)
    return NumberTable(values, {column: np.array(cells) for column, cells in kept.items()}, np.array(numbers))


def _numbers_of(row: list[str], apart: Collection[int], place: str) -> NDArray[np.float32]:
    """The cells of a row as numbers; all but those kept apart must be finite."""
    try:
        cells = np.array(row, dtype=np.float32)
    except ValueError:
        wrong = next(i for i, cell in enumerate(row) if not is_number(cell))
        raise not_a_number(place, wrong, row[wrong]) from None
    for column in np.flatnonzero(~np.isfinite(cells)):
        if column not in apart:
            raise not_a_number(place, int(column), row[column], "finite ")
    return cells


def not_a_number(place: str, column: int, cell: str, kind: str = "") -> DataError:
    """The error about a cell, whose column is counted from 0."""
    return DataError(f"{place}, column {column + 1} must hold a {kind}number, got {cell!r}; correct or remove the row")


def digit_table(body: bytes, columns: int) -> NDArray[np.int32] | None:
    """A CSV body of non-negative integers as an array, several times faster than numpy's own reader.

    Args:
        body: lines of numbers separated by commas, without a header.
        columns: how many numbers a line has.

    Returns:
        (row, column); None where there is anything else in it, which is then left to a slower reader.
    """
    body = body.replace(b"\r\n", b"\n").rstrip(b"\n") + b"\n"
    blocks = []
    start = 0
    while start < len(body):
        end = body.find(b"\n", min(start + _CHUNK, len(body) - 1)) + 1
        block = _digit_block(body[start:end], columns)
        if block is None:
            return None
        blocks.append(block)
        start = end
    return np.concatenate(blocks)


def _digit_block(body: bytes, columns: int) -> NDArray[np.int32] | None:
    """`digit_table` for whole lines: separators tell where each number ends, its digits are added place by place."""
    characters = np.frombuffer(body, np.uint8)
    digit = (characters >= 48) & (characters <= 57)
    newline = characters == 10
    if not (digit | newline | (characters == 44)).all():
        return None
    ends = np.flatnonzero(~digit)
    lengths = np.diff(ends, prepend=-1) - 1
    is_newline = newline[ends]
    if len(ends) % columns or lengths.min() < 1 or lengths.max() > 5:
        return None
    if not is_newline[columns - 1 :: columns].all() or is_newline.sum() != len(ends) // columns:
        return None
    values = characters[ends - 1].astype(np.int32) - 48
    for place in range(1, int(lengths.max())):
        longer = np.flatnonzero(lengths > place)
        values[longer] += (characters[ends[longer] - 1 - place].astype(np.int32) - 48) * np.int32(10**place)
    return values.reshape(-1, columns)
