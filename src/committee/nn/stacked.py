"""Several networks of one recipe as one: every layer works on all members at once.

An accelerator that one small network leaves idle is filled by a committee. Inside, images are
(image, member * channel, height, width), flat values (member, image, value); a member's numbers never meet another's.
A convolution has four forms, between which `committee.training.stacked_loop` chooses by measurement:

    grouped   one convolution with a group a member
    im2col    the windows as rows, one batched matrix product
    apart     a convolution a member
    streams   the same, each member on a CUDA stream of its own
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from committee.nn.architectures import FlattenPixels, KeyedDropout, Scaling, StemConv

Form = Literal["grouped", "im2col", "apart", "streams"]
FORMS: tuple[Form, ...] = get_args(Form)


class Stacked(nn.Module):
    """The members' networks as one module; its parameters are the members' own, stacked along a first axis.

    Args:
        networks: of one recipe, as `committee.nn.architectures.build` gives them, on one device.
        form: how convolutions are computed.
    """

    def __init__(self, networks: Sequence[nn.Module], form: Form = "grouped") -> None:
        super().__init__()
        self.members = len(networks)
        self.layers = nn.Sequential(*(_layer(layers, form) for layers in by_layer(networks)))

    def forward(self, pixels: Tensor) -> Tensor:
        """(member, image, channel, height, width) float32 raw pixels -> (member, image, class) logits."""
        members, images = pixels.shape[:2]
        together = pixels.transpose(0, 1).flatten(1, 2).contiguous(memory_format=torch.channels_last)
        values: Tensor = self.layers(together)
        return values if values.ndim == 3 else values.view(images, members, -1).transpose(0, 1)

    def decayed_and_spared(self) -> tuple[list[nn.Parameter], list[nn.Parameter]]:
        """Parameters with and without weight decay: a member's matrices and kernels, and all else."""
        parameters = list(self.parameters())
        return [p for p in parameters if p.ndim > 2], [p for p in parameters if p.ndim <= 2]

    def set_dropout_generators(self, generators: Sequence[torch.Generator]) -> None:
        """Let each member draw its dropout from its own generator, in the order of the layers."""
        for layer in self.layers:
            if isinstance(layer, _Dropout):
                for module, generator in zip(layer.each, generators, strict=True):
                    module.generator = generator  # type: ignore[assignment]

    @torch.no_grad()
    def hand_back(self, networks: Sequence[nn.Module]) -> None:
        """Copy the members' weights and statistics into their own networks."""
        for stacked, layers in zip(
            self.layers, zip(*(list(network.children()) for network in networks), strict=True), strict=True
        ):
            for name, values in stacked.state_dict().items():
                if not name.startswith("each."):
                    for own, value in zip(layers, values, strict=True):
                        own.state_dict()[name].copy_(value)


def by_layer(networks: Sequence[nn.Module]) -> list[tuple[nn.Module, ...]]:
    """For every layer, that layer of each network."""
    return list(zip(*(network.children() for network in networks), strict=True))


def _layer(layers: Sequence[nn.Module], form: Form) -> nn.Module:
    """One layer of all members."""
    first = layers[0]
    makers: dict[type[nn.Module], Callable[..., nn.Module]] = {
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
    maker = makers.get(type(first))
    return maker(layers) if maker else copy.deepcopy(first)  # activations and pooling need no members


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
        """(image, member * channel, height, width) -> the same."""
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
            return self._convolved(values)
        device = values.device.type
        with torch.autocast(device, enabled=False):
            output = self._convolved(values.float())
        return output.to(torch.get_autocast_dtype(device)) if torch.is_autocast_enabled(device) else output

    def _stream(self, member: int, here: torch.cuda.Stream | None) -> AbstractContextManager[object]:
        """Where a member's convolution runs: beside the others, after all that `here` was given; backward follows."""
        if self.form != "streams" or here is None:
            return nullcontext()
        while len(self.streams) <= member:
            self.streams.append(torch.cuda.Stream())  # type: ignore[no-untyped-call]
        self.streams[member].wait_stream(here)
        return torch.cuda.stream(self.streams[member])

    def _convolved(self, values: Tensor) -> Tensor:
        members, filters, channels, tall, wide = self.weight.shape
        bias = self.bias
        if self.form == "grouped":
            flat = bias.flatten() if bias is not None else None
            return functional.conv2d(values, self.weight.flatten(0, 1), flat, padding=self.padding, groups=members)
        if self.form in ("apart", "streams") or isinstance(self.padding, str):
            parts, here = [], torch.cuda.current_stream() if values.is_cuda else None
            for m, x in enumerate(torch.split(values, channels, dim=1)):
                with self._stream(m, here):
                    own_bias = bias[m] if bias is not None else None
                    parts.append(functional.conv2d(x, self.weight[m], own_bias, padding=self.padding))
            for stream in self.streams:
                assert here is not None
                here.wait_stream(stream)
            return torch.cat(parts, dim=1)
        images, _, height, width = values.shape
        down, across = self.padding
        windows = functional.unfold(values, (tall, wide), padding=self.padding)  # (image, member * channel * tap, ...)
        rows = windows.view(images, members, channels * tall * wide, -1).permute(1, 0, 3, 2).flatten(1, 2)
        result = torch.bmm(rows, self.weight.flatten(2).transpose(1, 2))  # (member, image * place, filter)
        result = result + bias[:, None] if bias is not None else result
        shape = (members, images, height + 2 * down - tall + 1, width + 2 * across - wide + 1, filters)
        return result.view(shape).permute(1, 0, 4, 2, 3).flatten(1, 2).contiguous(memory_format=torch.channels_last)


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
        """(image, member * channel, height, width), or (member, image, value) -> the same."""
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
        """(image, member * channel, height, width) -> (member, image, value), pixel after pixel as `FlattenPixels`."""
        if values.ndim == 3:
            return values
        images, _, height, width = values.shape
        each = values.view(images, self.members, -1, height, width)
        return (each.permute(1, 0, 3, 4, 2) if self.pixels else each.transpose(0, 1)).flatten(2)


class _Dropout(nn.Module):
    def __init__(self, layers: Sequence[KeyedDropout]) -> None:
        super().__init__()
        self.each = nn.ModuleList(KeyedDropout(layer.rate) for layer in layers)

    def forward(self, values: Tensor) -> Tensor:
        """Any of the two shapes -> the same; every member's zeros are those that it would draw alone."""
        if values.ndim == 3:
            return torch.stack([drop(x) for drop, x in zip(self.each, values, strict=True)])
        parts = values.chunk(len(self.each), dim=1)
        last = torch.channels_last
        return torch.cat([drop(x.contiguous(memory_format=last)) for drop, x in zip(self.each, parts, strict=True)], 1)
