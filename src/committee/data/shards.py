"""Images in shards: files of raw pixels, mapped into memory one behind the other, so that they are one array.

Nothing is read until it is looked at, and what has been looked at is given back (`committee.pages`): the memory of a
process stays small however many images there are. Each shard but the last fills whole pages of memory, so that the
next one can begin where it ends; where the system cannot map files so, they are copied into one temporary file.
"""

from __future__ import annotations

import ctypes
import errno
import math
import mmap
import os
import sys
import tempfile
import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.errors import DataError
from committee.pages import Mapping, watched

if TYPE_CHECKING:
    from committee.data.dataset import LabelledImages, Pixels

SHARD_BYTES = 64 * 2**20
PAGES = (65536, 16384, 4096)
"""Sizes of a page of memory that systems have; shards fill whole ones of the largest that does not make them huge."""

MOST_OPEN = 512  # shards that are kept open

_FIXED, _PRIVATE, _NO_RESERVE = 0x10, 0x02, 0x4000 if sys.platform == "linux" else 0


@dataclass(frozen=True)
class Shards:
    """Images (image, height, width, channel) in files.

    Attributes:
        files: one behind the other.
        shape: of all of them together.
        dtype: "uint8" or "uint16".
    """

    files: tuple[Path, ...]
    shape: tuple[int, int, int, int]
    dtype: str

    @property
    def image_bytes(self) -> int:
        """Of one image."""
        return math.prod(self.shape[1:]) * np.dtype(self.dtype).itemsize

    def mapped(self) -> Pixels:
        """All images as one array, mapped copy on write: shared by all processes, never written to.

        Raises:
            DataError: a file is missing, or has another size.
        """
        size = self.shape[0] * self.image_bytes
        if not size:
            return cast("Pixels", np.empty(self.shape, self.dtype))
        sizes = [self._size(file) for file in self.files]
        if sum(sizes) != size:
            raise DataError(
                f"{self.files[0].parent}: shards of {size:,} bytes together are expected, got {sum(sizes):,}; prepare "
                "the data again"
            )
        aligned = all(each % mmap.ALLOCATIONGRANULARITY == 0 for each in sizes[:-1])
        if not (aligned and os.name == "posix"):
            memory = _copied(self.files, size)
        else:
            memory = _side_by_side(self.files, sizes)
            if len({*sizes[:-1]}) <= 1 and len(sizes) <= MOST_OPEN and hasattr(os, "preadv"):
                memory.reader = Reader.of(self.files, sizes[0] // self.image_bytes, self.image_bytes)
        return cast(
            "Pixels", np.frombuffer(memory, self.dtype, size // np.dtype(self.dtype).itemsize).reshape(self.shape)
        )

    def _size(self, file: Path) -> int:
        try:
            return file.stat().st_size
        except OSError as error:
            raise DataError(f"{file}: a shard is expected ({error.strerror}); prepare the data again") from error


@dataclass(frozen=True)
class ImageFiles:
    """Images and labels that lie in files already, for other processes to map.

    Attributes:
        pixels: the images' files.
        labels: an NPY file, (image,) int64.
        held: the arrays of this process that they are mapped to; None in another one.
    """

    pixels: Shards
    labels: Path
    held: tuple[Pixels, NDArray[np.int64]] | None = None

    def hold(self, images: LabelledImages) -> bool:
        """Whether these images are in the files, and not others that were made of them."""
        return self.held is not None and images.pixels is self.held[0] and images.labels is self.held[1]

    def __getstate__(self) -> dict[str, Any]:
        return {"pixels": self.pixels, "labels": self.labels, "held": None}


@dataclass(frozen=True)
class Reader:
    """Single images of shards, read instead of mapped.

    Where an image of a random order is looked at, the system maps its surroundings, too: some hundred pages, which take
    a tenth of the time of training a small network on it. To read it takes a hundredth.

    Attributes:
        files: descriptors of the shards.
        per_shard: images in each but the last.
        image_bytes: of one.
    """

    files: tuple[int, ...]
    per_shard: int
    image_bytes: int

    @classmethod
    def of(cls, files: Sequence[Path], per_shard: int, image_bytes: int) -> Reader:
        """The files are closed with the result."""
        reader = cls(tuple(os.open(file, os.O_RDONLY | os.O_CLOEXEC) for file in files), per_shard, image_bytes)
        weakref.finalize(reader, _close, reader.files)
        return reader

    def read(self, positions: Sequence[int], into: NDArray[np.uint8]) -> None:
        """Read images at positions.

        Args:
            positions: of the images.
            into: (image, byte), what is filled.

        Raises:
            OSError: a file cannot be read, or ends early.
        """
        view = memoryview(into.reshape(-1)).cast("B")  # type: ignore[arg-type]
        size, place = self.image_bytes, 0
        for position in positions:
            shard, image = divmod(position, self.per_shard)
            if os.preadv(self.files[shard], (view[place : place + size],), image * size) != size:
                raise OSError(errno.EIO, "a shard of the images ends early")
            place += size


def _close(files: Sequence[int]) -> None:
    for file in files:
        os.close(file)


def reader_at(address: int) -> Reader | None:
    """What reads single images of the shards that are mapped from this address on; None where there are none."""
    return next((memory.reader for memory in _side_by_sides if memory.start == address), None)


def images_per_shard(image_bytes: int, shard_bytes: int = SHARD_BYTES) -> int:
    """How many images fill about so many bytes, and whole pages of memory."""
    for page in PAGES:
        step = page // math.gcd(page, image_bytes)
        if step * image_bytes <= shard_bytes:
            break
    return max(shard_bytes // (step * image_bytes), 1) * step


class _SideBySide(Mapping):
    """Shards mapped from an address on, and what reads single images of them."""

    start = 0
    reader: Reader | None = None


_side_by_sides: weakref.WeakSet[_SideBySide] = weakref.WeakSet()


def _side_by_side(files: Sequence[Path], sizes: Sequence[int]) -> _SideBySide:
    """Files mapped one behind the other into one piece of memory, which goes with the result."""
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    memory = _SideBySide(-1, sum(sizes), flags=flags | _NO_RESERVE)
    memory.start = start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    place = ctypes.CDLL(None, use_errno=True).mmap
    place.restype = ctypes.c_void_p
    place.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    for file, size in zip(files, sizes, strict=True):
        descriptor = os.open(file, os.O_RDONLY)
        try:
            found = place(start, size, mmap.PROT_READ | mmap.PROT_WRITE, _PRIVATE | _FIXED | _NO_RESERVE, descriptor, 0)
        finally:
            os.close(descriptor)
        if found != start:
            raise DataError(
                f"{file}: the shard cannot be mapped into memory ({os.strerror(ctypes.get_errno())}); put the data on "
                "a disk of this machine"
            )
        start += size
    if hasattr(mmap, "MADV_RANDOM"):
        memory.madvise(mmap.MADV_RANDOM)
    _side_by_sides.add(memory)
    watched(memory)
    return memory


def _copied(files: Sequence[Path], size: int) -> mmap.mmap:
    """The contents of files in one temporary file, which is mapped and goes with the result."""
    with tempfile.TemporaryFile() as whole:
        for file in files:
            whole.write(file.read_bytes())
        whole.flush()
        return mmap.mmap(whole.fileno(), size, access=mmap.ACCESS_COPY)
