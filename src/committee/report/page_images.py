"""Images of the data inside a page: samples of each class, and galleries of tiles with what was predicted for them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from committee.data.summary import DatasetSummary
from committee.metrics.formatting import number
from committee.metrics.results import Gallery, Picture
from committee.report.pictures import Screen, data_uris, displayable, strips

Pictures = Mapping[str, NDArray[Any]]
"""What `pictures.npz` holds.

`samples` (class, sample, height, width, channel), `class_means` (class, height, width, channel), and for each part that
galleries show, `test` or `train`, (slot, height, width, channel); uint8 or uint16.
"""

TILE = 100
"""Pixels of the page that the longer side of a tile has at most."""


@dataclass(frozen=True)
class Sample:
    """A class: its mean image, a strip of its first images, and how many training images it has."""

    name: str
    images: int
    mean: str
    strip: str


@dataclass(frozen=True)
class Tile:
    """An image of a gallery.

    Attributes:
        uri: its `data:` address.
        width, height: in the page's pixels.
        enlarged: whether that is more than the image's own.
        where: part, position and file.
        file: the file's name without its folder; "" where the image has no file of its own.
        true, predicted: classes, each with the committee's probability.
        dissenters, members: members that predict another class than the committee, of those that may predict.
    """

    uri: str
    width: int
    height: int
    enlarged: bool
    where: str
    file: str
    true: str
    predicted: str
    probability_true: float
    probability_predicted: float
    dissenters: int
    members: int

    @property
    def is_correct(self) -> bool:
        """Whether the prediction is the true class."""
        return self.true == self.predicted

    @property
    def alt(self) -> str:
        """The image in words, for readers who do not see it."""
        return f"{self.where}, class {self.true}, predicted {self.predicted}"


@dataclass(frozen=True)
class TileGallery:
    """A gallery; `anchor` is unique on a run's page, `is_by_class` says to show it class by class."""

    anchor: str
    title: str
    remark: str
    tiles: tuple[Tile, ...]
    is_by_class: bool

    @property
    def by_class(self) -> dict[str, list[Tile]]:
        """The tiles of each true class, in the order of the first of each."""
        found: dict[str, list[Tile]] = {}
        for tile in self.tiles:
            found.setdefault(tile.true, []).append(tile)
        return found


@dataclass(frozen=True)
class ImageUris:
    """The `data:` addresses of a page's images: for each class its mean and strip, and each part's images by slot."""

    means: tuple[str, ...]
    strips: tuple[str, ...]
    parts: Mapping[str, tuple[str, ...]]


def image_uris(pictures: Pictures, parts: Iterable[str], classes: int, budget: int) -> ImageUris:
    """Images as addresses that together stay within a number of characters.

    Args:
        pictures: of the folder.
        parts: "test" and "train", as far as galleries show them.
        classes: how many classes' samples are shown.
        budget: characters for all addresses together.
    """
    has_samples = "samples" in pictures and "class_means" in pictures
    groups: dict[str, list[Screen]] = {
        "means": list(displayable(pictures["class_means"][:classes])) if has_samples else [],
        "strips": list(strips(displayable(pictures["samples"][:classes]))) if has_samples else [],
    }
    groups |= {part: list(displayable(pictures[part])) for part in parts}
    uris = iter(data_uris([image for group in groups.values() for image in group], budget))
    found = {name: tuple(next(uris) for _ in group) for name, group in groups.items()}
    return ImageUris(found.pop("means"), found.pop("strips"), found)


def samples(data: DatasetSummary, uris: ImageUris) -> tuple[Sample, ...]:
    """The first classes of a data set, as many as there are addresses for."""
    return tuple(
        Sample(name, data.counts[name].train, mean, strip)
        for name, mean, strip in zip(data.class_names, uris.means, uris.strips, strict=False)
    )


def tile_gallery(gallery: Gallery, class_names: Sequence[str], pictures: Pictures, uris: ImageUris) -> TileGallery:
    """A gallery as a page shows it."""
    tiles: tuple[Tile, ...] = ()
    if gallery.pictures:
        height, width = pictures[gallery.part].shape[1:3]
        addresses = uris.parts[gallery.part]
        tiles = tuple(
            tile(picture, gallery.part, class_names, addresses[picture.slot], (height, width))
            for picture in gallery.pictures
        )
    return TileGallery(f"{gallery.part}-{gallery.name}", gallery.title, gallery.remark, tiles, gallery.is_by_class)


def tile(picture: Picture, part: str, class_names: Sequence[str], uri: str, size: tuple[int, int]) -> Tile:
    """An image of a gallery, enlarged by a whole factor where it is small; `size` is its height and width."""
    height, width = size
    longer = max(height, width)
    scale = TILE // longer if longer <= TILE else TILE / longer
    where = f"{'test' if part == 'test' else 'training'} image {number(picture.position)}"
    return Tile(
        uri=uri,
        width=round(scale * width),
        height=round(scale * height),
        enlarged=scale > 1,
        where=f"{where}: {picture.name}" if picture.name else where,
        file=(picture.name or "").rpartition("/")[2],
        true=class_names[picture.true],
        predicted=class_names[picture.predicted],
        probability_true=picture.probability_true,
        probability_predicted=picture.probability_predicted,
        dissenters=picture.dissenters,
        members=picture.members,
    )
