"""Image arrays on their way into a network and predictions on their way out."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor

from committee.data.dataset import Pixels


def on_device(pixels: Pixels, device: str) -> Tensor:
    """The images as a tensor (image, height, width, channel): shared memory on the CPU, a copy elsewhere."""
    if pixels.dtype == np.uint16:  # torch cannot index unsigned 16 bits: the same bits as signed, see `as_float`
        pixels = pixels.view(np.int16)  # type: ignore[assignment]
    return torch.from_numpy(pixels).to(device)


def as_float(pixels: Tensor) -> Tensor:
    """Images (image, height, width, channel) -> float32 (image, channel, height, width), channels last."""
    if pixels.dtype == torch.int16:
        pixels = pixels.to(torch.int32) & 0xFFFF
    return pixels.to(torch.float32).permute(0, 3, 1, 2)


def concatenated(parts: Iterable[Tensor], rows: int) -> Tensor:
    """Tensors one after the other in one of so many rows, which is allocated before they are computed.

    Small results kept between large temporary ones would fragment the process's memory: a hundred megabytes over a
    thousand batches.
    """
    whole, filled = torch.empty(0), 0
    for part in parts:
        whole = torch.empty(rows, *part.shape[1:]) if not filled else whole
        whole[filled : filled + len(part)] = part
        filled += len(part)
    return whole
