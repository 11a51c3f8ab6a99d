"""Which images are trained on and which are validation images; every random draw depends on its key alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import Holdout
from committee.data.dataset import Labels
from committee.errors import DataError, counted
from committee.rng import numpy_generator


def stratified_part(labels: Labels, fraction: float, rng: np.random.Generator) -> NDArray[np.int64]:
    """Positions of a random part of the images in which every class is represented in proportion.

    Args:
        labels: (image,) int64.
        fraction: the part's size, between 0 and 1.
        rng: where the draw comes from.

    Returns:
        Sorted positions, ``round(fraction * images)`` of them where the classes allow it. A class of two or more images
        has at least one on either side; the only image of a class stays outside the part.
    """
    classes, positions_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = counts * fraction
    sizes = np.floor(shares).astype(np.int64)
    missing = round(len(labels) * fraction) - int(sizes.sum())
    sizes[np.argsort(sizes - shares, kind="stable")[:missing]] += 1
    sizes = np.minimum(np.maximum(sizes, counts > 1), counts - 1)
    chosen = [rng.permutation(np.flatnonzero(positions_class == c))[: sizes[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def validation_positions(
    labels: Labels, holdout: Holdout, members: int, seed: int, class_names: Sequence[str]
) -> list[NDArray[np.int64]]:
    """Which training images each member does not train on.

    Args:
        labels: (image,) of the training images.
        holdout: the recipe's section. Folds are stratified and drawn again for every `folds` members, so that each
            image is a validation image of members / folds of them.
        members: how many members.
        seed: the run's root seed.
        class_names: for messages.

    Returns:
        Sorted positions of each member's validation images; none for the kind "none".

    Raises:
        DataError: a class has fewer images than there are folds, or one side of a split would be empty.
    """
    if holdout.kind == "none":
        return [np.empty(0, dtype=np.int64)] * members
    if holdout.kind == "folds":
        _check_folds(labels, holdout.folds, class_names)
        rounds = -(-members // holdout.folds)
        folds = [fold for number in range(rounds) for fold in stratified_folds(labels, holdout.folds, seed, number)]
        return folds[:members]
    size = round(holdout.fraction * len(labels))
    if not 0 < size < len(labels):
        raise DataError(
            f"holdout.fraction must leave images to train on and images to hold out, got {holdout.fraction} for "
            f"{counted(len(labels), 'training image')}; add images or change the fraction"
        )
    if holdout.kind == "shared":
        return [stratified_part(labels, holdout.fraction, numpy_generator("shared", holdout.seed))] * members
    if holdout.kind == "last":
        return [np.arange(len(labels) - size, len(labels))] * members
    draws = [numpy_generator(seed, "member", member, "held out").permutation(len(labels)) for member in range(members)]
    return [np.sort(draw[:size]) for draw in draws]


def _check_folds(labels: Labels, folds: int, class_names: Sequence[str]) -> None:
    """Every class needs an image for each fold."""
    counts = np.bincount(labels, minlength=len(class_names))
    smallest = int(counts.argmin())
    number = int(counts[smallest])
    if number < folds:
        fewer = f", or use fewer folds with --set holdout.folds={number}" if number >= 2 else ""
        raise DataError(
            f"class {class_names[smallest]!r} has {counted(number, 'training image')}, but {folds} folds need at least "
            f"{folds} of each class; add images{fewer}"
        )


def stratified_folds(labels: Labels, folds: int, seed: int, number: int) -> list[NDArray[np.int64]]:
    """Disjoint parts of nearly equal size that together have all images, with every class spread evenly over them.

    Args:
        labels: (image,).
        folds: how many parts.
        seed: the run's root seed.
        number: of the draw; each number gives other folds.
    """
    rng = numpy_generator(seed, "folds", number)
    shuffled = rng.permutation(len(labels))
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class, to be dealt out like cards
    return [np.sort(dealt[fold::folds]) for fold in range(folds)]
