"""Files without a header whose layout their authors published: CIFAR-10, CIFAR-100 and STL-10 -> RawSet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrays import check_same_number, joined
from committee.data.formats.assemble import RawPart, RawSet
from committee.data.formats.files import Files
from committee.data.read_options import ReadOptions
from committee.errors import DataError

_IMAGE = 3 * 32 * 32
_STL = 3 * 96 * 96
_CIFAR_10 = re.compile(r"(?:.*/)?(data_batch_\d+|test_batch)\.bin", re.IGNORECASE)
_CIFAR_100 = re.compile(r"(?:.*/)?(train|test)\.bin", re.IGNORECASE)
_STL_10 = re.compile(r"(?:.*/)?(train|test)_(X|y)\.bin", re.IGNORECASE)
_PICKLE = re.compile(rb"\x80[\x02-\x05]")


def binary_names(files: Files) -> list[str]:
    """The files of CIFAR-10, of CIFAR-100 or of STL-10, by their names and sizes."""
    for pattern, size in ((_CIFAR_10, _IMAGE + 1), (_CIFAR_100, _IMAGE + 2), (_STL_10, 1)):
        found = [name for name in files.names if pattern.fullmatch(name) and files.size(name) % size == 0]
        if found:
            return found
    return []


def read_binary_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set in CIFAR's or STL-10's binary files, with the class names beside them.

    CIFAR: a record for each image, its label (CIFAR-100: the coarse and the fine one) and a plane of 32x32 bytes for
    each of three colours (Krizhevsky 2009, "Learning multiple layers of features from tiny images"). STL-10: planes of
    96x96 bytes, column by column, and labels from 1 in a file of their own (Coates, Lee & Ng 2011, "An analysis of
    single-layer networks in unsupervised feature learning").

    Raises:
        DataError: a file of labels or of images is missing, or CIFAR-100's labels are not chosen with `options.label`.
    """
    parts: dict[str, RawPart] = {}
    names = binary_names(files)
    stl = bool(_STL_10.fullmatch(names[0]))
    column = _cifar_100_column(files, names[0], options.label) if _CIFAR_100.fullmatch(names[0]) else 0
    for name in names:
        part = "test" if name.rpartition("/")[2].lower().startswith("test") and len(names) > 1 else "train"
        if stl and name.lower().endswith("_y.bin"):
            continue
        images = _images(files, name)
        labels = _stl_labels(files, name, images) if stl else _records(files, name)[:, column]
        new = RawPart(images, labels, files.label(name))
        parts[part] = joined(parts[part], new) if part in parts else new
    if "train" not in parts:
        raise DataError(f"{files.where}: training images are expected, got only {', '.join(names[:5])}; add them")
    return RawSet(parts["train"], parts.get("test"), _class_names(files, names[0], column))


def read_binary_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one of these files, with their place for messages; nothing where it holds labels alone."""
    if not name.lower().endswith("_y.bin"):
        yield files.label(name), _images(files, name)


def check_no_pickles(files: Files) -> None:
    """Refuse Python's pickles, which could run any program: CIFAR's "python version" and others.

    Raises:
        DataError: there is one.
    """
    for name in files.names[:100]:
        ending = name.rpartition("/")[2].partition(".")[2].lower()
        if ending in ("pkl", "pickle", "pk") or (ending in ("", "meta") and _PICKLE.match(files.head(name))):
            raise DataError(
                f"{files.label(name)}: data without Python objects are expected, got a pickle, which could run any "
                "program when it is opened; give the binary version (CIFAR-10: cifar-10-binary.tar.gz, unpacked), or "
                "save its arrays with numpy.savez"
            )


def _records(files: Files, name: str) -> NDArray[np.uint8]:
    """(image, byte): labels first."""
    size = _IMAGE + (2 if _CIFAR_100.fullmatch(name) else 1)
    return np.frombuffer(files.read(name), np.uint8).reshape(-1, size)


def _images(files: Files, name: str) -> NDArray[np.uint8]:
    """(image, height, width, channel)."""
    if _STL_10.fullmatch(name):
        content = files.read(name)
        if len(content) % _STL:
            raise DataError(
                f"{files.label(name)}: the file is cut off: {_STL:,} bytes for each image are expected, got "
                f"{len(content):,} bytes; copy or download it again"
            )
        return np.frombuffer(content, np.uint8).reshape(-1, 3, 96, 96).transpose(0, 3, 2, 1)
    return _records(files, name)[:, -_IMAGE:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)


def _stl_labels(files: Files, name: str, images: NDArray[np.uint8]) -> NDArray[np.int64]:
    labels_name = re.sub(r"_X\.bin$", "_y.bin", name, flags=re.IGNORECASE)
    if labels_name not in files.names:
        raise DataError(
            f"{files.label(name)}: the file of its labels, {labels_name}, is missing; put both into one folder and "
            "give the path of that"
        )
    labels = np.frombuffer(files.read(labels_name), np.uint8).astype(np.int64) - 1
    check_same_number(images, labels, files.label(name), files.label(labels_name))
    return labels


def _cifar_100_column(files: Files, name: str, given: str | None) -> int:
    """Which of the two labels of CIFAR-100 is meant."""
    kinds = ("coarse_label", "fine_label")
    for column, kind in enumerate(kinds):
        if given in (kind, kind.removesuffix("_label"), str(column)):
            return column
    raise DataError(
        f"{files.label(name)}: one label for each image is expected, got CIFAR-100's two, of 20 and of 100 classes; "
        f"say which with --label {kinds[0]} or --label {kinds[1]}"
    )


def _class_names(files: Files, name: str, column: int) -> tuple[str, ...] | None:
    """The class names in the text file that lies beside the images; None where there is none."""
    folder = name[: name.rfind("/") + 1]
    known = {
        _CIFAR_10: "batches.meta.txt",
        _CIFAR_100: ("coarse_label_names.txt", "fine_label_names.txt")[column],
        _STL_10: "class_names.txt",
    }
    listed = folder + next(text for pattern, text in known.items() if pattern.fullmatch(name))
    if listed not in files.names:
        return None
    lines = files.read(listed, "line").decode("utf-8", "replace").split("\n")
    return tuple(line.strip() for line in lines if line.strip()) or None
