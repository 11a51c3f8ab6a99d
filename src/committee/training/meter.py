"""Sums over the steps of an epoch: what they come to at its end, and in its middle for a checkpoint."""

from __future__ import annotations

import time
from dataclasses import dataclass

import torch
from torch import Tensor

from committee.training.batches import Generators
from committee.training.state import EpochUnderWay


@dataclass(frozen=True)
class EpochTotals:
    """What the steps of an epoch come to for one member.

    Attributes:
        images, correct: how many images it was trained on, and how many of them it predicted correctly in their step.
        loss: the mean over those images.
        lr: of the last step.
        began: when the epoch began, by `time.perf_counter`; where training was interrupted in the middle of the epoch,
            so much later that the time until the checkpoint counts, and the time since then does not.
        seconds: that all steps took.
    """

    images: int
    correct: int
    loss: float
    lr: float
    began: float
    seconds: float


class EpochMeter:
    """Sums over the steps of an epoch; they stay on the device, so that no step waits for them.

    Args:
        start: where the epoch begins or goes on.
        device: of the training.
    """

    def __init__(self, start: EpochUnderWay, device: str) -> None:
        double = torch.float32 if device == "mps" else torch.float64  # Apple's GPUs have no float64
        self.loss = torch.tensor(start.loss, dtype=double, device=device)
        self.correct = torch.tensor(start.correct, dtype=torch.int64, device=device)
        self.step, self.images, self.lr = start.step, start.images, start.lr
        self.began = time.perf_counter() - start.seconds

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor, lr: float) -> None:
        """Count a step: its mean loss, logits (image, class), targets (image,) and learning rate."""
        self.loss += loss.detach().to(self.loss) * len(targets)
        self.correct += (logits.detach().argmax(1) == targets).sum()
        self.images += len(targets)
        self.step += 1
        self.lr = lr

    @property
    def mean_loss(self) -> float:
        """Over the images so far; waits for the device."""
        return float(self.loss) / self.images

    def under_way(self, generators: Generators) -> EpochUnderWay:
        """The epoch after the steps so far, with the states of its generators; waits for the device."""
        return EpochUnderWay(
            step=self.step,
            augmentation=generators.augmentation.get_state(),
            dropout=generators.dropout.get_state(),
            images=self.images,
            correct=int(self.correct),
            loss=float(self.loss),
            lr=self.lr,
            seconds=time.perf_counter() - self.began,
        )

    def totals(self) -> EpochTotals:
        """The totals of the epoch, which ends now; waits for the device."""
        loss = self.mean_loss
        seconds = time.perf_counter() - self.began
        return EpochTotals(self.images, int(self.correct), loss, self.lr, self.began, seconds)
