"""Arrays of images and labels: NPZ files as Keras and MedMNIST write them, NPY files."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.assemble import RawPart, RawSet, joining_note
from committee.data.formats.files import Files, open_zip, read_exactly, reason
from committee.errors import DataError

_ARRAY_NAMES = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels"), ("images", "labels"), ("X", "y"), ("x", "y")),
    "val": (("x_val", "y_val"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
_UNLABELLED_NAMES = ("images", "x", "X", "x_test", "test_images")


def check_same_number(images: NDArray[Any], labels: NDArray[Any], images_file: str, labels_file: str) -> None:
    """Raise a DataError where there are not as many labels as images."""
    if len(images) != len(labels):
        raise DataError(
            f"{images_file}: there are {len(images):,} images, but {len(labels):,} labels in {labels_file}; make the "
            "numbers agree"
        )


def joined(part: RawPart, other: RawPart | None) -> RawPart:
    """Two parts as one, such as training and validation images; None adds nothing.

    Raises:
        DataError: their images have different shapes.
    """
    if other is None:
        return part
    if part.values.shape[1:] != other.values.shape[1:]:
        raise DataError(
            f"{other.where}: its images have the shape {other.values.shape[1:]}, those of {part.where} "
            f"{part.values.shape[1:]}; bring them to one shape"
        )
    values, labels = (np.concatenate([getattr(each, name) for each in (part, other)]) for name in ("values", "labels"))
    groups = None
    if part.groups is not None and other.groups is not None:
        groups = np.concatenate([part.groups, other.groups])
    return RawPart(values, labels, f"{part.where} and then {other.where}", (*part.files, *other.files), groups)


def with_validation(
    parts: dict[str, RawPart], class_names: tuple[str, ...] | None = None, notes: tuple[str, ...] = ()
) -> RawSet:
    """The data set of the parts "train", "val" and "test"; "val" is joined to "train", and a note says so."""
    remark = joining_note(len(parts["val"].labels)) if "val" in parts else ()
    return RawSet(joined(parts["train"], parts.get("val")), parts.get("test"), class_names, (*notes, *remark))


def array_names(files: Files) -> dict[str, str]:
    """The NPY files by array name, which is the file's name without its folder and ending."""
    return {name.rpartition("/")[2].removesuffix(".npy"): name for name in files.names if name.endswith(".npy")}


def npz_names(files: Files) -> list[str]:
    """The NPZ files."""
    return [name for name in files.names if name.lower().endswith(".npz")]


def read_npz_set(files: Files) -> RawSet:
    """The data set in an NPZ file, its arrays named as Keras, MedMNIST or scikit-learn name them.

    Raises:
        DataError: there are several NPZ files, or any fault of `read_npy_set`.
    """
    archives = npz_names(files)
    if len(archives) > 1:
        raise DataError(
            f"{files.where}: one NPZ file is expected, got several ({', '.join(archives[:5])}); give the path of one"
        )
    with open_zip(files, archives[0]) as members:
        return read_npy_set(members)


def read_npz_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one NPZ file, with their place for messages."""
    with open_zip(files, name) as members:
        yield images_among(members)


def images_among(members: Files) -> tuple[str, NDArray[Any]]:
    """The array of images in an opened NPZ, with its place for messages: one of a known name, or the only one."""
    npy = array_names(members)
    known = [npy[name] for name in _UNLABELLED_NAMES if name in npy]
    if not known and len(npy) != 1:
        raise DataError(
            f"{members.where}: one array of images is expected, called {', '.join(_UNLABELLED_NAMES)} or alone, "
            f"got {_listed(npy)}; rename it"
        )
    name = known[0] if known else next(iter(npy.values()))
    return members.label(name), read_npy(members, name)


def read_npy_set(files: Files) -> RawSet:
    """The data set in NPY files, which lie side by side in a folder or inside an NPZ.

    Raises:
        DataError: an array is missing, holds Python objects, is cut off or too large.
    """
    names = array_names(files)
    parts: dict[str, RawPart] = {}
    for part, pairs in _ARRAY_NAMES.items():
        for pair in pairs:
            there = [key for key in pair if key in names]
            if len(there) == 1 and not (there[0] == "y" and pair[0] in ("X", "x")):
                missing = next(key for key in pair if key not in names)
                raise DataError(
                    f"{files.where}: the array {there[0]!r} needs an array {missing!r}, got {_listed(names)}; add it"
                )
            if len(there) == 2 and part not in parts:
                images, labels = (read_npy(files, names[key]) for key in pair)
                parts[part] = RawPart(images, labels, f"{files.where} [{pair[0]}]")
                if images.ndim and labels.ndim:
                    check_same_number(images, labels, parts[part].where, f"{files.where} [{pair[1]}]")
    if "train" not in parts:
        raise DataError(
            f"{files.where}: arrays called x_train and y_train (or train_images and train_labels, images and labels, "
            f"X and y) are expected, got {_listed(names)}; rename them"
        )
    class_names = None
    if "class_names" in names:
        class_names = tuple(str(value) for value in read_npy(files, names["class_names"]).reshape(-1))
    return with_validation(parts, class_names)


def _listed(names: Iterable[str]) -> str:
    return ", ".join(sorted(names)[:12]) or "no arrays"


def read_npy(files: Files, name: str) -> NDArray[Any]:
    """One NPY file as an array. Its header is checked before any data are read; Python objects are never unpickled.

    Raises:
        DataError: the file is not an NPY file, holds Python objects, is over the size limit or cut off.
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
                f"{label}: a NumPy array (NPY) is expected, got something else ({reason(error)}); write it again with "
                "numpy.save or numpy.savez"
            ) from error
        if dtype.hasobject or dtype.kind not in "biufSU":
            raise DataError(
                f"{label}: an array of numbers or strings is expected, got the type {dtype}; save it without pickle"
            )
        array = read_exactly(file, shape[::-1] if fortran else shape, dtype, label)
    array = array.T if fortran else array
    return array.astype(dtype.newbyteorder("="), copy=False)
