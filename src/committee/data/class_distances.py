"""Small images and labels -> images far from their class, and classes whose images are near each other.

Distances are Euclidean in the leading principal components of the images at half size, of equal brightness and
contrast. They see shapes where they stand: enough to find what is odd, and no measure of how well a network will do.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from committee.data.near_duplicates import Floats, Small
from committee.rng import numpy_generator

COMPONENTS = 32
REFERENCES = 1000
"""Images of a class, at most, with which others are compared."""

QUERIES = 300
"""Images of a class, at most, whose nearest image in any class is looked for."""

ALIKE = 0.1
"""Fraction of a class's images whose nearest image is in one other class, from which the classes look alike."""

REMOTE, FAR = 3.5, 3.0
"""Robust standard deviations of the logarithm of the distance beyond which an image is an outlier.

The first holds within its class, the second among all images: what is odd in a class of very similar images may be near
them still.
"""

NTH = 3
"""The neighbour whose distance counts: two odd images that are alike do not hide each other."""


@dataclass(frozen=True)
class Neighbours:
    """How near images are to their own class and to others.

    Attributes:
        remoteness: (image,), the distance to the third nearest of its class, as a multiple of the class's median.
        outliers: positions of the images that are too far, the farthest first.
        alike: pairs of classes, the earlier first, and the fraction of images of one whose nearest is of the other.
    """

    remoteness: Floats
    outliers: NDArray[np.int64]
    alike: tuple[tuple[int, int, float], ...]


def neighbours(images: Small, labels: NDArray[np.int64], classes: int) -> Neighbours:
    """How near images are to their own class and to others.

    Args:
        images: (image, height, width, channel), as `reduced` gives them.
        labels: (image,), their classes.
        classes: how many there are.
    """
    points = torch.from_numpy(_components(images))
    drawn = numpy_generator("neighbours", len(images))
    of_class = [drawn.permutation(np.flatnonzero(labels == c)) for c in range(classes)]
    references = [members[:REFERENCES] for members in of_class]
    third, remoteness, score = np.zeros(len(images)), np.ones(len(images), np.float32), np.zeros(len(images))
    for members, known in zip(of_class, references, strict=True):
        if len(members) < 20:  # too few to say what is usual
            continue
        distances = torch.cdist(points[members], points[known])
        own = torch.arange(len(known))
        distances[own, own] = torch.inf  # members begin with the references
        third[members] = distances.topk(NTH, dim=1, largest=False).values[:, -1].numpy() + 1e-6
        remoteness[members] = third[members] / np.median(third[members])
        score[members] = _standardised(third[members])
    known_of = third > 0
    far = np.zeros(len(images), np.bool_)
    if known_of.any():
        far[known_of] = _standardised(third[known_of]) > FAR
    outliers = np.flatnonzero((score > REMOTE) & far)
    order = np.argsort(-remoteness[outliers], kind="stable")
    return Neighbours(remoteness, outliers[order], _alike(points, references, classes))


def _standardised(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithms of distances in robust standard deviations from their median."""
    logs = np.log(distances / np.median(distances))
    return np.asarray(logs / max(1.4826 * float(np.median(np.abs(logs))), 0.05))


def _alike(
    points: torch.Tensor, references: list[NDArray[np.int64]], classes: int
) -> tuple[tuple[int, int, float], ...]:
    """Pairs of classes that look alike, those with the largest fraction first."""
    known = np.concatenate(references)
    of = np.repeat(np.arange(classes), [len(each) for each in references])
    starts = np.cumsum([0, *(len(each) for each in references)])
    shares = np.zeros((classes, classes))
    for c, members in enumerate(references):
        asked = members[:QUERIES]
        if len(asked) < 20:
            continue
        distances = torch.cdist(points[asked], points[known])
        own = torch.arange(len(asked))
        distances[own, own + int(starts[c])] = torch.inf
        nearest = of[distances.argmin(1).numpy()]
        shares[c] = np.bincount(nearest, minlength=classes) / len(asked)
    both = np.maximum(shares, shares.T)
    found = [(i, j, float(both[i, j])) for i in range(classes) for j in range(i + 1, classes) if both[i, j] >= ALIKE]
    return tuple(sorted(found, key=lambda each: -each[2]))


def _components(images: Small) -> Floats:
    """The leading principal components of images of zero mean and unit length: (image, component)."""
    flat = np.concatenate([_unit(images[start : start + 4096]) for start in range(0, len(images), 4096)])
    some = flat[:: max(1, len(flat) // 10_000)]
    centre = some.mean(0)
    _, directions = np.linalg.eigh((some - centre).T @ (some - centre))
    return np.asarray((flat - centre) @ np.ascontiguousarray(directions[:, ::-1][:, :COMPONENTS]), np.float32)


def _unit(images: Small) -> Floats:
    """Images of half the size, where they have 16 pixels a side or more, with zero mean and unit length."""
    height, width = images.shape[1:3]
    values = images.astype(np.float32)
    if min(height, width) >= 16:
        values = values[:, : height // 2 * 2, : width // 2 * 2]
        values = values[:, ::2] + values[:, 1::2]
        values = values[:, :, ::2] + values[:, :, 1::2]
    values = values.reshape(len(values), -1)
    values -= values.mean(1, keepdims=True)
    return np.asarray(values / (np.linalg.norm(values, axis=1, keepdims=True) + 1e-6), np.float32)
