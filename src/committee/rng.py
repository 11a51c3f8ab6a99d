"""The only source of randomness: a key (root seed, then what the draw is for) becomes a generator.

No draw in the program comes from a global generator or from a worker's own state, so the same key gives the same
numbers wherever a job runs: `generator(seed, "member", 3, "order", 7)` is the order of images in epoch 7 of member 3.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def derive(*key: int | str) -> int:
    """A number in [0, 2**63) that depends on every part of the key; the first bits of a SHA-256 of its spelling."""
    spelling = "/".join(f"{type(part).__name__}:{part}" for part in key)
    return int.from_bytes(hashlib.sha256(spelling.encode()).digest()[:8], "big") >> 1


def numpy_generator(*key: int | str) -> np.random.Generator:
    """A numpy generator for one purpose."""
    return np.random.default_rng(derive(*key))


def torch_generator(*key: int | str, device: str = "cpu") -> torch.Generator:
    """A torch generator for one purpose, on the device that will draw from it."""
    import torch

    return torch.Generator(device=device).manual_seed(derive(*key))
