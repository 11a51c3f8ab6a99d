"""Optimisers by name, and learning rates as pure functions of the step."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from committee import kernels
from committee.config.recipe import Optimiser, Recipe, Schedule
from committee.folders.records import EpochRecord

_Options = dict[str, Any]  # keyword arguments of an optimiser of torch, or one of its parameter groups
CAPTURABLE = ("adam", "adamw", "nadam", "adadelta", "rmsprop", "muon")  # a CUDA graph can hold a step of these


def on_kernels(optimiser: torch.optim.Optimizer) -> bool:
    """Whether the kernels can compute this optimiser's steps: they are available, and all parameters on the CPU."""
    return kernels.available() and all(p.device.type == "cpu" for g in optimiser.param_groups for p in g["params"])


def eager(method: Callable[..., Any]) -> Callable[..., Any]:
    """A method of torch's optimisers without its decorators: their first call imports torch.compile's modules, whether
    anything is compiled or not, which takes each process a second and 70 MB.
    """
    plain: Callable[..., Any] = inspect.unwrap(method)
    return torch.no_grad()(plain)


class Eager(torch.optim.Optimizer):
    """What all of torch's optimisers have, see `eager`."""

    add_param_group = eager(torch.optim.Optimizer.add_param_group)
    zero_grad = eager(torch.optim.Optimizer.zero_grad)
    state_dict = eager(torch.optim.Optimizer.state_dict)
    load_state_dict = eager(torch.optim.Optimizer.load_state_dict)


def eager_kind(kind: type[torch.optim.Optimizer]) -> type[torch.optim.Optimizer]:
    """An optimiser of torch, see `eager`."""
    return type(kind.__name__, (Eager, kind), {"step": eager(kind.step)})


Sgd = eager_kind(torch.optim.SGD)
Adam = eager_kind(torch.optim.Adam)
AdamW = eager_kind(torch.optim.AdamW)
Adagrad = eager_kind(torch.optim.Adagrad)
RMSprop = eager_kind(torch.optim.RMSprop)


class Nadam(Eager, torch.optim.NAdam):
    """Nadam as in torch; with the kernels, a step is one pass over the parameters.

    Dozat 2016, "Incorporating Nesterov momentum into Adam", ICLR workshop.
    """

    torch_step = eager(torch.optim.NAdam.step)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters by their gradients."""
        if not on_kernels(self):
            self.torch_step(closure)
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


class Adadelta(Eager, torch.optim.Adadelta):
    """Adadelta as in torch; with the kernels, a step is one pass over the parameters.

    Zeiler 2012, "ADADELTA: An adaptive learning rate method", arXiv 1212.5701.
    """

    torch_step = eager(torch.optim.Adadelta.step)

    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters by their gradients."""
        if not on_kernels(self):
            self.torch_step(closure)
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


class Muon(Eager):
    """Muon for the hidden layers' weight matrices, AdamW for all other parameters.

    Jordan et al. 2024, "Muon: An optimizer for hidden layers in neural networks", kellerjordan.github.io/posts/muon.
    AdamW: Loshchilov & Hutter, "Decoupled weight decay regularization", arXiv 1711.05101. The momentum of a layer's
    weights, as a matrix (outputs, inputs), is replaced by a nearly orthogonal one, see `orthogonalised`, which is
    multiplied by sqrt(outputs / inputs) where that is more than 1. torch.optim.Muon does the same but takes no
    convolutions.

    Args:
        settings: lr, adamw_lr_factor, momentum (0 means .95), weight_decay, betas, epsilon.
        decay: weights of convolutions and dense layers, in the order of the layers; the last is the output layer's.
        no_decay: biases and the parameters of batch normalisation.
        members: the number of networks; with more than one, every parameter has them along its first axis.
        capturable: whether a CUDA graph will hold the steps; the learning rate and the number of steps are then tensors
            on the device.
    """

    def __init__(
        self,
        settings: Optimiser,
        decay: Sequence[nn.Parameter],
        no_decay: Sequence[nn.Parameter],
        *,
        members: int = 1,
        capturable: bool = False,
    ) -> None:
        *hidden, output = decay
        self.capturable = capturable
        self.sizes = [p.numel() // members for p in hidden for _ in range(members)]
        self.outputs = [p.shape[0 if members == 1 else 1] for p in hidden for _ in range(members)]
        defaults: _Options = {
            "lr": torch.tensor(settings.lr, device=output.device) if capturable else settings.lr,
            "weight_decay": settings.weight_decay,
            "momentum": settings.momentum or 0.95,
            "betas": settings.betas,
            "epsilon": settings.epsilon,
        }
        groups: list[_Options] = [{"params": flattened(hidden), "lr_factor": None}] if hidden else []
        groups.append({"params": flattened([output]), "lr_factor": settings.adamw_lr_factor})
        if no_decay:
            groups.append({"params": flattened(no_decay), "lr_factor": settings.adamw_lr_factor, "weight_decay": 0.0})
        super().__init__(groups, defaults)

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Update the parameters by their gradients."""
        for group in self.param_groups:
            for p in group["params"]:
                if group["lr_factor"] is None:
                    self._muon_step(p, group)
                else:
                    self._adamw_step(p, group)

    def _muon_step(self, p: nn.Parameter, group: _Options) -> None:
        assert p.grad is not None
        state = self.state[p]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(p)
        momentum = state["momentum_buffer"].mul_(group["momentum"]).add_(p.grad)
        update = p.grad.add(momentum, alpha=group["momentum"])
        # as they lie in memory: the order of a matrix's columns does not matter
        matrices = [part.view(n, -1) for part, n in zip(torch.split(update, self.sizes), self.outputs, strict=True)]
        for matrix, orthogonal in zip(matrices, orthogonalised(matrices), strict=True):
            scale = max(1.0, matrix.shape[0] / matrix.shape[1]) ** 0.5
            torch.mul(orthogonal, scale, out=matrix)
        p.mul_(1 - group["lr"] * group["weight_decay"]).sub_(update.mul_(group["lr"]))

    def _adamw_step(self, p: nn.Parameter, group: _Options) -> None:
        assert p.grad is not None
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state["step"] = torch.zeros((), device=p.device if self.capturable else "cpu")
            state |= {"exp_avg": torch.zeros_like(p), "exp_avg_sq": torch.zeros_like(p)}
        state["step"] += 1
        step = state["step"] if self.capturable else float(state["step"])
        lr = group["lr"] * group["lr_factor"]
        mean, square = state["exp_avg"].lerp_(p.grad, 1 - beta1), state["exp_avg_sq"]
        square.mul_(beta2).addcmul_(p.grad, p.grad, value=1 - beta2)
        deviation = (square / (1 - beta2**step)).sqrt_().add_(group["epsilon"])
        p.mul_(1 - lr * group["weight_decay"]).sub_((mean / deviation).mul_(lr / (1 - beta1**step)))


def orthogonalised(matrices: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    """Each matrix (height, width) float32 with its singular values brought near 1, by five Newton-Schulz steps.

    A step is x <- (a + b x x' + c (x x')^2) x, with the coefficients of Jordan et al. 2024 (see `Muon`). The steps'
    polynomials are multiplied out on the Gram matrix x x', for all matrices of equal height at once, so that x, which
    is larger, is multiplied twice instead of ten times. Matrices higher than wide are transposed meanwhile.
    """
    is_tall = [m.shape[0] > m.shape[1] for m in matrices]
    wide = [m.T if tall else m for m, tall in zip(matrices, is_tall, strict=True)]
    results: dict[int, torch.Tensor] = {}
    for height in {len(m) for m in wide}:
        alike = [number for number, m in enumerate(wide) if len(m) == height]
        gram = torch.stack([wide[number] @ wide[number].T for number in alike])
        squared_norm = gram.diagonal(dim1=1, dim2=2).sum(1).clamp_min(1e-14)[:, None, None]
        gram, product = gram / squared_norm, torch.eye(height, device=gram.device) / squared_norm.sqrt()
        for _ in range(5):
            factor = torch.baddbmm(gram, gram, gram, beta=-4.7750, alpha=2.0315)
            factor.diagonal(dim1=1, dim2=2).add_(3.4445)
            product, gram = factor @ product, factor @ gram @ factor
        for number, polynomial in zip(alike, product, strict=True):
            results[number] = polynomial @ wide[number]
    return [results[number].T if tall else results[number] for number, tall in enumerate(is_tall)]


# How each optimiser of torch takes the recipe's fields. torch's and Keras's update rules agree for all of these, given
# the same epsilon; in both, Nadam's momentum schedule is 0.5 * 0.96^(step / 250).
OPTIMISERS: dict[str, tuple[Callable[..., torch.optim.Optimizer], Callable[[Optimiser], _Options]]] = {
    "sgd": (Sgd, lambda o: {"momentum": o.momentum, "nesterov": o.nesterov}),
    "adam": (Adam, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "adamw": (AdamW, lambda o: {"betas": o.betas, "eps": o.epsilon, "fused": True}),
    "nadam": (Nadam, lambda o: {"betas": o.betas, "eps": o.epsilon, "foreach": True}),
    "adagrad": (
        Adagrad,
        lambda o: {"eps": o.epsilon, "initial_accumulator_value": o.initial_accumulator, "fused": True},
    ),
    "adadelta": (Adadelta, lambda o: {"rho": o.rho, "eps": o.epsilon}),
    "rmsprop": (RMSprop, lambda o: {"alpha": o.rho, "eps": o.epsilon, "momentum": o.momentum}),
}


def make_optimiser(settings: Optimiser, network: nn.Module) -> torch.optim.Optimizer:
    """The optimiser of a recipe for a network; biases and batch normalisation have no weight decay.

    The arguments and the effect on the network's parameters are those of `optimiser_over`.
    """
    parameters = list(network.parameters())
    return optimiser_over(settings, [p for p in parameters if p.ndim > 1], [p for p in parameters if p.ndim <= 1])


def optimiser_over(
    settings: Optimiser,
    decay: Sequence[nn.Parameter],
    no_decay: Sequence[nn.Parameter],
    *,
    members: int = 1,
    capturable: bool = False,
) -> torch.optim.Optimizer:
    """The optimiser of a recipe for parameters with and without weight decay.

    Each kind becomes one long parameter, so that a step is a few large operations; see `flattened`.

    Args:
        settings: the recipe's section.
        decay, no_decay: on one device, in the order of the layers; not in use by another optimiser.
        members: the number of networks; with more than one, every parameter has them along its first axis.
        capturable: whether a CUDA graph will hold the steps; the learning rate is then a tensor on the device, and a
            step never waits for a value of it. Only optimisers in `CAPTURABLE` can do that.
    """
    if settings.name == "muon":
        return Muon(settings, decay, no_decay, members=members, capturable=capturable)
    make, fields = OPTIMISERS[settings.name]
    options = {**fields(settings), "lr": settings.lr}
    if capturable:
        device = (decay or no_decay)[0].device
        options |= {"lr": torch.tensor(settings.lr, device=device), "capturable": True}
    groups = [
        {"params": flattened(decay), "weight_decay": settings.weight_decay},
        {"params": flattened(no_decay), "weight_decay": 0.0},
    ]
    return make([group for group in groups if group["params"]], **options)


def flattened(parameters: Sequence[nn.Parameter]) -> list[nn.Parameter]:
    """One long parameter, of which all of these become views, gradients included; an empty list for none.

    Each keeps its shape and its order in memory.
    """
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


def lr_at(step: int, steps: int, schedule: Schedule, peak: float) -> float:
    """The learning rate of a step.

    "triangular" is one cycle after Smith & Topin 2017, "Super-convergence: Very fast training of neural networks using
    large learning rates", arXiv 1708.07120; "cosine" is one cycle of Loshchilov & Hutter 2017, "SGDR: Stochastic
    gradient descent with warm restarts", arXiv 1608.03983, after a linear warm-up.

    Args:
        step: counted from 0.
        steps: of the whole training.
        schedule: the recipe's section. "stages" and "plateau" are constant here, apart from the warm-up: all that they
            do is in `peak`.
        peak: the largest learning rate: `optimiser.lr`, or the stage's, or what plateaus have left of it.
    """
    if schedule.name not in ("triangular", "cosine") and not schedule.warmup:
        return peak
    warmup = schedule.warmup * steps
    if step < warmup:
        return peak * (step + 1) / (warmup + 1)
    remaining = (steps - step) / max(steps - warmup, 1)  # 1 at the peak, towards 0 after the last step
    shape = {"triangular": remaining, "cosine": 0.5 - 0.5 * math.cos(math.pi * remaining)}
    return peak * shape.get(schedule.name, 1.0)


def set_lr(optimiser: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of the next step; in place where it is a tensor, which a captured step reads."""
    for group in optimiser.param_groups:
        if isinstance(group["lr"], torch.Tensor):
            group["lr"].fill_(lr)
        else:
            group["lr"] = lr


def lr_curves(
    recipe: Recipe, histories: Mapping[str, Sequence[EpochRecord]], points: int = 40
) -> dict[str, list[tuple[float, float]]]:
    """The learning rate over a training, as curves to draw.

    Args:
        recipe: whose schedule it is.
        histories: the members' epochs, by the members' names. With the plateau schedule each member has its own curve,
            the learning rates that it had; any other schedule is one curve for all members.
        points: of a curve in each epoch.

    Returns:
        By name, points (epochs finished, learning rate).
    """
    if recipe.schedule.name == "plateau":
        return {name: past_lr_curve(history) for name, history in histories.items()}
    steps = recipe.training.epochs * points
    stages = [(step, recipe.stage_at(step // points)) for step in range(steps)]
    curve = [(step / points, lr_at(step, steps, recipe.schedule, stage.lr)) for step, stage in stages]
    return {"every member": [*curve, (float(recipe.training.epochs), curve[-1][1])]}


def past_lr_curve(history: Sequence[EpochRecord]) -> list[tuple[float, float]]:
    """One member's learning rates as they were, constant within each epoch: (epochs finished, learning rate)."""
    ends = [(float(epoch.epoch - 1), float(epoch.epoch), epoch.learning_rate) for epoch in history]
    return [point for start, end, lr in ends for point in ((start, lr), (end, lr))]
