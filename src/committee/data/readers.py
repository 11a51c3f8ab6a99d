"""Reading images at a path, in any of the formats in `FORMATS`: a labelled data set, or images to classify.

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

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, Pixels
from committee.data.formats import arrays, binaries, csv_files, folders, idx, libsvm, listings, matlab, parquet
from committee.data.formats.assemble import RawSet, as_pixels, assemble
from committee.data.formats.decode import conformed
from committee.data.formats.files import Files, part_of
from committee.data.formats.image_set import Unreadable, told, with_reasons
from committee.data.formats.kinds import ANOTHER, IMAGES, image_names, in_words, kinds_of, left_out_note
from committee.data.formats.opening import open_files
from committee.data.limits import limits
from committee.data.prepared import is_prepared, read_prepared
from committee.data.read_options import AS_IT_IS, ReadOptions, ValueRange
from committee.errors import DataError, counted

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


@dataclass(frozen=True)
class ImagesRead:
    """Images to classify, in the form of those that a committee was trained on.

    Attributes:
        names: of the readable images, in their order, such as ``"folder/file.png"``, or ``"array.npy[3]"`` for the
            fourth in a file; all with their paths where two would be the same.
        pixels: (image, height, width, channel), uint8 or uint16.
        unreadable: the name of each image, or of a file without any, that cannot be read, and the sentence that says
            why.
        notes: remarks for people, such as about files that are no images.
    """

    names: list[str]
    pixels: Pixels
    unreadable: list[Unreadable]
    notes: list[str]

    def noted(self, *, skip_unreadable: bool) -> list[str]:
        """The notes, where all images are wanted: with one about unreadable ones, if these may be left out.

        Raises:
            DataError: there are unreadable images, and they may not be left out.
        """
        if not self.unreadable:
            return self.notes
        number = len(self.unreadable)
        if not skip_unreadable:
            raise DataError(told(self.unreadable, len(self.names) + number, "images", " with --skip-unreadable"))
        return [*self.notes, f"{counted(number, 'unreadable image')} left out: {with_reasons(self.unreadable, '')}"]


def read_images(
    paths: Sequence[str | Path],
    *,
    image_shape: tuple[int, int, int],
    pixel_range: int,
    value_range: ValueRange | None = None,
    prepare: Callable[[Pixels, str], Pixels] | None = None,
) -> ImagesRead:
    """Read images to classify and give them the form of those that a committee was trained on; labels are ignored.

    Args:
        paths: image files; NPY, NPZ, CSV, Parquet or IDX files; folders (with their subfolders) and zips of these.
            Where there are image files in a folder or zip, only these are read.
        image_shape: height, width, channels of the training images; others are resized and converted.
        pixel_range: 255 for training images of 8 bits, 65535 for 16.
        value_range: the numbers that were black and white in the training's files (`Committee.value_range`); None finds
            them out from each file alone.
        prepare: how images (image, height, width, channel) get this form, and the name for messages about them; such as
            `Committee.preparation`. None resizes and converts them.

    Raises:
        DataError: none of the images can be read; or a path does not exist, or is a damaged zip. Where some images can
            be read, the others are in `ImagesRead.unreadable`: damaged ones, files that are no images, and those that
            are transparent although the training images have no transparency.
    """
    fit = prepare or (lambda pixels, label: conformed(pixels, image_shape, pixel_range, label))
    form = _Form(image_shape, pixel_range, value_range, fit)
    named: list[_Name] = []
    unreadable: list[tuple[_Name, str]] = []
    notes: list[str] = []
    pixels = np.empty((0, *image_shape), np.uint8 if pixel_range == 255 else np.uint16)
    for path in map(Path, paths):
        with open_files(path) as files, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            sources = list(_sources(path, files))
            before = len(named) + len(unreadable)
            for source in sources:
                for names, found in _images_of(source, form):
                    if isinstance(found, DataError):
                        unreadable.append((names[0], str(found)))
                        continue
                    end = len(named) + len(found)
                    size = end * pixels.itemsize * prod(image_shape)
                    limits().check("bytes", size, source.label, "bytes of images", "give fewer of them at once")
                    if end > len(pixels):  # grown in place: twice the memory is never needed
                        pixels.resize((max(end, len(pixels) * 5 // 4), *image_shape), refcheck=False)
                    pixels[len(named) : end] = found
                    named += names
            notes += files.notes
            if any(source.one_image for source in sources):
                images = [source.name for source in sources]
                notes += [*left_out_note(files, images), *folders.several_pages(files, images)]
            if len(named) + len(unreadable) == before:
                unreadable.append((_Name(path.name, str(path)), _without_images(path, files)))
    pixels.resize((len(named), *image_shape), refcheck=False)
    if not named and not unreadable:
        raise DataError("images to classify are expected, got none; give at least one path")
    if not named:
        listed = [(name.label, sentence) for name, sentence in unreadable]
        raise DataError(told(listed, len(listed), ", ".join(map(str, paths[:3]))))
    every = [*named, *(name for name, _ in unreadable)]
    alike = len({name.short for name in every}) < len(every)
    shown = [name.label if alike else name.short for name in every]
    sentences = [sentence for _, sentence in unreadable]
    return ImagesRead(
        shown[: len(named)], cast(Pixels, pixels), list(zip(shown[len(named) :], sentences, strict=True)), notes
    )


def _without_images(path: Path, files: Files) -> str:
    known = ", ".join(each.description for each in FORMATS)
    got = kinds_of(files.names) or "none"
    if len(files.names) == 1 and in_words(files.head(files.names[0])) != ANOTHER:
        got = in_words(files.head(files.names[0]))
    return f"{path}: images to classify are expected ({known}), got {got}; check the path"


@dataclass(frozen=True)
class _Name:
    """An image's name from the given path on, and with the path."""

    short: str
    label: str

    def numbered(self, count: int, start: int) -> list[_Name]:
        """The names of images in a file, with their positions."""
        return [_Name(f"{self.short}[{i}]", f"{self.label}[{i}]") for i in range(start, start + count)]


@dataclass(frozen=True)
class _Source:
    """A file with images to classify.

    Attributes:
        name: the file's name.
        label: the same with the path.
        blocks: reads its images.
        one_image: whether it is a single image.
    """

    name: str
    label: str
    blocks: Callable[[], Iterable[Block]]
    one_image: bool = False


def _sources(path: Path, files: Files) -> Iterator[_Source]:
    """The files with images at a path, by name; others are read only where there are no image files among them."""
    if path.suffix.lower() == ".npz":  # a zip like others, and its members are `files`
        yield _Source(path.name, files.where, lambda: [arrays.images_among(files)])
        return
    for one_image in (True, False):
        formats = [each for each in FORMATS if each.one_image == one_image]
        found = sorted(((name, each) for each in formats for name in each.find(files)), key=lambda pair: pair[0])
        for name, each in found:
            yield _Source(name, files.label(name), partial(each.read_images, files, name), one_image)
        if found:
            return


@dataclass(frozen=True)
class _Form:
    """The form of the training images.

    Attributes:
        shape: height, width, channels.
        pixel_range: the highest pixel.
        values: the numbers that were black and white.
        fit: gives images this shape; with their name for messages.
    """

    shape: tuple[int, int, int]
    pixel_range: int
    values: ValueRange | None
    fit: Callable[[Pixels, str], Pixels]


def _images_of(source: _Source, form: _Form) -> Iterator[tuple[list[_Name], Pixels | DataError]]:
    """The images of a file in the wanted form, a block at a time, with their names; or why they cannot be read."""
    own, position = _Name(source.name, source.label), 0
    try:
        for place, values in source.blocks():
            count = 1 if source.one_image or isinstance(values, DataError) else len(values)
            found = _in_form(place, values, form)
            if isinstance(found, DataError):
                alone = source.one_image or count > 1
            else:
                alone, count = source.one_image, len(found)
            yield [own] if alone else own.numbered(count, position), found
            position += count
    except DataError as error:
        yield [own], error


def _in_form(place: str, values: NDArray[Any] | DataError, form: _Form) -> Pixels | DataError:
    """Images in the wanted form, or why they cannot have it."""
    if isinstance(values, DataError):
        return values
    if values.ndim == 2 and values.shape[1] == prod(form.shape):
        values = values.reshape(len(values), *form.shape)
    elif values.shape in (form.shape, form.shape[:2]):
        values = values.reshape(1, *form.shape[:2], -1)
    try:
        return form.fit(as_pixels(values, place, form.pixel_range, form.values), place)
    except DataError as error:
        return error
