"""The batches of an epoch, and what is computed from a member's training images before training."""

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
    """The input scaling, whose constants come from the member's training images alone.

    Args:
        pixels: (image, height, width, channel), uint8 or uint16; may be memory-mapped: 1,000 are read at once.
        train: (image,), positions of the member's training images.
        kind: the recipe's `input.scaling`.
    """
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


WHITENED_IMAGES = 2_000  # at most so many images give their patches


def whitening_filters(scaling: Scaling, pixels: Pixels, train: NDArray[np.int64], filters: int, size: int) -> Tensor:
    """Initial weights of the first convolution that make its outputs uncorrelated and of variance 1.

    They are the principal components of the scaled training images' patches, the largest first, each divided by its
    standard deviation, after Page 2018, "How to train your ResNet", myrtle.ai; then their negatives, since relu drops
    the negative half of each output.

    Args:
        scaling: of the pixels.
        pixels, train: as in `scaling_of`.
        filters, size: of the convolution; its filters are size x size pixels.

    Returns:
        (filter, channel, height, width) float32.
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
    """The batches of one epoch. Order, augmentation and dropout are each drawn with the key (seed, member, purpose,
    epoch), so that an epoch can be repeated without those before it.

    Args:
        images: (image, height, width, channel), on the task's device.
        targets: (image,), their classes.
        task: which images to use, and how.
        epoch: its number.
        network: whose dropout layers are to draw from the epoch's generator.

    Yields:
        A batch (image, channel, height, width) float32 raw pixels, and its classes (image,).
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
            pseudo_pixels, pseudo_labels = next(pseudo)
            pixels, labels = (
                torch.cat([pixels, pseudo_pixels.to(pixels)]),
                torch.cat([labels, pseudo_labels.to(labels)]),
            )
        batch = as_float(pixels)
        yield (augment(batch, settings, generator) if augmented else batch), labels


def pseudo_batches(task: Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """The pseudo-labelled images of one batch after another, endlessly; each pass over them has its own order.

    Pseudo-labels are due to Lee 2013, "Pseudo-Label: The simple and efficient semi-supervised learning method for deep
    neural networks", ICML workshop.

    Yields:
        Images (image, height, width, channel) and classes (image,), on the CPU.
    """
    assert task.pseudo is not None
    number = task.batch_parts(epoch)[1]
    rng = numpy_generator(task.seed, "member", task.member, "pseudo order", epoch)
    images, labels = on_device(task.pseudo.pixels, "cpu"), torch.from_numpy(task.pseudo.labels)
    remaining = rng.permutation(len(labels))
    while True:
        while len(remaining) < number:
            remaining = np.concatenate([remaining, rng.permutation(len(labels))])
        chosen, remaining = torch.from_numpy(remaining[:number]), remaining[number:]
        yield images[chosen], labels[chosen]
