"""A trained committee: loaded from its run folder, used on images."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.data.dataset import Pixels
from committee.ensemble.calibrate import temper
from committee.ensemble.combine import combine
from committee.errors import DataError, RunError
from committee.folders import files as store
from committee.nn import devices
from committee.nn.architectures import build
from committee.nn.forward import Step, judge_of
from committee.training.jobs import member_probabilities, one_thread

FEW_IMAGES = 8  # that members judge one after the other: between so short calls Python's threads wait for each other


@dataclass(frozen=True, repr=False)
class Committee:
    """Members that judge images together.

    Attributes:
        networks: one a member, in evaluation mode, on `device`.
        class_names: one name a class.
        image_shape: (height, width, channels) that the members take.
        pixel_range: 255 for 8-bit images, 65535 for 16-bit ones.
        combination: "mean", "geometric", "weighted" or "vote"; see `committee.ensemble.combine`.
        weights: (member,) for "weighted".
        temperature: the fitted temperature; 1 changes nothing.
        tta: "horizontal_flip" averages over the mirror image, too; see `committee.config.recipe.CommitteeSection`.
    """

    networks: tuple[nn.Module, ...]
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    combination: str = "mean"
    weights: NDArray[np.float64] | None = None
    temperature: float = 1.0
    device: str = "cpu"
    precision: str = "float32"
    tta: str = "none"

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        return (
            f"<Committee of {len(self.networks)}: {size} images in {len(self.class_names)} classes, on {self.device}>"
        )

    def member_probabilities(self, pixels: Pixels) -> NDArray[np.float32]:
        """Each member's probabilities: (image, height, width, channel) -> (member, image, class) float32.

        Of many images members work beside each other, one core each. An image's figures depend neither on the number
        of cores nor on the other images.

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """
        expected = np.uint8 if self.pixel_range == 255 else np.uint16
        if pixels.ndim != 4 or tuple(pixels.shape[1:]) != self.image_shape or pixels.dtype != expected:
            raise DataError(
                f"images must be an array (image, {', '.join(map(str, self.image_shape))}) of {np.dtype(expected)}; "
                f"got {pixels.shape} of {pixels.dtype}; committee.data.readers.read_images converts files and arrays"
            )
        if len(pixels) == 0:
            return np.empty((len(self.networks), 0, len(self.class_names)), dtype=np.float32)

        def judged(judge: Step) -> NDArray[np.float32]:
            torch.set_flush_denormal(True)  # a thread's own setting; as in training
            return member_probabilities(judge, pixels, self.device, self.tta)

        with one_thread():
            if self.device != "cpu" or len(pixels) < FEW_IMAGES:
                return np.stack([judged(judge) for judge in self.judges])
            with ThreadPoolExecutor(devices.cores()) as pool:
                return np.stack(list(pool.map(judged, self.judges)))

    @cached_property
    def judges(self) -> tuple[Step, ...]:
        """The networks as functions, which prepare their weights when they are first used."""
        return tuple(judge_of(network, self.device, self.precision) for network in self.networks)

    def __getstate__(self) -> dict[str, Any]:
        """What is pickled: all but the functions, which are made anew."""
        return {name: value for name, value in self.__dict__.items() if name != "judges"}

    def combine(self, probabilities: NDArray[Any]) -> NDArray[np.float64]:
        """Members' probabilities made one, without temperature: (member, image, class) -> (image, class)."""
        return combine(probabilities, self.combination, self.weights)

    def answer(self, probabilities: NDArray[Any]) -> NDArray[np.float64]:
        """Members' probabilities made one and calibrated, as the whole committee answers."""
        combined = self.combine(probabilities)
        return combined if self.temperature == 1.0 else temper(combined, self.temperature)

    def predict_proba(self, pixels: Pixels) -> NDArray[np.float64]:
        """The committee's probabilities: (image, height, width, channel) -> (image, class).

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """
        return self.answer(self.member_probabilities(pixels))

    def predict(self, pixels: Pixels) -> list[str]:
        """The name of each image's most probable class.

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
        """
        return [self.class_names[choice] for choice in self.predict_proba(pixels).argmax(axis=1)]


def load(run: str | Path, *, device: str = "auto") -> Committee:
    """The committee of a finished run folder.

    Args:
        run: the folder that `committee train` wrote.
        device: where it shall judge; "auto" picks as training does. On the device kind and precision of the training
            it gives the same bits as then.

    Raises:
        RunError: the folder is missing, unfinished or damaged (weights are compared with the manifest).
    """
    run = Path(run)
    store.verify(run)
    facts, data = store.read_json(run / "committee.json"), store.read_json(run / "data.json")
    identity = store.read_json(run / "identity.json")
    where = devices.pick_device(device)
    recipe = recipes.load(str(run / "recipe.toml"))
    height, width, channels = data["shape"]
    networks = [
        load_network(run, member, recipe, (channels, height, width), len(data["class_names"]), where)
        for member in facts["members"]
    ]
    return Committee(
        networks=tuple(networks),
        class_names=tuple(data["class_names"]),
        image_shape=(height, width, channels),
        pixel_range=2 ** data["bits"] - 1,
        combination=facts["combination"],
        weights=np.asarray(facts["weights"]) if facts["weights"] else None,
        temperature=facts["temperature"] or 1.0,
        device=where,
        precision=identity["precision"] if where == identity["device"] else devices.pick_precision("auto", where),
        tta=recipe.committee.tta,
    )


def load_network(
    run: Path, member: int, recipe: Recipe, shape: tuple[int, int, int], classes: int, device: str
) -> nn.Module:
    """The network of a run's member, for (channel, height, width) images, with its stored weights.

    Raises:
        RunError: the weights do not fit the recipe's network; the message names the first tensor that differs.
    """
    folder = store.member_folder(run, member)
    network = build(recipe.network.of_member(member), shape, classes, torch.Generator())
    tensors = store.read_tensors(folder / "weights.safetensors")
    expected = network.state_dict()
    for name in (*expected, *tensors):
        there = tuple(tensors[name].shape) if name in tensors else "nothing"
        wanted = tuple(expected[name].shape) if name in expected else "nothing"
        if there != wanted:
            raise RunError(
                f"{folder / 'weights.safetensors'}: tensor {name} should be {wanted} and is {there}; the file "
                "belongs to another recipe, restore it or train again"
            )
    network.load_state_dict(tensors)
    moved: nn.Module = network.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    return moved.eval()
