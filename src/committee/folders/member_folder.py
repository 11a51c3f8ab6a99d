"""The folder of one member of a run, or of a study's model: members/NN/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import JsonValue
from torch import Tensor

from committee.folders import files
from committee.folders.records import EpochRecord, MemberRecord

Positions = NDArray[np.int64]


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

    @property
    def is_done(self) -> bool:
        """Whether the member has finished, failed or come too late; one whose process died is still to be trained."""
        return (self.path / "member.json").exists() and self.record.status != "died"

    @property
    def has_begun(self) -> bool:
        """Whether there is a checkpoint to go on from."""
        return self._checkpoint.exists()

    @property
    def record(self) -> MemberRecord:
        """What became of the member."""
        return files.read_record(self.path / "member.json", MemberRecord)

    def write_record(self, record: MemberRecord) -> None:
        """Say what became of the member; its checkpoint goes, unless it is needed to go on."""
        if record.status != "died":
            self.delete_checkpoint()
        files.write_record(self.path / "member.json", record)

    def write(self, member: TrainedMember) -> None:
        """All files of a trained member."""
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
    def weights(self) -> dict[str, Tensor]:
        """The weights of the best epoch."""
        return files.read_tensors(self.weights_file)

    @property
    def validation(self) -> Positions:
        """(validation image,): positions in the training images."""
        old = self.path / "held_out.npy"  # its name up to version 0.4
        return files.read_array(old if old.exists() else self.path / "validation.npy")

    @property
    def train_probabilities(self) -> NDArray[np.float32]:
        """(image, class), of all training images."""
        return files.read_array(self.path / "train_probabilities.npy")

    @property
    def has_test_probabilities(self) -> bool:
        """Whether the member has predicted the test images."""
        return (self.path / "test_probabilities.npy").exists()

    @property
    def test_probabilities(self) -> NDArray[np.float32]:
        """(image, class), of the test images."""
        return files.read_array(self.path / "test_probabilities.npy")

    def write_test_probabilities(self, probabilities: NDArray[np.float32]) -> None:
        """(image, class), of the test images."""
        files.write_array(self.path / "test_probabilities.npy", probabilities)

    @property
    def _checkpoint(self) -> Path:
        return self.path / "checkpoint.safetensors"

    def write_checkpoint(self, tensors: dict[str, Tensor], numbers: dict[str, JsonValue]) -> None:
        """Everything that a bit-identical resume needs."""
        files.write_tensors(self._checkpoint, tensors, numbers)

    @property
    def checkpoint(self) -> tuple[dict[str, Tensor], dict[str, JsonValue]] | None:
        """What `write_checkpoint` stored; None where there is none."""
        if not self.has_begun:
            return None
        return files.read_tensors(self._checkpoint), files.read_numbers(self._checkpoint)

    def delete_checkpoint(self) -> None:
        """Forget how far training got."""
        self._checkpoint.unlink(missing_ok=True)
