"""The layer table of a network: output shapes, parameters, multiply-adds."""

from __future__ import annotations

from committee.config.recipe import Network
from committee.nn.architectures import PlannedLayer, Shape, plan_layers


def layer_table(network: Network, image_shape: tuple[int, int, int], classes: int) -> list[PlannedLayer]:
    """The layers of a network for images of a shape (height, width, channel).

    Raises:
        RecipeError: a layer does not fit the output of the one before it.
    """
    height, width, channels = image_shape
    return plan_layers(network, (channels, height, width), classes)


def totals(layers: list[PlannedLayer]) -> tuple[int, int]:
    """The number of trainable parameters, and of multiply-adds in the forward pass of one image."""
    return sum(layer.parameters for layer in layers), sum(layer.multiply_adds for layer in layers)


def shape_text(shape: Shape) -> str:
    """A shape as text, channels last: (16, 28, 28) becomes "28 x 28 x 16"."""
    return " x ".join(map(str, (*shape[1:], shape[0])))
