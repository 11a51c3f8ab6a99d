"""THE loop: one member, one device. Read this first.

`fit` trains one network and keeps the weights that the recipe asks for. All its randomness comes from keys
(seed, member, purpose, epoch), so an epoch can be repeated alone: a training that was cut off goes on from the state
after its last whole epoch and ends with the same bits as one that was not.
"""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from committee import seeds
from committee.data.augment import augment
from committee.data.dataset import LabelledImages, Labels, Pixels
from committee.models.architectures import Scaling, build, set_dropout_generator
from committee.models.fused import forward_of
from committee.recipe import Recipe, Stage, Training
from committee.training.optim import make_optimiser, rate_at

STATISTICS_STEPS = 100  # until then, running statistics of batch normalisation are too young to judge by
PREDICTION_BATCH = {"cpu": 64}  # images at a time; elsewhere 512


class NonFiniteLossError(ArithmeticError):
    """The loss became infinite or not a number; the member cannot go on."""


@dataclass(frozen=True)
class Task:
    """What one member is to learn, apart from the images.

    Attributes:
        train, held_out: positions in the images; the held-out ones may be empty.
        classes: number of classes.
        device: "cpu", "cuda", "mps" or "xpu".
        precision: "bfloat16" (autocast; parameters and sums stay float32) or "float32".
        first_epoch: epochs that the start weights have behind them; numbers the history and keys the draws.
        start: weights to begin from instead of fresh ones.
        pseudo: images with labels that a committee gave them; they make up `pseudo_labels.share` of every batch.
    """

    recipe: Recipe
    member: int
    seed: int
    train: NDArray[np.int64]
    held_out: NDArray[np.int64]
    classes: int
    device: str
    precision: str
    first_epoch: int = 0
    start: dict[str, Tensor] | None = None
    pseudo: LabelledImages | None = None

    def stage(self, epoch: int) -> Stage:
        """The stage of the recipe's schedule that an epoch belongs to."""
        return self.recipe.stage_at(epoch - 1 - self.first_epoch)

    def augmented(self, epoch: int) -> bool:
        """Whether images are changed in an epoch."""
        settings, number = self.recipe.augmentation, epoch - self.first_epoch
        early = number <= self.recipe.training.epochs - settings.plain_epochs
        return settings.active and early and self.stage(epoch).augmented

    def batch(self, epoch: int) -> int:
        """Images a step; see `committee.recipe.Training`."""
        return min(self.stage(epoch).batch or self.recipe.training.batch, max(8, len(self.train) // 10))

    def batch_parts(self, epoch: int) -> tuple[int, int]:
        """How many images of a batch have labels of their own, and how many a committee's."""
        batch = self.batch(epoch)
        pseudo = round(batch * self.recipe.pseudo_labels.share) if self.pseudo else 0
        return batch - pseudo, pseudo

    def steps(self, epoch: int) -> int:
        """Steps of an epoch: one pass over the images with labels of their own."""
        return math.ceil(len(self.train) / self.batch_parts(epoch)[0])


@dataclass
class State:
    """All that the loop needs to go on after an epoch; its tensors and numbers are what a checkpoint holds."""

    epoch: int  # the last one done, numbered from 1 (and from first_epoch)
    network: dict[str, Tensor]
    optimiser: dict[str, Any]
    kept: dict[str, Tensor]
    kept_epoch: int
    best: float = -math.inf  # of what `keep` looks at, greater is better
    lowest_loss: float = math.inf  # held-out; what patience looks at
    epochs_since_lowest: int = 0
    rate_factor: float = 1.0  # what the plateaus have left of the rate
    best_watched: float = -math.inf  # of what the plateau schedule watches, greater is better
    epochs_since_watched: int = 0  # since it last bettered, or since the last reduction
    average: dict[str, Tensor] = field(default_factory=dict)  # the running average of the weights, where asked for
    history: list[dict[str, Any]] = field(default_factory=list)

    @property
    def numbers(self) -> dict[str, float | int]:
        """The scalar part of the state."""
        stopping = ("epoch", "kept_epoch", "best", "lowest_loss", "epochs_since_lowest")
        names = (*stopping, "rate_factor", "best_watched", "epochs_since_watched")
        return {name: getattr(self, name) for name in names}


@dataclass(frozen=True)
class Progress:
    """How far an epoch is: told about twice a second. `loss` is the mean so far; `model` as in a job."""

    member: int
    epoch: int
    step: int
    steps: int
    loss: float
    model: str = ""


@dataclass(frozen=True)
class Fitted:
    """A trained member: the network with the kept weights, and how it came about."""

    network: nn.Module
    kept_epoch: int
    history: list[dict[str, Any]]
    remark: str


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
            for group in optimiser.param_groups:
                group["lr"] = rate
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
        line = {
            "epoch": epoch,
            "seconds": round(time.perf_counter() - began, 3),
            "images_per_second": round(seen / seconds, 1),
            "learning_rate": rate,
            "train_loss": train_loss,
            "train_accuracy": int(right_sum) / seen,
            "validation_loss": held_out_loss,
            "validation_accuracy": held_out_accuracy,
        }
        state = after_epoch(state, line, network, judged, optimiser, recipe)
        yield state
    network.load_state_dict(state.kept)
    return Fitted(network.eval(), state.kept_epoch, state.history, remark)


def peak_rate(task: Task, epoch: int, state: State) -> float:
    """The rate that the schedule starts from in an epoch: the stage's, less what plateaus have taken."""
    rate = task.stage(epoch).rate
    return max(rate * state.rate_factor, task.recipe.schedule.floor) if state.rate_factor < 1 else rate


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
    generator = seeds.torch_generator(task.seed, "member", task.member, "weights")
    network = build(task.recipe.network.of_member(task.member), (channels, height, width), task.classes, generator)
    if task.start is not None:
        network.load_state_dict(task.start)
    else:
        network[0] = scaling_of(pixels, task.train, task.recipe.input.scaling)
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


def scaling_of(pixels: Pixels, train: NDArray[np.int64], kind: str) -> Scaling:
    """The input scaling, its constants taken from the member's own training images in blocks of 1,000."""
    if kind == "none":
        return Scaling()
    if kind in ("unit", "unit_twice"):
        largest = float(np.iinfo(pixels.dtype).max)
        return Scaling(0.0, largest if kind == "unit" else largest**2)
    number, total, squares = 0, 0, 0
    for start in range(0, len(train), 1000):
        block = pixels[train[start : start + 1000]].astype(np.int64)
        number, total, squares = number + block.size, total + int(block.sum()), squares + int((block * block).sum())
    mean = total / number
    return Scaling(mean, max(math.sqrt(max(squares / number - mean * mean, 0.0)), 1e-3))


def on_device(pixels: Pixels, device: str) -> Tensor:
    """The images as a tensor (image, height, width, channel): shared memory on the CPU, a copy elsewhere."""
    if pixels.dtype == np.uint16:  # torch cannot index unsigned 16 bits: the same bits as signed, see `as_float`
        pixels = pixels.view(np.int16)  # type: ignore[assignment]
    return torch.from_numpy(pixels).to(device)


def as_float(pixels: Tensor) -> Tensor:
    """Gathered images (image, height, width, channel) -> float32 (image, channel, height, width), channels last."""
    if pixels.dtype == torch.int16:
        pixels = pixels.to(torch.int32) & 0xFFFF
    return pixels.to(torch.float32).permute(0, 3, 1, 2)


def epoch_batches(
    images: Tensor, targets: Tensor, task: Task, epoch: int, network: nn.Module
) -> Iterator[tuple[Tensor, Tensor]]:
    """The batches of one epoch: order, changes and dropout all keyed by (seed, member, purpose, epoch)."""
    settings = task.recipe.augmentation
    augmented = task.augmented(epoch)
    key = (task.seed, "member", task.member)
    order = seeds.numpy_generator(*key, "order", epoch).permutation(task.train)
    changes = seeds.torch_generator(*key, "augmentation", epoch, device=task.device)
    set_dropout_generator(network, seeds.torch_generator(*key, "dropout", epoch, device=task.device))
    positions = torch.from_numpy(order).to(task.device)
    own, _ = task.batch_parts(epoch)
    pseudo = pseudo_batches(task, epoch) if task.pseudo else None
    for chosen in torch.split(positions, own):
        pixels, wanted = images[chosen], targets[chosen]
        if pseudo:
            more, given = next(pseudo)
            pixels, wanted = torch.cat([pixels, more.to(pixels)]), torch.cat([wanted, given.to(wanted)])
        batch = as_float(pixels)
        yield (augment(batch, settings, changes) if augmented else batch), wanted


def pseudo_batches(task: Task, epoch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Without end, the pseudo-labelled part of a batch: pass after pass over the images, each in its own order."""
    assert task.pseudo is not None
    number = task.batch_parts(epoch)[1]
    rng = seeds.numpy_generator(task.seed, "member", task.member, "pseudo order", epoch)
    images, labels = on_device(task.pseudo.pixels, "cpu"), torch.from_numpy(task.pseudo.labels)
    waiting = rng.permutation(len(labels))
    while True:
        while len(waiting) < number:
            waiting = np.concatenate([waiting, rng.permutation(len(labels))])
        chosen, waiting = torch.from_numpy(waiting[:number]), waiting[number:]
        yield images[chosen], labels[chosen]


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
        "held_out_accuracy": accuracy,
        "held_out_loss": None if loss is None else -loss,
    }
    now, watched = merits[training.keep.removeprefix("best_")], merits[schedule.watch]
    better = now > state.best
    lower = loss is not None and loss < state.lowest_loss
    factor, best_watched, since = state.rate_factor, state.best_watched, 0
    if schedule.name == "plateau":
        rate = max(recipe.optimiser.rate * factor, schedule.floor)
        best_watched, since = max(best_watched, watched), state.epochs_since_watched + 1
        since = 0 if watched > state.best_watched else since
        if since >= schedule.patience and rate > schedule.floor:
            factor, since = factor * schedule.factor, 0
            line["rate_reduced_to"] = max(recipe.optimiser.rate * factor, schedule.floor)
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


@torch.no_grad()
def predict_logits(
    network: nn.Module, images: Tensor, positions: NDArray[np.int64], device: str, precision: str
) -> Tensor:
    """Logits (position, class) float32 on the CPU, of images (image, height, width, channel) on the device.

    Every batch has the same size, the last one filled up by repeating its last image: an image's logits do not depend
    on how many others are asked for with it, not in the last bit.
    """
    network.eval()
    forward = forward_of(network, device, precision)
    parts = []
    size = PREDICTION_BATCH.get(device, 512)
    for start in range(0, len(positions), size):
        chosen = positions[start : start + size]
        filled = np.concatenate([chosen, np.repeat(chosen[-1:], size - len(chosen))])
        logits = forward(as_float(images[torch.from_numpy(filled).to(device)]))
        parts.append(logits[: len(chosen)].float().cpu())
    return torch.cat(parts)


def score(
    network: nn.Module, images: Tensor, targets: Tensor, positions: NDArray[np.int64], task: Task
) -> tuple[float | None, float | None]:
    """Mean log-loss (nats) or squared error, and accuracy, on some images; None without any."""
    if len(positions) == 0:
        return None, None
    logits = predict_logits(network, images, positions, task.device, task.precision)
    wanted = targets[torch.from_numpy(positions).to(targets.device)].cpu()
    plain = task.recipe.training.model_copy(update={"label_smoothing": 0.0})
    return float(loss_of(logits, wanted, plain)), float((logits.argmax(1) == wanted).float().mean())
