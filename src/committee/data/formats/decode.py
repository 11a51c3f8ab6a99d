"""Encoded images (PNG, JPEG, TIFF, ...) -> pixels, and pixels -> another size, depth or number of channels."""

from __future__ import annotations

import io
import re
import sys
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile, TiffImagePlugin, UnidentifiedImageError

from committee.data.dataset import Pixels
from committee.data.formats import tiff
from committee.data.formats.files import HEAD_BYTES, check_image_size, decoding, reason
from committee.data.formats.image_headers import checked
from committee.data.formats.kinds import IMAGES, image_kind, in_words
from committee.data.limits import VARIABLE, limits
from committee.errors import DataError

LONGEST_SIDE = 96
"""The most pixels that the longer side of an image keeps where no size is asked for."""

_MODES = {1: "L", 2: "LA", 3: "RGB", 4: "RGBA"}
_ORIENTATION = 0x0112


@dataclass(frozen=True)
class Picture:
    """What an encoded image decodes to: its upright size in pixels, its channels, and 8 or 16 bits.

    Of the pages of a TIFF and the frames of an animation the first is decoded; `pages` is 2 where there are any others.
    """

    height: int
    width: int
    channels: int
    bits: int
    pages: int = 1


def probe(content: bytes, label: str) -> Picture:
    """Size, channels and depth of an encoded image, from its header alone.

    Raises:
        DataError: this is not a readable image, or it is over one of the limits `pixels`, `encoded`, `expansion`.
    """
    content = checked(content, label)
    if _is_for_tifffile(content):
        height, width, channels, bits, orientation, pages = tiff.header(content, label)
        if orientation >= 5:
            height, width = width, height
        return Picture(height, width, channels, bits, pages)
    with decoding(label), _opened(content, label) as image:
        width, height = image.size
        if isinstance(image, TiffImagePlugin.TiffImageFile):  # Pillow may have exchanged height and width
            width, height = image.tag_v2[TiffImagePlugin.IMAGEWIDTH], image.tag_v2[TiffImagePlugin.IMAGELENGTH]
        if _orientation(image, content) >= 5:
            width, height = height, width
        mode, bits = _target(image)
        return Picture(height, width, Image.getmodebands(mode), bits, _pages(image))


def decode(content: bytes, label: str) -> Pixels:
    """Pixels of an encoded image, turned upright as its EXIF orientation says.

    A palette becomes RGB, with alpha where it has transparency, or grey where all its colours are grey; black-and-white
    becomes 0 and 255; CMYK and other colour spaces become RGB.

    Returns:
        (height, width, channel), uint8 or uint16.

    Raises:
        DataError: as in `probe`, or the image is damaged or cut off.
    """
    content = checked(content, label)
    if _is_for_tifffile(content):
        return np.ascontiguousarray(_turned(*tiff.read(content, label)))
    with decoding(label), _opened(content, label) as opened:
        mode, bits = _target(opened)
        opened.load()
        _scale_transparent_grey(opened, content)
        if bits == 16 and mode != "L":
            pixels = _wide_colour(content, mode)
        elif bits == 16 or opened.mode == "F" or _is_signed(opened):
            pixels = _grey_values(opened, label)
        else:
            pixels = np.asarray(opened if opened.mode == mode else opened.convert(mode))
        pixels = _turned(pixels, _orientation(opened, content))  # 1 where Pillow has turned a TIFF
    return np.ascontiguousarray(pixels if pixels.ndim == 3 else pixels[..., None])


def fitted(height: int, width: int) -> tuple[int, int]:
    """The size in the same proportions with at most `LONGEST_SIDE` pixels on its longer side."""
    longest = max(height, width)
    if longest <= LONGEST_SIDE:
        return height, width
    return tuple(max(1, round(side * LONGEST_SIDE / longest)) for side in (height, width))  # type: ignore[return-value]


def promoted(arrays: Sequence[Pixels]) -> list[Pixels]:
    """All arrays with 16 bits where any has 16; 8-bit values are multiplied by 257, so that white stays white."""
    if all(array.dtype == np.uint8 for array in arrays):
        return list(arrays)
    return [array if array.dtype == np.uint16 else array.astype(np.uint16) * np.uint16(257) for array in arrays]


def resized(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """Images (image, height, width, channel) in another size (height, width): bilinear, with antialiasing."""
    if pixels.shape[1:3] == size:
        return pixels
    channels = pixels.shape[3]
    result = np.empty((len(pixels), *size, channels), pixels.dtype)
    for i, image in enumerate(pixels):
        if pixels.dtype == np.uint8:
            flat = Image.fromarray(image[..., 0] if channels == 1 else image)
            result[i] = np.asarray(flat.resize(size[::-1], Image.Resampling.BILINEAR)).reshape(*size, channels)
        else:
            for c in range(channels):
                plane = Image.fromarray(image[..., c].astype(np.float32))
                result[i, ..., c] = np.rint(np.asarray(plane.resize(size[::-1], Image.Resampling.BILINEAR)))
    return result


def conformed(pixels: Pixels, image_shape: tuple[int, int, int], pixel_range: int, label: str) -> Pixels:
    """Images with the size, channels and depth of those that a committee was trained on.

    Colour becomes grey by luma (.299, .587, .114), grey becomes colour by repetition, and missing alpha is opaque.

    Args:
        pixels: (image, height, width, channel), uint8 or uint16.
        image_shape: wanted height, width, channels.
        pixel_range: 255 for 8 bits, 65535 for 16.
        label: name for messages.

    Raises:
        DataError: parts of an image are transparent, and the wanted channels have no alpha.
    """
    height, width, channels = image_shape
    whole = with_channels(pixels, channels, label)
    fitting = resized(whole, (height, width))
    if pixel_range == 255 and fitting.dtype == np.uint16:
        return ((fitting.astype(np.uint32) + 128) // 257).astype(np.uint8)
    return fitting if pixel_range == 255 else promoted([fitting, np.empty(0, np.uint16)])[0]


def wanted_channels(found: Collection[int], channels: Literal["grey", "colour"]) -> int:
    """The number of channels that images are converted to which have these; alpha stays where all have it."""
    return (1 if channels == "grey" else 3) + all(number in (2, 4) for number in found)


def with_channels(pixels: Pixels, channels: int, label: str) -> Pixels:
    """Images (image, height, width, channel) with another number of channels, as `conformed` says.

    Raises:
        DataError: parts of an image are transparent, and the wanted channels have no alpha.
    """
    if pixels.shape[3] == channels:
        return pixels
    full = np.iinfo(pixels.dtype).max
    own_alpha = pixels.shape[3] in (2, 4)
    if own_alpha and channels in (1, 3) and any((image[..., -1] < full).any() for image in pixels):
        raise DataError(
            f"{label}: parts of the image are transparent, where opaque images are expected; put it on a background "
            "like theirs"
        )
    result: Pixels = np.empty((*pixels.shape[:3], channels), pixels.dtype)
    for start in range(0, len(pixels), 256):  # the sums are floats, eight times as large as the pixels
        some, made = pixels[start : start + 256], result[start : start + 256]
        colour = some[..., :-1] if own_alpha else some
        if channels <= 2 and colour.shape[3] == 3:
            made[..., :1] = np.rint(colour @ np.array([0.299, 0.587, 0.114]))[..., None]
        else:
            made[..., : 1 if channels <= 2 else 3] = colour
        if channels in (2, 4):
            made[..., -1:] = some[..., -1:] if own_alpha else full
    return result


def _opened(content: bytes, label: str) -> Image.Image:
    """An encoded image, its header read and checked; it is given to the decoder of its kind alone."""
    kind = image_kind(content[:HEAD_BYTES])
    if kind is None:
        raise DataError(
            f"{label}: a {IMAGES} image is expected, got {in_words(content[:HEAD_BYTES])}; replace or remove the file"
        )
    most = limits()
    if most.pixels > (Image.MAX_IMAGE_PIXELS or most.pixels):  # the user raised the limit above Pillow's
        Image.MAX_IMAGE_PIXELS = most.pixels
    try:
        image = Image.open(io.BytesIO(content), formats=(kind,))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        got = re.search(r"\d+", str(error))
        raise DataError(
            f"{label}: an image of at most {most.pixels:,} pixels is expected, got a larger one ({reason(error)}); "
            f"shrink it, or if you trust it, set {VARIABLE}={most.raised('pixels', int(got[0]) if got else 0)}"
        ) from error
    except KeyError as error:  # Pillow 10 has no decoder of AVIF
        raise DataError(f"{label}: the installed Pillow reads no {kind}; update it, or convert the image") from error
    except (UnidentifiedImageError, OSError, SyntaxError, ValueError, EOFError) as error:
        raise DataError(
            f"{label}: the {kind} image is damaged, or of a variant that is not read; replace or remove the file"
        ) from error
    mode, bits = _target(image)
    check_image_size(image.height, image.width, Image.getmodebands(mode), bits, len(content), label)
    return image


def _is_for_tifffile(content: bytes) -> bool:
    """Whether this is a TIFF that Pillow cannot open, or opens wrongly."""
    if image_kind(content[:HEAD_BYTES]) != "TIFF":
        return False
    try:
        with Image.open(io.BytesIO(content), formats=("TIFF",)) as image:
            if not isinstance(image, TiffImagePlugin.TiffImageFile):
                return False
            wide = 16 in image.tag_v2.get(tiff.BITS, ())
            planes = wide and image.mode in ("RGB", "RGBA") and ";16" not in _raw_mode(image)
            return planes or _is_swapped(image)
    except UnidentifiedImageError:
        return True
    except Exception:  # whatever it is, it is said where the file is opened again
        return False


def _is_swapped(image: TiffImagePlugin.TiffImageFile) -> bool:
    """Whether Pillow 13 turns the bytes of values round once too often: compressed, big-endian, neither 8 bits nor
    unsigned 16.
    """
    tags = image.tag_v2
    stored = tags.get(tiff.COMPRESSION, 1) != 1 and tags.prefix == b"MM"
    ordinary = tags.get(tiff.SAMPLE_FORMAT, (1,)) == (1,) and max(tags.get(tiff.BITS, (1,)), default=1) <= 16
    return stored and max(tags.get(tiff.BITS, (1,)), default=1) > 8 and not ordinary


def _pages(image: Image.Image) -> int:
    """1, or 2 for several pages or frames, which are not counted. A JPEG's second picture is a preview, or the like."""
    try:
        return 2 if image.format != "MPO" and getattr(image, "is_animated", False) else 1
    except Exception:
        return 1  # the first is readable, and what follows it is no page


def _is_signed(image: Image.Image) -> bool:
    """Whether a TIFF has signed 8-bit values, which Pillow takes for unsigned ones."""
    return (
        isinstance(image, TiffImagePlugin.TiffImageFile)
        and image.mode == "L"
        and image.tag_v2.get(tiff.SAMPLE_FORMAT) == (2,)
    )


def _target(image: Image.Image) -> tuple[str, int]:
    """The Pillow mode that an image is decoded to, and the bits of its values."""
    mode = image.mode
    if mode == "P":
        if "transparency" in image.info or (image.palette is not None and image.palette.mode == "RGBA"):
            return "RGBA", 8
        colours = np.array(image.getpalette("RGB") or [0, 0, 0]).reshape(-1, 3)
        return ("L" if (colours == colours[:, :1]).all() else "RGB"), 8
    if mode.startswith("I"):
        return "L", 16
    if mode == "F":
        return "L", 8
    wide = 16 if mode in ("RGB", "RGBA") and ";16" in _raw_mode(image) else 8
    if mode in ("LA", "La"):
        return "LA", 8
    if mode in ("RGBA", "RGBa", "PA"):
        return "RGBA", wide
    if mode in ("1", "L"):
        return ("LA" if "transparency" in image.info else "L"), 8
    return ("RGBA" if "transparency" in image.info else "RGB"), wide if "transparency" not in image.info else 8


def _raw_mode(image: Image.Image) -> str:
    """How the file stores a pixel, in Pillow's words, such as ``"RGB;16B"``."""
    tiles = image.tile if isinstance(image, ImageFile.ImageFile) else []
    args = tiles[0].args if tiles else None
    return str(args if isinstance(args, str) else args[0] if args else "")


def _scale_transparent_grey(image: Image.Image, content: bytes) -> None:
    """Bring the transparent grey of a PNG to the 8 bits to which Pillow has brought its 2 or 4, and not this one."""
    grey = image.info.get("transparency")
    if image.format == "PNG" and image.mode == "L" and isinstance(grey, int) and content[24] in (2, 4):
        image.info["transparency"] = grey * 255 // (2 ** content[24] - 1)  # byte 24: the depth, in the first chunk


def _grey_values(image: Image.Image, label: str) -> Pixels:
    """Grey values other than unsigned 8-bit ones, for which alone Pillow turns a TIFF round whose white is 0."""
    values = np.asarray(image)
    tags = image.tag_v2 if isinstance(image, TiffImagePlugin.TiffImageFile) else {}
    white_is_zero = tags.get(tiff.PHOTOMETRIC) == tiff.WHITE_IS_ZERO
    values = values.view(np.int8) if _is_signed(image) else values
    bits = max(tags.get(tiff.BITS, (16,)), default=16)
    return tiff.pixels_from(values, label, white_is_zero=white_is_zero, bits=bits)


def _wide_colour(content: bytes, mode: str) -> NDArray[Any]:
    """16-bit colour. Pillow keeps one byte of each value, so upper and lower bytes are decoded one after the other."""
    halves = []
    for order in ("B", "L"):
        image = Image.open(io.BytesIO(content), formats=(image_kind(content[:HEAD_BYTES]) or "",))
        assert isinstance(image, ImageFile.ImageFile)
        native = _raw_mode(image)
        first = native[-1] if native[-1] in "BL" else sys.byteorder[0].upper()
        wanted = f"{mode};16{order}"
        image.tile = [
            tile._replace(args=(wanted, *tile.args[1:]) if isinstance(tile.args, tuple) else wanted)
            for tile in image.tile
        ]
        halves.append((order == first, np.asarray(image).astype(np.uint16)))
    high, low = (next(half for is_high, half in halves if is_high is wanted_high) for wanted_high in (True, False))
    return high * np.uint16(256) + low


def _orientation(image: Image.Image, content: bytes) -> int:
    """The EXIF orientation, 1 to 8. A PNG without EXIF is not asked: Pillow would decode all of it to answer."""
    if image.format == "PNG" and b"eXIf" not in content:
        return 1
    value = image.getexif().get(_ORIENTATION, 1)
    return value if isinstance(value, int) and 1 <= value <= 8 else 1


def _turned(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Pixels turned and mirrored so that an image of this EXIF orientation is upright."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return pixels
