"""CSV tables with a row for each image: a label and a column for each pixel, like Kaggle's Digit Recognizer."""

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
from committee.errors import DataError, counted

LABEL_NAMES = ("label", "class", "target", "y", "labels", "digit")
_ROW_NUMBER_NAMES = ("id", "imageid", "image_id", "index", "", "unnamed: 0")

_CHUNK = 2**23


@dataclass(frozen=True)
class _Columns:
    """What the columns of a CSV file hold.

    Attributes:
        count: how many there are.
        label: position of the labels, None where there are none.
        pixels: positions of the pixels.
        has_header: whether the first row holds names.
    """

    count: int
    label: int | None
    pixels: tuple[int, ...]
    has_header: bool


def read_csv_set(files: Files) -> RawSet:
    """The data set in a CSV file, or in ``train.csv`` and ``test.csv`` side by side.

    The label is the column called label, class, target or y, or else the first; the others are pixels, row by row,
    with the channels of a pixel side by side. A test file without labels (Kaggle's) is left out, with a note.

    Raises:
        DataError: there is no label column, or a row has too many or too few columns or a cell that is not a number
            (the row is named).
    """
    parts: dict[str, RawPart] = {}
    notes = []
    for part, names in names_by_part(files, (".csv", ".csv.gz")).items():
        for name in names:
            values, labels = read_csv(files, name)
            if labels is None and part == "test":
                notes.append(f"{name} has no labels, so it was left out")
            elif labels is None:
                raise DataError(
                    f"{files.label(name)}: a column of labels is expected, got {values.shape[1]} pixels and nothing "
                    "else; add one called label, or make it the first"
                )
            else:
                new = RawPart(values, labels, files.label(name))
                parts[part] = joined(parts[part], new) if part in parts else new
    return with_validation(parts, notes=tuple(notes))


def read_csv(files: Files, name: str) -> tuple[NDArray[Any], NDArray[Any] | None]:
    """The pixels of a CSV file, (image, pixel), and its labels, (image,), or None where it has no labels.

    Raises:
        DataError: as in `read_csv_set`, or the file is empty.
    """
    where = files.label(name)
    content = files.read(name).removeprefix(b"\xef\xbb\xbf")
    first = content[: content.find(b"\n")] if b"\n" in content else content
    if not first.strip():
        raise DataError(f"{where}: a row of a label and pixels for each image is expected, got an empty file; fill it")
    delimiter = max(",;\t", key=lambda sign: first.count(sign.encode()))
    columns = _columns(next(csv.reader([_text(first, where)], delimiter=delimiter)), where)
    body = content[len(first) + 1 :] if columns.has_header else content
    if not body.strip():
        raise DataError(f"{where}: a row for each image is expected below the header, got none; add the images")
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
        raise DataError(
            f"{where}: a CSV table is expected, got something else ({reason(error)}); save it again"
        ) from error


def _text(content: bytes, where: str) -> str:
    try:
        return content.decode()
    except UnicodeDecodeError as error:
        raise DataError(
            f"{where}: text in UTF-8 is expected, got something else ({reason(error)}); save the table as CSV in UTF-8"
        ) from error


def _columns(first_row: list[str], where: str) -> _Columns:
    cells = [cell.strip().lower() for cell in first_row]
    named = next((cells.index(name) for name in LABEL_NAMES if name in cells), None)
    numbered = cells == [str(position) for position in range(len(cells))]
    has_header = named is not None or numbered or not any(map(_is_number, cells[1:]))
    rest = [i for i, cell in enumerate(cells) if i != named and not (has_header and cell in _ROW_NUMBER_NAMES)]
    if named is None and square_shape(len(rest) - 1):
        named, rest = rest[0], rest[1:]
    if not square_shape(len(rest)):
        raise DataError(
            f"{where}: a label and k*k pixels (3*k*k or 4*k*k for colour) are expected, such as 785 columns for 28x28, "
            f"got {counted(len(cells), 'column')} in the first row; add or remove some"
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
    """The slow way, row by row: for names as labels and fractions as pixels, and to name the row of a fault."""
    images: list[NDArray[np.float32]] = []
    labels: list[str] = []
    for number, row in enumerate(rows, start=2 if columns.has_header else 1):
        if not row:
            continue
        place = f"{where}: row {number}"
        if len(row) != columns.count:
            raise DataError(
                f"{place} has {counted(len(row), 'column')}, but the first row has {columns.count}; correct or remove "
                "the row"
            )
        images.append(_pixels_of(row, columns, place))
        if columns.label is not None:
            labels.append(row[columns.label].strip())
            if not labels[-1]:
                raise DataError(f"{place} has no label; fill it in or remove the row")
    values = np.stack(images)
    if values.max() > 1 and (values == np.rint(values)).all():
        values = values.astype(np.int32)
    return values, None if columns.label is None else np.array(labels)


def _pixels_of(row: list[str], columns: _Columns, place: str) -> NDArray[np.float32]:
    """The pixels of a row; all must be finite numbers."""
    try:
        image = np.array([row[i] for i in columns.pixels], dtype=np.float32)
    except ValueError:
        wrong = next(i for i in columns.pixels if not _is_number(row[i]))
        raise DataError(
            f"{place}, column {wrong + 1} must hold a number, got {row[wrong]!r}; correct or remove the row"
        ) from None
    if not np.isfinite(image).all():
        wrong = columns.pixels[int(np.flatnonzero(~np.isfinite(image))[0])]
        raise DataError(
            f"{place}, column {wrong + 1} must hold a finite number, got {row[wrong]!r}; correct or remove the row"
        )
    return image


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
