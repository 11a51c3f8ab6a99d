"""Reading images at a path, in any of the formats in `FORMATS`, as a labelled data set.

To add a file format:

1. Write `formats/NAME.py` with three functions: one that names the format's files in a folder or zip, one that reads
   the labelled data set in them (a `RawSet`: arrays of any shape and type that `RawPart` allows), and one that reads
   the images in a single file. Open files only through `Files`, so that zips work, and let each `DataError` name the
   file and the row or image. Ask `limits()` before memory is taken for what a header announces. A package that not
   everybody needs is imported inside a function with `errors.require`.
2. Add a `Format` with these functions to `FORMATS` below; the first format whose files are present is read.
3. Add a writer to `WRITERS` in tests/test_readers.py (the same images must give the same digest in every format),
   malformed files with the expected messages to `BAD` there, and the format's layout to docs/data.md.

CONTRIBUTING.md lists the rest: extras, the map of files, help texts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from committee.data.dataset import ImageDataset
from committee.data.formats import arrays, binaries, csv_files, folders, idx, libsvm, listings, matlab, parquet
from committee.data.formats.assemble import RawSet, assemble
from committee.data.formats.files import Files, part_of
from committee.data.formats.kinds import IMAGES, image_names
from committee.data.formats.opening import open_files
from committee.data.prepared import is_prepared, read_prepared
from committee.data.read_options import AS_IT_IS, ReadOptions
from committee.errors import DataError

Block = tuple[str, NDArray[Any] | DataError]
"""Where images come from, for messages, and the images: an array as in `RawPart.values`, a single image, or why a
single image cannot be read."""


@dataclass(frozen=True)
class Format:
    """A file format.

    Attributes:
        description: what its files are, for messages.
        find: the names of its files among others; none where this format is not to be read.
        read_set: the labelled data set in its files. A format of encoded images resizes them to the `image_size` of the
            options as it decodes them; for other formats `assemble` does it.
        read_images: the images in one file that `find` has named, in blocks; labels are ignored.
        one_image: whether a file is a single image, so that the file's name is the image's name.
    """

    description: str
    find: Callable[[Files], Sequence[str]]
    read_set: Callable[[Files, ReadOptions], RawSet]
    read_images: Callable[[Files, str], Iterable[Block]]
    one_image: bool = False


def _csv_names(files: Files) -> list[str]:
    """CSV files; none where there are class folders of images, since a table beside those only lists them."""
    names = [name for name in files.names if name.lower().endswith((".csv", ".csv.gz"))]
    return [] if names and any("/" in name for name in image_names(files)) else names


FORMATS = (
    Format(
        description="IDX files (train-images-idx3-ubyte ...)",
        find=lambda files: list(idx.idx_files(files).values()),
        read_set=lambda files, options: idx.read_idx_set(files),
        read_images=idx.read_idx_images,
    ),
    Format(
        description="NPY files (x_train.npy, y_train.npy ...)",
        find=arrays.npy_names,
        read_set=lambda files, options: arrays.read_npy_set(files),
        read_images=arrays.read_npy_images,
    ),
    Format(
        description="an NPZ file",
        find=arrays.npz_names,
        read_set=lambda files, options: arrays.read_npz_set(files),
        read_images=arrays.read_npz_images,
    ),
    Format(
        description="MATLAB files (train_32x32.mat ...)",
        find=matlab.mat_names,
        read_set=lambda files, options: matlab.read_mat_set(files),
        read_images=matlab.read_mat_images,
    ),
    Format(
        description="CIFAR's or STL-10's binary files",
        find=binaries.binary_names,
        read_set=binaries.read_binary_set,
        read_images=binaries.read_binary_images,
    ),
    Format(
        description="Parquet or Arrow files",
        find=parquet.table_names,
        read_set=parquet.read_parquet_set,
        read_images=parquet.read_parquet_images,
    ),
    Format(
        description="image files and a table of their labels (file_name,label)",
        find=listings.listing_names,
        read_set=listings.read_listing_set,
        read_images=lambda files, name: [],
    ),
    Format(
        description="CSV files",
        find=_csv_names,
        read_set=csv_files.read_csv_set,
        read_images=csv_files.read_csv_images,
    ),
    Format(
        description="LIBSVM's files (usps, usps.t)",
        find=libsvm.libsvm_names,
        read_set=libsvm.read_libsvm_set,
        read_images=libsvm.read_libsvm_images,
    ),
    Format(
        description=f"class folders of {IMAGES} images",
        find=image_names,
        read_set=folders.read_folder_set,
        read_images=folders.read_image_file,
        one_image=True,
    ),
)
"""All file formats. A data set is read by the first one whose files are there: pictures may lie beside arrays."""


def read_dataset(path: Path, options: ReadOptions = AS_IT_IS) -> ImageDataset:
    """Read the labelled images at a path.

    Args:
        path: a folder, a zip or a file of one of the `FORMATS`, or a folder of prepared data.
        options: what its files do not say.

    Raises:
        DataError: one sentence: which file and row, what was expected, what was got, what to do.
        MissingExtraError: Parquet files without the package pyarrow.
    """
    if options.image_size is not None and not 1 <= options.image_size <= 4096:
        raise DataError(f"image_size must be from 1 to 4096 pixels, got {options.image_size}; choose another")
    if options.shape is not None and not (min(options.shape) >= 1 and options.shape[2] <= 4):
        raise DataError(
            f"the shape of an image is its height, width and 1 to 4 channels, got {options.shape}; correct it"
        )
    if is_prepared(path):
        return read_prepared(path, options)
    with open_files(path) as files:
        inside = files.without_top_folder()
        raw = _format_of(inside).read_set(inside, options)
        raw = replace(raw, notes=(*inside.notes, *raw.notes))
    whole = path.resolve().name
    name = whole.removesuffix(".parquet") if path.is_dir() else whole.removesuffix(".gz").rpartition(".")[0] or whole
    return assemble(raw, name=name, source=str(path), options=options)


def _format_of(files: Files) -> Format:
    _check_no_zips(files)
    for each in FORMATS:
        if each.find(files):
            return each
    binaries.check_no_pickles(files)
    got = f"only files such as {files.names[0]}" if files.names else "no files"
    known = ", ".join(each.description for each in FORMATS)
    raise DataError(f"{files.where}: labelled images are expected, got {got}; give {known}, or a zip of these")


def _check_no_zips(files: Files) -> None:
    """Data in zips that lie in a folder or zip, as Kaggle's do, must not be overlooked for the tables beside them."""
    zips = [name for name in files.names if name.lower().endswith(".zip")]
    parts = [name for name in zips if part_of(name)]
    others = [name for name in files.names if name not in zips]
    if (zips and not others) or (parts and not any(map(part_of, others))):
        listed = ", ".join((parts or zips)[:5])
        raise DataError(
            f"{files.where}: files or folders are expected, got zips inside it ({listed}), which are not read there; "
            "unpack them and give the path of the folder"
        )
