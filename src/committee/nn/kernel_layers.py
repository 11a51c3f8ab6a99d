"""Layers on the compiled kernels: one or a few of a network's modules each, forward, backward, and for inference.

Scaling and the first convolution; convolution, batch normalisation and relu; max pooling; dropout; dense and relu.
Values are bfloat16, (image, height, width, channel) or (image, value). `match_layers` finds the one that a list of
modules begins with.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from committee import kernels
from committee.nn.architectures import FlattenPixels, KeyedDropout, Scaling, StemConv

Saved = tuple[Any, ...]  # what the forward pass keeps for the backward pass


class KernelLayer(Protocol):
    """One or a few layers on the kernels."""

    @property
    def parameters(self) -> list[nn.Parameter]:
        """In the order of `backward`'s gradients."""

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """The result in training, and what `backward` needs."""

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """The gradients of x, where needed, and of the parameters, from that of the result."""

    def infer(self, x: Tensor) -> Tensor:
        """The result in inference, where there is no backward pass."""


def match_layers(layers: list[nn.Module]) -> tuple[KernelLayer, int] | None:
    """The kernel layer for the first modules of a list.

    Returns:
        The layer and how many modules it replaces, as many as possible; None where no kernel computes the first one.
    """
    first, *rest = layers
    if isinstance(first, Scaling) and rest and isinstance(stem := rest[0], StemConv) and fits(stem):
        norm, relu = norm_and_relu(rest[1:])
        return with_pooling(ConvolutionLayer(stem, first, norm, relu), layers, 2 + (norm is not None) + relu)
    if isinstance(first, nn.Conv2d) and not isinstance(first, StemConv) and fits(first):
        norm, relu = norm_and_relu(rest)
        return with_pooling(ConvolutionLayer(first, None, norm, relu), layers, 1 + (norm is not None) + relu)
    if isinstance(first, nn.BatchNorm2d) and first.num_features % 16 == 0:
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        return BatchNormLayer(first, relu), 1 + relu
    if isinstance(first, nn.MaxPool2d):
        return MaxPoolLayer(first), 1
    if isinstance(first, nn.AdaptiveMaxPool2d) and rest and isinstance(rest[0], nn.Flatten):
        return GlobalMaxPoolLayer(), 2
    if isinstance(first, KeyedDropout):
        return DropoutLayer(first), 1
    if isinstance(first, FlattenPixels):
        return FlattenLayer(), 1
    if isinstance(first, nn.Linear):
        relu = bool(rest) and isinstance(rest[0], nn.ReLU)
        return DenseLayer(first, relu), 1 + relu
    return None


def norm_and_relu(layers: list[nn.Module]) -> tuple[nn.BatchNorm2d | None, bool]:
    """The batch normalisation that the modules begin with (None without one), and whether relu comes next."""
    norm = layers[0] if layers and isinstance(layers[0], nn.BatchNorm2d) else None
    after = layers[1:] if norm else layers
    return norm, bool(after) and isinstance(after[0], nn.ReLU)


def with_pooling(convolution: ConvolutionLayer, layers: list[nn.Module], count: int) -> tuple[KernelLayer, int]:
    """A convolution of the first `count` layers, and the max pooling that follows, where they can be one layer."""
    pool = layers[count] if len(layers) > count else None
    if convolution.relu_in_kernel and isinstance(pool, nn.MaxPool2d):
        return PooledConvolutionLayer(convolution, MaxPoolLayer(pool)), count + 1
    return convolution, count


class ConvolutionLayer:
    """A convolution (the first one with the pixels' scaling), then batch normalisation and relu where there are any.

    In inference, batch normalisation is folded into the weights, which are transformed once.
    """

    def __init__(self, conv: nn.Conv2d, scaling: Scaling | None, norm: nn.BatchNorm2d | None, relu: bool) -> None:
        self.conv, self.scaling = conv, scaling
        self.norm = BatchNormLayer(norm, relu) if norm else None
        self.relu, self.relu_in_kernel = relu, relu and norm is None
        self.parameters = [*conv.parameters(), *(self.norm.parameters if self.norm else ())]
        self.size, self.padding = int(conv.kernel_size[0]), int(conv.padding[0])
        self.cached = CachedWeights([*conv.parameters(), *([*norm.parameters(), *norm.buffers()] if norm else ())])

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, height', width', filter)."""
        weight, bias, for_gradient = self.conv.weight, self.conv.bias, None
        if self.scaling is not None:
            offset, scale = self.constants()
            y = kernels.stem(x, offset, scale, taps_first(weight), bias, self.padding, relu=self.relu_in_kernel)
        else:
            x = x.to(torch.bfloat16)
            filters, for_gradient = kernels.transform_filters(pixels_last(weight))
            y = kernels.conv(x, filters, bias, len(weight), self.size, self.padding, relu=self.relu_in_kernel)
        z, of_norm = self.norm.forward(y) if self.norm else (y, ())
        return z, (x, for_gradient, y if self.relu_in_kernel else None, of_norm)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """Batch normalisation first, then both gradients of the convolution."""
        x, for_gradient, mask, of_norm = saved
        norm_gradients: list[Tensor | None] = []
        if self.norm:
            dy, norm_gradients = self.norm.backward(of_norm, dy, needs_dx=True)
        size, padding, bias, dx = self.size, self.padding, self.conv.bias is not None, None
        if self.scaling is not None:
            dw, db = kernels.stem_gradient(x, *self.constants(), dy, size, padding, relu_output=mask, bias=bias)
        else:
            dw, db = kernels.conv_gradient(x, dy, size, padding, relu_output=mask, bias=bias)
            if needs_dx:
                dx = kernels.conv(dy, for_gradient, None, x.shape[3], size, size - 1 - padding, relu_output=mask)
        return dx, [channels_first(dw), *([db] if bias else []), *norm_gradients]

    def infer(self, x: Tensor) -> Tensor:
        """The same with running statistics; with the batch's own where batch normalisation is in training."""
        if self.norm and self.norm.norm.training:
            return self.forward(x)[0]
        weight, bias = self.cached(self.inference_weights)
        if self.scaling is not None:
            return kernels.stem(x, *self.constants(), weight, bias, self.padding, relu=self.relu)
        x = x.to(torch.bfloat16)
        return kernels.conv(x, weight, bias, self.conv.out_channels, self.size, self.padding, relu=self.relu)

    def inference_weights(self) -> tuple[Tensor, Tensor | None]:
        """Weights as the kernel takes them, and bias, with batch normalisation folded in."""
        weight, bias = folded(self.conv, self.norm.norm if self.norm else None)
        return (
            taps_first(weight) if self.scaling is not None else kernels.transform_filters(pixels_last(weight))[0]
        ), bias

    def constants(self) -> tuple[float, float]:
        """The scaling's offset and scale."""
        assert self.scaling is not None
        return float(self.scaling.offset), float(self.scaling.scale)


class PooledConvolutionLayer:
    """A convolution with relu, then max pooling.

    The largest values of the windows say where relu let the gradient through, so that the convolution's own result,
    the largest tensor of all, is neither kept for the backward pass nor read in it.
    """

    def __init__(self, convolution: ConvolutionLayer, pool: MaxPoolLayer) -> None:
        self.convolution, self.pool = convolution, pool
        self.parameters = convolution.parameters

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, height', width', filter)."""
        y, (x, for_gradient, _, of_norm) = self.convolution.forward(x)
        z, of_pool = self.pool.forward(y, positive=True)
        return z, ((x, for_gradient, None, of_norm), of_pool)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """The pooling's gradient is that of the convolution before relu."""
        of_convolution, of_pool = saved
        return self.convolution.backward(
            of_convolution, self.pool.backward(of_pool, dy, needs_dx=True)[0], needs_dx=needs_dx
        )

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return self.pool.infer(self.convolution.infer(x))


class CachedWeights:
    """A value computed from tensors, computed again only after one of them, or the kernels' path, has changed."""

    def __init__(self, tensors: Sequence[Tensor]) -> None:
        self.tensors = tensors
        self.stored: tuple[list[int | str], Any] | None = None

    def __call__(self, make: Callable[[], Any]) -> Any:
        """The stored value, or that of `make`, which is stored, where something has changed since."""
        state: list[int | str] = [kernels.path()]
        state += [number for tensor in self.tensors for number in (tensor._version, tensor.data_ptr())]
        if self.stored is None or self.stored[0] != state:
            self.stored = state, make()
        return self.stored[1]


def folded(conv: nn.Conv2d, norm: nn.BatchNorm2d | None) -> tuple[Tensor, Tensor | None]:
    """Weights and bias of a convolution with the batch normalisation after it folded in, by its running statistics."""
    if norm is None:
        return conv.weight, conv.bias
    factor, shift = running_scale(norm)
    bias = shift if conv.bias is None else shift + conv.bias * factor
    return conv.weight * factor[:, None, None, None], bias


def running_scale(norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Factor and shift of each channel in inference, from the running statistics."""
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


class BatchNormLayer:
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
            raise RuntimeError(
                "a training step needs batch normalisation in training mode, got it in evaluation mode; "
                "call network.train() first, or use inference_forward"
            )
        counted += 1
        momentum = norm.momentum if norm.momentum is not None else 1 / float(counted)
        z, statistics = kernels.norm(x, norm.weight, norm.bias, norm.eps, momentum, mean, variance, relu=self.relu)
        return z, (x, statistics)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor, list[Tensor | None]]:
        """Gradients of x, weight and bias."""
        x, statistics = saved
        dx, weight, bias = kernels.norm_gradient(x, dy, statistics, self.norm.eps, relu=self.relu)
        return dx, [weight, bias]

    def infer(self, x: Tensor) -> Tensor:
        """By running statistics; in training, by the batch's own."""
        if self.norm.training:
            return self.forward(x)[0]
        return kernels.scale(x, *running_scale(self.norm), relu=self.relu)


class MaxPoolLayer:
    """Max pooling."""

    def __init__(self, pool: nn.MaxPool2d) -> None:
        self.parameters: list[nn.Parameter] = []
        size = pool.kernel_size
        self.down, self.across = size if isinstance(size, tuple) else (size, size)

    def forward(self, x: Tensor, *, positive: bool = False) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> the same, smaller; `positive` as in `kernels.pool_choosing`."""
        y, chosen = kernels.pool_choosing(x, self.down, self.across, positive=positive)
        return y, (x.shape, chosen)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        (_, height, width, _), chosen = saved
        return kernels.pool_gradient(dy, chosen, height, width, self.down, self.across), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return kernels.pool(x, self.down, self.across)


class GlobalMaxPoolLayer:
    """The largest value of each channel."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, channel)."""
        y, chosen = kernels.pool_choosing(x, x.shape[1], x.shape[2], positive=False)
        return y.view(len(x), -1), (x.shape, chosen)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        (images, height, width, channels), chosen = saved
        dy = dy.view(images, 1, 1, channels)
        return kernels.pool_gradient(dy, chosen, height, width, height, width), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return kernels.pool(x, x.shape[1], x.shape[2]).view(len(x), -1)


class DropoutLayer:
    """Dropout; the layer's generator gives a key for each batch."""

    def __init__(self, dropout: KeyedDropout) -> None:
        self.parameters: list[nn.Parameter] = []
        self.dropout = dropout

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """Any shape -> the same."""
        rate, generator = self.dropout.rate, self.dropout.generator
        if not self.dropout.training or rate == 0:
            return x, (None,)
        if generator is None:
            raise RuntimeError("dropout needs a generator in training, got none; call set_dropout_generator first")
        key = int(torch.empty(1, dtype=torch.int64).random_(-(2**63), None, generator=generator))
        y, bits = kernels.dropout(x, rate, key)
        return y, (bits,)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        (bits,) = saved
        return dy if bits is None else kernels.dropout_gradient(dy, bits, self.dropout.rate), []

    def infer(self, x: Tensor) -> Tensor:
        """Nothing is dropped."""
        return x


class FlattenLayer:
    """All values of an image in one row, pixel after pixel."""

    def __init__(self) -> None:
        self.parameters: list[nn.Parameter] = []

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, height, width, channel) -> (image, value)."""
        return x.view(len(x), -1), (x.shape,)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor, list[Tensor | None]]:
        """The gradient of x."""
        return dy.view(saved[0]), []

    def infer(self, x: Tensor) -> Tensor:
        """The same."""
        return x.view(len(x), -1)


class DenseLayer:
    """A dense layer, and relu."""

    def __init__(self, dense: nn.Linear, relu: bool) -> None:
        self.dense, self.relu = dense, relu
        self.parameters = list(dense.parameters())
        self.cached = CachedWeights(self.parameters)

    def forward(self, x: Tensor) -> tuple[Tensor, Saved]:
        """(image, value) -> (image, unit)."""
        ahead, back = kernels.pack_dense(self.dense.weight)
        y = kernels.dense(x, ahead, self.dense.bias, relu=self.relu)
        return y, (x, back, y if self.relu else None)

    def backward(self, saved: Saved, dy: Tensor, *, needs_dx: bool) -> tuple[Tensor | None, list[Tensor | None]]:
        """Gradients of x, weight and bias."""
        x, back, mask = saved
        dx, weight, bias = kernels.dense_gradient(x, dy, back, relu_output=mask, needs_dx=needs_dx)
        return dx, [weight, bias]

    def infer(self, x: Tensor) -> Tensor:
        """The same, with weights that are packed once."""
        ahead, _ = self.cached(lambda: kernels.pack_dense(self.dense.weight))
        return kernels.dense(x, ahead, self.dense.bias, relu=self.relu)


def taps_first(weight: Tensor) -> Tensor:
    """(filter, channel, height, width) -> (height, width, channel, filter), contiguous."""
    return weight.permute(2, 3, 1, 0).contiguous()


def pixels_last(x: Tensor) -> Tensor:
    """(image, channel, height, width) -> (image, height, width, channel), contiguous; no copy if channels last."""
    return x.permute(0, 2, 3, 1).contiguous() if x.ndim == 4 else x.contiguous()


def channels_first(x: Tensor) -> Tensor:
    """The inverse of `pixels_last`, without a copy.

    Flat rows give a new view, so that no layer has saved the very tensor that its chain returns: through autograd's
    graph that would be a reference cycle.
    """
    return x.permute(0, 3, 1, 2) if x.ndim == 4 else x.view(x.shape)


def padded(rows: Tensor, number: int) -> Tensor:
    """The rows, padded to this number with copies of the last one."""
    missing = number - len(rows)
    return torch.cat([rows, *[rows[-1:]] * missing]) if missing > 0 else rows
