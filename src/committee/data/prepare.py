"""Photographs of one's own writing -> images like those that a committee was trained on, as MNIST's makers made them.

Writing that is centred in a frame of its own, light on dark or dark on light, has few measures: how long its longer
side is, where its centre is, how wide its strokes are. They are measured on the training images, and `as_digits` brings
what is written on a photograph to the same ones. MNIST's longer side is 20 pixels of 28, and its centre of mass is on
pixel (14, 14), counted from 0 (LeCun et al., 1998, and as measured).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, NamedTuple, cast

import numpy as np
from numpy.typing import NDArray

from committee.config.record import Record
from committee.data.dataset import Pixels, spread
from committee.data.formats.decode import conformed
from committee.data.ink import Floats, box_of, find_ink, grown, resampled
from committee.errors import DataError

How = Literal["auto", "as-is", "digits"]
"""Prepare images that are unlike the training images in border, size or place; none; all."""

INK = 0.15  # contrast with the background from which on a pixel of a training image counts as ink
MEASURED = 2000  # training images that are measured, at most
PLAIN_SHARE, ALIKE_SHARE = 0.95, 0.9  # of images that must be alike in border, and in size
LIKE_SHARE = 0.99  # of training images that would not be prepared


class Writing(Record):
    """The measures of training images that show something written in a frame of its own; lengths in pixels.

    Attributes:
        shape: height and width of the images.
        light: whether the ink is lighter than the background.
        background: its brightness, from 0 to 1.
        longer_side: of the ink's box.
        centred_by: whether the ink's "mass" or its "box" is always in the same place.
        centre: row and column of that place, counted from 0.
        stroke: the median width of the strokes.
    """

    shape: tuple[int, int]
    light: bool
    background: float
    longer_side: int
    centred_by: Literal["mass", "box"]
    centre: tuple[float, float]
    stroke: float


def measure(pixels: Pixels) -> Writing | None:
    """The measures of training images (image, height, width, channel), or None where they are no isolated writing.

    They are if, for nearly all of them, the border is of one brightness, and size and place of the ink are the same.
    """
    some = pixels[spread(len(pixels), MEASURED)]
    grey = _grey(some)
    border = _border(grey)
    background = float(np.median(border))
    if (np.abs(border - background).max(axis=1) < INK).mean() < PLAIN_SHARE or 0.3 < background < 0.7:
        return None
    ink = _ink(grey, background)
    inked = ink[(ink > INK).any(axis=(1, 2))]
    if len(inked) < PLAIN_SHARE * len(ink):
        return None
    boxes = _boxes(inked)
    longer = np.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2])
    side = int(np.median(_longer(_boxes(inked, 0.0))))
    if (np.abs(longer - np.median(longer)) <= max(1, 0.06 * side)).mean() < ALIKE_SHARE or (inked > 0.5).mean() > 0.35:
        return None
    places = {"mass": _centres(inked), "box": _middles(boxes)}
    by, found = min(places.items(), key=lambda item: float(item[1].std(axis=0).max()))
    if found.std(axis=0).max() > 0.04 * max(grey.shape[1:]):
        return None
    writing = Writing(
        shape=(grey.shape[1], grey.shape[2]),
        light=background < 0.5,
        background=background,
        longer_side=side,
        centred_by="mass" if by == "mass" else "box",
        centre=(float(found[:, 0].mean()), float(found[:, 1].mean())),
        stroke=float(np.median([stroke_width(each) for each in inked[:1000]])),
    )
    return writing if is_like(writing, some).mean() >= LIKE_SHARE else None


def is_like(writing: Writing, pixels: Pixels) -> NDArray[np.bool_]:
    """(image,): whether images of the training images' size have their background, their size of ink, and its place."""
    grey = _grey(pixels)
    background = (np.abs(_border(grey) - writing.background) < INK).mean(axis=1) > 0.95
    ink = _ink(grey, writing.background)
    longer = _longer(_boxes(ink))
    size = np.abs(longer - writing.longer_side) <= 0.2 * writing.longer_side
    place = _centres(ink) if writing.centred_by == "mass" else _middles(_boxes(ink))
    near = (np.abs(place - np.array(writing.centre)) <= 0.08 * max(writing.shape)).all(axis=1)
    return np.asarray(background & size & near)


def as_digits(writing: Writing, image: Pixels) -> Pixels | None:
    """What is written on a photograph, as the training images have it.

    Args:
        writing: what they are like.
        image: (height, width, channel), of any size.

    Returns:
        (height, width, 1), uint8, of the training images' size; None where nothing is written.
    """
    ink = find_ink(image)
    if ink is None:
        return None
    small, pixel = _shrunk(ink, writing.longer_side)
    for _ in range(3):  # a thin pen's strokes become as wide as usual; how wide they are is seen once they are small
        radius = round((writing.stroke - stroke_width(np.pad(small, 1))) / 2 * pixel)
        if radius < 1:
            break
        ink = grown(np.pad(ink, radius), radius)
        small, pixel = _shrunk(ink, writing.longer_side)
    rows, columns = small.shape
    centre = _centres(small[None])[0] if writing.centred_by == "mass" else _middles(_boxes(small[None], 0.0))[0]
    height, width = writing.shape
    top, left = (round(float(wanted - own)) for wanted, own in zip(writing.centre, centre, strict=True))
    top, left = min(max(top, 0), height - rows), min(max(left, 0), width - columns)
    canvas = np.zeros(writing.shape)
    canvas[top : top + rows, left : left + columns] = small
    ends = (writing.background, 1.0 if writing.light else 0.0)
    return np.rint(255 * (ends[0] + (ends[1] - ends[0]) * canvas)).astype(np.uint8)[..., None]


def _shrunk(ink: Floats, longer_side: int) -> tuple[Floats, float]:
    """The box of ink with this longer side, by the area's mean; and how many pixels one of its pixels was."""
    box = box_of(ink > 0.5)
    pixel = box.longer / longer_side
    size = (max(1, round((box.bottom - box.top) / pixel)), max(1, round((box.right - box.left) / pixel)))
    small = np.clip(resampled(ink, size, box, by_area=True), 0, 1)
    return np.minimum(small / max(float(np.quantile(small, 0.98)), 0.3), 1), pixel


class Original(NamedTuple):
    """An image as it was given: its size in pixels, whether it was prepared, or is empty where it was to be."""

    height: int
    width: int
    prepared: bool
    is_empty: bool = False


@dataclass(frozen=True)
class Preparation:
    """What gives images the form of the training images; `committee.data.to_classify.read_images` calls it.

    Attributes:
        image_shape, pixel_range: of the training images.
        writing: their measures; None where they are no isolated writing, or where these are not known.
        how: which images are prepared.
        originals: the images so far, in their order.
    """

    image_shape: tuple[int, int, int]
    pixel_range: int
    writing: Writing | None
    how: How = "auto"
    originals: list[Original] = field(default_factory=list)

    def __post_init__(self) -> None:
        if self.how == "digits" and self.writing is None:
            raise DataError(
                "preparing digits needs training images of isolated writing, all of one size and in one place, got "
                "others; give images like the training images and prepare them as-is"
            )

    def __call__(self, pixels: Pixels, label: str) -> Pixels:
        """Images (image, height, width, channel) of one size in the form of the training images.

        Raises:
            DataError: an image that is not prepared is transparent, which the training images were not.
        """
        count, height, width = pixels.shape[:3]
        prepared = np.zeros(count, bool)
        result = np.empty((count, *self.image_shape), np.uint8 if self.pixel_range == 255 else np.uint16)
        made = {i: as_digits(self.writing, pixels[i]) for i in self._to_prepare(pixels, label)} if self.writing else {}
        for i, image in made.items():
            if image is not None:
                result[i], prepared[i] = self._conformed(image[None], label)[0], True
        if not prepared.all():
            result[~prepared] = self._conformed(pixels[~prepared], label)
        empty = {i for i, image in made.items() if image is None}
        self.originals.extend(Original(height, width, bool(each), i in empty) for i, each in enumerate(prepared))
        return result

    def _to_prepare(self, pixels: Pixels, label: str) -> list[int]:
        """Positions of the images that are to be prepared."""
        if self.writing is None or self.how == "as-is":
            return []
        chosen = np.ones(len(pixels), bool)
        if self.how == "auto":
            opaque = np.ones(len(pixels), bool)
            if pixels.shape[3] in (2, 4):
                opaque = (pixels[..., -1] == np.iinfo(pixels.dtype).max).all(axis=(1, 2))
            if opaque.any():
                chosen[opaque] = ~is_like(self.writing, self._conformed(pixels[opaque], label))
        return [int(i) for i in np.flatnonzero(chosen)]

    def _conformed(self, pixels: Pixels, label: str) -> Pixels:
        return conformed(pixels, self.image_shape, self.pixel_range, label)


def stroke_width(ink: Floats) -> float:
    """The mean width of strokes (row, column), in pixels: twice their area by the length of their outline."""
    down, right = np.diff(ink, axis=0)[:, :-1], np.diff(ink, axis=1)[:-1]
    outline = float(np.sqrt(down**2 + right**2).sum())
    return 2 * float(ink.sum()) / max(outline, 1e-6)


def _grey(pixels: Pixels) -> Floats:
    """(image, height, width), from 0 to 1."""
    colours = pixels[..., : 3 if pixels.shape[3] >= 3 else 1]
    return cast(Floats, colours.mean(axis=3, dtype=np.float32) / np.float32(np.iinfo(pixels.dtype).max))


def _border(grey: Floats) -> Floats:
    """The outermost pixels: (image, height, width) -> (image, pixel)."""
    return np.concatenate([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], axis=1)


def _ink(grey: Floats, background: float) -> Floats:
    """How much each pixel differs from a dark or light background, from 0 to 1; traces of JPEG are none."""
    ink = (grey - background) / ((1 - background) if background < 0.5 else -background)
    return cast(Floats, np.where(ink > INK / 4, ink, 0))


def _boxes(ink: Floats, threshold: float = INK) -> NDArray[np.int64]:
    """(image, 4): top, bottom, left, right of the ink's box, the last ones excluded; all of an image without ink."""
    found = []
    for axis in (2, 1):
        inked = np.asarray((ink > threshold).any(axis=axis))
        found += [inked.argmax(axis=1), inked.shape[1] - inked[:, ::-1].argmax(axis=1)]
    return np.stack(found, axis=1)


def _longer(boxes: NDArray[np.int64]) -> NDArray[np.int64]:
    return cast(NDArray[np.int64], np.maximum(boxes[:, 1] - boxes[:, 0], boxes[:, 3] - boxes[:, 2]))


def _middles(boxes: NDArray[np.int64]) -> Floats:
    return np.stack([(boxes[:, 0] + boxes[:, 1] - 1) / 2, (boxes[:, 2] + boxes[:, 3] - 1) / 2], axis=1)


def _centres(ink: Floats) -> Floats:
    """(image, 2): row and column of the centre of mass."""
    total = np.maximum(ink.sum(axis=(1, 2)), 1e-6)
    rows, columns = (np.arange(side) for side in ink.shape[1:])
    return np.stack([ink.sum(axis=2) @ rows / total, ink.sum(axis=1) @ columns / total], axis=1)
