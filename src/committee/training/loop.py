"""THE loop: one member, one device. Read this first.

`fit` trains one network and keeps the weights that the recipe asks for. All its randomness comes from keys
(seed, member, purpose, epoch), so an epoch can be repeated alone: a training that was interrupted goes on from the
state after its last whole epoch and ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee.config.recipe import Recipe, Training
from committee.data.dataset import Labels, Pixels
from committee.folders.records import EpochRecord
from committee.nn.architectures import build
from committee.nn.forward import Forward, inference_forward, training_forward
from committee.nn.images import as_float, on_device
from committee.nn.inference import predict_logits
from committee.rng import torch_generator
from committee.training.batches import epoch_batches, scaling_of, whitening_filters
from committee.training.optim import lr_at, make_optimiser, set_lr
from committee.training.state import (
    NonFiniteLossError,
    OptimiserState,
    StepProgress,
    Task,
    TrainedNetwork,
    TrainingState,
)

STATISTICS_STEPS = 100  # until then, batch normalisation's running statistics are too young to be used
PROGRESS_SECONDS = 0.5


class Score(NamedTuple):
    """Mean loss and accuracy on the validation images; None without any."""

    loss: float | None
    accuracy: float | None


class Member:
    """What a member's training works with: network, optimiser, moving average, images on the device."""

    def __init__(self, pixels: Pixels, labels: Labels, task: Task, resume: TrainingState | None) -> None:
        self.task = task
        self.images = on_device(pixels, task.device)
        self.targets = torch.from_numpy(labels).to(task.device)
        self.network = new_network(pixels, task)
        self.optimiser = make_optimiser(task.recipe.optimiser, self.network)
        ema = task.recipe.training.ema
        self.average = MovingAverage(self.network, ema) if ema else None
        self.forward = training_forward(self.network, task.device, task.precision)
        self.steps = task.steps_before(task.last_epoch + 1)
        if resume:
            self.network.load_state_dict(resume.network)
            load_optimiser(self.optimiser, resume.optimiser)
            if self.average:
                self.average.network.load_state_dict(resume.average)

    @property
    def evaluated(self) -> nn.Module:
        """The network whose weights are evaluated and kept: the moving average, where there is one."""
        return self.average.network if self.average else self.network


class EpochSums:
    """Sums over the steps of an epoch, on the device, so that no step waits for them."""

    def __init__(self, device: str) -> None:
        double = torch.float32 if device == "mps" else torch.float64  # Apple's GPUs have no float64
        self.loss = torch.zeros((), dtype=double, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.images, self.lr = 0, 0.0

    def add(self, loss: Tensor, logits: Tensor, targets: Tensor, lr: float) -> None:
        """Count a step."""
        self.loss += loss.detach().to(self.loss) * len(targets)
        self.correct += (logits.detach().argmax(1) == targets).sum()
        self.images += len(targets)
        self.lr = lr

    @property
    def mean_loss(self) -> float:
        """Over the images so far; waits for the device."""
        return float(self.loss) / self.images


def fit(
    pixels: Pixels, labels: Labels, task: Task, *, resume: TrainingState | None = None
) -> Iterator[StepProgress | TrainingState | TrainedNetwork]:
    """Train one member.

    Args:
        pixels: (image, height, width, channel), all training images of the data set, possibly memory-mapped.
        labels: (image,).
        task: which of them to learn from, and how.
        resume: the state after an earlier epoch of the same task.

    Yields:
        StepProgress about twice a second; after each epoch the TrainingState, whose last history record is the epoch's;
        last, the TrainedNetwork.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
    """
    member = Member(pixels, labels, task, resume)
    training = task.recipe.training
    state = resume or TrainingState.initial(task.first_epoch)
    remark = f"all {training.epochs} epochs"
    while state.epoch < task.last_epoch:
        if training.patience and state.epochs_since_lowest >= training.patience:
            remark = stopped_early(training)
            break
        epoch, began = state.epoch + 1, time.perf_counter()
        sums = EpochSums(task.device)
        yield from train_epoch(member, epoch, state, sums)
        record = evaluated_epoch(member, epoch, sums, began, time.perf_counter() - began)
        state = after_epoch(state, record, member.network, member.evaluated, member.optimiser, task.recipe)
        yield state
    member.network.load_state_dict(state.best_weights)
    yield TrainedNetwork(member.network.eval(), state.best_epoch, state.history, remark)


def stopped_early(training: Training) -> str:
    """Why a member stopped before its last epoch."""
    return f"early stopping: validation loss not lower for {training.patience} epochs"


def train_epoch(member: Member, epoch: int, state: TrainingState, sums: EpochSums) -> Iterator[StepProgress]:
    """All steps of one epoch, counted in `sums`."""
    task, recipe = member.task, member.task.recipe
    peak, steps, before = peak_lr(task, epoch, state), task.steps(epoch), task.steps_before(epoch)
    optimiser, last_report = member.optimiser, 0.0
    member.network.train()
    for step, (batch, targets) in enumerate(epoch_batches(member.images, member.targets, task, epoch, member.network)):
        lr = lr_at(before + step, member.steps, recipe.schedule, peak)
        set_lr(optimiser, lr)
        optimiser.zero_grad(set_to_none=False)
        logits = member.forward(batch)
        loss = loss_of(logits.float(), targets, recipe.training)
        loss.backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        if member.average:
            member.average.update(member.network, before + step)
        sums.add(loss, logits, targets, lr)
        if (now := time.perf_counter()) - last_report > PROGRESS_SECONDS:
            last_report = now
            yield StepProgress(task.member, epoch, step + 1, steps, sums.mean_loss)


def evaluated_epoch(member: Member, epoch: int, sums: EpochSums, began: float, seconds: float) -> EpochRecord:
    """The record of an epoch that has been trained: its weights are scored on the validation images.

    Args:
        member: whose epoch it is.
        epoch: its number.
        sums: over its steps.
        began: when, by `time.perf_counter`; `seconds` of training alone.

    Raises:
        NonFiniteLossError: a loss is infinite or not a number.
    """
    task, train_loss = member.task, sums.mean_loss
    if not math.isfinite(train_loss):
        raise NonFiniteLossError(f"the training loss became {train_loss} in epoch {epoch}")
    if task.steps_before(epoch + 1) <= STATISTICS_STEPS:
        estimate_statistics(member.evaluated, member.images, task, epoch)
    score = score_of(member.evaluated, member.images, member.targets, task.validation, task)
    if score.loss is not None and not math.isfinite(score.loss):
        raise NonFiniteLossError(f"the validation loss became {score.loss} in epoch {epoch}")
    return epoch_record(epoch, began, seconds, sums.images, sums.lr, train_loss, int(sums.correct), score)


def epoch_record(
    epoch: int, began: float, seconds: float, images: int, lr: float, train_loss: float, correct: int, score: Score
) -> EpochRecord:
    """A finished epoch.

    Args:
        epoch: its number.
        began: when, by `time.perf_counter`; the record's seconds count until now, validation included.
        seconds: of training alone; images_per_second rests on it.
        images, correct: images trained on, and how many of them were predicted correctly meanwhile.
        lr: of the last step.
        train_loss: the mean while training.
        score: on the validation images.
    """
    return EpochRecord(
        epoch=epoch,
        seconds=round(time.perf_counter() - began, 3),
        images_per_second=round(images / seconds, 1),
        learning_rate=lr,
        train_loss=train_loss,
        train_accuracy=correct / images,
        validation_loss=score.loss,
        validation_accuracy=score.accuracy,
    )


def peak_lr(task: Task, epoch: int, state: TrainingState) -> float:
    """The learning rate that the schedule starts from in an epoch: the stage's, reduced by plateaus."""
    lr = task.stage(epoch).lr
    return max(lr * state.lr_factor, task.recipe.schedule.min_lr) if state.lr_factor < 1 else lr


class MovingAverage:
    """An exponential moving average of a network's weights and statistics.

    After Polyak & Juditsky 1992, "Acceleration of stochastic approximation by averaging", doi 10.1137/0330046. The
    decay of step t, from 0, is min(decay, (1 + t) / (10 + t)), so that the initial weights are soon forgotten.
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


def new_network(pixels: Pixels, task: Task) -> nn.Module:
    """The member's network on its device: the task's weights, or random ones and the scaling of its training images."""
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


@torch.no_grad()
def estimate_statistics(network: nn.Module, images: Tensor, task: Task, epoch: int) -> None:
    """Set batch normalisation's means and variances to those of the member's training images, in one pass.

    Running averages start at 0 and 1 and forget a tenth with each step: after a few steps, as on very small data sets,
    they are far from what the network was trained with, and its predictions are random.
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
        forward(as_float(images[chosen]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def load_optimiser(optimiser: torch.optim.Optimizer, stored: OptimiserState) -> None:
    """Restore an optimiser, its tensors in the memory order of their parameters.

    torch's fused kernels walk a parameter and its moments by memory, so that moments in another order would be paired
    with the wrong weights (seen with channels_last convolutions and a checkpoint, which is stored row by row).
    """
    optimiser.load_state_dict(stored)
    for parameter, slots in optimiser.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def loss_of(logits: Tensor, targets: Tensor, training: Training) -> Tensor:
    """The mean loss of a batch: logits (image, class) float32, targets (image,).

    cross_entropy: in nats, with label smoothing (Szegedy et al. 2016, arXiv 1512.00567); mean_squared_error: of the
    probabilities against 0 and 1, mean over images and classes, as in Keras.
    """
    if training.loss == "cross_entropy":
        return functional.cross_entropy(logits, targets, label_smoothing=training.label_smoothing)
    goal = functional.one_hot(targets, logits.shape[1]).to(logits.dtype)
    goal = goal * (1 - training.label_smoothing) + training.label_smoothing / logits.shape[1]
    return functional.mse_loss(logits.softmax(1), goal)


def after_epoch(
    state: TrainingState,
    record: EpochRecord,
    network: nn.Module,
    evaluated: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
) -> TrainingState:
    """The state after one more epoch: whether its weights are kept, how long the validation loss has not fallen, and
    whether the learning rate is reduced for the next one (then the record says so).

    Args:
        state: after the epoch before.
        record: the epoch's, with the figures of `evaluated`.
        network: whose weights training goes on with.
        evaluated: whose weights are kept: the same network, or the moving average.
        optimiser: of the training.
        recipe: which epoch to keep, what the schedule monitors.
    """
    loss = record.validation_loss
    scores = {
        "last": float(record.epoch),
        "validation_accuracy": record.validation_accuracy,
        "validation_loss": None if loss is None else -loss,
    }
    score = scores[recipe.training.checkpoint.removeprefix("best_")]
    assert score is not None  # the recipe sees to that
    better, lower = score > state.best_score, loss is not None and loss < state.lowest_loss
    factor, best_monitored, since = state.lr_factor, state.best_monitored, 0
    if recipe.schedule.name == "plateau":
        monitored = scores[recipe.schedule.monitor]
        assert monitored is not None  # likewise
        factor, since = reduced(state, monitored, recipe)
        best_monitored = max(best_monitored, monitored)
        if factor < state.lr_factor:
            lr = max(recipe.optimiser.lr * factor, recipe.schedule.min_lr)
            record = record.model_copy(update={"lr_reduced_to": lr})
    best_weights = state.best_weights
    if better:
        best_weights = {name: tensor.detach().clone() for name, tensor in evaluated.state_dict().items()}
    return TrainingState(
        epoch=record.epoch,
        network=network.state_dict(),
        optimiser=optimiser.state_dict(),
        best_weights=best_weights,
        best_epoch=record.epoch if better else state.best_epoch,
        best_score=score if better else state.best_score,
        lowest_loss=loss if loss is not None and lower else state.lowest_loss,
        epochs_since_lowest=0 if lower else state.epochs_since_lowest + 1,
        lr_factor=factor,
        best_monitored=best_monitored,
        epochs_since_improvement=since,
        average={} if evaluated is network else evaluated.state_dict(),
        history=(*state.history, record),
    )


def reduced(state: TrainingState, monitored: float, recipe: Recipe) -> tuple[float, int]:
    """What the plateau schedule leaves of the learning rate after an epoch, and the epochs since an improvement."""
    schedule, factor = recipe.schedule, state.lr_factor
    since = 0 if monitored > state.best_monitored else state.epochs_since_improvement + 1
    lr = max(recipe.optimiser.lr * factor, schedule.min_lr)
    if since >= schedule.patience and lr > schedule.min_lr:
        return factor * schedule.factor, 0
    return factor, since


def score_of(network: nn.Module, images: Tensor, targets: Tensor, positions: NDArray[np.int64], task: Task) -> Score:
    """Mean log-loss (nats) or squared error, and accuracy, on some of the images."""
    if len(positions) == 0:
        return Score(None, None)
    forward: Forward = inference_forward(network, task.device, task.precision)
    logits = predict_logits(forward, images, positions)
    wanted = targets[torch.from_numpy(positions).to(targets.device)].cpu()
    plain = task.recipe.training.model_copy(update={"label_smoothing": 0.0})
    return Score(float(loss_of(logits, wanted, plain)), float((logits.argmax(1) == wanted).float().mean()))
