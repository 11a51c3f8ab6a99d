"""The cells of a CSV file -> numbers: digits by arrays of bytes, anything else row by row."""

from __future__ import annotations

import csv
import io
import os
import threading
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.csv_columns import is_number
from committee.data.formats.files import Files, reason
from committee.data.limits import limits
from committee.errors import DataError, counted

BOM = b"\xef\xbb\xbf"
"""What Windows writes before text in UTF-8."""

_CHUNK = 2**23
_BLOCK = 2**18
_THREADS = min(4, os.cpu_count() or 1)


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
    files: Files, name: str, count: int, delimiter: str, apart: Collection[int], *, has_header: bool
) -> NumberTable:
    """The table in a CSV file.

    Args:
        files: where it is.
        name: its name there.
        count: how many columns a row has.
        delimiter: what stands between cells.
        apart: the columns that may be labels: all others must be numbers.
        has_header: whether the first row is left out.

    Raises:
        DataError: there are no rows, one has too many or too few columns or a cell that is not a finite number (the row
            is named), or this is no CSV.
    """
    where = files.label(name)
    kinds = (np.uint8, np.int32) if delimiter == "," else ()
    for dtype in kinds:
        try:
            table = _digit_table(files, name, count, apart, np.dtype(dtype), has_header)
        except _TooLargeError:
            continue
        except _NoDigitsError:
            break
        if not len(table.values):
            raise _no_rows(where)
        return table
    text = text_lines(files, name, delimiter)
    if has_header:
        next(text)
    with parsing(where):
        return _any_table(csv.reader(text, delimiter=delimiter), count, apart, 2 if has_header else 1, where)


@contextmanager
def parsing(where: str) -> Iterator[None]:
    """While rows are parsed: what is no CSV becomes a `DataError`."""
    try:
        yield
    except csv.Error as error:
        raise DataError(
            f"{where}: a CSV table is expected, got something else ({reason(error)}); save it again"
        ) from error


def text_lines(files: Files, name: str, delimiter: str) -> Iterator[str]:
    """The lines of a table with their ends.

    Raises:
        DataError: one has more bytes than the limit `line` or more columns than the limit `columns`, or is not UTF-8.
    """
    where, sign, most = files.label(name), delimiter.encode(), limits()
    for number, line in enumerate(files.lines(name)):
        if len(line) > most.columns:
            most.check("columns", line.count(sign) + 1, f"{where}: line {number + 1}", "columns", "give smaller images")
        most.check("images", number, where, "rows of a table", "give a part of it")
        yield decoded(line if number else line.removeprefix(BOM), where)


def first_cells(line: bytes, where: str, delimiter: str = ",") -> list[str]:
    """The cells of a line; none where it is empty.

    Raises:
        DataError: it is no CSV in UTF-8, or has more columns than the limit `columns`.
    """
    limits().check("columns", line.count(delimiter.encode()) + 1, where, "columns", "give smaller images")
    with parsing(where):
        return next(csv.reader([decoded(line, where)], delimiter=delimiter), [])


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
    if not images:
        raise _no_rows(where)
    values = np.stack(images)
    whole = values[:, [column for column in range(count) if column not in kept]]
    if whole.size and whole.max() > 1 and (whole == np.rint(whole)).all():
        bounded = np.nan_to_num(values, nan=0.0)
        if (bounded == np.rint(bounded)).all() and np.abs(bounded).max() < 2**31:
            values = bounded.astype(np.int32)
    return NumberTable(values, {column: np.array(cells) for column, cells in kept.items()}, np.array(numbers))


def _numbers_of(row: list[str], apart: Collection[int], place: str) -> NDArray[np.float32]:
    """The cells of a row as numbers; all but those kept apart must be finite."""
    try:
        with np.errstate(over="ignore"):  # what does not fit is found to be infinite
            cells = np.array(row, dtype=np.float32)
    except ValueError:
        wrong = next(i for i, cell in enumerate(row) if not is_number(cell))
        raise not_a_number(place, wrong, row[wrong]) from None
    for column in np.flatnonzero(~np.isfinite(cells)):
        if column not in apart:
            raise not_a_number(place, int(column), row[column], "finite ")
    return cells


def _no_rows(where: str) -> DataError:
    return DataError(f"{where}: a row for each image is expected below the header, got none; add the images")


def not_a_number(place: str, column: int, cell: str, kind: str = "") -> DataError:
    """The error about a cell, whose column is counted from 0."""
    return DataError(f"{place}, column {column + 1} must hold a {kind}number, got {cell!r}; correct or remove the row")


class _NoDigitsError(Exception):
    """There is something else than digits, commas and line ends, or a row has another number of columns."""


class _TooLargeError(Exception):
    """A pixel does not fit the type of the table."""


def _digit_table(
    files: Files, name: str, count: int, apart: Collection[int], dtype: np.dtype[Any], has_header: bool
) -> NumberTable:
    """A CSV file of non-negative integers: several threads take blocks of lines in turn and parse them.

    Rows are counted as blocks are read, so there is room for an estimate; its pages take memory once they are used.
    """
    columns = sorted(apart)
    others = np.array([column for column in range(count) if column not in apart], dtype=np.int64)
    lock, failed = threading.Lock(), threading.Event()
    parsed: list[NDArray[Any]] = []  # where the rows of each block stand, in the order of the file
    kept: dict[int, NDArray[np.int64]] = {}
    room = whole = np.empty((0, count), dtype)

    def parse_blocks() -> None:
        nonlocal room, whole
        buffer = bytearray()  # the same one for all blocks: new memory would take longer than the parsing
        while not failed.is_set():
            with lock:
                end = lines.into(buffer)
                if not end:
                    return
                rows, number = _count_lines(np.frombuffer(buffer, np.uint8, end)), len(parsed)
                if rows > len(room):
                    room = whole = np.empty((_estimate(files, name, end, rows, sum(map(len, parsed))), count), dtype)
                parsed.append(room[:rows])
                room = room[rows:]
            try:
                kept[number] = _parse(np.frombuffer(buffer, np.uint8, end), parsed[number], columns, others)
            except Exception:
                failed.set()
                raise

    with files.open(name) as file, ThreadPoolExecutor(_THREADS) as pool:
        lines = _Lines(file, files.label(name), has_header=has_header)
        for future in [pool.submit(parse_blocks) for _ in range(_THREADS)]:
            future.result()
    filled = sum(map(len, parsed))
    in_one = len(whole) - len(room) == filled
    labels = np.concatenate([kept[i] for i in range(len(kept))]) if kept else np.empty((0, len(columns)), np.int64)
    first = 2 if has_header else 1
    return NumberTable(
        whole[:filled] if in_one else np.concatenate(parsed),
        {column: np.ascontiguousarray(labels[:, i]) for i, column in enumerate(columns)},
        np.arange(first, first + filled),
    )


def _count_lines(text: NDArray[np.uint8]) -> int:
    """The number of line feeds; several times as fast as `bytes.count`, which stops at each."""
    return int(np.count_nonzero(np.equal(text, 10, out=_workspace(len(text))[0, : len(text)].view(np.bool_))))


def _estimate(files: Files, name: str, block: int, rows: int, filled: int) -> int:
    """More rows than a file is likely to have, judged by one of its blocks, which has so many bytes and rows."""
    packed = 40 if name.endswith(".gz") else 1.1
    return max(int(files.size(name) * packed * rows / block), 2 * filled) + rows + 16


class _Lines:
    """The lines of a file, a block of about `_BLOCK` bytes at a time.

    Args:
        file: at its beginning.
        where: the file, for messages.
        has_header: whether the first line is left out.
    """

    def __init__(self, file: BinaryIO, where: str, *, has_header: bool) -> None:
        first = file.readline()
        self.file, self.where = file, where
        self.rest = b"" if has_header else first.removeprefix(BOM)

    def into(self, buffer: bytearray) -> int:
        """Put the next whole lines into a buffer, each ended by a line feed, without blank lines at their end.

        Returns:
            Where they end in the buffer; 0 where there are none left.
        """
        end, got = 0, 1
        while got and not end:
            missing = len(self.rest) + _BLOCK + 1 - len(buffer)
            if missing > 0:
                buffer.extend(bytes(missing + _BLOCK // 8))
            buffer[: len(self.rest)] = self.rest
            with memoryview(buffer) as view:
                got = cast(io.BufferedIOBase, self.file).readinto(view[len(self.rest) : -1])
            size = len(self.rest) + got
            if not got and self.rest.strip():
                buffer[size] = 10  # the last line may have no end
                size += 1
            end = buffer.rfind(b"\n", 0, size) + 1
            self.rest = bytes(buffer[end:size])
            limits().check("line", len(self.rest), self.where, "bytes in a line")
            if buffer.find(b"\r", 0, end) >= 0:
                lines = buffer[:end].replace(b"\r\n", b"\n")
                end = len(lines)
                buffer[:end] = lines
            if bytes(buffer[max(end - 2, 0) : end]) in (b"\n\n", b"\n"):
                end = len(buffer[:end].rstrip(b"\n"))
                end += end > 0
        return end


def _parse(
    text: NDArray[np.uint8], out: NDArray[Any], columns: Sequence[int], others: NDArray[np.int64]
) -> NDArray[np.int64]:
    """The numbers of whole lines, written to `out`, (row, column); those of some columns are returned.

    Raises:
        _NoDigitsError: this is no table of integers below 100,000.
        _TooLargeError: a number in `others` does not fit `out`.
    """
    if out.dtype == np.uint8 and _parse_bytes(text, out):
        return out[:, columns].astype(np.int64)
    numbers = _digit_block(text, out.shape[1])
    if numbers is None or len(numbers) != len(out):
        raise _NoDigitsError
    if out.dtype == np.uint8 and (numbers[:, others] > 255).any():
        raise _TooLargeError
    out[:] = numbers
    return numbers[:, columns].astype(np.int64)


def _parse_bytes(text: NDArray[np.uint8], out: NDArray[np.uint8]) -> bool:
    """Whether lines hold numbers up to 255 and nothing else, which are then written to `out`.

    For every position of the text at once, the number that would end there: a digit, ten times the one before, and a
    hundred times the one before that; then those in front of separators are taken. All in bytes, which processors
    handle 32 or 64 at a time, and in arrays that each thread keeps: new ones cost more than the arithmetic.
    """
    length = len(text)
    if length < 3:
        return False
    separators, is_digit, digits, triples, numbers = (each[: length + 1] for each in _workspace(length + 1))
    separators, is_digit, digits, triples = separators[:-1], is_digit[:-1], digits[:-1], triples[:-3]
    ends = np.flatnonzero(np.less(text, 48, out=separators.view(np.bool_)))
    if (
        len(ends) != out.size
        or separators[0]
        or text.max() > 57
        or (text[ends[out.shape[1] - 1 :: out.shape[1]]] != 10).any()
    ):
        return False
    if np.count_nonzero(np.equal(text, 44, out=digits.view(np.bool_))) != len(ends) - len(out):
        return False
    if np.bitwise_and(separators[1:], separators[:-1], out=digits[1:]).max():
        return False  # an empty cell
    np.bitwise_xor(separators, 1, out=is_digit)
    np.bitwise_and(text, 15, out=digits)
    digits *= is_digit
    np.bitwise_and(is_digit[:-2], is_digit[1:-1], out=triples)
    triples &= is_digit[2:]
    if np.bitwise_and(triples[1:], triples[:-1], out=is_digit[3:]).max(initial=0):
        return False  # four digits
    tens = np.multiply(digits[1:-1], 10, out=is_digit[2:])
    tens += digits[2:]
    hundreds = digits[:-2]
    hundreds *= triples
    if hundreds.max() > 2:
        return False
    hundreds *= 100
    ending = np.add(hundreds, tens, out=numbers[3:])  # at each position the number that ends before it
    if np.less(ending, tens, out=triples.view(np.bool_)).any():
        return False  # over 255
    flat = out.reshape(-1)
    numbers.take(ends, out=flat, mode="clip")  # the default mode would buffer `out`
    flat[0] = int(text[: ends[0]].tobytes())  # it may have fewer than two characters before it; all others have more
    return True


_kept = threading.local()


def _workspace(length: int) -> NDArray[np.uint8]:
    """Five arrays of at least this length, the same ones whenever a thread asks."""
    arrays: NDArray[np.uint8] | None = getattr(_kept, "arrays", None)
    if arrays is None or arrays.shape[1] < length:
        arrays = _kept.arrays = np.empty((5, length + _BLOCK // 8), np.uint8)
    return arrays


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
        block = _digit_block(np.frombuffer(body, np.uint8, end - start, start), columns)
        if block is None:
            return None
        blocks.append(block)
        start = end
    return np.concatenate(blocks)


def _digit_block(characters: NDArray[np.uint8], columns: int) -> NDArray[np.int32] | None:
    """`digit_table` for whole lines: separators tell where each number ends, its digits are added place by place."""
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
