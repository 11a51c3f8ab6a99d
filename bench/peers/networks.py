"""The published networks and training recipes, for the peers: the same layers in Keras and in PyTorch.

Importing this imports neither.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

P1 = [
    ("conv", 16, 3, "same"), ("conv", 16, 3, "same"), ("pool",), ("conv", 32, 3, "same"), ("conv", 32, 3, "same"),
    ("pool",), ("conv", 64, 3, "same"), ("conv", 64, 3, "same"), ("conv", 64, 3, "valid"), ("flatten",),
    ("dropout", 0.25), ("dense", 128), ("dropout", 0.5), ("dense", 128), ("dropout", 0.5), ("classes",),
]  # fmt: skip
P3_CONV = [
    ("conv", 10, 5, "same"), ("conv", 10, 5, "same"), ("pool",), ("flatten",), ("dense", 64), ("dropout", 0.2),
    ("classes",),
]  # fmt: skip
P3_DEEP = [
    ("conv", 32, 5, "same"), ("conv", 32, 5, "same"), ("pool",), ("dropout", 0.25), ("conv", 64, 3, "same"),
    ("conv", 64, 3, "same"), ("pool",), ("flatten",), ("dense", 256), ("dropout", 0.2), ("classes",),
]  # fmt: skip
EXAMPLE = [
    ("conv", 32, 3, "valid"), ("pool",), ("conv", 64, 3, "valid"), ("pool",), ("flatten",), ("dropout", 0.5),
    ("classes",),
]  # fmt: skip


@dataclass(frozen=True)
class Published:
    """How a network was trained; `augmentation` are fields of committee.config.recipe.Augmentation."""

    layers: list[tuple[Any, ...]]
    parameters: int
    optimiser: str
    rate: float
    batch: int
    epochs: int
    images: int  # of MNIST's 60,000; the rest is held out
    augmentation: dict[str, Any] = field(default_factory=dict)
    plateau: bool = False  # halve the rate when held-out accuracy has not risen for 3 epochs, not under 1e-5


P3_CHANGES = {"rotation": 10.0, "zoom": 0.1, "zoom_axes": "separately", "shift": 0.1, "fill": "edge"}
RECIPES = {
    "P1": Published(P1, 331_450, "nadam", 2e-3, 128, 25, 48_000),
    "P3, conv": Published(P3_CONV, 128_924, "adam", 1e-3, 86, 30, 50_000, P3_CHANGES, plateau=True),
    "P3, deep": Published(P3_DEEP, 887_530, "adam", 1e-3, 86, 30, 50_000, P3_CHANGES, plateau=True),
    "Keras's example": Published(EXAMPLE, 34_826, "adam", 1e-3, 128, 15, 54_000),
}


def keras_model(layers: list[tuple[Any, ...]]) -> Any:
    """For images (28, 28, 1) in 0..1; softmax outputs in float32. Keras's backend and precision are chosen before."""
    import keras
    from keras import layers as kinds

    make = {
        "conv": lambda filters, kernel, padding: kinds.Conv2D(filters, kernel, padding=padding, activation="relu"),
        "pool": lambda: kinds.MaxPooling2D(2),
        "flatten": kinds.Flatten,
        "dropout": kinds.Dropout,
        "dense": lambda units: kinds.Dense(units, "relu"),
        "classes": lambda: kinds.Dense(10, "softmax", dtype="float32"),
    }
    return keras.Sequential([keras.Input((28, 28, 1)), *(make[kind](*arguments) for kind, *arguments in layers)])


def torch_model(layers: list[tuple[Any, ...]]) -> Any:
    """For images (1, 28, 28) in 0..1; logits."""
    from torch import nn

    modules: list[Any] = []
    for kind, *arguments in layers:
        if kind == "conv":
            filters, kernel, padding = arguments
            modules += [nn.LazyConv2d(filters, kernel, padding=kernel // 2 if padding == "same" else 0), nn.ReLU()]
        elif kind == "dense":
            modules += [nn.LazyLinear(*arguments), nn.ReLU()]
        else:
            make: dict[str, Any] = {
                "pool": lambda: nn.MaxPool2d(2),
                "flatten": nn.Flatten,
                "classes": lambda: nn.LazyLinear(10),
            }
            modules.append(nn.Dropout(*arguments) if kind == "dropout" else make[kind]())
    network = nn.Sequential(*modules)
    import torch

    network(torch.zeros(2, 1, 28, 28))  # gives the lazy layers their shapes
    return network
