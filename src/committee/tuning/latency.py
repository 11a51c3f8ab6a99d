"""How long a recipe's committee takes for one image, before anything of it is trained."""

from __future__ import annotations

from collections.abc import Sequence

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.ensemble.combine import CombinationRule
from committee.ensemble.committee import Committee, form_committee
from committee.nn.architectures import build
from committee.rng import torch_generator
from committee.runs.distillation import measured_speeds
from committee.training.setting import Setting


def milliseconds(recipes: Sequence[Recipe], dataset: ImageDataset, setting: Setting) -> list[float]:
    """Of recipes side by side, in turns: the median time of an answer for one image, by all of its members.

    Weights do not change it, so that initial ones will do.

    Args:
        recipes: whose committees.
        dataset: whose images.
        setting: resolved: device and precision.
    """
    committees = [_untrained(recipe, dataset, setting) for recipe in recipes]
    return [round(speed.milliseconds, 4) for speed in measured_speeds(committees, dataset.train.pixels[:1])]


def _untrained(recipe: Recipe, dataset: ImageDataset, setting: Setting) -> Committee:
    """The committee of a recipe with initial weights."""
    height, width, channels = dataset.image_shape
    classes = len(dataset.class_names)
    weights = {
        member: build(
            recipe.network.of_member(member), (channels, height, width), classes, torch_generator("latency", member)
        ).state_dict()
        for member in range(recipe.committee.members)
    }
    return form_committee(
        weights,
        recipe,
        CombinationRule(),
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        pixel_range=dataset.pixel_range,
        device=setting.device,
        precision=setting.precision,
    )
