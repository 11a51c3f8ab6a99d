"""Checkpoints of members on a shared path or in object storage: whatever fsspec opens.

A start of a member writes into a folder of its own and deletes there alone, and reads those of all starts: a checkpoint
is as good whoever wrote it. So what a start does that was given up for dead, such as one on a node that was only cut
off, changes nothing for the one that took its place.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from typing import Any

from committee.errors import StorageError, require
from committee.folders.member_folder import NEWEST, is_whole, order_of_checkpoints
from committee.names import file_name


@dataclass(frozen=True)
class CheckpointStore:
    """Where one start of a member keeps its checkpoints: ``URL/RUN/MEMBER/START/checkpoint-...``.

    Attributes:
        url: a folder that all nodes see, or a URL.
        run: a digest of what identifies the training.
        member: the member's name in it.
        start: a name that no other start of it has.
    """

    url: str
    run: str
    member: str
    start: str = ""

    def check(self) -> None:
        """See that there is such storage.

        Raises:
            StorageError: the URL means nothing to fsspec, or its package for that is missing.
        """
        self._opened()

    def newest(self) -> list[tuple[str, bytes]]:
        """Names and contents of the checkpoints of all starts that are furthest and whole, as many as are kept.

        Raises:
            StorageError: they cannot be read.
        """
        files, place = self._opened()
        with self._failures_said("read"):
            if not files.exists(place):
                return []
            paths = {path.rpartition("/")[2]: path for path in files.find(place)}
            found = ((name, files.cat_file(paths[name])) for name in order_of_checkpoints(paths))
            return list(islice((each for each in found if is_whole(*each)), NEWEST))

    def write(self, name: str, content: bytes) -> None:
        """Keep one more of this start's checkpoints; of those before it the newest one stays.

        Raises:
            StorageError: it cannot be written.
        """
        files, place = self._opened()
        mine = f"{place}/{self.start}"
        with self._failures_said("written"):
            files.makedirs(mine, exist_ok=True)
            files.pipe_file(f"{mine}/{name}", content)
            paths = {path.rpartition("/")[2]: path for path in files.find(mine)}
            for old in order_of_checkpoints(paths)[NEWEST:]:
                files.rm_file(paths[old])

    def clear(self) -> None:
        """Delete the checkpoints of all starts, which are of no use any more; what cannot be deleted stays."""
        with suppress(Exception):  # each kind of storage has errors of its own
            files, place = self._opened()
            files.rm(place, recursive=True)

    def _opened(self) -> tuple[Any, str]:
        """The file system of the URL, as fsspec has it, and the member's folder there."""
        fsspec = require("fsspec", "ray", "Keeping checkpoints in shared storage")
        with self._failures_said("opened"):
            files, root = fsspec.core.url_to_fs(self.url)
            return files, f"{root.rstrip('/')}/{self.run}/{file_name(self.member)}"

    @contextmanager
    def _failures_said(self, done: str) -> Iterator[None]:
        try:
            yield
        except (StorageError, KeyboardInterrupt):
            raise
        except Exception as error:  # each kind of storage has errors of its own
            first = (str(error).strip().splitlines() or [type(error).__name__])[0]
            raise StorageError(
                f"checkpoints in {self.url} cannot be {done} ({first}); see that every node reaches it, and give the "
                "same command again"
            ) from error
