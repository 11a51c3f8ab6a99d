"""Several members at once on one device: the tasks of `fit` with the same draws, and its weights up to rounding.

Every member has its own order of images, augmentation, dropout, validation images and best epoch. A member that has
stopped early stays in the stack, and what becomes of it there is ignored. On CUDA a whole step is captured as a graph
and replayed, since a small network's step consists mostly of launching many small kernels; convolutions are computed in
the form that is fastest there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import torch
from torch import Tensor, nn

from committee.config.recipe import Recipe
from committee.data.augment import augment
from committee.data.dataset import Labels, Pixels
from committee.nn.devices import takes_bfloat16
from committee.nn.images import as_float, on_device
from committee.nn.stacked import FORMS, Form, Stacked
from committee.rng import derive, numpy_generator
from committee.training.loop import (
    PROGRESS_SECONDS,
    after_epoch,
    evaluate_epoch,
    new_network,
    stops_early,
    trained,
)
from committee.training.losses import loss_of
from committee.training.meter import EpochTotals
from committee.training.optim import CAPTURABLE, lr_at, optimiser_over, set_lr
from committee.training.state import NonFiniteLossError, StepProgress, Task, TrainedNetwork, TrainingState

WARM_UP_RUNS = 3  # of a step before it is captured, as PyTorch asks for

StackedEvent = StepProgress | TrainingState | TrainedNetwork | NonFiniteLossError
Step = Callable[[Tensor, bool], None]  # of positions (member, image), and whether their images are augmented


def reason_not_to_stack(tasks: Sequence[Task]) -> str:
    """Why these members cannot be trained as one stack, as a clause; "" where they can."""
    first, recipe = tasks[0], tasks[0].recipe
    reasons = {
        "there is only one member": len(tasks) < 2,
        "their recipes differ": any(task.recipe != recipe for task in tasks),
        "they train on different numbers of images": len({len(task.train) for task in tasks}) > 1,
        "their networks differ": len({recipe.network.of_member(task.member) for task in tasks}) > 1,
        "the plateau schedule gives each its own learning rate": recipe.schedule.name == "plateau",
        "a teacher judges their images": any(task.teaching for task in tasks),
        "they train on pseudo-labelled images": any(task.pseudo for task in tasks),
        "the recipe averages the weights": bool(recipe.training.ema),
        "the recipe mixes images (cutmix)": recipe.augmentation.cutmix > 0,
        "they continue after different numbers of epochs": any(task.first_epoch != first.first_epoch for task in tasks),
    }
    return next((reason for reason, applies in reasons.items() if applies), "")


def fit_stacked(
    pixels: Pixels, labels: Labels, tasks: Sequence[Task], *, form: Form | None = None
) -> Iterator[tuple[int, StackedEvent]]:
    """Train several members at once.

    Args:
        pixels, labels: as in `committee.training.loop.fit`, the same for all members.
        tasks: one for each member; `reason_not_to_stack` must be "" for them.
        form: how convolutions are computed; None measures which is fastest on CUDA, and is "separate" elsewhere.

    Yields:
        Pairs of a member's index in `tasks` and an event: StepProgress about twice a second; after each epoch the
        TrainingState, for members that are still training; last of all for each member, the TrainedNetwork, or the
        NonFiniteLossError that ended its training. Such a TrainingState cannot be resumed from: the members share one
        optimiser, which is not part of it.
    """
    stack = new_stack(pixels, labels, tasks, form)
    step, recipe = step_of(stack), stack.recipe
    states = [TrainingState.initial(task.first_epoch) for task in tasks]
    failures: dict[int, NonFiniteLossError] = {}
    for epoch in range(tasks[0].first_epoch + 1, tasks[0].last_epoch + 1):
        active = [m for m, state in enumerate(states) if m not in failures and not stops_early(state, recipe.training)]
        if not active:
            break
        totals = yield from train_stacked_epoch(stack, step, epoch, active)
        stack.stacked.copy_to(stack.networks)
        for m in active:
            try:
                states[m] = evaluate_member(stack, m, states[m], epoch, totals[m])
            except NonFiniteLossError as error:
                failures[m] = error
            else:
                yield m, states[m]
    for m, task in enumerate(tasks):
        yield m, failures.get(m) or trained(stack.networks[m], states[m], task)


# --- a stack and its steps --------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Stack:
    """Several members during their training, everything on the device of their tasks.

    Attributes:
        images, targets: (image, height, width, channel) and (image,), all of the data set's training images.
        networks: one for each task; after each epoch they get the weights of `stacked`.
        stacked: all members as one module.
        augmentation, dropout: each member's generators.
        weights: (member, image), what each image counts in the members' losses; None where all count alike.
        losses, correct: (member,), sums over the steps of an epoch: of each image's loss, and of correct predictions.
    """

    tasks: Sequence[Task]
    images: Tensor
    targets: Tensor
    networks: Sequence[nn.Module]
    stacked: Stacked
    optimiser: torch.optim.Optimizer
    augmentation: Sequence[torch.Generator]
    dropout: Sequence[torch.Generator]
    weights: Tensor | None
    losses: Tensor
    correct: Tensor

    @property
    def recipe(self) -> Recipe:
        """The recipe of all members."""
        return self.tasks[0].recipe


def new_stack(pixels: Pixels, labels: Labels, tasks: Sequence[Task], form: Form | None) -> Stack:
    """The members before their first epoch."""
    task, device = tasks[0], tasks[0].device
    networks = [new_network(pixels, each) for each in tasks]
    images, targets = on_device(pixels, device), torch.from_numpy(labels).to(device)
    stacked = Stacked(networks, form or fastest_form(networks, images, task)).to(device).train()
    optimiser = optimiser_over(
        task.recipe.optimiser, *stacked.decay_and_no_decay(), members=len(tasks), capturable=is_capturable(task)
    )
    augmentation, dropout = ([torch.Generator(device) for _ in tasks] for _ in range(2))
    stacked.set_dropout_generators(dropout)
    losses, correct = (torch.zeros(len(tasks), device=device) for _ in range(2))
    found = [each.weights for each in tasks if each.weights is not None]
    weights = torch.from_numpy(np.stack(found)).to(device) if found else None
    return Stack(tasks, images, targets, networks, stacked, optimiser, augmentation, dropout, weights, losses, correct)


def is_capturable(task: Task) -> bool:
    """Whether a CUDA graph can hold the steps of a task."""
    return task.device == "cuda" and task.recipe.optimiser.name in CAPTURABLE


def step_of(stack: Stack) -> Step:
    """The step of a stack, on CUDA as a graph where that is possible."""
    step: Step = partial(train_step, stack)
    return CapturedStep(step, [*stack.augmentation, *stack.dropout]) if is_capturable(stack.tasks[0]) else step


def train_stacked_epoch(
    stack: Stack, step: Step, epoch: int, active: Sequence[int]
) -> Generator[tuple[int, StepProgress], None, list[EpochTotals]]:
    """All steps of one epoch; progress of the active members only, totals of all."""
    task, last_report, began = stack.tasks[0], 0.0, time.perf_counter()
    steps, steps_before, all_steps = task.steps(epoch), task.steps_before(epoch), task.steps_before(task.last_epoch + 1)
    peak, augmented = task.stage(epoch).lr, task.augmented(epoch)
    images, lr = 0, 0.0
    for number, positions in enumerate(torch.split(begin_epoch(stack, epoch), task.batch_size(epoch), dim=1)):
        lr = lr_at(steps_before + number, all_steps, stack.recipe.schedule, peak)
        set_lr(stack.optimiser, lr)
        step(positions, augmented)
        images += positions.shape[1]
        if (now := time.perf_counter()) - last_report > PROGRESS_SECONDS:
            last_report = now
            for m in active:
                loss = float(stack.losses[m]) / images
                yield m, StepProgress(stack.tasks[m].member, epoch, number + 1, steps, loss)
    losses, correct = stack.losses.tolist(), stack.correct.tolist()  # waits for the device
    seconds = time.perf_counter() - began
    return [
        EpochTotals(images, int(right), loss / images, lr, began, seconds)
        for loss, right in zip(losses, correct, strict=True)
    ]


def begin_epoch(stack: Stack, epoch: int) -> Tensor:
    """Seed the generators for an epoch and zero its sums.

    Returns:
        (member, image): the positions of each member's training images, in their order in this epoch.
    """
    orders = []
    for task, augmentation, dropout in zip(stack.tasks, stack.augmentation, stack.dropout, strict=True):
        key = (task.seed, "member", task.member)
        augmentation.manual_seed(derive(*key, "augmentation", epoch))
        dropout.manual_seed(derive(*key, "dropout", epoch))
        orders.append(numpy_generator(*key, "order", epoch).permutation(task.train))
    stack.losses.zero_()
    stack.correct.zero_()
    return torch.from_numpy(np.stack(orders)).to(stack.images.device)


def train_step(stack: Stack, positions: Tensor, augmented: bool) -> None:
    """One step of all members on the images at positions (member, image).

    Every tensor that outlives the step is changed in place, so that a CUDA graph can hold the step.
    """
    task, training = stack.tasks[0], stack.recipe.training
    stack.optimiser.zero_grad(set_to_none=False)
    batches = [
        member_batch(stack, rows, augmented, generator)
        for rows, generator in zip(positions, stack.augmentation, strict=True)
    ]
    with torch.autocast(task.device, dtype=torch.bfloat16, enabled=takes_bfloat16(task.device, task.precision)):
        logits = stack.stacked(torch.stack(batches))
    targets = stack.targets[positions]
    weights = [None] * len(positions) if stack.weights is None else stack.weights.gather(1, positions)
    losses = torch.stack(
        [
            loss_of(own.float(), classes, training, weight)
            for own, classes, weight in zip(logits, targets, weights, strict=True)
        ]
    )
    losses.sum().backward()  # type: ignore[no-untyped-call]
    stack.optimiser.step()
    stack.losses.add_(losses.detach() * positions.shape[1])
    stack.correct.add_((logits.detach().argmax(2) == targets).sum(1))


def member_batch(stack: Stack, rows: Tensor, augmented: bool, generator: torch.Generator) -> Tensor:
    """One member's images at positions (image,), augmented with its own generator."""
    batch = as_float(stack.images[rows])
    return augment(batch, stack.recipe.augmentation, generator) if augmented else batch


def evaluate_member(stack: Stack, m: int, state: TrainingState, epoch: int, totals: EpochTotals) -> TrainingState:
    """One member's state after one more epoch.

    Raises:
        NonFiniteLossError: its training or validation loss is infinite or not a number.
    """
    network = stack.networks[m]
    record = evaluate_epoch(network, stack.images, stack.targets, stack.tasks[m], epoch, totals)
    return replace(after_epoch(state, record, network, network, stack.optimiser, stack.recipe), optimiser={})


# --- CUDA -------------------------------------------------------------------------------------------------------------


class CapturedStep:
    """A step that is captured as a CUDA graph and replayed: one graph for each shape of positions, with augmentation or
    without, after WARM_UP_RUNS runs of the plain step.

    Args:
        step: the plain step. What it reads and writes must stay at the same addresses, apart from the positions, which
            are copied to where the graph reads them.
        generators: all that the step draws from. They may be seeded again between steps.
    """

    def __init__(self, step: Step, generators: Sequence[torch.Generator]) -> None:
        self.step, self.generators = step, generators
        self.runs: dict[tuple[tuple[int, ...], bool], int] = {}
        self.graphs: dict[tuple[tuple[int, ...], bool], tuple[torch.cuda.CUDAGraph, Tensor]] = {}
        self.stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]

    def __call__(self, positions: Tensor, augmented: bool) -> None:
        """One step."""
        key = (tuple(positions.shape), augmented)
        self.runs[key] = self.runs.get(key, 0) + 1
        if self.runs[key] <= WARM_UP_RUNS:
            self.warm_up(positions, augmented)
            return
        if key not in self.graphs:
            self.graphs[key] = self.capture(positions, augmented)
        graph, graph_positions = self.graphs[key]
        graph_positions.copy_(positions)
        graph.replay()

    def warm_up(self, positions: Tensor, augmented: bool) -> None:
        """Run the plain step on a stream of its own, as torch asks for before a capture."""
        self.stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self.stream):
            self.step(positions, augmented)
        torch.cuda.current_stream().wait_stream(self.stream)

    def capture(self, positions: Tensor, augmented: bool) -> tuple[torch.cuda.CUDAGraph, Tensor]:
        """A graph of the step, which has not run yet, and the tensor that it reads positions from."""
        graph, graph_positions = torch.cuda.CUDAGraph(), positions.clone()
        for generator in self.generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph):
            self.step(graph_positions, augmented)
        return graph, graph_positions


def fastest_form(networks: Sequence[nn.Module], images: Tensor, task: Task) -> Form:
    """The form of convolution whose forward and backward pass is fastest on CUDA; "separate" on other devices."""
    if task.device != "cuda":
        return "separate"
    rows = torch.arange(min(task.batch_size(task.first_epoch + 1), len(images)), device=images.device)
    batch = torch.stack([as_float(images[rows])] * len(networks))
    return min(FORMS, key=lambda form: seconds_of_form(form, networks, batch, task))


def seconds_of_form(form: Form, networks: Sequence[nn.Module], batch: Tensor, task: Task) -> float:
    """Seconds of three forward and backward passes of a stack, after a first one in which torch chooses its kernels."""
    stacked = Stacked(networks, form).to(batch.device).train()
    stacked.set_dropout_generators([torch.Generator(batch.device) for _ in networks])
    began = 0.0
    for number in range(4):
        if number == 1:
            torch.cuda.synchronize()
            began = time.perf_counter()
        with torch.autocast(task.device, dtype=torch.bfloat16, enabled=takes_bfloat16(task.device, task.precision)):
            logits = stacked(batch)
        logits.float().sum().backward()
    torch.cuda.synchronize()
    return time.perf_counter() - began
