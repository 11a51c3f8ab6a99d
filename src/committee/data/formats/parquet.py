"""Parquet and Arrow files, like those of the Hugging Face hub and of its package `datasets` -> RawSet."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrow_tables import ImageTable, read_table
from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.csv_columns import LABEL_NAMES
from committee.data.formats.decode import decode
from committee.data.formats.files import Files, names_by_part
from committee.data.formats.image_set import decode_all
from committee.data.read_options import AS_IT_IS, ReadOptions
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
    tables, notes = _labelled_tables(files, options)
    tables = [(part, table) for part, table in tables if table.places]
    if not tables:
        raise DataError(
            f"{files.where}: rows of an image and a label are expected in Parquet files, got none; add them"
        )
    places = [place for _, table in tables for place in table.places]
    labels = [table.labels for _, table in tables if table.labels is not None]
    if len({column.dtype.kind for column in labels}) > 1:
        labels = [column.astype(np.str_) for column in labels]
    parts = np.concatenate(
        [
            table.parts if table.parts is not None and part == "train" else np.repeat(part, len(table.places))
            for part, table in tables
        ]
    )
    where = files.where if len(tables) > 1 else places[0].rpartition(" row ")[0]
    known = [table.groups for _, table in tables if table.groups is not None]
    groups = np.concatenate(known) if len(known) == len(tables) else None
    notes += list(dict.fromkeys(note for _, table in tables for note in table.notes))
    class_names = next((table.class_names for _, table in tables if table.class_names), None)
    contents = [content for _, table in tables if isinstance(table.images, list) for content in table.images]
    if not contents:
        values = _joined([table for _, table in tables])
        return by_part(values, np.concatenate(labels), places, parts, where, class_names, tuple(notes), groups)
    if len(contents) < len(places):
        raise DataError(
            f"{files.where}: either encoded images or numbers are expected, got both; give the path of one kind"
        )
    decoded = decode_all(len(contents), contents.__getitem__, places.__getitem__, options, files.where)
    kept = decoded.kept
    return by_part(
        decoded.pixels,
        np.concatenate(labels)[kept],
        [places[i] for i in kept],
        parts[kept],
        where,
        class_names,
        (*notes, *decoded.notes),
        None if groups is None else groups[kept],
    )


def read_parquet_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any] | DataError]]:
    """The images in one file, encoded ones one at a time since their sizes may differ, with their rows for messages.

    In the place of an image that cannot be read stands why.
    """
    table = read_table(files, name, AS_IT_IS, part=None)
    if not isinstance(table.images, list):
        yield files.label(name), table.images
        return
    for content, place in zip(table.images, table.places, strict=True):
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


def _labelled_tables(files: Files, options: ReadOptions) -> tuple[list[tuple[str, ImageTable]], list[str]]:
    """The tables with labels, each with its part, and notes about the test files that have no labels."""
    tables: list[tuple[str, ImageTable]] = []
    notes = []
    wanted = set(table_names(files))
    suffixes = (".parquet",) if any(name.lower().endswith(".parquet") for name in wanted) else _ARROW
    only = replace(files, names=tuple(name for name in files.names if name in wanted))
    for part, names in names_by_part(only, suffixes).items():
        for name in names:
            table = read_table(files, name, options, part, tables[0][1].label if tables else None)
            if table.labels is not None:
                tables.append((part, table))
            elif part == "test":
                notes.append(f"{name} has no labels, so it was left out")
            else:
                listed = ", ".join(table.columns[:8]) + (", ..." if len(table.columns) > 8 else "")
                raise DataError(
                    f"{files.label(name)}: a column of labels called {', '.join(LABEL_NAMES[:4])} is expected, "
                    f"got {listed}; rename or add it, or name it with --label COLUMN"
                )
    return tables, notes
