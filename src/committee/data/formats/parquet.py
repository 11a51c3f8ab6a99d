"""Parquet files with a column of encoded images, like those of the Hugging Face hub."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.csv_columns import LABEL_NAMES
from committee.data.formats.decode import decode
from committee.data.formats.files import MAX_BYTES, Files, names_by_part, reason
from committee.data.formats.image_set import decode_all
from committee.data.read_options import ReadOptions
from committee.errors import DataError, require

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "png", "jpg")


@dataclass(frozen=True)
class ParquetTable:
    """What matters in a Parquet file.

    Attributes:
        contents: encoded images.
        places: the file and row of each image, for messages.
        labels: (image,); None where there are none.
        class_names: where the file has them.
        columns: the names of all its columns.
    """

    contents: list[bytes]
    places: list[str]
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    columns: tuple[str, ...]


def read_parquet_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in Parquet files with a column of encoded images and one of labels, in any number of shards.

    Args:
        files: one file, or ``train*`` and ``test*`` files like those of the Hugging Face hub.
        options: how to read it.

    Raises:
        DataError: there is no image or label column, a row has no image or no label, or an image is unreadable (the
            row is named).
        MissingExtraError: the package pyarrow is not installed.
    """
    tables, notes = _labelled_tables(files)
    contents = [content for _, table in tables for content in table.contents]
    if not contents:
        raise DataError(
            f"{files.where}: rows of an image and a label are expected in Parquet files, got none; add them"
        )
    places = [place for _, table in tables for place in table.places]
    labels = [table.labels for _, table in tables if table.labels is not None]
    if len({column.dtype.kind for column in labels}) > 1:
        labels = [column.astype(np.str_) for column in labels]
    parts = np.repeat([part for part, _ in tables], [len(table.contents) for _, table in tables])
    class_names = next((table.class_names for _, table in tables if table.class_names), None)
    decoded = decode_all(len(contents), contents.__getitem__, places.__getitem__, options, files.where)
    kept = decoded.kept
    return by_part(
        decoded.pixels,
        np.concatenate(labels)[kept],
        [places[i] for i in kept],
        parts[kept],
        files.where,
        class_names,
        (*notes, *decoded.notes),
    )


def read_parquet_images(files: Files, name: str) -> Iterator[tuple[str, Pixels | DataError]]:
    """The images in one Parquet file, one at a time since their sizes may differ, with their rows for messages.

    In the place of an image that cannot be read stands why.
    """
    table = read_parquet(files, name)
    for content, place in zip(table.contents, table.places, strict=True):
        try:
            yield place, decode(content, place)[None]
        except DataError as error:
            yield place, error


def _labelled_tables(files: Files) -> tuple[list[tuple[str, ParquetTable]], list[str]]:
    """The tables with labels, each with its part, and notes about the test files that have no labels."""
    tables: list[tuple[str, ParquetTable]] = []
    notes = []
    for part, names in names_by_part(files, (".parquet",)).items():
        for name in names:
            table = read_parquet(files, name)
            if table.labels is not None:
                tables.append((part, table))
            elif part == "test":
                notes.append(f"{name} has no labels, so it was left out")
            else:
                raise DataError(
                    f"{files.label(name)}: a column of labels called {', '.join(LABEL_NAMES[:4])} is expected, "
                    f"got {', '.join(table.columns)}; rename or add it"
                )
    return tables, notes


def read_parquet(files: Files, name: str) -> ParquetTable:
    """Read one Parquet file without decoding its images.

    Raises:
        DataError: this is not a Parquet file, it has no image column, or a row has no image or no label.
        MissingExtraError: the package pyarrow is not installed.
    """
    where = files.label(name)
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Reading Parquet files")
    arrow = require("pyarrow", extra="parquet", purpose="Reading Parquet files")
    try:
        file = parquet.ParquetFile(arrow.BufferReader(files.read(name)))
        schema = file.schema_arrow
        features = _hub_features(schema.metadata)
        image_column = _image_column(schema, arrow)
        if image_column is None:
            raise DataError(
                f"{where}: a column of encoded images (bytes, or a struct with the field bytes) is expected, "
                f"got {', '.join(schema.names)}; add it"
            )
        label_column = _label_column(schema, arrow, features, image_column)
        contents, labels = _columns(file, image_column, label_column, arrow)
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{where}: a Parquet file is expected, got something else ({reason(error)}); copy or download it again"
        ) from error
    _check_no_holes(contents, image_column, where)
    _check_no_holes(labels, label_column, where)
    if sum(map(len, contents)) > MAX_BYTES:
        raise DataError(f"{where}: at most {MAX_BYTES:,} bytes are read, and its images have more; give a part of them")
    class_names = features.get(label_column or "", {}).get("names")
    return ParquetTable(
        contents,
        [f"{where} row {row}" for row in range(1, len(contents) + 1)],
        _label_array(labels, from_hub=bool(class_names)) if label_column else None,
        tuple(map(str, class_names)) if class_names else None,
        tuple(schema.names),
    )


def _columns(file: Any, image_column: str, label_column: str | None, arrow: Any) -> tuple[list[bytes], list[Any]]:
    """The cells of both columns, read in batches."""
    contents: list[bytes] = []
    labels: list[Any] = []
    wanted = [image_column, *([label_column] if label_column else [])]
    for batch in file.iter_batches(batch_size=1024, columns=wanted):
        images = batch.column(image_column)
        contents += (images.field("bytes") if arrow.types.is_struct(images.type) else images).to_pylist()
        labels += batch.column(label_column).to_pylist() if label_column else []
    return contents, labels


def _check_no_holes(cells: list[Any], column: str | None, where: str) -> None:
    empty = next((row for row, cell in enumerate(cells, start=1) if cell is None), None)
    if empty is not None:
        raise DataError(
            f"{where}: every row needs an image and a label, got nothing in row {empty}, column {column!r}; "
            "fill it in or remove the row"
        )


def _label_array(labels: list[Any], *, from_hub: bool) -> NDArray[Any] | None:
    """Labels as an array; None where they are all -1, which is how the hub hides a test part's."""
    array = np.array(labels)
    if from_hub and len(array) and array.dtype.kind == "i" and (array == -1).all():
        return None
    return array


def _hub_features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """What the Hugging Face hub wrote about each column into the schema: "_type", "names"."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _image_column(schema: Any, arrow: Any) -> str | None:
    """The column of encoded images: by its name, or the only one of bytes."""

    def holds_bytes(kind: Any) -> bool:
        if arrow.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    fitting = [field.name for field in schema if holds_bytes(field.type)]
    return next((name for name in _IMAGE_NAMES if name in fitting), fitting[0] if len(fitting) == 1 else None)


def _label_column(schema: Any, arrow: Any, features: dict[str, dict[str, Any]], image_column: str) -> str | None:
    """The column of labels: by the hub's schema, by its name, or the only other one of integers or strings."""
    classes = [
        name for name, feature in features.items() if feature.get("_type") == "ClassLabel" and name in schema.names
    ]
    if len(classes) == 1:
        return classes[0]
    named = next((name for name in LABEL_NAMES if name in schema.names), None)
    if named:
        return named
    types = arrow.types
    fitting = [
        field.name
        for field in schema
        if field.name != image_column
        and (types.is_integer(field.type) or types.is_string(field.type) or types.is_large_string(field.type))
    ]
    return fitting[0] if len(fitting) == 1 else None
