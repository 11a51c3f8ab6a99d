"""Image files whose labels stand in a table beside them: `file_name,label`, `id,breed`, lines of a path and a label."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from committee.data.formats.assemble import RawSet
from committee.data.formats.csv_columns import LABEL_NAMES, given_column, is_number
from committee.data.formats.csv_numbers import decoded
from committee.data.formats.files import PARTS, Files
from committee.data.formats.folders import Placed, read_placed
from committee.data.formats.groups import column_note, group_column, names_a_file
from committee.data.formats.kinds import image_names, names_an_image
from committee.data.read_options import ReadOptions
from committee.errors import DataError, counted

ENDINGS = (".csv", ".tsv", ".jsonl", ".txt")
_MORE_LABEL_NAMES = ("class_name", "label_name", "category", "breed", "species", "diagnosis", "dx")
_NUMBERING = ("", "index", "unnamed: 0")
_PEEK = 2**16
_MOST_COLUMNS = 100
_MOST_TABLES = 100


@dataclass(frozen=True)
class Listing:
    """A table that names image files.

    Attributes:
        name: the table's file.
        names: of its columns, in lower case; None where it has no header.
        rows: its cells.
        images: the column that names the images.
        part: "train", "val" or "test", as the table's name or folder says; None where they say nothing.
    """

    name: str
    names: tuple[str, ...] | None
    rows: list[list[str]]
    images: int
    part: str | None


def listing_names(files: Files) -> list[str]:
    """The tables that name image files; none where the images lie in class folders, since tables there repeat these."""
    images = image_names(files)
    if not images or _in_class_folders(images):
        return []
    index = _Index.of(images)
    tables = _tables(files, images)
    return [name for name in tables if _listing(files, name, index, peek=True)] if len(tables) <= _MOST_TABLES else []


def read_listing_set(files: Files, options: ReadOptions) -> RawSet:
    """The data set of the images that tables list, each with its label.

    A row names its image by a path from the table's folder or from the top, by the file's name, or by that without its
    ending. A table, or a folder of images, called train, val or test is that part; so is a row whose column `split`
    says so. Tables without labels and rows or images without the other are left out, with notes.

    Args:
        files: a folder or zip, named from within its top folder.
        options: the column of labels, where the user says it, and how images are read.

    Raises:
        DataError: no table has one column that must be the labels, over half of the listed images are missing, an
            image is listed with two labels or in two parts, or any fault of `read_placed`.
    """
    images = image_names(files)
    index = _Index.of(images)
    tables = [name for name in _tables(files, images) if not _is_file(files.label(name), options.groups)]
    listings = [each for name in tables if (each := _listing(files, name, index))]
    notes: list[str] = []
    faults: list[DataError] = []
    found: dict[str, Placed] = {}
    rows = missing = 0
    example = ""
    for listing in listings:
        try:
            labels = _labels(files, listing, options)
        except DataError as error:
            faults.append(error)
            continue
        if labels is None:
            notes.append(f"{listing.name} has no labels, so it was left out")
            continue
        together = group_column(options.groups, listing.names or ())
        if options.groups is None:
            columns = list(zip(*listing.rows, strict=True))
            notes += column_note(listing.names or (), columns.__getitem__)
        for row, label, part in zip(listing.rows, labels, _parts(listing), strict=True):
            image = index.find(row[listing.images], listing)
            if label:
                rows += 1
                missing += image is None
                example = example or ("" if image else f"{row[listing.images]} in {listing.name}")
                if image:
                    group = "" if together is None else row[together].strip()
                    _place(found, Placed(image, part or "", label, group), files, listing)
    if not rows:
        raise (
            faults[0]
            if faults
            else DataError(
                f"{files.where}: a table of image files and their labels is expected, got no labels; add a column"
            )
        )
    if missing * 2 > rows:
        raise DataError(
            f"{files.where}: {missing:,} of {counted(rows, 'listed image')} are not there, such as {example}; add the "
            "images, or correct their names in the table"
        )
    if missing:
        are = "is" if missing == 1 else "are"
        notes.append(f"{missing:,} of {counted(rows, 'listed image')} {are} not there, such as {example}")
    if len(images) > len(found):
        were = "was" if len(images) - len(found) == 1 else "were"
        notes.append(f"{counted(len(images) - len(found), 'image')} without a label in a table {were} left out")
    placed = [
        each._replace(part=each.part or _part_of(each.name.split("/")[:-1]) or "train")
        for _, each in sorted(found.items())
    ]
    return read_placed(files, placed, options, notes)


def _is_file(path: str, given: str | None) -> bool:
    """Whether a path is the file that the user gives."""
    return given is not None and names_a_file(given) and Path(path).resolve() == Path(given).resolve()


def _place(found: dict[str, Placed], new: Placed, files: Files, listing: Listing) -> None:
    """Add an image to those that were found: a part that is said precedes one that is not."""
    known = found.get(new.name, new)
    if known.class_name != new.class_name:
        raise DataError(
            f"{files.label(listing.name)}: one label for each image is expected, got {known.class_name} and "
            f"{new.class_name} for {new.name}; keep one of them"
        )
    if known.part and new.part and known.part != new.part:
        raise DataError(
            f"{files.label(listing.name)}: each image belongs to one part, got {new.name} in {known.part} and "
            f"{new.part}; remove it from one of them"
        )
    found[new.name] = known if known.part else new


@dataclass(frozen=True)
class _Index:
    """Image files by what a table may call them."""

    names: frozenset[str]
    by_base: Mapping[str, list[str]]

    @staticmethod
    def of(images: Sequence[str]) -> _Index:
        by_base: dict[str, list[str]] = {}
        for name in images:
            base = name.rpartition("/")[2]
            for key in (base, base.rpartition(".")[0]):
                by_base.setdefault(key, []).append(name)
        return _Index(frozenset(images), by_base)

    def find(self, cell: str, listing: Listing) -> str | None:
        """The one image file that a cell of a table means; None where there is none, or several remain."""
        value = cell.strip().replace("\\", "/").removeprefix("./")
        folder = listing.name.rpartition("/")[0]
        for name in (f"{folder}/{value}" if folder else value, value):
            if name in self.names:
                return name
        base = value.rpartition("/")[2]
        known = self.by_base.get(base) or self.by_base.get(base.rpartition(".")[0], [])
        if len(known) > 1:
            known = [each for each in known if f"/{each}".startswith(f"/{folder}/")] or known
        if len(known) > 1:
            known = [each for each in known if f"/{value}" in f"/{each}"] or known
        if len(known) > 1:
            known = [each for each in known if _part_of(each.split("/")[:-1]) == listing.part]
        return known[0] if len(known) == 1 else None


def _part_of(words: Sequence[str]) -> str | None:
    return next((PARTS[word.lower()] for word in words if word.lower() in PARTS), None)


def _in_class_folders(images: Sequence[str]) -> bool:
    """Whether every image lies in one of at least two folders below those of the parts; test images may lie outside."""
    classes = set()
    for name in images:
        folders = name.split("/")[:-1]
        inner = [folder for folder in folders if folder.lower() not in PARTS]
        if inner:
            classes.add(inner[0])
        elif _part_of(folders) != "test":
            return False
    return len(classes) > 1


def _tables(files: Files, images: Sequence[str]) -> list[str]:
    """The files that may be tables of images: no submissions, and no text of an image's own name."""
    stems = {image.rpartition("/")[2].rpartition(".")[0] for image in images}
    bases = [(name, name.rpartition("/")[2].lower()) for name in files.names if name.lower().endswith(ENDINGS)]
    return [
        name
        for name, base in bases
        if "submission" not in base and not (base.endswith(".txt") and name.rpartition("/")[2][:-4] in stems)
    ]


def _listing(files: Files, name: str, index: _Index, *, peek: bool = False) -> Listing | None:
    """A table, or with `peek` its beginning; None where none of its columns names image files."""
    if peek:
        with files.open(name) as file:
            content = file.read(_PEEK)
            content = content if len(content) < _PEEK else content[: content.rfind(b"\n") + 1]
    else:
        content = files.read(name, "encoded")
    try:
        text = decoded(content.removeprefix(b"\xef\xbb\xbf"), files.label(name))
        names, rows = _json_rows(text) if name.lower().endswith(".jsonl") else (None, _cells(text, name))
    except (DataError, ValueError, RecursionError, csv.Error):
        return None  # no text, or no table
    *folders, base = name.split("/")
    part = _part_of([*re.split("[^a-z0-9]+", base.lower()), *reversed(folders)])
    width = max(map(len, rows), default=0)
    if not 1 <= width <= _MOST_COLUMNS:
        return None
    rows = [row + [""] * (width - len(row)) for row in rows]
    listing = Listing(name, names, rows, 0, part)
    sample = rows[:1000]
    for column in range(width):
        cells = [row[column] for row in sample]
        if not _names_images(cells, index, listing):
            continue
        first = rows[0][column]
        if names is None and not index.find(first, listing) and not names_an_image(first):
            names, rows = tuple(cell.strip().lower() for cell in rows[0]), rows[1:]
        return Listing(name, names, rows, column, part)
    return None


def _names_images(cells: Sequence[str], index: _Index, listing: Listing) -> bool:
    """Whether cells name image files; without an ending, they must all differ, or numbers of classes would do so."""
    hits = [cell for cell in cells if index.find(cell, listing)]
    if any(names_an_image(cell.strip()) for cell in hits):
        return True
    return len(hits) * 20 >= len(cells) > 0 and len(set(cells)) * 10 >= len(cells) * 9


def _json_rows(text: str) -> tuple[tuple[str, ...], list[list[str]]]:
    """The objects of a JSONL file as rows; its columns are the names of the first."""
    objects = [json.loads(line) for line in text.splitlines() if line.strip()]
    if not objects or not all(isinstance(each, dict) for each in objects):
        raise ValueError("an object in each line is expected")
    names = list(objects[0])
    rows = [["" if each.get(name) is None else str(each[name]) for name in names] for each in objects]
    return tuple(name.lower() for name in names), rows


def _cells(text: str, name: str) -> list[list[str]]:
    """The cells of a table of text; without commas, semicolons and tabs, white space separates them."""
    first = text.partition("\n")[0]
    delimiter = max(",;\t", key=first.count)
    if delimiter in first:
        return [row for row in csv.reader(io.StringIO(text, newline=""), delimiter=delimiter) if row]
    lines = [line for line in text.splitlines() if line.strip() and not line.startswith("#")]
    if not name.lower().endswith(".txt"):
        return [[line] for line in lines]
    if lines and names_an_image(lines[0].rsplit(None, 1)[0]):  # paths may have spaces
        return [line.rsplit(None, 1) for line in lines]
    return [line.split() for line in lines]


def _parts(listing: Listing) -> Iterator[str | None]:
    """The part of each row: as a column of parts says, or else the table."""
    names = listing.names or ()
    column = next((names.index(name) for name in ("split", "subset", "partition", "set") if name in names), None)
    for row in listing.rows:
        own = PARTS.get(row[column].strip().lower()) if column is not None else None
        yield own or listing.part


def _labels(files: Files, listing: Listing, options: ReadOptions) -> list[str] | None:
    """The label of each row, "" where there is none; None where the table has no column of labels.

    Raises:
        DataError: several columns may be the labels; they are named.
    """
    where = files.label(listing.name)
    names = listing.names or ()
    width = len(listing.rows[0]) if listing.rows else 0
    apart = (listing.images, group_column(options.groups, names))
    others = [c for c in range(width) if c not in apart and not (names and names[c] in _NUMBERING)]
    others = [c for c in others if not (names and names[c] in ("split", "subset", "partition", "set"))]
    if options.label is not None:
        if listing.part == "test" and names and options.label.lower() not in names and not is_number(options.label):
            return None
        column = given_column(names, width, options.label, where)
    else:
        boxes = {"x", "y"} <= set(names)  # a box's place, no label
        known = [name for name in (*LABEL_NAMES, *_MORE_LABEL_NAMES) if name in names and not (boxes and name == "y")]
        chosen = [names.index(known[0])] if known else others
        if not chosen:
            return None
        if len(chosen) > 1:
            if (one_hot := _one_hot(listing, chosen)) is not None:
                return one_hot
            listed = ", ".join(names[c] if names else str(c) for c in chosen[:8]) + (", ..." if len(chosen) > 8 else "")
            raise DataError(
                f"{where}: a column called {', '.join(LABEL_NAMES[:3])} is expected, got {listed}; say which is the "
                f"label with --label {names[chosen[0]] if names else chosen[0]}"
            )
        column = chosen[0]
    return [row[column].strip() for row in listing.rows]


def _one_hot(listing: Listing, columns: Sequence[int]) -> list[str] | None:
    """The names of the columns that hold each row's single 1; None where rows are not like that."""
    if listing.names is None:
        return None
    labels = []
    for row in listing.rows:
        cells = [row[c].strip() for c in columns]
        if not all(map(is_number, cells)) or sorted(map(float, cells)) != [0.0] * (len(cells) - 1) + [1.0]:
            return None
        labels.append(listing.names[columns[[float(cell) for cell in cells].index(1.0)]])
    return labels
