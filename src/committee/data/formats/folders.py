"""Folders of image files: a folder a class, with or without a folder for each part above them."""

from __future__ import annotations

import numpy as np

from committee.data.formats.assemble import RawSet, by_part
from committee.data.formats.decode import SUFFIXES, decode_all
from committee.data.formats.files import PARTS, Files
from committee.errors import DataError


def image_names(files: Files) -> list[str]:
    """The files that their endings call images."""
    return [name for name in files.names if name.lower().endswith(SUFFIXES)]


def read_folder_set(files: Files, image_size: int | None) -> RawSet:
    """The data set of ``class/picture.png`` or ``train/class/picture.png`` and ``test/class/picture.png``.

    Folders called val, valid or validation are joined to the training images. A test folder without class folders
    (Kaggle's) is left out, with a note. Files that are no images are passed over.

    Args:
        files: a folder or zip, from inside its top folder.
        image_size: as in `decode_all`.

    Raises:
        DataError: a single class folder, an image outside a class folder, or any fault of `decode_all`.
    """
    names = image_names(files)
    tops = {name.partition("/")[0].lower() for name in names if "/" in name}
    parted = "train" in {PARTS.get(top) for top in tops}
    above = files.prefix.rstrip("/").rpartition("/")[2]
    if not tops and above and above.lower() not in PARTS:
        raise DataError(
            f"{files.where}: only one class was found ({above}), and a classifier needs at least two; "
            "give every class a folder of its own"
        )
    parts: list[str] = []
    classes: list[str] = []
    kept: list[str] = []
    notes = []
    unlabelled = 0
    for name in names:
        *folders, _ = name.split("/")
        part = PARTS.get(folders[0].lower()) if parted and folders else "train"
        inner = folders[1:] if parted else folders
        if part == "test" and not inner:
            unlabelled += 1
            continue
        if part is None or not inner:
            wanted = "train/CLASS/ or test/CLASS/" if parted else "a folder for each class"
            raise DataError(
                f"{files.label(name)}: the image lies outside {wanted}; move it into the folder of its class"
            )
        parts.append(part)
        classes.append(inner[0])
        kept.append(name)
    if unlabelled:
        notes.append(f"{unlabelled:,} test image(s) without class folders were left out")
    if not kept:
        raise DataError(
            f"{files.where}: there are no images in class folders; PNG, JPEG, BMP, WebP or TIFF files in a folder for "
            "each "
            "class are expected"
        )
    pixels, remarks = decode_all(len(kept), lambda i: files.read(kept[i]), lambda i: files.label(kept[i]), image_size)
    inside = [files.prefix + name for name in kept]
    return by_part(pixels, np.array(classes), inside, np.array(parts), files.where, None, (*notes, *remarks))
