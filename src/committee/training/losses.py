"""The loss of a batch: by labels, by a teacher, and where images have parts of others."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor
from torch.nn import functional

from committee.config.recipe import Training
from committee.training.batches import Batch


def loss_of(logits: Tensor, targets: Tensor, training: Training, weights: Tensor | None = None) -> Tensor:
    """The mean loss of a batch.

    cross_entropy: in nats, with label smoothing after Szegedy et al. 2016, "Rethinking the Inception architecture for
    computer vision", arXiv 1512.00567. mean_squared_error: of the probabilities from 0 and 1, the mean over images and
    classes, as in Keras; label smoothing changes the 0 and 1 likewise.

    Args:
        logits: (image, class) float32.
        targets: (image,).
        training: the recipe's section.
        weights: (image,), factors of the images' losses; None for 1 each.
    """
    reduction = "mean" if weights is None else "none"
    if training.loss == "cross_entropy":
        loss = functional.cross_entropy(logits, targets, reduction=reduction, label_smoothing=training.label_smoothing)
        return loss if weights is None else (loss * weights).mean()
    goal = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    goal = goal * (1 - training.label_smoothing) + training.label_smoothing / logits.shape[1]
    loss = functional.mse_loss(logits.softmax(1), goal, reduction=reduction)
    return loss if weights is None else (loss * weights[:, None]).mean()


def loss_on(batch: Batch, training: Training) -> Callable[[Tensor], Tensor]:
    """The mean loss of a batch as a function of its logits, by its teacher where it has one.

    An image with a part of another one counts for the labels of both, each by its share of the pixels.
    """
    of = partial(batch.lesson.loss if batch.lesson else loss_of, training=training)
    if batch.mixed is None:
        return partial(of, targets=batch.targets, weights=batch.weights)
    others, shares = batch.mixed.others, batch.mixed.shares
    weights = torch.ones_like(shares) if batch.weights is None else batch.weights
    own = partial(of, targets=batch.targets, weights=weights * shares)
    foreign = partial(of, targets=batch.targets[others], weights=weights[others] * (1 - shares))
    return lambda logits: own(logits) + foreign(logits)
