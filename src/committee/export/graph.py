"""A committee as one ONNX graph: raw pixels in, answers out, everything between them inside.

Input `images`: (image, height, width, channel), uint8 or uint16, as many as one likes. Outputs: `probabilities` (image,
class), `members` (member, image, class), `familiar` (image,), all float32; `label` (image,), int64, the position of the
most probable class; and, with thresholds, `in_set` (image, class) and `abstain` (image,), bool.

`ExportedCommittee` is what `Committee.answer` computes, written once more with torch's operations, in float32. That
both agree is not argued here but measured, for every export: `committee.export.proof`.
"""

from __future__ import annotations

import copy
import io
import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from committee.ensemble.committee import Committee
from committee.errors import require
from committee.metrics.familiarity import TAIL, Distribution, Familiarity

OPSET = 20
INPUT = "images"
OUTPUTS = ("probabilities", "members", "familiar", "label")
SMALLEST = 1e-12  # probabilities are at least this before their logarithm is taken, as in ensemble/temperature.py


class ExportedCommittee(nn.Module):
    """(image, height, width, channel) pixels -> the outputs that this module describes."""

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        self.networks = nn.ModuleList(exportable(network) for network in committee.networks)
        self.pixel_range = committee.pixel_range
        self.mirrored = committee.tta == "horizontal_flip"
        self.combine = Combination(committee)
        known = committee.images.familiarity
        self.familiar = Familiar(known, committee.pixel_range) if known else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The committee's answers."""
        pixels = images.to(torch.float32)
        members = self.members(pixels)
        probabilities = self.combine(members)
        unknown = torch.full_like(probabilities[:, 0], torch.nan)
        familiar = self.familiar(pixels, members) if self.familiar else unknown
        return probabilities, members, familiar, probabilities.argmax(1)

    def members(self, pixels: Tensor) -> Tensor:
        """(image, height, width, channel) float32 -> (member, image, class)."""
        planes = pixels.permute(0, 3, 1, 2)
        views = (planes, planes.flip(3)) if self.mirrored else (planes,)
        found = [torch.stack([network(view).softmax(-1) for network in self.networks]) for view in views]
        return torch.stack(found).mean(0) if self.mirrored else found[0]


class GlobalMax(nn.Module):
    """`nn.AdaptiveMaxPool2d(1)` by an operation that every runtime has."""

    def forward(self, values: Tensor) -> Tensor:
        """(image, channel, height, width) -> (image, channel, 1, 1)."""
        return values.amax((2, 3), keepdim=True)


def exportable(network: nn.Module) -> nn.Module:
    """A copy of a network, on the CPU, in evaluation mode: one left in training mode would keep its dropout."""
    copied = copy.deepcopy(network).to("cpu", memory_format=torch.contiguous_format).eval()  # type: ignore[call-overload]
    for name, module in list(copied.named_modules()):
        if isinstance(module, nn.AdaptiveMaxPool2d):
            copied.set_submodule(name, GlobalMax())
    return copied  # type: ignore[no-any-return]


class Combination(nn.Module):
    """Members' probabilities become one, as by `CombinationRule.predict`: (member, image, class) -> (image, class)."""

    shares: Tensor

    def __init__(self, committee: Committee) -> None:
        super().__init__()
        rule, count = committee.rule, len(committee.networks)
        self.how, self.temperature = rule.how, rule.temperature
        shares = np.full(count, 1.0) if rule.how != "weighted" or rule.weights is None else np.array(rule.weights)
        self.register_buffer("shares", torch.tensor(shares / shares.sum(), dtype=torch.float32)[:, None, None])

    def forward(self, members: Tensor) -> Tensor:
        """(member, image, class) -> (image, class)."""
        if self.how == "vote":
            classes = torch.arange(members.shape[2])
            members = (members.argmax(2, keepdim=True) == classes).to(torch.float32)
        if self.how == "geometric":
            combined = (members.clamp(SMALLEST, 1.0).log() * self.shares).sum(0).softmax(1)
        else:
            combined = (members * self.shares).sum(0)
        if self.temperature == 1.0:
            return combined
        return (combined.clamp(SMALLEST, 1.0).log() / self.temperature).softmax(1)


class LogShare(nn.Module):
    """The logarithm of the share of training images beyond a value; `committee.metrics.familiarity.Distribution`."""

    quantiles: Tensor

    def __init__(self, known: Distribution, *, above: bool) -> None:
        super().__init__()
        quantiles = np.array(known.quantiles) if above else -np.array(known.quantiles)[::-1]
        self.sign = 1.0 if above else -1.0
        self.excess = known.excess[1 if above else 0]
        self.end = float(quantiles[round((1 - TAIL) * (len(quantiles) - 1))])
        self.register_buffer("quantiles", torch.tensor(quantiles.copy(), dtype=torch.float32))

    def forward(self, values: Tensor) -> Tensor:
        """(image,) -> (image,)."""
        values = values * self.sign
        smaller = (self.quantiles < values[:, None]).to(torch.float32).mean(1)
        beyond = (values - self.end) / self.excess
        tail = float(np.log(TAIL)) - beyond.clamp(min=0.0)
        return torch.where(beyond > 0, tail, (1 - smaller).clamp(min=TAIL).log())


class Familiar(nn.Module):
    """Pixels (image, height, width, channel) float32 and members' probabilities -> familiar (image,)."""

    def __init__(self, known: Familiarity, pixel_range: int) -> None:
        super().__init__()
        self.pixel_range = pixel_range
        self.above = nn.ModuleDict({name: LogShare(each, above=True) for name, each in known.measures.items()})
        self.below = nn.ModuleDict(
            {name: LogShare(each, above=False) for name, each in known.measures.items() if name != "doubt"}
        )
        self.surprise = LogShare(known.surprise, above=True)

    def forward(self, pixels: Tensor, members: Tensor) -> Tensor:
        """The share of training images that surprise at least as much."""
        measures = self.measures(pixels, members)
        sides = [side[name](measures[name]) for side in (self.above, self.below) for name in side]
        return self.surprise(-torch.stack(sides).amin(0)).exp()  # type: ignore[no-any-return]

    def measures(self, pixels: Tensor, members: Tensor) -> Mapping[str, Tensor]:
        """Each (image,); `committee.metrics.familiarity.measured`."""
        colours = pixels[..., : 3 if pixels.shape[3] >= 3 else 1] / self.pixel_range
        grey = colours.mean(3)
        height, width = grey.shape[1:]
        border = torch.cat([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], 1).mean(1)
        none = torch.zeros_like(border)
        down = (grey[:, 1:] - grey[:, :-1]).abs().mean((1, 2)) if height > 1 else none
        across = (grey[:, :, 1:] - grey[:, :, :-1]).abs().mean((1, 2)) if width > 1 else none
        brightness = grey.mean((1, 2))
        contrast = (grey - brightness[:, None, None]).square().mean((1, 2)).sqrt()
        return {
            "border": border,
            "brightness": brightness,
            "contrast": contrast,
            "detail": down + across,
            "colour": (colours.amax(3) - colours.amin(3)).mean((1, 2)),
            "doubt": -members.amax(2).clamp(min=SMALLEST).log().mean(0),
        }


def onnx_bytes(committee: Committee) -> bytes:
    """A committee as an ONNX file without metadata.

    Raises:
        MissingExtraError: the packages onnx and onnxscript are not installed.
    """
    for name in ("onnx", "onnxscript"):
        require(name, extra="export", purpose="Exporting to ONNX")
    module = ExportedCommittee(committee).eval()
    kind = torch.uint8 if committee.pixel_range == 255 else torch.uint16
    images = torch.zeros((2, *committee.image_shape), dtype=kind)
    batch = torch.export.Dim("image", min=1)
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            torch.export.export(module, (images,), dynamic_shapes={INPUT: {0: batch}}),
            input_names=[INPUT],
            output_names=list(OUTPUTS),
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        content = io.BytesIO()
        program.save(content)  # type: ignore[union-attr]
    return content.getvalue()


class _quietly(warnings.catch_warnings):  # noqa: N801
    """The exporter's remarks on packages that nothing here needs are not for users."""

    def __enter__(self) -> None:  # type: ignore[override]
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
