"""A network's forward pass as training and prediction run it: with the C kernels where this machine has them.

`forward_of` gives a function that computes what the network computes, with the network's own parameters and statistics.
In float32, and off the CPU, that is the network itself. In bfloat16 on a CPU with the kernels, groups of layers run as
one step each, forward and backward: scaling and the first convolution; convolution, bias and relu; normalisation and
relu; pooling. Every other layer stays torch's, under autocast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from committee import kernels
from committee.models.architectures import KeyedDropout, Scaling, StemConv

Step = Callable[[Tensor], Tensor]


def forward_of(network: nn.Module, device: str, precision: str) -> Step:
    """The network as a function: (image, channel, height, width) float32 raw pixels -> (image, class) logits.

    Args:
        network: as `committee.models.architectures.build` gives it, channels last.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" or "float32".
    """

    def plain(pixels: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            return network(pixels)  # type: ignore[no-any-return]

    if device != "cpu" or precision != "bfloat16" or not kernels.available() or not isinstance(network, nn.Sequential):
        return plain
    steps = steps_of(network)

    def fused(pixels: Tensor) -> Tensor:
        with torch.autocast(device, dtype=torch.bfloat16):
            for step in steps:
                pixels = step(pixels)
        return pixels

    return fused


def steps_of(network: nn.Sequential) -> list[Step]:
    """The network's layers in groups that the kernels can run, the others one by one."""
    layers, steps = list(network), []
    while layers:
        step, taken = first_step(layers)
        steps.append(step)
        layers = layers[taken:]
    return steps


def first_step(layers: list[nn.Module]) -> tuple[Step, int]:
    """The step that begins with the first layer, and how many layers it takes."""
    first, *rest = layers
    if isinstance(first, Scaling) and rest and isinstance(stem := rest[0], StemConv) and fits(stem):
        step = Convolution(stem, first, *norm_and_relu(rest[1:]))
        return step, 2 + step.layers_after
    if isinstance(first, nn.Conv2d) and not isinstance(first, StemConv) and fits(first):
        step = Convolution(first, None, *norm_and_relu(rest))
        return step, 1 + step.layers_after
    if isinstance(first, nn.BatchNorm2d) and first.num_features % 16 == 0:
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        return (lambda x: run_norm(x, first, relu)), 1 + relu
    if isinstance(first, nn.MaxPool2d):
        return (lambda x: run_pool(x, first)), 1
    if isinstance(first, KeyedDropout):
        return (lambda x: run_dropout(x, first)), 1
    return first, 1


def norm_and_relu(layers: list[nn.Module]) -> tuple[nn.BatchNorm2d | None, bool]:
    """Whether normalisation and relu come first, in this order."""
    norm = layers[0] if layers and isinstance(layers[0], nn.BatchNorm2d) else None
    after = layers[1:] if norm else layers
    return norm, bool(after) and isinstance(after[0], nn.ReLU)


class Convolution:
    """A convolution (the first one with the pixels' scaling), then normalisation and relu where there are any.

    While nothing is trained, normalisation is folded into the weights, which are prepared once.
    """

    def __init__(self, conv: nn.Conv2d, scaling: Scaling | None, norm: nn.BatchNorm2d | None, relu: bool) -> None:
        self.conv, self.scaling, self.norm, self.relu = conv, scaling, norm, relu
        self.layers_after = (norm is not None) + relu
        self.prepared: tuple[tuple[int, ...], Tensor, Tensor | None] | None = None

    def __call__(self, x: Tensor) -> Tensor:
        """(image, channel, height, width) -> (image, filter, height', width') bfloat16, both channels last."""
        conv, norm, relu = self.conv, self.norm, self.relu
        if not torch.is_grad_enabled() and not (norm and norm.training):
            return self.judged(x)
        relu_here = relu and norm is None
        if self.scaling is not None:
            constants = float(self.scaling.offset), float(self.scaling.scale)
            x = _run(_Stem, x, conv.weight, conv.bias, *constants, conv.padding[0], relu_here)
        else:
            x = _run(_Conv, x.to(torch.bfloat16), conv.weight, conv.bias, conv.padding[0], relu_here)
        return run_norm(x, norm, relu) if norm else x

    def judged(self, x: Tensor) -> Tensor:
        """The same where nothing is trained."""
        conv, padding = self.conv, int(self.conv.padding[0])
        tensors = [*conv.parameters(), *(self.norm.state_dict().values() if self.norm else ())]
        versions = tuple(number for tensor in tensors for number in (tensor._version, tensor.data_ptr()))
        if self.prepared is None or self.prepared[0] != versions:
            weight, bias = folded(conv, self.norm)
            if self.scaling is not None:
                self.prepared = versions, weight.permute(2, 3, 1, 0).contiguous(), bias
            else:
                self.prepared = versions, kernels.pack(pixels_last(weight))[0], bias
        _, weight, bias = self.prepared
        if self.scaling is not None:
            offset, scale = float(self.scaling.offset), float(self.scaling.scale)
            y = kernels.stem(pixels_last(x), offset, scale, weight, bias, padding, relu=self.relu)
        else:
            x = pixels_last(x.to(torch.bfloat16))
            y = kernels.conv(x, weight, bias, conv.out_channels, conv.kernel_size[0], padding, relu=self.relu)
        return channels_first(y)


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weights and bias of a convolution that does the work of the normalisation after it, by its running statistics."""
    if norm is None:
        return conv.weight, conv.bias
    factor, shift = running_line(norm)
    bias = shift if conv.bias is None else shift + conv.bias * factor
    return conv.weight * factor[:, None, None, None], bias


def running_line(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel by which a normalisation judges."""
    assert norm.running_mean is not None
    assert norm.running_var is not None
    factor = norm.weight / torch.sqrt(norm.running_var + norm.eps)
    return factor, norm.bias - norm.running_mean * factor


def fits(conv: nn.Conv2d) -> bool:
    """Whether the kernels can compute this convolution and its gradients."""
    square = conv.kernel_size[0] == conv.kernel_size[1] and conv.kernel_size[0] in kernels.SIZES
    if isinstance(conv, StemConv):
        return square and conv.in_channels in kernels.STEM_CHANNELS and conv.out_channels % 16 == 0
    return square and conv.in_channels in kernels.CHANNELS and conv.out_channels in kernels.CHANNELS


def pixels_last(x: Tensor) -> Tensor:
    """(image, channel, height, width) -> (image, height, width, channel), contiguous; no copy if channels last."""
    return x.permute(0, 2, 3, 1).contiguous()


def channels_first(x: Tensor) -> Tensor:
    """The way back; channels last in memory."""
    return x.permute(0, 3, 1, 2)


def run_norm(x: Tensor, norm: nn.BatchNorm2d, relu: bool) -> Tensor:
    """Batch normalisation as `nn.BatchNorm2d` does it, its running statistics included, and relu."""
    if x.dtype != torch.bfloat16:
        x = norm(x)
        return x.relu() if relu else x
    if not norm.training:
        return channels_first(kernels.scale(pixels_last(x), *running_line(norm), relu=relu))
    mean, variance = norm.running_mean, norm.running_var
    assert norm.num_batches_tracked is not None
    norm.num_batches_tracked += 1
    share = norm.momentum if norm.momentum is not None else 1 / float(norm.num_batches_tracked)
    return _run(_Norm, x, norm.weight, norm.bias, mean, variance, norm.eps, share, relu)


def run_pool(x: Tensor, pool: nn.MaxPool2d) -> Tensor:
    """Max pooling."""
    size = pool.kernel_size
    down, across = size if isinstance(size, tuple) else (size, size)
    if x.dtype != torch.bfloat16 or x.shape[1] % 16:
        return pool(x)  # type: ignore[no-any-return]
    return _run(_Pool, x, down, across)


def run_dropout(x: Tensor, dropout: KeyedDropout) -> Tensor:
    """Dropout; one key a batch comes from the layer's generator."""
    if not dropout.training or dropout.rate == 0 or dropout.generator is None or x.dtype != torch.bfloat16:
        return dropout(x)  # type: ignore[no-any-return]
    key = int(torch.empty(1, dtype=torch.int64).random_(-(2**63), None, generator=dropout.generator))
    return _run(_Dropout, x, dropout.rate, key)


def _run(function: type[Function], *arguments: Any) -> Tensor:
    result: Tensor = function.apply(*arguments)  # type: ignore[no-untyped-call]
    return result


class _Stem(Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, offset: float, scale: float, padding: int, relu: bool
    ) -> Tensor:
        pixels = pixels_last(x)
        y = kernels.stem(pixels, offset, scale, weight.permute(2, 3, 1, 0).contiguous(), bias, padding, relu=relu)
        ctx.save_for_backward(pixels, y if relu else None)
        ctx.facts = (offset, scale, weight.shape[2], padding, bias is not None)
        return channels_first(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        pixels, mask = ctx.saved_tensors
        offset, scale, kernel, padding, bias = ctx.facts
        weight, bias_sums = kernels.stem_gradient(
            pixels, offset, scale, pixels_last(dy), kernel, padding, mask=mask, bias=bias
        )
        return None, channels_first(weight), bias_sums, None, None, None, None


class _Conv(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, padding: int, relu: bool) -> Tensor:
        x, kernel = pixels_last(x), weight.shape[2]
        ahead, back = kernels.pack(pixels_last(weight))
        y = kernels.conv(x, ahead, bias, len(weight), kernel, padding, relu=relu)
        ctx.save_for_backward(x, back, y if relu else None)
        ctx.facts = (kernel, padding, bias is not None)
        return channels_first(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, back, mask = ctx.saved_tensors
        kernel, padding, bias = ctx.facts
        dy, dx = pixels_last(dy), None
        weight, bias_sums = kernels.conv_gradient(x, dy, kernel, padding, mask=mask, bias=bias)
        if ctx.needs_input_grad[0]:
            dx = channels_first(kernels.conv(dy, back, None, x.shape[3], kernel, kernel - 1 - padding, mask=mask))
        return dx, channels_first(weight), bias_sums, None, None


class _Norm(Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor,
        bias: Tensor,
        mean: Tensor,
        variance: Tensor,
        epsilon: float,
        share: float,
        relu: bool,
    ) -> Tensor:
        x = pixels_last(x)
        z, statistics = kernels.norm(x, weight, bias, epsilon, share, mean, variance, relu=relu)
        ctx.save_for_backward(x, statistics)
        ctx.facts = (epsilon, relu)
        return channels_first(z)

    @staticmethod
    def backward(ctx: Any, dz: Tensor) -> Any:
        x, statistics = ctx.saved_tensors
        epsilon, relu = ctx.facts
        dx, weight, bias = kernels.norm_gradient(x, pixels_last(dz), statistics, epsilon, relu=relu)
        return channels_first(dx), weight, bias, None, None, None, None, None


class _Pool(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, down: int, across: int) -> Tensor:
        x = pixels_last(x)
        y = kernels.pool(x, down, across)
        ctx.save_for_backward(x, y)
        ctx.window = (down, across)
        return channels_first(y)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        x, y = ctx.saved_tensors
        return channels_first(kernels.pool_gradient(x, y, pixels_last(dy), *ctx.window)), None, None


class _Dropout(Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, rate: float, key: int) -> Tensor:
        y, bits = kernels.dropout(pixels_last(x) if x.ndim == 4 else x.contiguous(), rate, key)
        ctx.save_for_backward(bits)
        ctx.rate = rate
        return channels_first(y) if x.ndim == 4 else y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> Any:
        (bits,) = ctx.saved_tensors
        dx = kernels.dropout_gradient(pixels_last(dy) if dy.ndim == 4 else dy.contiguous(), bits, ctx.rate)
        return channels_first(dx) if dy.ndim == 4 else dx, None, None
