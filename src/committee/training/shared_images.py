"""Images -> files that all jobs of a training map into memory, for as long as it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np

from committee.data.dataset import LabelledImages
from committee.temporary import temporary_folder, writing_into

HEADER = 4096  # bytes of an NPY header and of the file system's own, at most
COPIES = "the copies of the images that all workers read"


class ImageSource(Protocol):
    """Where a job finds its images."""

    def load(self) -> LabelledImages:
        """The images, which are not written to."""


@dataclass(frozen=True)
class SharedImages:
    """Images and labels as NPY files that all jobs map into memory."""

    pixels: Path
    labels: Path

    def load(self) -> LabelledImages:
        """The images, mapped copy on write: shared by all processes, never written to."""
        return LabelledImages(np.load(self.pixels, mmap_mode="c"), np.load(self.labels))


@contextmanager
def shared(*parts: LabelledImages | None) -> Iterator[list[SharedImages | None]]:
    """Images as files for all workers, deleted at the end; None stays None.

    Raises:
        StorageError: there is no room for them, or they cannot be written.
    """
    needed = sum(part.pixels.nbytes + part.labels.nbytes + 2 * HEADER for part in parts if part is not None)
    with temporary_folder(needed, COPIES) as folder:
        found: list[SharedImages | None] = []
        for number, part in enumerate(parts):
            files = SharedImages(folder / f"{number}-pixels.npy", folder / f"{number}-labels.npy")
            if part is not None:
                with writing_into(folder, needed, COPIES):
                    np.save(files.pixels, part.pixels)
                    np.save(files.labels, part.labels)
            found.append(None if part is None else files)
        yield found
