"""Images of the data for the screen: as 8-bit colour, and as small files inside the page."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

Screen = NDArray[np.uint8]


def displayable(images: NDArray[Any]) -> Screen:
    """Images of 1 to 4 channels as 8-bit colour.

    Args:
        images: (..., height, width, channel), uint8 or uint16. 16-bit images are stretched so that the brightest pixel
            of the array is white; two and four channels end with opacity, which is laid over light grey.

    Returns:
        (..., height, width, 3), uint8.
    """
    values = images.astype(np.float32)
    if images.dtype == np.uint8:
        values /= 255
    else:
        values /= max(float(values.max(initial=0)), 1.0)
    colours = values[..., :3] if values.shape[-1] >= 3 else np.repeat(values[..., :1], 3, axis=-1)
    if values.shape[-1] in (2, 4):
        opacity = values[..., -1:]
        colours = colours * opacity + 0.86 * (1 - opacity)
    return np.asarray(np.rint(255 * colours), dtype=np.uint8)


def strips(images: Screen, gap: int = 2) -> Screen:
    """Each row of images side by side as one image, with light gaps.

    Args:
        images: (row, column, height, width, 3).
        gap: pixels between two images.

    Returns:
        (row, height, column * (width + gap) - gap, 3).
    """
    rows, columns, height, width, channels = images.shape
    strip = np.full((rows, height, columns * (width + gap) - gap, channels), 255, np.uint8)
    for column in range(columns):
        strip[:, :, column * (width + gap) : column * (width + gap) + width] = images[:, column]
    return strip


def data_uris(images: Sequence[Screen], budget: int) -> list[str]:
    """Images as `data:` addresses that together stay within a number of characters.

    PNG, which keeps every pixel, if that fits; else JPEG; else JPEG of ever smaller images.

    Args:
        images: each (height, width, 3).
        budget: characters for all of them together.
    """
    uris = [_uri(Image.fromarray(image), "PNG") for image in images]
    shrink = 1.0
    while sum(map(len, uris)) > budget and shrink > 0.05:
        uris = [_uri(_shrunk(Image.fromarray(image), shrink), "JPEG") for image in images]
        shrink *= 0.7
    return uris


def _shrunk(image: Image.Image, factor: float) -> Image.Image:
    if factor == 1:
        return image
    return image.resize((max(1, round(image.width * factor)), max(1, round(image.height * factor))))


def _uri(image: Image.Image, form: str) -> str:
    red, green, blue = (channel.tobytes() for channel in image.split())
    if red == green == blue:
        image = image.convert("L")
    buffer = io.BytesIO()
    image.save(buffer, form, **({"optimize": True} if form == "PNG" else {"quality": 82}))
    return f"data:image/{form.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"
