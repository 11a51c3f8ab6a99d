"""Photographs made from real digits: a pen of some colour and width on plain, ruled or squared paper, in some light.

A digit's image is enlarged smoothly, its outline or its midline is drawn again with a pen, anywhere on a sheet, and the
sheet is lit, blurred, made noisy and stored as a JPEG, as a telephone would. Used by the tests and by
bench/photographs.py.
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFilter

Colour = tuple[int, int, int]
Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]

INKS: dict[str, Colour] = {
    "black": (35, 33, 38),
    "blue": (35, 50, 140),
    "red": (190, 40, 45),
    "pencil": (110, 110, 112),
}


@dataclass(frozen=True)
class Style:
    """How a photograph is taken.

    Attributes:
        size: height and width of the photograph, in pixels.
        digit: height of the digit as a share of the shorter side.
        pen: width of the stroke as a share of the digit's height; None draws the digit's own strokes.
        ink: a name in `INKS`.
        paper: its colour.
        lines: "", "ruled" or "squared".
        rule: the colour of the lines.
        shadow: how much light is lost across the photograph, as a share.
        edge: whether the shadow has an edge, such as a hand's or a telephone's.
        tilt: by how much lines and digit are turned, in degrees, at most.
        noise: standard deviation, in grey levels of 255.
        quality: of the JPEG.
        board: light chalk on a dark board: the colours of ink and paper are exchanged.
    """

    size: tuple[int, int] = (300, 400)
    digit: float = 0.45
    pen: float | None = None
    ink: str = "black"
    paper: Colour = (244, 242, 236)
    lines: str = ""
    rule: Colour = (170, 190, 220)
    shadow: float = 0.0
    edge: bool = False
    tilt: float = 3.0
    noise: float = 3.0
    quality: int = 85
    board: bool = False


STYLES: dict[str, Style] = {
    "plain": Style(),
    "thin pen": Style(pen=0.035, ink="blue", size=(400, 300)),
    "thick marker": Style(pen=0.2, digit=0.6),
    "ruled paper": Style(pen=0.06, lines="ruled", ink="blue"),
    "squared paper": Style(pen=0.07, lines="squared"),
    "squared paper, pencil": Style(pen=0.08, lines="squared", ink="pencil", rule=(185, 195, 205), shadow=0.2),
    "shadow": Style(shadow=0.55, pen=0.1),
    "edge of a shadow": Style(shadow=0.4, edge=True, paper=(235, 228, 205)),
    "small, red, strong JPEG": Style(digit=0.2, ink="red", quality=40, pen=0.12, size=(480, 640)),
    "chalk on a board": Style(board=True, ink="black", pen=0.09, shadow=0.3, noise=5.0, size=(320, 320), digit=0.35),
}
"""Ten ways to photograph a digit."""


def photograph(digit: NDArray[np.uint8], style: Style, rng: np.random.Generator) -> bytes:
    """A photograph of a digit as a JPEG.

    Args:
        digit: (height, width), light on dark, 0 to 255.
        style: how it is taken.
        rng: place, tilt, light and noise.
    """
    height, width = style.size
    tall = style.digit * min(style.size) * rng.uniform(0.85, 1.15)
    strokes = _strokes(digit, style.pen)
    turned = Image.fromarray((255 * strokes).astype(np.uint8)).rotate(
        rng.uniform(-style.tilt, style.tilt), Image.Resampling.BICUBIC, expand=True
    )
    scale = tall / strokes.shape[0]
    small = turned.resize([max(1, round(side * scale)) for side in turned.size], Image.Resampling.BOX)
    free = height - small.height, width - small.width
    top, left = (int(rng.uniform(0.12, 0.88) * max(side, 0)) for side in free)
    alpha = np.zeros((height, width))
    alpha[top : top + small.height, left : left + small.width] = np.asarray(small)[:height, :width] / 255
    alpha = np.clip(alpha * (1 + 0.1 * _clouds((height, width), 12, rng)), 0, 1)[..., None]
    paper, ink = np.array(style.paper, float), np.array(INKS[style.ink], float)
    sheet = np.broadcast_to(paper, (height, width, 3)).copy()
    lines = _lines(style, rng)[..., None]
    sheet = sheet * (1 - lines) + np.array(style.rule, float) * lines
    if style.board:
        sheet, ink = np.full_like(sheet, 48.0) + 6 * _clouds((height, width), 30, rng)[..., None], paper
    sheet = sheet * (1 - alpha) + ink * alpha
    sheet *= _light(style, rng)[..., None]
    image = Image.fromarray(np.clip(sheet, 0, 255).astype(np.uint8)).filter(ImageFilter.GaussianBlur(0.8))
    noisy = np.asarray(image, float) + rng.normal(0, style.noise, (height, width, 1))
    file = io.BytesIO()
    Image.fromarray(np.clip(np.rint(noisy), 0, 255).astype(np.uint8)).save(file, "JPEG", quality=style.quality)
    return file.getvalue()


def framed(digit: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A digit of any size (height, width) as MNIST would have it: 20 of 28 pixels, centre of mass on (14, 14)."""
    strokes = _strokes(digit, None, tall=80)
    rows, columns = (np.flatnonzero((strokes > 0.5).any(axis=axis)) for axis in (1, 0))
    box = strokes[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    size = [max(1, round(20 * side / max(box.shape))) for side in box.shape[::-1]]
    small = np.asarray(Image.fromarray((255 * box).astype(np.uint8)).resize(size, Image.Resampling.BOX))
    centre = [float(np.average(np.arange(small.shape[axis]), weights=small.sum(axis=1 - axis))) for axis in (0, 1)]
    top, left = (min(max(round(14 - own), 0), 28 - side) for own, side in zip(centre, small.shape, strict=True))
    frame = np.zeros((28, 28), np.uint8)
    frame[top : top + small.shape[0], left : left + small.shape[1]] = small
    return frame


def _strokes(digit: NDArray[np.uint8], pen: float | None, tall: int = 200) -> Floats:
    """A digit as smooth strokes about `tall` pixels high with nothing around them, 0 to 1."""
    rows, columns = (np.flatnonzero((digit > 60).any(axis=axis)) for axis in (1, 0))
    box = digit[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    factor = tall / max(box.shape)
    padded = np.pad(box, 2)
    size = [round(side * factor) for side in padded.shape[::-1]]
    smooth = Image.fromarray(padded).resize(size, Image.Resampling.BICUBIC).filter(ImageFilter.GaussianBlur(factor / 4))
    mask = np.asarray(smooth) > 100
    if pen is not None:
        mask = _drawn(_thinned(mask), max(1, round(pen * tall / 2)))
    edge = np.asarray(
        Image.fromarray((255 * np.pad(mask, 8)).astype(np.uint8)).filter(ImageFilter.GaussianBlur(tall / 130))
    )
    return edge / 255


def _drawn(line: Mask, radius: int) -> Mask:
    """A line drawn with a round pen."""
    padded = np.pad(line, radius)
    drawn = np.zeros_like(padded)
    for y in range(-radius, radius + 1):
        half = int((radius**2 - y**2) ** 0.5)
        for x in range(-half, half + 1):
            drawn |= np.roll(padded, (y, x), axis=(0, 1))
    return drawn


def _thinned(mask: Mask) -> Mask:
    """The midline of strokes, by Zhang and Suen's thinning (1984)."""
    mask = np.pad(mask, 1)
    while True:
        before = mask.sum()
        for first in (True, False):
            around = [
                np.roll(mask, shift, axis=(0, 1))
                for shift in ((1, 0), (1, -1), (0, -1), (-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1))
            ]
            north, east, south, west = around[0], around[2], around[4], around[6]
            neighbours = np.sum(around, axis=0)
            turns = np.sum([~a & b for a, b in zip(around, [*around[1:], around[0]], strict=True)], axis=0)
            open_side = (
                ~(north & east & south) & ~(east & south & west)
                if first
                else ~(north & east & west) & ~(north & south & west)
            )
            mask = mask & ~((neighbours >= 2) & (neighbours <= 6) & (turns == 1) & open_side)
        if mask.sum() == before:
            return mask[1:-1, 1:-1]


def _lines(style: Style, rng: np.random.Generator) -> Floats:
    """How much of each pixel is a line of the paper, 0 to 1."""
    height, width = style.size
    rows, columns = np.mgrid[:height, :width].astype(float)
    angle = np.deg2rad(rng.uniform(-style.tilt, style.tilt))
    along = (rows * np.cos(angle) + columns * np.sin(angle), columns * np.cos(angle) - rows * np.sin(angle))
    pitch, thick = (28.0, 1.6) if style.lines == "ruled" else (22.0, 1.4)
    found = np.zeros((height, width))
    for across in along[: {"": 0, "ruled": 1, "squared": 2}[style.lines]]:
        distance = np.abs((across + rng.uniform(0, pitch)) % pitch - pitch / 2)
        found = np.maximum(found, np.clip(thick / 2 + 0.5 - distance, 0, 1))
    return found


def _light(style: Style, rng: np.random.Generator) -> Floats:
    """The light on each pixel: a gradient in some direction, or a shadow with a soft edge."""
    height, width = style.size
    rows, columns = np.mgrid[: 1 : complex(height), : 1 : complex(width)]
    angle = rng.uniform(0, 2 * np.pi)
    across = (rows - 0.5) * np.sin(angle) + (columns - 0.5) * np.cos(angle)
    if style.edge:
        return 1 - style.shadow / (1 + np.exp(-60 * (across - rng.uniform(-0.2, 0.2))))
    return 1 - style.shadow * np.clip(across + 0.5, 0, 1)


def _clouds(size: tuple[int, int], grain: int, rng: np.random.Generator) -> Floats:
    """Smooth noise of standard deviation 1 whose patches are about `grain` pixels wide."""
    coarse = rng.normal(size=[side // grain + 2 for side in size]).astype(np.float32)
    return np.asarray(Image.fromarray(coarse).resize(size[::-1], Image.Resampling.BICUBIC), float)
