"""Parquet files of encoded images, as the Hugging Face hub has them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.csv_files import LABEL_NAMES
from committee.data.formats.decode import decode_all
from committee.data.formats.files import MAX_BYTES, Files, names_by_part, reason
from committee.errors import DataError, require

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "png", "jpg")


def read_parquet_set(files: Files, image_size: int | None) -> RawSet:
    """The data set of Parquet files with a column of encoded images and one of labels, in any number of shards.

    Args:
        files: one file, or ``train*`` and ``test*`` files as the Hugging Face hub has them.
        image_size: as in `decode_all`.

    Raises:
        DataError: no image or label column, a row without image or label, an unreadable image (row named).
        MissingExtraError: the package pyarrow is not installed.
    """
    contents: list[bytes] = []
    labels: list[NDArray[Any]] = []
    places: list[str] = []
    parts: list[str] = []
    class_names = None
    notes = []
    for part, names in names_by_part(files, (".parquet",)).items():
        for name in names:
            table = read_parquet(files, name)
            if table.labels is None:
                if part != "test":
                    raise DataError(
                        f"{files.label(name)}: there is no label column; one called {', '.join(LABEL_NAMES[:4])} is "
                        "expected, "
                        f"it has {', '.join(table.columns)}"
                    )
                notes.append(f"{name} has no labels and was left out")
                continue
            class_names = class_names or table.class_names
            contents += table.contents
            labels.append(table.labels)
            places += [f"{files.label(name)} row {row}" for row in range(1, len(table.contents) + 1)]
            parts += [part] * len(table.contents)
    if not contents:
        raise DataError(
            f"{files.where}: there are no images in its Parquet files; rows of an image and a label are expected"
        )
    if len({column.dtype.kind for column in labels}) > 1:
        labels = [column.astype(np.str_) for column in labels]
    pixels, remarks = decode_all(len(contents), contents.__getitem__, places.__getitem__, image_size)
    return by_part(
        pixels, np.concatenate(labels), places, np.array(parts), files.where, class_names, (*notes, *remarks)
    )


@dataclass(frozen=True)
class ParquetTable:
    """The columns of a Parquet file that matter: encoded images, labels (image,) where there are any, their names."""

    contents: list[bytes]
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    columns: tuple[str, ...]


def read_parquet(files: Files, name: str) -> ParquetTable:
    """Read one Parquet file without decoding its images.

    Raises:
        DataError: no Parquet file, no image column, a row without an image or label.
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
                f"{where}: there is no column of encoded images (bytes, or a struct with the field bytes); "
                f"it has {', '.join(schema.names)}"
            )
        label_column = _label_column(schema, arrow, features, image_column)
        wanted = [image_column, *([label_column] if label_column else [])]
        contents: list[bytes] = []
        labels: list[Any] = []
        for batch in file.iter_batches(batch_size=1024, columns=wanted):
            images = batch.column(image_column)
            contents += (images.field("bytes") if arrow.types.is_struct(images.type) else images).to_pylist()
            labels += batch.column(label_column).to_pylist() if label_column else []
    except DataError:
        raise
    except (arrow.ArrowException, OSError, ValueError) as error:
        raise DataError(
            f"{where}: this is no readable Parquet file ({reason(error)}); copy or download it again"
        ) from error
    for column, cells in ((image_column, contents), (label_column, labels)):
        empty = next((row for row, cell in enumerate(cells, start=1) if cell is None), None)
        if empty is not None:
            raise DataError(
                f"{where}: row {empty} has nothing in the column {column!r}; every image needs its bytes and its label"
            )
    if sum(map(len, contents)) > MAX_BYTES:
        raise DataError(f"{where}: its images take more than {MAX_BYTES:,} bytes; give a part of them")
    class_names = features.get(label_column or "", {}).get("names")
    array = np.array(labels) if label_column else None
    if array is not None and class_names and len(array) and array.dtype.kind == "i" and (array == -1).all():
        array = None
    return ParquetTable(contents, array, tuple(map(str, class_names)) if class_names else None, tuple(schema.names))


def _hub_features(metadata: dict[bytes, bytes] | None) -> dict[str, dict[str, Any]]:
    """Column -> what the Hugging Face hub wrote about it into the schema ("_type", "names")."""
    try:
        features = json.loads((metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError):
        return {}


def _image_column(schema: Any, arrow: Any) -> str | None:
    def holds_bytes(kind: Any) -> bool:
        if arrow.types.is_struct(kind):
            return any(field.name == "bytes" and holds_bytes(field.type) for field in kind)
        return bool(arrow.types.is_binary(kind) or arrow.types.is_large_binary(kind))

    fitting = [field.name for field in schema if holds_bytes(field.type)]
    return next((name for name in _IMAGE_NAMES if name in fitting), fitting[0] if len(fitting) == 1 else None)


def _label_column(schema: Any, arrow: Any, features: dict[str, dict[str, Any]], image_column: str) -> str | None:
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
