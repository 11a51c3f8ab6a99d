"""CSV tables with all pixels of an image in one cell: ``emotion,pixels,Usage`` of FER2013."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.assemble import RawPart
from committee.data.formats.csv_columns import given_column
from committee.data.formats.csv_numbers import BOM, digit_table, first_cells, parsing, text_lines
from committee.data.formats.files import PARTS, Files
from committee.data.read_options import AS_IT_IS, ReadOptions
from committee.errors import DataError

_PIXELS = "pixels"
_USAGE = "usage"
_PARTS = {**PARTS, "publictest": "val", "privatetest": "test"}
_ROWS = 1000


def has_pixel_strings(files: Files, name: str) -> bool:
    """Whether a CSV file has a column `pixels` whose first cell holds several numbers."""
    lines = files.lines(name)
    head, row = (next(lines, b"").removeprefix(BOM) for _ in range(2))
    lines.close()
    names = _names(head, files.label(name))
    if _PIXELS not in names:
        return False
    cells = first_cells(row, files.label(name))
    return names.index(_PIXELS) < len(cells) and " " in cells[names.index(_PIXELS)].strip()


def _names(head: bytes, where: str) -> list[str]:
    return [cell.strip().lower() for cell in first_cells(head, where)]


def read_pixel_strings(
    files: Files, name: str, part: str, options: ReadOptions = AS_IT_IS
) -> dict[str, tuple[NDArray[Any], NDArray[np.str_] | None, str]]:
    """The images of such a file by part: (image, pixel), their labels or None, and where they are, for messages.

    Args:
        files: where the file is.
        name: its name there.
        part: the part of rows without a column `Usage`; `PublicTest` is "val", `PrivateTest` is "test".
        options: the column of labels, where the user says it; else it is the only other one.

    Raises:
        DataError: a cell that is no number, rows of several lengths, or a usage that is not known; the row is named.
    """
    where = files.label(name)
    text = text_lines(files, name, ",")
    names = _names(next(text).encode(), where)
    pixels = names.index(_PIXELS)
    usage = names.index(_USAGE) if _USAGE in names else None
    others = [column for column in range(len(names)) if column not in (pixels, usage)]
    label = given_column(names, len(names), options.label, where) if options.label and others else None
    if label is None and len(others) > 1:
        listed = ", ".join(names[column] for column in others)
        raise DataError(
            f"{where}: one column of labels beside the pixels is expected, got {listed}; say which: --label"
        )
    label = others[0] if label is None and others else label
    found: list[NDArray[Any]] = []
    labels: list[str] = []
    parts: list[str] = []
    length: int | None = None
    for first, rows in _blocks(text, where):
        for number, row in enumerate(rows, start=first):
            if len(row) != len(names):
                raise DataError(f"{where}: row {number} has {len(row)} columns, but the first row has {len(names)}")
            said = part if usage is None else _PARTS.get(row[usage].strip().lower(), "")
            if not said or (label is not None and not row[label].strip()):
                wanted = "a usage (Training, PublicTest, PrivateTest)" if not said else "a label"
                raise DataError(f"{where}: row {number} must have {wanted}, got {row}"[:200] + "; correct it")
            parts.append(said)
            labels.append("" if label is None else row[label].strip())
        length = length or len(rows[0][pixels].split())
        numbers = _numbers([row[pixels] for row in rows], length, first, where)
        found.append(numbers.astype(np.uint8) if numbers.max() <= 255 else numbers)
    if not found:
        raise DataError(f"{where}: a row for each image is expected below the header, got none; add the images")
    values, names_of, part_of = np.concatenate(found), np.array(labels), np.array(parts)
    return {
        each: (values[part_of == each], None if label is None else names_of[part_of == each], f"{where} [{each}]")
        for each in ("train", "val", "test")
        if (part_of == each).any()
    }


def _blocks(text: Iterator[str], where: str) -> Iterator[tuple[int, list[list[str]]]]:
    """Rows in blocks, with the number of each block's first row."""
    rows: list[list[str]] = []
    first = 2
    with parsing(where):
        for row in csv.reader(text):
            rows += [row] if row else []
            if len(rows) == _ROWS:
                yield first, rows
                first, rows = first + _ROWS, []
    if rows:
        yield first, rows


def _numbers(cells: list[str], length: int, first: int, where: str) -> NDArray[np.int32]:
    """The numbers in cells, (row, number)."""
    lines = [",".join(cell.split()) for cell in cells]
    numbers = digit_table("\n".join(lines).encode(), length)
    if numbers is not None and len(numbers) == len(cells):
        return numbers
    number = next((i for i, line in enumerate(lines) if digit_table(line.encode(), length) is None), 0)
    raise DataError(
        f"{where}: row {first + number} must have {length} whole numbers in its column {_PIXELS}, as the first row, "
        f"got {cells[number][:40]!r} ...; correct or remove the row"
    )


def raw_parts(files: Files, name: str, part: str, options: ReadOptions) -> tuple[dict[str, RawPart], list[str]]:
    """What `read_pixel_strings` finds as parts, and notes about those without labels.

    Raises:
        DataError: the training images have no labels.
    """
    parts, notes = {}, []
    for each, (values, labels, where) in read_pixel_strings(files, name, part, options).items():
        if labels is not None:
            parts[each] = RawPart(values, labels, where)
        elif part == "test":
            notes.append(f"{name} has no labels, so it was left out")
        else:
            raise DataError(
                f"{where}: a column of labels is expected beside the pixels, got none; add one called label"
            )
    return parts, notes
