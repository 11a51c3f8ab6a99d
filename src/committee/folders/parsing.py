"""Bytes of a stored file -> its values: JSON, TOML, and the headers of safetensors and NPY files.

A run folder may come from anyone, and its manifest says only that the files belong together. So what a file would take
is known from its first bytes and its size, and is limited, before any of it is built. What no writer of this package
writes is refused: names that stand twice, numbers that are not finite, values nested deeply, bytes that belong to
nothing.
"""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from pydantic import JsonValue

from committee.config.renames import Table
from committee.errors import RunError

RESTORE = "restore it, or delete the folder and train again"
"""What to do about a damaged file of a run, whose training keeps what it finds finished."""

LARGEST_TEXT = 64 * 2**20  # bytes of a JSON, JSONL or text file
LARGEST_TOML = 128 * 2**10
LARGEST_HEADER = 8 * 2**20  # of a safetensors file; a checkpoint has its history there
MOST_MEMORY = 192 * 2**20  # that the values of a JSON file may take
DEEPEST = 32  # objects and arrays in each other; results.json has 7
LARGEST_NPY_HEADER = 1024
LARGEST_SIDE = 10**12  # of a tensor

COSTS = {b"{": 96, b"[": 96, b'"': 40, b",": 16}
"""At least the bytes of memory for each of these characters: a table, a list, half a string, an entry."""

_STRING = re.compile(r'"[^"\\]*+(?:\\.?[^"\\]*+)*+(?:"|\Z)', re.DOTALL)
_BRACKET = re.compile(r"[][{}]")
_TOO_LARGE = re.compile(r"(?<![\d.])\d{20}|[eE]\+?\d{3}")
_NPY_START = 10  # bytes: a name, a version, the header's length
_NPY_HEADER = re.compile(
    rb"\{'descr': '([<|][fiub][1248])', 'fortran_order': False, 'shape': \(((?:\d{1,12}(?:, ?|(?=\))))*)\), \} *\n"
)

WIDTHS = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2, "I64": 8, "I32": 4, "I16": 2, "I8": 1, "U8": 1, "BOOL": 1}
"""Bytes of a value, by the types of tensors that this package stores, in the words of safetensors."""


def damaged(where: str | Path, why: str) -> RunError:
    """The error about a file whose content cannot be used."""
    return RunError(f"{where} is damaged ({why}); {RESTORE}")


# --- text -------------------------------------------------------------------------------------------------------------


def text_of(content: bytes, where: str | Path) -> str:
    """Bytes as text.

    Raises:
        RunError: they are no UTF-8.
    """
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise damaged(where, "no text in UTF-8") from error


def json_value(content: bytes, where: str | Path, constants: Collection[str] = ()) -> JsonValue:
    """The value of a JSON text.

    Args:
        content: the text in UTF-8.
        where: what it is, for messages.
        constants: which of NaN, Infinity and -Infinity are taken, which JSON does not have but Python writes.

    Raises:
        RunError: it is not JSON; it has a name twice, a number that is not finite or has over 19 digits, or values
            nested more than `DEEPEST`; its values would take more than `MOST_MEMORY`.
    """
    memory = sum(content.count(character) * cost for character, cost in COSTS.items()) + len(content)
    if len(content) > LARGEST_TEXT or memory > MOST_MEMORY:
        raise damaged(where, f"{len(content):,} bytes of JSON, which would take over {MOST_MEMORY >> 20} MiB")
    text = text_of(content, where)
    outside = _STRING.sub("", text)
    deep = deepest = 0
    for bracket in _BRACKET.findall(outside):
        deep += 1 if bracket in "[{" else -1
        deepest = max(deepest, deep)
    if deepest > DEEPEST:
        raise damaged(where, f"values nested {deepest:,} deep, at most {DEEPEST} are expected")
    if found := _TOO_LARGE.search(outside):
        raise damaged(where, f"a number with {found.group()[:24]}, larger than any that is stored")

    def constant(name: str) -> float:
        if name not in constants:
            raise ValueError(f"{name} is no finite number")
        return float(name)

    try:
        value: JsonValue = json.loads(text, object_pairs_hook=_without_twins, parse_constant=constant)
    except ValueError as error:
        raise RunError(f"{where} is not valid JSON ({error}); {RESTORE}") from error
    return value


def json_lines(content: bytes, where: str | Path) -> list[JsonValue]:
    """The values of a JSONL text, one a line; NaN stands for the loss of a member that failed.

    Raises:
        RunError: as `json_value`, about a line.
    """
    if len(content) > LARGEST_TEXT:
        raise damaged(where, f"{len(content):,} bytes, at most {LARGEST_TEXT:,} are expected")
    lines = content.removesuffix(b"\n").split(b"\n") if content else []
    return [json_value(line, f"{where}, line {number},", ("NaN",)) for number, line in enumerate(lines, start=1)]


def _without_twins(pairs: list[tuple[str, JsonValue]]) -> dict[str, JsonValue]:
    table = dict(pairs)
    if len(table) != len(pairs):
        names = [name for name, _ in pairs]
        twin = next(name for number, name in enumerate(names) if name in names[:number])
        raise ValueError(f"the name {twin[:40]!r} stands twice")
    return table


def toml_table(content: bytes, where: str | Path) -> Table:
    """The tables of a TOML text.

    Raises:
        RunError: it is not TOML, has more than `LARGEST_TOML` bytes, or a number that is not finite or beyond 64 bits.
    """
    if len(content) > LARGEST_TOML:
        raise damaged(where, f"{len(content):,} bytes, at most {LARGEST_TOML:,} are expected")
    try:
        table: Table = tomllib.loads(text_of(content, where))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{where} is not valid TOML ({str(error)[:200]}); {RESTORE}") from error
    values: list[JsonValue] = [table]
    while values:
        value = values.pop()
        if isinstance(value, dict):
            values += value.values()
        elif isinstance(value, list):
            values += value
        elif not isinstance(value, str) and not (isinstance(value, (int, float)) and abs(value) < 2**63):
            raise damaged(where, "a value that is neither text nor a finite number below 2^63")
    return table


# --- tensors ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stored:
    """An array as the header of its file announces it.

    Attributes:
        kind: its type in the words of the format, such as "F32" or "<f4".
    """

    kind: str
    shape: tuple[int, ...]

    def __str__(self) -> str:
        return f"{self.kind} {self.shape}"


def tensor_header(file: IO[bytes], size: int, where: str | Path) -> tuple[dict[str, Stored], Mapping[str, str]]:
    """What a safetensors file of `size` bytes holds: its tensors by name, and the texts beside them.

    The format: 8 bytes with the length of a JSON header, the header, the values. Tensors lie one after the other.

    Raises:
        RunError: the header is none, tensors are of other types than this package stores, overlap, or leave bytes over.
    """
    length = int.from_bytes(file.read(8), "little")
    if size < 8 or length > min(size - 8, LARGEST_HEADER):
        raise damaged(where, f"a header of {length:,} bytes in a file of {size:,}, at most {LARGEST_HEADER:,} expected")
    header = json_value(file.read(length), where)
    if not isinstance(header, dict):
        raise damaged(where, "its header is no table")
    texts = header.pop("__metadata__", {})
    if not isinstance(texts, dict):
        raise damaged(where, "its header's __metadata__ is no table")
    spans, found = [], {}
    for name, entry in header.items():
        found[name], span = _tensor(entry, f"{where}: tensor {name[:80]}")
        spans.append(span)
    end = 0
    for first, last in sorted(spans):
        if first != end:
            raise damaged(where, f"its tensors overlap or leave a gap at byte {end:,}")
        end = last
    if end != size - 8 - length:
        raise damaged(where, f"its tensors have {end:,} bytes, but {size - 8 - length:,} follow its header")
    return found, {name: text for name, text in texts.items() if isinstance(text, str)}


def _tensor(entry: JsonValue, where: str) -> tuple[Stored, tuple[int, int]]:
    """One tensor of a header, and the bytes that it takes."""
    match entry:
        case {"dtype": str(kind), "shape": [*sides], "data_offsets": [int(first), int(last)], **rest} if not rest:
            shape = tuple(side for side in sides if type(side) is int and 0 <= side <= LARGEST_SIDE)
            if kind in WIDTHS and len(shape) == len(sides) <= 8 and 0 <= first <= last:
                if last - first == math.prod(shape) * WIDTHS[kind]:
                    return Stored(kind, shape), (first, last)
                raise damaged(where, f"{kind} {shape} does not take {last - first:,} bytes")
    raise damaged(where, f"dtype, shape and data_offsets are expected, got {str(entry)[:80]}")


# --- arrays -----------------------------------------------------------------------------------------------------------


def array_header(file: IO[bytes], size: int, where: str | Path) -> Stored:
    """What an NPY file of `size` bytes holds; the file then stands at the array's first value.

    Raises:
        RunError: the header is not one that NumPy writes for an array of numbers in C order, or the array's bytes are
            not those that follow.
    """
    start = file.read(_NPY_START)
    length = int.from_bytes(start[8:], "little")
    text = file.read(length) if start[:8] == b"\x93NUMPY\x01\x00" and length <= LARGEST_NPY_HEADER else b""
    found = _NPY_HEADER.fullmatch(text)
    if found is None:
        raise damaged(where, f"the header of an array of numbers in C order is expected, got {text[:60]!r}")
    kind, sides = found.group(1).decode(), found.group(2)
    shape = tuple(int(side) for side in sides.split(b",") if side.strip())
    left = size - _NPY_START - length
    if math.prod(shape) * int(kind[2]) != left:
        raise damaged(where, f"an array {shape} of {kind} has other bytes than the {left:,} that follow its header")
    return Stored(kind, shape)
