"""The training loop for one member on one device. Read this first.

`fit` trains a network and selects the weights that the recipe asks for. All random numbers are drawn with keys (seed,
member, purpose, epoch), so that an epoch does not depend on the draws of those before it: a training that was
interrupted continues from a state after an epoch, or between two steps of one, and ends with the same bits as one that
was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from committee.config.recipe import Recipe, Training
from committee.data.dataset import Labels, Pixels
from committee.errors import counted
from committee.folders.records import EpochRecord
from committee.nn.architectures import build
from committee.nn.forward import Gradients, inference_forward, training_forward, training_gradients
from committee.nn.images import as_float, on_device, taken
from committee.nn.inference import predict_logits
from committee.rng import torch_generator
from committee.training.batches import epoch_batches, epoch_start, generators_at, scaling_of, whitening_filters
from committee.training.losses import loss_of, loss_on
from committee.training.meter import EpochMeter, EpochTotals
from committee.training.optim import lr_at, make_optimiser, set_lr
from committee.training.state import (
    EpochUnderWay,
    NonFiniteLossError,
    OptimiserState,
    StepProgress,
    Task,
    TrainedNetwork,
    TrainingState,
)

STATISTICS_STEPS = 100  # before so many steps, batch normalisation's running statistics are not usable yet
PROGRESS_SECONDS = 0.5


def fit(
    pixels: Pixels,
    labels: Labels,
    task: Task,
    *,
    resume: TrainingState | None = None,
    due: Callable[[], bool] = lambda: False,
) -> Iterator[StepProgress | TrainingState | TrainedNetwork]:
    """Train one member.

    Args:
        pixels: (image, height, width, channel), all training images of the data set; may be memory-mapped.
        labels: (image,), their classes.
        task: which of the images to train and validate on, and how.
        resume: an earlier state of the same task, to continue from.
        due: asked after each step: whether a state is wanted in the middle of the epoch.

    Yields:
        StepProgress about twice a second; the TrainingState after each epoch, whose last history record is that
        epoch's; a TrainingState with an epoch under way after a step when it is due; last of all, the TrainedNetwork.
        The next step changes a state's tensors, so store them at once.

    Raises:
        NonFiniteLossError: the training or validation loss became infinite or not a number.
    """
    member = new_member(pixels, labels, task, resume)
    state = resume or TrainingState.initial(task.first_epoch)
    while state.epoch < task.last_epoch and not stops_early(state, task.recipe.training):
        totals = yield from train_epoch(member, state, due)
        record = evaluate_epoch(member.evaluated, member.images, member.targets, task, state.epoch + 1, totals)
        state = after_epoch(state, record, member.network, member.evaluated, member.optimiser, task.recipe)
        yield state
    yield trained(member.network, state, task)


# --- a member and its steps -------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Member:
    """A member during its training, everything on the task's device.

    Attributes:
        images, targets: (image, height, width, channel) and (image,), all of the data set's training images.
        gradients: of a batch's loss as a function, which writes them to `network`'s parameters.
        average: the moving average of the weights, where the recipe asks for one.
    """

    task: Task
    images: Tensor
    targets: Tensor
    network: nn.Module
    gradients: Gradients
    optimiser: torch.optim.Optimizer
    average: MovingAverage | None

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and whose weights are selected: the moving average, where there is one."""
        return self.average.network if self.average else self.network


def new_member(pixels: Pixels, labels: Labels, task: Task, resume: TrainingState | None) -> Member:
    """A member before its first epoch, or as it was in the state to resume from."""
    images, targets = on_device(pixels, task.device), torch.from_numpy(labels).to(task.device)
    network = new_network(pixels, task)
    optimiser = make_optimiser(task.recipe.optimiser, network)
    decay = task.recipe.training.ema
    average = MovingAverage(network, decay) if decay else None
    gradients = training_gradients(network, task.device, task.precision)
    if resume:
        network.load_state_dict(resume.network)
        load_optimiser(optimiser, resume.optimiser)
        if average:
            average.network.load_state_dict(resume.average)
    return Member(task, images, targets, network, gradients, optimiser, average)


def new_network(pixels: Pixels, task: Task) -> nn.Module:
    """A member's network on its device: with the task's initial weights, or else with random ones and the scaling (and
    perhaps whitening filters) of its training images.
    """
    height, width, channels = pixels.shape[1:]
    generator = torch_generator(task.seed, "member", task.member, "weights")
    network = build(task.recipe.network.of_member(task.member), (channels, height, width), task.classes, generator)
    if task.start is not None:
        network.load_state_dict(task.start)
    else:
        network[0] = scaling = scaling_of(pixels, task.train, task.recipe.input.scaling)
        if task.recipe.network.stem == "whitening":
            first = network[1]
            assert isinstance(first, nn.Conv2d)  # the recipe sees to that
            shape = first.out_channels, int(first.kernel_size[0])
            first.weight.data = whitening_filters(scaling, pixels, task.train, *shape)
    return network.to(task.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload, no-any-return]


def load_optimiser(optimiser: torch.optim.Optimizer, stored: OptimiserState) -> None:
    """Restore an optimiser, its tensors laid out in memory like their parameters.

    torch's fused kernels go through a parameter and its moments in memory order, so that moments in another order would
    be paired with the wrong weights (as happened with channels-last convolutions and a checkpoint, whose tensors are
    contiguous).
    """
    optimiser.load_state_dict(stored)
    for parameter, slots in optimiser.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


class MovingAverage:
    """An exponential moving average of a network's weights and running statistics.

    Averaging goes back to Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging", doi
    10.1137/0330046. The decay of step t, counted from 0, is min(decay, (1 + t) / (10 + t)), as in TensorFlow's
    ExponentialMovingAverage, so that the initial weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.decay = decay

    @torch.no_grad()
    def update(self, network: nn.Module, step: int) -> None:
        """Move the average towards the weights after a step."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)


def train_epoch(
    member: Member, state: TrainingState, due: Callable[[], bool]
) -> Generator[StepProgress | TrainingState, None, EpochTotals]:
    """The steps of the epoch after a state, or those that are left of it; the state after a step whenever it is due."""
    task, recipe, optimiser, epoch = member.task, member.task.recipe, member.optimiser, state.epoch + 1
    start, peak = state.under_way or epoch_start(task, epoch), peak_lr(task, epoch, state)
    steps, steps_before, all_steps = task.steps(epoch), task.steps_before(epoch), task.steps_before(task.last_epoch + 1)
    meter, last_report = EpochMeter(start, task.device), 0.0
    generators = generators_at(start, member.network, task.device)
    member.network.train()
    batches = epoch_batches(member.images, member.targets, task, epoch, generators.augmentation, start.step)
    for step, batch in enumerate(batches, start.step):
        lr = lr_at(steps_before + step, all_steps, recipe.schedule, peak)
        set_lr(optimiser, lr)
        loss, logits = member.gradients(batch.images, loss_on(batch, recipe.training))
        optimiser.step()
        if member.average:
            member.average.update(member.network, steps_before + step)
        meter.add(loss, logits, batch.targets, lr)
        if (now := time.perf_counter()) - last_report > PROGRESS_SECONDS:
            last_report = now
            yield StepProgress(task.member, epoch, step + 1, steps, meter.mean_loss)
        if due():
            yield in_epoch(state, member, meter.under_way(generators))
    return meter.totals()


def in_epoch(state: TrainingState, member: Member, under_way: EpochUnderWay) -> TrainingState:
    """The state between two steps of the epoch after `state`."""
    return replace(
        state,
        network=member.network.state_dict(),
        optimiser=member.optimiser.state_dict(),
        average=member.average.network.state_dict() if member.average else {},
        under_way=under_way,
    )


# --- evaluation after an epoch ----------------------------------------------------------------------------------------


class Score(NamedTuple):
    """Mean loss and accuracy on some images; None where there are no images."""

    loss: float | None
    accuracy: float | None


def evaluate_epoch(
    network: nn.Module, images: Tensor, targets: Tensor, task: Task, epoch: int, totals: EpochTotals
) -> EpochRecord:
    """Evaluate a network on its validation images after an epoch.

    In the first STATISTICS_STEPS steps of a training, batch normalisation's statistics are estimated before that.

    Args:
        network: with the weights after the epoch, or their moving average.
        images, targets: (image, height, width, channel) and (image,), all training images of the data set, on the
            device.
        task: which of them are the validation images.
        epoch: its number.
        totals: of its steps.

    Raises:
        NonFiniteLossError: the training or validation loss is infinite or not a number.
    """
    require_finite(totals.loss, "training", epoch)
    if task.steps_before(epoch + 1) <= STATISTICS_STEPS:
        estimate_statistics(network, images, task, epoch)
    score = evaluate(network, images, targets, task.validation, task)
    if score.loss is not None:
        require_finite(score.loss, "validation", epoch)
    return EpochRecord(
        epoch=epoch,
        seconds=round(time.perf_counter() - totals.began, 3),
        images_per_second=round(totals.images / totals.seconds, 1),
        learning_rate=totals.lr,
        train_loss=totals.loss,
        train_accuracy=totals.correct / totals.images,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
    )


def require_finite(loss: float, part: str, epoch: int) -> None:
    """Raise NonFiniteLossError unless a loss is finite."""
    if not math.isfinite(loss):
        raise NonFiniteLossError(f"the {part} loss became {loss} in epoch {epoch}")


@torch.no_grad()
def estimate_statistics(network: nn.Module, images: Tensor, task: Task, epoch: int) -> None:
    """Set batch normalisation's means and variances to those of the member's training images, in one pass without
    augmentation and dropout.

    Running statistics start at 0 and 1 and move a tenth of the way with each step: after a few steps, as on very small
    data sets, they are far from those of the batches, and predictions would be random.
    """
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    network.eval()  # no dropout
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
    forward = training_forward(network, task.device, task.precision)
    positions = torch.from_numpy(task.train).to(task.device)
    for chosen in positions.tensor_split(max(len(task.train) // task.batch_size(epoch), 1)):
        forward(as_float(taken(images, chosen)))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def evaluate(network: nn.Module, images: Tensor, targets: Tensor, positions: NDArray[np.int64], task: Task) -> Score:
    """A network's mean loss (the recipe's, without label smoothing) and accuracy on some of the images.

    Args:
        network: put into evaluation mode by this.
        images, targets: (image, height, width, channel) and (image,), on the device.
        positions: (position,), which of them.
        task: for the recipe, device and precision.
    """
    if len(positions) == 0:
        return Score(None, None)
    logits = predict_logits(inference_forward(network, task.device, task.precision), images, positions)
    expected = targets[torch.from_numpy(positions).to(targets.device)].cpu()
    unsmoothed = task.recipe.training.model_copy(update={"label_smoothing": 0.0})
    loss, accuracy = loss_of(logits, expected, unsmoothed), (logits.argmax(1) == expected).float().mean()
    return Score(float(loss), float(accuracy))


# --- from one state to the next ---------------------------------------------------------------------------------------


def after_epoch(
    state: TrainingState,
    record: EpochRecord,
    network: nn.Module,
    evaluated: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
) -> TrainingState:
    """The state after one more epoch.

    Args:
        state: after the epoch before, or in the middle of this one.
        record: the epoch's, with the scores of `evaluated`; it also gets the next epoch's learning rate where the
            plateau schedule reduces that.
        network: whose training goes on.
        evaluated: whose weights are selected: the same network, or the moving average.
        optimiser: of the training.
        recipe: which epoch to select, what the schedule monitors.
    """
    with_best = with_best_weights(state, record, evaluated, recipe.training)
    advanced = with_plateau(with_lowest_loss(with_best, record), record, recipe)
    if advanced.lr_factor < state.lr_factor:
        record = record.model_copy(update={"lr_reduced_to": reduced_lr(recipe, advanced.lr_factor)})
    return replace(
        advanced,
        epoch=record.epoch,
        network=network.state_dict(),
        optimiser=optimiser.state_dict(),
        average={} if evaluated is network else evaluated.state_dict(),
        history=(*state.history, record),
        under_way=None,
    )


def with_best_weights(
    state: TrainingState, record: EpochRecord, evaluated: nn.Module, training: Training
) -> TrainingState:
    """The state with a copy of the epoch's weights, if they are better than the best before, or always the last."""
    score = merit(record, training.checkpoint.removeprefix("best_"))
    if score <= state.best_score:
        return state
    weights = {name: tensor.detach().clone() for name, tensor in evaluated.state_dict().items()}
    return replace(state, best_weights=weights, best_epoch=record.epoch, best_score=score)


def with_lowest_loss(state: TrainingState, record: EpochRecord) -> TrainingState:
    """The state with the lowest validation loss so far, and the epochs since then."""
    loss = record.validation_loss
    if loss is not None and loss < state.lowest_loss:
        return replace(state, lowest_loss=loss, epochs_since_lowest=0)
    return replace(state, epochs_since_lowest=state.epochs_since_lowest + 1)


def with_plateau(state: TrainingState, record: EpochRecord, recipe: Recipe) -> TrainingState:
    """The state with the learning rate reduced, if it is time for that; without a plateau schedule, the same state."""
    schedule = recipe.schedule
    if schedule.name != "plateau":
        return state
    monitored, factor = merit(record, schedule.monitor), state.lr_factor
    epochs = 0 if monitored > state.best_monitored else state.epochs_since_improvement + 1
    if epochs >= schedule.patience and reduced_lr(recipe, factor) > schedule.min_lr:
        factor, epochs = factor * schedule.factor, 0
    best = max(state.best_monitored, monitored)
    return replace(state, lr_factor=factor, best_monitored=best, epochs_since_improvement=epochs)


def merit(record: EpochRecord, name: str) -> float:
    """What epochs are compared by, greater is better: "last", "validation_accuracy" or "validation_loss"."""
    loss = record.validation_loss
    value = {
        "last": float(record.epoch),
        "validation_accuracy": record.validation_accuracy,
        "validation_loss": None if loss is None else -loss,
    }[name]
    assert value is not None  # the recipe sees to that: without validation images only "last" is allowed
    return value


def reduced_lr(recipe: Recipe, factor: float) -> float:
    """The learning rate that the plateau schedule has left."""
    return max(recipe.optimiser.lr * factor, recipe.schedule.min_lr)


def peak_lr(task: Task, epoch: int, state: TrainingState) -> float:
    """The learning rate that the schedule starts from in an epoch: the stage's, or what plateaus have left of it."""
    return reduced_lr(task.recipe, state.lr_factor) if state.lr_factor < 1 else task.stage(epoch).lr


def stops_early(state: TrainingState, training: Training) -> bool:
    """Whether the validation loss has not been lower for as many epochs as the recipe's patience."""
    return training.patience > 0 and state.epochs_since_lowest >= training.patience


def trained(network: nn.Module, state: TrainingState, task: Task) -> TrainedNetwork:
    """The member after its last epoch; the network gets the selected weights."""
    training = task.recipe.training
    remark = f"all {counted(training.epochs, 'epoch')}"
    if state.epoch < task.last_epoch:
        remark = f"early stopping: validation loss not lower for {counted(training.patience, 'epoch')}"
    network.load_state_dict(state.best_weights)
    return TrainedNetwork(network.eval(), state.best_epoch, state.history, remark)
