"""Labels that were corrected after an audit: decisions about images -> a table of labels -> a data set with them.

Both are CSV files that name each training image by its position and by a digest of its pixels, so that no decision
reaches another image than the one that somebody looked at.

    decisions.csv   image,file,given,decision,label,pixels   the images that somebody decided on
    corrected.csv   image,file,label,pixels                  every training image that is kept, with its label
"""

from __future__ import annotations

import csv
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from committee.data.dataset import ImageDataset, LabelledImages, Labels
from committee.data.formats.files import reason
from committee.data.limits import limits
from committee.errors import DataError, counted, nearest
from committee.names import csv_cell, csv_text

DECIDED = ("image", "file", "given", "decision", "label", "pixels")
CORRECTED = ("image", "file", "label", "pixels")
KEEP, CHANGE, DROP = "keep", "change", "drop"


@dataclass(frozen=True)
class CorrectedLabels:
    """Training images that are kept, and their labels.

    Attributes:
        positions: (kept,), ascending, among the data set's training images as they are in its files.
        labels: (kept,).
    """

    positions: Labels
    labels: Labels


def pixel_digests(images: LabelledImages, positions: Labels) -> list[str]:
    """For each of these images a text that tells it from others: an x, lest spreadsheets take it for a number, and the
    first 16 digits of the SHA-256 of shape, type and pixels.
    """
    head = f"{'x'.join(map(str, images.pixels.shape[1:]))}:{images.pixels.dtype.name}\0".encode()
    pixels = images.pixels
    return [
        "x" + hashlib.sha256(head + np.ascontiguousarray(pixels[each]).tobytes()).hexdigest()[:16] for each in positions
    ]


def cells_of_classes(class_names: Sequence[str]) -> list[str]:
    """How CSV files of this package spell the classes."""
    return [str(csv_cell(name)) for name in class_names]


def with_corrected_labels(dataset: ImageDataset, path: Path) -> ImageDataset:
    """The data set with the labels of a table; training images that it does not list are left out.

    The test images are as they were. The notes say how many labels and images it is about.

    Args:
        dataset: as it is in its files.
        path: a CSV file with the columns of `CORRECTED`, such as `committee audit --apply` writes.

    Raises:
        DataError: the file is no such table, it was made for other images, or it names a class that there is not.
    """
    corrected = read_corrected(dataset, path)
    train = dataset.train
    changed = int((train.labels[corrected.positions] != corrected.labels).sum())
    dropped = len(train) - len(corrected.positions)
    if dropped:
        train = train.part(corrected.positions)
    note = f"labels of {counted(changed, 'training image')} changed, {dropped:,} dropped, by {path}"
    return replace(dataset, train=replace(train, labels=corrected.labels), notes=(*dataset.notes, note))


def read_corrected(dataset: ImageDataset, path: Path) -> CorrectedLabels:
    """The images and labels of a table for a data set that is as it is in its files; see `with_corrected_labels`."""
    rows = _rows(path, ("image", "label", "pixels"), "committee audit RUN --apply decisions.csv writes one")
    if not rows:
        raise DataError(f"{path}: the labels of training images are expected, got none; keep some of them")
    positions = _positions(rows, dataset.train, path)
    labels = _classes([row["label"] for row in rows], dataset.class_names, path)
    order = np.argsort(positions, kind="stable")
    return CorrectedLabels(positions[order], labels[order])


def decided(dataset: ImageDataset, path: Path) -> CorrectedLabels:
    """The images that are kept once decisions were made, with their labels; `dataset` is what was audited.

    Args:
        path: a CSV file with the columns of `DECIDED`, such as the page of an audit saves.

    Raises:
        DataError: the file is no such table, it was made for other images or labels, or it names a class or a decision
            that there is not.
    """
    rows = _rows(path, ("image", "given", "decision", "label", "pixels"), "the page of an audit saves one")
    positions = _positions(rows, dataset.train, path)
    labels = dataset.train.labels.copy()
    given = _classes([row["given"] for row in rows], dataset.class_names, path)
    if len(other := np.flatnonzero(labels[positions] != given)):
        first = int(other[0])
        raise DataError(
            f"{path}: image {positions[first]} has the label {dataset.class_names[labels[positions[first]]]} in "
            f"{dataset.name}, not {dataset.class_names[given[first]]} as in this file; audit it again"
        )
    decisions = [row["decision"].strip().lower() for row in rows]
    for number, decision in enumerate(decisions):
        if decision not in (KEEP, CHANGE, DROP):
            raise DataError(
                f"{path}: a decision is {KEEP}, {CHANGE} or {DROP}, got {decision!r} in row {number + 2}; correct it"
            )
    changes = [number for number, decision in enumerate(decisions) if decision == CHANGE]
    labels[positions[changes]] = _classes([rows[number]["label"] for number in changes], dataset.class_names, path)
    drops = positions[[number for number, decision in enumerate(decisions) if decision == DROP]]
    kept = np.setdiff1d(np.arange(len(labels)), drops)
    return CorrectedLabels(kept, labels[kept])


def corrected_text(corrected: CorrectedLabels, dataset: ImageDataset) -> str:
    """The table of these labels; `dataset` is as it is in its files."""
    train, classes = dataset.train, cells_of_classes(dataset.class_names)
    digests = pixel_digests(train, corrected.positions)
    files = [train.names[position] if train.names else "" for position in corrected.positions]
    labels = [classes[label] for label in corrected.labels]
    return csv_text(CORRECTED, zip(map(int, corrected.positions), files, labels, digests, strict=True))


def is_corrected(path: Path) -> bool:
    """Whether a file is a table that `corrected_text` made, by its first line."""
    with path.open("rb") as file:
        return file.readline(100).strip() == ",".join(CORRECTED).encode()


def _rows(path: Path, columns: Sequence[str], hint: str) -> Sequence[Mapping[str, str]]:
    """The rows of a CSV file that has these columns and others."""
    try:
        limits().check("encoded", path.stat().st_size, str(path), "bytes", "give a smaller table")
        text = path.read_bytes().decode("utf-8-sig")
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", strict=True)
        found = [str(name).strip().lower() for name in reader.fieldnames or ()]
        reader.fieldnames = found
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(
            f"{path}: a CSV file with the columns {', '.join(columns)} is expected, and it cannot be read "
            f"({reason(error)}); {hint}"
        ) from error
    if missing := [column for column in columns if column not in found]:
        raise DataError(
            f"{path}: the columns {', '.join(columns)} are expected, got {', '.join(found[:8]) or 'none'} without "
            f"{', '.join(missing)}; {hint}"
        )
    return rows


def _positions(rows: Sequence[Mapping[str, str]], images: LabelledImages, path: Path) -> Labels:
    """The positions of the images that rows name, once these are the images that somebody looked at."""
    cells = [row["image"].strip() for row in rows]
    for number, cell in enumerate(cells):
        if not (cell.isascii() and cell.isdigit()) or len(cell) > 12 or int(cell) >= len(images):
            raise DataError(
                f"{path}: positions of images from 0 to {len(images) - 1} are expected, got {cell!r} in row "
                f"{number + 2}; give the data set that was audited"
            )
    positions = np.asarray(list(map(int, cells)), np.int64)
    unique, counts = np.unique(positions, return_counts=True)
    if (counts > 1).any():
        raise DataError(f"{path}: each image is expected once, got image {unique[counts > 1][0]} twice; remove one row")
    for row, position, digest in zip(rows, positions, pixel_digests(images, positions), strict=True):
        if row["pixels"].strip() != digest:
            raise DataError(
                f"{path}: image {position} is another one here (its pixels are {digest}, not {row['pixels']!r}); give "
                "the data set that was audited, with the same --image-size and --channels"
            )
    return positions


def _classes(names: Sequence[str], class_names: Sequence[str], path: Path) -> Labels:
    """The positions of classes by their names, as they are or as CSV files spell them."""
    known = dict(zip(cells_of_classes(class_names), range(len(class_names)), strict=True))
    known |= dict(zip(class_names, range(len(class_names)), strict=True))
    for name in names:
        if name not in known:
            raise DataError(
                f"{path}: the classes of the data set are expected ({', '.join(class_names[:10])}"
                f"{', ...' * (len(class_names) > 10)}), got {name!r}{nearest(name, list(class_names))}; correct it"
            )
    return np.asarray([known[name] for name in names], np.int64)
