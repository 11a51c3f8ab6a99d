"""The paths with tiles are exact where the numbers are whole, and real tiles compute what emulated ones do."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from committee import kernels
from committee.kernels import binding

SUPPORTED = binding.runnable_paths()
TILED = [
    pytest.param(name, marks=pytest.mark.skipif(name not in SUPPORTED, reason=f"this processor has no {name}"))
    for name in ("amx", "amx-emulated")
]
CONVOLUTIONS = [  # images, height, width, channels, outputs, kernel, padding
    (3, 28, 28, 16, 16, 3, 1),  # a group of two images, and one
    (2, 14, 14, 32, 48, 3, 1),
    (19, 7, 7, 16, 32, 3, 0),
    (2, 9, 4, 48, 16, 5, 2),  # half a step too much in each row of the kernel
    (1, 1, 1, 128, 96, 3, 1),
    (2, 3, 2, 16, 16, 5, 4),
]
DENSE = [(128, 96, 64), (33, 100, 10), (1, 17, 130), (16, 64, 32)]  # images, inputs, outputs


def whole_numbers(*shape: int, seed: int) -> Tensor:
    """Small ones, whose products and sums float32 holds exactly."""
    return torch.randint(-3, 4, shape, generator=torch.Generator().manual_seed(seed)).float()


def channels_first(x: Tensor) -> Tensor:
    """(image, height, width, channel) -> float32 (image, channel, height, width)."""
    return x.permute(0, 3, 1, 2).float()


def spoil_scratch() -> None:
    """What lies there before a call must not matter."""
    kernels._scratch(1 << 20, torch.bfloat16).fill_(torch.nan)


def convolved(path: str, shape: tuple[int, ...], masked: bool) -> list[Tensor]:
    """A convolution's result and gradients, of whole numbers."""
    images, height, width, channels, outputs, kernel, padding = shape
    x = whole_numbers(images, height, width, channels, seed=0).bfloat16()
    weight, bias = whole_numbers(outputs, kernel, kernel, channels, seed=1), whole_numbers(outputs, seed=2)
    with binding.use(path):
        ahead, back = kernels.transform_filters(weight)
        spoil_scratch()
        y = kernels.conv(x, ahead, bias, outputs, kernel, padding, relu=masked)
        dy = whole_numbers(*y.shape, seed=3).bfloat16()
        mask = y if masked else None
        spoil_scratch()
        dx = kernels.conv(dy, back, None, channels, kernel, kernel - 1 - padding, relu_output=mask)
        spoil_scratch()
        dw, db = kernels.conv_gradient(x, dy, kernel, padding, relu_output=mask)
    assert db is not None
    return [y, dx, dw, db]


@pytest.mark.parametrize("path", TILED)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", CONVOLUTIONS, ids=str)
def test_a_convolution_of_whole_numbers_is_exact(path: str, shape: tuple[int, ...], masked: bool) -> None:
    images, height, width, channels, outputs, kernel, padding = shape
    y, dx, dw, db = convolved(path, shape, masked)
    x = channels_first(whole_numbers(images, height, width, channels, seed=0)).requires_grad_()
    weight = channels_first(whole_numbers(outputs, kernel, kernel, channels, seed=1)).requires_grad_()
    bias = whole_numbers(outputs, seed=2).requires_grad_()
    result = functional.conv2d(x, weight, bias, padding=padding)
    result = result.relu() if masked else result
    result.backward(channels_first(whole_numbers(*y.shape, seed=3)))
    assert x.grad is not None
    assert weight.grad is not None
    assert torch.equal(channels_first(y), result.detach().bfloat16().float())
    assert torch.equal(channels_first(dx), x.grad.bfloat16().float())
    assert torch.equal(channels_first(dw), weight.grad)
    assert torch.equal(db, bias.grad)


@pytest.mark.parametrize("path", TILED)
@pytest.mark.parametrize("shape", DENSE, ids=str)
def test_a_dense_layer_of_whole_numbers_is_exact(path: str, shape: tuple[int, int, int]) -> None:
    images, inputs, outputs = shape
    x, dy = whole_numbers(images, inputs, seed=0), whole_numbers(images, outputs, seed=3)
    weight, bias = whole_numbers(outputs, inputs, seed=1), whole_numbers(outputs, seed=2)
    with binding.use(path):
        ahead, back = kernels.pack_dense(weight)
        spoil_scratch()
        y = kernels.dense(x.bfloat16(), ahead, bias, relu=True)
        spoil_scratch()
        dx, dw, db = kernels.dense_gradient(x.bfloat16(), dy.bfloat16(), back, relu_output=y, needs_dx=True)
    result = functional.linear(x, weight, bias).relu()
    kept = dy * (result > 0)
    assert dx is not None
    assert torch.equal(y.float(), result.bfloat16().float())
    assert torch.equal(dx.float(), (kept @ weight).bfloat16().float())
    assert torch.equal(dw, kept.T @ x)
    assert torch.equal(db, kept.sum(0))


@pytest.mark.skipif("amx" not in SUPPORTED, reason="this processor has no amx")
def test_real_tiles_compute_what_emulated_ones_do() -> None:
    draws = torch.Generator().manual_seed(0)
    x = torch.randn(3, 14, 14, 48, generator=draws).bfloat16()
    weight, dy = torch.randn(32, 3, 3, 48, generator=draws), torch.randn(3, 14, 14, 32, generator=draws).bfloat16()
    found = []
    for path in ("amx", "amx-emulated"):
        with binding.use(path):
            ahead, back = kernels.transform_filters(weight)
            y = kernels.conv(x, ahead, None, 32, 3, 1)
            found.append([y, kernels.conv(dy, back, None, 48, 3, 1), kernels.conv_gradient(x, dy, 3, 1)[0]])
    assert all(torch.equal(real, emulated) for real, emulated in zip(*found, strict=True))
