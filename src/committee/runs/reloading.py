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
    source = folder.data.reload
    if source is None and data is None:
        raise RunError(f"{folder} was trained from Python on arrays and does not say where they are; give its DATA")
    where = source or DataSource(data=str(data))
    known = where.data_dir and Path(where.data_dir)
    dataset = load_dataset(
        data or where.data, data_dir=data_dir or known or None, download=download, **dict(where.options)
    )
    if dataset.part_digests()[0] != folder.data.train_digest:
        raise RunError(
            f"{folder} was trained on {folder.data.train_images:,} images of {folder.data.name}, and "
            f"{dataset.source} holds {len(dataset.train):,} training images that are not all the same; give the data "
            "of the training"
        )
    return dataset
