"""Images -> files that all jobs of a training map into memory, for as long as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from committee.data.dataset import LabelledImages
from committee.data.shards import Shards
from committee.temporary import temporary_folder, writing_into

HEADER = 4096  # bytes of an NPY header and of the file system's own, at most
COPIES = "the copies of the images that all workers read"


class ImageSource(Protocol):
    """Where a job finds its images."""

    def load(self) -> LabelledImages:
        """The images, which are not written to."""


@dataclass(frozen=True)
class SharedImages:
    """Images and labels as files that all jobs map into memory.

    Attributes:
        pixels: an NPY file, or the shards of prepared data.
        labels: an NPY file.
    """

    pixels: Path | Shards
    labels: Path

    def load(self) -> LabelledImages:
        """The images, mapped copy on write: shared by all processes, never written to."""
        if isinstance(self.pixels, Shards):
            return LabelledImages(self.pixels.mapped(), np.load(self.labels, mmap_mode="c"))
        return LabelledImages(np.load(self.pixels, mmap_mode="c"), np.load(self.labels))


@contextmanager
def shared(*parts: LabelledImages | None) -> Iterator[list[SharedImages | None]]:
    """Images as files for all workers, deleted at the end; None stays None, and prepared data stay where they are.

    Raises:
        StorageError: there is no room for them, or they cannot be written.
    """
    copied = [part for part in parts if part is not None and part.in_files is None]
    needed = sum(part.pixels.nbytes + part.labels.nbytes + 2 * HEADER for part in copied)
    with temporary_folder(needed, COPIES) as folder:
        yield [
            part if part is None else _in_files(part, folder / str(number), needed) for number, part in enumerate(parts)
        ]


def _in_files(part: LabelledImages, stem: Path, needed: int) -> SharedImages:
    """The files that images lie in already, or copies."""
    if own := part.in_files:
        return SharedImages(own.pixels, own.labels)
    pixels, labels = (stem.with_name(f"{stem.name}-{name}.npy") for name in ("pixels", "labels"))
    with writing_into(stem.parent, needed, COPIES):
        np.save(pixels, part.pixels)
        np.save(labels, part.labels)
    return SharedImages(pixels, labels)
