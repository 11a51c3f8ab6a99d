"""Several networks of one recipe as a single module, in which every layer computes all members at once.

One small network leaves most of an accelerator idle; a committee of them can fill it. Between layers, images are
(image, member * channel, height, width) and flat values (member, image, value); members never mix. A convolution has
four forms, of which `committee.training.stacked_loop` uses the fastest by measurement:

    grouped    one convolution with a group for each member
    im2col     the windows as rows of a matrix, one batched matrix product
    separate   a convolution for each member
    streams    the same, each member on a CUDA stream of its own
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from committee.nn.architectures import FlattenPixels, KeyedDropout, Scaling, StemConv

Form = Literal["grouped", "im2col", "separate", "streams"]
FORMS: tuple[Form, ...] = get_args(Form)


class Stacked(nn.Module):
    """The members' networks as one module; its parameters are copies of theirs, stacked along a new first axis.

    Args:
        networks: alike but for their weights, from `committee.nn.architectures.build`, on one device.
        form: how convolutions are computed.
    """

    def __init__(self, networks: Sequence[nn.Module], form: Form = "grouped") -> None:
        super().__init__()
        self.members = len(networks)
        self.layers = nn.Sequential(*(_layer(layers, form) for layers in by_layer(networks)))

    def forward(self, pixels: Tensor) -> Tensor:
        """(member, image, channel, height, width) float32 raw pixels -> (member, image, class) logits."""
        members, images = pixels.shape[:2]
        merged = pixels.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        values: Tensor = self.layers(merged)
        return values if values.ndim == 3 else values.view(images, members, -1).transpose(0, 1)

    def decay_and_no_decay(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """The parameters with weight decay (weights of convolutions and dense layers) and those without (all others),
        each in the order of the layers.
        """
        parameters = list(self.parameters())
        return [p for p in parameters if p.ndim > 2], [p for p in parameters if p.ndim <= 2]

    def set_dropout_generators(self, generators: Sequence[torch.Generator]) -> None:
        """Let each member's dropout layers draw from its own generator, in the order of the layers."""
        for layer in self.layers:
            if isinstance(layer, _Dropout):
                for dropout, generator in zip(layer.dropouts, generators, strict=True):
                    dropout.generator = generator  # type: ignore[assignment]

    @torch.no_grad()
    def copy_to(self, networks: Sequence[nn.Module]) -> None:
        """Copy each member's weights and running statistics into its own network."""
        for stacked, layers in zip(self.layers, by_layer(networks), strict=True):
            for name, values in stacked.state_dict().items():
                for layer, value in zip(layers, values, strict=True):
                    layer.state_dict()[name].copy_(value)


def by_layer(networks: Sequence[nn.Module]) -> list[tuple[nn.Module, ...]]:
    """For every layer of the networks, that layer of each of them."""
    return list(zip(*(network.children() for network in networks), strict=True))


def _layer(layers: Sequence[nn.Module], form: Form) -> nn.Module:
    """One layer of all members, from that layer of each of them."""
    first = layers[0]
    stacked: dict[type[nn.Module], Callable[..., nn.Module]] = {
        Scaling: _Scaling,
        nn.BatchNorm2d: _Norm,
        nn.BatchNorm1d: _Norm,
        nn.Linear: _Linear,
        KeyedDropout: _Dropout,
        FlattenPixels: _Flatten,
        nn.Flatten: _Flatten,
    }
    if isinstance(first, nn.Conv2d):
        return _Conv([layer for layer in layers if isinstance(layer, nn.Conv2d)], form)
    make = stacked.get(type(first))
    return make(layers) if make else copy.deepcopy(first)  # activations and pooling treat each channel alike


def _stack(tensors: Sequence[Tensor]) -> Tensor:
    return torch.stack([tensor.detach().contiguous() for tensor in tensors])


class _Scaling(nn.Module):
    offset: Tensor
    scale: Tensor

    def __init__(self, layers: Sequence[Scaling]) -> None:
        super().__init__()
        self.register_buffer("offset", _stack([layer.offset for layer in layers]))
        self.register_buffer("scale", _stack([layer.scale for layer in layers]))

    def forward(self, values: Tensor) -> Tensor:
        """(image, member * channel, height, width) -> the same shape."""
        channels = values.shape[1] // len(self.offset)
        offset, scale = (each.repeat_interleave(channels)[:, None, None] for each in (self.offset, self.scale))
        return (values - offset) / scale


class _Conv(nn.Module):
    def __init__(self, layers: Sequence[nn.Conv2d], form: Form) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack([layer.weight for layer in layers]))
        biases = [layer.bias for layer in layers if layer.bias is not None]
        self.bias = nn.Parameter(_stack(biases)) if biases else None
        padding = layers[0].padding
        self.padding: tuple[int, int] | str = padding if isinstance(padding, str) else (padding[0], padding[1])
        self.float32 = isinstance(layers[0], StemConv)
        self.form = form
        self.streams: list[torch.cuda.Stream] = []

    def forward(self, values: Tensor) -> Tensor:
        """(image, member * channel, height, width) -> (image, member * filter, height', width')."""
        if not self.float32:
            return self._convolve(values)
        device = values.device.type
        with torch.autocast(device, enabled=False):
            output = self._convolve(values.float())
        return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output

    def _convolve(self, values: Tensor) -> Tensor:
        if self.form == "grouped":
            bias = self.bias.flatten() if self.bias is not None else None
            weight, members = self.weight.flatten(0, 1), len(self.weight)
            return functional.conv2d(values, weight, bias, padding=self.padding, groups=members)
        if self.form == "im2col" and not isinstance(self.padding, str):
            return self._im2col(values, self.padding)
        return self._separate(values)

    def _im2col(self, values: Tensor, padding: tuple[int, int]) -> Tensor:
        members, filters, channels, *size = self.weight.shape
        images, _, *sides = values.shape
        height, width = (side + 2 * p - k + 1 for side, p, k in zip(sides, padding, size, strict=True))
        windows = functional.unfold(values, tuple(size), padding=padding)  # (image, member * channel * tap, place)
        rows = windows.view(images, members, channels * math.prod(size), -1).permute(1, 0, 3, 2).flatten(1, 2)
        result = torch.bmm(rows, self.weight.flatten(2).transpose(1, 2))  # (member, image * place, filter)
        result = result + self.bias[:, None] if self.bias is not None else result
        result = result.view(members, images, height, width, filters)
        return result.permute(1, 0, 4, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)

    def _separate(self, values: Tensor) -> Tensor:
        current = torch.cuda.current_stream() if values.is_cuda else None
        results = []
        for m, x in enumerate(torch.split(values, self.weight.shape[2], dim=1)):
            with self._stream(m, current):
                bias = self.bias[m] if self.bias is not None else None
                results.append(functional.conv2d(x, self.weight[m], bias, padding=self.padding))
        for stream in self.streams:
            assert current is not None
            current.wait_stream(stream)
        return torch.cat(results, dim=1)

    def _stream(self, member: int, current: torch.cuda.Stream | None) -> AbstractContextManager[object]:
        """The stream that a member's convolution runs on, after all work given to `current`; its backward pass runs on
        the same stream.
        """
        if self.form != "streams" or current is None:
            return nullcontext()
        while len(self.streams) <= member:
            self.streams.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        self.streams[member].wait_stream(current)
        return torch.cuda.stream(self.streams[member])


class _Norm(nn.Module):
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor

    def __init__(self, layers: Sequence[nn.BatchNorm2d | nn.BatchNorm1d]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack([layer.weight for layer in layers]))
        self.bias = nn.Parameter(_stack([layer.bias for layer in layers]))
        for name in ("running_mean", "running_var", "num_batches_tracked"):
            self.register_buffer(name, _stack([getattr(layer, name) for layer in layers]))
        self.momentum, self.epsilon = layers[0].momentum, layers[0].eps

    def forward(self, values: Tensor) -> Tensor:
        """(image, member * channel, height, width), or (member, image, value) -> the same shape."""
        flat = values.ndim == 3
        x = values.transpose(0, 1).flatten(1) if flat else values
        self.num_batches_tracked += 1
        assert self.momentum is not None
        statistics = self.running_mean.view(-1), self.running_var.view(-1)
        y = functional.batch_norm(
            x, *statistics, self.weight.flatten(), self.bias.flatten(), True, self.momentum, self.epsilon
        )
        return y.view(len(y), len(self.weight), -1).transpose(0, 1) if flat else y


class _Linear(nn.Module):
    def __init__(self, layers: Sequence[nn.Linear]) -> None:
        super().__init__()
        self.weight = nn.Parameter(_stack([layer.weight for layer in layers]))
        self.bias = nn.Parameter(_stack([layer.bias for layer in layers]))

    def forward(self, values: Tensor) -> Tensor:
        """(member, image, value) -> (member, image, unit)."""
        return torch.baddbmm(self.bias[:, None].to(values.dtype), values, self.weight.transpose(1, 2).to(values.dtype))


class _Flatten(nn.Module):
    def __init__(self, layers: Sequence[nn.Module]) -> None:
        super().__init__()
        self.members = len(layers)
        self.pixels = isinstance(layers[0], FlattenPixels)

    def forward(self, values: Tensor) -> Tensor:
        """(image, member * channel, height, width) -> (member, image, value), in the order of the members' layers."""
        if values.ndim == 3:
            return values
        images, _, height, width = values.shape
        by_member = values.view(images, self.members, -1, height, width)
        return (by_member.permute(1, 0, 3, 4, 2) if self.pixels else by_member.transpose(0, 1)).flatten(2)


class _Dropout(nn.Module):
    def __init__(self, layers: Sequence[KeyedDropout]) -> None:
        super().__init__()
        self.dropouts = nn.ModuleList(KeyedDropout(layer.rate) for layer in layers)

    def forward(self, values: Tensor) -> Tensor:
        """Either shape -> the same; a member draws the zeros that it would draw if it were trained alone."""
        if values.ndim == 3:
            return torch.stack([dropout(x) for dropout, x in zip(self.dropouts, values, strict=True)])
        parts = (x.contiguous(memory_format=torch.channels_last) for x in values.chunk(len(self.dropouts), dim=1))
        return torch.cat([dropout(x) for dropout, x in zip(self.dropouts, parts, strict=True)], 1)
