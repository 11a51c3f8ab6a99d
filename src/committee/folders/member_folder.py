"""The folder of one member of a run, or of a study's model: members/NN/."""

from __future__ import annotations

import contextlib
import hashlib
import re
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from committee import disk
from committee.errors import RunError
from committee.folders import files
from committee.folders.parsing import Stored, damaged
from committee.folders.records import EpochRecord, MemberRecord

Positions = NDArray[np.int64]
CHECKPOINT = re.compile(  # up to version 0.6 there was one, without numbers and digest in its name
    r"checkpoint(?:-(?P<epoch>\d+)-(?P<step>\d+)-(?P<digest>[0-9a-f]{16}))?\.safetensors"
)
NEWEST = 2  # checkpoints that are kept: should the last one be damaged, there is the one before
FILES = ("weights.safetensors", "validation.npy", "train_probabilities.npy", "history.jsonl", "member.json")
"""Of a trained member, in the order in which they are written."""


@dataclass(frozen=True)
class TrainedMember:
    """Everything that training leaves of a member.

    Attributes:
        weights: by parameter and buffer name, those of the best epoch, on the CPU; the input scaling is one of them.
        validation: (validation image,), positions in the training images.
        train_probabilities: (image, class), of all training images.
    """

    record: MemberRecord
    history: tuple[EpochRecord, ...]
    weights: dict[str, Tensor]
    validation: Positions
    train_probabilities: NDArray[np.float32]


@dataclass(frozen=True)
class MemberFolder:
    """A member's files; `member.json` is written last and says that there is nothing more to train."""

    path: Path

    def _make(self) -> None:
        disk.make_folder(self.path, within=self.path.parents[1])

    @property
    def is_done(self) -> bool:
        """Whether the member has finished, failed or come too late; one whose process died is still to be trained."""
        return (self.path / "member.json").exists() and self.record.status != "died"

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return bool(self.checkpoints)

    @property
    def record(self) -> MemberRecord:
        """What became of the member."""
        return files.read_record(self.path / "member.json", MemberRecord)

    def write_record(self, record: MemberRecord) -> None:
        """Say what became of the member; then its checkpoints go, unless they are needed to go on."""
        self._make()
        files.write_record(self.path / "member.json", record)
        if record.status != "died":
            self.delete_checkpoints()

    def write(self, member: TrainedMember) -> None:
        """All files of a trained member."""
        self._make()
        files.write_tensors(self.path / "weights.safetensors", member.weights)
        files.write_array(self.path / "validation.npy", member.validation)
        files.write_array(self.path / "train_probabilities.npy", member.train_probabilities)
        self.write_history(member.history)
        self.write_record(member.record)

    @property
    def history(self) -> tuple[EpochRecord, ...]:
        """The epochs so far."""
        return files.read_records(self.path / "history.jsonl", EpochRecord)

    def write_history(self, history: tuple[EpochRecord, ...], *, synced: bool = True) -> None:
        """The epochs so far, a line each; `synced` as in `committee.disk.write`."""
        self._make()
        files.write_records(self.path / "history.jsonl", history, synced=synced)

    @property
    def has_weights(self) -> bool:
        """Whether the member is trained."""
        return self.weights_file.exists()

    @property
    def weights_file(self) -> Path:
        """Where the weights are."""
        return self.path / "weights.safetensors"

    @property
    def weights_bytes(self) -> int:
        """The size of the weights' file; 0 where there is none."""
        return self.weights_file.stat().st_size if self.has_weights else 0

    def weights(self, expected: Mapping[str, Stored]) -> dict[str, Tensor]:
        """The weights of the best epoch.

        Args:
            expected: type and shape of each tensor of the member's network.

        Raises:
            RunError: they are missing or damaged, of another network, or not finite.
        """
        tensors = files.read_tensors(self.weights_file, expected)
        for name, tensor in tensors.items():
            if not bool(tensor.isfinite().all()):
                raise damaged(self.weights_file, f"tensor {name} has values that are not finite")
        return tensors

    @property
    def validation(self) -> Positions:
        """(validation image,): positions in the training images."""
        old = self.path / "held_out.npy"  # its name up to version 0.4
        return files.read_array(old if old.exists() else self.path / "validation.npy")

    @property
    def train_probabilities(self) -> NDArray[np.float32]:
        """(image, class), of all training images."""
        return files.read_probabilities(self.path / "train_probabilities.npy")

    @property
    def has_test_probabilities(self) -> bool:
        """Whether the member has predicted the test images."""
        return (self.path / "test_probabilities.npy").exists()

    @property
    def test_probabilities(self) -> NDArray[np.float32]:
        """(image, class), of the test images."""
        return files.read_probabilities(self.path / "test_probabilities.npy")

    def write_test_probabilities(self, probabilities: NDArray[np.float32]) -> None:
        """(image, class), of the test images."""
        files.write_array(self.path / "test_probabilities.npy", probabilities)

    @property
    def checkpoints(self) -> list[Path]:
        """The files of all checkpoints, the furthest first."""
        return [self.path / name for name in order_of_checkpoints(path.name for path in self.path.glob("*"))]

    def write_checkpoint(
        self, epoch: int, step: int, tensors: dict[str, Tensor], numbers: dict[str, JsonValue], before: Path | None
    ) -> Path:
        """Store everything that a bit-identical resume needs, in a file whose name has its digest.

        Args:
            epoch, step: how many epochs, and how many steps of the next one, it has behind it.
            tensors, numbers: what is stored.
            before: the checkpoint before it; only the two remain.

        Returns:
            The file, for the next one's `before`.
        """
        content = files.tensors_as_bytes(tensors, numbers)
        path = self.path / f"checkpoint-{epoch:05d}-{step:06d}-{_short_digest(content)}.safetensors"
        self._make()
        disk.write(path, content)
        for other in self.checkpoints:
            if other not in (path, before):
                disk.discard(other)
        return path

    def read_checkpoint(self, path: Path) -> tuple[dict[str, Tensor], dict[str, JsonValue]]:
        """What `write_checkpoint` stored in a file, compared with its digest before it is parsed.

        Raises:
            RunError: it cannot be read, or is damaged; the message is a clause that names the file alone.
        """
        try:
            content = path.read_bytes()
        except OSError as error:
            raise RunError(f"{path.name} cannot be read ({error.strerror})") from error
        if not is_whole(path.name, content):
            raise RunError(f"{path.name} is damaged (its SHA-256 is not the one in its name)")
        return files.tensors_from_bytes(content, path)

    def copies(self, but: Container[str] = ()) -> list[tuple[str, bytes]]:
        """Names and contents of the newest checkpoints, for a member that goes on elsewhere; one that cannot be read is
        left out.

        Args:
            but: names of those that are there already.
        """
        found = []
        for path in self.checkpoints[:NEWEST]:
            with contextlib.suppress(OSError):
                if path.name not in but:
                    found.append((path.name, path.read_bytes()))
        return found

    def receive_checkpoint(self, name: str, content: bytes) -> None:
        """Store a checkpoint that was written elsewhere; of those before it the newest one stays.

        Raises:
            StorageError: it cannot be written.
            ValueError: the name is not a checkpoint's.
        """
        if not order_of_checkpoints([name]):
            raise ValueError(f"{name!r} is not the name of a checkpoint")
        self._make()
        disk.write(self.path / name, content)
        for old in self.checkpoints[NEWEST:]:
            disk.discard(old)

    def contents(self) -> dict[str, bytes]:
        """The files of a trained member, to be received elsewhere."""
        return {name: (self.path / name).read_bytes() for name in FILES}

    def receive(self, contents: Mapping[str, bytes]) -> None:
        """Store the files of a member that was trained elsewhere; nothing changes where it is done already.

        Raises:
            StorageError: they cannot be written.
        """
        if self.is_done:
            return
        self._make()
        for name in FILES:
            disk.write(self.path / name, contents[name])
        self.delete_checkpoints()

    def delete_checkpoints(self) -> None:
        """Forget how far training got."""
        for path in self.checkpoints:
            disk.discard(path)


def order_of_checkpoints(names: Iterable[str]) -> list[str]:
    """Those of the names that are a checkpoint's, the furthest first."""
    found = [(match, name) for name in names if (match := CHECKPOINT.fullmatch(name))]
    found.sort(key=lambda pair: (int(pair[0]["epoch"] or 0), int(pair[0]["step"] or 0)), reverse=True)
    return [name for _, name in found]


def is_whole(name: str, content: bytes) -> bool:
    """Whether a checkpoint is what was written: its name has its digest (up to version 0.6 it had none)."""
    match = CHECKPOINT.fullmatch(name)
    return match is not None and match["digest"] in (None, _short_digest(content))


def _short_digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]
