"""The compiled kernels on tensors: what each computes, and whether this machine can run them.

Images here are (image, height, width, channel), contiguous bfloat16, the number of channels a multiple of 16. All of it
runs in the calling thread. Which kernels a process uses, its *path*, is decided by the processor or by the environment
variable COMMITTEE_CPU; on some paths convolutions multiply bfloat16, on others float32 (`product_dtype`). The path is
"torch", and `available()` False, where no path is for this processor, or where the package was installed without a C++
compiler. The C++ is explained in functions.h; `binding` chooses the path and checks every call against its types.
"""

from __future__ import annotations

import threading

import torch
from torch import Tensor

from committee.kernels import binding

CHANNELS: tuple[int, ...] = binding.constant("channels", ())  # of a convolution's input and output, that have a kernel
KERNEL_SIZES: tuple[int, ...] = binding.constant("kernel_sizes", ())  # so many pixels square
STEM_CHANNELS: tuple[int, ...] = binding.constant("stem_channels", ())  # of the first convolution's input

_here = threading.local()


def path() -> str:
    """The name of the way in which this process computes on the CPU; "torch" where that is without kernels.

    Raises:
        CommitteeError: COMMITTEE_CPU names a path that there is not, or that this machine does not have.
    """
    return binding.path().name


def available() -> bool:
    """Whether this process has kernels."""
    return path() != "torch"


def product_dtype() -> torch.dtype:
    """What the products of convolutions and dense layers are made of."""
    return binding.path().products


@binding.cached_by_path
def _numbers(name: str, *shape: int) -> int:
    """How many numbers filters, sums or working memory of a shape have on this path: the compiled code's own affair."""
    return int(binding.call(name, *shape))


def _scratch(values: int, dtype: torch.dtype) -> Tensor:
    """Working memory of this thread, kept between calls."""
    kept = getattr(_here, "scratch", None)
    size = values * dtype.itemsize
    if kept is None or kept.numel() < size:
        kept = _here.scratch = torch.empty(size, dtype=torch.uint8)
    return kept[:size].view(dtype)


def _refuse_unknown(kernel: int, channels: int, outputs: int, *, stem: bool = False) -> None:
    """Of other shapes the compiled code has no function."""
    fit = channels in STEM_CHANNELS and outputs % 16 == 0 if stem else channels in CHANNELS and outputs in CHANNELS
    if kernel not in KERNEL_SIZES or not fit:
        raise ValueError(f"no convolution of {kernel}x{kernel} pixels from {channels} to {outputs} channels")


def conv(
    x: Tensor,
    filters: Tensor,
    bias: Tensor | None,
    outputs: int,
    kernel: int,
    padding: int,
    *,
    relu: bool = False,
    relu_output: Tensor | None = None,
) -> Tensor:
    """A convolution with stride 1, with bias and relu; or the gradient of one's input, from that of its result.

    Args:
        x: (image, height, width, channel), the channels one of `CHANNELS`. Where it is the gradient of a relu's result,
            `relu_output`, of the same shape, is that result, and x counts only where it is above 0.
        filters: made by `transform_filters`.
        bias: (outputs,) float32, or none.
        outputs: channels of the result.
        kernel, padding: pixels.
        relu: whether negative results become 0.

    Returns:
        (image, height', width', outputs).
    """
    images, height, width, channels = x.shape
    _refuse_unknown(kernel, channels, outputs)
    grown = 2 * padding - kernel + 1
    y = torch.empty(images, height + grown, width + grown, outputs, dtype=torch.bfloat16)
    shape = (images, height, width, channels, outputs, kernel, padding)
    wanted = _numbers("convolution_scratch", images, height, width, channels, kernel, padding)
    scratch = _scratch(wanted, filters.dtype)
    binding.call("convolution", x, relu_output, filters, bias, y, *shape, relu, scratch)
    return y


def conv_gradient(
    x: Tensor, dy: Tensor, kernel: int, padding: int, *, relu_output: Tensor | None = None, bias: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The gradient of a convolution's weights (outputs, kernel, kernel, channel) and bias (outputs,), float32.

    Args:
        x: what went in: (image, height, width, channel).
        dy: gradient of the result: (image, height', width', outputs).
        kernel, padding: pixels.
        relu_output: the result after relu, where there was one: dy counts only where it is above 0.
        bias: whether there is one.
    """
    images, height, width, channels = x.shape
    outputs, dtype = dy.shape[3], product_dtype()
    _refuse_unknown(kernel, channels, outputs)
    sums = torch.zeros(_numbers("weight_gradient_sums", kernel, channels, outputs))
    bias_sums = torch.zeros(outputs) if bias else None
    shape = (height, width, channels, outputs, kernel, padding)
    scratch = _scratch(_numbers("weight_gradient_scratch", *shape), dtype)
    binding.call("weight_gradient", x, dy, relu_output, sums, bias_sums, images, *shape, scratch)
    gradient = torch.empty(outputs, kernel, kernel, channels)
    binding.call("transform_weight_gradient", sums, gradient, channels, outputs, kernel)
    return gradient, bias_sums


def transform_filters(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Filters as `conv` takes them, for it and for the gradient of its input.

    Args:
        weights: (outputs, kernel, kernel, channel) float32.
    """
    outputs, kernel, _, channels = weights.shape
    _refuse_unknown(kernel, channels, outputs)
    forward, backward = torch.empty(2, _numbers("filter_numbers", kernel, channels, outputs), dtype=product_dtype())
    binding.call("transform_filters", weights, forward, backward, channels, outputs, kernel)
    return forward, backward


def stem(
    pixels: Tensor,
    offset: float,
    scale: float,
    weights: Tensor,
    bias: Tensor | None,
    padding: int,
    *,
    relu: bool = False,
) -> Tensor:
    """The first convolution: of (pixel - offset) / scale, in float32.

    Args:
        pixels: (image, height, width, channel) float32, the channels one of `STEM_CHANNELS`.
        offset, scale: of the pixels, in their unit.
        weights: (kernel, kernel, channel, outputs) float32.
        bias, padding, relu: as in `conv`.

    Returns:
        (image, height', width', outputs).
    """
    images, height, width, channels = pixels.shape
    kernel, outputs = weights.shape[0], weights.shape[3]
    _refuse_unknown(kernel, channels, outputs, stem=True)
    grown = 2 * padding - kernel + 1
    y = torch.empty(images, height + grown, width + grown, outputs, dtype=torch.bfloat16)
    scratch = _scratch((height + 2 * padding) * (width + 2 * padding) * channels, torch.float32)
    shape = (images, height, width, channels, outputs, kernel, padding)
    binding.call("stem", pixels, float(offset), float(scale), weights, bias, y, *shape, relu, scratch)
    return y


def stem_gradient(
    pixels: Tensor,
    offset: float,
    scale: float,
    dy: Tensor,
    kernel: int,
    padding: int,
    *,
    relu_output: Tensor | None,
    bias: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of `stem`'s weights (outputs, kernel, kernel, channel) and bias.

    The arguments are those of `stem` and of `conv_gradient`.
    """
    images, height, width, channels = pixels.shape
    outputs = dy.shape[3]
    _refuse_unknown(kernel, channels, outputs, stem=True)
    sums = torch.zeros(kernel, kernel, channels, outputs)
    bias_sums = torch.zeros(outputs) if bias else None
    scratch = _scratch((height + 2 * padding) * (width + 2 * padding) * channels, torch.float32)
    shape = (images, height, width, channels, outputs, kernel, padding)
    constants = (float(offset), float(scale))
    binding.call("stem_weight_gradient", pixels, *constants, dy, relu_output, sums, bias_sums, *shape, scratch)
    gradient = torch.empty(outputs, kernel, kernel, channels)
    binding.call("transpose", sums, gradient, kernel * kernel * channels, outputs)
    return gradient, bias_sums


def scale(x: Tensor, factor: Tensor, shift: Tensor, *, relu: bool) -> Tensor:
    """factor * x + shift, a channel at a time, with or without relu; factor and shift (channel,) float32."""
    z = torch.empty_like(x)
    binding.call("scale_and_shift", x, factor, shift, z, x.numel() // x.shape[-1], x.shape[-1], relu)
    return z


def norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    momentum: float,
    running_mean: Tensor,
    running_variance: Tensor,
    *,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Batch normalisation with scale and shift, and relu.

    Args:
        x: (image, height, width, channel).
        weight, bias, running_mean, running_variance: (channel,) float32.
        epsilon: added to the variance.
        momentum: the weight of the batch's statistics in the new running ones, which are written.
        relu: whether negative results become 0.

    Returns:
        The result, and statistics (4, channel) float32 for `norm_gradient`.
    """
    channels, rows, z = x.shape[-1], x.numel() // x.shape[-1], torch.empty_like(x)
    statistics, sums = torch.empty(4, channels), _scratch(2 * channels, torch.float64)
    running = (running_mean, running_variance)
    binding.call("batch_norm", x, weight, bias, epsilon, momentum, *running, sums, statistics, z, rows, channels, relu)
    return z, statistics


def norm_gradient(
    x: Tensor, dz: Tensor, statistics: Tensor, epsilon: float, *, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `norm`'s x, weight and bias; dz is the gradient of its result."""
    channels, rows, dx = x.shape[-1], x.numel() // x.shape[-1], torch.empty_like(x)
    weight, bias = torch.empty(2, channels)
    scratch = _scratch(3 * channels, torch.float64)
    binding.call("batch_norm_gradient", x, dz, statistics, epsilon, scratch, weight, bias, dx, rows, channels, relu)
    return dx, weight, bias


def pool(x: Tensor, down: int, across: int) -> Tensor:
    """The largest value of each window of down * across pixels; an odd last row or column is dropped."""
    images, height, width, channels = x.shape
    y = torch.empty(images, height // down, width // across, channels, dtype=torch.bfloat16)
    binding.call("max_pool", x, y, images, height, width, channels, down, across)
    return y


def pool_gradient(x: Tensor, y: Tensor, dy: Tensor, down: int, across: int) -> Tensor:
    """The gradient of `pool`'s x: dy goes to the first largest value of each window."""
    dx = torch.empty_like(x)
    binding.call("max_pool_gradient", x, y, dy, dx, *x.shape, down, across)
    return dx


def warp(images: Tensor, matrices: Tensor, displacements: Tensor | None, *, edge: bool) -> Tensor:
    """Images under affine maps, and elastically displaced where asked, sampled bilinearly.

    Args:
        images: (image, height, width, channel) float32.
        matrices: (image, 2, 3) float32, output pixel -> input pixel, both (x right, y down) in pixels from the centre.
        displacements: (image, 2, height, width) float32, pixels added to the input pixel's x and y; None for none.
        edge: whether what lies outside is the nearest pixel, or 0.
    """
    y = torch.empty_like(images)
    moved = displacements if displacements is None else displacements.contiguous()
    binding.call("warp", images, matrices.contiguous(), moved, y, *images.shape, edge)
    return y


def dropout(x: Tensor, rate: float, key: int) -> tuple[Tensor, Tensor]:
    """Values of which each is 0 with this probability (to 1 in 65,536), the others scaled up; all drawn from the key.

    Args:
        x: any shape, contiguous.
        rate: between 0 and 1.
        key: 64 bits.

    Returns:
        The same shape, and the bits for `dropout_gradient`.
    """
    y, bits = torch.empty_like(x), torch.empty((x.numel() + 31) // 32, dtype=torch.int32)
    dropped = round(rate * 65536)
    binding.call("dropout", x, y, bits, x.numel(), key, dropped, 65536 / (65536 - dropped))
    return y, bits


def dropout_gradient(dy: Tensor, bits: Tensor, rate: float) -> Tensor:
    """The gradient of `dropout`'s values from that of its result."""
    dx = torch.empty_like(dy)
    binding.call("dropout_gradient", dy, bits, dx, dy.numel(), 65536 / (65536 - round(rate * 65536)))
    return dx


def _by_memory(*tensors: Tensor) -> list[Tensor]:
    """Parameters and their moments as contiguous tensors: where the first is channels last, all have to be."""
    channels_last = tensors[0].ndim == 4 and not tensors[0].is_contiguous()
    return [each.permute(0, 2, 3, 1) for each in tensors] if channels_last else list(tensors)


def nadam(
    values: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    *,
    gradient_rate: float,
    mean_rate: float,
    betas: tuple[float, float],
    correction: float,
    epsilon: float,
    decay: float,
) -> None:
    """A step of Nadam, in place, all tensors of one shape, float32, contiguous or all channels last.

    `mean` and `square` are the running means of the gradient and of its square, `correction` is 1 - beta2^step, the two
    rates those of the two summands of the step.
    """
    rates = (gradient_rate, mean_rate, *betas, correction, epsilon, decay)
    binding.call("nadam", *_by_memory(values, gradient, mean, square), values.numel(), *rates)


def adadelta(
    values: Tensor,
    gradient: Tensor,
    square: Tensor,
    squared_update: Tensor,
    *,
    rate: float,
    rho: float,
    epsilon: float,
    decay: float,
) -> None:
    """A step of Adadelta, in place, all tensors of one shape, float32, contiguous or all channels last.

    `square` and `squared_update` are the running means of the squares of the gradient and of the updates.
    """
    tensors = _by_memory(values, gradient, square, squared_update)
    binding.call("adadelta", *tensors, values.numel(), rate, rho, epsilon, decay)
