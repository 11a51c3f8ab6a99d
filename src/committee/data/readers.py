"""A path -> a labelled data set: finds out which format a file, folder or zip has and calls that format's reader."""

from __future__ import annotations

from pathlib import Path

from committee.data import arrays
from committee.data.assemble import RawSet, assemble
from committee.data.dataset import ImageDataset
from committee.data.files import Files, open_files
from committee.errors import DataError


def read_dataset(path: Path, *, seed: int = 0, image_size: int | None = None) -> ImageDataset:
    """Read the labelled images behind a path.

    Args:
        path: a folder of IDX files, of CSV or Parquet files, or of class folders; an NPZ, CSV or Parquet file; or a zip
            of any of these.
        seed: root seed of the split that makes a test part where none is given.
        image_size: side of the square that images are resized to, in pixels; None keeps their (most common) size,
            shrunk where its longer side is over 96.

    Raises:
        DataError: one sentence: which file, which row or member, what was expected, what was got, what to do.
        MissingExtraError: Parquet without the package pyarrow.
    """
    with open_files(path) as files:
        raw = _raw(files.without_top_folder(), path, image_size)
    name = path.resolve().name.removesuffix(".gz")
    name = name if path.is_dir() else name.rpartition(".")[0] or name
    return assemble(raw, name=name, source=str(path), seed=seed, image_size=image_size)


def _raw(files: Files, path: Path, image_size: int | None) -> RawSet:
    if not files.names:
        raise DataError(
            f"{files.where}: there are no files in it; a folder, zip or file of labelled images is expected"
        )
    if arrays.idx_files(files):
        return arrays.read_idx_set(files)
    if arrays.array_names(files):
        return arrays.read_npy_set(files)
    raise DataError(f"{files.where}: unknown format")
