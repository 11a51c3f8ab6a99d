"""Single files: written whole or not at all, read back with their checks. Plain formats only, never pickle."""

from __future__ import annotations

import hashlib
import io
import json
import math
import mmap
import os
import stat
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from io import BufferedReader
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError

from committee import disk, pages
from committee.config.record import Record
from committee.config.renames import Table
from committee.errors import RunError
from committee.folders import parsing
from committee.folders.parsing import Stored

if TYPE_CHECKING:
    from torch import Tensor

LARGEST_NPZ = 128 * 2**20  # bytes of its arrays, unless they have at most `DENSEST_NPZ` for a byte of the file
DENSEST_NPZ = 20

OPENING = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_BINARY", "O_CLOEXEC", "O_NOFOLLOW", "O_NONBLOCK"))
"""How files are opened: not through a link and without waiting, should one have taken the place of what was seen."""

R = TypeVar("R", bound=Record)


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """A text file in UTF-8, whole or not at all; `synced` as in `committee.disk.write`.

    A byte of a file's name that is no UTF-8 becomes an escape, from which JSON reads the same name again.
    """
    disk.write(path, text.encode(errors="backslashreplace"), synced=synced)


@contextmanager
def opened(path: Path) -> Iterator[tuple[BufferedReader, int]]:
    """A plain file and its size in bytes; a link, a pipe, a device or a folder is not opened.

    Raises:
        RunError: it is missing, something else, or cannot be read.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            raise RunError(f"{path} is no plain file but a link, a folder or a device; put the file itself there")
        with os.fdopen(os.open(path, OPENING), "rb") as file:
            yield file, os.fstat(file.fileno()).st_size
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; is {path.parent} a folder that committee wrote?") from error
    except OSError as error:
        raise RunError(
            f"{path} cannot be read ({error.strerror or error}); check the disk and its permissions"
        ) from error


def read_bytes(path: Path, largest: int = parsing.LARGEST_TEXT) -> bytes:
    """The bytes of a file.

    Raises:
        RunError: it is missing, no plain file, or has more than `largest` bytes.
    """
    with opened(path) as (file, size):
        if size > largest:
            raise parsing.damaged(path, f"{size:,} bytes, at most {largest:,} are expected")
        return file.read(size)


def digest(path: Path, size: int) -> str:
    """The SHA-256 of a file, as hexadecimal digits; "" where it has another size, without reading it.

    Raises:
        RunError: it is missing, no plain file, or cannot be read.
    """
    with opened(path) as (file, actual):
        return hashlib.file_digest(file, "sha256").hexdigest() if actual == size else ""


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        RunError: it is missing, or no text.
    """
    return parsing.text_of(read_bytes(path), path)


def json_text(value: JsonValue) -> str:
    """A value as `write_json` writes it."""
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n"


def write_json(path: Path, value: JsonValue) -> None:
    """A JSON file, whole or not at all; infinite or undefined numbers are an error."""
    write_text(path, json_text(value))


def read_json(path: Path) -> JsonValue:
    """The value of a JSON file.

    Raises:
        RunError: it is missing or not JSON; see `committee.folders.parsing.json_value`.
    """
    return parsing.json_value(read_bytes(path), path)


def read_toml(path: Path) -> Table:
    """The tables of a TOML file.

    Raises:
        RunError: it is missing or not TOML; see `committee.folders.parsing.toml_table`.
    """
    return parsing.toml_table(read_bytes(path), path)


def write_record(path: Path, record: Record) -> None:
    """A record as a JSON file, whole or not at all."""
    write_json(path, record.model_dump(mode="json", by_alias=True))


def read_record(path: Path, kind: type[R]) -> R:
    """The record of a JSON file.

    Raises:
        RunError: it is missing, not JSON, or no such record (another version wrote it).
    """
    return as_record(read_json(path), kind, path)


def as_record(value: JsonValue, kind: type[R], path: Path) -> R:
    """A record from its JSON value; `path` is where that stands.

    Raises:
        RunError: it is no such record.
    """
    try:
        return kind.model_validate(_with_tuples(value), strict=True)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{path} does not have the fields that this version of committee expects ({place[:80]}: "
            f"{first['msg'].lower()[:200]}); read the folder with the version that wrote it, or train again"
        ) from error


def _with_tuples(value: JsonValue) -> object:
    """A JSON value with tuples for its lists: what a strict record, which takes no text for a number, has."""
    if isinstance(value, dict):
        return {name: _with_tuples(each) for name, each in value.items()}
    return tuple(map(_with_tuples, value)) if isinstance(value, list) else value


def write_records(path: Path, records: tuple[R, ...], *, synced: bool = True) -> None:
    """Records as a JSONL file, a line each; fields that are None and have a default are left out."""
    lines = [json.dumps(_stated(record)) + "\n" for record in records]
    write_text(path, "".join(lines), synced=synced)


def read_records(path: Path, kind: type[R]) -> tuple[R, ...]:
    """The records of a JSONL file; none where there is no file.

    Raises:
        RunError: a line is not such a record.
    """
    if not path.exists():
        return ()
    return tuple(as_record(value, kind, path) for value in parsing.json_lines(read_bytes(path), path))


def _stated(record: Record) -> dict[str, JsonValue]:
    fields = type(record).model_fields
    values: dict[str, JsonValue] = record.model_dump(mode="json")
    return {name: value for name, value in values.items() if value is not None or fields[name].is_required()}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An NPY file, whole or not at all."""
    disk.write_parts(path, array_parts(array))


def array_parts(array: NDArray[Any]) -> tuple[bytes, memoryview]:
    """The content of an NPY file: its header, and the array's own bytes, which are not copied where they lie in order.

    Raises:
        ValueError: an array of Python objects.
    """
    array = np.ascontiguousarray(array)
    if array.dtype.hasobject:
        raise ValueError(f"an array of numbers or strings is needed, got {array.dtype}")
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(header, np.lib.format.header_data_from_array_1_0(array))
    return header.getvalue(), array.reshape(-1).view(np.uint8).data


def read_array(path: Path) -> NDArray[Any]:
    """The array of an NPY file; a large one is mapped.

    Raises:
        RunError: it is missing or damaged; see `committee.folders.parsing.array_header`.
    """
    with opened(path) as (file, size):
        stored = parsing.array_header(file, size, path)
        count, start = math.prod(stored.shape), file.tell()
        if count * np.dtype(stored.kind).itemsize >= pages.LARGE:
            memory = pages.watched(pages.Mapping(file.fileno(), size, access=mmap.ACCESS_COPY))
            return np.frombuffer(memory, stored.kind, count, start).reshape(stored.shape)
        array: NDArray[Any] = np.fromfile(file, stored.kind, count)
        return array.reshape(stored.shape)


def array_header(path: Path) -> Stored:
    """Type and shape of the array of an NPY file.

    Raises:
        RunError: as `read_array`.
    """
    with opened(path) as (file, size):
        return parsing.array_header(file, size, path)


def read_probabilities(path: Path) -> NDArray[Any]:
    """The probabilities of an NPY file, (image, class); rows of NaN where an image is not predicted.

    Raises:
        RunError: as `read_array`, or for values that are no probabilities.
    """
    array = read_array(path)
    if array.ndim != 2 or array.dtype.kind != "f":
        raise parsing.damaged(path, f"probabilities (image, class) are expected, got {array.shape} of {array.dtype}")
    for start in range(0, len(array), pages.BLOCK):
        some = array[start : start + pages.BLOCK]
        empty = np.isnan(some).all(axis=1)
        if not ((some[~empty] >= 0) & (some[~empty] <= 1 + 1e-3)).all():
            raise parsing.damaged(path, "values that are no probabilities")
    return array


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An NPZ file, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    disk.write(path, content.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file; none where there is no file.

    Raises:
        RunError: it is damaged, or would take much more memory than its size lets expect.
    """
    if not path.exists():
        return {}
    with opened(path) as (file, size):
        try:
            with zipfile.ZipFile(file) as members:
                infos = members.infolist()
                if sum(info.file_size for info in infos) > max(LARGEST_NPZ, DENSEST_NPZ * size):
                    raise parsing.damaged(path, f"{size:,} bytes that would become more than {LARGEST_NPZ:,}")
                return {info.filename.removesuffix(".npy"): _read_member(members, info, path) for info in infos}
        except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
            raise parsing.damaged(path, f"no NPZ file: {str(error)[:100]}") from error


def _read_member(members: zipfile.ZipFile, info: zipfile.ZipInfo, path: Path) -> NDArray[Any]:
    """An array of an NPZ file."""
    with members.open(info) as file:
        stored = parsing.array_header(file, info.file_size, f"{path}: {info.filename[:80]}")
        array: NDArray[Any] = np.frombuffer(bytearray(file.read()), stored.kind)
        return array.reshape(stored.shape)


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """A safetensors file, whole or not at all."""
    disk.write(path, tensors_as_bytes(tensors))


def tensors_as_bytes(tensors: Mapping[str, Tensor], numbers: Mapping[str, JsonValue] | None = None) -> bytes:
    """The content of a safetensors file; `numbers` go into its header as JSON."""
    from safetensors.torch import save  # torch, which only what has to do with weights needs

    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    return save(plain, {"numbers": json.dumps(numbers)} if numbers is not None else None)


def read_tensors(path: Path, expected: Mapping[str, Stored] | None = None) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Args:
        path: the file.
        expected: type and shape of each tensor, compared before anything is allocated; None takes what is there.

    Raises:
        RunError: it is missing, damaged, or holds other tensors.
    """
    from safetensors.torch import load

    with opened(path) as (file, size):
        found, _ = parsing.tensor_header(file, size, path)
        for name in () if expected is None else (*expected, *found):
            wanted, got = (str(each.get(name, "nothing")) for each in (expected or {}, found))
            if got != wanted:
                raise RunError(
                    f"{path}: tensor {name[:80]} should be {wanted} and is {got}; the weights belong to another "
                    "recipe; restore them or train again"
                )
        file.seek(0)
        try:
            return load(file.read())
        except SafetensorError as error:
            raise parsing.damaged(path, str(error)) from error


def tensors_from_bytes(content: bytes, path: Path) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
    """The tensors and numbers of a safetensors file that `tensors_as_bytes` gave; some numbers may be infinite.

    Args:
        content: the file's bytes.
        path: where they stand; messages name the file alone.

    Raises:
        RunError: it is damaged, or has no numbers.
    """
    from safetensors.torch import load

    _, texts = parsing.tensor_header(io.BytesIO(content), len(content), path.name)
    numbers = parsing.json_value(
        texts.get("numbers", "").encode(), f"{path.name}: numbers", constants=("NaN", "Infinity", "-Infinity")
    )
    if not isinstance(numbers, dict):
        raise parsing.damaged(path.name, "its numbers are no table")
    try:
        return load(content), numbers
    except SafetensorError as error:
        raise parsing.damaged(path.name, str(error)) from error
