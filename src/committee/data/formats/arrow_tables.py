"""Parquet and Arrow files -> their images, encoded or as numbers, and their labels; which columns hold what."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import chain
from typing import Any, overload

import numpy as np
from numpy.typing import NDArray

from committee.data.formats.arrow_files import Opened, decoded, lengths_of, open_table, values_of
from committee.data.formats.csv_columns import LABEL_NAMES, given_column, grid_shape, named_label, row_numbers
from committee.data.formats.files import FAULTS, PARTS, Files, reason
from committee.data.formats.groups import column_note, group_column
from committee.data.limits import limits
from committee.data.read_options import ReadOptions
from committee.errors import DataError, require

_IMAGE_NAMES = ("image", "img", "images", "picture", "photo", "png", "jpg")
_ARRAY_NAMES = (*_IMAGE_NAMES, "pixels", "pixel_values", "data", "x", "array", "features")
GROUPS_KEY = b"committee.groups"
"""Under this key a file that `committee data convert` wrote says in which column its groups stand."""

_SPLIT_NAMES = ("split", "subset", "partition", "set", "usage")
_PANDAS_INDEX = "__index_level_"
_FEW_PIXELS = 4


Images = list[bytes] | NDArray[Any]
ImageReader = Callable[[Opened, list[str], Any], Images]
"""An opened file, the columns of its images, the package pyarrow -> its images, or what shall stand for them."""


@dataclass(frozen=True)
class ImageTable:
    """What matters in a Parquet or Arrow file.

    Attributes:
        images: encoded images; or numbers (image, value), (image, height, width) or (image, height, width, channel).
        places: the file and row of each image, for messages.
        label: the column of labels; None where there is none.
        labels: (image,), or one-hot (image, class); None where there are none.
        class_names: where the file has them.
        columns: the names of all its columns.
        groups: (image,) strings: which images belong together; None where neither the user nor the file says it.
        parts: (image,) "train", "val" or "test", as a column such as ``split`` says; None where there is none.
        notes: remarks for people.
    """

    images: Images
    places: Sequence[str]
    label: str | None
    labels: NDArray[Any] | None
    class_names: tuple[str, ...] | None
    columns: tuple[str, ...]
    groups: NDArray[np.str_] | None = None
    parts: NDArray[np.str_] | None = None
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Places(Sequence[str]):
    """The places of a file's rows, for messages; made when they are asked for."""

    where: str
    rows: int

    def __len__(self) -> int:
        return self.rows

    @overload
    def __getitem__(self, row: int) -> str: ...
    @overload
    def __getitem__(self, row: slice) -> list[str]: ...
    def __getitem__(self, row: int | slice) -> str | list[str]:
        """A row's place, rows counted from 1."""
        if isinstance(row, slice):
            return [self[i] for i in range(*row.indices(self.rows))]
        return f"{self.where} row {range(self.rows)[row] + 1}"


def read_table(
    files: Files,
    name: str,
    options: ReadOptions,
    part: str | None = "train",
    like: str | None = None,
    read: ImageReader | None = None,
) -> ImageTable:
    """Read one Parquet or Arrow file without decoding its images.

    Images are a column of bytes (or of a struct with the field ``bytes``), of lists of numbers of any depth, or else
    all columns of numbers together.

    Args:
        files: where it is.
        name: its name.
        options: the column of labels, where the user says it.
        part: "train", "val" or "test"; None where labels are not asked for.
        like: the column of labels in the file before; None where there was none.
        read: an opened file, the columns of its images and the package pyarrow -> what shall stand for the images; None
            reads all of them.

    Raises:
        DataError: this is no such file, it has no images, several columns may be the labels, or a row has no image or
            no label.
        MissingExtraError: the package pyarrow is not installed.
    """
    where = files.label(name)
    with _opened(files, name) as (opened, arrow):
        together = group_column(options.groups, opened.schema.names)
        apart = None if together is None else str(opened.schema.names[together])
        split, parts = _parts(opened, arrow)
        images_and_labels = _without(_without(opened, apart), split)
        label = like if like in opened.schema.names else None
        if label is None and part is not None and not (part == "test" and like is not None):
            label = _label_column(images_and_labels, options.label, part, where, arrow)
        columns = _image_columns(images_and_labels, label, where, arrow)
        images = (read or images_of)(opened, columns, arrow)
        labels = _labels(opened, label, arrow)
        groups = _groups(opened, apart, where, arrow)
        others = [each for each in opened.schema.names if each not in (*columns, label, split)]
        known = options.groups is not None or groups is not None
        notes = () if known else column_note(others, lambda c: values_of(opened, others[c], arrow))
    class_names = opened.features.get(label or "", {}).get("names")
    class_names = class_names if isinstance(class_names, list) else None
    limits().check("classes", len(class_names or ()), where, "classes", "correct its schema")
    return ImageTable(
        images,
        Places(where, opened.rows),
        label,
        None if label is None else _label_array(labels, from_hub=bool(class_names)),
        tuple(map(str, class_names)) if class_names else None,
        tuple(opened.schema.names),
        groups,
        parts,
        notes,
    )


@contextmanager
def _opened(files: Files, name: str) -> Iterator[tuple[Opened, Any]]:
    """An opened file and the package pyarrow; what goes wrong in the block is said of the file."""
    where = files.label(name)
    require("pyarrow.compute", extra="parquet", purpose="Reading Parquet and Arrow files")
    arrow = require("pyarrow", extra="parquet", purpose="Reading Parquet and Arrow files")
    kind = "a Parquet file" if name.lower().endswith(".parquet") else "an Arrow file"
    try:
        yield open_table(files, name, arrow, parquet=kind == "a Parquet file"), arrow
    except DataError:
        raise
    except (arrow.ArrowException, *FAULTS) as error:
        raise DataError(
            f"{where}: {kind} is expected, got something else ({reason(error)}); copy or download it again"
        ) from error


def images_to_classify(files: Files, name: str) -> Iterator[tuple[str, Images]]:
    """The images of a file, encoded ones and plain pixels some rows at a time, with the place of the first one.

    Raises:
        DataError: as `read_table`.
    """
    with _opened(files, name) as (opened, arrow):
        split, _ = _parts(opened, arrow)
        columns = _image_columns(_without(opened, split), None, opened.where, arrow)
        places, row = Places(opened.where, opened.rows), 0
        batches = batches_of(opened, columns, arrow)
        first = next(batches, [])
        if isinstance(first, list):
            for batch in chain([first], batches):
                if len(batch):
                    yield places[row], batch
                row += len(batch)
        else:
            yield opened.where, images_of(opened, columns, arrow)


def _without(opened: Opened, column: str | None) -> Opened:
    """The same file without a column."""
    if column is None:
        return opened
    return replace(opened, schema=opened.schema.remove(opened.schema.get_field_index(column)))


def _parts(opened: Opened, arrow: Any) -> tuple[str | None, NDArray[np.str_] | None]:
    """The column that says each image's part, and the parts; None where no column holds words for parts alone."""
    for field in opened.schema:
        if field.name.lower() in _SPLIT_NAMES and "string" in str(field.type):  # or a dictionary of strings
            cells = [PARTS.get(str(cell).strip().lower(), "") for cell in values_of(opened, field.name, arrow)]
            if cells and all(cells):
                return str(field.name), np.array(cells)
    return None, None


def _groups(opened: Opened, column: str | None, where: str, arrow: Any) -> NDArray[np.str_] | None:
    """The groups in the column that the user names, or in that of a file which `committee data convert` wrote."""
    name = column or (opened.schema.metadata or {}).get(GROUPS_KEY, b"").decode("utf-8", "replace")
    if name not in opened.schema.names:
        return None
    cells = values_of(opened, name, arrow)
    if None in cells:
        raise DataError(
            f"{where}: every row needs a group, got nothing in row {cells.index(None) + 1}, column {name!r}; fill it "
            "in or remove the row"
        )
    return np.array([str(cell) for cell in cells])


def _plain(kind: Any, arrow: Any) -> Any:
    """The type of a column's cells, without a dictionary or an extension around it."""
    while True:
        if arrow.types.is_dictionary(kind):
            kind = kind.value_type
        elif isinstance(kind, arrow.BaseExtensionType):
            kind = kind.storage_type
        else:
            return kind


def _is_list(kind: Any, arrow: Any) -> bool:
    types = arrow.types
    return bool(types.is_list(kind) or types.is_large_list(kind) or types.is_fixed_size_list(kind))


def _is_number(kind: Any, arrow: Any) -> bool:
    types = arrow.types
    return bool(types.is_integer(kind) or types.is_floating(kind) or types.is_boolean(kind))


def _is_text(kind: Any) -> bool:
    return str(kind) in ("string", "large_string", "string_view")


def _holds_bytes(kind: Any, arrow: Any) -> bool:
    kind = _plain(kind, arrow)
    if arrow.types.is_struct(kind):
        return any(field.name == "bytes" and _holds_bytes(field.type, arrow) for field in kind)
    return str(kind) in ("binary", "large_binary", "binary_view") or bool(arrow.types.is_fixed_size_binary(kind))


def _holds_lists(kind: Any, arrow: Any) -> bool:
    """Whether a column holds lists of numbers, or lists of such lists."""
    kind = _plain(kind, arrow)
    if not _is_list(kind, arrow):
        return False
    while _is_list(kind, arrow):
        kind = _plain(kind.value_type, arrow)
    return _is_number(kind, arrow)


def _image_columns(opened: Opened, label: str | None, where: str, arrow: Any) -> list[str]:
    """The column of encoded images or of lists: by its name, or the only one; or else all columns of numbers."""
    schema = opened.schema
    for fits, known in ((_holds_bytes, _IMAGE_NAMES), (_holds_lists, _ARRAY_NAMES)):
        fitting = [field.name for field in schema if fits(field.type, arrow) and field.name != label]
        named = next((name for name in known if name in fitting), None)
        if named or len(fitting) == 1:
            return [named or fitting[0]]
    lower = [name.lower() for name in schema.names]
    unlabelled = (
        label is None and (odd := named_label(lower, len(lower), None, where)) is not None and schema.names[odd]
    )
    numbering = {schema.names[i] for i in row_numbers(lower)}
    numbering |= {name for name in schema.names if name.startswith(_PANDAS_INDEX)}
    pixels = [
        field.name
        for field in schema
        if _is_number(_plain(field.type, arrow), arrow) and field.name not in {label, unlabelled} | numbering
    ]
    if len(pixels) < _FEW_PIXELS:
        raise DataError(
            f"{where}: a column of encoded images (bytes, or a struct with the field bytes), of lists of pixels, or a "
            f"column for each pixel is expected, got {_listed(schema.names)}; add it"
        )
    return pixels


def _label_column(opened: Opened, given: str | None, part: str, where: str, arrow: Any) -> str | None:
    """The column of labels: as given, by the hub's schema, by its name, or the only other one of integers or strings.

    Raises:
        DataError: there are several, or not the given one.
    """
    names: list[str] = list(opened.schema.names)
    lower = [name.lower() for name in names]
    if given is not None:
        if part == "test" and given.lower() not in lower:
            return None
        return names[given_column(lower, len(names), given, where)]
    hub = [name for name in names if opened.features.get(name, {}).get("_type") == "ClassLabel"]
    if len(hub) == 1:
        return hub[0]
    known = next((names[lower.index(name)] for name in LABEL_NAMES if name in lower), None)
    if known is not None:
        return known
    images = [
        field.name for field in opened.schema if _holds_bytes(field.type, arrow) or _holds_lists(field.type, arrow)
    ]
    text = [field.name for field in opened.schema if _is_text(_plain(field.type, arrow))]
    if not images and not hub:
        odd = named_label(lower, len(names), None, where)
        return text[0] if len(text) == 1 else None if odd is None else names[odd]
    fitting = hub or [
        field.name for field in opened.schema if field.name in text or arrow.types.is_integer(_plain(field.type, arrow))
    ]
    numbering = {names[i] for i in row_numbers(lower)} | {name for name in names if name.startswith(_PANDAS_INDEX)}
    fitting = [name for name in fitting if name not in numbering] or fitting
    speaking = [name for name in fitting if any(word in name.lower() for word in ("label", "class"))] or fitting
    if len(speaking) > 1:
        raise DataError(
            f"{where}: one column of labels is expected, got {_listed(speaking)}; say which it is with --label "
            f"{speaking[0]}"
        )
    return speaking[0] if speaking else None


def _labels(opened: Opened, label: str | None, arrow: Any) -> list[Any]:
    """The labels, read in batches; none without a column of them.

    Raises:
        DataError: a cell is empty.
    """
    labels: list[Any] = []
    row = 0
    for batch in opened.batches([label]) if label else ():
        cells = decoded(batch.column(label), opened, arrow)
        _check_no_holes(cells, label or "", row, opened.where, arrow)
        is_list = _is_list(cells.type, arrow)
        labels += (
            list(_numbers({label or "": cells}, [label or ""], row, opened, arrow)) if is_list else cells.to_pylist()
        )
        row += batch.num_rows
    return labels


def images_of(opened: Opened, columns: list[str], arrow: Any) -> Images:
    """All images."""
    found = list(batches_of(opened, columns, arrow))
    if not found or isinstance(found[0], list):
        return [content for batch in found for content in batch]
    values = np.concatenate(found)
    kind = opened.schema.field(columns[0]).type
    shape = grid_shape([name.lower() for name in columns]) if len(columns) > 1 else getattr(kind, "shape", None)
    return values.reshape(len(values), *shape) if shape else values


def batches_of(opened: Opened, columns: list[str], arrow: Any) -> Iterator[Images]:
    """The images in batches of rows: encoded ones, or numbers (image, ...).

    Raises:
        DataError: a cell is empty, images differ in size, or they unpack to more bytes than the limits allow.
    """
    where = opened.where
    encoded = len(columns) == 1 and _holds_bytes(opened.schema.field(columns[0]).type, arrow)
    total = row = 0
    first: tuple[int, ...] | None = None
    for batch in opened.batches(columns):
        cells = {name: decoded(batch.column(name), opened, arrow) for name in columns}
        for name in cells:
            _check_no_holes(cells[name], name, row, where, arrow)
        if encoded:
            images = cells[columns[0]]
            images = decoded(images.field("bytes"), opened, arrow) if arrow.types.is_struct(images.type) else images
            lengths = lengths_of(images, arrow)
            if len(lengths):
                longest = int(lengths.argmax())
                place = f"{where} row {row + longest + 1}"
                limits().check("encoded", int(lengths[longest]), place, "bytes of an image", "shrink it")
            total += int(lengths.sum())
            limits().check_unpacked(total, opened.packed, where)
            yield images.to_pylist()
        elif batch.num_rows:
            values = _numbers(cells, columns, row, opened, arrow)
            total += values.nbytes
            limits().check_unpacked(total, opened.packed, where)
            first = first or values.shape[1:]
            if values.shape[1:] != first:
                raise _uneven(row, where)
            yield values
        row += batch.num_rows


def _check_no_holes(cells: Any, column: str, before: int, where: str, arrow: Any) -> None:
    """No cell may be empty, nor the bytes in it."""
    inner = cells.field("bytes") if arrow.types.is_struct(cells.type) else cells
    if cells.null_count or inner.null_count:
        empty = next(i for i, (cell, content) in enumerate(zip(cells.is_valid(), inner.is_valid(), strict=True))
                     if not (cell.as_py() and content.as_py()))  # fmt: skip
        raise DataError(
            f"{where}: every row needs an image and a label, got nothing in row {before + empty + 1}, column "
            f"{column!r}; fill it in or remove the row"
        )


def _numbers(cells: Mapping[str, Any], columns: list[str], before: int, opened: Opened, arrow: Any) -> NDArray[Any]:
    """Columns of numbers side by side, (image, column), or one of lists, (image, ...), as deep as they are."""
    if len(columns) > 1:
        return np.column_stack([cells[name].to_numpy(zero_copy_only=False) for name in columns])
    array, sizes, where = cells[columns[0]], [], opened.where
    count = len(array)
    while _is_list(array.type, arrow):
        lengths = np.unique(array.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) != 1:
            raise _uneven(before, where)
        sizes.append(int(lengths[0]))
        array = decoded(array.flatten(), opened, arrow)
        if array.null_count:
            raise DataError(
                f"{where}: every pixel must be a number, got nothing in rows {before + 1} to {before + count}, column "
                f"{columns[0]!r}; fill it in or remove the rows"
            )
    values: NDArray[Any] = array.to_numpy(zero_copy_only=False).reshape(count, *sizes)
    return values


def _uneven(before: int, where: str) -> DataError:
    return DataError(
        f"{where}: lists of one length are expected, one for each pixel, got several in the rows from {before + 1} on; "
        "bring the images to one size"
    )


def _label_array(labels: list[Any], *, from_hub: bool) -> NDArray[Any] | None:
    """Labels as an array; None where they are all -1, which is how the hub hides a test part's."""
    array = np.array(labels)
    if from_hub and len(array) and array.dtype.kind == "i" and (array == -1).all():
        return None
    return array


def _listed(names: list[str]) -> str:
    return ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
