"""The batches of an epoch, and what is computed from a member's training images before training."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee.data.augment import Mixed, augment, mix
from committee.data.dataset import Labels, Pixels
from committee.nn.architectures import Scaling, set_dropout_generator
from committee.nn.images import as_float, on_device, taken
from committee.pages import looked_at
from committee.rng import numpy_generator, torch_generator
from committee.training.state import EpochUnderWay, Task
from committee.training.teaching import Lesson


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
        looked_at(len(block))
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


def image_weights(
    labels: Labels, train: NDArray[np.int64], class_weights: str, given: NDArray[np.float64] | None = None
) -> NDArray[np.float32] | None:
    """What each image counts in the loss, 1 on average over a member's training images; None where all count alike.

    Args:
        labels: (image,), of all the data set's training images.
        train: (position,), those that the member is trained on.
        class_weights: the recipe's `training.class_weights`. Balanced, all classes have the same sum of weights, after
            King & Zeng 2001, "Logistic regression in rare events data", doi 10.1093/oxfordjournals.pan.a004868.
        given: (image,), weights of the images themselves.
    """
    if class_weights == "none" and given is None:
        return None
    weights = np.ones(len(labels)) if given is None else given.astype(np.float64)
    if class_weights == "balanced":
        of_class = np.bincount(labels[train], weights[train], minlength=int(labels.max()) + 1)
        weights = weights / np.where(of_class > 0, of_class, 1)[labels]
    return np.asarray(weights / weights[train].mean(), dtype=np.float32)


class Batch(NamedTuple):
    """A batch.

    Attributes:
        images: (image, channel, height, width) float32, raw pixels.
        targets: (image,), their classes.
        weights: (image,) float32, what each counts in the loss; None where all count alike.
        lesson: what a teacher says about these images; None without one.
        mixed: the same images, and what they have of others; None where they are not mixed.
    """

    images: Tensor
    targets: Tensor
    weights: Tensor | None
    lesson: Lesson | None = None
    mixed: Mixed | None = None


class Generators(NamedTuple):
    """What the steps of an epoch draw from, on the task's device."""

    augmentation: torch.Generator
    dropout: torch.Generator


def epoch_start(task: Task, epoch: int) -> EpochUnderWay:
    """An epoch before its first step. Augmentation and dropout, like the order of the images, are each drawn with the
    key (seed, member, purpose, epoch), so that an epoch can be repeated without those before it.
    """
    augmentation, dropout = (
        torch_generator(task.seed, "member", task.member, purpose, epoch, device=task.device).get_state()
        for purpose in ("augmentation", "dropout")
    )
    return EpochUnderWay(0, augmentation, dropout)


def generators_at(start: EpochUnderWay, network: nn.Module, device: str) -> Generators:
    """The generators of an epoch where it begins or goes on; the network's dropout layers draw from theirs."""
    generators = Generators(torch.Generator(device), torch.Generator(device))
    generators.augmentation.set_state(start.augmentation)
    generators.dropout.set_state(start.dropout)
    set_dropout_generator(network, generators.dropout)
    return generators


def epoch_batches(
    images: Tensor, targets: Tensor, task: Task, epoch: int, augmentation: torch.Generator, done: int = 0
) -> Iterator[Batch]:
    """The batches of one epoch, or those that are left of it.

    Args:
        images: (image, height, width, channel), on the task's device.
        targets: (image,), their classes.
        task: which images to use, and how.
        epoch: its number.
        augmentation: the generator to draw from, in its state after the batches that are done.
        done: how many batches are left out, since training has had them.

    Yields:
        One batch after another; pseudo-labelled images have the weight 1.
    """
    settings = task.recipe.augmentation
    augmented = task.augmented(epoch)
    order = numpy_generator(task.seed, "member", task.member, "order", epoch).permutation(task.train)
    labelled, _ = task.batch_parts(epoch)
    positions = torch.from_numpy(order[done * labelled :]).to(task.device)
    pseudo = pseudo_batches(task, epoch, done) if task.pseudo else None
    all_weights = None if task.weights is None else torch.from_numpy(task.weights).to(task.device)
    for chosen in torch.split(positions, labelled) if len(positions) else ():
        pixels, labels = taken(images, chosen), targets[chosen]
        weights = None if all_weights is None else all_weights[chosen]
        if pseudo:
            pseudo_pixels, pseudo_labels = next(pseudo)
            pixels, labels = (
                torch.cat([pixels, pseudo_pixels.to(pixels)]),
                torch.cat([labels, pseudo_labels.to(labels)]),
            )
            weights = None if weights is None else torch.cat([weights, torch.ones_like(pseudo_labels).to(weights)])
        batch = as_float(pixels)
        seen = augment(batch, settings, augmentation) if augmented else batch
        mixed = mix(seen, settings.cutmix, augmentation) if augmented and settings.cutmix else None
        seen = mixed.images if mixed else seen
        lesson = task.teaching.lesson(seen, chosen) if task.teaching else None
        yield Batch(seen, labels, weights, lesson, mixed)


def pseudo_batches(task: Task, epoch: int, done: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
    """The pseudo-labelled images of one batch after another, endlessly, those of the first `done` batches left out.

    Pseudo-labels are due to Lee 2013, "Pseudo-Label: The simple and efficient semi-supervised learning method for deep
    neural networks", ICML workshop.

    Yields:
        Images (image, height, width, channel) and classes (image,), on the CPU.
    """
    assert task.pseudo is not None
    images, labels = on_device(task.pseudo.pixels, "cpu"), torch.from_numpy(task.pseudo.labels)
    for positions in islice(pseudo_order(task, epoch, len(labels)), done, None):
        chosen = torch.from_numpy(positions)
        yield images[chosen], labels[chosen]


def pseudo_order(task: Task, epoch: int, images: int) -> Iterator[NDArray[np.int64]]:
    """Positions (image,) of the pseudo-labelled images of one batch after another, endlessly; each pass over the
    images has its own order.
    """
    number = task.batch_parts(epoch)[1]
    rng = numpy_generator(task.seed, "member", task.member, "pseudo order", epoch)
    remaining = rng.permutation(images)
    while True:
        while len(remaining) < number:
            remaining = np.concatenate([remaining, rng.permutation(images)])
        chosen, remaining = remaining[:number], remaining[number:]
        yield chosen
