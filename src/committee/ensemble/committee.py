"""A trained committee: loaded from its run folder, used on images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from committee.config.recipe import Recipe
from committee.data.dataset import Pixels
from committee.data.read_options import ValueRange
from committee.ensemble.classifier import Answers, Classifier
from committee.ensemble.combine import CombinationRule
from committee.errors import RunError
from committee.folders.records import ImagesRecord
from committee.folders.run_check import member_weights
from committee.folders.run_folder import RunFolder
from committee.metrics.familiarity import doubt_of, measured
from committee.nn import devices
from committee.nn.architectures import build
from committee.nn.devices import single_threaded
from committee.nn.forward import INFERENCE_BATCH_SIZE, Forward, inference_of, steps_of
from committee.nn.inference import member_probabilities
from committee.nn.together import forward_together
from committee.nn.views import Views

FEW_IMAGES = 16  # fewer go through all members together, one by one: Python's threads wait for each other then


@dataclass(frozen=True, repr=False)
class Committee(Classifier):
    """Members that predict images together.

    Attributes:
        networks: one for each member, in evaluation mode, on `device`.
        class_names: one name for each class.
        image_shape: (height, width, channels) that the members take.
        pixel_range: 255 for 8-bit images, 65535 for 16-bit ones.
        rule: how their probabilities become one.
        value_range: the numbers that were black and white in the training's files, for `committee.read_images`; None
            where they held pixels.
        tta, tta_confidence: test-time augmentation; see `committee.config.recipe.CommitteeSection`.
        images: what the training images look like.
    """

    networks: tuple[nn.Module, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    rule: CombinationRule = field(default_factory=CombinationRule)
    device: str = "cpu"
    precision: str = "float32"
    tta: str = "none"
    tta_confidence: float = 1.0
    value_range: ValueRange | None = None
    images: ImagesRecord = field(default_factory=ImagesRecord)

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        return (
            f"<Committee of {len(self.networks)}: {size} images in {len(self.class_names)} classes, on {self.device}>"
        )

    def answer(self, pixels: Pixels) -> Answers:
        """What the committee says about images (image, height, width, channel).

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
            RunError: a member answers with numbers that are not finite.
        """
        members = self.member_probabilities(pixels)
        known = self.images.familiarity
        familiar = known.familiar(measured(pixels, doubt_of(members))) if known else np.full(len(pixels), np.nan)
        return Answers(self.rule.predict(members), members, np.asarray(familiar, np.float64))

    def member_probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Each member's probabilities: (image, height, width, channel) -> (member, image, class) float32.

        Members work side by side, one on each core, and fewer members than cores share the images out. The figures of
        an image depend neither on the number of cores nor on the other images.

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
            RunError: a member answers with numbers that are not finite.
        """
        self.check_form(pixels)
        if len(pixels) == 0:
            return np.empty((len(self.networks), 0, len(self.class_names)), dtype=np.float32)

        def predicted(forward: Forward, some: slice = slice(None)) -> NDArray[np.float32]:
            torch.set_flush_denormal(True)  # a setting of each thread; as in training
            return member_probabilities(forward, pixels[some], self.device, self.views)

        with single_threaded():
            few = self.device == "cpu" and len(pixels) < FEW_IMAGES
            if few and self.together:
                members = list(predicted(self.together).swapaxes(0, 1))
            elif few or self.device != "cpu":
                members = [predicted(forward) for forward in self.forwards]
            else:
                pieces = in_pieces(len(pixels), -(-devices.cores() // len(self.forwards)))
                work = [(forward, piece) for forward in self.forwards for piece in pieces]
                with ThreadPoolExecutor(devices.cores()) as pool:
                    done = list(pool.map(predicted, *zip(*work, strict=True)))
                members = [joined(done[start : start + len(pieces)]) for start in range(0, len(done), len(pieces))]
        for place, probabilities in enumerate(members):
            if not np.isfinite(probabilities).all():  # as of finite weights that are much too large
                raise RunError(
                    f"the answers of the committee's member at place {place} are expected to be finite numbers and are "
                    "not, so that its weights are damaged; restore them or train again"
                )
        return np.stack(members)

    @property
    def views(self) -> Views:
        """The views of an image that each member sees."""
        return Views(self.tta, self.tta_confidence)

    @cached_property
    def forwards(self) -> tuple[Forward, ...]:
        """The networks as functions, which prepare their weights when they are first used."""
        return tuple(inference_of(steps, self.device, self.precision) for steps in self.steps)

    @cached_property
    def together(self) -> Forward | None:
        """The networks as one function for few images on a CPU; None where torch computes a part of them."""
        return forward_together(self.networks, self.steps, self.image_shape)

    @cached_property
    def steps(self) -> tuple[list[Forward], ...]:
        """Of each network, with its prepared weights: `forwards` and `together` share them."""
        return tuple(steps_of(network.eval(), self.device, self.precision) for network in self.networks)

    def __getstate__(self) -> dict[str, object]:
        """What is pickled: everything but the functions, which are made again when they are needed."""
        made = ("forwards", "together", "steps")
        return {name: value for name, value in self.__dict__.items() if name not in made}


def in_pieces(images: int, pieces: int) -> list[slice]:
    """Slices of so many images, about so many; each but the last of whole batches."""
    size = -(-images // pieces)
    size = -(-size // INFERENCE_BATCH_SIZE) * INFERENCE_BATCH_SIZE
    return [slice(start, min(start + size, images)) for start in range(0, images, size)]


def joined(pieces: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """Pieces (image, class) one behind the other."""
    return pieces[0] if len(pieces) == 1 else np.concatenate(pieces)


def load(run: str | Path, *, device: str = "auto") -> Committee:
    """The committee of a finished run folder, or of a study's model.

    Args:
        run: the folder that `committee train` wrote, or a bundle of it.
        device: where it predicts; "auto" picks as training does. On the device kind, with the kernels and the precision
            of the training it gives the same bits as then.

    Raises:
        RunError: the folder is missing, unfinished or damaged (weights are compared with the manifest).
    """
    folder = RunFolder.finished(run, or_model=True)
    return committee_of(folder, folder.committee.members, device)


def committee_of(folder: RunFolder, members: Sequence[int], device: str = "auto") -> Committee:
    """The committee of some members of a run folder, finished or not, with the rule that the folder holds.

    Args:
        folder: with data.json, identity.json and the members' weights; without committee.json the rule is the mean.
        members: their numbers.
        device: where it predicts.

    Raises:
        RunError: weights are missing, damaged, or do not fit the recipe's network.
    """
    identity, data, where = folder.identity, folder.data, devices.pick_device(device)
    record = folder.committee if folder.has_committee else None
    rule = CombinationRule(record.combination, record.weights, record.temperature or 1.0) if record else None
    committee = form_committee(
        {member: member_weights(folder, member) for member in members},
        folder.recipe,
        rule or CombinationRule(),
        class_names=data.class_names,
        image_shape=data.shape,
        pixel_range=2**data.bits - 1,
        device=where,
        precision=identity.precision if where == identity.device else devices.pick_precision("auto", where),
        images=folder.images if folder.has_committee else None,
    )
    return replace(committee, value_range=data.value_range)


def form_committee(
    weights: Mapping[int, Mapping[str, Tensor]],
    recipe: Recipe,
    rule: CombinationRule,
    *,
    class_names: tuple[str, ...],
    image_shape: tuple[int, int, int],
    pixel_range: int,
    device: str,
    precision: str,
    images: ImagesRecord | None = None,
) -> Committee:
    """A committee from its members' weights.

    Args:
        weights: tensors by name, for each member's number; those of the recipe's network.
        recipe: what was trained.
        rule: how members become one.
        class_names, image_shape, pixel_range: of the training's data set.
        device, precision: of the predictions.
        images: what the training images look like, where that is known.
    """
    height, width, channels = image_shape
    networks = []
    for member, tensors in weights.items():
        network = build(
            recipe.network.of_member(member), (channels, height, width), len(class_names), torch.Generator()
        )
        network.load_state_dict(dict(tensors))
        moved: nn.Module = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        networks.append(moved.eval())
    return Committee(
        tuple(networks),
        class_names,
        image_shape,
        pixel_range,
        rule,
        device,
        precision,
        recipe.committee.tta,
        recipe.committee.tta_confidence,
        images=images or ImagesRecord(),
    )
