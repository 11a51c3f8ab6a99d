"""Inference on many images, a batch at a time: logits and probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.data.dataset import Pixels
from committee.nn.forward import Forward, inference_batch_size
from committee.nn.images import as_float, concatenated, on_device, taken
from committee.nn.views import Views, seen


def member_probabilities(forward: Forward, pixels: Pixels, device: str, views: Views) -> NDArray[np.float32]:
    """One member's predicted probabilities.

    Args:
        forward: the member's network, from `committee.nn.forward.inference_forward`; or all networks, from
            `committee.nn.together.forward_together`.
        pixels: (image, height, width, channel), not empty; may be memory-mapped, since it is read a batch at a time.
        device: where the network is.
        views: test-time augmentation: which further views count, and where.

    Returns:
        (image, class) float32, or (image, member, class); each row sums to 1.
    """

    def of_batch(batch: Pixels) -> Tensor:
        images = on_device(batch.copy(), device)
        own = forward(as_float(images)).cpu().softmax(-1)
        if not views.further:
            return own
        unsure = views.weight(own).flatten(1).amax(1) > 0
        if not unsure.any():
            return own
        of_unsure = images[unsure.to(images.device)]
        others = [forward(as_float(seen(of_unsure, view))).cpu().softmax(-1) for view in views.further]
        own[unsure] = views.blend(own[unsure], others)
        return own

    size = inference_batch_size(device)
    batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
    probabilities: NDArray[np.float32] = concatenated(map(of_batch, batches), len(pixels)).numpy()
    return probabilities


def predict_logits(forward: Forward, images: Tensor, positions: NDArray[np.int64]) -> Tensor:
    """The logits of some images.

    Args:
        forward: a network, from `committee.nn.forward.inference_forward`.
        images: (image, height, width, channel), on the network's device.
        positions: (position,), which of them.

    Returns:
        (position, class) float32, on the CPU.
    """
    batches = torch.split(torch.from_numpy(positions).to(images.device), inference_batch_size(images.device.type))
    return concatenated((forward(as_float(taken(images, chosen))) for chosen in batches), len(positions))
