"""MATLAB files (.mat) with arrays of images and labels, the image first or last: SVHN's cropped digits -> RawSet."""

from __future__ import annotations

import io
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrays import NamedArray, role_of, set_of
from committee.data.formats.assemble import RawPart, RawSet
from committee.data.formats.files import Files, names_by_part, reason
from committee.data.limits import limits
from committee.errors import DataError, require

# fmt: off
_BYTES = {
    "double": 8, "single": 4, "int8": 1, "uint8": 1, "int16": 2, "uint16": 2, "int32": 4, "uint32": 4, "int64": 8,
    "uint64": 8, "logical": 1, "char": 4,
}
# fmt: on
"""MATLAB's types whose variables are read, and how many bytes a value of each takes."""

_SVHN_NOTE = "label 10 became 0, as SVHN means it"


def mat_names(files: Files) -> list[str]:
    """The MATLAB files."""
    return [name for name in files.names if name.lower().endswith(".mat")]


def read_mat_set(files: Files) -> RawSet:
    """The data set in a MATLAB file, or in ``train*.mat`` and ``test*.mat`` side by side.

    Variables are named as arrays in NPZ files are. The image is the first or the last axis, whichever is as long as the
    labels. SVHN's label 10 is the digit 0 (Netzer et al. 2011, "Reading digits in natural images with unsupervised
    feature learning").

    Raises:
        DataError: a variable is missing, a file is damaged, over a limit or in MATLAB's format 7.3.
        MissingExtraError: the package scipy is not installed.
    """
    found: list[NamedArray] = []
    by_part = names_by_part(files, (".mat",))
    used = [name for names in by_part.values() for name in names]
    for part, names in by_part.items():
        for name in names:
            for key, array in _image_first(files, name).items():
                own = f"{part}_{key}" if len(used) > 1 else key
                found.append(NamedArray(own, f"{files.label(name)} [{key}]", partial(np.asarray, array)))
    raw = set_of(found, files.where)
    parts = [part for part in (raw.train, raw.test) if part is not None]
    notes = [f"{name} was left out, since its name says no part" for name in mat_names(files) if name not in used]
    if all(part.values.shape[1:] == (32, 32, 3) and _counts_from_1_to_10(part.labels) for part in parts):
        parts = [RawPart(part.values, part.labels % 10, part.where) for part in parts]
        notes.append(_SVHN_NOTE)
    return RawSet(parts[0], parts[1] if parts[1:] else None, raw.class_names, (*raw.notes, *notes))


def read_mat_images(files: Files, name: str) -> Iterator[tuple[str, NDArray[Any]]]:
    """The images in one MATLAB file, with their place for messages."""
    arrays = _image_first(files, name)
    images = next((array for key, array in arrays.items() if (role_of(key) or ("", ""))[1] == "images"), None)
    if images is None:
        raise _no_images(files, name)
    yield files.label(name), images


def _image_first(files: Files, name: str) -> dict[str, NDArray[Any]]:
    """The variables whose names say what they hold, with the image as first axis; in MATLAB's it is often the last."""
    arrays = {key: array for key, array in _variables(files, name).items() if role_of(key)}
    if not arrays:
        raise _no_images(files, name)
    labels = {key: array for key, array in arrays.items() if (role_of(key) or ("", ""))[1] == "labels"}
    flat = {key: array.reshape(-1) if 1 in array.shape else array for key, array in labels.items()}
    counts = {len(array) for array in flat.values()}

    def turned(array: NDArray[Any]) -> NDArray[Any]:
        colour_inside = array.ndim == 4 and array.shape[2] in (1, 3) and array.shape[3] not in (1, 3)
        last = array.shape[-1] in counts and array.shape[0] not in counts if counts else False
        return np.moveaxis(array, -1, 0) if last or colour_inside else array

    return {key: flat[key] if key in flat else turned(array) for key, array in arrays.items()}


def _variables(files: Files, name: str) -> dict[str, NDArray[Any]]:
    """The arrays of numbers in a MATLAB file, whose sizes are checked before they are read."""
    where = files.label(name)
    scipy_io = require("scipy.io", extra="matlab", purpose="Reading MATLAB files")
    content = io.BytesIO(files.read(name))
    try:
        listed = [(key, shape, kind) for key, shape, kind in scipy_io.whosmat(content) if role_of(key)]
        wanted = [key for key, _, kind in listed if kind in _BYTES]
        announced = sum(prod(shape) * _BYTES[kind] for _, shape, kind in listed if kind in _BYTES)
        limits().check_unpacked(announced, files.packed(name), where)
        content.seek(0)
        loaded = scipy_io.loadmat(content, variable_names=wanted)
    except DataError:
        raise
    except NotImplementedError as error:
        raise DataError(
            f"{where}: a MATLAB file up to version 7 is expected, got version 7.3; save it with -v7, or as NPZ"
        ) from error
    except Exception as error:  # scipy raises many kinds for damaged files
        raise DataError(
            f"{where}: a MATLAB file is expected, got something else ({reason(error)}); copy or download it again"
        ) from error
    return {
        key: value for key, value in loaded.items() if isinstance(value, np.ndarray) and value.dtype.kind in "biufU"
    }


def _no_images(files: Files, name: str) -> DataError:
    return DataError(
        f"{files.label(name)}: variables X and y (or images and labels) are expected, got others; save them under "
        "these names"
    )


def _counts_from_1_to_10(labels: NDArray[Any]) -> bool:
    return bool(labels.size and labels.min() >= 1 and labels.max() == 10)
