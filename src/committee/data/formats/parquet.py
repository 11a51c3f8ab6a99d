"""Parquet and Arrow files, like those of the Hugging Face hub and of its package `datasets` -> RawSet."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrow_tables import ImageReader, ImageTable, images_to_classify, read_table
from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.csv_columns import LABEL_NAMES
from committee.data.formats.decode import decode
from committee.data.formats.files import Files, names_by_part
from committee.data.formats.image_set import decode_all
from committee.data.formats.plain_png import decode_alike
from committee.data.read_options import ReadOptions
from committee.errors import DataError

_ARROW = (".arrow", ".feather")


def table_names(files: Files) -> list[str]:
    """The Parquet files; or else the Arrow files, without those in which `datasets` keeps what it computed."""
    parquet = [name for name in files.names if name.lower().endswith(".parquet")]
    return parquet or [
        name
        for name in files.names
        if name.lower().endswith(_ARROW) and not name.rpartition("/")[2].startswith(("cache-", "tmp"))
    ]


def read_parquet_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in Parquet or Arrow files with images and a column of labels, in any number of shards.

    Args:
        files: one file, or ``train*`` and ``test*`` files like those of the Hugging Face hub, or a folder that
            `datasets` wrote with `save_to_disk`.
        options: how to read it.

    Raises:
        DataError: there is no image or label column, a row has no image or no label, or an image is unreadable (the
            row is named).
        MissingExtraError: the package pyarrow is not installed.
    """
    found, notes = labelled_tables(files, options)
    found = [each for each in found if len(each[2].places)]
    if not found:
        raise DataError(
            f"{files.where}: rows of an image and a label are expected in Parquet files, got none; add them"
        )
    joined = joined_tables(found)
    tables = [table for _, _, table in found]
    places = [place for table in tables for place in table.places]
    where = files.where if len(tables) > 1 else places[0].rpartition(" row ")[0]
    notes += list(dict.fromkeys(note for table in tables for note in table.notes))
    labels, parts, groups, class_names = joined
    contents = [content for table in tables if isinstance(table.images, list) for content in table.images]
    if not contents:
        values = _joined(tables)
        return by_part(values, labels, places, parts, where, class_names, tuple(notes), groups)
    if len(contents) < len(places):
        raise DataError(
            f"{files.where}: either encoded images or numbers are expected, got both; give the path of one kind"
        )
    decoded = decode_all(len(contents), contents.__getitem__, places.__getitem__, options, files.where)
    kept = decoded.kept
    return by_part(
        decoded.pixels,
        labels[kept],
        [places[i] for i in kept],
        parts[kept],
        where,
        class_names,
        (*notes, *decoded.notes),
        None if groups is None else groups[kept],
    )


class JoinedTables(NamedTuple):
    """What several tables say of their images, one behind the other.

    Attributes:
        labels: (image,), or one-hot (image, class).
        parts: (image,), "train", "val" or "test".
        groups: (image,); None where not all tables say them.
        class_names: where a file has them.
    """

    labels: NDArray[Any]
    parts: NDArray[np.str_]
    groups: NDArray[np.str_] | None
    class_names: tuple[str, ...] | None


def joined_tables(found: Sequence[tuple[str, str, ImageTable]]) -> JoinedTables:
    """Tables with labels, each with its part and its name, as one."""
    tables = [table for _, _, table in found]
    labels = [table.labels for table in tables if table.labels is not None]
    if len({column.dtype.kind for column in labels}) > 1:
        labels = [column.astype(np.str_) for column in labels]
    parts = [
        table.parts if table.parts is not None and part == "train" else np.repeat(part, len(table.places))
        for part, _, table in found
    ]
    known = [table.groups for table in tables if table.groups is not None]
    groups = np.concatenate(known) if len(known) == len(tables) else None
    class_names = next((table.class_names for table in tables if table.class_names), None)
    return JoinedTables(np.concatenate(labels), np.concatenate(parts), groups, class_names)


def is_parquet_alone(files: Files) -> bool:
    """Whether there are Parquet files, and no files beside them that another format would be read from first."""
    return bool(files.names) and all(name.lower().endswith((".parquet", ".json", ".md")) for name in files.names)


def read_parquet_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any] | DataError]]:
    """The images in one file, some rows at a time, with their rows for messages.

    Small PNG files that are all alike and opaque come together, others one at a time, since their sizes may differ. In
    the place of an image that cannot be read stands why.
    """
    for first, images in images_to_classify(files, name):
        if not isinstance(images, list):
            yield first, images
            continue
        alike = decode_alike(len(images), images.__getitem__)
        if alike is not None and alike.shape[3] in (1, 3):
            yield first, alike
            continue
        where, _, row = first.rpartition(" row ")
        for number, content in enumerate(images, int(row)):
            place = f"{where} row {number}"
            try:
                yield place, decode(content, place)[None]
            except DataError as error:
                yield place, error


def _joined(tables: list[ImageTable]) -> NDArray[Any]:
    """The numbers of several tables, which must have one shape and kind."""
    arrays = [np.asarray(table.images) for table in tables]
    for array, table in zip(arrays, tables, strict=True):
        if (array.shape[1:], array.dtype.kind) != (arrays[0].shape[1:], arrays[0].dtype.kind):
            raise DataError(
                f"{table.places[0]}: images like those of {tables[0].places[0]} are expected ({arrays[0].dtype}, "
                f"{arrays[0].shape[1:]}), got {array.dtype}, {array.shape[1:]}; bring them to one shape and type"
            )
    return np.concatenate(arrays)


def labelled_tables(
    files: Files, options: ReadOptions, read: ImageReader | None = None
) -> tuple[list[tuple[str, str, ImageTable]], list[str]]:
    """The tables with labels, each with its part and name, and notes about the test files that have no labels.

    Args:
        files: the Parquet or Arrow files.
        options: how they are read.
        read: what shall stand for their images, as in `read_table`.
    """
    tables: list[tuple[str, str, ImageTable]] = []
    notes = []
    wanted = set(table_names(files))
    suffixes = (".parquet",) if any(name.lower().endswith(".parquet") for name in wanted) else _ARROW
    only = replace(files, names=tuple(name for name in files.names if name in wanted))
    for part, names in names_by_part(only, suffixes).items():
        for name in names:
            table = read_table(files, name, options, part, tables[0][2].label if tables else None, read)
            if table.labels is not None:
                tables.append((part, name, table))
            elif part == "test":
                notes.append(f"{name} has no labels, so it was left out")
            else:
                listed = ", ".join(table.columns[:8]) + (", ..." if len(table.columns) > 8 else "")
                raise DataError(
                    f"{files.label(name)}: a column of labels called {', '.join(LABEL_NAMES[:4])} is expected, "
                    f"got {listed}; rename or add it, or name it with --label COLUMN"
                )
    return tables, notes
