"""CSV tables with a label and a pixel a column, as Kaggle's digit recogniser has them."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrays import joined, with_validation
from committee.data.formats.assemble import RawPart, RawSet, square_shape
from committee.data.formats.files import Files, names_by_part, reason
from committee.errors import DataError

LABEL_NAMES = ("label", "class", "target", "y", "labels", "digit")
_ROW_NUMBER_NAMES = ("id", "imageid", "image_id", "index", "", "unnamed: 0")

_CHUNK = 2**23


@dataclass(frozen=True)
class _Columns:
    """Which columns of a CSV hold what; positions in a row."""

    count: int
    label: int | None
    pixels: tuple[int, ...]
    has_header: bool


def read_csv_set(files: Files) -> RawSet:
    """The data set of a CSV file, or of ``train.csv`` and ``test.csv`` beside each other.

    The label is the column called label, class, target or y, or else the first; the others are pixels, row by row,
    the channels of a pixel side by side. A test file without labels (Kaggle's) is left out, with a note.

    Raises:
        DataError: no label column, a row with another number of columns or with a cell that is no number (row named).
    """
    parts: dict[str, RawPart] = {}
    notes = []
    for part, names in names_by_part(files, (".csv", ".csv.gz")).items():
        for name in names:
            values, labels = read_csv(files, name)
            if labels is None and part == "test":
                notes.append(f"{name} has no labels and was left out")
            elif labels is None:
                raise DataError(
                    f"{files.label(name)}: there is no label column: {values.shape[1]} pixels a row and nothing else; "
                    "add a first column of labels, or one called label"
                )
            else:
                new = RawPart(values, labels, files.label(name))
                parts[part] = joined(parts[part], new) if part in parts else new
    return with_validation(parts, notes=tuple(notes))


def read_csv(files: Files, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The pixels of a CSV file, (image, pixel) numbers, and its labels, (image,), where it has them.

    Raises:
        DataError: as `read_csv_set`, or the file is empty.
    """
    where = files.label(name)
    content = files.read(name).removeprefix(b"\xef\xbb\xbf")
    first = content[: content.find(b"\n")] if b"\n" in content else content
    if not first.strip():
        raise DataError(f"{where}: the file is empty; a row of a label and pixels for each image is expected")
    delimiter = max(",;\t", key=lambda sign: first.count(sign.encode()))
    columns = _columns(next(csv.reader([_text(first, where)], delimiter=delimiter)), where)
    body = content[len(first) + 1 :] if columns.has_header else content
    if not body.strip():
        raise DataError(f"{where}: there are no images below the header; a row for each image is expected")
    numbers = digit_table(body, columns.count) if delimiter == "," else None
    if numbers is not None:
        labels = None if columns.label is None else numbers[:, columns.label].astype(np.int64)
        first_pixel, last_pixel = columns.pixels[0], columns.pixels[-1]
        if columns.pixels == tuple(range(first_pixel, last_pixel + 1)):
            return numbers[:, first_pixel : last_pixel + 1], labels
        return numbers[:, columns.pixels], labels
    try:
        return _any_table(csv.reader(io.StringIO(_text(body, where), newline=""), delimiter=delimiter), columns, where)
    except csv.Error as error:
        raise DataError(f"{where}: this is no readable CSV ({reason(error)}); save the table again") from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: this is no text in UTF-8 ({reason(error)}); save the table as CSV in UTF-8"
        ) from error


def _columns(first_row: list[str], where: str) -> _Columns:
    cells = [cell.strip().lower() for cell in first_row]
    named = next((cells.index(name) for name in LABEL_NAMES if name in cells), None)
    counted = cells == [str(position) for position in range(len(cells))]
    has_header = named is not None or counted or not any(map(_is_number, cells[1:]))
    rest = [i for i, cell in enumerate(cells) if i != named and not (has_header and cell in _ROW_NUMBER_NAMES)]
    if named is None and square_shape(len(rest) - 1):
        named, rest = rest[0], rest[1:]
    if not square_shape(len(rest)):
        raise DataError(
            f"{where}: the first row has {len(cells)} columns; a label and k*k pixels (or 3*k*k, 4*k*k for colour) are "
            "expected, such as 785 for 28x28"
        )
    return _Columns(len(cells), named, tuple(rest), has_header)


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _any_table(
    rows: Iterator[list[str]], columns: _Columns, where: str
) -> tuple[NDArray[Any], NDArray[np.str_] | None]:
    """The slow way, for names as labels, fractions and faults: row by row, each fault with its row."""
    images: list[NDArray[np.float32]] = []
    labels: list[str] = []
    for number, row in enumerate(rows, start=2 if columns.has_header else 1):
        if not row:
            continue
        if len(row) != columns.count:
            raise DataError(
                f"{where}: row {number} has {len(row)} columns, but the first row has {columns.count}; mend or remove "
                "the row"
            )
        try:
            image = np.array([row[i] for i in columns.pixels], dtype=np.float32)
        except ValueError:
            wrong = next(i for i in columns.pixels if not _is_number(row[i]))
            raise DataError(
                f"{where}: row {number}, column {wrong + 1} holds {row[wrong]!r}, which is no number; mend or remove "
                "the row"
            ) from None
        if not np.isfinite(image).all():
            wrong = columns.pixels[int(np.flatnonzero(~np.isfinite(image))[0])]
            raise DataError(
                f"{where}: row {number}, column {wrong + 1} holds {row[wrong]!r}, which is no pixel (NaN or infinite); "
                "mend or remove the row"
            )
        images.append(image)
        if columns.label is not None:
            labels.append(row[columns.label].strip())
            if not labels[-1]:
                raise DataError(f"{where}: row {number} has no label; fill it in or remove the row")
    values = np.stack(images)
    if values.max() > 1 and (values == np.rint(values)).all():
        values = values.astype(np.int32)
    return values, None if columns.label is None else np.array(labels)


def digit_table(body: bytes, columns: int) -> NDArray[np.int32] | None:
    """A CSV body of plain non-negative integers as an array, several times faster than numpy's own reader.

    Args:
        body: lines of `columns` numbers with commas between them, no header.
        columns: numbers a line.

    Returns:
        (row, column); None where anything else stands in it, which a slower reader then reads or names.
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
    """Whole lines: the separators' positions give each number's end and length, its digits are added place by place."""
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
