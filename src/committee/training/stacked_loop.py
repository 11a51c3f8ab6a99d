"""M members at once on one device: the same tasks as `fit`, the same draws, the same weights within rounding.

Every member has its own order of images, its own augmentation and dropout, its own validation images and its own best
epoch; a member that has stopped early stays in the stack and is ignored. On CUDA a whole step is captured as a graph
and replayed, since a small network's step is mostly the launching of its many small kernels; convolutions are computed
in the form that measures fastest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor, nn

from committee.data.augment import augment
from committee.data.dataset import Labels, Pixels
from committee.nn.images import as_float, on_device
from committee.nn.stacked import FORMS, Form, Stacked
from committee.rng import derive, numpy_generator
from committee.training.loop import (
    PROGRESS_SECONDS,
    STATISTICS_STEPS,
    after_epoch,
    epoch_record,
    estimate_statistics,
    loss_of,
    new_network,
    score_of,
    stopped_early,
)
from committee.training.optim import CAPTURABLE, lr_at, optimiser_over, set_lr
from committee.training.state import NonFiniteLossError, StepProgress, Task, TrainedNetwork, TrainingState

StackedEvent = StepProgress | TrainingState | TrainedNetwork | NonFiniteLossError
Step = Callable[[Tensor, bool], None]  # positions (member, image), and whether images are augmented


def reason_not_to_stack(tasks: Sequence[Task]) -> str:
    """Why these members cannot be trained as one stack, as a phrase; "" where they can."""
    first = tasks[0]
    reasons = {
        "one member is no stack": len(tasks) < 2,
        "their recipes differ": any(task.recipe != first.recipe for task in tasks),
        "they train on different numbers of images": len({len(task.train) for task in tasks}) > 1,
        "their networks differ": len({first.recipe.network.of_member(task.member) for task in tasks}) > 1,
        "a plateau schedule gives each its own learning rate": first.recipe.schedule.name == "plateau",
        "pseudo-labelled images": any(task.pseudo for task in tasks),
        "a moving average of the weights": bool(first.recipe.training.ema),
        "they continue after different numbers of epochs": len({task.first_epoch for task in tasks}) > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


class Stack:
    """What a stack's training works with.

    Attributes:
        networks: one for each task; between epochs they have the stack's weights.
        stacked: all of them as one module.
        augmentation, dropout: a generator for each member.
        losses, correct: (member,), sums over the steps of an epoch.
    """

    def __init__(self, pixels: Pixels, labels: Labels, tasks: Sequence[Task], form: Form | None) -> None:
        recipe, device = tasks[0].recipe, tasks[0].device
        self.tasks, self.recipe, self.device = tasks, recipe, device
        self.networks = [new_network(pixels, task) for task in tasks]
        self.images, self.targets = on_device(pixels, device), torch.from_numpy(labels).to(device)
        self.stacked = Stacked(self.networks, form or fastest_form(self.networks, self.images, tasks[0]))
        self.stacked.to(device).train()
        captured = device == "cuda" and recipe.optimiser.name in CAPTURABLE
        parameters = self.stacked.decayed_and_spared()
        self.optimiser = optimiser_over(recipe.optimiser, *parameters, members=len(tasks), captured=captured)
        self.augmentation = [torch.Generator(device) for _ in tasks]
        self.dropout = [torch.Generator(device) for _ in tasks]
        self.stacked.set_dropout_generators(self.dropout)
        self.losses, self.correct = torch.zeros(len(tasks), device=device), torch.zeros(len(tasks), device=device)
        self.step: Step = (
            CapturedStep(self.plain_step, [*self.augmentation, *self.dropout]) if captured else (self.plain_step)
        )

    def plain_step(self, chosen: Tensor, augmented: bool) -> None:
        """One step of all members on images (member, image)."""
        self.optimiser.zero_grad(set_to_none=False)
        batches = [self.batch(rows, augmented, self.augmentation[m]) for m, rows in enumerate(chosen)]
        with torch.autocast(self.device, dtype=torch.bfloat16, enabled=self.tasks[0].precision == "bfloat16"):
            logits = self.stacked(torch.stack(batches))
        targets, training = self.targets[chosen], self.recipe.training
        losses = [loss_of(own.float(), wanted, training) for own, wanted in zip(logits, targets, strict=True)]
        stacked = torch.stack(losses)
        stacked.sum().backward()  # type: ignore[no-untyped-call]
        self.optimiser.step()
        self.losses.add_(stacked.detach() * chosen.shape[1])
        self.correct.add_((logits.detach().argmax(2) == targets).sum(1))

    def batch(self, rows: Tensor, augmented: bool, generator: torch.Generator) -> Tensor:
        """One member's images, augmented with its own generator."""
        floats = as_float(self.images[rows])
        return augment(floats, self.recipe.augmentation, generator) if augmented else floats

    def begin_epoch(self, epoch: int) -> Tensor:
        """Key all draws of an epoch and zero its sums; returns the orders of the images, (member, image)."""
        orders = []
        for m, task in enumerate(self.tasks):
            key = (task.seed, "member", task.member)
            self.augmentation[m].manual_seed(derive(*key, "augmentation", epoch))
            self.dropout[m].manual_seed(derive(*key, "dropout", epoch))
            orders.append(numpy_generator(*key, "order", epoch).permutation(task.train))
        self.losses.zero_()
        self.correct.zero_()
        return torch.from_numpy(np.stack(orders)).to(self.device)


@dataclass
class MemberProgress:
    """How far one member of a stack is; `remark` says why it stopped, `failure` why it cannot be used."""

    state: TrainingState
    remark: str = ""
    failure: NonFiniteLossError | None = None

    @property
    def is_training(self) -> bool:
        """Whether its weights still count."""
        return not self.remark and self.failure is None


@dataclass
class EpochSeen:
    """What an epoch of a stack has come to: images of each member, the last learning rate, seconds of training."""

    images: int = 0
    lr: float = 0.0
    began: float = field(default_factory=time.perf_counter)
    seconds: float = 0.0


def fit_stacked(
    pixels: Pixels, labels: Labels, tasks: Sequence[Task], *, form: Form | None = None
) -> Iterator[tuple[int, StackedEvent]]:
    """Train several members at once.

    Args:
        pixels, labels: as in `committee.training.loop.fit`, the same for all.
        tasks: one for each member, for which `reason_not_to_stack` is "".
        form: how convolutions are computed; None measures, on CUDA, and is "apart" elsewhere.

    Yields:
        A member's place in `tasks`, with its StepProgress about twice a second; after each epoch, for each member still
        training, its TrainingState, which cannot be resumed from (its optimiser is shared by all and is not in it);
        and, last, its TrainedNetwork, or the NonFiniteLossError that says why it could not be trained.
    """
    stack = Stack(pixels, labels, tasks, form)
    first, epochs = tasks[0].first_epoch, tasks[0].recipe.training.epochs
    members = [MemberProgress(TrainingState.initial(first)) for _ in tasks]
    for epoch in range(first + 1, tasks[0].last_epoch + 1):
        training = [m for m, member in enumerate(members) if member.is_training]
        if not training:
            break
        seen = EpochSeen()
        yield from train_stacked_epoch(stack, epoch, training, seen)
        stack.stacked.hand_back(stack.networks)
        for m in training:
            evaluate_stacked_epoch(stack, m, members[m], epoch, seen)
            if members[m].failure is None:
                yield m, members[m].state
    for m, (member, network) in enumerate(zip(members, stack.networks, strict=True)):
        if member.failure is not None:
            yield m, member.failure
            continue
        state = member.state
        network.load_state_dict(state.best_weights)
        remark = member.remark or f"all {epochs} epochs"
        yield m, TrainedNetwork(network.eval(), state.best_epoch, state.history, remark)


def train_stacked_epoch(
    stack: Stack, epoch: int, training: Sequence[int], seen: EpochSeen
) -> Iterator[tuple[int, StepProgress]]:
    """All steps of one epoch, counted in `seen`; progress of the members that still train."""
    tasks, task, last_report = stack.tasks, stack.tasks[0], 0.0
    positions, augmented = stack.begin_epoch(epoch), task.augmented(epoch)
    before, total, peak = task.steps_before(epoch), task.steps_before(task.last_epoch + 1), task.stage(epoch).lr
    for number, chosen in enumerate(torch.split(positions, task.batch_size(epoch), dim=1)):
        seen.lr = lr_at(before + number, total, stack.recipe.schedule, peak)
        set_lr(stack.optimiser, seen.lr)
        stack.step(chosen, augmented)
        seen.images += chosen.shape[1]
        if (now := time.perf_counter()) - last_report > PROGRESS_SECONDS:
            last_report = now
            for m in training:
                loss = float(stack.losses[m]) / seen.images
                yield m, StepProgress(tasks[m].member, epoch, number + 1, task.steps(epoch), loss)
    seen.seconds = time.perf_counter() - seen.began


def evaluate_stacked_epoch(stack: Stack, m: int, member: MemberProgress, epoch: int, seen: EpochSeen) -> None:
    """Score a member's weights after an epoch and move its state on; or note that it cannot go on."""
    task, network, training = stack.tasks[m], stack.networks[m], stack.recipe.training
    loss = float(stack.losses[m]) / seen.images
    if task.steps_before(epoch + 1) <= STATISTICS_STEPS:
        estimate_statistics(network, stack.images, task, epoch)
    score = score_of(network, stack.images, stack.targets, task.validation, task)
    if not math.isfinite(loss) or not math.isfinite(score.loss or 0.0):
        message = f"the loss became {loss} (validation: {score.loss}) in epoch {epoch}"
        member.failure = NonFiniteLossError(message)
        return
    correct = int(stack.correct[m])
    record = epoch_record(epoch, seen.began, seen.seconds, seen.images, seen.lr, loss, correct, score)
    state = after_epoch(member.state, record, network, network, stack.optimiser, stack.recipe)
    member.state = replace(state, optimiser={})
    if training.patience and member.state.epochs_since_lowest >= training.patience:
        member.remark = stopped_early(training)


class CapturedStep:
    """A step on CUDA: run as it is three times, then captured as a graph for its shape, and replayed.

    Args:
        step: takes positions (member, image) and whether images are augmented; all else that it touches stays in place.
        generators: those it draws from.
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator]) -> None:
        self.step, self.generators = step, generators
        self.graphs: dict[tuple[tuple[int, ...], bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.runs: dict[tuple[tuple[int, ...], bool], int] = {}
        self.side = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, chosen: Tensor, augmented: bool) -> None:
        """One step."""
        key = (tuple(chosen.shape), augmented)
        self.runs[key] = self.runs.get(key, 0) + 1
        if self.runs[key] <= 3:
            self.side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self.side):
                self.step(chosen, augmented)
            torch.cuda.current_stream().wait_stream(self.side)
            return
        if key not in self.graphs:
            graph, place = torch.cuda.CUDAGraph(), chosen.clone()
            for generator in self.generators:
                graph.register_generator_state(generator)
            with torch.cuda.graph(graph):
                self.step(place, augmented)
            self.graphs[key] = graph, place
        graph, place = self.graphs[key]
        place.copy_(chosen)
        graph.replay()


def fastest_form(networks: Sequence[nn.Module], images: Tensor, task: Task) -> Form:
    """The form of convolution whose forward and backward pass is fastest here; "apart" off CUDA."""
    if task.device != "cuda":
        return "apart"
    rows = torch.arange(min(task.batch_size(task.first_epoch + 1), len(images)), device=task.device)
    batch = torch.stack([as_float(images[rows])] * len(networks))
    return min(FORMS, key=lambda form: seconds_of_form(form, networks, batch, task))


def seconds_of_form(form: Form, networks: Sequence[nn.Module], batch: Tensor, task: Task) -> float:
    """Seconds of three forward and backward passes of a stack, after one in which torch chooses its kernels."""
    stack = Stacked(networks, form).to(task.device).train()
    stack.set_dropout_generators([torch.Generator(task.device) for _ in networks])
    began = 0.0
    for attempt in range(4):
        if attempt == 1:
            torch.cuda.synchronize()
            began = time.perf_counter()
        with torch.autocast(task.device, dtype=torch.bfloat16, enabled=task.precision == "bfloat16"):
            logits = stack(batch)
        logits.float().sum().backward()
    torch.cuda.synchronize()
    return time.perf_counter() - began
