"""Images to classify at paths, in any of the formats that `committee.data.readers` knows: all at once, or a stream."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels
from committee.data.formats import arrays, folders
from committee.data.formats.assemble import as_pixels
from committee.data.formats.decode import conformed
from committee.data.formats.files import Files
from committee.data.formats.image_set import LISTED, Unreadable, told, with_reasons
from committee.data.formats.kinds import ANOTHER, in_words, kinds_of, left_out_note
from committee.data.formats.opening import open_files
from committee.data.formats.values import is_plain
from committee.data.limits import limits
from committee.data.prepared import is_prepared, prepared_images
from committee.data.read_options import ValueRange
from committee.data.readers import FORMATS, Block
from committee.errors import DataError, counted

AT_ONCE = 8192
"""Images that are handed on together."""


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
    form = _form(image_shape, pixel_range, value_range, prepare)
    named: list[_Name] = []
    unreadable: list[tuple[_Name, str]] = []
    notes: list[str] = []
    pixels = np.empty((0, *image_shape), form.dtype)
    for block in _blocks(paths, form):
        if isinstance(block, str):
            notes.append(block)
            continue
        names, found, label = block
        if isinstance(found, DataError):
            unreadable.append((names[0], str(found)))
            continue
        end = len(named) + len(found)
        size = end * pixels.itemsize * prod(image_shape)
        limits().check("bytes", size, label, "bytes of images", "give fewer of them at once")
        if end > len(pixels):  # grown in place: twice the memory is never needed
            pixels.resize((max(end, len(pixels) * 5 // 4), *image_shape), refcheck=False)
        pixels[len(named) : end] = found
        named += names
    pixels.resize((len(named), *image_shape), refcheck=False)
    _check_any(paths, len(named), [(name.label, sentence) for name, sentence in unreadable])
    every = [*named, *(name for name, _ in unreadable)]
    alike = len({name.short for name in every}) < len(every)
    shown = [name.label if alike else name.short for name in every]
    sentences = [sentence for _, sentence in unreadable]
    return ImagesRead(
        shown[: len(named)], cast(Pixels, pixels), list(zip(shown[len(named) :], sentences, strict=True)), notes
    )


def stream_images(
    paths: Sequence[str | Path],
    *,
    image_shape: tuple[int, int, int],
    pixel_range: int,
    value_range: ValueRange | None = None,
    prepare: Callable[[Pixels, str], Pixels] | None = None,
) -> Iterator[ImagesRead]:
    """The images that `read_images` gives, about `AT_ONCE` of them at a time: any number of them in little memory.

    Notes come with the images after which they are known. Files of encoded images are read as they are decoded, and
    images of Parquet files and of prepared data a piece at a time; other arrays and tables are read whole, one file
    after the other.

    Raises:
        DataError: as `read_images`; none can be read is said at the end.
    """
    form = _form(image_shape, pixel_range, value_range, prepare)
    alike = _are_alike(paths)
    named: list[str] = []
    gathered: list[Pixels] = []
    unreadable: list[Unreadable] = []
    notes: list[str] = []
    read, broken = 0, list[Unreadable]()
    for block in _blocks(paths, form):
        if isinstance(block, str):
            notes.append(block)
            continue
        names, found, _ = block
        shown = [name.label if alike else name.short for name in names]
        if isinstance(found, DataError):
            unreadable.append((shown[0], str(found)))
            broken = [*broken, (names[0].label, str(found))][: LISTED + 1]
            continue
        named += shown
        gathered.append(found)
        read += len(found)
        if len(named) >= AT_ONCE:
            yield ImagesRead(named, cast(Pixels, np.concatenate(gathered)), unreadable, notes)
            named, gathered, unreadable, notes = [], [], [], []
    _check_any(paths, read, broken)
    if named or unreadable or notes:
        nothing = np.empty((0, *image_shape), form.dtype)
        yield ImagesRead(named, cast(Pixels, np.concatenate([nothing, *gathered])), unreadable, notes)


def _are_alike(paths: Sequence[str | Path]) -> bool:
    """Whether two files with images have one name, so that all are shown with their paths."""
    short: list[str] = []
    for path in map(Path, paths):
        with open_files(path) as files:
            short += [source.name for source in _sources(path, files)]
    return len(set(short)) < len(short)


def _form(
    image_shape: tuple[int, int, int],
    pixel_range: int,
    value_range: ValueRange | None,
    prepare: Callable[[Pixels, str], Pixels] | None,
) -> _Form:
    fit = prepare or (lambda pixels, label: conformed(pixels, image_shape, pixel_range, label))
    return _Form(image_shape, pixel_range, value_range, fit)


def _check_any(paths: Sequence[str | Path], read: int, unreadable: list[Unreadable]) -> None:
    """Raise a DataError where no image was read."""
    if not read and not unreadable:
        raise DataError("images to classify are expected, got none; give at least one path")
    if not read:
        raise DataError(told(unreadable, len(unreadable), ", ".join(map(str, paths[:3]))))


def _blocks(paths: Sequence[str | Path], form: _Form) -> Iterator[str | tuple[list[_Name], Pixels | DataError, str]]:
    """The images at paths in the wanted form, a block at a time: their names, pixels or why they cannot be read, and
    the file; and notes.
    """
    for path in map(Path, paths):
        with open_files(path) as files, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files
            sources, some = list(_sources(path, files)), False
            for source in sources:
                for names, found in _images_of(source, form):
                    some = some or isinstance(found, DataError) or bool(len(found))
                    yield names, found, source.label
            yield from files.notes
            if any(source.one_image for source in sources):
                images = [source.name for source in sources]
                yield from [*left_out_note(files, images), *folders.several_pages(files, images)]
            if not some:
                yield [_Name(path.name, str(path))], DataError(_without_images(path, files)), str(path)


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
    if is_prepared(path):
        for part in ("train", "test"):
            yield _Source(part, f"{path}/{part}", partial(prepared_images, path, part))
        return
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

    @property
    def dtype(self) -> type[np.uint8] | type[np.uint16]:
        """Of the pixels."""
        return np.uint8 if self.pixel_range == 255 else np.uint16


def _images_of(source: _Source, form: _Form) -> Iterator[tuple[list[_Name], Pixels | DataError]]:
    """The images of a file in the wanted form, a block at a time, with their names; or why they cannot be read."""
    own, position = _Name(source.name, source.label), 0
    try:
        for place, values in _pieces(source):
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


def _pieces(source: _Source) -> Iterator[Block]:
    """A source's blocks, large ones of plain pixels in several."""
    for place, values in source.blocks():
        if isinstance(values, DataError) or values.ndim < 3 or not is_plain(values) or len(values) <= AT_ONCE:
            yield place, values
            continue
        for start in range(0, len(values), AT_ONCE):
            yield place, values[start : start + AT_ONCE]


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
