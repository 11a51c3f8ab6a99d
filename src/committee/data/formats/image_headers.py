"""What is checked in an encoded image before a decoder gets it: parts that would cost it memory or time out of measure.

A decoder reads more than pixels: comments, properties, previews, all frames of an animation. Of these a small file can
announce any number. They are counted here, or left out where no pixel depends on them.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable

from committee.data.formats.files import HEAD_BYTES
from committee.data.formats.kinds import image_kind
from committee.data.limits import limits
from committee.errors import DataError

_PNG_TEXT = frozenset((b"tEXt", b"zTXt", b"iTXt"))
_CHUNK = struct.Struct(">I4s")
_MOST_CHUNKS = 10_000
_MOST_PASSES = 20
_MOST_TILES = 4096
_SPARE = 2**16
_LITTLE = 2**13
"""A file of fewer bytes has too few properties to be a burden: each of 12 bytes may name all the others."""

_SIZE_OF_TYPE = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


def checked(content: bytes, label: str) -> bytes:
    """An encoded image without what no pixel depends on, as far as that could be a burden.

    Args:
        content: of a file of any kind.
        label: name for messages.

    Raises:
        DataError: it has more bytes than the limit `encoded`, or more properties, passes, tiles or chunks than images
            have.
    """
    most = limits()
    if len(content) > most.encoded:
        most.check("encoded", len(content), label, "bytes of an image", "shrink it")
    check = _CHECKS.get(image_kind(content[:HEAD_BYTES]) or "")
    try:
        return check(content) if check else content
    except (IndexError, struct.error):  # cut off: the decoder says so
        return content
    except ValueError as error:
        raise DataError(f"{label}: the image is damaged or cut off ({error}); replace or remove the file") from error


def _png(content: bytes) -> bytes:
    """Without text, which is kept unpacked; the chunks are counted, since each is looked at one by one."""
    start, count, texts = 8, 0, []
    while start + 8 <= len(content):
        length, name = _CHUNK.unpack_from(content, start)
        end = start + 12 + length
        if name != b"IDAT":
            count += 1
            if count > _MOST_CHUNKS:
                raise ValueError(f"more than {_MOST_CHUNKS:,} chunks that are no pixels")
            if name in _PNG_TEXT:
                texts.append((start, end))
            if name == b"eXIf":
                _check_properties(content[start + 8 : end - 4])
        start = end
    if not texts:
        return content
    starts, ends = [0, *(end for _, end in texts)], [*(start for start, _ in texts), len(content)]
    return b"".join(content[start:end] for start, end in zip(starts, ends, strict=True))


def _gif(content: bytes) -> bytes:
    """The first two frames, without comments and the like: whether there is a second one is all that is asked."""
    at = 13 + _colours(content[10])
    kept, frames = [content[:at]], 0
    while frames < 2 and (found := _GIF_BLOCK.search(content, at)):
        start = at = found.start()
        if content[at] == 0x3B:
            break
        is_frame = content[at] == 0x2C
        at += 11 + _colours(content[at + 9]) if is_frame else 2
        while size := content[at]:
            at += size + 1
        at += 1
        frames += is_frame
        if is_frame or content[start + 1] == 0xF9:
            kept.append(content[start:at])
    return b"".join((*kept, b";"))


def _colours(flags: int) -> int:
    """Bytes of a GIF's table of colours."""
    return 3 << (flags & 7) + 1 if flags & 128 else 0


_GIF_BLOCK = re.compile(rb"[\x21\x2c\x3b]")


def _jpeg(content: bytes) -> bytes:
    """Its properties, and how often it passes over all pixels."""
    passes = content.count(b"\xff\xda")
    if len(content) < _LITTLE and passes <= _MOST_PASSES:
        return content
    at, pixels, properties = 2, 0, []
    while content[at] == 0xFF and content[at + 1] != 0xDA:
        marker, length = struct.unpack_from(">HH", content, at)
        if marker == 0xFFE1 and content[at + 4 : at + 10] == b"Exif\0\0":
            properties.append(content[at + 10 : at + 2 + length])
        if 0xFFC0 <= marker <= 0xFFCF and marker not in (0xFFC4, 0xFFC8, 0xFFCC):
            height, width = struct.unpack_from(">HH", content, at + 5)
            pixels = height * width
        at += 2 + length
    _check_properties(b"".join(properties))
    if passes > _MOST_PASSES and passes * pixels > _MOST_PASSES * limits().pixels:
        raise ValueError(f"{passes:,} passes over {pixels:,} pixels")
    return content


def _webp(content: bytes) -> bytes:
    """Its properties."""
    start = 12
    while start + 8 <= len(content):
        name, length = struct.unpack_from("<4sI", content, start)
        if name == b"EXIF":
            _check_properties(content[start + 8 : start + 8 + length].removeprefix(b"Exif\0\0"))
        start += 8 + length + length % 2
    return content


def _tiff(content: bytes) -> bytes:
    """Its properties, which say where pixels are."""
    _check_properties(content)
    return content


def _jpeg_2000(content: bytes) -> bytes:
    """The number of its tiles, each of which takes memory however small it is."""
    at = content.find(b"\xff\x4f\xff\x51")
    if at >= 0:
        right, bottom, _, _, width, height, left, top = struct.unpack_from(">8I", content, at + 8)
        across, down = (-(-(end - start) // max(size, 1)) for end, start, size in
                        ((right, left, width), (bottom, top, height)))  # fmt: skip
        if across * down > _MOST_TILES:
            raise ValueError(f"{across * down:,} tiles, where at most {_MOST_TILES:,} are read")
    return content


def _check_properties(content: bytes) -> None:
    """Tags of TIFF, which EXIF has as well: all together they must not be longer than the file that holds them.

    Raises:
        ValueError: they are; each would be copied, though their bytes are there once.
    """
    if len(content) < 8:
        return
    order = "<" if content[:2] == b"II" else ">"
    big = content[2:4] in (b"+\0", b"\0+")
    entry = struct.Struct(order + ("HHQ8s" if big else "HHI4s"))
    (at,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
    if at + 8 > len(content):
        return
    (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, at)
    start = at + (8 if big else 2)
    body = content[start : start + entry.size * min(count, 2**16)]
    total = sum(
        _SIZE_OF_TYPE.get(kind, 1) * number
        for _, kind, number, _ in entry.iter_unpack(body[: len(body) // entry.size * entry.size])
    )
    if total > 2 * len(content) + _SPARE:
        raise ValueError(f"tags of {total:,} bytes in {len(content):,}")


_CHECKS: dict[str, Callable[[bytes], bytes]] = {
    "PNG": _png,
    "GIF": _gif,
    "JPEG": _jpeg,
    "WEBP": _webp,
    "TIFF": _tiff,
    "JPEG2000": _jpeg_2000,
}
