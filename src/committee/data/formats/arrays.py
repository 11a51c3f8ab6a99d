"""Arrays of images and labels: NPZ files as Keras and MedMNIST write them, NPY files."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.assemble import RawPart, RawSet, by_part, joining_note
from committee.data.formats.files import FAULTS, PARTS, Files, reason
from committee.data.formats.mapped import read_exactly
from committee.data.formats.opening import open_zip
from committee.data.limits import limits
from committee.errors import DataError

_IMAGES = ("x", "images", "image", "imgs", "img", "data", "pixels")
_LABELS = ("y", "labels", "label", "targets", "target")
_PARTNER = dict(zip(_IMAGES, ("y", "labels", "label", "labels", "label", "target", "label"), strict=True)) | dict(
    zip(_LABELS, ("x", "images", "image", "images", "data"), strict=True)
)
_MOST_ARCHIVES = 100
_UNLABELLED_NAMES = ("images", "x", "X", "x_test", "test_images")
_QUICKDRAW = "full_numpy_bitmap_"

Role = tuple[str, str]
"""A part, "train", "val" or "test", and a kind, "images" or "labels"."""


@dataclass(frozen=True)
class NamedArray:
    """An array in a file, not read yet: its name with the folders above, its place for messages, and how to read it."""

    name: str
    place: str
    read: Callable[[], NDArray[Any]]


def role_of(name: str) -> Role | None:
    """What an array of this name holds; None where the name does not say.

    A word for images or labels, before or after it a word for the part, and anything before both: ``"x_train"``,
    ``"k49-train-imgs"``, ``"test/X"``, ``"Xtrain"``. Without a part it is the training part's.
    """
    words = [word for word in re.split("[^a-z0-9]+", name.lower()) if word]
    glued = re.fullmatch("([xy])(train|test|val)", words[-1]) if words else None
    words = [*words[:-1], *glued.groups()] if glued else words
    if words and words[-1] in PARTS and words[-2:-1]:
        words = [*words[:-2], words[-1], words[-2]]
    kind = {**dict.fromkeys(_IMAGES, "images"), **dict.fromkeys(_LABELS, "labels")}.get(words[-1] if words else "")
    return (PARTS.get(words[-2] if words[1:] else "", "train"), kind) if kind else None


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


def npy_names(files: Files) -> list[str]:
    """The NPY files."""
    return [name for name in files.names if name.endswith(".npy")]


def npy_arrays(files: Files) -> list[NamedArray]:
    """The arrays in NPY files, which lie in a folder or inside an NPZ."""
    return [
        NamedArray(name.removesuffix(".npy"), files.label(name), functools.partial(read_npy, files, name))
        for name in npy_names(files)
    ]


def npz_names(files: Files) -> list[str]:
    """The NPZ files."""
    return [name for name in files.names if name.lower().endswith(".npz")]


def read_npz_set(files: Files) -> RawSet:
    """The data set in an NPZ file, its arrays named as Keras, MedMNIST or scikit-learn name them, or in several files.

    Of several files each holds a part (``train.npz``) or a single array (``k49-train-imgs.npz``), and their names say
    which.

    Raises:
        DataError: any fault of `set_of`.
    """
    archives = npz_names(files)
    if len(archives) > _MOST_ARCHIVES:
        raise DataError(
            f"{files.where}: one NPZ file, or a few, are expected, got {len(archives):,} ({archives[0]}, ...); "
            "give the path of one"
        )
    with contextlib.ExitStack() as stack:
        opened = [(name, stack.enter_context(open_zip(files, name))) for name in archives]
        if len(opened) == 1:
            return set_of(npy_arrays(opened[0][1]), opened[0][1].where)
        found = []
        for name, members in opened:
            inside = npy_arrays(members)
            stem = name[: -len(".npz")]
            found += [replace(each, name=stem if len(inside) == 1 else f"{stem}_{each.name}") for each in inside]
        return set_of(found, files.where)


def read_npz_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one NPZ file, with their place for messages; nothing where its name says that it holds labels."""
    if not _holds_labels(name[: -len(".npz")]):
        with open_zip(files, name) as members:
            yield images_among(members)


def read_npy_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one NPY file, with their place for messages; nothing where its name says that it holds labels."""
    if not _holds_labels(name.removesuffix(".npy")):
        yield files.label(name), read_npy(files, name)


def _holds_labels(name: str) -> bool:
    return (role_of(name) or ("", ""))[1] == "labels"


def images_among(members: Files) -> tuple[str, NDArray[Any]]:
    """The array of images in an opened NPZ, with its place for messages: one of a known name, or the only one."""
    found = npy_arrays(members)
    by_name = {each.name: each for each in found}
    known = [by_name[name] for name in _UNLABELLED_NAMES if name in by_name]
    if not known and len(found) != 1:
        raise DataError(
            f"{members.where}: one array of images is expected, called {', '.join(_UNLABELLED_NAMES)} or alone, "
            f"got {_listed(by_name)}; rename it"
        )
    chosen = known[0] if known else found[0]
    return chosen.place, chosen.read()


def read_npy_set(files: Files) -> RawSet:
    """The data set in NPY files: arrays of images and labels side by side, a file or a folder for each class.

    Raises:
        DataError: any fault of `set_of`, or the arrays of the classes have different shapes.
    """
    found = npy_arrays(files)
    if len(found) > 1 and not any(role_of(each.name) for each in found):
        return _classes(files, found)
    return set_of(found, files.where)


def set_of(found: Sequence[NamedArray], where: str) -> RawSet:
    """The data set in arrays whose names say what they hold.

    Raises:
        DataError: an array is missing, holds Python objects, is cut off or too large, or two data sets are there.
    """
    chosen = _by_role(found, where)
    parts: dict[str, RawPart] = {}
    for (part, kind), array in chosen.items():
        other = "labels" if kind == "images" else "images"
        if (part, other) not in chosen:
            raise DataError(
                f"{where}: the array {array.name!r} needs an array {_partner(array.name)!r}, got "
                f"{_listed(each.name for each in found)}; add it"
            )
        if kind == "images":
            images, labels = array.read(), chosen[part, "labels"].read()
            parts[part] = RawPart(images, labels, f"{where} [{array.name}]")
            if images.ndim and labels.ndim:
                check_same_number(images, labels, parts[part].where, f"{where} [{chosen[part, 'labels'].name}]")
    if "train" not in parts:
        raise DataError(
            f"{where}: arrays called x_train and y_train (or train_images and train_labels, images and labels, "
            f"X and y) are expected, got {_listed(each.name for each in found)}; rename them"
        )
    named = next((each for each in found if each.name.rpartition("/")[2] == "class_names"), None)
    names = np.empty(0) if named is None else named.read().reshape(-1)
    limits().check("classes", len(names), where, "classes", "correct class_names")
    class_names = None if named is None else tuple(map(str, names))
    return with_validation(parts, class_names)


def _by_role(found: Sequence[NamedArray], where: str) -> dict[Role, NamedArray]:
    """The array of each role; of several in one folder the most usual name."""
    by_role: dict[Role, list[NamedArray]] = {}
    for each in found:
        if role := role_of(each.name):
            by_role.setdefault(role, []).append(each)
    chosen = {}
    for role, arrays in sorted(by_role.items()):
        ranked = sorted(arrays, key=lambda each: (_usual(each.name), each.name))
        families = {_family(each.name) for each in arrays if _usual(each.name) == _usual(ranked[0].name)}
        if len(families) > 1:
            raise DataError(
                f"{where}: arrays of one data set are expected, got several of {role[0]} {role[1]} "
                f"({_listed(each.name for each in arrays)}); give the path of one set"
            )
        chosen[role] = ranked[0]
    return chosen


def _usual(name: str) -> tuple[bool, int]:
    """How usual a name is, the lowest first: one that says its part, ``x`` and ``y`` before other words."""
    words = re.split("[^a-z0-9]+", name.lower())
    ranks = [(_IMAGES if word in _IMAGES else _LABELS).index(word) for word in words if word in _PARTNER]
    return not any(word in PARTS for word in words), ranks[-1] if ranks else 0


def _family(name: str) -> str:
    """A name without the words for its part and kind: that of the data set, if any."""
    words = re.split("[^a-z0-9]+", name.lower())
    return " ".join(word for word in words if word not in PARTS and word not in _PARTNER)


def _partner(name: str) -> str:
    """The name that the labels of these images, or the images of these labels, would have."""
    return re.sub("[A-Za-z]+", lambda word: _PARTNER.get(word[0].lower(), word[0]), name)


def _classes(files: Files, found: Sequence[NamedArray]) -> RawSet:
    """The data set in an array for each class (QuickDraw), or in a folder for each class with arrays of images."""
    parted = "train" in {PARTS.get(each.name.partition("/")[0].lower()) for each in found}
    arrays: list[NDArray[Any]] = []
    labels: list[str] = []
    names: list[str] = []
    parts: list[str] = []
    total = 0
    for each in found:
        *folders, stem = each.name.split("/")
        part = PARTS.get(folders.pop(0).lower(), "train") if parted and folders else "train"
        array = each.read()
        if folders and (array.ndim == 2 or (array.ndim == 3 and min(array.shape[0], array.shape[2]) <= 4)):
            array = array[None]
        total += array.nbytes
        if arrays and (array.shape[1:], array.dtype.kind) != (arrays[0].shape[1:], arrays[0].dtype.kind):
            raise DataError(
                f"{each.place}: images like those of {found[0].place} are expected ({arrays[0].dtype}, "
                f"{arrays[0].shape[1:]}), got {array.dtype}, {array.shape[1:]}; bring them to one shape and type"
            )
        if array.ndim < 2:
            raise DataError(
                f"{each.place}: arrays of images are expected where each file or folder is a class, got the shape "
                f"{array.shape}; name the arrays x_train and y_train"
            )
        limits().check("bytes", total, each.place, "bytes of arrays", "give a part of them")
        arrays.append(array)
        labels += [folders[0] if folders else stem.removeprefix(_QUICKDRAW)] * len(array)
        names += [f"{each.name}.npy[{i}]" for i in range(len(array))] if len(array) > 1 else [f"{each.name}.npy"]
        parts += [part] * len(array)
    kind = "folder of .npy files" if found[-1].name.count("/") > parted else ".npy file"
    note = f"each {kind} is a class, called like it"
    return by_part(np.concatenate(arrays), np.array(labels), names, np.array(parts), files.where, None, (note,))


def _listed(names: Iterable[str]) -> str:
    return ", ".join(" ".join(name.split()) for name in sorted(names)[:12]) or "no arrays"


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
        except DataError:
            raise
        except FAULTS as error:
            raise DataError(
                f"{label}: a NumPy array (NPY) is expected, got something else ({reason(error)}); write it again with "
                "numpy.save or numpy.savez"
            ) from error
        if dtype.hasobject or dtype.kind not in "biufSU":
            raise DataError(
                f"{label}: an array of numbers or strings is expected, got the type {dtype}; save it without pickle"
            )
        array = read_exactly(files, name, file, shape[::-1] if fortran else shape, dtype)
    array = array.T if fortran else array
    return array.astype(dtype.newbyteorder("="), copy=False)
