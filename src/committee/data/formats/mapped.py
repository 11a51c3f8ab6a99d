"""Arrays in files: large ones are mapped into memory; some of their rows, into temporary files mapped likewise."""

from __future__ import annotations

import io
import math
import mmap
import os
import tempfile
import zlib
from pathlib import Path
from typing import Any, BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.files import Files
from committee.data.limits import VARIABLE, limits
from committee.errors import DataError

MAPPED_BYTES = 64 * 2**20
"""Arrays of at least this size that lie uncompressed in a file of their own are memory-mapped instead of read."""


def _plain_file(file: BinaryIO, expected: int) -> str:
    """The path of an open uncompressed file that has at least `expected` bytes left to read; "" for anything else."""
    raw = getattr(file, "raw", None)
    if not isinstance(raw, io.FileIO) or not isinstance(raw.name, (str, os.PathLike)):
        return ""
    return os.fspath(raw.name) if os.fstat(raw.fileno()).st_size - file.tell() >= expected else ""


def content_of(files: Files, name: str) -> bytes | mmap.mmap:
    """The bytes of a file: a large one that lies uncompressed in a folder is memory-mapped, others are read.

    Raises:
        DataError: as `Files.read`.
    """
    if not name.endswith((".gz", ".bz2")) and (size := files.size(name)) >= MAPPED_BYTES:
        limits().check("bytes", size, files.label(name), "bytes of a file", "give a part of it")
        with files.open(name) as file:
            if path := _plain_file(file, size):
                with Path(path).open("rb") as own:
                    return mmap.mmap(own.fileno(), 0, access=mmap.ACCESS_READ)
    return files.read(name)


def is_mapped(array: NDArray[Any]) -> bool:
    """Whether an array is, or is a view of, a memory-mapped file."""
    base: Any = array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    return isinstance(base, (np.memmap, mmap.mmap))


def rows_of(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """array[positions], without memory for it where the array is memory-mapped.

    The rows of a memory-mapped array are copied into a temporary file, which is memory-mapped in turn and goes when the
    result is no longer used.
    """
    if not is_mapped(array):
        return array[positions]
    with tempfile.TemporaryFile() as file:
        rows = np.memmap(file, array.dtype, "w+", shape=(len(positions), *array.shape[1:]))
    for start in range(0, len(positions), 10_000):
        rows[start : start + 10_000] = array[positions[start : start + 10_000]]
    return np.asarray(rows)


def split_rows(
    array: NDArray[Any], first: NDArray[np.int64], second: NDArray[np.int64]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """array[first] and array[second], both in the memory of the array, which must not be used any more.

    Only as much room as `second` needs is taken meanwhile. An array that cannot be written to is copied, one that is
    memory-mapped as `rows_of` does it.

    Args:
        array: (row, ...).
        first: positions, ascending.
        second: all other positions, ascending.
    """
    if is_mapped(array) or not array.flags.writeable:
        return rows_of(array, first), rows_of(array, second)
    kept_aside = array[second]
    for start in range(0, len(first), 1000):  # rows only move towards the beginning
        some = first[start : start + 1000]
        array[start : start + len(some)] = array[some]
    array[len(first) :] = kept_aside
    return array[: len(first)], array[len(first) :]


def read_exactly(files: Files, name: str, file: BinaryIO, shape: tuple[int, ...], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array that a file holds from here on: a large one in an uncompressed file is memory-mapped, others are read.

    Args:
        files: where the file is.
        name: its name there.
        file: the same, open, positioned behind the header.
        shape: as the header says.
        dtype: as the header says.

    Raises:
        DataError: the array would be over a limit (`images`, `bytes`, `expansion`) or is empty, or the file ends early.
    """
    label = files.label(name)
    most, sizes = limits(), [int(size) for size in shape]
    if dtype.itemsize == 0 or 0 in sizes[1:]:
        raise DataError(f"{label}: an array with numbers in it is expected, got the shape {shape} of {dtype}; check it")
    expected = math.prod(sizes) * dtype.itemsize
    if expected > most.bytes:
        raise DataError(
            f"{label}: at most {most.bytes:,} bytes are read, and the header announces {expected:,} (shape {shape}, "
            f"{dtype}); check the file, give fewer images, or if you trust it, set {VARIABLE}="
            f"{most.raised('bytes', expected)}"
        )
    most.check("images", sizes[0] if sizes else 0, label, f"rows of an array (shape {shape})", "give a part of them")
    if name.endswith((".gz", ".bz2")):
        most.check_unpacked(expected, files.packed(name), label)
    elif expected > (left := files.size(name) - file.tell()):
        raise _cut_off(label, expected, left)
    if expected >= MAPPED_BYTES and (path := _plain_file(file, expected)):
        array = np.asarray(np.memmap(path, dtype, mode="r", offset=file.tell(), shape=shape))
        file.seek(expected, os.SEEK_CUR)
        return array
    array = np.empty(shape, dtype)
    view = array.reshape(-1).view(np.uint8).data if expected else memoryview(bytearray())
    got = 0
    try:
        while got < expected and (count := cast(io.BufferedIOBase, file).readinto(view[got:])):
            got += count
    except (EOFError, zlib.error):
        pass
    if got < expected:
        raise _cut_off(label, expected, got)
    return array


def _cut_off(label: str, expected: int, got: int) -> DataError:
    return DataError(
        f"{label}: the file is cut off: {expected:,} bytes of data are expected, got {got:,}; copy or download it again"
    )
