"""The layer table of a network: output shapes, parameters, multiply-adds."""

from __future__ import annotations

from committee.config.recipe import Network
from committee.nn.architectures import PlannedLayer, Shape, plan_layers


def layer_table(network: Network, image_shape: tuple[int, int, int], classes: int) -> list[PlannedLayer]:
    """The layers of a network for images (height, width, channel)."""
    height, width, channels = image_shape
    return plan_layers(network, (channels, height, width), classes)


def totals(layers: list[PlannedLayer]) -> tuple[int, int]:
    """All trainable parameters, and the multiply-adds of one image forward."""
    return sum(layer.parameters for layer in layers), sum(layer.multiply_adds for layer in layers)


def shape_text(shape: Shape) -> str:
    """A shape for people, image size first: (16, 28, 28) becomes "28 x 28 x 16"."""
    return " x ".join(map(str, (*shape[1:], shape[0])))
