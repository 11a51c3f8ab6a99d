"""M members at once on one device: the same tasks as `fit`, the same draws, the same weights within rounding.

Every member has its own order of images, its own changes and dropout, its own held-out part and its own kept epoch; a
member that has stopped early stays in the stack and is no longer looked at. On CUDA a whole step is captured as a graph
and replayed, since a small network's step is mostly the launching of its many small kernels; the form of convolution is
the one that measures fastest.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Generator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn

from committee.data.augment import augment
from committee.data.dataset import Labels, Pixels
from committee.nn.stacked import FORMS, Form, Stacked
from committee.rng import derive, numpy_generator
from committee.training.batches import as_float, on_device
from committee.training.loop import (
    STATISTICS_STEPS,
    after_epoch,
    estimate_statistics,
    history_line,
    loss_of,
    new_network,
    score,
)
from committee.training.optim import CAPTURABLE, optimiser_over, rate_at, set_rate
from committee.training.state import Fitted, NonFiniteLossError, Progress, State, Task


def why_not(tasks: Sequence[Task]) -> str:
    """Why these members cannot be trained as one stack, in words; "" where they can."""
    first = tasks[0]
    reasons = {
        "one member is no stack": len(tasks) < 2,
        "their recipes differ": any(task.recipe != first.recipe for task in tasks),
        "they train on different numbers of images": len({len(task.train) for task in tasks}) > 1,
        "their networks differ": len({first.recipe.network.of_member(task.member) for task in tasks}) > 1,
        "a plateau schedule gives each its own rate": first.recipe.schedule.name == "plateau",
        "pseudo-labelled images": any(task.pseudo for task in tasks),
        "a running average of the weights": bool(first.recipe.training.ema),
        "different epochs behind them": len({task.first_epoch for task in tasks}) > 1,
    }
    return next((reason for reason, holds in reasons.items() if holds), "")


def fit_stacked(
    pixels: Pixels, labels: Labels, tasks: Sequence[Task], *, form: Form | None = None
) -> Generator[Progress | tuple[int, State], None, list[Fitted | NonFiniteLossError]]:
    """Train several members at once.

    Args:
        pixels, labels: as in `committee.training.loop.fit`, the same for all.
        tasks: one a member, for which `why_not` is "".
        form: how convolutions are computed; None measures, on CUDA, and is "apart" elsewhere.

    Yields:
        Progress of every member about twice a second; after each epoch, for each member still going, its place in
        `tasks` and its State, which cannot be resumed from: its optimiser is shared by all and is not in it.

    Returns:
        For each task the trained member, or why it could not be trained.
    """
    recipe, device, precision = tasks[0].recipe, tasks[0].device, tasks[0].precision
    training, members = recipe.training, len(tasks)
    networks = [new_network(pixels, task) for task in tasks]
    images, targets = on_device(pixels, device), torch.from_numpy(labels).to(device)
    stack = Stacked(networks, form or fastest_form(networks, images, tasks[0])).to(device).train()
    captured = device == "cuda" and recipe.optimiser.name in CAPTURABLE
    optimiser = optimiser_over(recipe.optimiser, *stack.decayed_and_spared(), members=members, captured=captured)
    changes = [torch.Generator(device) for _ in tasks]
    drops = [torch.Generator(device) for _ in tasks]
    stack.set_dropout_generators(drops)
    loss_sums, right_sums = torch.zeros(members, device=device), torch.zeros(members, device=device)

    def step(chosen: Tensor, augmented: bool) -> None:
        """One step of all members on images (member, image)."""
        optimiser.zero_grad(set_to_none=False)
        batch = torch.stack([changed(images[rows], augmented, changes[m]) for m, rows in enumerate(chosen)])
        with torch.autocast(device, dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            logits = stack(batch)
        wanted = targets[chosen]
        losses = torch.stack([loss_of(logits[m].float(), wanted[m], training) for m in range(members)])
        losses.sum().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
        loss_sums.add_(losses.detach() * chosen.shape[1])
        right_sums.add_((logits.detach().argmax(2) == wanted).sum(1))

    def changed(batch: Tensor, augmented: bool, generator: torch.Generator) -> Tensor:
        floats = as_float(batch)
        return augment(floats, recipe.augmentation, generator) if augmented else floats

    run_step = CapturedStep(step, [*changes, *drops]) if captured else step
    first = tasks[0].first_epoch
    states = [State(first, {}, {}, {}, first) for _ in tasks]
    remarks, failures = ["" for _ in tasks], [None for _ in tasks]  # type: list[str], list[NonFiniteLossError | None]
    last, steps_before = first + training.epochs, [0]
    for epoch in range(first + 1, last + 1):
        steps_before.append(steps_before[-1] + tasks[0].steps(epoch))
    told = 0.0
    for epoch in range(first + 1, last + 1):
        going = [m for m in range(members) if not remarks[m]]
        if not going:
            break
        began, seen, size = time.perf_counter(), 0, tasks[0].batch(epoch)
        for m, task in enumerate(tasks):
            key = (task.seed, "member", task.member)
            changes[m].manual_seed(derive(*key, "augmentation", epoch))
            drops[m].manual_seed(derive(*key, "dropout", epoch))
        orders = [
            numpy_generator(task.seed, "member", task.member, "order", epoch).permutation(task.train) for task in tasks
        ]
        positions = torch.from_numpy(np.stack(orders)).to(device)
        loss_sums.zero_()
        right_sums.zero_()
        augmented = tasks[0].augmented(epoch)
        before = steps_before[epoch - first - 1]
        for number, chosen in enumerate(torch.split(positions, size, dim=1)):
            rate = rate_at(before + number, steps_before[-1], recipe.schedule, tasks[0].stage(epoch).lr)
            set_rate(optimiser, rate)
            run_step(chosen, augmented)
            seen += chosen.shape[1]
            if (now := time.perf_counter()) - told > 0.5:
                told = now
                for m in going:
                    loss = float(loss_sums[m]) / seen
                    yield Progress(tasks[m].member, epoch, number + 1, tasks[m].steps(epoch), loss)
        seconds = time.perf_counter() - began
        stack.hand_back(networks)
        for m in going:
            task, network = tasks[m], networks[m]
            loss = float(loss_sums[m]) / seen
            if steps_before[epoch - first] <= STATISTICS_STEPS:
                estimate_statistics(network, images, task, epoch)
            held_out_loss, held_out_accuracy = score(network, images, targets, task.held_out, task)
            if not math.isfinite(loss) or not math.isfinite(held_out_loss or 0.0):
                failures[m] = NonFiniteLossError(f"the loss became {loss} (held out: {held_out_loss}) in epoch {epoch}")
                remarks[m] = "failed"
                continue
            scores = held_out_loss, held_out_accuracy
            line = history_line(epoch, began, seconds, seen, rate, loss, int(right_sums[m]), scores)
            states[m] = replace(after_epoch(states[m], line, network, network, optimiser, recipe), optimiser={})
            if training.patience and states[m].epochs_since_lowest >= training.patience:
                remarks[m] = f"held-out loss not lower for {training.patience} epochs"
            yield m, states[m]
    fitted: list[Fitted | NonFiniteLossError] = []
    for network, state, remark, failure in zip(networks, states, remarks, failures, strict=True):
        if failure is None:
            network.load_state_dict(state.kept)
            whole = f"all {training.epochs} epochs"
            fitted.append(Fitted(network.eval(), state.kept_epoch, state.history, remark or whole))
        else:
            fitted.append(failure)
    return fitted


class CapturedStep:
    """A step on CUDA, run as it is three times, then captured as a graph for its shape and replayed.

    Args:
        step: takes positions (member, image) and whether images are changed; all else it touches stays in place.
        generators: those it draws from.
    """

    def __init__(self, step: Callable[[Tensor, bool], None], generators: Sequence[torch.Generator]) -> None:
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
    """The form of convolution whose forward and backward pass takes least time here; "apart" off CUDA."""
    if task.device != "cuda":
        return "apart"
    rows = torch.arange(min(task.batch(task.first_epoch + 1), len(images)), device=task.device)
    batch = torch.stack([as_float(images[rows])] * len(networks))
    seconds = {}
    for form in FORMS:
        stack = Stacked(networks, form).to(task.device).train()
        stack.set_dropout_generators([torch.Generator(task.device) for _ in networks])
        for attempt in range(4):
            if attempt == 1:  # the first one chose its kernels
                torch.cuda.synchronize()
                began = time.perf_counter()
            with torch.autocast(task.device, dtype=torch.bfloat16, enabled=task.precision == "bfloat16"):
                logits = stack(batch)
            logits.float().sum().backward()
        torch.cuda.synchronize()
        seconds[form] = time.perf_counter() - began
    return min(FORMS, key=lambda form: seconds[form])
