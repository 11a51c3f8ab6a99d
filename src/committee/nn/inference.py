"""Inference on many images, a batch at a time: logits and probabilities."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.data.dataset import Pixels
from committee.nn.forward import Forward, inference_batch_size
from committee.nn.images import as_float, concatenated, on_device, taken


def member_probabilities(forward: Forward, pixels: Pixels, device: str, tta: str) -> NDArray[np.float32]:
    """One member's predicted probabilities.

    Args:
        forward: the member's network, from `committee.nn.forward.inference_forward`; or all networks, from
            `committee.nn.together.forward_together`.
        pixels: (image, height, width, channel), not empty; may be memory-mapped, since it is read a batch at a time.
        device: where the network is.
        tta: test-time augmentation: "none", or "horizontal_flip" for the mean over an image and its mirror image.

    Returns:
        (image, class) float32, or (image, member, class); each row sums to 1.
    """

    def of_batch(batch: Pixels) -> Tensor:
        views = [batch, batch[:, :, ::-1]] if tta == "horizontal_flip" else [batch]
        logits = [forward(as_float(on_device(view.copy(), device))).cpu() for view in views]
        return torch.stack([each.softmax(-1) for each in logits]).mean(0)

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
