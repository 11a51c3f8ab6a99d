"""Memory that is mapped from files: what has been looked at is given back, and large results get room in such memory.

The pages of a mapped file are in the memory of a process from when they are looked at on. `looked_at` counts images,
wherever they are computed with, and gives the pages back after some hundreds; what is looked at again is mapped again,
from the system's cache as long as that has room. So a process stays small however much it has mapped.
"""

from __future__ import annotations

import math
import mmap
import tempfile
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

BETWEEN_DROPS = 512
"""Images that are looked at before their pages are given back: one of a random order maps 64 KiB of them and more."""

LARGE = 64 * 2**20
"""Bytes from which on an array of results is mapped from a temporary file."""

BLOCK = 2**18
"""Rows that are computed with together where an array has more."""

_mapped: weakref.WeakSet[Mapping] = weakref.WeakSet()
_count = [0]  # images since the last time


class Mapping(mmap.mmap):
    """Mapped memory that can be referred to weakly."""


def watched(memory: Mapping) -> Mapping:
    """The memory, whose pages `drop_pages` gives back from now on."""
    _mapped.add(memory)
    return memory


def looked_at(images: int) -> None:
    """Count images that were looked at, in whatever array; after so many, the pages of mapped files are given back."""
    if _mapped:
        _count[0] += images
        if _count[0] >= BETWEEN_DROPS:
            drop_pages()


def drop_pages() -> None:
    """Give back the memory of all mapped files of this process."""
    _count[0] = 0
    if hasattr(mmap, "MADV_DONTNEED"):
        for memory in list(_mapped):
            memory.madvise(mmap.MADV_DONTNEED)


def room(shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array to be filled; a large one is mapped from a temporary file, which goes with it.

    Args:
        shape: of the array.
        dtype: of its values.
    """
    size = math.prod(shape) * np.dtype(dtype).itemsize
    if size < LARGE:
        return np.empty(shape, dtype)
    with tempfile.TemporaryFile() as file:
        file.truncate(size)
        memory = watched(Mapping(file.fileno(), size))
    return np.frombuffer(memory, dtype).reshape(shape)


def rows(array: NDArray[Any], positions: NDArray[np.int64]) -> NDArray[Any]:
    """array[positions], in `room`; the array itself where these are all of its rows.

    Args:
        array: (row, ...).
        positions: ascending, each once.
    """
    if len(positions) == len(array):
        return array
    return by_blocks(lambda start, stop: array[positions[start:stop]], (len(positions), *array.shape[1:]), array.dtype)


def by_blocks(function: Callable[[int, int], NDArray[Any]], shape: tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An array that is computed some rows at a time, in `room`; at once where it is small.

    Args:
        function: (first row, behind the last) -> these rows.
        shape: of all.
        dtype: of their values.
    """
    if shape[0] <= BLOCK:
        return function(0, shape[0])
    result = room(shape, dtype)
    for start in range(0, shape[0], BLOCK):
        stop = min(start + BLOCK, shape[0])
        result[start:stop] = function(start, stop)
        drop_pages()
    return result
