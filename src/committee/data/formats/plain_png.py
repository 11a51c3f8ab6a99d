"""The commonest small images, many at a time: PNG with 8 bits, neither interlaced nor with a palette, all of one size.

Most of the time that Pillow takes for a small image is spent on opening it. Here the scanlines of many images are
inflated into one array and their filters (PNG specification, third edition, section 9) undone in all images together, a
step for each pixel of a row. Whatever is not exactly of this kind is left to Pillow.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from committee.data.limits import limits

BATCH_BYTES = 2 * 2**20
"""Scanlines that are decoded together; more takes memory and is hardly faster."""

LARGEST = 2**12
"""The most bytes of an image, such as 64x64 in grey: Pillow is as fast or faster for larger ones."""

HEADER = 33
"""The bytes that say what kind of PNG a file is: the same ones for all images of a kind and shape."""

_CHANNELS = {0: 1, 2: 3, 4: 2, 6: 4}
_BEGINNING = b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"
_IGNORED = frozenset(
    (b"tEXt", b"zTXt", b"iTXt", b"tIME", b"pHYs", b"gAMA", b"cHRM", b"sRGB", b"iCCP", b"bKGD", b"sBIT")
)
_LENGTH_AND_NAME = struct.Struct(">I4s")

Shape = tuple[int, int, int]


def shape_of(content: bytes) -> Shape | None:
    """Height, width and channels by the header; None for a PNG of another kind, and for anything else."""
    if not content.startswith(_BEGINNING) or len(content) < 57:
        return None
    width, height, depth, colour, *methods, check = struct.unpack_from(">IIBBBBBI", content, 16)
    if depth != 8 or colour not in _CHANNELS or any(methods) or check != zlib.crc32(content[12:29]):
        return None
    shape = height, width, _CHANNELS[colour]
    return shape if 0 < height * width * shape[2] <= LARGEST else None


def scanlines(content: bytes, size: int) -> bytes | None:
    """The inflated scanlines, `size` bytes; None where the file has anything that asks for more than they say."""
    start, data = HEADER, b""
    end = len(content) - 12
    while start <= end:
        length, name = _LENGTH_AND_NAME.unpack_from(content, start)
        if name == b"IDAT":
            data += content[start + 8 : start + 8 + length]
        elif name == b"IEND":
            break
        elif name not in _IGNORED:
            return None
        start += 12 + length
    else:
        return None
    if len(data) > size + size // 8 + 64:  # inflates to a thousand times as much at most
        return None
    try:
        lines = zlib.decompress(data, bufsize=size)
    except zlib.error:
        return None
    return lines if len(lines) == size else None


def decode_alike(count: int, read: Callable[[int], bytes]) -> NDArray[np.uint8] | None:
    """The pixels of images that all are plain PNG files of one shape, bit for bit as Pillow reads them.

    Args:
        count: number of images, at least one.
        read: position -> encoded bytes; called for one after the other until an image is of another kind.

    Returns:
        (image, height, width, channel); None where any image is of another kind or shape, or over the limit `pixels`.
    """
    first = read(0)
    shape, header = shape_of(first), first[:HEADER]
    if shape is None:
        return None
    height, width, channels = shape
    if height * width > limits().pixels:
        return None
    stride = height * (1 + width * channels)
    together = max(1, min(count, BATCH_BYTES // stride))
    pixels = np.empty((count, *shape), np.uint8)
    raw = np.empty((together, height, 1 + width * channels), np.uint8)
    room = raw.data.cast("B")
    for start in range(0, count, together):
        number = min(together, count - start)
        for i in range(number):
            content = read(start + i)
            lines = scanlines(content, stride) if content.startswith(header) else None
            if lines is None:
                return None
            room[i * stride : (i + 1) * stride] = lines
        if raw[:number, :, 0].max() > 4:
            return None
        _unfilter(raw[:number], pixels[start : start + number])
    return pixels


def _unfilter(raw: NDArray[np.uint8], pixels: NDArray[np.uint8]) -> None:
    """Undo the filters of scanlines (image, row, 1 + width * channels) into pixels (image, row, width, channel)."""
    above = np.zeros(pixels[:, 0].shape, np.uint8)
    for y in range(raw.shape[1]):
        row = pixels[:, y]
        row[...] = raw[:, y, 1:].reshape(row.shape)
        kinds = raw[:, y, 0]
        for kind, undo in _FILTERS.items():
            chosen = np.flatnonzero(kinds == kind)
            if len(chosen):
                row[chosen] = undo(row[chosen], above[chosen])
        above = row


def _sub(row: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return np.cumsum(row, axis=1, dtype=np.uint8)


def _up(row: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    return row + above


def _average(row: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    values, b = _by_pixel(row), _by_pixel(above)
    a = np.zeros_like(b[0])
    for x in range(len(values)):
        a = ((a + b[x]) // 2 + values[x]) & 255
        values[x] = a
    return values.transpose(1, 0, 2).astype(np.uint8)


def _paeth(row: NDArray[np.uint8], above: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Of a (left), b (above) and c (above left), the one nearest to a + b - c is added, the first of equally near ones.

    Distance, order and value are packed into one number, from the highest bits to the lowest, so that the least of
    three such numbers holds the chosen value.
    """
    values, b = _by_pixel(row), _by_pixel(above)
    c = np.concatenate([np.zeros_like(b[:1]), b[:-1]])
    from_a = b - c
    far_from_a = np.abs(from_a) << 10
    second, third = b + (1 << 8), c + (2 << 8)
    a = np.zeros_like(b[0])
    for x in range(len(values)):
        from_b = a - c[x]
        from_c = from_a[x] + from_b
        least = far_from_a[x] + a
        np.minimum(least, (np.abs(from_b) << 10) + second[x], out=least)
        np.minimum(least, (np.abs(from_c) << 10) + third[x], out=least)
        a = (least + values[x]) & 255
        values[x] = a
    return values.transpose(1, 0, 2).astype(np.uint8)


def _by_pixel(row: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(image, width, channel) as (width, image, channel): what is worked on in one step lies side by side."""
    return np.ascontiguousarray(row.transpose(1, 0, 2), np.int32)


_FILTERS: dict[int, Callable[[NDArray[np.uint8], NDArray[np.uint8]], NDArray[np.uint8]]] = {
    1: _sub,
    2: _up,
    3: _average,
    4: _paeth,
}
