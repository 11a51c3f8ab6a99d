"""Optimisers by name, and schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from committee import kernels
from committee.recipe import Optimiser, Recipe, Schedule


def on_kernels(optimiser: torch.optim.Optimizer) -> bool:
    """Whether the kernels can take this optimiser's steps."""
    return kernels.available() and all(p.device.type == "cpu" for g in optimiser.param_groups for p in g["params"])


class Nadam(torch.optim.NAdam):
    """torch's, its step in one pass over the parameters where the kernels are there."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        if not on_kernels(self):
            super().step(closure)
            return
        for group in self.param_groups:
            beta1, beta2 = group["betas"]
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"], state["mu_product"] = torch.zeros(()), torch.ones(())
                    state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                step = float(state["step"])
                mu, mu_next = (beta1 * (1 - 0.5 * 0.96 ** (n * group["momentum_decay"])) for n in (step, step + 1))
                state["mu_product"] *= mu
                product = float(state["mu_product"])
                kernels.nadam(
                    p.data,
                    p.grad,
                    state["exp_avg"],
                    state["exp_avg_sq"],
                    betas=(beta1, beta2),
                    epsilon=group["eps"],
                    gradient_rate=group["lr"] * (1 - mu) / (1 - product),
                    decay=group["weight_decay"],
                    mean_rate=group["lr"] * mu_next / (1 - product * mu_next),
                    correction=1 - beta2**step,
                )


class Adadelta(torch.optim.Adadelta):
    """torch's, its step in one pass over the parameters where the kernels are there."""

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        if not on_kernels(self):
            super().step(closure)
            return
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if not state:
                    state["step"] = torch.zeros(())
                    state["square_avg"], state["acc_delta"] = torch.zeros_like(p), torch.zeros_like(p)
                state["step"] += 1
                kernels.adadelta(
                    p.data,
                    p.grad,
                    state["square_avg"],
                    state["acc_delta"],
                    rate=group["lr"],
                    rho=group["rho"],
                    epsilon=group["eps"],
                    decay=group["weight_decay"],
                )


# How each optimiser of torch takes the recipe's fields. torch's and Keras's update rules agree for all of these, given
# the same epsilon; Nadam is Dozat 2016 with the momentum schedule 0.5 * 0.96^(step / 250), as in both.
OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[[Optimiser], dict[str, Any]]]] = {
    "sgd": (torch.optim.SGD, lambda o: {"momentum": o.momentum, "nesterov": o.nesterov}),
    "adam": (torch.optim.Adam, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "adamw": (torch.optim.AdamW, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "nadam": (Nadam, lambda o: {"betas": o.betas, "eps": o.epsilon, "foreach": True}),
    "adagrad": (torch.optim.Adagrad, lambda o: {"eps": o.epsilon, "initial_accumulator_value": 0.1, "fused": True}),
    "adadelta": (Adadelta, lambda o: {"rho": o.rho, "eps": o.epsilon}),
    "rmsprop": (torch.optim.RMSprop, lambda o: {"alpha": o.rho, "eps": o.epsilon, "momentum": o.momentum}),
}


def make_optimiser(settings: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe over a network's parameters; biases and normalisation are spared the weight decay.

    It works on two long parameters, of which the network's become parts: one step of a few large operations.
    """
    parameters = list(network.parameters())
    return optimiser_over(settings, [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1])


def optimiser_over(
    settings: Optimiser, decayed: Sequence[nn.Parameter], spared: Sequence[nn.Parameter], *, captured: bool = False
) -> torch.optim.Optimizer:
    """The optimiser of a recipe over parameters with and without weight decay, which it joins into two.

    Args:
        settings: the recipe's section.
        decayed, spared: on one device; neither may be part of another optimiser.
        captured: its steps will be part of a CUDA graph: the rate is a tensor, and nothing is read back.
    """
    make, fields = OPTIMISERS[settings.name]
    options = {**fields(settings), "lr": settings.rate}
    if captured:
        device = (decayed or spared)[0].device
        options |= {"lr": torch.tensor(settings.rate, device=device), "capturable": True}
    groups = [
        {"params": joined(decayed), "weight_decay": settings.weight_decay},
        {"params": joined(spared), "weight_decay": 0.0},
    ]
    return make([group for group in groups if group["params"]], **options)


def joined(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """One long parameter, in whose memory (gradients too) all of these live from now on; nothing for none."""
    if not parameters:
        return []
    values = torch.cat([p.detach().as_strided((p.numel(),), (1,)) for p in parameters])
    whole = nn.Parameter(values)
    whole.grad = torch.zeros_like(values)
    start = 0
    for p in parameters:
        shape, stride = p.shape, p.stride()
        p.data = values.as_strided(shape, stride, start)
        p.grad = whole.grad.as_strided(shape, stride, start)
        start += p.numel()
    return [whole]


CAPTURABLE = ("adam", "adamw", "nadam", "adadelta", "rmsprop")  # optimisers whose steps a CUDA graph can hold


def rate_at(step: int, steps: int, schedule: Schedule, peak: float) -> float:
    """The learning rate of a step.

    Args:
        step: 0 for the first.
        steps: of the whole training.
        schedule: its shape; see `committee.recipe.Schedule`. Stages and plateaus are constant here: what the rate
            hangs on besides the step is in `peak`.
        peak: the largest rate: the recipe's `optimiser.rate`, or the stage's, or what the plateaus have left of it.
    """
    if schedule.name not in ("triangular", "cosine") and not schedule.warm_up:
        return peak
    rising = schedule.warm_up * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    left = (steps - step) / max(steps - rising, 1)  # 1 at the peak, towards 0 after the last step
    shape = {"triangular": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
    return peak * shape.get(schedule.name, 1.0)


def rate_lines(
    recipe: Recipe, histories: Mapping[str, Sequence[Mapping[str, Any]]], points: int = 40
) -> dict[str, list[tuple[float, float]]]:
    """The learning rate against epochs, as lines to draw: (epochs done, rate).

    Args:
        recipe: its schedule.
        histories: lines of history by the member's name; plateaus come at other epochs for every member, so these are
            drawn as they were; every other schedule is one line for all.
        points: of an epoch.
    """
    if recipe.schedule.name == "plateau":
        found = {}
        for name, history in histories.items():
            ends = [(line["epoch"] - 1, line["epoch"], line["learning_rate"]) for line in history]
            found[name] = [point for start, end, rate in ends for point in ((start, rate), (end, rate))]
        return found
    steps = recipe.training.epochs * points
    places = [(step, recipe.stage_at(step // points)) for step in range(steps)]
    line = [(step / points, rate_at(step, steps, recipe.schedule, stage.rate)) for step, stage in places]
    return {"every member": [*line, (float(recipe.training.epochs), line[-1][1])]}
