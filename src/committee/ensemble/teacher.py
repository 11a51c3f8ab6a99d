"""A committee as the teacher of a student: what the members that did not train on an image say about it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.ensemble.committee import Committee
from committee.folders.member_folder import Positions
from committee.folders.records import CommitteeRecord
from committee.nn.forward import inference_batch_size


@dataclass(frozen=True)
class OutOfFoldTeacher:
    """A `committee.training.teaching.Judge`.

    An image and every random change of it are judged only by the members that held the image out: one that trained on
    it has learnt its label by heart, and would hand that on for a changed copy just as well. So a batch costs as many
    forward passes an image as members held it out, two for ten members of five folds, and not one a member.

    Attributes:
        committee: the members.
        held_out: (member, image), whether a member did not train on a training image.
        temperature: that calibrates so few members, see `calibration_of`.
    """

    committee: Committee
    held_out: NDArray[np.bool_]
    temperature: float = 1.0

    @torch.no_grad()
    def __call__(self, images: Tensor, positions: Tensor) -> Tensor:
        """The mean of the members that may judge, calibrated: (image, class) float32; 0 where none may."""
        may_judge = torch.from_numpy(self.held_out[:, positions.cpu().numpy()])
        total = torch.zeros(len(images), len(self.committee.class_names), device=images.device)
        for forward, mine in zip(self.committee.forwards, may_judge, strict=True):
            for chosen in mine.nonzero()[:, 0].split(inference_batch_size(self.committee.device)):
                if len(chosen):
                    there = chosen.to(images.device)
                    total[there] += forward(images[there]).softmax(1).to(total)
        calibrated = total.pow(1 / self.temperature)
        return calibrated / calibrated.sum(1, keepdim=True).clamp_min(torch.finfo(calibrated.dtype).tiny)


def held_out_of(validation: Sequence[Positions], images: int) -> NDArray[np.bool_]:
    """(member, image), whether a member did not train on an image.

    Args:
        validation: for each member, the positions of the images that it did not train on.
        images: the number of training images.
    """
    held_out = np.zeros((len(validation), images), dtype=np.bool_)
    for member, positions in enumerate(validation):
        held_out[member, positions] = True
    return held_out


def calibration_of(record: CommitteeRecord, held_out: NDArray[np.bool_]) -> float:
    """The temperature of committees as small as those that judge an image: the nearest size that was fitted, else 1."""
    judges = held_out.sum(0)
    if not record.temperature_by_size or not judges.any():
        return 1.0
    usual = float(judges[judges > 0].mean())
    return min(record.temperature_by_size, key=lambda each: abs(each.members - usual)).temperature
