"""The data set that a run was trained on, loaded again."""

from __future__ import annotations

from pathlib import Path

from committee.data.catalog import load_dataset
from committee.data.dataset import ImageDataset
from committee.data.summary import DataSource
from committee.errors import RunError
from committee.folders.run_folder import RunFolder


def dataset_of(
    folder: RunFolder, data: str | None = None, data_dir: Path | None = None, *, download: bool = True
) -> ImageDataset:
    """The data set of a finished run, its test images sealed.

    Args:
        folder: of the run.
        data: where the data set is now, if it was moved; a name or a path.
        data_dir: where named data sets are.
        download: whether a named data set that is not on this machine is downloaded.

    Raises:
        RunError: the run does not say where its data were, or these are other images.
        DataError: they cannot be read.
        DownloadError: a named data set was neither found nor downloaded.
    """
    dataset = loaded(source_of(folder, data, data_dir), download=download)
    if dataset.part_digests()[0] != folder.data.train_digest:
        raise RunError(
            f"{folder} was trained on {folder.data.train_images:,} images of {folder.data.name}, and "
            f"{dataset.source} holds {len(dataset.train):,} training images that are not all the same; give the data "
            "of the training"
        )
    return dataset


def source_of(folder: RunFolder, data: str | None = None, data_dir: Path | None = None) -> DataSource:
    """Where the data set of a finished run is, and how it is read; the arguments are those of `dataset_of`.

    Raises:
        RunError: the run does not say where its data were.
    """
    source = folder.data.reload
    if source is None and data is None:
        raise RunError(f"{folder} was trained from Python on arrays and does not say where they are; give its DATA")
    where = source or DataSource(data=str(data))
    place = str(data_dir) if data_dir else where.data_dir
    return where.model_copy(update={"data": data or where.data, "data_dir": place})


def loaded(source: DataSource, *, download: bool = True) -> ImageDataset:
    """The data set of a source."""
    return load_dataset(source.data, data_dir=source.data_dir or None, download=download, **dict(source.options))
