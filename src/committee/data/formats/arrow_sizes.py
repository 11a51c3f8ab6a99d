"""What Parquet pages and Arrow messages unpack to, by their own headers: pyarrow takes them at their word.

A footer may say less than the pages before it; so every page's header is looked at, which is all that its reader goes
by. Sources: parquet.thrift of the Parquet format, Thrift's compact protocol; Message.fbs of Arrow, FlatBuffers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

_WIDTHS = {"BOOLEAN": 1, "INT32": 4, "INT64": 8, "INT96": 12, "FLOAT": 4, "DOUBLE": 8}
_BOOLEANS, _BYTE, _INTEGERS, _DOUBLE, _BINARY, _LISTS, _STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
_DEEPEST = 16

_SIZE, _PACKED, _VALUES, _DICTIONARY_VALUES, _VALUES_2 = (2,), (3,), (5, 1), (7, 1), (8, 1)
"""Fields of a page's header, by their numbers and those of the structs around them."""

_GROUPS, _COLUMNS, _DATA = (4,), (1,), (3,)
"""Fields on a footer's way to a column chunk: row groups of the file, columns of a group, what a column holds."""


class _Chunk(IntEnum):
    """Fields of what a column chunk holds."""

    VALUES = 5
    PACKED = 7
    DATA_AT = 9
    DICTIONARY_AT = 11


_DICTIONARY, _BATCH = 2, 3
"""Kinds of Arrow's messages."""

Content = bytes | mmap.mmap
"""A file, read or mapped."""

_Numbers = dict[tuple[int, ...], int]


@dataclass(frozen=True)
class ParquetSizes:
    """The bytes that a Parquet file unpacks to, and the most bytes of a dictionary: any row may have such a value."""

    unpacked: int
    dictionary: int


def parquet_sizes(content: Content, metadata: Any) -> ParquetSizes:
    """What the pages of a Parquet file unpack to.

    Args:
        content: of the file.
        metadata: pyarrow's `FileMetaData`. Of its row groups only the number is asked for: what else the footer says of
            them is read here, since pyarrow 26 lets an exception out of C++ where it builds Python's view of them from
            a damaged footer, and that ends the process.

    Raises:
        ValueError: the footer or a header of a page is damaged.
    """
    unpacked = dictionary = 0
    widths = [
        metadata.schema.column(i).length or _WIDTHS.get(metadata.schema.column(i).physical_type, 0)
        for i in range(metadata.num_columns)
    ]
    footer = _footer(content)
    for group in range(metadata.num_row_groups):
        for i, width in enumerate(widths):
            chunk = {field: footer.get((*_GROUPS, group, *_COLUMNS, i, *_DATA, field), 0) for field in _Chunk}
            pages = list(_pages(content, chunk))
            dictionary = max([dictionary, *(size for is_dictionary, size in pages if is_dictionary)])
            unpacked += max(sum(size for _, size in pages), chunk[_Chunk.VALUES] * width)
    return ParquetSizes(unpacked, dictionary)


def _footer(content: Content) -> _Numbers:
    """The whole numbers of a Parquet file's footer."""
    size = int.from_bytes(content[-8:-4], "little")
    if content[-4:] != b"PAR1" or size > len(content) - 8:
        raise ValueError("no footer")
    numbers: _Numbers = {}
    _struct(content, len(content) - 8 - size, (), numbers)
    return numbers


def _pages(content: Content, chunk: Mapping[_Chunk, int]) -> Iterator[tuple[bool, int]]:
    """For each page of a column chunk whether it is a dictionary, and the bytes that it unpacks to."""
    first, data = chunk[_Chunk.DICTIONARY_AT], chunk[_Chunk.DATA_AT]
    at = first if 0 < first < data else data
    if at < 0:
        raise ValueError("a column that begins before the file")
    end = min(at + chunk[_Chunk.PACKED], len(content))
    values = 0
    while at < end and values < chunk[_Chunk.VALUES]:
        header: _Numbers = {}
        at = _struct(content, at, (), header)
        size, packed = header.get(_SIZE, 0), header.get(_PACKED, 0)
        if size < 0 or packed < 0:
            raise ValueError("a page of negative length")
        values += header.get(_VALUES, 0) + header.get(_VALUES_2, 0)
        at += packed
        yield _DICTIONARY_VALUES in header, size


def _varint(content: Content, at: int) -> tuple[int, int]:
    value = shift = 0
    while shift < 70:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise ValueError("a number without an end")


def _zigzag(content: Content, at: int) -> tuple[int, int]:
    value, at = _varint(content, at)
    return (value >> 1) ^ -(value & 1), at


def _struct(content: Content, at: int, path: tuple[int, ...], found: _Numbers) -> int:
    """Where a struct of Thrift's compact protocol ends; its whole numbers are put into `found`."""
    if len(path) > _DEEPEST:
        raise ValueError("a header too deep")
    number = 0
    try:
        while head := content[at]:
            at += 1
            if head >> 4:
                number += head >> 4
            else:
                number, at = _zigzag(content, at)
            at = _value(content, at, head & 15, (*path, number), found)
    except IndexError:
        raise ValueError("a header of a page is cut off") from None
    return at + 1


def _value(content: Content, at: int, kind: int, path: tuple[int, ...], found: _Numbers) -> int:
    """Where a value of a field or a list ends; a whole number is put into `found`."""
    if kind in _BOOLEANS:
        return at
    if kind == _BYTE:
        return at + 1
    if kind in _INTEGERS:
        found[path], at = _zigzag(content, at)
        return at
    if kind == _DOUBLE:
        return at + 8
    if kind == _BINARY:
        length, at = _varint(content, at)
        return at + length
    if kind in _LISTS:
        return _list(content, at, path, found)
    if kind == _STRUCT:
        return _struct(content, at, path, found)
    raise ValueError(f"a field of the type {kind}, which footers and headers of pages do not have")


def _list(content: Content, at: int, path: tuple[int, ...], found: _Numbers) -> int:
    """Where a list ends; its values have their places in the list at the end of their paths."""
    kind, length = content[at] & 15, content[at] >> 4
    at += 1
    if length == 15:
        length, at = _varint(content, at)
    for place in range(length):
        if at >= len(content):
            raise IndexError
        at = at + 1 if kind in _BOOLEANS else _value(content, at, kind, (*path, place), found)
    return at


def message_bytes(message: Any) -> int:
    """The bytes that an Arrow message unpacks to: its columns' buffers, and eight bytes for each of their cells.

    Args:
        message: pyarrow's `Message`.

    Raises:
        ValueError: it is damaged.
    """
    metadata = message.metadata.to_pybytes()
    try:
        table = _Table(metadata, _number(metadata, 0, "<I"))
        kind = table.number(1, "<B")
        if kind not in (_DICTIONARY, _BATCH):
            return 0
        batch = table.table(2)
        batch = batch.table(1) if kind == _DICTIONARY else batch
        body = message.body
        cells = sum(max(0, length) for length, _ in batch.pairs(1))
        stored = body.size if body is not None else 0
        if not batch.has(3):
            return 8 * max(cells, batch.number(0, "<q")) if cells > stored else stored
        sizes = [_unpacked(body, at) for at, length in batch.pairs(2) if length >= 8]
        return sum(sizes) + (8 * cells if cells > stored + sum(sizes) else 0)
    except (struct.error, IndexError) as error:
        raise ValueError("a message is cut off") from error


def _unpacked(body: Any, at: int) -> int:
    """The length that stands in front of a compressed buffer; -1 means that it is not compressed."""
    return max(0, _number(body[at : at + 8].to_pybytes(), 0, "<q")) if 0 <= at <= body.size - 8 else 0


def _number(content: Content, at: int, kind: str) -> int:
    if at < 0:
        raise IndexError
    return int(struct.unpack_from(kind, content, at)[0])


@dataclass(frozen=True)
class _Table:
    """A table of FlatBuffers: where it stands in the bytes of a message."""

    content: Content
    at: int

    def _place(self, field: int) -> int:
        """Where a field stands; 0 where the table leaves it out."""
        directory = self.at - _number(self.content, self.at, "<i")
        if 4 + 2 * field + 2 > _number(self.content, directory, "<H"):
            return 0
        offset = _number(self.content, directory + 4 + 2 * field, "<H")
        return self.at + offset if offset else 0

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def number(self, field: int, kind: str) -> int:
        place = self._place(field)
        return _number(self.content, place, kind) if place else 0

    def table(self, field: int) -> _Table:
        place = self._place(field)
        if not place:
            raise IndexError
        return _Table(self.content, place + _number(self.content, place, "<I"))

    def pairs(self, field: int) -> list[tuple[int, int]]:
        """A vector of structs of two numbers."""
        place = self._place(field)
        if not place:
            return []
        start = place + _number(self.content, place, "<I")
        count = _number(self.content, start, "<I")
        if start + 4 + 16 * count > len(self.content):
            raise IndexError
        return list(struct.iter_unpack("<qq", self.content[start + 4 : start + 4 + 16 * count]))
