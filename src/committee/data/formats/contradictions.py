"""Images that are there under two labels, and labels that may be one: remarks on what no program can decide."""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np

from committee.data.dataset import LabelledImages, image_keys
from committee.errors import counted


def notes_on_labels(images: Sequence[LabelledImages], class_names: Sequence[str]) -> list[str]:
    """Notes about identical images of different classes and about classes with nearly one name.

    Args:
        images: of each part, of one shape and type.
        class_names: of all classes.
    """
    notes = []
    if groups := contradictory(images):
        example = _example(images, groups[0])
        notes.append(
            f"{counted(sum(map(len, groups)), 'image')} are identical in every pixel to one of another class{example}: "
            "at least one label of each is wrong, or the images do not tell the classes apart"
        )
    present = sorted({int(label) for part in images for label in np.unique(part.labels)})
    names = [class_names[label] for label in present]
    pairs = [f"{name!r} and {near!r}" for i, name in enumerate(names) if (near := near_name(name, names[i + 1 :]))]
    if pairs:
        notes.append(
            f"classes whose names are nearly one are taken for different ones: {', '.join(pairs[:5])}"
            f"{', ...' if len(pairs) > 5 else ''}; correct the labels if they are not"
        )
    return notes


def _example(images: Sequence[LabelledImages], group: Sequence[tuple[int, int]]) -> str:
    """Two images of a group that have different labels, where they have names."""
    labels = [int(images[part].labels[position]) for part, position in group]
    pair = (group[0], group[next(i for i, label in enumerate(labels) if label != labels[0])])
    names = [names[position] for part, position in pair if (names := images[part].names)]
    return f", such as {names[0]} and {names[1]}" if len(names) == 2 else ""


def near_name(name: str, others: Sequence[str]) -> str | None:
    """The first of other names that differs in case, spaces or the spelling of a number only: ``0.0`` and ``0``."""
    return next((other for other in others if other != name and _plain(other) == _plain(name)), None)


def _plain(name: str) -> str:
    """A name without what is easily mistyped; letters by themselves keep their case, since they may be characters."""
    try:
        return repr(float(name))
    except ValueError:
        return name if len(name) == 1 else re.sub(r"[\s_-]+", " ", name).strip().casefold()


def contradictory(images: Sequence[LabelledImages]) -> list[list[tuple[int, int]]]:
    """Groups of images, as part and position there, that are identical in every pixel and not all of one class, without
    those of a single colour.

    Images are compared where their `image_keys` agree.
    """
    keys = np.concatenate([image_keys(part.pixels) for part in images])
    labels = np.concatenate([part.labels for part in images])
    order = np.argsort(keys, kind="stable")
    starts = np.flatnonzero(np.diff(keys[order], prepend=~keys[order[:1]]))
    lowest, highest = (reduce.reduceat(labels[order], starts) for reduce in (np.minimum, np.maximum))
    ends = np.append(starts[1:], len(order))
    offsets = np.cumsum([0, *(len(part) for part in images)])
    found: list[list[tuple[int, int]]] = []
    for group in np.flatnonzero(lowest != highest):
        same: dict[bytes, list[tuple[int, int]]] = {}
        for place in order[starts[group] : ends[group]]:
            part = int(np.searchsorted(offsets, place, side="right")) - 1
            position = int(place - offsets[part])
            pixels = images[part].pixels[position]
            if not (pixels == pixels[:1, :1]).all():  # what is blank contradicts nothing; it is counted as such
                same.setdefault(pixels.tobytes(), []).append((part, position))
        for places in same.values():
            if len({int(images[part].labels[position]) for part, position in places}) > 1:
                found.append(places)
    return sorted(found)
