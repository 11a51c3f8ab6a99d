"""Few images through several networks at once on a CPU: each network's kernels recorded, then run without Python.

With one image, Python takes longer than the kernels, and its threads wait for each other. `forward_together` records
what `inference_forward` would call for one image, so that its bits are the same.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor, nn

from committee.kernels.programs import Programs, record
from committee.nn import devices
from committee.nn.forward import Chain, Forward
from committee.nn.kernel_layers import CachedWeights


def forward_together(
    networks: Sequence[nn.Module], steps: Sequence[Sequence[Forward]], shape: tuple[int, int, int]
) -> Forward | None:
    """Networks on the CPU as one function, an image at a time, the networks side by side on all cores.

    Args:
        networks: alike but for their weights, which may change later; in evaluation mode.
        steps: of each network, from `committee.nn.forward.steps_of`.
        shape: (height, width, channel) of an image.

    Returns:
        (image, channel, height, width) float32 raw pixels -> (image, network, class) float32 logits, bit for bit those
        of `inference_forward`; None where torch computes a part of the networks.
    """
    chains = [each[0] for each in steps if len(each) == 1 and isinstance(each[0], Chain)]
    if len(chains) < len(networks):
        return None
    together = Together(networks, chains, shape)
    pixels = torch.rand(1, *shape, generator=torch.Generator().manual_seed(0)).permute(0, 3, 1, 2)
    with torch.no_grad():
        alone = torch.stack([chain(pixels).float() for chain in chains], 1)
    return together if torch.equal(together(pixels), alone) else None


class Together:
    """The function of `forward_together`, which records again after weights have changed."""

    def __init__(self, networks: Sequence[nn.Module], chains: Sequence[Chain], shape: tuple[int, int, int]) -> None:
        self.chains, self.image, self.lock = chains, torch.zeros(1, *shape), threading.Lock()
        self.recorded = CachedWeights([t for network in networks for t in (*network.parameters(), *network.buffers())])

    def __call__(self, pixels: Tensor) -> Tensor:
        """Callers in several threads wait for each other: an image needs all cores."""
        logits = []
        with self.lock:
            programs, results = self.recorded(self.record)
            for image in pixels.permute(0, 2, 3, 1):
                self.image.copy_(image)
                programs.run(devices.cores())
                logits.append(torch.cat(results).float())
        return torch.stack(logits)

    @torch.no_grad()
    def record(self) -> tuple[Programs, list[Tensor]]:
        """Each network's program, and where it writes its logits (1, class)."""
        pixels = self.image.permute(0, 3, 1, 2)
        for chain in self.chains:
            chain(pixels)  # prepares its weights, which is not to be recorded
        recorded = [record(partial(chain, pixels)) for chain in self.chains]
        return Programs([calls for calls, _ in recorded]), [result for _, result in recorded]
