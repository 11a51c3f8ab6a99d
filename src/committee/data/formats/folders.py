"""Image files in class folders: a folder for each class, with or without train and test folders above them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from sys import intern
from typing import NamedTuple

import numpy as np

from committee.data.dataset import Pixels
from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.decode import decode, probe
from committee.data.formats.files import PARTS, Files
from committee.data.formats.image_set import decode_all, pages_note
from committee.data.formats.kinds import IMAGES, image_kind, image_names, kinds_of, left_out_note
from committee.data.read_options import ReadOptions
from committee.errors import DataError, counted


class Placed(NamedTuple):
    """An image file, and what is said about it: "train", "val" or "test", its class, and perhaps its group."""

    name: str
    part: str
    class_name: str
    group: str = ""


def read_image_file(files: Files, name: str) -> Iterator[tuple[str, Pixels]]:
    """The image in one file, with its name for messages."""
    label = files.label(name)
    yield label, decode(files.read(name, "encoded"), label)[None]


def several_pages(files: Files, names: Iterable[str]) -> list[str]:
    """A note about the images that have several pages or frames; PNG, JPEG and BMP files are not opened to find out."""
    number = 0
    for name in names:
        may_have = not name.lower().endswith((".png", ".jpg", ".jpeg", ".bmp"))
        if may_have and image_kind(files.head(name)) in ("TIFF", "GIF", "WEBP", "AVIF"):
            with suppress(DataError):
                number += probe(files.read(name, "encoded"), name).pages > 1
    return pages_note(number)


def read_folder_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in ``class/picture.png``, or in ``train/class/picture.png`` and ``test/class/picture.png``.

    Images in folders called val, valid or validation are joined to the training images. Test images outside class
    folders (Kaggle's) are left out, with a note. Files that are not images are counted in a note, and so are empty
    class folders.

    Args:
        files: a folder or zip, named from within its top folder.
        options: how to read it.

    Raises:
        DataError: there is only one class folder, one has files but no image, an image lies outside a class folder, or
            any fault of `decode_all`.
    """
    names = image_names(files)
    if not any("/" in name for name in set(files.names).difference(names)):  # beside the images' folder lies a README
        files = files.without_top_folder(names)
        names = image_names(files)
    _check_not_one_class(files, names)
    parted = "train" in {_part(name) for name in names if "/" in name}
    placed, unlabelled = _placed(files, names, parted)
    if not placed:
        raise DataError(f"{files.where}: {IMAGES} files in a folder for each class are expected, got none; add them")
    empty = _without_images(files, names, parted)
    left_out = (
        f"{counted(unlabelled, 'test image')} outside class folders {'was' if unlabelled == 1 else 'were'} left out"
    )
    notes = [*empty, *left_out_note(files, names), *([left_out] if unlabelled else [])]
    return read_placed(files, placed, options, notes)


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
    decoded = decode_all(
        len(placed),
        lambda i: files.read(placed[i].name, "encoded"),
        lambda i: files.label(placed[i].name),
        options,
        files.where,
    )
    kept = [placed[i] for i in decoded.kept]
    return by_part(
        decoded.pixels,
        np.array([place.class_name for place in kept]),
        [files.prefix + place.name for place in kept],
        np.array([place.part for place in kept]),
        files.where,
        None,
        (*notes, *decoded.notes),
        np.array([place.group for place in kept]) if all(place.group for place in kept) else None,
    )


def _check_not_one_class(files: Files, names: list[str]) -> None:
    """A single class folder looks like a folder of loose images from within."""
    above = files.prefix.rstrip("/").rpartition("/")[2]
    if above and above.lower() not in PARTS and not any("/" in name for name in names):
        raise DataError(
            f"{files.where}: at least two classes are expected, got one ({above}); give each class a folder of its own"
        )


def _part(name: str) -> str | None:
    """The part that a file's or folder's top folder stands for; None where it stands for none."""
    return PARTS.get(name.partition("/")[0].lower())


def _without_images(files: Files, names: list[str], parted: bool) -> list[str]:
    """A note about the class folders that are empty.

    Raises:
        DataError: a class folder has files, but no image.
    """
    depth = 2 if parted else 1
    classes = [name for name in files.folders if name.count("/") == depth - 1 and (not parted or _part(name))]
    filled = {"/".join(name.split("/")[:depth]) for name in names}
    empty = []
    for folder in classes:
        if folder in filled:
            continue
        others = [name for name in files.names if name.startswith(f"{folder}/")]
        if others:
            raise DataError(
                f"{files.label(folder)}: {IMAGES} files are expected in the folder of a class, got only "
                f"{kinds_of(others)}; convert them, or move the folder away"
            )
        empty.append(folder)
    if not empty:
        return []
    listed = ", ".join(empty[:5]) + (", ..." if len(empty) > 5 else "")
    return [f"{counted(len(empty), 'empty class folder')} ({listed}) {'is' if len(empty) == 1 else 'are'} no class"]


def _placed(files: Files, names: list[str], parted: bool) -> tuple[list[Placed], int]:
    """The images that lie in class folders, and how many test images lie outside them."""
    placed: list[Placed] = []
    unlabelled = 0
    for name in names:
        folders = name.split("/")[:-1]
        part = _part(name) if parted and folders else "train"
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
            placed.append(Placed(name, part, intern(inner[0])))
    return placed, unlabelled
