"""A path -> a labelled data set: finds out which format a file, folder or zip has and calls that format's reader."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, Pixels
from committee.data.formats import arrays, csv_files, folders, parquet
from committee.data.formats.assemble import RawSet, as_pixels, assemble
from committee.data.formats.decode import conformed, decode
from committee.data.formats.files import Files, open_files, open_zip
from committee.errors import DataError

_FORMATS = (
    "IDX files (train-images-idx3-ubyte ...), an NPZ, CSV or Parquet file, class folders of PNG, JPEG, BMP, WebP or "
    "TIFF images, or a zip of these"
)
_UNLABELLED_ARRAYS = ("images", "x", "X", "x_test", "test_images")


def read_dataset(path: Path, *, image_size: int | None = None) -> ImageDataset:
    """Read the labelled images behind a path.

    Args:
        path: a folder of IDX files, of CSV or Parquet files, or of class folders; an NPZ, CSV or Parquet file; or a zip
            of any of these.
        image_size: side of the square that images are resized to, in pixels; None keeps their (most common) size,
            shrunk where its longer side is over 96.

    Raises:
        DataError: one sentence: which file, which row or member, what was expected, what was got, what to do.
        MissingExtraError: Parquet without the package pyarrow.
    """
    if image_size is not None and not 1 <= image_size <= 4096:
        raise DataError(f"image_size must be from 1 to 4096 pixels; got {image_size}")
    with open_files(path) as files:
        raw = _raw(files.without_top_folder(), image_size)
    whole = path.resolve().name
    name = whole if path.is_dir() else whole.removesuffix(".gz").rpartition(".")[0] or whole
    return assemble(raw, name=name, source=str(path), image_size=image_size)


def _raw(files: Files, image_size: int | None) -> RawSet:
    """The first format whose files are there; images come last, since other formats may have pictures beside them."""
    if not files.names:
        raise DataError(f"{files.where}: there are no files in it; {_FORMATS} are expected")
    if arrays.idx_files(files):
        return arrays.read_idx_set(files)
    if arrays.array_names(files):
        return arrays.read_npy_set(files)
    archives = _ending(files, ".npz")
    if archives:
        if len(archives) > 1:
            raise DataError(
                f"{files.where}: there are several NPZ files ({', '.join(archives[:5])}); give the path of one"
            )
        return arrays.read_npz_set(files, archives[0])
    if _ending(files, ".parquet"):
        return parquet.read_parquet_set(files, image_size)
    images = folders.image_names(files)
    if _ending(files, ".csv", ".csv.gz") and not any("/" in name for name in images):
        return csv_files.read_csv_set(files)
    if images:
        return folders.read_folder_set(files, image_size)
    raise DataError(f"{files.label(files.names[0])}: no labelled images were found; {_FORMATS} are expected")


def _ending(files: Files, *suffixes: str) -> list[str]:
    return [name for name in files.names if name.lower().endswith(suffixes)]


def read_images(
    paths: Sequence[str | Path], *, image_shape: tuple[int, int, int], pixel_range: int
) -> tuple[list[str], Pixels]:
    """Read images to classify, in the form of a training's images; labels, where there are any, are ignored.

    Args:
        paths: image files; NPY, NPZ, CSV, Parquet or IDX files; folders (with their subfolders) and zips of these.
        image_shape: height, width, channels of the training's images; others are resized and converted.
        pixel_range: 255 where the training's pixels have 8 bits, 65535 where 16.

    Returns:
        A name for each image (``"folder/file.png"``, ``"array.npy[3]"``, counted from 0; where two would have
        the same, the path as given is put before them) and the pixels
        (image, height, width, channel), uint8 or uint16.

    Raises:
        DataError: a path that holds no images, an image that cannot be read, or one that is transparent where the
            training's images are not; it is named.
    """
    names: list[str] = []
    labels: list[str] = []
    blocks: list[Pixels] = []
    for path in map(Path, paths):
        with open_files(path) as files, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            found = list(folders.image_names(files))
            for name in found:
                label = files.label(name)
                names.append(name)
                labels.append(label)
                blocks.append(conformed(decode(files.read(name), label)[None], image_shape, pixel_range, label))
            is_npz = path.suffix.lower() == ".npz"
            for name in [] if found else [_array_of_images(files)] if is_npz else _holding_arrays(files):
                block = _pixels(files, name, image_shape, pixel_range)
                base, label = (path.name, files.where) if is_npz else (name, files.label(name))
                names += [f"{base}[{i}]" for i in range(len(block))]
                labels += [f"{label}[{i}]" for i in range(len(block))]
                blocks.append(conformed(block, image_shape, pixel_range, label))
                found.append(name)
        if not found:
            raise DataError(
                f"{path}: there are no images to classify; image, NPY, NPZ, CSV, Parquet or IDX files are expected"
            )
    if not names:
        raise DataError("there are no images to classify; give at least one path")
    return names if len(set(names)) == len(names) else labels, cast(Pixels, np.concatenate(blocks))


def _array_of_images(members: Files) -> str:
    """The member of an NPZ that holds images: the one with a known name, or the only one."""
    npy = arrays.array_names(members)
    known = [npy[name] for name in _UNLABELLED_ARRAYS if name in npy]
    if not known and len(npy) != 1:
        raise DataError(
            f"{members.where}: one array of images is expected, called {', '.join(_UNLABELLED_ARRAYS)} or alone; "
            f"it has {', '.join(sorted(npy)[:12]) or 'none'}"
        )
    return known[0] if known else next(iter(npy.values()))


def _holding_arrays(files: Files) -> list[str]:
    """The files with arrays of images; of IDX files those of images, not those of labels."""
    npy = arrays.array_names(files)
    idx = [name for (_, kind), name in sorted(arrays.idx_files(files).items()) if kind == "images"]
    return [*npy.values(), *idx, *_ending(files, ".npz", ".csv", ".csv.gz", ".parquet")]


def _pixels(files: Files, name: str, image_shape: tuple[int, int, int], pixel_range: int) -> Pixels:
    lower = name.lower()
    if lower.endswith(".parquet"):
        contents = parquet.read_parquet(files, name).contents
        labels = [f"{files.label(name)} row {row}" for row in range(1, len(contents) + 1)]
        rows = [
            conformed(decode(content, label)[None], image_shape, pixel_range, label)
            for content, label in zip(contents, labels, strict=True)
        ]
        return cast(Pixels, np.concatenate(rows))
    values: NDArray[Any]
    if lower.endswith(".npz"):
        with open_zip(files, name) as members:
            values = arrays.read_npy(members, _array_of_images(members))
    elif lower.endswith(".npy"):
        values = arrays.read_npy(files, name)
    elif lower.endswith((".csv", ".csv.gz")):
        values, _ = csv_files.read_csv(files, name)
    else:
        values = arrays.read_idx(files, name)
    if values.shape in (image_shape, image_shape[:2]):
        values = values.reshape(1, *image_shape[:2], -1)
    return as_pixels([values], [files.label(name)], pixel_range)[0]
