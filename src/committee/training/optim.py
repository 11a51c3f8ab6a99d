"""Optimisers by name, and schedules as pure functions of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from committee import kernels
from committee.config.recipe import Optimiser, Recipe, Schedule
from committee.folders.records import EpochRecord


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


class Muon(torch.optim.Optimizer):
    """Muon (Jordan 2024) for the inner matrices, AdamW for all else; torch's takes only parameters of two dimensions.

    The momentum's matrix, (outputs, all inputs), is brought near the orthogonal one by five Newton-Schulz steps, then
    scaled by the square root of its height over its width where that is more than 1.

    Args:
        settings: lr, adamw_lr_factor, momentum (0 means .95), weight_decay, betas, epsilon.
        matrices: a network's convolutions and dense layers in order; the last is the output layer.
        others: biases and normalisation.
        members: networks in one; with more than one every parameter has them along its first axis.
        captured: steps will be part of a CUDA graph: the rate and the number of steps are tensors on the device.
    """

    def __init__(
        self,
        settings: Optimiser,
        matrices: Sequence[nn.Parameter],
        others: Sequence[nn.Parameter],
        *,
        members: int = 1,
        captured: bool = False,
    ) -> None:
        *inner, output = matrices
        self.captured = captured
        self.sizes = [p.numel() // members for p in inner for _ in range(members)]
        self.heights = [p.shape[0 if members == 1 else 1] for p in inner for _ in range(members)]
        shared: dict[str, Any] = {
            "lr": torch.tensor(settings.lr, device=output.device) if captured else settings.lr,
            "weight_decay": settings.weight_decay,
            "momentum": settings.momentum or 0.95,
            "betas": settings.betas,
            "epsilon": settings.epsilon,
        }
        groups: list[dict[str, Any]] = [{"params": joined(inner), "lr_factor": None}] if inner else []
        groups.append({"params": joined([output]), "lr_factor": settings.adamw_lr_factor})
        if others:
            groups.append({"params": joined(others), "lr_factor": settings.adamw_lr_factor, "weight_decay": 0.0})
        super().__init__(groups, shared)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """One step."""
        for group in self.param_groups:
            for p in group["params"]:
                if group["lr_factor"] is None:
                    self._step_of_matrices(p, group)
                else:
                    self._step_of_adamw(p, group)

    def _step_of_matrices(self, p: nn.Parameter, group: dict[str, Any]) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        moved = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
        way = p.grad.add(moved, alpha=group["momentum"])
        # in memory order, whatever that is: the order of a matrix's columns changes nothing
        matrices = [part.view(h, -1) for part, h in zip(torch.split(way, self.sizes), self.heights, strict=True)]
        for matrix, near in zip(matrices, orthogonalised(matrices), strict=True):
            stretch = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            torch.mul(near, stretch, out=matrix)
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(way.mul_(group["lr"]))

    def _step_of_adamw(self, p: nn.Parameter, group: dict[str, Any]) -> None:
        assert p.grad is not None
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=p.device if self.captured else "cpu")
            state |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        step = state["step"] if self.captured else float(state["step"])
        rate = group["lr"] * group["lr_factor"]
        mean, square = state["exp_avg"].lerp_(p.grad, 1 - beta1), state["exp_avg_sq"]
        square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        width = (square / (1 - beta2**step)).sqrt_().add_(group["epsilon"])
        p.mul_(1 - rate * group["weight_decay"]).sub_((mean / width).mul_(rate / (1 - beta1**step)))


def orthogonalised(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each matrix (height, width) float32 with its singular values brought near 1 (Newton-Schulz, Jordan 2024).

    A step is x <- (a + b x x' + c (x x')^2) x. All steps' polynomials are multiplied out on the Gram matrix x x', which
    is small, for all matrices of a size at once; x itself is multiplied twice instead of ten times.
    """
    tall = [m.shape[0] > m.shape[1] for m in matrices]
    flat = [m.T if turned else m for m, turned in zip(matrices, tall, strict=True)]
    found: dict[int, torch.Tensor] = {}
    for side in {len(m) for m in flat}:
        chosen = [number for number, m in enumerate(flat) if len(m) == side]
        gram = torch.stack([flat[number] @ flat[number].T for number in chosen])
        square = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-14)[:, None, None]
        gram, total = gram / square, torch.eye(side, device=gram.device) / square.sqrt()
        for _ in range(5):
            factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
            factor.diagonal(dim1=1, dim2=2).add_(3.4445)
            total, gram = factor @ total, factor @ gram @ factor
        for number, polynomial in zip(chosen, total, strict=True):
            found[number] = polynomial @ flat[number]
    return [found[number].T if turned else found[number] for number, turned in enumerate(tall)]


# How each optimiser of torch takes the recipe's fields. torch's and Keras's update rules agree for all of these, given
# the same epsilon; Nadam is Dozat 2016 with the momentum schedule 0.5 * 0.96^(step / 250), as in both.
OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[[Optimiser], dict[str, Any]]]] = {
    "sgd": (torch.optim.SGD, lambda o: {"momentum": o.momentum, "nesterov": o.nesterov}),
    "adam": (torch.optim.Adam, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "adamw": (torch.optim.AdamW, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "nadam": (Nadam, lambda o: {"betas": o.betas, "eps": o.epsilon, "foreach": True}),
    "adagrad": (
        torch.optim.Adagrad,
        lambda o: {"eps": o.epsilon, "initial_accumulator_value": o.initial_accumulator, "fused": True},
    ),
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
    settings: Optimiser,
    decayed: Sequence[nn.Parameter],
    spared: Sequence[nn.Parameter],
    *,
    members: int = 1,
    captured: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser of a recipe over parameters with and without weight decay, which it joins into two.

    Args:
        settings: the recipe's section.
        decayed, spared: on one device; neither may be part of another optimiser.
        members: networks in one; with more than one every parameter has them along its first axis.
        captured: its steps will be part of a CUDA graph: the rate is a tensor, and nothing is read back.
    """
    if settings.name == "muon":
        return Muon(settings, decayed, spared, members=members, captured=captured)
    make, fields = OPTIMISERS[settings.name]
    options = {**fields(settings), "lr": settings.lr}
    if captured:
        device = (decayed or spared)[0].device
        options |= {"lr": torch.tensor(settings.lr, device=device), "capturable": True}
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


CAPTURABLE = ("adam", "adamw", "nadam", "adadelta", "rmsprop", "muon")  # optimisers whose steps a CUDA graph can hold


def lr_at(step: int, steps: int, schedule: Schedule, peak: float) -> float:
    """The learning rate of a step.

    Args:
        step: 0 for the first.
        steps: of the whole training.
        schedule: its shape; see `committee.config.recipe.Schedule`. Stages and plateaus are constant here: what the
            rate depends on besides the step is in `peak`.
        peak: the largest rate: the recipe's `optimiser.lr`, or the stage's, or what the plateaus have left of it.
    """
    if schedule.name not in ("triangular", "cosine") and not schedule.warmup:
        return peak
    rising = schedule.warmup * steps
    if step < rising:
        return peak * (step + 1) / (rising + 1)
    left = (steps - step) / max(steps - rising, 1)  # 1 at the peak, towards 0 after the last step
    shape = {"triangular": left, "cosine": 0.5 - 0.5 * math.cos(math.pi * left)}
    return peak * shape.get(schedule.name, 1.0)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """The learning rate of the next step, in the tensor that a captured step reads, where there is one."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def lr_curves(
    recipe: Recipe, histories: Mapping[str, Sequence[EpochRecord]], points: int = 40
) -> dict[str, list[tuple[float, float]]]:
    """The learning rate against epochs, as curves to draw: (epochs done, learning rate).

    Args:
        recipe: its schedule.
        histories: by the member's name. A plateau comes at other epochs for every member, so these curves are drawn as
            they were; every other schedule is one curve for all.
        points: of an epoch.
    """
    if recipe.schedule.name == "plateau":
        found = {}
        for name, history in histories.items():
            ends = [(epoch.epoch - 1, epoch.epoch, epoch.learning_rate) for epoch in history]
            found[name] = [point for start, end, lr in ends for point in ((float(start), lr), (float(end), lr))]
        return found
    steps = recipe.training.epochs * points
    places = [(step, recipe.stage_at(step // points)) for step in range(steps)]
    curve = [(step / points, lr_at(step, steps, recipe.schedule, stage.lr)) for step, stage in places]
    return {"every member": [*curve, (float(recipe.training.epochs), curve[-1][1])]}
