"""A committee's predictions for new images, as a table, JSON or CSV; as Parquet, see `prediction_stream`."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.config.record import Record
from committee.data.dataset import Pixels
from committee.data.prepare import Original, Preparation
from committee.ensemble.classifier import Answers, Classifier
from committee.errors import CommitteeError, counted
from committee.metrics.conformal import NotSure
from committee.metrics.familiarity import UNFAMILIAR, doubt_of, measured
from committee.metrics.formatting import percent
from committee.names import csv_cell, csv_text, json_text, visible
from committee.terminal import console, plain, show

FILE_FORMS = ("csv", "json", "parquet")


class UnreadableRecord(Record):
    """An image that could not be read, as JSON gives it."""

    image: str
    error: str


class PredictionRecord(Record):
    """The prediction for one image, as JSON gives it."""

    image: str
    prediction: str
    probability: float
    disagreement: float | None
    familiar: float | None = None
    set: tuple[str, ...] | None = None
    abstain: bool | None = None
    probabilities: dict[str, float]


@dataclass(frozen=True)
class Predictions:
    """Predictions for images.

    Attributes:
        names: one for each image, such as ``"digit.png"`` or ``"array.npy[3]"``.
        probabilities: (image, class), the committee's.
        disagreement: (image,), the fraction of members whose own first choice differs from the committee's; NaN where
            there is a single member.
        familiar: (image,), the share of the training images that are at least as unusual among them, predicted out of
            fold; NaN where the run does not know its training images. See `committee.metrics.familiarity`.
        unlike: positions of the images that are unlike the training images.
        reason: why most of these are.
        sets: (image, class), whether the class belongs to the image's prediction set; None where none was asked for.
        abstain: (image,), whether there should be no answer; None where that was not asked for.
        unreadable: the name of each image that could not be read, and why; they come last in files.
    """

    names: Sequence[str]
    class_names: Sequence[str]
    probabilities: NDArray[np.float64]
    disagreement: NDArray[np.float64]
    familiar: NDArray[np.float64]
    unlike: NDArray[np.int64]
    reason: str = ""
    unreadable: Sequence[tuple[str, str]] = ()
    sets: NDArray[np.bool_] | None = None
    abstain: NDArray[np.bool_] | None = None

    def set_of(self, position: int) -> tuple[str, ...] | None:
        """The prediction set of an image, the most probable class first."""
        if self.sets is None:
            return None
        order = np.argsort(-self.probabilities[position], kind="stable")
        return tuple(self.class_names[c] for c in order if self.sets[position, c])

    def records(self) -> list[PredictionRecord]:
        """One record for each image."""
        return [
            PredictionRecord(
                image=name,
                prediction=self.class_names[int(row.argmax())],
                probability=float(row.max()),
                disagreement=None if np.isnan(disagreement) else float(disagreement),
                familiar=None if np.isnan(familiar) else float(f"{familiar:.3g}"),
                set=self.set_of(position),
                abstain=None if self.abstain is None else bool(self.abstain[position]),
                probabilities={c: float(p) for c, p in zip(self.class_names, row, strict=True)},
            )
            for position, (name, row, disagreement, familiar) in enumerate(
                zip(self.names, self.probabilities, self.disagreement, self.familiar, strict=True)
            )
        ]


def predict(committee: Classifier, names: Sequence[str], pixels: Pixels, unsure: NotSure | None = None) -> Predictions:
    """Predict images (image, height, width, channel), with the sets and the threshold to abstain of `unsure`."""
    return of_answers(committee, names, pixels, committee.answer(pixels), unsure)


def of_answers(
    committee: Classifier, names: Sequence[str], pixels: Pixels, answers: Answers, unsure: NotSure | None = None
) -> Predictions:
    """A committee's answers about images (image, height, width, channel) as predictions."""
    predictions, known = predictions_of(committee, names, answers, unsure), committee.images.familiarity
    if known is None:
        return predictions
    found = known.unlike(answers.familiar)
    reason = known.reason(measured(pixels[found], doubt_of(answers.members[:, found]))) if len(found) else ""
    return replace(predictions, unlike=found, reason=reason)


def predictions_of(
    committee: Classifier, names: Sequence[str], answers: Answers, unsure: NotSure | None
) -> Predictions:
    """Answers as predictions, of which it is not said yet whether images are unlike."""
    sets, abstention = (unsure.sets, unsure.abstention) if unsure else (None, None)
    return Predictions(
        names,
        committee.class_names,
        answers.probabilities,
        disagreement_of(answers),
        answers.familiar,
        np.empty(0, np.int64),
        sets=sets.sets(answers.probabilities) if sets else None,
        abstain=abstention.abstains(answers.probabilities) if abstention else None,
    )


def disagreement_of(answers: Answers) -> NDArray[np.float64]:
    """(image,): the fraction of members whose choice differs from the committee's; NaN where there is a single one."""
    if len(answers.members) == 1:
        return np.full(len(answers.probabilities), np.nan)
    differs = answers.members.argmax(axis=2) != answers.probabilities.argmax(axis=1)
    return np.asarray(differs.mean(axis=0))


@dataclass(frozen=True)
class Said:
    """What there is to say of images that were predicted.

    Attributes:
        images, prepared, empty, unlike: how many there are; were prepared; showed no writing then; are unlike the
            training images.
        empty_names, unlike_names: the first of those.
        unlike_originals: what images unlike the training images were like, all of them or many.
        reason: why most of these are.
    """

    images: int
    prepared: int
    empty: int
    empty_names: Sequence[str]
    unlike: int
    unlike_names: Sequence[str]
    unlike_originals: Sequence[Original]
    reason: str


def remarks(predictions: Predictions, preparation: Preparation) -> list[str]:
    """What must be said about images and their predictions: sentences.

    Args:
        predictions: of all images that were read.
        preparation: what read them.
    """
    originals = preparation.originals
    empty = [name for name, each in zip(predictions.names, originals, strict=True) if each.is_empty]
    said = Said(
        images=len(originals),
        prepared=sum(each.prepared for each in originals),
        empty=len(empty),
        empty_names=empty[:3],
        unlike=len(predictions.unlike),
        unlike_names=[predictions.names[i] for i in predictions.unlike[:3]],
        unlike_originals=[originals[i] for i in predictions.unlike],
        reason=predictions.reason,
    )
    return remarks_of(said, preparation)


def remarks_of(said: Said, preparation: Preparation) -> list[str]:
    """What must be said about images, as sentences."""
    images, notes = counted(said.images, "image"), []
    if said.prepared:
        how = "" if preparation.how == "digits" else "; --prepare as-is takes them as they are"
        notes.append(
            f"{said.prepared:,} of {images} {'was' if said.prepared == 1 else 'were'} prepared: what is written there "
            f"got the size, place and brightness of the training images{how}"
        )
    if said.empty:
        notes.append(f"no writing was found in {_listed(said.empty_names, said.empty)}")
    writing = preparation.how == "as-is" and preparation.writing is not None
    remedy = ", and leave out --prepare as-is, which takes writing as it is" if writing else ""
    if said.unlike:
        sizes = Counter((each.height, each.width) for each in said.unlike_originals if not each.prepared)
        ((height, width), _), *_ = sizes.most_common(1) or [((0, 0), 0)]
        theirs = preparation.image_shape
        large = max(height, width) > 2.5 * max(theirs[:2])
        size = f", {height}x{width} pixels where those had {theirs[0]}x{theirs[1]}" if large else ""
        notes.append(
            f"{said.unlike:,} of {images} {'looks' if said.unlike == 1 else 'look'} unlike the training images: "
            f"{'mostly ' if said.unlike > 1 else ''}{said.reason}{size} "
            f"({_listed(said.unlike_names, said.unlike)}); do not rely on answers less than "
            f"1\u00a0% familiar{remedy}"
        )
    return notes


def _listed(names: Sequence[str], count: int) -> str:
    """The first names of so many."""
    return ", ".join(names[:3]) + (f" and {count - 3:,} more" if count > 3 else "")


def form_of(form: str | None, out: Path | None) -> str:
    """The format that is meant: the given one, else that of the file's ending, else a table on the terminal.

    Raises:
        CommitteeError: a format that cannot go there, or a file whose ending says no format.
    """
    if out is None:
        if form == "parquet":
            raise CommitteeError("Parquet needs a file, not the terminal; give one with --out answers.parquet")
        return form or "table"
    found = form or out.suffix.lower().removeprefix(".")
    if found not in FILE_FORMS:
        raise CommitteeError(
            f"a file of predictions is {', '.join(FILE_FORMS[:-1])} or {FILE_FORMS[-1]}, got {found or 'no ending'!r}; "
            f"give --format csv, or --out {shlex.quote(f'{out.stem}.csv')}"
        )
    return found


def write(predictions: Predictions, form: str, out: Path | None) -> None:
    """Write predictions to a file, or to standard output, in the format that `form_of` gave, but not as Parquet.

    Raises:
        CommitteeError: the file cannot be written.
    """
    with disk.failures_said(out or "standard output"):
        if form == "table":
            _print_table(predictions)
        else:
            text = {"csv": _csv, "json": _json}[form](predictions)
            if out is None:
                show(text)
            else:
                disk.write(out, text.encode())


def _print_table(predictions: Predictions) -> None:
    from rich.table import Table

    names, class_names = list(map(visible, predictions.names)), list(map(visible, predictions.class_names))
    out = console()
    if not out.is_terminal:  # a file or another program has room for everything
        out = console(width=max(200, 3 * max(map(len, names), default=0)))
    longest = max(map(len, class_names))
    second_too = out.width >= 60 + max(10, longest) + max(6, longest)  # 60: the other columns and the frame
    table = Table()
    table.add_column("image", overflow="fold", min_width=8)  # gives way, and then the second choice, never `familiar`
    asked = (
        *(["set"] if predictions.sets is not None else []),
        *(["abstain"] if predictions.abstain is not None else []),
    )
    headings = ("prediction", "prob.", *(("second", "prob.") if second_too else ()), "disagree", "familiar", *asked)
    for heading in headings:
        words = heading in ("prediction", "second", "set", "abstain")
        table.add_column(heading, justify="left" if words else "right", no_wrap=heading != "set")
    for position, (name, row, disagreement, familiar) in enumerate(
        zip(names, predictions.probabilities, predictions.disagreement, predictions.familiar, strict=True)
    ):
        chosen = np.argsort(-row, kind="stable")[: 2 if second_too else 1]
        cells = [text for c in chosen for text in (class_names[c], percent(float(row[c])))]
        shares = ["" if np.isnan(share) else f"{100 * share:.0f}\u00a0%" for share in (disagreement, familiar)]
        style = "red" if familiar < UNFAMILIAR[0] else ""
        if (members := predictions.set_of(position)) is not None:
            shares.append(", ".join(map(visible, members)))
        if predictions.abstain is not None:
            shares.append("no answer" if predictions.abstain[position] else "")
        table.add_row(*map(plain, [name, *cells, *shares]), style=style)
    out.print(table)


def _flat(predictions: Predictions) -> dict[str, list[Any]]:
    """Columns: image, prediction, probability, disagreement, familiar, set and abstain where they were asked for, then
    one a class; "error" where images are unreadable. A set is a JSON list.
    """
    records = predictions.records()
    columns: dict[str, list[Any]] = {
        name: [getattr(record, name) for record in records]
        for name in ("image", "prediction", "probability", "disagreement", "familiar")
    }
    if predictions.sets is not None:
        columns["set"] = [json_text(list(record.set or ())) for record in records]
    if predictions.abstain is not None:
        columns["abstain"] = [record.abstain for record in records]
    columns |= {
        f"p({name})": [float(p) for p in predictions.probabilities[:, position]]
        for position, name in enumerate(predictions.class_names)
    }
    if not predictions.unreadable:
        return columns
    missing = len(predictions.unreadable)
    columns = {
        name: [*cells, *[None] * missing] for name, cells in (columns | {"error": [None] * len(records)}).items()
    }
    columns["image"][len(records) :] = [name for name, _ in predictions.unreadable]
    columns["error"][len(records) :] = [sentence for _, sentence in predictions.unreadable]
    return columns


def _csv(predictions: Predictions) -> str:
    columns = _flat(predictions)
    # a class has one name in the file: its column holds the name as it stands in cells
    names = {f"p({name})": f"p({csv_cell(name)})" for name in predictions.class_names}
    return csv_text(
        list(columns),
        zip(*columns.values(), strict=True),
        lambda name: names.get(name) or csv_cell(name),
    )


def _json(predictions: Predictions) -> str:
    broken = [UnreadableRecord(image=name, error=sentence) for name, sentence in predictions.unreadable]
    unasked = {name for name, value in (("set", predictions.sets), ("abstain", predictions.abstain)) if value is None}
    records = [record.model_dump(exclude=unasked) for record in (*predictions.records(), *broken)]
    return json_text(records, indent=1) + "\n"
