"""CSV tables with a row for each image: a label and a column for each pixel, like Kaggle's Digit Recognizer."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats import csv_columns
from committee.data.formats.arrays import joined, with_validation
from committee.data.formats.assemble import RawPart, RawSet
from committee.data.formats.csv_numbers import BOM, NumberTable, first_cells, not_a_number, number_table
from committee.data.formats.emnist import as_emnist
from committee.data.formats.files import Files, names_by_part
from committee.data.formats.groups import group_column
from committee.data.formats.kinds import names_an_image
from committee.data.formats.pixel_strings import has_pixel_strings, raw_parts, read_pixel_strings
from committee.data.limits import limits
from committee.data.read_options import AS_IT_IS, ReadOptions
from committee.errors import DataError

_ROWS = 256

ENDINGS = (".csv", ".csv.gz")


@dataclass(frozen=True)
class CsvTable:
    """What a CSV file holds.

    Attributes:
        values: (image, pixel), or (image, height, width) where the header says it.
        labels: (image,), or one-hot (image, class); None where there are none.
        count: how many columns the file has.
        label_columns: where the labels stand.
        notes: what was found out without being said.
        groups: (image,) strings: which images belong together, as the column says that the user names; None for none.
    """

    values: NDArray[Any]
    labels: NDArray[Any] | None
    count: int
    label_columns: tuple[int, ...]
    notes: tuple[str, ...] = ()
    groups: NDArray[np.str_] | None = None


def read_csv_set(files: Files, options: ReadOptions = AS_IT_IS) -> RawSet:
    """The data set in a CSV file, or in ``train.csv`` and ``test.csv`` side by side.

    The label is the column that the options or the header name, or else the first or the last, as its values say; the
    others are pixels, row by row, with the channels of a pixel side by side. A test file without labels (Kaggle's) is
    left out, with a note. Files with all pixels in one cell (FER2013) are read by pixel_strings.py.

    Raises:
        DataError: there is no label column, or a row has too many or too few columns or a cell that is not a number
            (the row is named).
    """
    parts: dict[str, RawPart] = {}
    notes: list[str] = []
    first: CsvTable | None = None
    for part, names in names_by_part(files, ENDINGS).items():
        for name in names:
            if has_pixel_strings(files, name):
                found, remarks = raw_parts(files, name, part, options)
                for each, one in found.items():
                    parts[each] = joined(parts[each], one) if each in parts else one
                notes += remarks
                continue
            table = read_csv(files, name, options, first)
            if table.labels is None and part == "test":
                notes.append(f"{name} has no labels, so it was left out")
            elif table.labels is None:
                raise DataError(
                    f"{files.label(name)}: a column of labels is expected, got {prod(table.values.shape[1:])} pixels "
                    "and nothing else; add one called label, or make it the first"
                )
            else:
                first = first or table
                notes += table.notes
                new = RawPart(table.values, table.labels, files.label(name), groups=table.groups)
                parts[part] = joined(parts[part], new) if part in parts else new
    name = names_by_part(files, ENDINGS)["train"][0].rpartition("/")[2].lower()
    emnist = as_emnist(name.partition("train")[0], parts)
    return emnist or with_validation(parts, notes=tuple(notes))


def read_csv_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one CSV file, with their place for messages; labels are ignored."""
    if has_pixel_strings(files, name):
        for values, _, where in read_pixel_strings(files, name, "train").values():
            yield where, values
    else:
        yield files.label(name), read_csv(files, name).values


def read_csv(files: Files, name: str, options: ReadOptions = AS_IT_IS, like: CsvTable | None = None) -> CsvTable:
    """The pixels of a CSV file and its labels.

    Args:
        files: where it is.
        name: its name there.
        options: the column of labels and the shape of images, where the user says them.
        like: a table of the same data set, whose columns this one has, or all but the labels.

    Raises:
        DataError: as in `read_csv_set`, or the file is empty.
    """
    where = files.label(name)
    lines = files.lines(name)
    head, second = next(lines, b"").removeprefix(BOM), next(lines, b"")
    lines.close()
    if not head.strip():
        raise DataError(f"{where}: a row of a label and pixels for each image is expected, got an empty file; fill it")
    delimiter = max(",;\t", key=lambda sign: head.count(sign.encode()))
    first_row = first_cells(head, where, delimiter)
    limits().check("columns", second.count(delimiter.encode()) + 1, where, "columns", "give smaller images")
    count, names = len(first_row), csv_columns.header_of(first_row)
    _check_no_listing(second or head, delimiter, where)
    together = group_column(options.groups, names or ())
    numbering = [column for column in csv_columns.row_numbers(names) if names and names[column] != options.label]
    numbering += [] if together is None else [together]
    columns = [column for column in range(count) if column not in numbering]
    if not columns:
        raise DataError(
            f"{where}: a column for the label and one for each pixel are expected, got {count} of row numbers or "
            "groups; give the table with its images"
        )
    unlabelled = like is not None and count == like.count - len(like.label_columns)
    label = None if unlabelled else csv_columns.named_label(names, count, options.label, where)
    chosen: tuple[int, ...] | None = None if label is None else (label,)
    if unlabelled:
        chosen = ()
    elif chosen is None and like is not None and count == like.count:
        chosen = like.label_columns
    apart = {*numbering, *((columns[0], columns[-1]) if chosen is None else chosen)}
    table = number_table(files, name, count, delimiter, apart, has_header=names is not None)
    notes = []
    if chosen is None:
        pixels = prod(options.shape) if options.shape else None
        chosen = csv_columns.label_columns(table.values, table.apart, columns, pixels, where)
        if len(chosen) == 1:
            end = "first" if chosen[0] == columns[0] else "last"
            notes.append(
                f"{name}: the {end} column was taken for the labels, as its values say; --label says otherwise"
            )
    pixel_columns = [column for column in columns if column not in chosen]
    _check_numbers(table, pixel_columns, where)
    labels = _labels(table, chosen, where)
    values = _columns_of(table, pixel_columns)
    grid = csv_columns.grid_shape([names[column] for column in pixel_columns]) if names else None
    if grid and options.shape is None:
        values = values.reshape(len(values), *grid)
    groups = None if together is None else table.apart[together].astype(np.str_)
    return CsvTable(values, labels, count, chosen, tuple(notes), groups)


def _check_no_listing(row: bytes, delimiter: str, where: str) -> None:
    """A table that names image files belongs to these."""
    cells = [cell.strip(" \"'\r\n") for cell in row.decode(errors="replace").split(delimiter)]
    image = next((cell for cell in cells if names_an_image(cell)), None)
    if image is not None:
        raise DataError(
            f"{where}: pixels are expected in a CSV file by itself, got names of image files ({image}); give the path "
            "of the folder that holds the table and the images"
        )


def _check_numbers(table: NumberTable, pixel_columns: list[int], where: str) -> None:
    """Pixels among the columns that were kept apart must be finite numbers, too."""
    for column in set(pixel_columns) & set(table.apart):
        cells = table.apart[column]
        if cells.dtype.kind == "U":
            for row, cell in zip(table.rows, cells, strict=True):
                if not csv_columns.is_number(cell) or not np.isfinite(float(cell)):
                    raise not_a_number(f"{where}: row {row}", column, str(cell))


def _columns_of(table: NumberTable, columns: list[int]) -> NDArray[Any]:
    """The pixels of a table, (image, pixel), in its own memory: they move to the front, block by block."""
    values = table.values
    for column in set(columns) & set(table.apart):
        cells = table.apart[column]
        if values.dtype == np.uint8 and cells.dtype.kind == "i" and cells.max() > 255:
            values = values.astype(np.int32)
            values[:, column] = cells
    count, width = len(values), len(columns)
    flat = values.reshape(-1)
    slots: Any = slice(columns[0], columns[-1] + 1) if columns == list(range(columns[0], columns[-1] + 1)) else columns
    for start in range(0, count, _ROWS):
        block = values[start : start + _ROWS, slots].copy()
        flat[start * width : start * width + block.size] = block.reshape(-1)
    return flat[: count * width].reshape(count, width)


def _labels(table: NumberTable, chosen: tuple[int, ...], where: str) -> NDArray[Any] | None:
    """The labels in one column, or in several that are one-hot."""
    if not chosen:
        return None
    if len(chosen) > 1:
        return table.values[:, list(chosen)].astype(np.int64)
    labels = table.apart[chosen[0]]
    if labels.dtype.kind == "U" and (empty := np.flatnonzero(labels == "")).size:
        raise DataError(f"{where}: row {table.rows[empty[0]]} has no label; fill it in or remove the row")
    return labels
