"""Many encoded images -> one array: sizes, channels and depth brought together, unreadable ones told together."""

from __future__ import annotations

import math
import re
import warnings
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.formats.decode import (
    Picture,
    decode,
    fitted,
    probe,
    promoted,
    resized,
    wanted_channels,
    with_channels,
)
from committee.data.formats.kinds import IMAGES
from committee.data.formats.plain_png import decode_alike
from committee.data.limits import VARIABLE, limits
from committee.data.read_options import ReadOptions
from committee.errors import DataError, counted

LISTED = 10
"""How many unreadable images a message names."""

_KINDS = {1: "grey", 2: "grey with alpha", 3: "RGB", 4: "RGB with alpha"}

Unreadable = tuple[str, str]
"""An image that cannot be read: its name, and the sentence that says why."""


@dataclass(frozen=True)
class Decoded:
    """Images that were decoded together.

    Attributes:
        pixels: (image, height, width, channel) uint8, or uint16 where any image has 16 bits.
        kept: (image,) int64, ascending: which of the images were decoded; all unless unreadable ones may be left out.
        notes: remarks for people about resizing and what was left out.
    """

    pixels: Pixels
    kept: NDArray[np.int64]
    notes: tuple[str, ...]


def decode_all(
    count: int, read: Callable[[int], bytes], label: Callable[[int], str], options: ReadOptions, where: str
) -> Decoded:
    """Decode images to one size, number of channels and depth: first all headers, then the pixels.

    Small PNG files that are all alike are decoded together, many times faster.

    Args:
        count: number of images.
        read: position -> encoded bytes.
        label: position -> name for messages.
        options: `image_size` is the side of the square to resize to, in pixels; None takes the most common size, shrunk
            until the longer side has at most `LONGEST_SIDE` pixels. `channels` and `skip_unreadable` as they say.
        where: the folder or file that holds them all, for messages.

    Raises:
        DataError: unreadable images, all in one message; images with and without colour or alpha; or more bytes than
            the limit `bytes`.
    """
    plain = _plain(count, read, options, where)
    if plain is not None:
        return plain
    unreadable: dict[int, Unreadable] = {}

    def attempt(function: Callable[[bytes, str], Any], i: int) -> Any:
        try:
            return function(read(i), label(i))
        except DataError as error:
            unreadable[i] = label(i), str(error)
            return None

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = {i: attempt(probe, i) for i in range(count)}
        pictures: dict[int, Picture] = {i: picture for i, picture in found.items() if picture is not None}
        if not pictures:
            raise DataError(told(list(unreadable.values()), count, where))
        channels = _common_channels(pictures, label, options)
        sizes = Counter((picture.height, picture.width) for picture in pictures.values())
        common = min(sizes, key=lambda size: (-sizes[size], size))
        target = (options.image_size, options.image_size) if options.image_size else fitted(*common)
        dtype = np.dtype(np.uint16 if any(picture.bits == 16 for picture in pictures.values()) else np.uint8)
        shape = (len(pictures), *target, channels)
        _check_room(shape, dtype, where)
        pixels: Pixels = np.empty(shape, dtype)
        kept: list[int] = []

        def in_form(content: bytes, name: str) -> Pixels:
            return resized(with_channels(decode(content, name)[None], channels, name), target)

        for i in pictures:
            image = attempt(in_form, i)
            if image is not None:
                pixels[len(kept)] = promoted([image, pixels[:0]])[0][0]
                kept.append(i)
    listed = [unreadable[i] for i in sorted(unreadable)]
    if listed and not (options.skip_unreadable and kept):
        raise DataError(told(listed, count, where, " with --skip-unreadable"))
    given = Counter((pictures[i].height, pictures[i].width) for i in kept)
    notes = [] if set(given) <= {target} else [_resizing(given, target)]
    notes += pages_note(sum(pictures[i].pages > 1 for i in kept))
    if listed:
        were = "was" if len(listed) == 1 else "were"
        notes.append(f"{counted(len(listed), 'unreadable image')} {were} left out: {with_reasons(listed, where)}")
    return Decoded(pixels[: len(kept)], np.array(kept, np.int64), tuple(notes))


def _plain(count: int, read: Callable[[int], bytes], options: ReadOptions, where: str) -> Decoded | None:
    """Images that are all small plain PNG files of one shape; None where any is not."""
    try:
        pixels = decode_alike(count, read)
    except DataError:  # collected with others
        pixels = None
    if pixels is None:
        return None
    height, width, channels = pixels.shape[1:]
    wanted = wanted_channels({channels}, options.channels) if options.channels else channels  # alpha stays
    target = (options.image_size, options.image_size) if options.image_size else fitted(height, width)
    _check_room((count, *target, wanted), pixels.dtype, where)
    notes = () if target == (height, width) else (_resizing({(height, width): count}, target),)
    return Decoded(resized(with_channels(pixels, wanted, where), target), np.arange(count), notes)


def pages_note(number: int) -> list[str]:
    """A note that so many images have several pages; empty for none."""
    have = "image has" if number == 1 else "images have"
    return [f"{number:,} {have} several pages or frames, of which the first was read"] if number else []


def told(unreadable: Sequence[Unreadable], count: int, where: str, leave_out: str = "") -> str:
    """One sentence about the images that cannot be read, of which the first `LISTED` are named.

    Args:
        unreadable: at least one.
        count: number of images, the readable ones included.
        where: the folder or file that holds them all.
        leave_out: how they are left out, such as " with --skip-unreadable"; "" where that cannot be asked for.
    """
    number = len(unreadable)
    if number == 1:
        return unreadable[0][1] + (f", or leave it out{leave_out}" if leave_out else "")
    advice = f", or leave them out{leave_out}" if leave_out else ""
    raised = [sentence[sentence.rindex(VARIABLE) :] for _, sentence in unreadable if f"set {VARIABLE}=" in sentence]
    if raised:
        highest = max(raised, key=lambda pair: int(re.sub(r"\D", "", pair.rpartition("=")[2]) or 0))
        advice += f", or if you trust them, set {highest}"
    return (
        f"{where}: readable images are expected, got {number:,} of {count:,} that are not: "
        f"{with_reasons(unreadable, where)}; replace or remove them{advice}"
    )


def with_reasons(unreadable: Sequence[Unreadable], where: str) -> str:
    """The first images with their reasons; those with one reason stand together."""
    by_reason: dict[str, list[str]] = {}
    for name, sentence in unreadable[:LISTED]:
        short = name.removeprefix(where).lstrip("/: ")
        fault = sentence.rpartition(f"{name}: ")[2].rpartition("; ")[0]
        fault = fault.removeprefix(f"a {IMAGES} image is expected, got ")
        by_reason.setdefault(fault, []).append(short)
    more = len(unreadable) - LISTED
    return ", ".join(f"{', '.join(names)} ({fault})" for fault, names in by_reason.items()) + (
        f", and {more:,} more" if more > 0 else ""
    )


def _resizing(sizes: Mapping[tuple[int, int], int], target: tuple[int, int]) -> str:
    """A note about resizing."""
    height, width = next(iter(sizes))
    was = f"{len(sizes)} different sizes" if len(sizes) > 1 else f"{height}x{width}"
    return f"images were resized from {was} to {target[0]}x{target[1]} pixels"


def _common_channels(pictures: Mapping[int, Picture], label: Callable[[int], str], options: ReadOptions) -> int:
    """The number of channels that all images have or get; without a wish, the first two that differ are named."""
    if options.channels is not None:
        return wanted_channels({picture.channels for picture in pictures.values()}, options.channels)
    first = next(iter(pictures))
    for i, picture in pictures.items():
        if picture.channels != pictures[first].channels:
            raise DataError(
                f"mixed channels: {label(first)} is {_KINDS[pictures[first].channels]}, {label(i)} is "
                f"{_KINDS[picture.channels]}; give --channels grey or --channels colour to convert all images"
            )
    return pictures[first].channels


def _check_room(shape: tuple[int, ...], dtype: np.dtype[Any], where: str) -> None:
    """Images of this shape and type must not be over the limit."""
    limits().check(
        "bytes",
        math.prod(shape) * dtype.itemsize,
        where,
        f"bytes of {shape[0]:,} images of {shape[1]}x{shape[2]} pixels",
        "choose a smaller image_size",
    )
