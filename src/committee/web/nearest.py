"""The training images most like an image: the nearest ones by blurred pixels, in memory, compared all at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels, Pixels, spread
from committee.report.pictures import data_uris, displayable

NEAREST = 6
MOST_BYTES = 256 * 2**20
"""Memory for the blurred training images; of larger sets an evenly spread part is compared."""

Floats = NDArray[np.float32]


@dataclass(frozen=True)
class NearImage:
    """A training image: itself as a `data:` address, its class, its position in the training images."""

    image: str
    label: str
    position: int


def blurred(pixels: Pixels) -> Floats:
    """Images as vectors of unit length: blurred, and every second pixel.

    A pixel's shift changes an unblurred image more than another class does. Brightness does not matter.

    Args:
        pixels: (image, height, width, channel).

    Returns:
        (image, feature).
    """
    values = pixels.astype(np.float32) / np.iinfo(pixels.dtype).max
    values -= values[:, :1, :1]  # a corner: the background of what has one
    for axis in (1, 2):
        size = values.shape[axis]
        padding = [(0, 0)] * 4
        padding[axis] = (2, 2)
        padded = np.pad(values, padding)
        weights = (1, 4, 6, 4, 1)
        parts = [np.take(padded, range(i, i + size, 2), axis) * np.float32(w / 16) for i, w in enumerate(weights)]
        values = np.sum(parts, axis=0, dtype=np.float32)
    vectors = values.reshape(len(values), -1)
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-6), np.float32)


def nearest_of(
    pixels: Pixels, labels: Labels, names: Sequence[str], most_bytes: int = MOST_BYTES
) -> Callable[[Pixels], list[NearImage]]:
    """The function that finds the nearest training images of one image (height, width, channel).

    Args:
        pixels: of the training images, (image, height, width, channel).
        labels: theirs, (image,).
        names: of the classes.
        most_bytes: for the blurred images; of more images an evenly spread part is compared.
    """
    kept = min(len(pixels), max(1, most_bytes // blurred(pixels[:1]).nbytes))
    positions = spread(len(pixels), kept)
    vectors = np.concatenate([blurred(pixels[some]) for some in np.array_split(positions, -(-kept // 4096))])

    def nearest(image: Pixels) -> list[NearImage]:
        likeness = vectors @ blurred(image[None])[0]
        count = min(NEAREST, len(likeness))
        best = np.argpartition(-likeness, count - 1)[:count]
        found = positions[best[np.argsort(-likeness[best], kind="stable")]]
        uris = data_uris(list(displayable(pixels[found])), 10**9)
        return [NearImage(uri, names[labels[i]], int(i)) for i, uri in zip(found, uris, strict=True)]

    return nearest
