"""The sections of a run's report: what each shows, as a frozen dataclass that reads it from the run.

`SECTIONS` is their order; the macros of the same names in run_sections.html lay them out. How to add a section is
written in `committee.report.run_page`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Self

from committee.metrics.error_analysis import ConfusedPair
from committee.metrics.results import (
    Agreement,
    Calibration,
    ClassRow,
    Distillation,
    Interval,
    Scores,
    TestOpening,
)
from committee.report import references, sentences, student_table, tables
from committee.report.formatting import Fields, Settings, fields, settings, shown_command
from committee.report.page import Plot, Section
from committee.report.page_images import Sample, TileGallery, samples, tile_gallery
from committee.report.run_content import Run, size_curves

FEWEST_CALIBRATED = 100
"""Out-of-fold images from which on limits are told."""

MANY_CLASSES = 20
"""Classes whose figures the page shows at once; those of more are folded away."""


class RunSection(Section):
    """A section of a run's report."""

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The section of a run; None where there is nothing to show."""
        raise NotImplementedError


@dataclass(frozen=True)
class Protocol(RunSection):
    """How the figures came about."""

    key: ClassVar[str] = "protocol"
    title: ClassVar[str] = "How it was evaluated"

    sentences: tuple[str, ...]

    @classmethod
    def of(cls, run: Run) -> Self:
        """How this run was evaluated."""
        return cls(tuple(sentences.protocol(run.results, run.recipe)))


@dataclass(frozen=True)
class SummaryLine:
    """A row of the members' table as text."""

    kind: tables.Kind
    cells: tuple[str, ...]


@dataclass(frozen=True)
class Members(RunSection):
    """Every member's scores and learning curves.

    Attributes:
        gain: what the committee gains over a member; "" where there is nothing to compare.
        all_last: whether every member kept the weights of its last epoch.
        calibrated: whether the committee's probabilities are.
        remark: what the out-of-fold figures rest on.
        endings: why each member stopped, by its number.
        reductions: when the plateau schedule reduced the learning rate, by the member's number.
    """

    key: ClassVar[str] = "members"
    title: ClassVar[str] = "The members"

    gain: str
    headings: tuple[str, ...]
    rows: tuple[SummaryLine, ...]
    all_last: bool
    calibrated: bool
    remark: str
    endings: tuple[tuple[int, str], ...]
    reductions: tuple[tuple[int, str], ...]
    loss: Plot | None
    accuracy: Plot | None
    learning_rate: Plot | None

    @classmethod
    def of(cls, run: Run) -> Self:
        """The members of a run."""
        rows = tables.summary_rows(run.results)
        columns = tables.shown_columns(rows)
        lines = [SummaryLine(row.kind, tuple(tables.cell(row, name) for name, _ in columns)) for row in rows]
        return cls(
            gain=sentences.gain(run.results),
            headings=tuple(heading for _, heading in columns),
            rows=tuple(lines),
            all_last="best_epoch" not in dict(columns),
            calibrated=run.results.calibration is not None,
            remark=run.results.out_of_fold_remark,
            endings=tuple((row.member, row.remark) for row in run.results.members if row.remark),
            reductions=_reductions(run),
            loss=run.plots.get("learning_loss"),
            accuracy=run.plots.get("learning_accuracy"),
            learning_rate=run.plots.get("learning_rate"),
        )


def _reductions(run: Run) -> tuple[tuple[int, str], ...]:
    found = []
    for row, history in zip(run.results.members, run.histories, strict=True):
        reduced = [
            f"to {epoch.lr_reduced_to:.3g} after epoch {epoch.epoch}" for epoch in history if epoch.lr_reduced_to
        ]
        if reduced:
            found.append((row.member, ", ".join(reduced)))
    return tuple(found)


@dataclass(frozen=True)
class Size(RunSection):
    """Whether more members would help.

    Attributes:
        calibrated_beside_not: whether the figure shows losses on test images, of calibrated probabilities, beside
            out-of-fold losses, which are those before calibration.
    """

    key: ClassVar[str] = "size"
    title: ClassVar[str] = "How many members are enough"

    accuracy: Plot
    loss: Plot
    calibrated_beside_not: bool

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The curves by size, where there are at least two sizes."""
        accuracy, loss = run.plots.get("size_accuracy"), run.plots.get("size_loss")
        both = len(size_curves(run.results)) == 2 and run.results.calibration is not None
        return cls(accuracy, loss, both) if accuracy and loss else None


@dataclass(frozen=True)
class Errors(RunSection):
    """Which classes are confused.

    Attributes:
        where: the images that the figures are on, in words.
        balanced: name, value and interval of the figures in which every class counts alike, where classes differ in
            size by more than 2.
        undrawn: which class names figures cannot show; "" where they show all.
    """

    key: ClassVar[str] = "errors"
    title: ClassVar[str] = "Errors by class"

    scores: Scores
    where: str
    balanced: tuple[tuple[str, float, Interval | None], ...]
    undrawn: str
    pairs: tuple[ConfusedPair, ...]
    confusion: Plot | None
    classes: Plot | None

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The errors of a run that has been evaluated."""
        if run.headline is None:
            return None
        part, scores = run.headline
        return cls(
            scores=scores,
            where="test images" if part == "test" else "training images, predicted out of fold",
            balanced=tables.balanced_figures(scores) if scores.is_imbalanced else (),
            undrawn=sentences.undrawn(run.data.class_names),
            pairs=tables.confused_pairs(scores, run.data.class_names),
            confusion=run.plots.get("confusion"),
            classes=run.plots.get("classes"),
        )

    @property
    def first_classes(self) -> tuple[ClassLine, ...]:
        """The classes that are shown at once."""
        return tuple(map(_class_line, self.scores.classes[:MANY_CLASSES]))

    @property
    def more_classes(self) -> tuple[ClassLine, ...]:
        """The classes that are folded away."""
        return tuple(map(_class_line, self.scores.classes[MANY_CLASSES:]))


ClassLine = tuple[ClassRow, Interval | None]
"""A class's figures, and the interval of its recall."""


def _class_line(row: ClassRow) -> ClassLine:
    return row, tables.recall_interval(row)


@dataclass(frozen=True)
class Galleries(RunSection):
    """Images to look at, by the images that they come from; the first group is shown open."""

    key: ClassVar[str] = "galleries"
    title: ClassVar[str] = "Images to look at"

    groups: tuple[tuple[str, tuple[TileGallery, ...]], ...]

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The galleries of a run."""
        found: dict[str, tuple[TileGallery, ...]] = {}
        for gallery in run.results.galleries:
            where = "test images" if gallery.part == "test" else "training images, predicted out of fold"
            before = found.get(where, ())
            shown = tile_gallery(gallery, run.data.class_names, run.pictures, run.uris)
            if shown.tiles and not any(set(shown.tiles) == set(each.tiles) for each in before):
                found[where] = (*before, shown)
        return cls(tuple(found.items())) if found else None


@dataclass(frozen=True)
class Confidence(RunSection):
    """Whether the committee's probabilities mean what they say; out of fold, they are those before calibration."""

    key: ClassVar[str] = "confidence"
    title: ClassVar[str] = "Calibration"

    scores: Scores
    out_of_fold: bool
    reliability: Plot | None
    calibration: Calibration | None

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The calibration of a run that has been evaluated."""
        if run.headline is None:
            return None
        part, scores = run.headline
        return cls(scores, part != "test", run.plots.get("reliability"), run.results.calibration)


@dataclass(frozen=True)
class Unsure(RunSection):
    """What the committee may say instead of one class, and what that costs.

    Attributes:
        images: out-of-fold images that all is calibrated on.
        sets: a row for each coverage: promised, mean size of the sets, coverage seen on test images.
        abstentions: a row for each precision: promised, share answered, precision seen on test images.
        is_tested: whether the test images are open.
    """

    key: ClassVar[str] = "unsure"
    title: ClassVar[str] = "When it should not say one class"

    images: int
    sets: tuple[tuple[str, str, str], ...]
    abstentions: tuple[tuple[str, str, str], ...]
    is_tested: bool
    answered: Plot | None

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The limits of a run with out-of-fold images."""
        if run.calibration is None or len(run.calibration[1]) < FEWEST_CALIBRATED:
            return None
        return cls(
            images=len(run.calibration[1]),
            sets=tuple(tables.set_rows(run.calibration, run.test)),
            abstentions=tuple(tables.abstention_rows(run.calibration, run.test)),
            is_tested=run.test is not None,
            answered=run.plots.get("answered"),
        )


@dataclass(frozen=True)
class Disagreement(RunSection):
    """How often members predict different classes."""

    key: ClassVar[str] = "disagreement"
    title: ClassVar[str] = "Where the members differ"

    agreement: Agreement
    matrix: Plot | None

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The agreement of a run's members, where at least two may predict the same images."""
        agreement = run.results.agreement
        return cls(agreement, run.plots.get("agreement")) if agreement else None


@dataclass(frozen=True)
class Student(RunSection):
    """What a student reaches and costs beside its teacher.

    Attributes:
        where: which images the accuracies are on, as a phrase; "" where there are none.
        headings, rows: of the table, as text.
    """

    key: ClassVar[str] = "student"
    title: ClassVar[str] = "The student and its teacher"

    distillation: Distillation
    where: str
    headings: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @classmethod
    def of(cls, run: Run) -> Self | None:
        """The comparison of a student with its teacher."""
        found = run.results.distillation
        if found is None:
            return None
        return cls(found, student_table.where(found), student_table.HEADINGS, student_table.cells(found))


@dataclass(frozen=True)
class Data(RunSection):
    """The data set.

    Attributes:
        notes: of the data set.
        undrawn: which class names figures cannot show, where no section before says so.
        more: how many classes are left out here.
    """

    key: ClassVar[str] = "data"
    title: ClassVar[str] = "The data"

    sentence: str
    undrawn: str
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]
    more: int

    @classmethod
    def of(cls, run: Run) -> Self:
        """The data set of a run."""
        shown = samples(run.data, run.uris)
        return cls(
            sentence=sentences.data_sentence(run.data),
            undrawn="" if run.headline else sentences.undrawn(run.data.class_names),
            notes=run.data.notes,
            samples=shown,
            more=len(run.data.class_names) - len(shown),
        )


@dataclass(frozen=True)
class RunRecord(RunSection):
    """What it takes to reproduce the run, and what was done with the test images."""

    key: ClassVar[str] = "record"
    title: ClassVar[str] = "The record"

    command: str
    openings: tuple[TestOpening, ...]
    settings: tuple[Settings, ...]
    recipe: str
    citation: str
    references: tuple[str, ...]
    environment: Fields
    digests: Fields

    @classmethod
    def of(cls, run: Run) -> Self:
        """The record of a run."""
        return cls(
            command=shown_command(run.command),
            openings=run.results.test_openings,
            settings=settings(run.recipe),
            recipe=run.recipe.to_toml(),
            citation=run.recipe.citation,
            references=_references(run),
            environment=fields(run.environment),
            digests=(
                ("all images", run.data.digest),
                ("training images", run.data.train_digest),
                ("test images", run.data.test_digest),
                ("recipe", run.recipe.digest()),
                ("seed", str(run.seed)),
                *([("contents of the run's folder", run.contents)] if run.contents else []),
            ),
        )


def _references(run: Run) -> tuple[str, ...]:
    """The publications behind what the page shows."""
    scored = (references.WILSON, references.BRIER, references.GUO) if run.headline else ()
    taught = (references.HINTON, references.BEYER, references.TANGO) if run.results.distillation else ()
    return (*scored, *taught, *([references.LAKSHMINARAYANAN] if len(run.finished) > 1 else []))


SECTIONS: tuple[type[RunSection], ...] = (
    Protocol,
    Student,
    Members,
    Size,
    Errors,
    Galleries,
    Confidence,
    Unsure,
    Disagreement,
    Data,
    RunRecord,
)
"""The sections of the report in order."""
