"""Batches: an epoch's images in order, augmented, as floats; and what is computed from training images beforehand."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee.data.augment import augment
from committee.data.dataset import Pixels
from committee.nn.architectures import Scaling, set_dropout_generator
from committee.nn.images import as_float, on_device
from committee.rng import numpy_generator, torch_generator
from committee.training.state import Task


def scaling_of(pixels: Pixels, train: NDArray[np.int64], kind: str) -> Scaling:
    """The input scaling, its constants taken from the member's own training images in blocks of 1,000."""
    if kind == "none":
        return Scaling()
    if kind in ("unit", "unit_twice"):
        largest = float(np.iinfo(pixels.dtype).max)
        return Scaling(0.0, largest if kind == "unit" else largest**2)
    number, total, squares = 0, 0, 0
    for start in range(0, len(train), 1000):
        block = pixels[train[start : start + 1000]].astype(np.int64)
        number, total, squares = number + block.size, total + int(block.sum()), squares + int((block * block).sum())
    mean = total / number
    return Scaling(mean, max(math.sqrt(max(squares / number - mean * mean, 0.0)), 1e-3))


WHITENED_IMAGES = 2_000  # whose patches are used


def whitening_filters(scaling: Scaling, pixels: Pixels, train: NDArray[np.int64], filters: int, size: int) -> Tensor:
    """Initial weights (filter, channel, height, width) that make the first layer's outputs uncorrelated, of variance 1.

    They are the principal directions of the scaled training images' patches, the largest first, each divided by its
    standard deviation (Page 2018, "How to train your ResNet"), then their negatives, since relu keeps half of each.
    """
    values = size * size * pixels.shape[3]
    number, total, products = 0, torch.zeros(values).double(), torch.zeros(values, values).double()
    chosen = train[:: math.ceil(len(train) / WHITENED_IMAGES)]
    for start in range(0, len(chosen), 50):
        scaled = scaling(as_float(on_device(pixels[chosen[start : start + 50]], "cpu")))
        patches = functional.unfold(scaled, size).transpose(1, 2).flatten(0, 1).double()
        number, total, products = number + len(patches), total + patches.sum(0), products + patches.T @ patches
    mean = total / number
    variances, directions = torch.linalg.eigh(products / number - torch.outer(mean, mean))
    whitened = (directions / (variances.clamp_min(0) + 1e-3 * variances[-1]).sqrt()).T.flip(0)
    both = torch.cat([whitened, -whitened])
    return both[torch.arange(filters) % len(both)].view(filters, -1, size, size).float()


def epoch_batches(
    images: Tensor, targets: Tensor, task: Task, epoch: int, network: nn.Module
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch: order, augmentation and dropout all keyed by (seed, member, purpose, epoch).

    Args:
        images: (image, height, width, channel), on the device.
        targets: (image,).
        task: which of them, in batches of what size.
        epoch: its number.
        network: whose dropout layers get the epoch's generator.

    Yields:
        (image, channel, height, width) float32, and (image,).
    """
    settings = task.recipe.augmentation
    augmented = task.augmented(epoch)
    key = (task.seed, "member", task.member)
    order = numpy_generator(*key, "order", epoch).permutation(task.train)
    generator = torch_generator(*key, "augmentation", epoch, device=task.device)
    set_dropout_generator(network, torch_generator(*key, "dropout", epoch, device=task.device))
    positions = torch.from_numpy(order).to(task.device)
    labelled, _ = task.batch_parts(epoch)
    pseudo = pseudo_batches(task, epoch) if task.pseudo else None
    for chosen in torch.split(positions, labelled):
        pixels, labels = images[chosen], targets[chosen]
        if pseudo:
            more, given = next(pseudo)
            pixels, labels = torch.cat([pixels, more.to(pixels)]), torch.cat([labels, given.to(labels)])
        batch = as_float(pixels)
        yield (augment(batch, settings, generator) if augmented else batch), labels


def pseudo_batches(task: Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pseudo-labelled part of each batch, without end: pass after pass over the images, each in its own order."""
    assert task.pseudo is not None
    number = task.batch_parts(epoch)[1]
    rng = numpy_generator(task.seed, "member", task.member, "pseudo order", epoch)
    images, labels = on_device(task.pseudo.pixels, "cpu"), torch.from_numpy(task.pseudo.labels)
    waiting = rng.permutation(len(labels))
    while True:
        while len(waiting) < number:
            waiting = np.concatenate([waiting, rng.permutation(len(labels))])
        chosen, waiting = torch.from_numpy(waiting[:number]), waiting[number:]
        yield images[chosen], labels[chosen]
