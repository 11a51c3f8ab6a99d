"""The pieces of a network that the C kernels compute: one or a few layers each, forward, backward, and for judging.

Scaling and the first convolution; convolution, normalisation and relu; pooling; dropout; dense and relu. Values are
bfloat16, (image, height, width, channel) or (image, value). `match_layers` says with which one a list of layers begins.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from committee import kernels
from committee.nn.architectures import FlattenPixels, KeyedDropout, Scaling, StemConv

ROWS = 16  # of a matrix product that judges, or a multiple: a product of fewer may split its sums in another way
Saved = tuple[Any, ...]  # what a piece keeps from the way forward for the way back


class KernelLayer(Protocol):
    """One or a few layers, forward and backward."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """In the order of `back`'s gradients."""

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """The result, in training, and what `back` needs."""

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of x, where wanted, and of the parameters, from that of the result."""

    def infer(self, x: Tensor) -> Tensor:
        """The result where no gradient is wanted."""


def match_layers(layers: list[nn.Module]) -> tuple[KernelLayer, int] | None:
    """The piece that begins with the first layer, and how many layers it takes; None where the kernels have none."""
    first, *rest = layers
    if isinstance(first, Scaling) and rest and isinstance(stem := rest[0], StemConv) and fits(stem):
        norm, relu = norm_and_relu(rest[1:])
        return Convolution(stem, first, norm, relu), 2 + (norm is not None) + relu
    if isinstance(first, nn.Conv2d) and not isinstance(first, StemConv) and fits(first):
        norm, relu = norm_and_relu(rest)
        return Convolution(first, None, norm, relu), 1 + (norm is not None) + relu
    if isinstance(first, nn.BatchNorm2d) and first.num_features % 16 == 0:
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        return Normalisation(first, relu), 1 + relu
    if isinstance(first, nn.MaxPool2d):
        return Pooling(first), 1
    if isinstance(first, nn.AdaptiveMaxPool2d) and rest and isinstance(rest[0], nn.Flatten):
        return GlobalPooling(), 2
    if isinstance(first, KeyedDropout):
        return Dropping(first), 1
    if isinstance(first, FlattenPixels):
        return Flattening(), 1
    if isinstance(first, nn.Linear):
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        return Dense(first, relu), 1 + relu
    return None


def norm_and_relu(layers: list[nn.Module]) -> tuple[nn.BatchNorm2d | None, bool]:
    """Whether normalisation and relu come first, in this order."""
    norm = layers[0] if layers and isinstance(layers[0], nn.BatchNorm2d) else None
    after = layers[1:] if norm else layers
    return norm, bool(after) and isinstance(after[0], nn.ReLU)


class Convolution:
    """A convolution (the first one with the pixels' scaling), then normalisation and relu where there are any.

    While nothing is trained, normalisation is folded into the weights, which are cached once.
    """

    def __init__(self, conv: nn.Conv2d, scaling: Scaling | None, norm: nn.BatchNorm2d | None, relu: bool) -> None:
        self.conv, self.scaling = conv, scaling
        self.norm = Normalisation(norm, relu) if norm else None
        self.relu, self.relu_here = relu, relu and norm is None
        self.parameters = [*conv.parameters(), *(self.norm.parameters if self.norm else ())]
        self.size, self.padding = int(conv.kernel_size[0]), int(conv.padding[0])
        self.cached = CachedWeights([*conv.parameters(), *([*norm.parameters(), *norm.buffers()] if norm else ())])

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, height', width', filter)."""
        weight, bias, packed = self.conv.weight, self.conv.bias, None
        if self.scaling is not None:
            offset, scale = self.constants()
            y = kernels.stem(x, offset, scale, taps_first(weight), bias, self.padding, relu=self.relu_here)
        else:
            x = x.to(torch.bfloat16)
            forward, packed = kernels.transform_filters(pixels_last(weight))
            y = kernels.conv(x, forward, bias, len(weight), self.size, self.padding, relu=self.relu_here)
        z, of_norm = self.norm.forward(y) if self.norm else (y, ())
        return z, (x, packed, y if self.relu_here else None, of_norm)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """Normalisation first, then both gradients of the convolution."""
        x, packed, mask, of_norm = saved
        of_norm_parameters: list[Tensor | None] = []
        if self.norm:
            dy, of_norm_parameters = self.norm.backward(of_norm, dy, wanted=True)
        size, padding, bias, dx = self.size, self.padding, self.conv.bias is not None, None
        if self.scaling is not None:
            slope, sums = kernels.stem_gradient(x, *self.constants(), dy, size, padding, relu_output=mask, bias=bias)
        else:
            slope, sums = kernels.conv_gradient(x, dy, size, padding, relu_output=mask, bias=bias)
            if wanted:
                dx = kernels.conv(dy, packed, None, x.shape[3], size, size - 1 - padding, relu_output=mask)
        return dx, [channels_first(slope), *([sums] if bias else []), *of_norm_parameters]

    def infer(self, x: Tensor) -> Tensor:
        """The same with running statistics; with a batch's own where normalisation is in training."""
        if self.norm and self.norm.norm.training:
            return self.forward(x)[0]
        weight, bias = self.cached(self.inference_weights)
        if self.scaling is not None:
            return kernels.stem(x, *self.constants(), weight, bias, self.padding, relu=self.relu)
        x = x.to(torch.bfloat16)
        return kernels.conv(x, weight, bias, self.conv.out_channels, self.size, self.padding, relu=self.relu)

    def inference_weights(self) -> tuple[Tensor, Tensor | None]:
        """Weights as the kernel takes them, and bias, with normalisation folded in."""
        weight, bias = folded(self.conv, self.norm.norm if self.norm else None)
        return (
            taps_first(weight) if self.scaling is not None else kernels.transform_filters(pixels_last(weight))[0]
        ), bias

    def constants(self) -> tuple[float, float]:
        """The scaling's offset and scale."""
        assert self.scaling is not None
        return float(self.scaling.offset), float(self.scaling.scale)


class CachedWeights:
    """What was made of some tensors, made anew when they have changed."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.kept: tuple[list[int], Any] | None = None

    def __call__(self, make: Callable[[], Any]) -> Any:
        """The kept value, or what `make` gives now."""
        state = [number for tensor in self.tensors for number in (tensor._version, tensor.data_ptr())]
        if self.kept is None or self.kept[0] != state:
            self.kept = state, make()
        return self.kept[1]


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
    square = conv.kernel_size[0] == conv.kernel_size[1] and conv.kernel_size[0] in kernels.KERNEL_SIZES
    if isinstance(conv, StemConv):
        return square and conv.in_channels in kernels.STEM_CHANNELS and conv.out_channels % 16 == 0
    return square and conv.in_channels in kernels.CHANNELS and conv.out_channels in kernels.CHANNELS


class Normalisation:
    """Batch normalisation as `nn.BatchNorm2d` does it, its running statistics included, and relu."""

    def __init__(self, norm: nn.BatchNorm2d, relu: bool) -> None:
        self.norm, self.relu = norm, relu
        self.parameters = [norm.weight, norm.bias]

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Any shape, channels last -> the same; moves the running statistics."""
        norm, counted = self.norm, self.norm.num_batches_tracked
        mean, variance = norm.running_mean, norm.running_var
        assert counted is not None
        assert mean is not None
        assert variance is not None
        if not norm.training:
            raise RuntimeError("a normalisation that is not in training has no way back here")
        counted += 1
        share = norm.momentum if norm.momentum is not None else 1 / float(counted)
        z, statistics = kernels.norm(x, norm.weight, norm.bias, norm.eps, share, mean, variance, relu=self.relu)
        return z, (x, statistics)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients of x, factor and shift."""
        x, statistics = saved
        dx, weight, bias = kernels.norm_gradient(x, dy, statistics, self.norm.eps, relu=self.relu)
        return dx, [weight, bias]

    def infer(self, x: Tensor) -> Tensor:
        """By running statistics, or in training by the batch's own."""
        if self.norm.training:
            return self.forward(x)[0]
        return kernels.scale(x, *running_line(self.norm), relu=self.relu)


class Pooling:
    """Max pooling."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        self.parameters: list[nn.Parameter] = []
        size = pool.kernel_size
        self.down, self.across = size if isinstance(size, tuple) else (size, size)

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> the same, smaller."""
        y = kernels.pool(x, self.down, self.across)
        return y, (x, y)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        x, y = saved
        return kernels.pool_gradient(x, y, dy, self.down, self.across), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return kernels.pool(x, self.down, self.across)


class GlobalPooling:
    """The largest value of each channel."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, channel)."""
        y = self.infer(x)
        return y, (x, y)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        x, y = saved
        return kernels.pool_gradient(x, y, dy, x.shape[1], x.shape[2]), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return kernels.pool(x, x.shape[1], x.shape[2]).view(len(x), -1)


class Dropping:
    """Dropout; one key a batch comes from the layer's generator."""

    def __init__(self, dropout: KeyedDropout) -> None:
        self.parameters: list[nn.Parameter] = []
        self.dropout = dropout

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Any shape -> the same."""
        rate, generator = self.dropout.rate, self.dropout.generator
        if not self.dropout.training or rate == 0:
            return x, (None,)
        if generator is None:
            raise RuntimeError("dropout needs a generator in training; set it with set_dropout_generator")
        key = int(torch.empty(1, dtype=torch.int64).random_(-(2**63), None, generator=generator))
        y, bits = kernels.dropout(x, rate, key)
        return y, (bits,)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        (bits,) = saved
        return dy if bits is None else kernels.dropout_gradient(dy, bits, self.dropout.rate), []

    def infer(self, x: Tensor) -> Tensor:
        """Nothing is dropped."""
        return x


class Flattening:
    """All values of an image in one row, pixel after pixel."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, value)."""
        return x.view(len(x), -1), (x.shape,)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        return dy.view(saved[0]), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return x.view(len(x), -1)


class Dense:
    """A dense layer, and relu, its products made of the same kind of numbers as a convolution's."""

    def __init__(self, dense: nn.Linear, relu: bool) -> None:
        self.dense, self.relu = dense, relu
        self.parameters = list(dense.parameters())
        self.cached = CachedWeights(self.parameters)

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, value) -> (image, unit)."""
        x, (weight, bias) = x.to(kernels.product_dtype()), self.operands()
        y = self.product(x, weight, bias)
        return y, (x, weight, y if self.relu else None)

    def backward(self, saved: Saved, dy: Tensor, *, wanted: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of x, weight and bias."""
        x, weight, y = saved
        dy = (dy if y is None else torch.where(y > 0, dy, 0)).to(weight.dtype)
        dx = (dy @ weight).bfloat16() if wanted else None
        return dx, [(dy.T @ x).float(), dy.sum(0, dtype=torch.float32)]

    def infer(self, x: Tensor) -> Tensor:
        """The same, its rows filled up, so that a row's sums are split alike in every batch."""
        rows = math.ceil(len(x) / ROWS) * ROWS
        return self.product(filled(x.to(kernels.product_dtype()), rows), *self.cached(self.operands))[: len(x)]

    def operands(self) -> tuple[Tensor, Tensor]:
        """Weight and bias as they enter the products."""
        return self.dense.weight.to(kernels.product_dtype()), self.dense.bias.to(kernels.product_dtype())

    def product(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        """The layer's result."""
        y = torch.addmm(bias, x, weight.T).bfloat16()
        return y.relu_() if self.relu else y


def taps_first(weight: Tensor) -> Tensor:
    """(filter, channel, height, width) -> (height, width, channel, filter), contiguous."""
    return weight.permute(2, 3, 1, 0).contiguous()


def pixels_last(x: Tensor) -> Tensor:
    """(image, channel, height, width) -> (image, height, width, channel), contiguous; no copy if channels last."""
    return x.permute(0, 2, 3, 1).contiguous() if x.ndim == 4 else x.contiguous()


def channels_first(x: Tensor) -> Tensor:
    """The way back, in memory channels last; of flat rows another view, so that no chain keeps its own result."""
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x.view(x.shape)


def filled(rows: Tensor, number: int) -> Tensor:
    """The rows, and as many more as are missing to the number, all like the last."""
    missing = number - len(rows)
    return torch.cat([rows, *[rows[-1:]] * missing]) if missing > 0 else rows
