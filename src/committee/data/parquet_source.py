"""Parquet files of encoded images -> a `Source`: their labels are read at once, their images some rows at a time.

What it says of them is what `read_dataset` would, so that what is prepared is the same data set. It needs images that
are alike, or that `--image-size` and `--channels` make alike: what the others are is not known while the first ones are
written.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import LabelledImages, Names, Pixels
from committee.data.formats import parquet
from committee.data.formats.arrow_files import Opened
from committee.data.formats.arrow_tables import Images, ImageTable, Places, batches_of, read_table
from committee.data.formats.assemble import (
    RawPart,
    check_classes,
    encoded_labels,
    joining_note,
    sealed_positions,
    split_note,
)
from committee.data.formats.files import Files
from committee.data.formats.groups import with_groups
from committee.data.formats.image_set import decode_all
from committee.data.formats.opening import open_files
from committee.data.read_options import ReadOptions
from committee.data.row_source import Part, Source, SourcePart
from committee.errors import DataError

PROBED = 64  # rows of the first file that say what all images are like


@dataclass(frozen=True)
class TablePlaces(Sequence[str]):
    """The places of the rows of several files, one behind the other."""

    tables: tuple[Places, ...]
    ends: tuple[int, ...]

    def __len__(self) -> int:
        return self.ends[-1]

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """A row's place."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(len(self)))]
        table = int(np.searchsorted(self.ends, row, side="right"))
        return self.tables[table][int(row) - (self.ends[table - 1] if table else 0)]


@dataclass(frozen=True)
class TableRows:
    """Rows of Parquet files, read by whatever process has this.

    Attributes:
        path: of the data.
        options: how they are read.
        names: of the files, in their order.
        ends: the rows of each and of those before it.
        shape: height, width, channels of all images.
        dtype: of their pixels.
        notes: what is said of them when they are decoded, where they are alike.
    """

    path: Path
    options: ReadOptions
    names: tuple[str, ...]
    ends: tuple[int, ...]
    shape: tuple[int, int, int]
    dtype: str
    notes: tuple[str, ...]

    def __call__(self, part: Part, rows: NDArray[np.int64]) -> Pixels:
        """Images (image, height, width, channel) of rows, ascending.

        Raises:
            DataError: an image cannot be read, or is not like the others.
        """
        contents: list[bytes] = []
        places: list[str] = []
        with open_files(self.path) as files:
            inside = files.without_top_folder()
            starts = (0, *self.ends[:-1])
            for name, start, end in zip(self.names, starts, self.ends, strict=True):
                chosen = rows[(rows >= start) & (rows < end)] - start
                if len(chosen):
                    read_table(inside, name, self.options, part=None, read=_rows_into(contents, places, chosen))
        found = decode_all(len(contents), contents.__getitem__, places.__getitem__, self.options, places[0])
        pixels, form = found.pixels, f"{'x'.join(map(str, self.shape))}, {self.dtype}"
        unlike = self.options.image_size is None and found.notes != self.notes  # resized from other sizes
        if unlike or pixels.shape[1:] != self.shape or pixels.dtype != self.dtype:
            raise DataError(
                f"{places[0]} to {places[-1].rpartition(' ')[2]}: images of one form are expected, as the first ones "
                f"are ({form}), got others; say which form with --image-size and --channels"
            )
        return pixels


def _rows_into(
    contents: list[bytes], places: list[str], rows: NDArray[np.int64]
) -> Callable[[Opened, list[str], Any], Images]:
    """What collects some rows of a file as it is read."""

    def read(opened: Opened, columns: list[str], arrow: Any) -> Images:
        start, where = 0, Places(opened.where, opened.rows)
        for batch in batches_of(opened, columns, arrow):
            own = rows[(rows >= start) & (rows < start + len(batch))]
            if not isinstance(batch, list):
                return []
            contents.extend(batch[row - start] for row in own.tolist())
            places.extend(where[row] for row in own.tolist())
            start += len(batch)
            if start > rows[-1]:
                break
        return []

    return read


def parquet_source(path: Path, options: ReadOptions) -> Source | None:
    """Parquet files as a source; None where there are others, or these can only be read whole.

    Args:
        path: a folder or a file.
        options: how they are read.

    Raises:
        DataError: as `read_dataset`.
        MissingExtraError: the package pyarrow is not installed.
    """
    if options.skip_unreadable or options.pixel_range is not None or options.shape is not None:
        return None
    with open_files(path) as files:
        inside = files.without_top_folder()
        if inside.packer is not None or not parquet.is_parquet_alone(inside):
            return None
        tables, notes = parquet.labelled_tables(inside, options, read=_none_but_bytes)
        found = [(part, name, table) for part, name, table in tables if len(table.places)]
        if not found or any(table.images != [b""] for _, _, table in found):
            return None
        return _source(path, inside, options, found, (*files.notes, *notes))


def _none_but_bytes(opened: Opened, columns: list[str], arrow: Any) -> Images:
    """A sign of encoded images, of which none is read; of numbers another."""
    first = next(batches_of(opened, columns, arrow), [])
    return [b""] if isinstance(first, list) else []


def _source(
    path: Path, files: Files, options: ReadOptions, found: list[tuple[str, str, ImageTable]], notes: tuple[str, ...]
) -> Source | None:
    tables = [table for _, _, table in found]
    ends = tuple(int(end) for end in np.cumsum([len(table.places) for table in tables]))
    names = tuple(name for _, name, _ in found)
    joined = parquet.joined_tables(found)
    notes = (*notes, *dict.fromkeys(chain.from_iterable(table.notes for table in tables)))
    notes = (*notes, *joining_note(int((joined.parts == "val").sum())))
    sample: list[bytes] = []
    places: list[str] = []
    read_table(files, names[0], options, part=None, read=_rows_into(sample, places, np.arange(min(PROBED, ends[0]))))
    first = decode_all(len(sample), sample.__getitem__, places.__getitem__, options, places[0])
    if options.image_size is None and any("different sizes" in note for note in first.notes):
        return None
    height, width, channels = map(int, first.pixels.shape[1:])
    shape, dtype = (height, width, channels), first.pixels.dtype
    notes = (*notes, *first.notes)
    is_test = joined.parts == "test"
    rows = [np.flatnonzero(~is_test), *([np.flatnonzero(is_test)] if is_test.any() else [])]
    where = files.where if len(tables) > 1 else files.label(names[0])
    raw = [RawPart(np.empty((len(each), 0)), joined.labels[each], where) for each in rows]
    labels, class_names = encoded_labels(raw, joined.class_names)
    nothing = np.empty((0, 1, 1, 1), np.uint8)
    images = [LabelledImages(nothing, each) for each in labels]
    check_classes(images, raw, class_names)
    groups = [None if joined.groups is None else joined.groups[each] for each in rows]
    texts = TablePlaces(tuple(Places(files.label(name), len(table.places)) for _, name, table in found), ends)
    images, group_notes = with_groups(images, [texts] * len(rows), groups, options.groups)
    later = list(group_notes)
    if len(rows) == 1:
        kept, chosen = sealed_positions(images[0].labels, images[0].groups, where)
        rows = [rows[0][kept], rows[0][chosen]]
        images = [images[0].with_pixels(nothing, each) for each in (kept, chosen)]
        later.append(split_note(len(chosen)))
    train, test = (
        SourcePart(image.labels, Names(texts, each), image.groups, each)
        for image, each in zip(images, rows, strict=True)
    )
    stamp = [[name, files.size(name)] for name in names]
    times = [_changed(path, files, name) for name in names]
    return Source(
        name=_name(path),
        source=str(path),
        class_names=class_names,
        notes=notes,
        warnings=(),
        value_range=None,
        shape=shape,
        dtype=dtype,
        train=train,
        test=test,
        read=TableRows(path, options, names, ends, shape, dtype.name, first.notes),
        stamp=json.dumps([stamp, times, options.model_dump(mode="json")]),
        notes_after=tuple(later),
    )


def _changed(path: Path, files: Files, name: str) -> int:
    """When a file was changed, in nanoseconds."""
    file = path if path.is_file() else path / (files.prefix + name)
    return file.stat().st_mtime_ns


def _name(path: Path) -> str:
    whole = path.resolve().name
    return whole.removesuffix(".parquet") if path.is_dir() else whole.rpartition(".")[0] or whole
