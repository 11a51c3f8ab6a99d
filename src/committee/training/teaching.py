"""Soft targets: what a teacher says about the very images of a batch, and the loss of a student that imitates it.

Knowledge distillation is due to Hinton, Vinyals & Dean 2015, "Distilling the knowledge in a neural network", arXiv
1503.02531. The teacher sees each batch as the student does, after the random changes, as in Beyer et al. 2022,
"Knowledge distillation: a good teacher is patient and consistent", arXiv 2106.05237.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from committee.config.recipe import Training

Judge = Callable[[Tensor, Tensor], Tensor]
"""(image, channel, height, width) float32 raw pixels, changed or not, and (image,), which training images they were ->
(image, class) float32 probabilities; rows of 0 where the teacher may not judge an image."""


@dataclass(frozen=True)
class Teaching:
    """How a student learns from a teacher.

    Attributes:
        judge: the teacher's answers.
        temperature: that both distributions are softened with; 1 leaves them as they are.
        weight: of the soft targets in the loss, from 0 to 1; the labels have the rest.
    """

    judge: Judge
    temperature: float
    weight: float

    def lesson(self, images: Tensor, positions: Tensor) -> Lesson:
        """What the teacher says about a batch.

        Args:
            images: (image, channel, height, width) float32 raw pixels, as the student gets them.
            positions: (image,), which training images they were.
        """
        softened = self.judge(images, positions).pow(1 / self.temperature)
        soft = softened / softened.sum(1, keepdim=True).clamp_min(torch.finfo(softened.dtype).tiny)
        return Lesson(soft, self.temperature, self.weight)


@dataclass(frozen=True)
class Lesson:
    """A teacher's answers for one batch.

    Attributes:
        soft: (image, class) float32, proportional to p^(1 / temperature); rows of 0 where it may not judge an image.
        temperature, weight: as in `Teaching`.
    """

    soft: Tensor
    temperature: float
    weight: float

    def loss(self, logits: Tensor, targets: Tensor, training: Training, weights: Tensor | None = None) -> Tensor:
        """The mean over images of w T^2 H(soft, softmax(logits / T)) + (1 - w) H(label, softmax(logits)), in nats.

        H is the cross-entropy, w the weight, T the temperature; T^2 keeps the soft part's gradients at the size that
        they have without softening (Hinton et al., section 2). An image that the teacher may not judge has w = 0.

        Args:
            logits: (image, class) float32.
            targets: (image,), the labels.
            training: the recipe's section, for the smoothing of the labels.
            weights: (image,), factors of the images' losses; None for 1 each.
        """
        smoothing = training.label_smoothing
        by_label = functional.cross_entropy(logits, targets, reduction="none", label_smoothing=smoothing)
        by_teacher = -(self.soft * functional.log_softmax(logits / self.temperature, 1)).sum(1) * self.temperature**2
        own = self.weight * (self.soft.sum(1) > 0)
        losses = own * by_teacher + (1 - own) * by_label
        return (losses if weights is None else losses * weights).mean()
