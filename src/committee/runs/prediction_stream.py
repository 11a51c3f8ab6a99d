"""A committee, any number of images -> a Parquet file of predictions, some thousands of images at a time.

The rows are those of `predictions.write`. What can only be said of all images together, such as that more of them are
unlike the training images than chance would give, is gathered meanwhile: eight bytes for each image, and more for those
that may be unlike.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.data.prepare import Original, Preparation
from committee.data.to_classify import ImagesRead
from committee.ensemble.classifier import Answers, Classifier
from committee.errors import require
from committee.metrics.conformal import NotSure
from committee.metrics.familiarity import UNFAMILIAR, doubt_of, measured
from committee.names import json_text, unicode_text
from committee.runs.predictions import Predictions, Said, predictions_of, remarks_of

MOST_LOOKED_AT = 100_000  # images that may be unlike the training images, of which it is said why
LISTED = 3
T = TypeVar("T")


@dataclass
class Gathered:
    """What is gathered of the images so far.

    Attributes:
        images, prepared, empty: how many there are; how many were prepared; how many of these had nothing written.
        empty_names: the first of those.
        familiar: for each piece (image,).
        names, originals, measures: of the first `MOST_LOOKED_AT` images below the highest limit of familiarity.
        places: their positions.
        unreadable: as in `Predictions`.
    """

    images: int = 0
    prepared: int = 0
    empty: int = 0
    empty_names: list[str] = field(default_factory=list)
    familiar: list[NDArray[np.float64]] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    originals: list[Original] = field(default_factory=list)
    measures: list[dict[str, NDArray[np.floating[Any]]]] = field(default_factory=list)
    places: list[int] = field(default_factory=list)
    unreadable: list[tuple[str, str]] = field(default_factory=list)

    def add(self, images: ImagesRead, originals: Sequence[Original], answers: Answers, *, known: bool) -> None:
        """Count the images of a piece."""
        self.prepared += sum(each.prepared for each in originals)
        empty = [name for name, each in zip(images.names, originals, strict=True) if each.is_empty]
        self.empty += len(empty)
        self.empty_names = [*self.empty_names, *empty][:LISTED]
        self.familiar.append(answers.familiar)
        if known:
            low = np.flatnonzero(answers.familiar < UNFAMILIAR[0])[: MOST_LOOKED_AT - len(self.names)]
            if len(low):
                self.names += [images.names[i] for i in low]
                self.originals += [originals[i] for i in low]
                self.measures.append(measured(images.pixels[low], doubt_of(answers.members[:, low])))
                self.places += (self.images + low).tolist()
        self.images += len(images.names)

    def said(self, committee: Classifier) -> Said:
        """What there is to say of all images."""
        known = committee.images.familiarity
        unlike = known.unlike(np.concatenate(self.familiar)) if known and self.familiar else np.empty(0, np.int64)
        chosen = np.flatnonzero(np.isin(self.places, unlike))
        reason = ""
        if known and len(chosen):
            columns = {name: np.concatenate([each[name] for each in self.measures]) for name in self.measures[0]}
            reason = known.reason({name: column[chosen] for name, column in columns.items()})
        return Said(
            images=self.images,
            prepared=self.prepared,
            empty=self.empty,
            empty_names=self.empty_names,
            unlike=len(unlike),
            unlike_names=[self.names[i] for i in chosen[:LISTED]],
            unlike_originals=[self.originals[i] for i in chosen],
            reason=reason,
        )


@dataclass(frozen=True)
class Written:
    """What became of a stream of images: how many were read, which were not, and what there is to say of them."""

    images: int
    unreadable: list[tuple[str, str]]
    remarks: list[str]


def predict_into(
    out: Path,
    committee: Classifier,
    stream: Iterator[ImagesRead],
    preparation: Preparation,
    unsure: NotSure | None,
    *,
    on_images: Callable[[int, int], None] = lambda done, all_of_them: None,
    on_note: Callable[[str], None] = lambda note: None,
) -> Written:
    """Predict a stream of images into a Parquet file, which is there once all of it is.

    Images are read by a thread of their own, while those before are predicted on all cores.

    Args:
        out: the file.
        committee: what answers.
        stream: the images, which `preparation` brought into their form.
        preparation: where it notes what they were like.
        unsure: prediction sets, and when to abstain.
        on_images: called with how many images are predicted, and 0.
        on_note: called with notes about what was read.

    Raises:
        DataError: no image can be read.
        StorageError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    gathered, known = Gathered(), committee.images.familiarity is not None
    with disk.replaced(out) as unfinished:
        with Table(unfinished) as table:
            for images, originals in ahead(_with_originals(stream, preparation)):
                for note in images.notes:
                    on_note(note)
                gathered.unreadable += images.unreadable
                if images.names:
                    answers = committee.answer(images.pixels)
                    gathered.add(images, originals, answers, known=known)
                    table.write(predictions_of(committee, images.names, answers, unsure))
                    on_images(gathered.images, 0)
        if gathered.unreadable:
            _add_unreadable(unfinished, gathered.unreadable)
    return Written(gathered.images, gathered.unreadable, remarks_of(gathered.said(committee), preparation))


def _with_originals(
    stream: Iterator[ImagesRead], preparation: Preparation
) -> Iterator[tuple[ImagesRead, list[Original]]]:
    """Each piece with what its images were like."""
    for images in stream:
        originals = preparation.originals[: len(images.names)]
        del preparation.originals[: len(images.names)]
        yield images, originals


def ahead(values: Iterator[T]) -> Iterator[T]:
    """The values, each made by another thread while the one before is used."""
    with ThreadPoolExecutor(1) as pool:
        end = object()
        waiting = pool.submit(next, values, end)
        while (value := waiting.result()) is not end:
            waiting = pool.submit(next, values, end)
            yield value  # type: ignore[misc]


def write_predictions(predictions: Predictions, out: Path) -> None:
    """Predictions that are at hand as a Parquet file.

    Raises:
        StorageError: the file cannot be written.
        MissingExtraError: pyarrow is not installed.
    """
    with disk.replaced(out) as unfinished:
        with Table(unfinished) as table:
            table.write(predictions)
        if predictions.unreadable:
            _add_unreadable(unfinished, predictions.unreadable)


# --- the file ---------------------------------------------------------------------------------------------------------


class Table:
    """A Parquet file of predictions that grows by row groups; a context manager."""

    def __init__(self, path: Path) -> None:
        self.arrow = require("pyarrow", extra="parquet", purpose="Writing Parquet")
        self.parquet = require("pyarrow.parquet", extra="parquet", purpose="Writing Parquet")
        self.path, self.writer = path, None

    def __enter__(self) -> Table:
        return self

    def __exit__(self, *error: object) -> None:
        if self.writer is not None:
            self.writer.close()

    def write(self, predictions: Predictions) -> None:
        """A row group, or the columns alone for no predictions."""
        table = table_of(predictions, self.arrow)
        self.writer = self.writer or self.parquet.ParquetWriter(self.path, table.schema)
        self.writer.write_table(table)  # type: ignore[attr-defined]


def table_of(predictions: Predictions, arrow: Any) -> Any:
    """Arrow's table: image, prediction, probability, disagreement, familiar, set and abstain where they were asked for,
    then a column for each class. A set is a JSON list; what is not known is null.
    """
    probabilities, names = predictions.probabilities, [unicode_text(name) for name in predictions.class_names]
    rounded = np.array([float(f"{each:.3g}") for each in predictions.familiar.tolist()], np.float64)
    columns = {
        "image": arrow.array([unicode_text(name) for name in predictions.names], arrow.string()),
        "prediction": arrow.array(names, arrow.string()).take(arrow.array(probabilities.argmax(axis=1))),
        "probability": arrow.array(probabilities.max(axis=1)),
        "disagreement": arrow.array(predictions.disagreement, arrow.float64(), from_pandas=True),
        "familiar": arrow.array(rounded, arrow.float64(), from_pandas=True),
    }
    if predictions.sets is not None:
        sets = [unicode_text(json_text(list(predictions.set_of(i) or ()))) for i in range(len(predictions.names))]
        columns["set"] = arrow.array(sets, arrow.string())
    if predictions.abstain is not None:
        columns["abstain"] = arrow.array(predictions.abstain)
    of_classes = {f"p({name})": arrow.array(probabilities[:, i].copy()) for i, name in enumerate(names)}
    return arrow.table(columns | of_classes)


def _add_unreadable(path: Path, unreadable: Sequence[tuple[str, str]]) -> None:
    """Write the file again with a column `error`, and the unreadable images at its end."""
    arrow = require("pyarrow", extra="parquet", purpose="Writing Parquet")
    parquet = require("pyarrow.parquet", extra="parquet", purpose="Writing Parquet")
    again = path.with_name(f"{path.name}2.part")
    try:
        with parquet.ParquetFile(path) as before:
            schema = before.schema_arrow.append(arrow.field("error", arrow.string()))
            with parquet.ParquetWriter(again, schema) as writer:
                for group in range(before.num_row_groups):
                    table = before.read_row_group(group)
                    writer.write_table(table.append_column("error", arrow.nulls(len(table), arrow.string())))
                columns = {name: arrow.nulls(len(unreadable), schema.field(name).type) for name in schema.names}
                columns["image"] = arrow.array([unicode_text(name) for name, _ in unreadable], arrow.string())
                columns["error"] = arrow.array([unicode_text(why) for _, why in unreadable], arrow.string())
                writer.write_table(arrow.table(columns, schema=schema))
        again.replace(path)
    finally:
        disk.discard(again)
