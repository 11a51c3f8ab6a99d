"""A network's forward pass as training and inference run it: on the compiled kernels where this machine has them.

`training_forward` gives a function that computes what the network computes, with the network's own parameters and
statistics; `training_gradients` one that computes its gradients. In float32, and off the CPU, it is the network itself
that computes. In bfloat16 on a CPU with the kernels, its modules become kernel layers (`committee.nn.kernel_layers`).
Those that follow each other form a chain, one function for autograd, whose values stay (image, height, width, channel)
throughout; every other module stays torch's, under autocast, or in float32 on a CPU whose torch is slow in bfloat16
(`devices.takes_bfloat16`).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from committee import kernels
from committee.nn.devices import takes_bfloat16
from committee.nn.kernel_layers import (
    ConvolutionLayer,
    KernelLayer,
    PooledConvolutionLayer,
    Saved,
    channels_first,
    match_layers,
    padded,
    pixels_last,
)

Forward = Callable[[Tensor], Tensor]
Loss = Callable[[Tensor], Tensor]  # logits (image, class) float32 -> their mean loss
Gradients = Callable[[Tensor, Loss], tuple[Tensor, Tensor]]
FIRST_LAYERS = (ConvolutionLayer, PooledConvolutionLayer)  # of a chain
INFERENCE_BATCH_SIZE = 64  # images at once on a CPU


def training_forward(network: nn.Module, device: str, precision: str) -> Forward:
    """The network as a differentiable function.

    Args:
        network: as `committee.nn.architectures.build` gives it, channels last.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" or "float32".

    Returns:
        (image, channel, height, width) float32 raw pixels -> (image, class) logits, bfloat16 or float32. Dropout and
        batch normalisation follow the network's own mode, training or evaluation.
    """
    return in_sequence(steps_of(network, device, precision), device, precision)


def training_gradients(network: nn.Module, device: str, precision: str) -> Gradients:
    """The gradients of a batch's loss as a function that writes them to the parameters' `grad`.

    The arguments are `training_forward`'s. Where the whole network is a chain, nothing but the loss goes through
    autograd: gradients are neither set to 0 nor added up.

    Returns:
        (image, channel, height, width) float32 raw pixels and the loss as a function of the logits -> the loss, and the
        logits (image, class) float32.
    """
    steps = steps_of(network, device, precision)
    if len(steps) == 1 and isinstance(steps[0], Chain):
        return steps[0].gradients
    forward = in_sequence(steps, device, precision)

    def by_autograd(pixels: Tensor, loss_of: Loss) -> tuple[Tensor, Tensor]:
        network.zero_grad(set_to_none=False)
        logits = forward(pixels).float()
        loss = loss_of(logits)
        loss.backward()  # type: ignore[no-untyped-call]
        return loss.detach(), logits.detach()

    return by_autograd


def inference_forward(network: nn.Module, device: str, precision: str) -> Forward:
    """The network, put into evaluation mode, as a function without gradients; the arguments are `training_forward`'s.

    An image's logits do not depend on the other images of the batch, not even in the last bit. A chain treats each
    image by itself; torch's modules get a batch padded with copies of its last image.

    Returns:
        (image, channel, height, width) float32 raw pixels -> (image, class) float32 logits, of at most
        `inference_batch_size` images at once.
    """
    return inference_of(steps_of(network.eval(), device, precision), device, precision)


def inference_of(steps: Sequence[Forward], device: str, precision: str) -> Forward:
    """`inference_forward` of the steps of a network in evaluation mode."""
    size = inference_batch_size(device)
    forward = in_sequence(steps, device, precision)
    needs_padding = not all(isinstance(step, Chain) for step in steps)

    @torch.no_grad()
    def infer(pixels: Tensor) -> Tensor:
        return forward(padded(pixels, size) if needs_padding else pixels)[: len(pixels)].float()

    return infer


def inference_batch_size(device: str) -> int:
    """How many images `inference_forward`'s function takes at once on a device."""
    return INFERENCE_BATCH_SIZE if device == "cpu" else 512


def in_sequence(steps: Sequence[Forward], device: str, precision: str) -> Forward:
    """The steps one after the other as one function; torch's own modules run under autocast, or in float32."""
    in_bfloat16 = takes_bfloat16(device, precision)

    def run(x: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=in_bfloat16):
            for step in steps:
                x = step(x if in_bfloat16 or isinstance(step, Chain) else x.float())
        return x

    return run


def steps_of(network: nn.Module, device: str, precision: str) -> list[Forward]:
    """The network as chains and single modules, or as it is where the kernels cannot be used.

    A chain begins with a convolution, after which values are bfloat16.
    """
    with_kernels = device == "cpu" and precision == "bfloat16" and kernels.available()
    if not with_kernels or not isinstance(network, nn.Sequential):
        return [network]
    modules, steps = list(network), list[Forward]()
    while modules:
        chained: list[KernelLayer] = []
        while modules and (found := match_layers(modules)) and (chained or isinstance(found[0], FIRST_LAYERS)):
            chained.append(found[0])
            modules = modules[found[1] :]
        steps.append(Chain(chained) if chained else modules.pop(0))
    return steps


class Chain:
    """Kernel layers one after the other: (image, channel, height, width) -> the same or (image, value), bfloat16."""

    def __init__(self, layers: Sequence[KernelLayer]) -> None:
        self.layers = layers
        self.parameters = [parameter for layer in layers for parameter in layer.parameters]

    def __call__(self, x: Tensor) -> Tensor:
        """Run all of them, in the precision of the kernels."""
        with torch.autocast("cpu", enabled=False):
            if torch.is_grad_enabled():
                return _Chain.apply(self, x, *self.parameters)  # type: ignore[no-any-return, no-untyped-call]
            x = pixels_last(x)
            for layer in self.layers:
                x = layer.infer(x)
            return channels_first(x)

    def forward(self, x: Tensor) -> tuple[Tensor, list[Saved]]:
        """Channels last: the result, and what each layer has saved for `backward`."""
        saved: list[Saved] = []
        for layer in self.layers:
            x, of_layer = layer.forward(x)
            saved.append(of_layer)
        return x, saved

    def backward(self, saved: list[Saved], dy: Tensor, *, needs_dx: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of x, where needed, and of the parameters; empties the list of what was saved."""
        gradients: list[Tensor | None] = []
        gradient: Tensor | None = dy
        for number in reversed(range(len(self.layers))):
            assert gradient is not None
            needed = number > 0 or needs_dx
            gradient, own = self.layers[number].backward(saved.pop(), gradient, needs_dx=needed)
            gradients = [*own, *gradients]
        return gradient, gradients

    @torch.no_grad()
    def gradients(self, pixels: Tensor, loss_of: Loss) -> tuple[Tensor, Tensor]:
        """As `training_gradients`."""
        with torch.autocast("cpu", enabled=False):
            y, saved = self.forward(pixels_last(pixels))
            logits = y.float().requires_grad_()
            with torch.enable_grad():
                loss = loss_of(logits)
            (dy,) = torch.autograd.grad(loss, logits)
            _, gradients = self.backward(saved, dy.bfloat16(), needs_dx=False)
            for parameter, gradient in zip(self.parameters, gradients, strict=True):
                assert gradient is not None
                if parameter.grad is None:
                    parameter.grad = torch.empty_like(parameter)
                parameter.grad.copy_(gradient)
        return loss.detach(), logits.detach()


class _Chain(Function):
    @staticmethod
    def forward(ctx: Any, chain: Chain, x: Tensor, *parameters: Tensor) -> Tensor:
        ctx.chain = chain
        y, ctx.saved = chain.forward(pixels_last(x))
        return channels_first(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        dx, gradients = ctx.chain.backward(ctx.saved, pixels_last(dy), needs_dx=ctx.needs_input_grad[1])
        return None, None if dx is None else channels_first(dx), *gradients
