"""The cost model: a recipe, the sizes of a data set and what a trial measured -> seconds, bytes, multiply-adds.

A member costs its steps, the pass for batch normalisation's statistics, a prediction of its validation images after
each epoch and of all images at its end, and its checkpoints. A run's end costs its page, the test images' predictions,
and all the combinations of members that calibration and size curves make. `committee.runs.cluster` puts members on
nodes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import fmean

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.ensemble.size_curve import curve_sizes
from committee.ensemble.temperature import some_sizes
from committee.nn.summary import layer_table, totals
from committee.runs.trial import EndCosts, TrainingCosts, views
from committee.training.jobs import CHECKPOINT_COST
from committee.training.loop import STATISTICS_STEPS

BACKWARD = 2  # forward passes' multiply-adds that the gradients of a step take: of the inputs, of the weights
TEMPERATURES = 46  # that the search of `ensemble.temperature.fit_temperature` tries
FLOAT = 4  # bytes
COMBINED_BYTES = 24  # of a probability while members are combined: float32 four times, float64 once
OPTIMISER_COPIES = {"sgd": 1, "muon": 1, "rmsprop": 1, "adagrad": 1}  # of the weights, in a checkpoint; others have 2


@dataclass(frozen=True)
class Sizes:
    """What the model needs to know of data set and network.

    Attributes:
        image_bytes: of one image's pixels.
        parameters, multiply_adds: of one network, the latter for one image's forward pass; means over the members' turn
            of kernels.
    """

    images: int
    test_images: int
    image_bytes: int
    classes: int
    parameters: int
    multiply_adds: int


@dataclass(frozen=True)
class Work:
    """What one member does, in images: trained on with augmentation and without, passed through for statistics,
    predicted (views counted)."""

    augmented: int
    plain: int
    statistics: int
    predicted: int


def sizes_of(dataset: ImageDataset, recipe: Recipe) -> Sizes:
    """The sizes of a data set and of a recipe's network on it.

    Raises:
        RecipeError: the network does not fit the images.
    """
    networks = [recipe.network.of_member(member) for member in range(len(recipe.network.kernels))]
    found = [totals(layer_table(network, dataset.image_shape, len(dataset.class_names))) for network in networks]
    parameters, multiply_adds = (round(fmean(each)) for each in zip(*found, strict=True))
    pixels = dataset.train.pixels
    return Sizes(
        images=len(dataset.train),
        test_images=len(dataset.test),
        image_bytes=math.prod(pixels.shape[1:]) * pixels.itemsize,
        classes=len(dataset.class_names),
        parameters=parameters,
        multiply_adds=multiply_adds,
    )


def validation_share(recipe: Recipe) -> float:
    """The share of the training images that a member does not train on."""
    return {"folds": 1 / recipe.holdout.folds, "none": 0.0}.get(recipe.holdout.kind, recipe.holdout.fraction)


def work_of(recipe: Recipe, images: int) -> Work:
    """What one member does with so many training images, if it does not stop early."""
    validated = round(images * validation_share(recipe))
    trained = max(images - validated, 1)
    settings, epochs = recipe.augmentation, recipe.training.epochs
    augmented = plain = statistics = steps = 0
    for number in range(epochs):
        stage = recipe.stage_at(number)
        if settings.active and stage.augment and number < epochs - settings.no_aug_epochs:
            augmented += trained
        else:
            plain += trained
        steps += math.ceil(trained / min(stage.batch_size or recipe.training.batch_size, max(8, trained // 10)))
        statistics += trained * (steps <= STATISTICS_STEPS)
    return Work(augmented, plain, statistics, epochs * validated + round(views(recipe) * images))


def member_seconds(costs: TrainingCosts, recipe: Recipe, sizes: Sizes, checkpoint_seconds: float = 30.0) -> float:
    """How long a member takes once its worker is warm, checkpoints included."""
    work = work_of(recipe, sizes.images)
    seconds = (
        work.augmented * costs.image
        + work.plain * costs.plain_image
        + work.statistics * costs.statistics_image
        + work.predicted * costs.predicted_image
    )
    written = costs.written_byte * checkpoint_bytes(recipe, sizes)
    every = max(checkpoint_seconds, written / CHECKPOINT_COST)
    return seconds + written * (seconds // every if every else 0)


def checkpoint_bytes(recipe: Recipe, sizes: Sizes) -> int:
    """The size of a checkpoint: the weights, the best epoch's, the optimiser's state, perhaps the average."""
    copies = 2 + OPTIMISER_COPIES.get(recipe.optimiser.name, 2) + (recipe.training.ema > 0)
    return FLOAT * sizes.parameters * copies


def member_multiply_adds(recipe: Recipe, sizes: Sizes) -> int:
    """The multiply-adds of one member: a step takes three forward passes' of each image, a prediction one."""
    work = work_of(recipe, sizes.images)
    return sizes.multiply_adds * ((1 + BACKWARD) * (work.augmented + work.plain) + work.statistics + work.predicted)


def member_bytes(sizes: Sizes) -> int:
    """What a finished member stores, and sends where it is another node's: weights, probabilities of all images."""
    return FLOAT * (sizes.parameters + sizes.classes * (sizes.images + sizes.test_images))


# --- after the training -----------------------------------------------------------------------------------------------


def end_seconds(end: EndCosts, costs: TrainingCosts, recipe: Recipe, sizes: Sizes, members: int, cores: int) -> float:
    """How long everything after the last member takes on the node where the run folder is."""
    predicting = members * sizes.test_images * views(recipe) * costs.predicted_image / min(cores, members)
    combined, tempered = combinations(recipe, sizes, members)
    return end.page + predicting + combined * end.combined_value + tempered * end.tempered_value


def combinations(recipe: Recipe, sizes: Sizes, members: int) -> tuple[int, int]:
    """How many members' probabilities are combined after a training, and how many of the committee's are fitted.

    Calibration combines as many members as may predict an image, one after the other; each size curve combines many
    committees of each size. See `committee.ensemble.temperature` and `committee.ensemble.size_curve`.
    """
    share = validation_share(recipe)
    held_out = sizes.classes * round(sizes.images * min(members * share, 1.0))
    calibrated = some_sizes(math.ceil(members * share)) if recipe.committee.calibration == "temperature" else []
    out_of_fold = held_out * (sum(calibrated) + _curve(round(members * share)))
    on_test = sizes.classes * sizes.test_images * _curve(members)
    return out_of_fold + on_test, len(calibrated) * held_out


def _curve(largest: int) -> int:
    """How many members the committees of a size curve up to so many have, all together."""
    return sum(size * committees for size, committees in curve_sizes(largest))


# --- memory -----------------------------------------------------------------------------------------------------------


def node_bytes(costs: TrainingCosts, sizes: Sizes, workers: int) -> int:
    """Own memory of a node while its workers train: processes, the images, their order and predictions.

    The images are a mapped file, whose pages the system can drop; with less room than this, they are read again.
    """
    growing = sizes.images * (8 + 2 * FLOAT * sizes.classes)
    each = costs.worker_bytes * workers if costs.worker_bytes else 0
    return costs.base_bytes + each + workers * growing + sizes.images * sizes.image_bytes


def end_bytes(end: EndCosts, sizes: Sizes, members: int) -> int:
    """Own memory of the node that evaluates the run: all members' probabilities, several times."""
    values = members * max(sizes.images, sizes.test_images) * sizes.classes
    return end.page_bytes + COMBINED_BYTES * values + sizes.images * sizes.image_bytes
