"""Arrays of images and labels: IDX files as MNIST has them, NPZ as Keras and MedMNIST write it, NPY files."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.assemble import RawPart, RawSet, joining_note
from committee.data.formats.files import Files, open_zip, read_exactly, reason
from committee.errors import DataError

_IDX_NAME = re.compile(
    r"(?:.*/)?(?P<set>.*?)(?P<part>train|training|t10k|test|valid|val)[-_.](?P<kind>images|labels)[-_.]idx[1-4][-_.](?:ubyte|short|int)(?:\.gz)?",
    re.IGNORECASE,
)
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}

_ARRAY_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("X", "y"), ("x", "y")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}


def idx_files(files: Files, only: str | None = None) -> dict[tuple[str, str], str]:
    """The IDX files by part ("train", "val", "test") and kind ("images", "labels").

    Args:
        files: where to look.
        only: what stands before the part in the wanted names, such as ``"emnist-letters-"``; None allows any.

    Raises:
        DataError: the IDX files of several data sets lie side by side and `only` does not choose among them.
    """
    found: dict[tuple[str, str], str] = {}
    sets = set()
    for name in files.names:
        match = _IDX_NAME.fullmatch(name)
        if match is None or (only is not None and match["set"].lower() != only):
            continue
        part = {"training": "train", "t10k": "test", "valid": "val"}.get(match["part"].lower(), match["part"].lower())
        sets.add((name.rpartition("/")[0], match["set"]))
        known = found.setdefault((part, match["kind"].lower()), name)
        if len(known) > len(name):
            found[part, match["kind"].lower()] = name
    if len(sets) > 1:
        listed = ", ".join(sorted("/".join(filter(None, pair)) or "(no prefix)" for pair in sets))
        raise DataError(
            f"{files.where}: there are IDX files of several data sets here ({listed}); name a folder that holds one of "
            "them"
        )
    return found


def read_idx_set(files: Files, only: str | None = None) -> RawSet:
    """The data set of a folder of IDX files; a validation part is joined to the training part.

    Raises:
        DataError: an images or labels file is missing, damaged or cut off.
    """
    found = idx_files(files, only)
    parts = {}
    for part in ("train", "val", "test"):
        kinds = [kind for kind in ("images", "labels") if (part, kind) in found]
        if len(kinds) == 1:
            other = "labels" if kinds == ["images"] else "images"
            raise DataError(
                f"{files.label(found[part, kinds[0]])}: the {other} file that belongs to it is missing; put it beside "
                "it and give the path of the folder"
            )
        if kinds:
            images, labels = (read_idx(files, found[part, kind]) for kind in ("images", "labels"))
            parts[part] = RawPart(images, labels, files.label(found[part, "images"]))
            _same_number(images, labels, files.label(found[part, "images"]), files.label(found[part, "labels"]))
    if "train" not in parts:
        raise DataError(
            f"{files.where}: there are IDX files but none of training images (train-images-idx3-ubyte); add them"
        )
    return with_validation(parts)


def read_idx(files: Files, name: str) -> NDArray[Any]:
    """One IDX file as an array; uint8 contents are read in place, without a copy.

    Raises:
        DataError: no IDX file, cut off, or longer than its header says.
    """
    label = files.label(name)
    with files.open(name) as file:
        head = file.read(4)
        if len(head) < 4 or head[:2] != b"\0\0" or head[2] not in _IDX_TYPES or not 1 <= head[3] <= 4:
            raise DataError(
                f"{label}: this is not an IDX file: it begins with {head.hex(' ') or 'nothing'}, not with 00 00 08 03 "
                "or the like"
            )
        sizes = file.read(4 * head[3])
        if len(sizes) < 4 * head[3]:
            raise DataError(
                f"{label}: the file is cut off: {4 + 4 * head[3]} bytes of header are expected, {4 + len(sizes)} are "
                "there"
            )
        shape = struct.unpack(f">{head[3]}I", sizes)
        array = read_exactly(file, shape, np.dtype(_IDX_TYPES[head[2]]), label)
        if file.read(1):
            raise DataError(
                f"{label}: there is more data than the header's shape {shape} needs; copy or download the file again"
            )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def _same_number(images: NDArray[Any], labels: NDArray[Any], images_file: str, labels_file: str) -> None:
    if len(images) != len(labels):
        raise DataError(
            f"{images_file}: there are {len(images):,} images, but {len(labels):,} labels in {labels_file}; the "
            "numbers must agree"
        )


def joined(part: RawPart, other: RawPart | None) -> RawPart:
    """Two parts as one, such as training and validation images.

    Raises:
        DataError: their images have different shapes.
    """
    if other is None:
        return part
    if part.values.shape[1:] != other.values.shape[1:]:
        raise DataError(
            f"{other.where}: the validation images have the shape {other.values.shape[1:]}, the training images "
            f"{part.values.shape[1:]}; "
            "bring them to one"
        )
    values = np.concatenate([part.values, other.values])
    return RawPart(values, np.concatenate([part.labels, other.labels]), f"{part.where} and then {other.where}")


def with_validation(
    parts: dict[str, RawPart], class_names: tuple[str, ...] | None = None, notes: tuple[str, ...] = ()
) -> RawSet:
    """The set of the parts "train", "val" and "test"; a validation part is joined to the training part, with a note."""
    remark = joining_note(len(parts["val"].labels)) if "val" in parts else ()
    return RawSet(joined(parts["train"], parts.get("val")), parts.get("test"), class_names, (*notes, *remark))


def array_names(files: Files) -> dict[str, str]:
    """The NPY files by the name of their array."""
    return {name.rpartition("/")[2].removesuffix(".npy"): name for name in files.names if name.endswith(".npy")}


def read_npz_set(files: Files, name: str) -> RawSet:
    """The data set of an NPZ file; names as Keras, MedMNIST or scikit-learn give them."""
    with open_zip(files, name) as members:
        return read_npy_set(members)


def read_npy_set(files: Files) -> RawSet:
    """The data set of NPY files that lie beside each other or in an NPZ.

    Raises:
        DataError: an array that is missing, holds objects, is cut off or too large.
    """
    names = array_names(files)
    parts: dict[str, RawPart] = {}
    for part, pairs in _ARRAY_NAMES.items():
        for pair in pairs:
            there = [key for key in pair if key in names]
            if len(there) == 1 and not (there[0] == "y" and pair[0] in ("X", "x")):
                missing = next(key for key in pair if key not in names)
                raise DataError(
                    f"{files.where}: the array {missing!r} that belongs to {there[0]!r} is missing; it has "
                    f"{_listed(names)}"
                )
            if len(there) == 2 and part not in parts:
                images, labels = (read_npy(files, names[key]) for key in pair)
                parts[part] = RawPart(images, labels, f"{files.where} [{pair[0]}]")
                if images.ndim and labels.ndim:
                    _same_number(images, labels, parts[part].where, f"{files.where} [{pair[1]}]")
    if "train" not in parts:
        raise DataError(
            f"{files.where}: no training arrays were found; x_train and y_train (or train_images and train_labels, "
            "images and labels, "
            f"X and y) are expected, it has {_listed(names)}"
        )
    class_names = None
    if "class_names" in names:
        class_names = tuple(str(value) for value in read_npy(files, names["class_names"]).reshape(-1))
    return with_validation(parts, class_names)


def _listed(names: dict[str, str]) -> str:
    return ", ".join(sorted(names)[:12]) or "no arrays"


def read_npy(files: Files, name: str) -> NDArray[Any]:
    """One NPY file as an array; its header is checked before anything is read, and objects are refused.

    Raises:
        DataError: no NPY file, an array of Python objects, larger than the limit, or cut off.
    """
    label = files.label(name)
    with files.open(name) as file:
        try:
            version = np.lib.format.read_magic(file)
            read_header = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }[version]
            shape, fortran, dtype = read_header(file)
        except (ValueError, KeyError) as error:
            raise DataError(
                f"{label}: this is not a readable NPY array ({reason(error)}); write it again with numpy.save or "
                "numpy.savez"
            ) from error
        if dtype.hasobject or dtype.kind not in "biufSU":
            raise DataError(
                f"{label}: the array holds {dtype}, which is never read; save it as numbers or strings, without pickle"
            )
        array = read_exactly(file, shape[::-1] if fortran else shape, dtype, label)
    array = array.T if fortran else array
    return array.astype(dtype.newbyteorder("="), copy=False)
