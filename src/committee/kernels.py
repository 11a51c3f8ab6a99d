"""The C kernels of kernels.c on tensors: what each computes, and whether this machine can run them.

Images here are (image, height, width, channel), contiguous bfloat16, the number of channels a multiple of 16. All of it
runs in the calling thread. Convolutions multiply bfloat16, or float32 on CPUs that are slower in bfloat16 (`terms`).
`available()` is False where the CPU has no AVX-512 bfloat16, where it has AMX (whose matrix units torch uses, and these
do not), or where the package was installed without a C compiler.
"""

from __future__ import annotations

import ctypes
import importlib.util
import threading
from functools import cache
from typing import Any

import torch
from torch import Tensor

CHANNELS = (16, 32, 48, 64, 96, 128)  # of a convolution's input and output, that have a kernel
SIZES = (3, 5)  # of a convolution's kernel, so many pixels square
TERMS = 6  # numbers that stand for a row of a kernel; see kernels.c
STEM_CHANNELS = (1, 3)
_here = threading.local()


# Arguments of the C functions: p an array, l long, i int, f float; after a colon what they return.
SIGNATURES = {
    "supported": ":i",
    "fast_pairs": ":i",
    "conv_scratch": "iiiii:l",
    "conv_bf16": "pppppliiiiiiip",
    "conv_float": "pppppliiiiiiip",
    "conv_gradient_scratch": "iiiiii:l",
    "conv_gradient_bf16": "pppppliiiiiip",
    "conv_gradient_float": "pppppliiiiiip",
    "pack_bf16": "pppiii",
    "pack_float": "pppiii",
    "unpack": "ppiii",
    "stem": "pffppp" + "liiiiiiip",
    "stem_gradient": "pffpppp" + "liiiiiip",
    "turn": "ppii",
    "scale": "ppppl" + "ii",
    "norm": "pppffpppppl" + "ii",
    "norm_gradient": "pppfpppppl" + "ii",
    "pool": "ppliiiii",
    "pool_gradient": "ppppliiiii",
    "dropout": "pppllif",
    "dropout_gradient": "ppplf",
    "warp": "ppppliiii",
    "nadam": "ppppl" + "fffffff",
    "adadelta": "ppppl" + "ffff",
}
_TYPES = {"p": ctypes.c_void_p, "l": ctypes.c_long, "i": ctypes.c_int, "f": ctypes.c_float}


@cache
def _library() -> ctypes.CDLL | None:
    """The compiled functions; None where they were not compiled, or for another kind of CPU."""
    spec = importlib.util.find_spec("committee._kernels")
    if spec is None or spec.origin is None:
        return None
    library = ctypes.CDLL(spec.origin)
    if not hasattr(library, "committee_supported"):
        return None
    for name, signature in SIGNATURES.items():
        arguments, _, result = signature.partition(":")
        function = getattr(library, f"committee_{name}")
        function.argtypes = [_TYPES[letter] for letter in arguments]
        function.restype = _TYPES[result] if result else None
    return library


@cache
def available() -> bool:
    """Whether the kernels are installed and this CPU gains by them."""
    library = _library()
    amx = getattr(torch.cpu, "_is_amx_tile_supported", lambda: False)()
    return library is not None and bool(library.committee_supported()) and not amx


@cache
def terms() -> torch.dtype:
    """What a convolution's products are made of: bfloat16, or float32 where this CPU is no faster in bfloat16."""
    library = _library()
    return torch.bfloat16 if library is not None and library.committee_fast_pairs() else torch.float32


def of_terms(name: str) -> str:
    """A function's name for these terms."""
    return f"{name}_{'bf16' if terms() == torch.bfloat16 else 'float'}"


def _call(name: str, *arguments: Tensor | float | None) -> Any:
    """One C function; tensors go as addresses."""
    passed = [each.data_ptr() if isinstance(each, Tensor) else each for each in arguments]
    return getattr(_library(), f"committee_{name}")(*passed)


@cache
def _scratch_values(name: str, *shape: int) -> int:
    """How much working memory a function wants for images of a shape."""
    return int(_call(name, *shape))


def _scratch(values: int, dtype: torch.dtype) -> Tensor:
    """Working memory of this thread, kept between calls."""
    kept = getattr(_here, "scratch", None)
    size = values * dtype.itemsize
    if kept is None or kept.numel() < size:
        kept = _here.scratch = torch.empty(size, dtype=torch.uint8)
    return kept[:size].view(dtype)


def conv(
    x: Tensor,
    weights: Tensor,
    bias: Tensor | None,
    outputs: int,
    kernel: int,
    padding: int,
    *,
    relu: bool = False,
    mask: Tensor | None = None,
) -> Tensor:
    """A convolution with stride 1, with bias and relu.

    Args:
        x: (image, height, width, channel); its values count only where `mask`, of the same shape, is above 0.
        weights: packed by `pack`.
        bias: (outputs,) float32, or none.
        outputs: channels of the result.
        kernel, padding: pixels.
        relu: whether negative results become 0.

    Returns:
        (image, height', width', outputs).
    """
    images, height, width, channels = x.shape
    grown = 2 * padding - kernel + 1
    y = torch.empty(images, height + grown, width + grown, outputs, dtype=torch.bfloat16)
    scratch = _scratch(_scratch_values("conv_scratch", height, width, channels, kernel, padding), terms())
    shape = (images, height, width, channels, outputs, kernel, padding, relu)
    _call(of_terms("conv"), x, mask, weights, bias, y, *shape, scratch)
    return y


def conv_gradient(
    x: Tensor, dy: Tensor, kernel: int, padding: int, *, mask: Tensor | None = None, bias: bool = True
) -> tuple[Tensor, Tensor | None]:
    """The gradient of a convolution's weights (outputs, kernel, kernel, channel) and bias (outputs,), float32.

    Args:
        x: what went in: (image, height, width, channel).
        dy: gradient of the result: (image, height', width', outputs); it counts only where `mask` is above 0.
        kernel, padding: pixels.
        bias: whether there is one.
    """
    images, height, width, channels = x.shape
    outputs = dy.shape[3]
    sums = torch.zeros(TERMS, kernel, channels, outputs)
    bias_sums = torch.zeros(outputs) if bias else None
    shape = (height, width, channels, outputs, kernel, padding)
    scratch = _scratch(_scratch_values("conv_gradient_scratch", *shape), terms())
    _call(of_terms("conv_gradient"), x, dy, mask, sums, bias_sums, images, *shape, scratch)
    gradient = torch.empty(outputs, kernel, kernel, channels)
    _call("unpack", sums, gradient, channels, outputs, kernel)
    return gradient, bias_sums


def pack(weights: Tensor) -> tuple[Tensor, Tensor]:
    """Weights (outputs, kernel, kernel, channel) float32 as `conv` takes them, for it and for its input's gradient."""
    outputs, kernel, _, channels = weights.shape
    forward, backward = torch.empty(2, outputs * kernel * TERMS * channels, dtype=terms())
    _call(of_terms("pack"), weights, forward, backward, channels, outputs, kernel)
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
        pixels: (image, height, width, 1 or 3) float32.
        offset, scale: of the pixels.
        weights: (kernel, kernel, channel, outputs) float32.
        bias, padding, relu: as in `conv`.

    Returns:
        (image, height', width', outputs).
    """
    images, height, width, channels = pixels.shape
    kernel, outputs = weights.shape[0], weights.shape[3]
    grown = 2 * padding - kernel + 1
    y = torch.empty(images, height + grown, width + grown, outputs, dtype=torch.bfloat16)
    scratch = _scratch((height + 2 * padding) * (width + 2 * padding) * channels, torch.float32)
    shape = (images, height, width, channels, outputs, kernel, padding, relu)
    _call("stem", pixels, float(offset), float(scale), weights, bias, y, *shape, scratch)
    return y


def stem_gradient(
    pixels: Tensor,
    offset: float,
    scale: float,
    dy: Tensor,
    kernel: int,
    padding: int,
    *,
    mask: Tensor | None,
    bias: bool,
) -> tuple[Tensor, Tensor | None]:
    """The gradient of `stem`'s weights (outputs, kernel, kernel, channel) and bias.

    The arguments are those of `stem` and of `conv_gradient`.
    """
    images, height, width, channels = pixels.shape
    outputs = dy.shape[3]
    sums = torch.zeros(kernel, kernel, channels, outputs)
    bias_sums = torch.zeros(outputs) if bias else None
    framed = (height + 2 * padding) * (width + 2 * padding) * channels
    scratch = _scratch(framed, torch.float32)
    shape = (images, height, width, channels, outputs, kernel, padding)
    _call("stem_gradient", pixels, float(offset), float(scale), dy, mask, sums, bias_sums, *shape, scratch)
    gradient = torch.empty(outputs, kernel, kernel, channels)
    _call("turn", sums, gradient, kernel * kernel * channels, outputs)
    return gradient, bias_sums


def scale(x: Tensor, factor: Tensor, shift: Tensor, *, relu: bool) -> Tensor:
    """factor * x + shift, a channel at a time, with or without relu; factor and shift (channel,) float32."""
    z = torch.empty_like(x)
    _call("scale", x, factor, shift, z, x.numel() // x.shape[-1], x.shape[-1], relu)
    return z


def norm(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    epsilon: float,
    share: float,
    running_mean: Tensor,
    running_variance: Tensor,
    *,
    relu: bool,
) -> tuple[Tensor, Tensor]:
    """Batch normalisation with scale and shift, and relu; the running statistics move by `share` to those of the batch.

    Args:
        x: (image, height, width, channel).
        weight, bias, running_mean, running_variance: (channel,) float32.

    Returns:
        The result, and statistics (4, channel) float32 for `norm_gradient`.
    """
    channels, rows, z = x.shape[-1], x.numel() // x.shape[-1], torch.empty_like(x)
    statistics = torch.empty(4, channels)
    sums = _scratch(2 * channels, torch.float64)
    _call(
        "norm",
        x,
        weight,
        bias,
        epsilon,
        share,
        running_mean,
        running_variance,
        sums,
        statistics,
        z,
        rows,
        channels,
        relu,
    )
    return z, statistics


def norm_gradient(
    x: Tensor, dz: Tensor, statistics: Tensor, epsilon: float, *, relu: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of `norm`'s x, weight and bias; dz is the gradient of its result."""
    channels, rows, dx = x.shape[-1], x.numel() // x.shape[-1], torch.empty_like(x)
    weight, bias = torch.empty(2, channels)
    scratch = _scratch(3 * channels, torch.float64)
    _call(
        "norm_gradient",
        x,
        dz,
        statistics,
        epsilon,
        scratch,
        scratch[2 * channels :],
        weight,
        bias,
        dx,
        rows,
        channels,
        relu,
    )
    return dx, weight, bias


def pool(x: Tensor, down: int, across: int) -> Tensor:
    """The largest value of each window; an odd last row or column is dropped."""
    images, height, width, channels = x.shape
    y = torch.empty(images, height // down, width // across, channels, dtype=torch.bfloat16)
    _call("pool", x, y, images, height, width, channels, down, across)
    return y


def pool_gradient(x: Tensor, y: Tensor, dy: Tensor, down: int, across: int) -> Tensor:
    """The gradient goes to the first largest value of each window."""
    dx = torch.empty_like(x)
    _call("pool_gradient", x, y, dy, dx, *x.shape, down, across)
    return dx


def warp(images: Tensor, matrices: Tensor, bends: Tensor | None, *, edge: bool) -> Tensor:
    """Images under affine maps, bent where asked, sampled bilinearly.

    Args:
        images: (image, height, width, channel) float32.
        matrices: (image, 2, 3), output pixel -> input pixel, both from the image's centre.
        bends: (image, 2, height, width) float32, added to the input pixel's x and y; None for nothing.
        edge: whether what lies outside is the nearest pixel, or 0.
    """
    y = torch.empty_like(images)
    _call("warp", images, matrices.contiguous(), bends if bends is None else bends.contiguous(), y, *images.shape, edge)
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
    _call("dropout", x, y, bits, x.numel(), key, dropped, 65536 / (65536 - dropped))
    return y, bits


def dropout_gradient(dy: Tensor, bits: Tensor, rate: float) -> Tensor:
    """The gradient of `dropout`'s values from that of its result."""
    dx = torch.empty_like(dy)
    _call("dropout_gradient", dy, bits, dx, dy.numel(), 65536 / (65536 - round(rate * 65536)))
    return dx


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
    """A step of Nadam, in place, all tensors (value,) float32.

    `mean` and `square` are the running means of the gradient and of its square, `correction` is 1 - beta2^step, the two
    rates those of the two summands of the step.
    """
    rates = (gradient_rate, mean_rate, *betas, correction, epsilon, decay)
    _call("nadam", values, gradient, mean, square, values.numel(), *rates)


def adadelta(
    values: Tensor,
    gradient: Tensor,
    square: Tensor,
    moved: Tensor,
    *,
    rate: float,
    rho: float,
    epsilon: float,
    decay: float,
) -> None:
    """A step of Adadelta, in place, all tensors (value,) float32; `square` and `moved` are its running means."""
    _call("adadelta", values, gradient, square, moved, values.numel(), rate, rho, epsilon, decay)
