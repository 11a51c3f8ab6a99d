"""Parquet and Arrow files, opened: their columns and batches of rows, none larger than the limits allow."""

from __future__ import annotations

import json
import mmap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue

from committee.data.formats.arrow_sizes import message_bytes, parquet_sizes
from committee.data.formats.files import Files
from committee.data.formats.mapped import content_of
from committee.data.limits import SMALL, limits
from committee.errors import require

_ROWS = 1024


@dataclass(frozen=True)
class Opened:
    """An opened file.

    Attributes:
        schema: pyarrow's.
        features: what the hub says about its columns.
        batches: columns -> their cells in batches.
        packed: bytes of the file.
        where: the file, for messages.
        rows: how many there are.
    """

    schema: Any
    features: Mapping[str, Mapping[str, JsonValue]]
    batches: Callable[[list[str]], Iterator[Any]]
    packed: int
    where: str
    rows: int


def open_table(files: Files, name: str, arrow: Any, *, parquet: bool) -> Opened:
    """The schema and the batches of a file; an Arrow file may be a stream, as `datasets` writes them.

    Raises:
        DataError: it has more rows or columns, or unpacks to more bytes, than the limits allow.
        ValueError: it is damaged.
    """
    where, packed = files.label(name), files.packed(name)
    content = content_of(files, name)
    if parquet:
        reader = require("pyarrow.parquet", extra="parquet", purpose="Reading Parquet files")
        file = reader.ParquetFile(arrow.BufferReader(arrow.py_buffer(content)))
        _check_shape(file.metadata.num_rows, file.metadata.num_columns, where)
        sizes = parquet_sizes(content, file.metadata)
        limits().check_unpacked(sizes.unpacked, packed, where)
        rows = min(_ROWS, max(1, 2 * SMALL // max(sizes.dictionary, 1)))
        schema = file.schema_arrow
        return Opened(
            schema,
            _hub_features(schema),
            lambda names: file.iter_batches(rows, columns=names),
            packed,
            where,
            file.metadata.num_rows,
        )
    table = _arrow_table(content, packed, where, arrow)
    _check_shape(table.num_rows, table.num_columns, where)
    return Opened(
        table.schema,
        _hub_features(table.schema),
        lambda names: iter(table.select(names).to_batches(_ROWS)),
        packed,
        where,
        table.num_rows,
    )


def _check_shape(rows: int, columns: int, where: str) -> None:
    limits().check("images", rows, where, "rows of a table", "give a part of it")
    limits().check("columns", columns, where, "columns", "give smaller images")


def _arrow_table(content: bytes | mmap.mmap, packed: int, where: str, arrow: Any) -> Any:
    """The batches of an Arrow file, each checked before it is unpacked, and its offsets before anything follows them.

    A file is a stream with a directory behind it (Arrow Columnar Format, "IPC File Format"); so both are read alike.
    """
    ipc = require("pyarrow.ipc", extra="parquet", purpose="Reading Arrow files")
    stream = arrow.py_buffer(content)[8 if content[:8] == b"ARROW1\0\0" else 0 :]
    total = 0
    for message in ipc.MessageReader.open_stream(stream):
        total += message_bytes(message)
        limits().check_unpacked(total, packed, where)
    with ipc.open_stream(stream) as reader:
        batches = list(reader)
        for batch in batches:
            batch.validate(full=True)
        return arrow.Table.from_batches(batches, reader.schema)


def _hub_features(schema: Any) -> dict[str, dict[str, JsonValue]]:
    """What the Hugging Face hub wrote about each column into the schema: "_type", "names"."""
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
        return {name: feature for name, feature in features.items() if isinstance(feature, dict)}
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return {}


def values_of(opened: Opened, column: str, arrow: Any) -> list[Any]:
    """The cells of a column."""
    cells: list[Any] = []
    total = 0
    for batch in opened.batches([column]):
        array = decoded(batch.column(column), opened, arrow)
        total += array.nbytes
        limits().check_unpacked(total, opened.packed, opened.where)
        cells += array.to_pylist()
    return cells


def decoded(column: Any, opened: Opened, arrow: Any) -> Any:
    """A batch's column without a dictionary or an extension around it.

    Raises:
        DataError: without the dictionary it would have more bytes than the limits allow.
    """
    while True:
        if arrow.types.is_dictionary(column.type):
            limits().check_unpacked(_without_dictionary(column, arrow), opened.packed, opened.where)
            column = column.dictionary_decode()
        elif isinstance(column.type, arrow.BaseExtensionType):
            column = column.storage
        else:
            return column


def _without_dictionary(column: Any, arrow: Any) -> int:
    """The bytes of a column once each cell has its own copy of its value."""
    values = column.dictionary
    if arrow.types.is_struct(values.type) and values.type.get_field_index("bytes") >= 0:
        values = values.field("bytes")
    try:
        lengths = lengths_of(values, arrow)
    except (arrow.ArrowException, TypeError):  # no bytes and no text
        return len(column) * int(values.nbytes)
    chosen = column.indices.drop_null().to_numpy(zero_copy_only=False)
    return int(lengths[chosen].sum()) if len(lengths) else 0


def lengths_of(column: Any, arrow: Any) -> NDArray[np.int64]:
    """The bytes of each cell, of a column of bytes or text; 0 for a cell without a value."""
    if str(column.type) in ("binary_view", "string_view"):  # 16 bytes for each, of which the first four are the length
        views = np.frombuffer(column.buffers()[1] or b"", np.int32).reshape(-1, 4)
        lengths = views[column.offset : column.offset + len(column), 0].astype(np.int64)
        return np.where(column.is_valid().to_numpy(zero_copy_only=False), lengths, 0)
    found = arrow.compute.binary_length(column).fill_null(0).to_numpy(zero_copy_only=False)
    return found.astype(np.int64)  # type: ignore[no-any-return]
