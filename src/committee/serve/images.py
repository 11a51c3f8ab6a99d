"""An image as a client gave it, encoded or as pixels -> its pixels, within the limits."""

from __future__ import annotations

import base64
import binascii
import re
import struct
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from committee.data.formats.decode import decode, probe
from committee.serve.limits import ServeLimits
from committee.serve.problems import too_large, unusable

QUICK_BODY = 2**16
"""Bytes of a body that is parsed at once; a larger one is parsed in a thread."""

QUICK_PIXELS = 2**16
"""Pixels of an image that is decoded in a batch with others; a larger one, or one of unknown size, beforehand."""

_PNG = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_DATA_URI = re.compile(r"data:image/[a-z0-9.+-]{1,40};base64,", re.IGNORECASE)


@dataclass(frozen=True)
class Given:
    """An image as a client gave it: its file's name, if it has one, and an encoded image, or pixels."""

    name: str | None
    content: bytes | NDArray[Any]

    @property
    def is_quick(self) -> bool:
        """Whether it is surely read within a millisecond or so."""
        if not isinstance(self.content, bytes):
            return self.content.size <= QUICK_PIXELS
        if not self.content.startswith(_PNG) or not 24 < len(self.content) <= QUICK_BODY:
            return False
        width, height = struct.unpack_from(">II", self.content, 16)
        return bool(width * height <= QUICK_PIXELS)


def decoded_base64(text: str, label: str) -> bytes:
    """The bytes that base64 stands for, with or without `data:image/...;base64,` before it.

    Raises:
        RefusedError: it is no base64.
    """
    head = _DATA_URI.match(text[:64])
    try:
        return base64.b64decode(text[head.end() :] if head else text, validate=True)
    except (binascii.Error, ValueError):
        raise unusable(f"{label}: base64 of an image file is expected, got other text; encode the file") from None


def decoded(content: bytes | NDArray[Any], label: str, limits: ServeLimits) -> NDArray[Any]:
    """An image's pixels (height, width, channel).

    Raises:
        DataError: it cannot be read.
        RefusedError: it has too many pixels (413).
    """
    if isinstance(content, bytes):
        if len(content) * 8 > limits.pixels or not Given(None, content).is_quick:
            picture = probe(content, label)
            _check_pixels(picture.height, picture.width, label, limits)
        return decode(content, label)
    _check_pixels(content.shape[0], content.shape[1], label, limits)
    return content if content.ndim == 3 else content[..., None]


def _check_pixels(height: int, width: int, label: str, limits: ServeLimits) -> None:
    if height * width > limits.pixels:
        raise too_large(
            f"{label}: an image of at most {limits.pixels:,} pixels is expected, got {width}x{height}; shrink it"
        )
