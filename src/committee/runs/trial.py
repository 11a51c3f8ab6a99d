"""What trainings cost on this machine, measured by short ones: a few seconds each.

`training_costs` trains on a few images, with as many members side by side as a run has: seconds an image, seconds of a
start, bytes of a process. `end_costs` writes the page of such a run: seconds of a report. `committee.runs.cost` makes
predictions of them. Test images are not touched: those of the trial's run are a few of the training images.
"""

from __future__ import annotations

import math
import os
import time
from dataclasses import dataclass, field, replace
from statistics import fmean

import numpy as np

from committee import disk
from committee.config.recipe import Recipe, Schedule
from committee.data.dataset import ImageDataset, SealedTest
from committee.data.splits import stratified_part
from committee.ensemble.combine import CombinationRule
from committee.ensemble.size_curve import curve_sizes, size_curve
from committee.ensemble.temperature import fit_temperature
from committee.errors import TrainingError
from committee.folders.run_folder import RunFolder
from committee.nn.summary import layer_table, totals
from committee.nn.views import Views
from committee.rng import numpy_generator
from committee.runs.process_memory import memory, tree
from committee.runs.run import train_plan
from committee.temporary import temporary_folder
from committee.training.executors import executor_for
from committee.training.jobs import EpochDone, Event, Finished
from committee.training.pipeline import Outcome, train_members
from committee.training.plan import TrainingPlan
from committee.training.setting import Setting
from committee.training.shared_images import shared

STEPS = (10, 20)  # of a trial's epoch: of a network of many multiply-adds, of one of few
EPOCH_MULTIPLY_ADDS = 2e10  # forward, that an epoch of the trial has, where these steps allow it
STACKED = 4  # members of a trial on CUDA, where all members train at once
MOST_AT_ONCE = 20
CHECKPOINT_BYTES = 4_000_000  # that are written to see how fast the disk is
END_IMAGES = 600  # of the run whose page is written
VALUES = 400_000  # of the probabilities that are combined


@dataclass(frozen=True)
class TrainingCosts:
    """What a trial found. Seconds are those of one member while `at_once` train side by side.

    Attributes:
        image, plain_image: of a step, for each of its images: augmented, and as they are.
        statistics_image: a training image's share of the pass that estimates batch normalisation's statistics.
        predicted_image: an image's prediction, in one view.
        start: seconds from the jobs to trained steps, less these steps: importing, first calls.
        written_byte: seconds for each byte of a checkpoint.
        base_bytes: own memory of all processes but the workers, or of the one that trains.
        worker_bytes: own memory of a worker; 0 where members train in this process.
    """

    at_once: int
    image: float
    plain_image: float
    statistics_image: float
    predicted_image: float
    start: float
    written_byte: float = 0.0
    base_bytes: int = 0
    worker_bytes: int = 0

    @property
    def images_per_second(self) -> float:
        """Of a step, augmented."""
        return 1 / self.image


@dataclass(frozen=True)
class EndCosts:
    """What follows the training.

    Attributes:
        page: seconds for the results, tables, figures and page of two members and a few hundred images.
        combined_value: seconds for one probability of one member, each time that members are combined.
        tempered_value: seconds for one of the committee's probabilities, for each temperature that is fitted.
        page_bytes: own memory of this process with all that draws the page.
    """

    page: float
    combined_value: float
    tempered_value: float
    page_bytes: int = 0


@dataclass
class _Clock:
    """When the events of a trial came, and how much memory its processes had at the first member's end."""

    began: float = field(default_factory=time.perf_counter)
    first_epoch: dict[int, float] = field(default_factory=dict)
    last_epoch: dict[int, float] = field(default_factory=dict)
    finished: dict[int, float] = field(default_factory=dict)
    own_bytes: list[int] = field(default_factory=list)

    def __call__(self, event: Event) -> None:
        now = time.perf_counter()
        if isinstance(event, EpochDone):
            self.first_epoch.setdefault(event.member, now)
            self.last_epoch[event.member] = now
        elif isinstance(event, Finished):
            self.finished[event.member] = now
            self.own_bytes = self.own_bytes or [memory(each)[1] for each in tree(os.getpid())]


def training_costs(dataset: ImageDataset, recipe: Recipe, setting: Setting) -> TrainingCosts:
    """Train a few short epochs on a few images, side by side as in the run.

    The first epoch warms up. The second one counts, and a third one without augmentation where the recipe has such.

    Args:
        dataset: its training images are drawn from.
        recipe: what is trained; of a schedule of stages the batch size of `training` is tried.
        setting: of the run; its workers train side by side.

    Raises:
        TrainingError: the trial failed.
    """
    setting = setting.resolved(MOST_AT_ONCE)
    at_once = STACKED if setting.device == "cuda" else setting.workers
    members = math.ceil(len(recipe.network.kernels) / at_once) * at_once  # each size of kernels
    plain = recipe.augmentation.active and recipe.augmentation.no_aug_epochs > 0
    short = shortened(recipe, 2 + plain, no_aug_epochs=int(plain))
    chosen = numpy_generator(setting.seed, "trial").permutation(len(dataset.train))[: trial_images(dataset, recipe)]
    few = replace(dataset, train=dataset.train.part(np.sort(chosen)))
    trial = TrainingPlan(few, short, setting, [np.empty(0, dtype=np.int64)] * members)
    with shared(few.train) as (images,):
        assert images is not None
        clock = _Clock()
        try:
            outcomes = train_members(
                trial.jobs(images, None, None), executor_for(setting, at_once), "raise", on_event=clock
            )
        except TrainingError as error:
            raise TrainingError(f"the trial of this machine's speed failed: {error}") from None
    return _costs(outcomes, clock, len(few.train), at_once, len(recipe.network.kernels), recipe)


def _costs(
    outcomes: list[Outcome], clock: _Clock, images: int, at_once: int, kernels: int, recipe: Recipe
) -> TrainingCosts:
    """The costs, each the mean over the sizes of kernels."""
    histories = [outcome.trained.history for outcome in outcomes if outcome.trained]
    second = [history[1] for history in histories]
    of_first = range(min(at_once, len(histories)))

    def mean(values: list[float]) -> float:
        return fmean(fmean(values[size::kernels]) for size in range(kernels))

    statistics = [max(epoch.seconds - images / epoch.images_per_second, 0.0) for epoch in second]
    predicting = [clock.finished[member] - clock.last_epoch[member] for member in range(len(histories))]
    own = clock.own_bytes or [0]
    workers = own[-at_once:] if at_once > 1 and len(own) > at_once else []
    return TrainingCosts(
        at_once=at_once,
        image=mean([1 / epoch.images_per_second for epoch in second]),
        plain_image=mean([1 / history[-1].images_per_second for history in histories]),
        statistics_image=mean([seconds / images for seconds in statistics]),
        predicted_image=mean([seconds / images / views(recipe) for seconds in predicting]),
        start=max(fmean(clock.first_epoch[member] - clock.began - second[member].seconds for member in of_first), 0.0),
        written_byte=written_byte(),
        base_bytes=sum(own) - sum(workers),
        worker_bytes=round(fmean(workers)) if workers else 0,
    )


def views(recipe: Recipe) -> float:
    """How many views of an image a member's prediction takes, roughly."""
    return Views(recipe.committee.tta, recipe.committee.tta_confidence).cost


def shortened(recipe: Recipe, epochs: int, no_aug_epochs: int = 0) -> Recipe:
    """The recipe for so few epochs, without anything that selects one of them."""
    training = recipe.training.model_copy(update={"epochs": epochs, "patience": 0, "checkpoint": "last"})
    augmentation = recipe.augmentation.model_copy(update={"no_aug_epochs": no_aug_epochs})
    return recipe.model_copy(update={"training": training, "schedule": Schedule(), "augmentation": augmentation})


def trial_images(dataset: ImageDataset, recipe: Recipe) -> int:
    """How many images an epoch of the trial has: fewer where the network has more multiply-adds."""
    multiply_adds = totals(layer_table(recipe.network, dataset.image_shape, len(dataset.class_names)))[1]
    fewest, most = STEPS
    steps = min(max(round(EPOCH_MULTIPLY_ADDS / multiply_adds / recipe.training.batch_size), fewest), most)
    return min(len(dataset.train), steps * recipe.training.batch_size)


def written_byte() -> float:
    """Seconds for a byte of a file that is whole or not there, as checkpoints are."""
    with temporary_folder(CHECKPOINT_BYTES, "a file to see how fast the disk is") as folder:
        began = time.perf_counter()
        disk.write(folder / "checkpoint", bytes(CHECKPOINT_BYTES))
        return (time.perf_counter() - began) / CHECKPOINT_BYTES


def end_costs(dataset: ImageDataset, recipe: Recipe, setting: Setting) -> EndCosts:
    """Train two members on a few images for an epoch and write all that follows a training, into a temporary folder.

    A third of these few training images are the test images of that run.

    Raises:
        TrainingError: the trial failed.
    """
    train, classes = dataset.train, len(dataset.class_names)
    rng = numpy_generator(setting.seed, "trial", "end")
    share = min(END_IMAGES / len(train), 0.999)
    chosen = rng.permutation(stratified_part(train.labels, share, rng) if len(train) > 2 else np.arange(len(train)))
    few, tested = train.part(np.sort(chosen[len(chosen) // 3 :])), train.part(np.sort(chosen[: len(chosen) // 3]))
    tiny = replace(dataset, train=few, test=SealedTest(tested))
    short = shortened(recipe, 1)
    short = short.model_copy(update={"committee": recipe.committee.model_copy(update={"members": 2})})
    halves = [np.arange(start, len(few), 2) for start in (0, 1)]
    plan = TrainingPlan(tiny, short, replace(setting, workers=1).resolved(1), halves)
    clock = _Clock()
    with temporary_folder(50_000_000, "the page of a trial") as folder:
        train_plan(plan, RunFolder(folder / "trial"), on_event=clock)
        page = time.perf_counter() - max(clock.finished.values())
    return EndCosts(page, *combining_costs(classes), memory(os.getpid())[1])


def combining_costs(classes: int) -> tuple[float, float]:
    """Seconds to combine one member's probability once, and to fit a temperature to one of the committee's."""
    members, images = 4, max(VALUES // 4 // classes, 50)
    rng = numpy_generator("trial", "combining", classes)
    probabilities = rng.dirichlet(np.ones(classes), (members, images)).astype(np.float32)
    labels = rng.integers(classes, size=images)
    began = time.perf_counter()
    size_curve(probabilities, labels, CombinationRule().combine, rng)
    ended = time.perf_counter()
    fit_temperature(probabilities[0], labels)
    fitted = time.perf_counter() - ended
    combined = sum(size * tries for size, tries in curve_sizes(len(probabilities)))
    return (ended - began) / (combined * probabilities[0].size), fitted / probabilities[0].size
