"""What training a recipe costs, so that recipes compete at equal cost instead of the largest one winning."""

from __future__ import annotations

from committee.config.recipe import Recipe
from committee.nn.summary import layer_table, totals

PER_MILLION_MULTIPLY_ADDS = 19.0
PER_PIXEL = 0.06
PER_STEP = 500.0
PER_STEP_AND_THOUSAND_PARAMETERS = {"muon": 14.5}
OTHERS_PER_STEP_AND_THOUSAND_PARAMETERS = 3.0
"""Microseconds of a core of Zen 5, read off short trainings on a busy machine (docs/log.md). Only proportions count."""


def epoch_cost(recipe: Recipe, shape: tuple[int, int, int], classes: int, images: int) -> float:
    """What an epoch of one member costs for each training image, in about a microsecond of a core.

    The multiply-adds of the network, the pixels to be changed at random, and a share of the optimiser's step, which is
    what makes small batches dear. It is a formula and no measurement, so that the same search takes the same decisions
    wherever it runs.

    Args:
        recipe: of the member.
        shape: height, width, channels of an image.
        classes: their number.
        images: that a member trains on.
    """
    height, width, channels = shape
    sizes = [totals(layer_table(recipe.network.of_member(turn), shape, classes)) for turn in _turns(recipe)]
    parameters, multiply_adds = (sum(each) / len(sizes) for each in zip(*sizes, strict=True))
    batch: float = min(recipe.training.batch_size, max(8, images // 10))
    by_size = PER_STEP_AND_THOUSAND_PARAMETERS.get(recipe.optimiser.name, OTHERS_PER_STEP_AND_THOUSAND_PARAMETERS)
    step = PER_STEP + by_size * parameters / 1e3
    cost: float = PER_MILLION_MULTIPLY_ADDS * multiply_adds / 1e6 + PER_PIXEL * height * width * channels + step / batch
    return cost


def _turns(recipe: Recipe) -> range:
    """Members whose networks differ."""
    return range(len(recipe.network.kernels))


def at_equal_cost(recipe: Recipe, start: Recipe, allowed: float, shape: tuple[int, int, int], classes: int,
                  images: int) -> Recipe:  # fmt: skip
    """The recipe with as many epochs as make its training cost what is allowed, at least one.

    Args:
        recipe: of a trial; its own epochs do not count.
        start: the starting recipe.
        allowed: as a multiple of what training the starting recipe costs.
        shape, classes, images: as for `epoch_cost`.
    """
    whole = allowed * start.training.epochs * epoch_cost(start, shape, classes, images)
    epochs = max(1, round(whole / epoch_cost(recipe, shape, classes, images)))
    return recipe.model_copy(update={"training": recipe.training.model_copy(update={"epochs": epochs})})
