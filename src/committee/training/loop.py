"""THE loop: one member, one device. Read this first.

`fit` trains one network and keeps the weights that the recipe asks for. All its randomness comes from keys
(seed, member, purpose, epoch), so an epoch can be repeated alone: a training that was cut off goes on from the state
after its last whole epoch and ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee.config.recipe import Recipe, Training
from committee.data.dataset import Labels, Pixels
from committee.nn.architectures import build
from committee.nn.forward import Step, forward_of, judge_of, judged_at_once
from committee.rng import torch_generator
from committee.training.batches import as_float, epoch_batches, joined, on_device, scaling_of, whitening_filters
from committee.training.optim import make_optimiser, rate_at, set_rate
from committee.training.state import Fitted, NonFiniteLossError, Progress, State, Task

STATISTICS_STEPS = 100  # until then, running statistics of batch normalisation are too young to judge by


def fit(
    pixels: Pixels,
    labels: Labels,
    task: Task,
    *,
    resume: State | None = None,
) -> Generator[Progress | State, None, Fitted]:
    """Train one member: a generator that yields while it trains and returns the member.

    Args:
        pixels: (image, height, width, channel), all training images of the data set, possibly memory-mapped.
        labels: (image,).
        task: which of them to learn from, and how.
        resume: the state after an earlier epoch of the same task.

    Yields:
        Progress about twice a second; the State after each epoch, whose last history line is the epoch's.

    Raises:
        NonFiniteLossError: the loss became infinite or not a number.
    """
    recipe, training = task.recipe, task.recipe.training
    images = on_device(pixels, task.device)
    targets = torch.from_numpy(labels).to(task.device)
    network = new_network(pixels, task)
    optimiser = make_optimiser(recipe.optimiser, network)
    average = Average(network, training.ema) if training.ema else None
    forward = forward_of(network, task.device, task.precision)
    state = resume or State(task.first_epoch, {}, {}, {}, task.first_epoch)
    if resume:
        network.load_state_dict(resume.network)
        load_optimiser(optimiser, resume.optimiser)
        if average:
            average.network.load_state_dict(resume.average)
    last_epoch = task.first_epoch + training.epochs
    steps_before = [0]
    for epoch in range(task.first_epoch + 1, last_epoch + 1):
        steps_before.append(steps_before[-1] + task.steps(epoch))
    remark = f"all {training.epochs} epochs"
    while state.epoch < last_epoch:
        if training.patience and state.epochs_since_lowest >= training.patience:
            remark = f"held-out loss not lower for {training.patience} epochs"
            break
        epoch = state.epoch + 1
        began, told = time.perf_counter(), 0.0
        double = torch.float32 if task.device == "mps" else torch.float64  # Apple's GPUs have no float64
        loss_sum = torch.zeros((), dtype=double, device=task.device)
        right_sum, seen, rate = torch.zeros((), dtype=torch.int64, device=task.device), 0, 0.0
        peak, steps = peak_rate(task, epoch, state), task.steps(epoch)
        before = steps_before[epoch - task.first_epoch - 1]
        network.train()
        for step, (batch, wanted) in enumerate(epoch_batches(images, targets, task, epoch, network)):
            rate = rate_at(before + step, steps_before[-1], recipe.schedule, peak)
            set_rate(optimiser, rate)
            optimiser.zero_grad(set_to_none=False)
            logits = forward(batch)
            loss = loss_of(logits.float(), wanted, training)
            loss.backward()  # type: ignore[no-untyped-call]
            optimiser.step()
            if average:
                average.take(network, before + step)
            loss_sum += loss.detach().to(loss_sum) * len(wanted)
            right_sum += (logits.detach().argmax(1) == wanted).sum()
            seen += len(wanted)
            if (now := time.perf_counter()) - told > 0.5:
                told = now
                yield Progress(task.member, epoch, step + 1, steps, float(loss_sum) / seen)
        train_loss = float(loss_sum) / seen
        seconds = time.perf_counter() - began
        if not math.isfinite(train_loss):
            raise NonFiniteLossError(f"the training loss became {train_loss} in epoch {epoch}")
        judged = average.network if average else network
        if steps_before[epoch - task.first_epoch] <= STATISTICS_STEPS:
            estimate_statistics(judged, images, task, epoch)
        held_out_loss, held_out_accuracy = score(judged, images, targets, task.held_out, task)
        if held_out_loss is not None and not math.isfinite(held_out_loss):
            raise NonFiniteLossError(f"the held-out loss became {held_out_loss} in epoch {epoch}")
        scores = held_out_loss, held_out_accuracy
        line = history_line(epoch, began, seconds, seen, rate, train_loss, int(right_sum), scores)
        state = after_epoch(state, line, network, judged, optimiser, recipe)
        yield state
    network.load_state_dict(state.kept)
    return Fitted(network.eval(), state.kept_epoch, state.history, remark)


def history_line(
    epoch: int,
    began: float,
    seconds: float,
    seen: int,
    rate: float,
    train_loss: float,
    right: int,
    held_out: tuple[float | None, float | None],
) -> dict[str, Any]:
    """A finished epoch as its line of history.jsonl.

    Args:
        epoch: its number.
        began: when, by `time.perf_counter`; the line's seconds count until now, judging included.
        seconds: of the training alone; its images a second rest on it.
        seen, right: images trained on, and how many of them were right while training.
        rate: of the last step.
        train_loss: the mean while training.
        held_out: loss and accuracy.
    """
    return {
        "epoch": epoch,
        "seconds": round(time.perf_counter() - began, 3),
        "images_per_second": round(seen / seconds, 1),
        "learning_rate": rate,
        "train_loss": train_loss,
        "train_accuracy": right / seen,
        "validation_loss": held_out[0],
        "validation_accuracy": held_out[1],
    }


def peak_rate(task: Task, epoch: int, state: State) -> float:
    """The rate that the schedule starts from in an epoch: the stage's, less what plateaus have taken."""
    rate = task.stage(epoch).lr
    return max(rate * state.rate_factor, task.recipe.schedule.min_lr) if state.rate_factor < 1 else rate


class Average:
    """A running average of a network's weights and statistics (Polyak & Juditsky 1992; decay as in Tan & Le 2019).

    The decay of step t, from 0, is min(decay, (1 + t) / (10 + t)), so that the start weights are soon forgotten.
    """

    def __init__(self, network: nn.Module, decay: float) -> None:
        self.network = copy.deepcopy(network)
        self.decay = decay

    @torch.no_grad()
    def take(self, network: nn.Module, step: int) -> None:
        """Move the average towards the weights after a step."""
        weight = 1 - min(self.decay, (1 + step) / (10 + step))
        for mine, theirs in zip(self.network.state_dict().values(), network.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight)
            else:
                mine.copy_(theirs)


def new_network(pixels: Pixels, task: Task) -> nn.Module:
    """The member's network on its device: start weights, or fresh ones with the scaling of its own training images."""
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
    """Set batch normalisation's means and variances to those of the member's own images, unchanged, in one pass.

    Running averages start at 0 and 1 and forget a tenth a step: after a few steps, as on very small data, they are far
    from what the network was trained with, and it judges at random.
    """
    norms = [m for m in network.modules() if isinstance(m, (nn.BatchNorm1d, nn.BatchNorm2d))]
    momenta = [norm.momentum for norm in norms]
    if not norms:
        return
    network.eval()  # dropout rests
    for norm in norms:
        norm.train()
        norm.reset_running_stats()
        norm.momentum = None  # the mean over batches
    forward = forward_of(network, task.device, task.precision)
    for chosen in (
        torch.from_numpy(task.train).to(task.device).tensor_split(max(len(task.train) // task.batch(epoch), 1))
    ):
        forward(as_float(images[chosen]))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def load_optimiser(optimiser: torch.optim.Optimizer, stored: dict[str, Any]) -> None:
    """Restore an optimiser, its tensors in the memory order of their parameters.

    torch's fused kernels walk a parameter and its moments by memory, so that moments in another order would be paired
    with the wrong weights (seen with channels_last convolutions and a checkpoint, which is stored row by row).
    """
    optimiser.load_state_dict(stored)
    for parameter, slots in optimiser.state.items():
        for name, value in slots.items():
            if isinstance(value, Tensor) and value.shape == parameter.shape:
                slots[name] = torch.empty_like(parameter, dtype=value.dtype).copy_(value)


def loss_of(logits: Tensor, wanted: Tensor, training: Training) -> Tensor:
    """The mean loss of a batch: logits (image, class) float32, wanted (image,).

    cross_entropy: in nats, with label smoothing; mean_squared_error: of the probabilities against 0 and 1, mean over
    images and classes, as in Keras.
    """
    if training.loss == "cross_entropy":
        return functional.cross_entropy(logits, wanted, label_smoothing=training.label_smoothing)
    goal = functional.one_hot(wanted, logits.shape[1]).to(logits.dtype)
    goal = goal * (1 - training.label_smoothing) + training.label_smoothing / logits.shape[1]
    return functional.mse_loss(logits.softmax(1), goal)


def after_epoch(
    state: State,
    line: dict[str, Any],
    network: nn.Module,
    judged: nn.Module,
    optimiser: torch.optim.Optimizer,
    recipe: Recipe,
) -> State:
    """The state after one more epoch: whether its weights are kept, how long the held-out loss has not fallen, and
    whether the rate is reduced for the next one (then the line says so as `rate_reduced_to`).

    Args:
        state: after the epoch before.
        line: the epoch's line of the history, with the figures of `judged`.
        network: whose weights training goes on with.
        judged: whose weights are kept: the same network, or the running average.
        optimiser: of the training.
        recipe: which epoch to keep, what the schedule watches.
    """
    training, schedule = recipe.training, recipe.schedule
    epoch, loss, accuracy = line["epoch"], line["validation_loss"], line["validation_accuracy"]
    merits = {
        "last": float(epoch),
        "validation_accuracy": accuracy,
        "validation_loss": None if loss is None else -loss,
    }
    now, watched = merits[training.checkpoint.removeprefix("best_")], merits[schedule.monitor]
    better = now > state.best
    lower = loss is not None and loss < state.lowest_loss
    factor, best_watched, since = state.rate_factor, state.best_watched, 0
    if schedule.name == "plateau":
        rate = max(recipe.optimiser.lr * factor, schedule.min_lr)
        best_watched, since = max(best_watched, watched), state.epochs_since_watched + 1
        since = 0 if watched > state.best_watched else since
        if since >= schedule.patience and rate > schedule.min_lr:
            factor, since = factor * schedule.factor, 0
            line["rate_reduced_to"] = max(recipe.optimiser.lr * factor, schedule.min_lr)
    return State(
        epoch=epoch,
        network=network.state_dict(),
        optimiser=optimiser.state_dict(),
        kept={name: tensor.detach().clone() for name, tensor in judged.state_dict().items()} if better else state.kept,
        kept_epoch=epoch if better else state.kept_epoch,
        best=now if better else state.best,
        lowest_loss=loss if lower else state.lowest_loss,
        epochs_since_lowest=0 if lower else state.epochs_since_lowest + 1,
        rate_factor=factor,
        best_watched=best_watched,
        epochs_since_watched=since,
        average={} if judged is network else judged.state_dict(),
        history=[*state.history, line],
    )


def predict_logits(judge: Step, images: Tensor, positions: NDArray[np.int64]) -> Tensor:
    """Logits (position, class) float32 on the CPU, of images (image, height, width, channel) on the judge's device."""
    batches = torch.split(torch.from_numpy(positions).to(images.device), judged_at_once(images.device.type))
    return joined((judge(as_float(images[chosen])) for chosen in batches), len(positions))


def score(
    network: nn.Module, images: Tensor, targets: Tensor, positions: NDArray[np.int64], task: Task
) -> tuple[float | None, float | None]:
    """Mean log-loss (nats) or squared error, and accuracy, on some images; None without any."""
    if len(positions) == 0:
        return None, None
    logits = predict_logits(judge_of(network, task.device, task.precision), images, positions)
    wanted = targets[torch.from_numpy(positions).to(targets.device)].cpu()
    plain = task.recipe.training.model_copy(update={"label_smoothing": 0.0})
    return float(loss_of(logits, wanted, plain)), float((logits.argmax(1) == wanted).float().mean())
