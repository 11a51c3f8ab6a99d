"""Random changes to training images, a batch at a time: rotation, zoom, shear, shift, bending, flips, an erased square,
a part of another image.

All draws come from the generator that the caller passes, so an epoch's images depend on its key alone.
"""

from __future__ import annotations

import math
from functools import cache
from typing import NamedTuple, cast

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from committee import kernels
from committee.config.recipe import Augmentation
from committee.data.dataset import ImageDataset, Pixels
from committee.rng import torch_generator

KNOTS = 4  # intervals between the control points that bend an image, along each side


def augment(images: Tensor, settings: Augmentation, generator: torch.Generator) -> Tensor:
    """Changed copies of a batch.

    Args:
        images: (image, channel, height, width) float32, raw pixel values.
        settings: how much of what; see `committee.config.recipe.Augmentation`.
        generator: on the images' device.

    Returns:
        The same shape and type. What comes in from outside the image is what `fill` says: zeros, the nearest edge
        pixel, or the image mirrored at its edge.
    """
    if settings.moves:
        matrices = random_matrices(len(images), settings, images, generator)
        bends = random_bends(len(images), settings.elastic, images, generator) if settings.elastic else None
        images = warp(images, matrices, settings.fill, bends)
    elif settings.flip_horizontal:
        flipped = _uniform(len(images), 0.0, 1.0, images, generator) < 0.5
        images = torch.where(flipped[:, None, None, None], images.flip(3), images)
    if settings.cutout:
        images = erase(images, settings.cutout, generator)
    return images


def random_matrices(count: int, settings: Augmentation, like: Tensor, generator: torch.Generator) -> Tensor:
    """A random affine map for each image: (image, 2, 3), output pixel -> input pixel, in pixels from the centre.

    Args:
        count: number of images.
        settings: the ranges; values are drawn uniformly.
        like: the images, for device and size.
        generator: on the same device.
    """
    height, width = like.shape[2:]
    angle = _uniform(count, -settings.rotation, settings.rotation, like, generator) * (math.pi / 180)
    scale_x = scale_y = 1 / _uniform(count, 1 - settings.zoom, 1 + settings.zoom, like, generator)
    shear = _uniform(count, -settings.shear, settings.shear, like, generator)
    across = _uniform(count, -settings.shift * width, settings.shift * width, like, generator)
    down = _uniform(count, -settings.shift * height, settings.shift * height, like, generator)
    mirror_x = _sign(count, settings.flip_horizontal, like, generator)
    mirror_y = _sign(count, settings.flip_vertical, like, generator)
    if settings.zoom_axes == "separately":
        scale_y = 1 / _uniform(count, 1 - settings.zoom, 1 + settings.zoom, like, generator)
    x, y = scale_x * mirror_x, scale_y * mirror_y
    cosine, sine = torch.cos(angle), torch.sin(angle)
    rows = [
        torch.stack([cosine * x, (cosine * shear + sine) * x, across], dim=1),
        torch.stack([-sine * y, (cosine - sine * shear) * y, down], dim=1),
    ]
    return torch.stack(rows, dim=1)


def random_bends(count: int, strength: float, like: Tensor, generator: torch.Generator) -> Tensor:
    """Smooth random shifts of every pixel: cubic B-splines over control points with normally distributed shifts.

    These are the elastic distortions of Simard, Steinkraus and Platt, "Best practices for convolutional neural networks
    applied to visual document analysis" (ICDAR 2003). Their Gaussian of 4 pixels, for images of 28, is as smooth as
    control points 7 pixels apart.

    Args:
        count: number of images.
        strength: standard deviation of a pixel's shift in each direction, as a share of the side.
        like: the images, for device and size.
        generator: on the same device.

    Returns:
        (image, 2, height, width): how far right and down of its own place each output pixel is looked up, in pixels.
    """
    height, width = like.shape[2:]
    drawn = torch.randn(2 * count, (KNOTS + 3) ** 2, generator=generator, device=like.device)
    sides = torch.tensor([width, height], dtype=torch.float32, device=like.device)[:, None, None]
    bends = (drawn * strength) @ _splines(height, width).to(like.device)
    return bends.view(count, 2, height, width).mul_(sides)


@cache
def _splines(height: int, width: int) -> Tensor:
    """The weight of each control point at each pixel: (control point, pixel)."""
    return torch.kron(_spline(height), _spline(width)).T.contiguous()


def _spline(pixels: int) -> Tensor:
    """Weights of the control points along a side: (pixel, KNOTS + 3); on average a pixel's squares add up to 1."""
    place = (torch.arange(pixels, dtype=torch.float32) + 0.5) * (KNOTS / pixels)
    far = (place[:, None] - torch.arange(-1, KNOTS + 2)).abs()
    near = 2 / 3 - far**2 + far**3 / 2
    weights = torch.where(far < 1, near, (2 - far.clamp(max=2)) ** 3 / 6)
    return weights / weights.square().sum(1).mean().sqrt()


def warp(images: Tensor, matrices: Tensor, fill: str, bends: Tensor | None = None) -> Tensor:
    """Images moved by affine maps, and bent if `bends` are given, with bilinear interpolation.

    Args:
        images: (image, channel, height, width).
        matrices: (image, 2, 3), output pixel -> input pixel, both (x right, y down) in pixels from the centre.
        fill: "zero", "edge" or "reflect": what is outside the image.
        bends: (image, 2, height, width), added to the input pixel's place.

    Returns:
        (image, channel, height, width), channels last in memory.
    """
    if images.device.type == "cpu" and fill != "reflect" and kernels.available():
        pixels = images.permute(0, 2, 3, 1).contiguous()
        return kernels.warp(pixels, matrices, bends, edge=fill == "edge").permute(0, 3, 1, 2)
    height, width = images.shape[2:]
    size = torch.tensor([width / 2, height / 2], dtype=images.dtype, device=images.device)
    # affine_grid works in units of half the image's size: x' = (row of the matrix * (w/2, h/2)) / (w/2)
    unit = torch.cat([matrices[:, :, :2] * size, matrices[:, :, 2:]], dim=2) / size[:, None]
    grid = functional.affine_grid(unit, list(images.shape), align_corners=False)
    if bends is not None:
        grid = grid + bends.permute(0, 2, 3, 1) / size
    padding = {"zero": "zeros", "edge": "border", "reflect": "reflection"}[fill]
    warped = functional.grid_sample(images, grid, mode="bilinear", padding_mode=padding, align_corners=False)
    return warped.contiguous(memory_format=torch.channels_last)


def erase(images: Tensor, side: int, generator: torch.Generator) -> Tensor:
    """Images with a square of zeros each, its centre anywhere in the image.

    This is cutout: DeVries & Taylor, "Improved regularization of convolutional neural networks with cutout" (2017,
    arXiv 1708.04552).
    """
    height, width = images.shape[2:]
    top = (_uniform(len(images), 0, height, images, generator).floor() - side // 2)[:, None]
    left = (_uniform(len(images), 0, width, images, generator).floor() - side // 2)[:, None]
    y = torch.arange(height, device=images.device)[None]
    x = torch.arange(width, device=images.device)[None]
    rows, columns = (y >= top) & (y < top + side), (x >= left) & (x < left + side)
    return images.masked_fill((rows[:, :, None] & columns[:, None, :])[:, None], 0.0)


class Mixed(NamedTuple):
    """A batch whose images may have a part of another one in them.

    Attributes:
        images: (image, channel, height, width).
        others: (image,), where in the batch each image's part is from.
        shares: (image,) float32, what is left of an image's own pixels, from 0 to 1.
    """

    images: Tensor
    others: Tensor
    shares: Tensor


def mix(images: Tensor, probability: float, generator: torch.Generator) -> Mixed:
    """Images with a rectangle of another one of the batch each, at its own place.

    This is CutMix: Yun et al. 2019, "CutMix: regularization strategy to train strong classifiers with localizable
    features", arXiv 1905.04899. The rectangle has the image's proportions, its area is a uniform share of the image's
    (Beta(1, 1)), its centre lies anywhere, and what is outside the image is cut off. Here each image has its own, not
    the batch one for all. The other image is the one before it in the batch, whose order is random.

    Args:
        images: (image, channel, height, width).
        probability: of each image to get a part; the others keep a share of 1.
        generator: on the images' device.
    """
    count, (height, width) = len(images), images.shape[2:]
    side = _uniform(count, 0, 1, images, generator).sqrt() / 2
    side = side * (_uniform(count, 0, 1, images, generator) < probability)

    def inside(pixels: int) -> Tensor:
        """Which pixels along a side belong to the rectangle: (image, pixel)."""
        centre, half, place = _uniform(count, 0, pixels, images, generator), side * pixels, torch.arange(pixels)
        place = place.to(images.device)[None]
        return (place >= (centre - half).round()[:, None]) & (place < (centre + half).round()[:, None])

    rows, columns = inside(height), inside(width)
    part = rows[:, :, None] & columns[:, None, :]
    others = torch.arange(count, device=images.device).roll(1)
    shares = 1 - part.float().mean((1, 2))
    return Mixed(torch.where(part[:, None], images[others], images), others, shares)


def _uniform(count: int, low: float, high: float, like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = torch.rand(count, generator=generator, device=like.device, dtype=torch.float32)
    return drawn * (high - low) + low


def _sign(count: int, random: bool, like: Tensor, generator: torch.Generator) -> Tensor:
    drawn = _uniform(count, 0.0, 1.0, like, generator)
    return torch.where(drawn < 0.5, -1.0, 1.0) if random else torch.ones_like(drawn)


def augmented_pictures(
    dataset: ImageDataset, settings: Augmentation, seed: int, draws: int = 9
) -> list[tuple[str, Pixels]]:
    """What an augmentation does to training images: rows of an image and changed copies of it.

    The first rows show the first image of each of the first six classes with all changes together; where there are
    several changes, further rows show each of them alone on the last of these images.

    Args:
        dataset: where the images come from.
        settings: the augmentation.
        seed: of the augmentation.
        draws: how many changed copies a row has.

    Returns:
        For each row its name and (1 + draws, height, width, channel) in the data set's type, the original first.
    """
    labels = dataset.train.labels
    firsts = [int(np.flatnonzero(labels == label)[0]) for label in np.unique(labels)[:6]]
    off = Augmentation(fill=settings.fill, zoom_axes=settings.zoom_axes)
    alone = {name: off.model_copy(update={name: value}) for name, value in settings.changes.items()}
    rows = [(dataset.class_names[labels[first]], first, settings) for first in firsts]
    rows += [(f"{name.replace('_', ' ')} alone", firsts[-1], each) for name, each in alone.items()] * (len(alone) > 1)
    return [
        (
            name,
            _draws(
                dataset.train.pixels[first],
                dataset.train.pixels[[other for other in firsts if other != first] or [first]],
                each,
                torch_generator(seed, "augmented", number),
                draws,
            ),
        )
        for number, (name, first, each) in enumerate(rows)
    ]


def _draws(image: Pixels, others: Pixels, settings: Augmentation, generator: torch.Generator, draws: int) -> Pixels:
    """An image (height, width, channel) and changed copies of it, with parts of the others in turn where they mix."""
    pairs = [part for draw in range(draws) for part in (others[draw % len(others)], image)]
    batch = torch.from_numpy(np.stack(pairs if settings.cutmix else [image] * draws).astype(np.float32))
    changed = augment(batch.permute(0, 3, 1, 2), settings, generator)
    if settings.cutmix:
        changed = mix(changed, settings.cutmix, generator).images[1::2]
    pixels = changed.permute(0, 2, 3, 1).round().numpy().astype(image.dtype)
    return cast(Pixels, np.concatenate([image[None], pixels]))
