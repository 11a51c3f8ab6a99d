"""Reading images at a path, in any of the formats in `FORMATS`: a labelled data set, or images to classify.

To add a file format:

1. Write `formats/NAME.py` with three functions: one that names the format's files in a folder or zip, one that reads
   the labelled data set in them (a `RawSet`: arrays of any shape and type that `RawPart` allows), and one that reads
   the images in a single file. Open files only through `Files`, so that zips work, and let each `DataError` name the
   file and the row or image. A package that not everybody needs is imported inside a function with `errors.require`.
2. Add a `Format` with these functions to `FORMATS` below; the first format whose files are present is read.
3. Add a writer to `WRITERS` in tests/test_readers.py (the same images must give the same digest in every format),
   malformed files with the expected messages to `BAD` there, and the format's layout to docs/data.md.

CONTRIBUTING.md lists the rest: extras, the map of files, help texts.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, Pixels
from committee.data.formats import arrays, csv_files, folders, idx, parquet
from committee.data.formats.assemble import RawSet, as_pixels, assemble
from committee.data.formats.decode import conformed
from committee.data.formats.files import Files, open_files, part_of
from committee.data.read_options import AS_IT_IS, ReadOptions, ValueRange
from committee.errors import DataError

Block = tuple[str, NDArray[Any]]
"""Where images come from, for messages, and the images: an array as in `RawPart.values`, or a single image."""


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
    if any("/" in name for name in folders.image_names(files)):
        return []
    return [name for name in files.names if name.lower().endswith((".csv", ".csv.gz"))]


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
        description="Parquet files",
        find=lambda files: [name for name in files.names if name.lower().endswith(".parquet")],
        read_set=parquet.read_parquet_set,
        read_images=parquet.read_parquet_images,
    ),
    Format(
        description="CSV files",
        find=_csv_names,
        read_set=lambda files, options: csv_files.read_csv_set(files),
        read_images=lambda files, name: [(files.label(name), csv_files.read_csv(files, name)[0])],
    ),
    Format(
        description="class folders of PNG, JPEG, BMP, WebP or TIFF images",
        find=folders.image_names,
        read_set=folders.read_folder_set,
        read_images=folders.read_image_file,
        one_image=True,
    ),
)
"""All file formats. A data set is read by the first one whose files are there: pictures may lie beside arrays."""


def read_dataset(path: Path, options: ReadOptions = AS_IT_IS) -> ImageDataset:
    """Read the labelled images at a path.

    Args:
        path: a folder, a zip or a file of one of the `FORMATS`.
        options: what its files do not say.

    Raises:
        DataError: one sentence: which file and row, what was expected, what was got, what to do.
        MissingExtraError: Parquet files without the package pyarrow.
    """
    if options.image_size is not None and not 1 <= options.image_size <= 4096:
        raise DataError(f"image_size must be from 1 to 4096 pixels, got {options.image_size}; choose another")
    with open_files(path) as files:
        inside = files.without_top_folder()
        raw = _format_of(inside).read_set(inside, options)
    whole = path.resolve().name
    name = whole if path.is_dir() else whole.removesuffix(".gz").rpartition(".")[0] or whole
    return assemble(raw, name=name, source=str(path), options=options)


def _format_of(files: Files) -> Format:
    _check_no_zips(files)
    for each in FORMATS:
        if each.find(files):
            return each
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


def read_images(
    paths: Sequence[str | Path],
    *,
    image_shape: tuple[int, int, int],
    pixel_range: int,
    value_range: ValueRange | None = None,
) -> tuple[list[str], Pixels]:
    """Read images to classify and give them the form of those that a committee was trained on; labels are ignored.

    Args:
        paths: image files; NPY, NPZ, CSV, Parquet or IDX files; folders (with their subfolders) and zips of these.
            Where there are image files in a folder or zip, only these are read.
        image_shape: height, width, channels of the training images; others are resized and converted.
        pixel_range: 255 for training images of 8 bits, 65535 for 16.
        value_range: the numbers that were black and white in the training's files (`Committee.value_range`); None finds
            them out from each file alone.

    Returns:
        A name for each image (``"folder/file.png"``, or ``"array.npy[3]"``, counted from 0; all with their paths where
        two would be the same), and the pixels (image, height, width, channel), uint8 or uint16.

    Raises:
        DataError: a path without images, an image that cannot be read, or one that is transparent although the
            training images have no transparency; it is named.
    """
    names: list[str] = []
    labels: list[str] = []
    blocks: list[Pixels] = []
    for path in map(Path, paths):
        with open_files(path) as files, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            before = len(blocks)
            for source in _sources(path, files):
                pixels = [_in_form(block, image_shape, pixel_range, value_range) for block in source.blocks]
                names += _numbered(source.name, pixels, alone=source.one_image)
                labels += _numbered(source.label, pixels, alone=source.one_image)
                blocks += pixels
        if len(blocks) == before:
            known = ", ".join(each.description for each in FORMATS)
            raise DataError(f"{path}: images to classify are expected ({known}), got none; check the path")
    if not names:
        raise DataError("images to classify are expected, got none; give at least one path")
    return names if len(set(names)) == len(names) else labels, cast(Pixels, np.concatenate(blocks))


@dataclass(frozen=True)
class _Source:
    """A file with images to classify.

    Attributes:
        name: the file's name, from the given path on.
        label: the same with the path.
        blocks: its images.
        one_image: whether it is a single image.
    """

    name: str
    label: str
    blocks: Iterable[Block]
    one_image: bool = False


def _sources(path: Path, files: Files) -> Iterator[_Source]:
    """The files with images at a path, by name; others are read only where there are no image files among them."""
    if path.suffix.lower() == ".npz":  # a zip like others, and its members are `files`
        yield _Source(path.name, files.where, [arrays.images_among(files)])
        return
    for one_image in (True, False):
        formats = [each for each in FORMATS if each.one_image == one_image]
        found = sorted(((name, each) for each in formats for name in each.find(files)), key=lambda pair: pair[0])
        for name, each in found:
            yield _Source(name, files.label(name), each.read_images(files, name), one_image)
        if found:
            return


def _in_form(
    block: Block, image_shape: tuple[int, int, int], pixel_range: int, value_range: ValueRange | None
) -> Pixels:
    place, values = block
    if values.shape in (image_shape, image_shape[:2]):
        values = values.reshape(1, *image_shape[:2], -1)
    pixels = as_pixels([values], [place], pixel_range, value_range)[0]
    return conformed(pixels, image_shape, pixel_range, place)


def _numbered(name: str, blocks: Sequence[Pixels], *, alone: bool) -> list[str]:
    """A name for each image of a file: the file's own where the image is alone in it, else with its position."""
    return [name] if alone else [f"{name}[{i}]" for i in range(sum(map(len, blocks)))]
