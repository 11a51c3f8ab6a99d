"""Image arrays to tensors and back: pixels on the device, as float32, and results collected in one tensor."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from committee.data.dataset import Pixels
from committee.data.shards import reader_at
from committee.pages import looked_at, room


def on_device(pixels: Pixels, device: str) -> Tensor:
    """Images (image, height, width, channel) as a tensor of the same shape.

    On the CPU the tensor shares the array's memory. uint16 becomes int16 with the same bits, since torch cannot index
    uint16; `as_float` undoes that.
    """
    if pixels.dtype == np.uint16:
        pixels = pixels.view(np.int16)  # type: ignore[assignment]
    return torch.from_numpy(pixels).to(device)


def taken(images: Tensor, chosen: Tensor) -> Tensor:
    """images[chosen], whether they are in memory or in mapped shards, of which single images are read.

    Args:
        images: (image, height, width, channel), from `on_device`.
        chosen: (position,), on the same device.
    """
    reader = reader_at(images.data_ptr()) if images.device.type == "cpu" else None
    if reader is None:
        return images[chosen]
    result = torch.empty((len(chosen), *images.shape[1:]), dtype=images.dtype)
    reader.read(chosen.tolist(), result.numpy().view(np.uint8).reshape(len(chosen), -1))
    return result


def as_float(pixels: Tensor) -> Tensor:
    """Images (image, height, width, channel) from `on_device` -> float32 (image, channel, height, width), channels
    last in memory; pixel values stay as they are.
    """
    looked_at(len(pixels))
    if pixels.dtype == torch.int16:
        pixels = pixels.to(torch.int32) & 0xFFFF
    return pixels.to(torch.float32).permute(0, 3, 1, 2)


def concatenated(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Like `torch.cat` along the first axis, but the result is allocated before all parts but the first are computed.

    Small results kept between large temporary tensors would fragment the process's memory: by a hundred megabytes in a
    thousand batches.

    Args:
        parts: float32 tensors on the CPU, alike but for their length; computed as they are asked for.
        rows: the sum of their lengths.
    """
    result, filled = torch.empty(0), 0
    for part in parts:
        result = torch.from_numpy(room((rows, *part.shape[1:]), np.float32)) if not filled else result
        result[filled : filled + len(part)] = part
        filled += len(part)
    return result
