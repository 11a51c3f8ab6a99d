"""Single files: written whole or not at all, read back with their checks. Plain formats only, never pickle."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from committee import disk
from committee.config.record import Record
from committee.errors import RunError

R = TypeVar("R", bound=Record)


def write_text(path: Path, text: str, *, synced: bool = True) -> None:
    """A text file in UTF-8, whole or not at all; `synced` as in `committee.disk.write`."""
    disk.write(path, text.encode(), synced=synced)


def read_text(path: Path) -> str:
    """The text of a file.

    Raises:
        RunError: it is missing, or no text.
    """
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise RunError(f"{path} is missing; is {path.parent} a folder that committee wrote?") from error
    except OSError as error:
        raise RunError(f"{path} cannot be read ({error.strerror}); check the disk and its permissions") from error
    except UnicodeDecodeError as error:
        raise RunError(f"{path} is damaged (no text in UTF-8); restore it or train again") from error


def write_json(path: Path, value: JsonValue) -> None:
    """A JSON file, whole or not at all; infinite or undefined numbers are an error."""
    write_text(path, json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False) + "\n")


def read_json(path: Path) -> JsonValue:
    """The value of a JSON file.

    Raises:
        RunError: it is missing or not JSON.
    """
    try:
        value: JsonValue = json.loads(read_text(path))
    except ValueError as error:
        raise RunError(f"{path} is not valid JSON ({error}); restore it or train again") from error
    return value


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
        return kind.model_validate(value)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise RunError(
            f"{path} does not have the fields that this version of committee expects ({place}: "
            f"{first['msg'].lower()}); read the folder with the version that wrote it, or train again"
        ) from error


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
    try:
        values = [json.loads(line) for line in read_text(path).splitlines()]
    except ValueError as error:
        raise RunError(f"{path} is not valid JSONL ({error}); restore it or train again") from error
    return tuple(as_record(value, kind, path) for value in values)


def _stated(record: Record) -> dict[str, JsonValue]:
    fields = type(record).model_fields
    values: dict[str, JsonValue] = record.model_dump(mode="json")
    return {name: value for name, value in values.items() if value is not None or fields[name].is_required()}


def write_array(path: Path, array: NDArray[Any]) -> None:
    """An NPY file, whole or not at all."""
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    disk.write(path, content.getvalue())


def read_array(path: Path) -> NDArray[Any]:
    """The array of an NPY file.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        array: NDArray[Any] = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); restore it or train again") from error
    return array


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    """An NPZ file, whole or not at all."""
    content = io.BytesIO()
    np.savez_compressed(content, allow_pickle=False, **arrays)
    disk.write(path, content.getvalue())


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays of an NPZ file; none where there is no file."""
    if not path.exists():
        return {}
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def write_tensors(path: Path, tensors: Mapping[str, Tensor], numbers: Mapping[str, JsonValue] | None = None) -> None:
    """A safetensors file, whole or not at all; `numbers` go into its header as JSON."""
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    header = {"numbers": json.dumps(numbers)} if numbers is not None else None
    disk.write(path, save(plain, metadata=header))


def read_tensors(path: Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file.

    Raises:
        RunError: it is missing or damaged.
    """
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise RunError(f"{path} is missing or damaged ({error}); restore it or train again") from error


def read_numbers(path: Path) -> dict[str, JsonValue]:
    """The numbers in the header of a safetensors file that `write_tensors` wrote."""
    with path.open("rb") as file:
        length = int.from_bytes(file.read(8), "little")
        numbers: dict[str, JsonValue] = json.loads(json.loads(file.read(length))["__metadata__"]["numbers"])
    return numbers
