"""Networks as plain `nn.Module`s, built from a recipe's list of layers; a backbone is a function that returns one.

A network takes raw pixels, (image, channel, height, width) float32 in 0..255 (0..65535 for 16 bits), scales them itself
and returns logits, (image, class). The recipe and the weights file are therefore all that inference needs.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from committee.config.recipe import (
    ActivationLayer,
    BatchNorm,
    Conv,
    Dense,
    Dropout,
    Flatten,
    GlobalPool,
    Layer,
    MaxPool,
    Network,
)
from committee.errors import RecipeError

Shape = tuple[int, ...]  # of one image inside the network: (channel, height, width), or (unit,) after flattening


def compact(widths: Sequence[int], kernel: int, image_shape: Shape) -> list[Layer]:
    """The layers of `compact`: conv 16 at full size, three blocks (pool, conv, conv), global max pool, dense.

    Every convolution is followed by batch normalisation and relu. A block begins with its pooling: after the first
    convolution it would leave more than twice the multiply-adds, for as many parameters. Pooling halves only sides of
    6 pixels or more, so that small images keep their detail and any size fits.

    Args:
        widths: filters of each block's convolutions.
        kernel: height and width of all convolutions, pixels.
        image_shape: (channel, height, width).
    """
    layers, (_, height, width) = _normalised_conv(16, kernel), image_shape
    for filters in widths:
        pool, height, width = _halving(height, width)
        layers += [*pool, *_normalised_conv(filters, kernel) * 2]
    return [*layers, GlobalPool(kind="max"), Dense(units="classes")]


def vgg(widths: Sequence[int], kernel: int, image_shape: Shape) -> list[Layer]:
    """The layers of `vgg`: three blocks of three convolutions with poolings between them, global max pool, dense.

    After Simonyan & Zisserman 2015, "Very deep convolutional networks for large-scale image recognition", arXiv
    1409.1556, with batch normalisation and relu after every convolution. The first block sees the image at full size.
    The arguments are those of `compact`.
    """
    layers, (_, height, width) = _normalised_conv(widths[0], kernel) * 3, image_shape
    for filters in widths[1:]:
        pool, height, width = _halving(height, width)
        layers += [*pool, *_normalised_conv(filters, kernel) * 3]
    return [*layers, GlobalPool(kind="max"), Dense(units="classes")]


def _halving(height: int, width: int) -> tuple[list[Layer], int, int]:
    """The pooling between two blocks (none where both sides are short), and the height and width after it."""
    window = (2 if height >= 6 else 1, 2 if width >= 6 else 1)
    pool: list[Layer] = [MaxPool(size=window)] if window != (1, 1) else []
    return pool, height // window[0], width // window[1]


def _normalised_conv(filters: int, kernel: int) -> list[Layer]:
    return [Conv(filters=filters, kernel=kernel, bias=False), BatchNorm(), ActivationLayer(kind="relu")]


BACKBONES: dict[str, Callable[[Sequence[int], int, Shape], list[Layer]]] = {"compact": compact, "vgg": vgg}

ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "relu": lambda: nn.ReLU(inplace=True),
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
}


class Scaling(nn.Module):
    """(pixel - offset) / scale, in float32; the two constants are buffers, stored with the weights."""

    offset: Tensor
    scale: Tensor

    def __init__(self, offset: float = 0.0, scale: float = 1.0) -> None:
        super().__init__()
        self.register_buffer("offset", torch.tensor(offset, dtype=torch.float32))
        self.register_buffer("scale", torch.tensor(scale, dtype=torch.float32))

    def forward(self, pixels: Tensor) -> Tensor:
        """Any shape, float32 -> the same shape."""
        return (pixels - self.offset) / self.scale


class StemConv(nn.Conv2d):
    """The first convolution: always computed in float32; its output has the precision of the other layers.

    torch's bfloat16 convolution of one input channel gave wrong results on CPUs for some kernel sizes (pytorch issue
    163347), and with so few channels bfloat16 is not faster.
    """

    def forward(self, pixels: Tensor) -> Tensor:
        """(image, channel, height, width) float32 -> (image, filter, height', width')."""
        device = pixels.device.type
        with torch.autocast(device, enabled=False):
            output = super().forward(pixels.float())
        return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output


class KeyedDropout(nn.Module):
    """Dropout that draws from a generator given by `set_dropout_generator`, never from torch's global one.

    On the CPU one draw of 64 bits decides about four values, which takes a tenth of the time of a Bernoulli draw for
    each; the rate is rounded to a multiple of 1 / 65,536.
    """

    def __init__(self, rate: float) -> None:
        super().__init__()
        self.rate = rate
        self.generator: torch.Generator | None = None

    def forward(self, values: Tensor) -> Tensor:
        """Any shape -> the same shape; the identity in evaluation."""
        if not self.training or self.rate == 0:
            return values
        if self.generator is None:
            raise RuntimeError("dropout needs a generator in training, got none; call set_dropout_generator first")
        if values.device.type == "cpu":
            return values * self._factors_on_cpu(values)
        factors = torch.empty_like(values).bernoulli_(1 - self.rate, generator=self.generator)
        return values * factors.mul_(1 / (1 - self.rate))

    def _factors_on_cpu(self, values: Tensor) -> Tensor:
        """0 or 1 / (1 - rate) for each value, laid out in memory like the values."""
        count, dropped = values.numel(), round(self.rate * 65536)
        drawn = torch.empty((count + 3) // 4, dtype=torch.int64).random_(-(2**63), None, generator=self.generator)
        survives = drawn.view(torch.int16)[:count] >= dropped - 32768
        factors = survives.to(values.dtype).mul_(65536 / (65536 - dropped))
        if values.ndim == 4 and values.is_contiguous(memory_format=torch.channels_last):
            images, channels, height, width = values.shape
            return factors.view(images, height, width, channels).permute(0, 3, 1, 2)
        return factors.view(values.shape)

    def extra_repr(self) -> str:
        """What `print` shows of the layer."""
        return f"rate={self.rate}"


class FlattenPixels(nn.Module):
    """All values of an image in one row, pixel after pixel, so that images in channels-last memory need no copy."""

    def forward(self, values: Tensor) -> Tensor:
        """(image, channel, height, width), channels last -> (image, height * width * channel)."""
        return values.permute(0, 2, 3, 1).flatten(1) if values.ndim == 4 else values.flatten(1)


def set_dropout_generator(network: nn.Module, generator: torch.Generator) -> None:
    """Let all dropout layers of the network draw from one generator, in the order of the layers."""
    for module in network.modules():
        if isinstance(module, KeyedDropout):
            module.generator = generator


@dataclass(frozen=True)
class PlannedLayer:
    """A layer with its shapes and costs for one image.

    Attributes:
        name: for tables, such as "conv 3x3 16 same relu".
        input, output: (channel, height, width), or (unit,).
        parameters: the number of trainable ones.
        multiply_adds: in the forward pass.
    """

    layer: Layer
    name: str
    input: Shape
    output: Shape
    parameters: int
    multiply_adds: int


def plan_layers(network: Network, image_shape: Shape, classes: int) -> list[PlannedLayer]:
    """The network's layers with their shapes and costs, where members differ those of member 0.

    Args:
        network: the recipe's section.
        image_shape: (channel, height, width).
        classes: their number.

    Raises:
        RecipeError: a layer does not fit the output of the one before it.
    """
    layers = list(network.layers)
    if network.backbone:
        layers = BACKBONES[network.backbone](network.widths, network.kernels[0], image_shape)
    planned: list[PlannedLayer] = []
    shape = image_shape
    for number, layer in enumerate(layers, start=1):
        try:
            planned.append(_planned(layer, shape, classes))
        except _MisfitError as misfit:
            size = " x ".join(map(str, image_shape))
            raise RecipeError(
                f"layer {number} of the network ({layer.type}) {misfit}, for {size} (channels, height, width); "
                "change the layer, use larger images (--image-size), or take the recipe standard, which fits any size"
            ) from None
        shape = planned[-1].output
    return planned


class _MisfitError(Exception):
    """A layer does not fit its input; the message is a phrase for `plan_layers` to finish."""


def _planned(layer: Layer, shape: Shape, classes: int) -> PlannedLayer:
    """One layer on an input of this shape."""
    if isinstance(layer, Conv):
        return _planned_conv(layer, _spatial(shape))
    if isinstance(layer, MaxPool):
        return _planned_pool(layer, shape)
    if isinstance(layer, BatchNorm):
        return PlannedLayer(layer, "batchnorm", shape, shape, 2 * shape[0], math.prod(shape))
    if isinstance(layer, Dropout):
        return PlannedLayer(layer, f"dropout {layer.rate:g}", shape, shape, 0, 0)
    if isinstance(layer, Dense):
        return _planned_dense(layer, shape, classes)
    if isinstance(layer, Flatten):
        return PlannedLayer(layer, "flatten", shape, (math.prod(shape),), 0, 0)
    if isinstance(layer, GlobalPool):
        return PlannedLayer(layer, f"global {layer.kind} pool", shape, _spatial(shape)[:1], 0, 0)
    return PlannedLayer(layer, layer.kind, shape, shape, 0, 0)


def _planned_conv(layer: Conv, shape: tuple[int, int, int]) -> PlannedLayer:
    lost = layer.kernel - 1 if layer.padding == "valid" else 0
    channels, height, width = shape
    if min(height, width) <= lost:
        raise _MisfitError(f"needs at least {lost + 1}x{lost + 1} pixels but gets {height}x{width}")
    output = (layer.filters, height - lost, width - lost)
    weights = channels * layer.filters * layer.kernel**2
    name = f"conv {layer.kernel}x{layer.kernel} {layer.filters} {layer.padding}{_suffix(layer.activation)}"
    parameters = weights + (layer.filters if layer.bias else 0)
    return PlannedLayer(layer, name, shape, output, parameters, weights * output[1] * output[2])


def _planned_pool(layer: MaxPool, shape: Shape) -> PlannedLayer:
    down, across = window(layer)
    if len(shape) != 3 or shape[1] < down or shape[2] < across:
        raise _MisfitError(f"needs an image of at least {down}x{across} but gets {shape}")
    output = (shape[0], shape[1] // down, shape[2] // across)
    return PlannedLayer(layer, f"maxpool {down}x{across}", shape, output, 0, 0)


def _planned_dense(layer: Dense, shape: Shape, classes: int) -> PlannedLayer:
    if len(shape) == 3:
        raise _MisfitError("needs a flat row but gets an image; put a flatten or global_pool layer before it")
    units = classes if layer.units == "classes" else layer.units
    weights = shape[0] * units
    return PlannedLayer(layer, f"dense {units}{_suffix(layer.activation)}", shape, (units,), weights + units, weights)


def _spatial(shape: Shape) -> tuple[int, int, int]:
    """The shape, if it is (channel, height, width)."""
    if len(shape) != 3:
        raise _MisfitError("needs an image, but the one before it gives a flat row")
    return shape[0], shape[1], shape[2]


def _suffix(activation: str) -> str:
    return "" if activation == "linear" else f" {activation}"


def window(layer: MaxPool) -> tuple[int, int]:
    """Height and width of a pooling window, pixels."""
    return layer.size if isinstance(layer.size, tuple) else (layer.size, layer.size)


def build(network: Network, image_shape: Shape, classes: int, generator: torch.Generator) -> nn.Sequential:
    """A network with random initial weights, on the CPU.

    Args:
        network: the recipe's section.
        image_shape: (channel, height, width).
        classes: number of outputs.
        generator: on the CPU; every initial weight is drawn from it, in the order of the layers.

    Returns:
        A module: (image, channel, height, width) float32 raw pixels -> (image, class) logits. Its first layer is a
        `Scaling` that does nothing yet.

    Raises:
        RecipeError: a layer does not fit the output of the one before it.
    """
    model = _assembled(network, image_shape, classes)
    initialise(model, network.initialiser, generator)
    return model


def unfilled(network: Network, image_shape: Shape, classes: int) -> nn.Sequential:
    """The module that `build` gives, on torch's device "meta": shapes and types without values or memory.

    The arguments and errors are those of `build`.
    """
    with torch.device("meta"):
        return _assembled(network, image_shape, classes)


def _assembled(network: Network, image_shape: Shape, classes: int) -> nn.Sequential:
    modules: list[nn.Module] = [Scaling()]
    for planned in plan_layers(network, image_shape, classes):
        modules += _modules(planned, first=len(modules) == 1)
    return nn.Sequential(*modules)


def _modules(planned: PlannedLayer, *, first: bool) -> Iterator[nn.Module]:
    """The torch modules of one planned layer."""
    layer, shape = planned.layer, planned.input
    if isinstance(layer, Conv):
        conv = StemConv if first else nn.Conv2d
        padding = "same" if layer.padding == "same" and layer.kernel % 2 == 0 else (layer.kernel - 1) // 2
        yield conv(
            shape[0], layer.filters, layer.kernel, padding=padding if layer.padding == "same" else 0, bias=layer.bias
        )
    elif isinstance(layer, MaxPool):
        yield nn.MaxPool2d(window(layer))
    elif isinstance(layer, BatchNorm):
        norm = nn.BatchNorm2d if len(shape) == 3 else nn.BatchNorm1d
        yield norm(shape[0], eps=layer.epsilon, momentum=layer.momentum)
    elif isinstance(layer, Dropout):
        yield KeyedDropout(layer.rate)
    elif isinstance(layer, Dense):
        yield nn.Linear(shape[0], planned.output[0])
    elif isinstance(layer, Flatten):
        yield FlattenPixels()
    elif isinstance(layer, GlobalPool):
        yield nn.AdaptiveMaxPool2d(1) if layer.kind == "max" else nn.AdaptiveAvgPool2d(1)
        yield nn.Flatten()
    activation = layer.kind if isinstance(layer, ActivationLayer) else getattr(layer, "activation", "linear")
    if activation != "linear":
        yield ACTIVATIONS[activation]()


@torch.no_grad()
def initialise(model: nn.Module, name: str, generator: torch.Generator) -> None:
    """Draw the initial weights of all convolutions and dense layers from a generator.

    Args:
        model: the network; its weights change in place.
        name: the recipe's `initialiser`:
            glorot_uniform: uniform within sqrt(6 / (inputs + outputs)), biases 0, as in Keras; Glorot & Bengio 2010,
            "Understanding the difficulty of training deep feedforward neural networks", AISTATS.
            he_uniform, he_normal: uniform within sqrt(6 / inputs), or normal (not truncated) with standard deviation
            sqrt(2 / inputs), biases 0; He et al. 2015, "Delving deep into rectifiers", arXiv 1502.01852.
            torch: weights and biases uniform within 1 / sqrt(inputs), PyTorch's default.
        generator: on the CPU.
    """
    for module in model.modules():
        if not isinstance(module, (nn.Conv2d, nn.Linear)):
            continue
        weight = module.weight
        inputs = weight[0].numel()
        outputs = weight.shape[0] * weight[0, 0].numel()
        if name == "he_normal":
            weight.normal_(0, math.sqrt(2 / inputs), generator=generator)
        else:
            bound = {
                "glorot_uniform": math.sqrt(6 / (inputs + outputs)),
                "he_uniform": math.sqrt(6 / inputs),
                "torch": 1 / math.sqrt(inputs),
            }[name]
            weight.uniform_(-bound, bound, generator=generator)
        if module.bias is not None:
            if name == "torch":
                module.bias.uniform_(-1 / math.sqrt(inputs), 1 / math.sqrt(inputs), generator=generator)
            else:
                module.bias.zero_()
