"""A network's forward pass as training and prediction run it: with the C kernels where this machine has them.

`training_forward` gives a function that computes what the network computes, with the network's own parameters and
statistics. In float32, and off the CPU, that is the network itself. In bfloat16 on a CPU with the kernels, layers
become pieces (`committee.nn.kernel_layers`). Pieces that follow each other are a chain, one function for autograd,
whose values stay (image, height, width, channel) throughout; every other layer stays torch's, under autocast.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from committee import kernels
from committee.nn.kernel_layers import (
    Convolution,
    KernelLayer,
    channels_first,
    filled,
    match_layers,
    pixels_last,
)

Forward = Callable[[Tensor], Tensor]
INFERENCE_BATCH_SIZE = 64  # images, on a CPU


def training_forward(network: nn.Module, device: str, precision: str) -> Forward:
    """The network as a function: (image, channel, height, width) float32 raw pixels -> (image, class) logits.

    Args:
        network: as `committee.nn.architectures.build` gives it, channels last.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" or "float32".
    """
    return in_turn(steps_of(network, device, precision), device, precision)


def inference_forward(network: nn.Module, device: str, precision: str) -> Forward:
    """The network, put into evaluation mode, as a function like `training_forward`'s, of at most
    `inference_batch_size` images.

    An image's logits do not depend on the images judged with it, not in the last bit. A chain treats each image by
    itself, and fills up the rows of its matrix products; torch's layers get a batch that is filled up by repeating its
    last image.
    """
    steps, size = steps_of(network.eval(), device, precision), inference_batch_size(device)
    forward, whole = in_turn(steps, device, precision), not all(isinstance(step, Chain) for step in steps)

    @torch.no_grad()
    def judge(pixels: Tensor) -> Tensor:
        return forward(filled(pixels, size) if whole else pixels)[: len(pixels)].float()

    return judge


def inference_batch_size(device: str) -> int:
    """Images in a batch that is judged."""
    return INFERENCE_BATCH_SIZE if device == "cpu" else 512


def in_turn(steps: Sequence[Forward], device: str, precision: str) -> Forward:
    """The steps one after the other, torch's own layers in the precision."""

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            for step in steps:
                x = step(x)
        return x

    return run


def steps_of(network: nn.Module, device: str, precision: str) -> list[Forward]:
    """The network as chains and single layers, or as it is where the C kernels cannot take part.

    A chain begins with a convolution: what follows is bfloat16.
    """
    with_kernels = device == "cpu" and precision == "bfloat16" and kernels.available()
    if not with_kernels or not isinstance(network, nn.Sequential):
        return [network]
    layers, steps = list(network), list[Forward]()
    while layers:
        pieces: list[KernelLayer] = []
        while layers and (found := match_layers(layers)) and (pieces or isinstance(found[0], Convolution)):
            pieces.append(found[0])
            layers = layers[found[1] :]
        steps.append(Chain(pieces) if pieces else layers.pop(0))
    return steps


class Chain:
    """Pieces one after the other: (image, channel, height, width) -> the same or (image, value), bfloat16."""

    def __init__(self, pieces: Sequence[KernelLayer]) -> None:
        self.pieces = pieces
        self.parameters = [parameter for piece in pieces for parameter in piece.parameters]

    def __call__(self, x: Tensor) -> Tensor:
        """Run all of it; the pieces say themselves what their products are made of."""
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():
                return _Chain.apply(self.pieces, x, *self.parameters)  # type: ignore[no-any-return, no-untyped-call]
            x = pixels_last(x)
            for piece in self.pieces:
                x = piece.infer(x)
            return channels_first(x)


class _Chain(Function):
    @staticmethod
    def forward(ctx: Any, pieces: Sequence[KernelLayer], x: Tensor, *parameters: Tensor) -> Tensor:
        x, ctx.kept = pixels_last(x), []
        for piece in pieces:
            x, saved = piece.forward(x)
            ctx.kept.append((piece, saved))
        return channels_first(x)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        gradients: list[Tensor | None] = []
        slope: Tensor | None = pixels_last(dy)
        while ctx.kept:
            piece, saved = ctx.kept.pop()
            assert slope is not None
            slope, own = piece.backward(saved, slope, wanted=bool(ctx.kept) or ctx.needs_input_grad[1])
            gradients = [*own, *gradients]
        return None, None if slope is None else channels_first(slope), *gradients
