"""Networks on many images: logits and probabilities, a batch at a time."""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.data.dataset import Pixels
from committee.nn.forward import Forward, inference_batch_size
from committee.nn.images import as_float, concatenated, on_device


def member_probabilities(forward: Forward, pixels: Pixels, device: str, tta: str) -> NDArray[np.float32]:
    """One member's probabilities for images (image, height, width, channel): (image, class) float32.

    Args:
        forward: its network as `committee.nn.forward.inference_forward` gives it, on the device.
        pixels: not empty; may be memory-mapped, since a batch is fetched at a time.
        device: where it predicts.
        tta: test-time augmentation; with "horizontal_flip", the mean over the images and their mirror images.
    """

    def of_batch(batch: Pixels) -> Tensor:
        views = [batch, batch[:, :, ::-1]] if tta == "horizontal_flip" else [batch]
        logits = [forward(as_float(on_device(view.copy(), device))).cpu() for view in views]
        return torch.stack([each.softmax(1) for each in logits]).mean(0)

    size = inference_batch_size(device)
    batches = (pixels[start : start + size] for start in range(0, len(pixels), size))
    probabilities: NDArray[np.float32] = concatenated(map(of_batch, batches), len(pixels)).numpy()
    return probabilities


def predict_logits(forward: Forward, images: Tensor, positions: NDArray[np.int64]) -> Tensor:
    """Logits (position, class) float32 on the CPU, of images (image, height, width, channel) on the device."""
    batches = torch.split(torch.from_numpy(positions).to(images.device), inference_batch_size(images.device.type))
    return concatenated((forward(as_float(images[chosen])) for chosen in batches), len(positions))
