"""A finished run folder -> nothing, or an error in a sentence: its files fit each other, whoever wrote them.

The manifest says that no file has changed since it was written, not that they make a committee. What follows from one
file, the number of classes above all, is compared here with all others before anything is computed: recipe and images
give every tensor of the weights, data.json the shape of every array and table.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from committee.config.recipe import Network
from committee.data.summary import DatasetSummary
from committee.errors import RecipeError, RunError
from committee.folders import files
from committee.folders.parsing import Stored, damaged
from committee.metrics.results import Gallery, Results, Scores
from committee.nn.architectures import build, plan_layers
from committee.nn.devices import DEVICES, PRECISIONS

if TYPE_CHECKING:
    from committee.folders.run_folder import RunFolder

MOST_CLASSES = 2**16
LARGEST_SIDE, LARGEST_IMAGE = 2**14, 2**26  # pixels; height * width * channels
LARGEST_LAYER = 2**28  # values that a layer makes of one image
KINDS = {torch.float32: "F32", torch.int64: "I64"}  # of a network's tensors, in the words of safetensors


def check_run(folder: RunFolder, *, is_model: bool) -> None:
    """Compare the files of a finished run with each other.

    Args:
        folder: its files are those of its manifest.
        is_model: whether it is a model of a study, which has no results of its own.

    Raises:
        RunError: a record is none, or does not fit the others; weights are not those of the recipe's network, or not
            finite; an array has another shape or type, or labels and positions that are out of range.
    """
    if not is_model:
        _ = folder.manifest
    identity = folder.identity
    expect(
        identity.device in DEVICES and identity.precision in PRECISIONS,
        folder,
        "identity.json",
        f"a device and a precision of {', '.join((*DEVICES, *PRECISIONS))} are expected, got "
        f"{identity.device[:20]!r} and {identity.precision[:20]!r}",
    )
    check_data(folder.data, folder)
    check_committee(folder, is_model=is_model)
    check_weights(folder)
    check_images(folder)
    if not is_model:
        check_arrays(folder)
        check_results(folder)


def expect(holds: bool, folder: RunFolder, name: str, why: str) -> None:
    """Raise a RunError about a file unless something holds."""
    if not holds:
        raise damaged(folder.path / name, why)


def check_data(data: DatasetSummary, folder: RunFolder) -> None:
    """The images have a shape that a network can have, and the classes are told apart by their names."""
    height, width, channels = data.shape
    sides = min(height, width) > 0 and max(height, width) <= LARGEST_SIDE and 1 <= channels <= 4
    expect(
        sides and math.prod(data.shape) <= LARGEST_IMAGE and data.bits in (8, 16),
        folder,
        "data.json",
        f"images of 1 to {LARGEST_SIDE:,} pixels a side, 1 to 4 channels and 8 or 16 bits are expected, got "
        f"{data.shape} and {data.bits}",
    )
    names = data.class_names
    expect(
        0 < len(names) == data.classes <= MOST_CLASSES and len({*names}) == len(names) and all(names),
        folder,
        "data.json",
        f"1 to {MOST_CLASSES:,} classes with names of their own are expected, got {len(names):,}",
    )
    counts = data.counts.values()
    totals = (sum(count.train for count in counts), sum(count.test for count in counts))
    expect(
        data.counts.keys() == {*names}
        and totals == (data.train_images, data.test_images)
        and all(count.train >= 0 and count.test >= 0 for count in counts),
        folder,
        "data.json",
        "its classes do not have as many images together as there are",
    )
    bounds = data.value_range
    expect(bounds is None or bounds.low < bounds.high, folder, "data.json", "value_range has no width")


def check_committee(folder: RunFolder, *, is_model: bool) -> None:
    """The committee is of members that the folder holds, with a weight each where they are weighted."""
    record, planned = folder.committee, folder.recipe.committee.members
    trained = set(folder.member_numbers())
    expect(
        0 < len(record.members) == len({*record.members}) and {*record.members} <= trained,
        folder,
        "committee.json",
        f"members of those that the folder holds are expected ({len(trained):,}), each once, got "
        f"{str(record.members)[:80]}",
    )
    expect(
        is_model or trained <= set(range(planned)),
        folder,
        "recipe.toml",
        f"{planned:,} members are planned, and the folder holds the members {sorted(trained)[:9]}",
    )
    weights = record.weights
    expect(
        (record.combination == "weighted") == (weights is not None)
        and (weights is None or (len(weights) == len(record.members) and min(weights) >= 0 and sum(weights) > 0)),
        folder,
        "committee.json",
        f"a weight of 0 or more for each of {len(record.members)} members is expected, where and only where they are "
        "weighted",
    )


def check_weights(folder: RunFolder) -> None:
    """Each member's weights are those of the recipe's network for these images, and finite."""
    for member in folder.committee.members:
        member_weights(folder, member)


def member_weights(folder: RunFolder, member: int) -> dict[str, Tensor]:
    """The weights of a member: tensors by name, those of the recipe's network for the images of data.json.

    Raises:
        RunError: there are none, they are of another network, or not finite; the network is not built before its
            weights are known to be no more than the file's.
    """
    data, network, file = folder.data, folder.recipe.network.of_member(member), folder.member(member)
    height, width, channels = data.shape
    try:
        planned = plan_layers(network, (channels, height, width), data.classes)
    except RecipeError as error:
        raise RunError(f"{folder.recipe_file} does not fit the images of data.json: {error}") from error
    values, size = sum(layer.parameters for layer in planned), file.weights_bytes
    expect(
        4 * values <= size and max(math.prod(layer.output) for layer in planned) <= LARGEST_LAYER,
        folder,
        "recipe.toml",
        f"its network has {values:,} weights, too many for the {size:,} bytes of {file.weights_file}",
    )
    return file.weights(tensors_of(network, (channels, height, width), data.classes))


@lru_cache(maxsize=64)
def tensors_of(network: Network, image_shape: tuple[int, int, int], classes: int) -> dict[str, Stored]:
    """Type and shape of each tensor of a network that fits its images (channel, height, width)."""
    built = build(network, image_shape, classes, torch.Generator()).state_dict()
    return {name: Stored(KINDS[tensor.dtype], tuple(tensor.shape)) for name, tensor in built.items()}


def check_images(folder: RunFolder) -> None:
    """What the training images look like fits their shape."""
    writing = folder.images.writing if folder.has_images else None
    expect(
        writing is None or (writing.shape == folder.data.shape[:2] and 0 < writing.longer_side <= max(writing.shape)),
        folder,
        "images.json",
        f"measures of writing in images of {folder.data.shape[:2]} are expected",
    )


def check_arrays(folder: RunFolder) -> None:
    """Labels, positions and probabilities are those of as many images and classes as data.json counts."""
    data, members = folder.data, [folder.member(member) for member in folder.committee.members]
    train, test, classes = data.train_images, data.test_images, data.classes
    shapes = {
        folder.path / "train_labels.npy": (train,),
        folder.path / "out_of_fold_probabilities.npy": (train, classes),
        **{member.path / "train_probabilities.npy": (train, classes) for member in members},
    }
    if not folder.is_sealed:
        shapes |= {folder.path / "test_labels.npy": (test,), folder.path / "test_probabilities.npy": (test, classes)}
        shapes |= {member.path / "test_probabilities.npy": (test, classes) for member in members}
    for path, shape in shapes.items():
        stored, kind = files.array_header(path), "i" if len(shape) == 1 else "f"
        if (stored.kind[1], stored.shape) != (kind, shape):
            raise damaged(path, f"an array {shape} of the kind {kind!r} is expected, got {stored}")
    for labels in (folder.train_labels, *(() if folder.is_sealed else (folder.test_labels,))):
        expect(
            bool(((labels >= 0) & (labels < classes)).all()), folder, "", f"labels from 0 to {classes - 1} are expected"
        )
    for member in members:
        positions = member.validation
        if (
            positions.ndim != 1
            or positions.dtype != np.int64
            or (np.diff(positions, prepend=-1, append=train) < 1).any()
        ):
            raise damaged(member.path, f"validation images: rising positions from 0 to {train - 1:,} are expected")


def check_results(folder: RunFolder) -> None:
    """The figures are of these classes and members, and the pictures of a gallery are there."""
    results, pictures, data = folder.results, folder.pictures, folder.data
    planned, failed = folder.recipe.committee.members, [m for m in results.members if m.status != "finished"]
    members = [row.member for row in results.members]
    compared = results.agreement.matrix if results.agreement else ()
    sound = (
        {m for m in members if m not in {row.member for row in failed}} == {*folder.committee.members}
        and len(members) == len({*members})
        and all(0 <= member < planned for member in members)
        and all(len(row) == len(compared) for row in compared)
        and len(compared) in (0, len(folder.committee.members))
        and all(are_of(scores, data.class_names) for scores in scores_of(results))
        and all(are_shown(gallery, pictures.get(gallery.part), data.classes) for gallery in results.galleries)
    )
    expect(sound, folder, "results.json", "its figures are not of the members, classes and pictures of this run")
    for name, images in pictures.items():
        expect(
            images.shape[-3:] == data.shape and images.dtype == f"u{data.bits // 8}" and images.ndim in (4, 5),
            folder,
            "pictures.npz",
            f"{name[:20]}: images {data.shape} of {data.bits} bits are expected, got {images.shape} of {images.dtype}",
        )
        of_classes = name in ("samples", "class_means")
        expect(
            images.ndim == 4 + (name == "samples") and (not of_classes or len(images) == data.classes),
            folder,
            "pictures.npz",
            f"{name[:20]}: pictures of {data.classes} classes are expected, got {images.shape}",
        )


def scores_of(results: Results) -> list[Scores]:
    """The scores of all parts that have some."""
    return [scores for scores in (results.committee_train, results.out_of_fold, results.test) if scores is not None]


def are_of(scores: Scores, class_names: Collection[str]) -> bool:
    """Whether scores have a row for each of the classes, and their counts go together."""
    counts = [row.images for row in scores.classes]
    return (
        [row.name for row in scores.classes] == list(class_names)
        and min(counts) >= 0
        and 0 < sum(counts) == scores.images
        and 0 <= scores.errors <= scores.images
        and [sum(row) for row in scores.confusion] == counts
        and all(len(row) == len(counts) and min(row) >= 0 for row in scores.confusion)
    )


def are_shown(gallery: Gallery, pictures: NDArray[np.integer] | None, classes: int) -> bool:
    """Whether a gallery's pictures are stored, and are of these classes."""
    slots = 0 if pictures is None else len(pictures)
    return all(
        0 <= picture.slot < slots
        and min(picture.true, picture.predicted) >= 0
        and picture.position >= 0
        and max(picture.true, picture.predicted) < classes
        for picture in gallery.pictures
    )
