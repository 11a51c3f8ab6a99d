"""What is particular about TIFF: values of many types, white as 0, and the files that the package tifffile must read.

Pillow cannot open big-endian files with 16 bits whose white is 0, those with unsigned 32 bits, 64-bit floats, floats in
colour or big-endian BigTIFF, and reads one byte of two where 16-bit channels are stored one after the other.
"""

from __future__ import annotations

import io
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.formats.files import FAULTS, check_image_size, decoding
from committee.errors import DataError, MissingExtraError, require

if TYPE_CHECKING:
    from tifffile import TiffPage

for _library in ("PIL", "tifffile"):  # what they have to say about a damaged file is in the error
    logging.getLogger(_library).addHandler(logging.NullHandler())

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB = 0, 1, 2
"""Values of the tag PHOTOMETRIC."""

BITS, COMPRESSION, PHOTOMETRIC, ORIENTATION, SAMPLE_FORMAT = 258, 259, 262, 274, 339
"""Numbers of tags."""


def pixels_from(values: NDArray[Any], label: str, *, white_is_zero: bool = False, bits: int = 16) -> Pixels:
    """8- or 16-bit pixels of one image's values.

    Unsigned 8 and 16 bits stay; booleans become 0 and 255; floats must be from 0 to 1 and become 8 bits; signed 8-bit
    integers must be from 0 to 127, other integers from 0 to 65535, which become 16 bits. Values of 9 to 15 bits are
    stretched to 16, as Pillow stretches those of PNM and shifts those of JPEG 2000, but leaves those of TIFF.

    Args:
        values: of any shape and numeric type.
        label: name for messages.
        white_is_zero: whether black and white are to be exchanged.
        bits: of a value in the file.

    Raises:
        DataError: a value outside these ranges.
    """
    kind, size = values.dtype.kind, values.dtype.itemsize
    floats = kind == "f"
    highest = 1 if floats else 127 if (kind, size) == ("i", 1) else 65535
    if kind != "b" and values.size and not (values.min() >= 0 and values.max() <= highest):
        what = "floating-point values must be from 0 to 1" if floats else f"values must be from 0 to {highest}"
        raise DataError(
            f"{label}: {what}, got {values.min():g} to {values.max():g}; save the image with 8 or 16 unsigned bits"
        )
    if kind == "b":
        pixels = values.astype(np.uint8) * np.uint8(255)
    elif floats:
        pixels = np.rint(values * 255).astype(np.uint8)
    elif kind == "u" and 8 < bits < 16:
        pixels = np.rint(values * (65535 / (2**bits - 1))).astype(np.uint16)
    else:
        pixels = values.astype(np.uint8 if size == 1 else np.uint16)
    return np.iinfo(pixels.dtype).max - pixels if white_is_zero else pixels


def header(content: bytes, label: str) -> tuple[int, int, int, int, int, int]:
    """Height, width, channels, bits and EXIF orientation of the first page, and 2 for several pages.

    Raises:
        DataError: this is not a TIFF that can be read, or tifffile is not installed.
    """
    with _opened(content, label) as (page, pages):
        dtype = np.dtype(page.dtype)
        bits = 8 if dtype.kind in "bf" or dtype.itemsize == 1 else 16
        return page.imagelength, page.imagewidth, page.samplesperpixel, bits, _orientation(page), pages


def read(content: bytes, label: str) -> tuple[Pixels, int]:
    """The first page, (height, width, channel), and its EXIF orientation.

    Raises:
        DataError: as in `header`, the data are damaged, or values are outside the ranges of `pixels_from`.
    """
    with _opened(content, label) as (page, _):
        values = page.asarray()
        if page.samplesperpixel > 1 and page.planarconfig == 2:  # a plane for each channel
            values = np.moveaxis(values, 0, -1)
        values = values.reshape(page.imagelength, page.imagewidth, page.samplesperpixel)
        turned = page.photometric == WHITE_IS_ZERO
        return pixels_from(values, label, white_is_zero=turned, bits=page.bitspersample), _orientation(page)


def _orientation(page: TiffPage) -> int:
    value = page.tags.valueof(ORIENTATION, 1)
    return int(value) if value in range(1, 9) else 1


@contextmanager
def _opened(content: bytes, label: str) -> Iterator[tuple[TiffPage, int]]:
    """The first page, and 2 for several pages, by tifffile."""
    try:
        tifffile = require("tifffile", extra="tiff", purpose="Reading TIFF files of this kind")
    except MissingExtraError as error:
        raise DataError(
            f"{label}: the package tifffile is needed for a TIFF of this kind and not installed (pip install "
            "'committee[tiff]'); install it, or save the image with 8 or 16 bits"
        ) from error
    with decoding(label), tifffile.TiffFile(io.BytesIO(content)) as file:
        page = file.pages[0]
        if page.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB) or page.imagedepth != 1:
            got = getattr(page.photometric, "name", str(page.photometric)).lower()
            raise DataError(f"{label}: a TIFF in grey or RGB is expected, got {got}; convert the image")
        if not 1 <= page.samplesperpixel <= 4 or page.dtype is None or page.dtype.kind not in "biuf":
            raise DataError(
                f"{label}: 1 to 4 channels of numbers are expected, got {page.samplesperpixel} of {page.dtype}; "
                "keep those that matter"
            )
        bits = 8 * page.dtype.itemsize
        check_image_size(page.imagelength, page.imagewidth, page.samplesperpixel, bits, len(content), label)
        strips = math.prod(page.chunked)
        if strips > len(page.dataoffsets):
            raise ValueError(f"{strips:,} strips or tiles are expected, got {len(page.dataoffsets):,}")
        yield page, 2 if _has_second(file) else 1


def _has_second(file: Any) -> bool:
    """Whether there is a second page; they are not counted, since a file may chain any number."""
    try:
        return file.pages[1] is not None
    except (IndexError, *FAULTS):
        return False
