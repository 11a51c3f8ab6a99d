"""Image files in class folders: a folder for each class, with or without train and test folders above them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from committee.data.dataset import Pixels
from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.decode import SUFFIXES, decode, decode_all
from committee.data.formats.files import PARTS, Files
from committee.data.read_options import ReadOptions
from committee.errors import DataError, counted


@dataclass(frozen=True)
class Placed:
    """An image file, and what its folders say about it: "train", "val" or "test", and its class."""

    name: str
    part: str
    class_name: str


def image_names(files: Files) -> list[str]:
    """The files whose endings are those of images."""
    return [name for name in files.names if name.lower().endswith(SUFFIXES)]


def read_image_file(files: Files, name: str) -> Iterator[tuple[str, Pixels]]:
    """The image in one file, with its name for messages."""
    label = files.label(name)
    yield label, decode(files.read(name), label)[None]


def read_folder_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in ``class/picture.png``, or in ``train/class/picture.png`` and ``test/class/picture.png``.

    Images in folders called val, valid or validation are joined to the training images. Test images outside class
    folders (Kaggle's) are left out, with a note. Files that are not images are passed over.

    Args:
        files: a folder or zip, named from within its top folder.
        options: how to read it.

    Raises:
        DataError: there is only one class folder, an image lies outside a class folder, or any fault of `decode_all`.
    """
    names = image_names(files)
    _check_not_one_class(files, names)
    placed, unlabelled = _placed(files, names)
    if not placed:
        raise DataError(
            f"{files.where}: PNG, JPEG, BMP, WebP or TIFF files in a folder for each class are expected, got none; "
            "add them"
        )
    left_out = (
        f"{counted(unlabelled, 'test image')} outside class folders {'was' if unlabelled == 1 else 'were'} left out"
    )
    return read_placed(files, placed, options, [left_out] if unlabelled else [])


def read_placed(files: Files, placed: Sequence[Placed], options: ReadOptions, notes: Sequence[str]) -> RawSet:
    """The data set of image files whose parts and classes are known.

    Args:
        files: where they are.
        placed: at least one image.
        options: how to read them.
        notes: remarks for people so far.

    Raises:
        DataError: any fault of `decode_all`.
    """
    kept = [place.name for place in placed]
    pixels, resizing = decode_all(
        len(kept), lambda i: files.read(kept[i]), lambda i: files.label(kept[i]), options.image_size
    )
    return by_part(
        pixels,
        np.array([place.class_name for place in placed]),
        [files.prefix + name for name in kept],
        np.array([place.part for place in placed]),
        files.where,
        None,
        (*notes, *resizing),
    )


def _check_not_one_class(files: Files, names: list[str]) -> None:
    """A single class folder looks like a folder of loose images from within."""
    above = files.prefix.rstrip("/").rpartition("/")[2]
    if above and above.lower() not in PARTS and not any("/" in name for name in names):
        raise DataError(
            f"{files.where}: at least two classes are expected, got one ({above}); give each class a folder of its own"
        )


def _placed(files: Files, names: list[str]) -> tuple[list[Placed], int]:
    """The images that lie in class folders, and how many test images lie outside them."""
    tops = {name.partition("/")[0].lower() for name in names if "/" in name}
    parted = "train" in {PARTS.get(top) for top in tops}
    placed: list[Placed] = []
    unlabelled = 0
    for name in names:
        *folders, _ = name.split("/")
        part = PARTS.get(folders[0].lower()) if parted and folders else "train"
        inner = folders[1:] if parted else folders
        if part == "test" and not inner:
            unlabelled += 1
        elif part is None or not inner:
            wanted = "train/CLASS/ or test/CLASS/" if parted else "a folder for each class"
            raise DataError(
                f"{files.label(name)}: images are expected in {wanted}, got one outside; move it into the folder of "
                "its class"
            )
        else:
            placed.append(Placed(name, part, inner[0]))
    return placed, unlabelled
