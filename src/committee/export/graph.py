"""A committee as one ONNX graph: raw pixels in, answers out, everything between them inside.

Input `images`: (image, height, width, channel), uint8 or uint16, as many as one likes. Outputs: `probabilities` (image,
class), `members` (member, image, class), `familiar` (image,), all float32; `label` (image,), int64, the position of the
most probable class; and, with thresholds, `in_set` (image, class) and `abstain` (image,), bool.

`ExportedCommittee` is what `Committee.answer` computes, written once more with torch's operations, in float32. That
both agree is not argued here but measured, for every export: `committee.export.proof`.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn

from committee.ensemble.committee import Committee
from committee.errors import require
from committee.metrics.conformal import NotSure
from committee.metrics.familiarity import FIXED, TAIL, Distribution, Familiarity, fixed
from committee.nn.views import seen

OPSET = 20
INPUT = "images"
OUTPUTS = ("probabilities", "members", "familiar", "label")
SMALLEST = 1e-12  # probabilities are at least this before their logarithm is taken, as in ensemble/temperature.py


class ExportedCommittee(nn.Module):
    """(image, height, width, channel) pixels -> the outputs that this module describes."""

    least: Tensor

    def __init__(self, committee: Committee, unsure: NotSure | None = None) -> None:
        super().__init__()
        self.sets, self.abstention = (unsure.sets, unsure.abstention) if unsure else (None, None)
        if self.sets:
            self.register_buffer("least", torch.tensor(self.sets.least, dtype=torch.float32))
        self.outputs = [*OUTPUTS, *(["in_set"] if self.sets else []), *(["abstain"] if self.abstention else [])]
        self.networks = nn.ModuleList(exportable(network) for network in committee.networks)
        self.pixel_range, self.image_shape = committee.pixel_range, committee.image_shape
        self.views = committee.views
        self.combine = Combination(committee)
        known = committee.images.familiarity
        self.familiar = Familiar(known, committee.pixel_range) if known else None

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """The committee's answers."""
        members = self.members(images.to(torch.float32))
        probabilities = self.combine(members)
        unknown = torch.full_like(probabilities[:, 0], torch.nan)
        familiar = self.familiar(images, members) if self.familiar else unknown
        label = probabilities.argmax(1)
        answers: tuple[Tensor, ...] = (probabilities, members, familiar, label)
        if self.sets:
            most_probable = label[:, None] == torch.arange(probabilities.shape[1])
            answers = (*answers, (probabilities >= self.least) | most_probable)
        if self.abstention:
            answers = (*answers, probabilities.amax(1) < self.abstention.least)
        return answers

    def members(self, pixels: Tensor) -> Tensor:
        """(image, height, width, channel) float32 -> (member, image, class)."""
        views = (pixels, *(seen(pixels, view) for view in self.views.further))
        found = [
            torch.stack([network(view.permute(0, 3, 1, 2)).softmax(-1) for network in self.networks]) for view in views
        ]
        if not self.views.further:
            return found[0]
        return self.views.blend(found[0], found[1:])


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


def one_by_one(values: Tensor) -> Tensor:
    """The sum over the first axis in its order: a runtime's own sum has another order for an image alone."""
    total = values[0]
    for number in range(1, values.shape[0]):
        total = total + values[number]
    return total


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
            combined = one_by_one(members.clamp(SMALLEST, 1.0).log() * self.shares).softmax(1)
        else:
            combined = one_by_one(members * self.shares)
        if self.temperature == 1.0:
            return combined
        return (combined.clamp(SMALLEST, 1.0).log() / self.temperature).softmax(1)


def double(value: float) -> Tensor:
    """A constant in float64; torch 2.13.0's exporter rounds a Python number beside such values to float32."""
    return torch.tensor(value, dtype=torch.float64)


class LogShare(nn.Module):
    """The logarithm of the share of training images beyond a value; `committee.metrics.familiarity.Distribution`."""

    quantiles: Tensor

    def __init__(self, known: Distribution, *, above: bool) -> None:
        super().__init__()
        quantiles = fixed(np.array(known.quantiles) if above else -np.array(known.quantiles)[::-1])
        self.sign = 1.0 if above else -1.0
        self.excess = known.excess[1 if above else 0]
        self.end = float(quantiles[round((1 - TAIL) * (len(quantiles) - 1))])
        self.register_buffer("quantiles", torch.tensor(quantiles, dtype=torch.float64))

    def forward(self, values: Tensor) -> Tensor:
        """(image,) -> (image,), float64."""
        values = (values * double(self.sign * FIXED)).round()
        smaller = (self.quantiles < values[:, None]).to(torch.float64).sum(1) / double(len(self.quantiles))
        beyond = torch.relu((values - double(self.end)) / double(self.excess * FIXED))
        tail = double(np.log(TAIL)) - beyond
        return torch.where(beyond > 0, tail, torch.maximum(1 - smaller, double(TAIL)).log())


class Familiar(nn.Module):
    """Pixels (image, height, width, channel) and members' probabilities -> familiar (image,)."""

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
        return self.surprise(-torch.stack(sides).amin(0)).exp().to(torch.float32)  # type: ignore[no-any-return]

    def measures(self, pixels: Tensor, members: Tensor) -> Mapping[str, Tensor]:
        """Each (image,) float64; `committee.metrics.familiarity.measured`, operation by operation."""
        colours = pixels[..., : 3 if pixels.shape[3] >= 3 else 1].to(torch.float64)
        grey = colours.sum(3)
        height, width = grey.shape[1:]
        count, largest = height * width, float(self.pixel_range)
        white = colours.shape[3] * largest
        border = torch.cat([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], 1)
        total, squares = grey.sum((1, 2)), (grey * grey).sum((1, 2))
        detail = torch.zeros_like(total)
        for steps in (grey[:, 1:] - grey[:, :-1], grey[:, :, 1:] - grey[:, :, :-1]):
            if size := steps.shape[1] * steps.shape[2]:
                detail = detail + steps.abs().sum((1, 2)) / double(size * white)
        certainty = torch.maximum(members.amax(2).to(torch.float64), double(SMALLEST))
        return {
            "border": border.sum(1) / double(border.shape[1] * white),
            "brightness": total / double(count * white),
            "contrast": torch.relu(double(count) * squares - total * total).sqrt() / double(count * white),
            "detail": detail,
            "colour": (colours.amax(3) - colours.amin(3)).sum((1, 2)) / double(count * largest),
            "doubt": -one_by_one(certainty.log()) / double(len(certainty)),
        }


def program_of(module: ExportedCommittee, largest: int | None = None) -> torch.export.ExportedProgram:
    """The operations of an exported committee.

    Args:
        module: the committee.
        largest: how many images it takes at most; None for any number.
    """
    count = 1 if largest == 1 else 2
    kind = torch.uint8 if module.pixel_range == 255 else torch.uint16
    images = torch.zeros((count, *module.image_shape), dtype=kind)
    batch = {INPUT: {0: torch.export.Dim("image", min=1, max=largest)}} if largest != 1 else None
    with _quietly(), torch.no_grad():
        return torch.export.export(module.eval(), (images,), dynamic_shapes=batch)


def onnx_bytes(module: ExportedCommittee) -> bytes:
    """An exported committee as an ONNX file without metadata.

    Raises:
        MissingExtraError: the packages onnx and onnxscript are not installed.
    """
    for name in ("onnx", "onnxscript"):
        require(name, extra="export", purpose="Exporting to ONNX")
    exported = program_of(module)
    with _quietly(), torch.no_grad():
        program = torch.onnx.export(
            exported,
            input_names=[INPUT],
            output_names=module.outputs,
            opset_version=OPSET,
            dynamo=True,
            external_data=False,
            verbose=False,
        )
    assert program is not None
    content: bytes = program.model_proto.SerializeToString(deterministic=True)
    return content


class _quietly(warnings.catch_warnings):  # noqa: N801
    """The exporter's remarks on packages that nothing here needs are not for users."""

    def __enter__(self) -> None:
        super().__enter__()
        warnings.simplefilter("ignore")
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
