"""Which images are trained on and which are validation images; every random draw depends on its key alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import Holdout
from committee.data.dataset import Labels
from committee.errors import DataError, counted
from committee.rng import numpy_generator


def stratified_part(
    labels: Labels, fraction: float, rng: np.random.Generator, groups: Labels | None = None
) -> NDArray[np.int64]:
    """Positions of a random part of the images in which every class is represented in proportion.

    Args:
        labels: (image,) int64.
        fraction: the part's size, between 0 and 1.
        rng: where the draw comes from.
        groups: (image,) int64; the part has all images of a group or none. None where each image is on its own.

    Returns:
        Sorted positions, ``round(fraction * images)`` of them where the classes allow it. A class of two or more images
        has at least one on either side; the only image of a class stays outside the part. With groups the sizes are as
        near to that as whole groups allow, and only outside the part is every class sure to be present.
    """
    if groups is not None:
        return _grouped_part(labels, fraction, rng, groups)
    classes, positions_class, counts = np.unique(labels, return_inverse=True, return_counts=True)
    shares = counts * fraction
    sizes = np.floor(shares).astype(np.int64)
    missing = round(len(labels) * fraction) - int(sizes.sum())
    sizes[np.argsort(sizes - shares, kind="stable")[:missing]] += 1
    sizes = np.minimum(np.maximum(sizes, counts > 1), counts - 1)
    chosen = [rng.permutation(np.flatnonzero(positions_class == c))[: sizes[c]] for c in range(len(classes))]
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def _grouped_part(labels: Labels, fraction: float, rng: np.random.Generator, groups: Labels) -> NDArray[np.int64]:
    """`stratified_part` of whole groups: the largest first, each joins where that brings the classes' shares nearer."""
    numbers, counts, order = _counted_groups(labels, groups, rng)
    total = counts.sum(axis=0)
    wanted, part, chosen = fraction * total, np.zeros_like(total), np.zeros(len(counts), dtype=bool)
    for group in order:
        grown = part + counts[group]
        change = ((grown - wanted) ** 2 - (part - wanted) ** 2) / np.maximum(total, 1)
        if change.sum() < 0 and (grown < total)[total > 0].all():
            part, chosen[group] = grown, True
    return np.flatnonzero(chosen[numbers])


def _grouped_folds(labels: Labels, folds: int, rng: np.random.Generator, groups: Labels) -> list[NDArray[np.int64]]:
    """Folds of whole groups: the largest first, each joins the fold whose classes it brings nearest to equal shares."""
    numbers, counts, order = _counted_groups(labels, groups, rng)
    total = counts.sum(axis=0)
    equal, filled, fold_of = total / folds, np.zeros((folds, len(total))), np.zeros(len(counts), dtype=np.int64)
    for group in order:
        change = ((filled + counts[group] - equal) ** 2 - (filled - equal) ** 2) / np.maximum(total, 1)
        fold_of[group] = np.lexsort((filled.sum(axis=1), change.sum(axis=1).round(9)))[0]
        filled[fold_of[group]] += counts[group]
    return [np.flatnonzero(fold_of[numbers] == fold) for fold in range(folds)]


def _counted_groups(
    labels: Labels, groups: Labels, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float64], NDArray[np.int64]]:
    """The group of each image as a number, the images (group, class), and the groups from the largest to the smallest.

    Equally large groups are in a random order.
    """
    names, numbers = np.unique(groups, return_inverse=True)
    classes = int(labels.max(initial=0)) + 1
    counts = np.bincount(numbers * classes + labels, minlength=len(names) * classes).reshape(len(names), classes)
    shuffled = rng.permutation(len(names))
    return numbers, counts.astype(np.float64), shuffled[np.argsort(-counts.sum(axis=1)[shuffled], kind="stable")]


def validation_positions(
    labels: Labels,
    holdout: Holdout,
    members: int,
    seed: int,
    class_names: Sequence[str],
    groups: Labels | None = None,
) -> list[NDArray[np.int64]]:
    """Which training images each member does not train on.

    Args:
        labels: (image,) of the training images.
        holdout: the recipe's section. Folds are stratified and drawn again for every `folds` members, so that each
            image is a validation image of members / folds of them.
        members: how many members.
        seed: the run's root seed.
        class_names: for messages.
        groups: (image,) of the training images; those of one group are on one side. None where each is on its own.

    Returns:
        Sorted positions of each member's validation images; none for the kind "none".

    Raises:
        DataError: a class has fewer images (or groups) than there are folds, one side of a split would be empty, or
            groups would be torn apart.
    """
    if holdout.kind == "none":
        return [np.empty(0, dtype=np.int64)] * members
    if holdout.kind == "folds":
        _check_folds(labels, holdout.folds, class_names, groups)
        rounds = -(-members // holdout.folds)
        folds = [
            fold for number in range(rounds) for fold in stratified_folds(labels, holdout.folds, seed, number, groups)
        ]
        return folds[:members]
    size = round(holdout.fraction * len(labels))
    if not 0 < size < len(labels):
        raise DataError(
            f"holdout.fraction must leave images to train on and images to hold out, got {holdout.fraction} for "
            f"{counted(len(labels), 'training image')}; add images or change the fraction"
        )
    if holdout.kind == "shared":
        return [_part(labels, holdout, numpy_generator("shared", holdout.seed), groups)] * members
    if holdout.kind == "last":
        if groups is not None:
            raise DataError(
                'holdout.kind "last" cuts by position and may tear groups apart; choose "folds", "fraction" or "shared"'
            )
        return [np.arange(len(labels) - size, len(labels))] * members
    generators = [numpy_generator(seed, "member", member, "held out") for member in range(members)]
    if groups is not None:
        return [_part(labels, holdout, generator, groups) for generator in generators]
    return [np.sort(generator.permutation(len(labels))[:size]) for generator in generators]


def _part(labels: Labels, holdout: Holdout, rng: np.random.Generator, groups: Labels | None) -> NDArray[np.int64]:
    """A stratified part, which must not be empty."""
    part = stratified_part(labels, holdout.fraction, rng, groups)
    if not len(part):
        number = len(labels) if groups is None else len(np.unique(groups))
        raise DataError(
            f"holdout.fraction must leave images to hold out, got {holdout.fraction} of {number} "
            f"{'images' if groups is None else 'groups'}; add some or change the fraction"
        )
    return part


def _check_folds(labels: Labels, folds: int, class_names: Sequence[str], groups: Labels | None) -> None:
    """Every class needs an image for each fold; with groups, images of as many groups."""
    counts = np.bincount(labels, minlength=len(class_names))
    if groups is not None:
        counts = np.array([len(np.unique(groups[labels == c])) for c in range(len(class_names))])
    smallest = int(counts.argmin())
    number = int(counts[smallest])
    if number < folds:
        has = counted(number, "training image") if groups is None else f"images of {counted(number, 'group')}"
        fewer = (
            f"use fewer folds with --set holdout.folds={number}"
            if number >= 2
            else "leave the class out, or share a validation part with --set holdout.kind=shared"
        )
        raise DataError(
            f"class {class_names[smallest]!r} has {has}, but {folds} folds need at least {folds} of each class; "
            f"add images, or {fewer}"
        )


def stratified_folds(
    labels: Labels, folds: int, seed: int, number: int, groups: Labels | None = None
) -> list[NDArray[np.int64]]:
    """Disjoint parts of nearly equal size that together have all images, with every class spread evenly over them.

    Args:
        labels: (image,).
        folds: how many parts.
        seed: the run's root seed.
        number: of the draw; each number gives other folds.
        groups: (image,); a group is in one fold. None where each image is on its own.
    """
    rng = numpy_generator(seed, "folds", number)
    if groups is not None:
        return _grouped_folds(labels, folds, rng, groups)
    shuffled = rng.permutation(len(labels))
    dealt = shuffled[np.argsort(labels[shuffled], kind="stable")]  # class by class, to be dealt out like cards
    return [np.sort(dealt[fold::folds]) for fold in range(folds)]
