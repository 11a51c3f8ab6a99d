"""Images on their way into the network: on the device, in an epoch's order, changed, as floats; and their scaling."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee.data.augment import augment
from committee.data.dataset import Pixels
from committee.nn.architectures import Scaling, set_dropout_generator
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


WHITENED_IMAGES = 2_000  # whose patches are looked at


def whitening_filters(scaling: Scaling, pixels: Pixels, train: NDArray[np.int64], filters: int, size: int) -> Tensor:
    """Start weights (filter, channel, height, width) that make the first layer's outputs uncorrelated, of variance 1.

    They are the principal directions of the scaled training images' patches, the largest first, each divided by its
    standard deviation (Page, "How to train your ResNet", 2018), then their negatives, since relu keeps half of each.
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


def on_device(pixels: Pixels, device: str) -> Tensor:
    """The images as a tensor (image, height, width, channel): shared memory on the CPU, a copy elsewhere."""
    if pixels.dtype == np.uint16:  # torch cannot index unsigned 16 bits: the same bits as signed, see `as_float`
        pixels = pixels.view(np.int16)  # type: ignore[assignment]
    return torch.from_numpy(pixels).to(device)


def as_float(pixels: Tensor) -> Tensor:
    """Gathered images (image, height, width, channel) -> float32 (image, channel, height, width), channels last."""
    if pixels.dtype == torch.int16:
        pixels = pixels.to(torch.int32) & 0xFFFF
    return pixels.to(torch.float32).permute(0, 3, 1, 2)


def joined(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Tensors one after the other in one with so many rows, which has its place before they are computed.

    Small results kept between large passing ones would scatter the process's memory: over a thousand batches a hundred
    megabytes.
    """
    whole, filled = torch.empty(0), 0
    for part in parts:
        whole = torch.empty(rows, *part.shape[1:]) if not filled else whole
        whole[filled : filled + len(part)] = part
        filled += len(part)
    return whole


def epoch_batches(
    images: Tensor, targets: Tensor, task: Task, epoch: int, network: nn.Module
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch: order, changes and dropout all keyed by (seed, member, purpose, epoch)."""
    settings = task.recipe.augmentation
    augmented = task.augmented(epoch)
    key = (task.seed, "member", task.member)
    order = numpy_generator(*key, "order", epoch).permutation(task.train)
    changes = torch_generator(*key, "augmentation", epoch, device=task.device)
    set_dropout_generator(network, torch_generator(*key, "dropout", epoch, device=task.device))
    positions = torch.from_numpy(order).to(task.device)
    own, _ = task.batch_parts(epoch)
    pseudo = pseudo_batches(task, epoch) if task.pseudo else None
    for chosen in torch.split(positions, own):
        pixels, wanted = images[chosen], targets[chosen]
        if pseudo:
            more, given = next(pseudo)
            pixels, wanted = torch.cat([pixels, more.to(pixels)]), torch.cat([wanted, given.to(wanted)])
        batch = as_float(pixels)
        yield (augment(batch, settings, changes) if augmented else batch), wanted


def pseudo_batches(task: Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end, the pseudo-labelled part of a batch: pass after pass over the images, each in its own order."""
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
