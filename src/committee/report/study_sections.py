"""The sections of a study's page: what each shows, as a frozen dataclass that reads it from the study.

`SECTIONS` is their order; the macros of the same names in study_sections.html lay them out. How to add a section is
written in `committee.report.run_page`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import ClassVar, Self

from committee.config.study import Study
from committee.folders.records import Environment, RunData
from committee.metrics.results import Difference, GridResult, RepeatScore, RowResult, StudyResults, TestOpening
from committee.report import references, study_table
from committee.report.formatting import Fields, fields, shown_command
from committee.report.page import Plot, Section
from committee.report.page_images import ImageUris, Pictures, Sample, TileGallery, samples, tile_gallery
from committee.report.plots import Curve
from committee.report.sentences import data_sentence

IN_SHORT = ("overall", "stopped", "committee", "published")
"""Kinds of findings that stand at the top of the page."""


@dataclass(frozen=True)
class Layer:
    """A layer of a network: its output's shape as text, and its trainable parameters."""

    name: str
    output: str
    parameters: int


@dataclass(frozen=True)
class StudyContent:
    """A study as its page needs it.

    Attributes:
        study: as it was declared; `toml` is the declaration's text.
        layers: of each row's network.
        curves: the learning rates of the rows of single networks.
        pictures: what `pictures.npz` holds.
        plots: the figures inside the page by name.
        uris: the images inside the page.
        contents: the digest of what the folder holds; "" where it is not known.
    """

    results: StudyResults
    study: Study
    toml: str
    data: RunData
    environment: Environment
    command: str
    layers: Mapping[str, tuple[Layer, ...]]
    curves: Mapping[str, Curve]
    pictures: Pictures
    plots: dict[str, Plot] = field(default_factory=dict)
    uris: ImageUris = field(default_factory=lambda: ImageUris((), (), {}))
    contents: str = ""

    @property
    def sealed(self) -> bool:
        """Whether no row has been evaluated on the test images."""
        rows, grid = self.results.rows, self.results.grid
        return not any(row.test for row in rows) and not (grid and grid.cells[0].test)

    @property
    def differences(self) -> list[Difference]:
        """The comparisons of rows."""
        return [row.difference for row in self.results.rows if row.difference]


class StudySection(Section):
    """A section of a study's page."""

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The section of a study; None where there is nothing to show."""
        raise NotImplementedError


@dataclass(frozen=True)
class InShort(StudySection):
    """The findings that matter most."""

    key: ClassVar[str] = "found"
    title: ClassVar[str] = "In short"

    findings: tuple[str, ...]

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The main findings of a study, if it has any."""
        found = tuple(finding.text for finding in study.results.discussion if finding.kind in IN_SHORT)
        return cls(found) if found else None


@dataclass(frozen=True)
class TableRow:
    """A row of the study's table."""

    name: str
    change: str
    is_committee: bool
    cells: tuple[study_table.Cell, ...]


@dataclass(frozen=True)
class Table(StudySection):
    """The study's table; `published_on` is the data of published figures, where that is not this data."""

    key: ClassVar[str] = "table"
    title: ClassVar[str] = "The table"

    headings: tuple[str, ...]
    rows: tuple[TableRow, ...]
    sealed: bool
    published_on: str

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The table of a study that has rows."""
        rows = [TableRow(row.name, row.change, row.members > 1, study_table.cells(row)) for row in study.results.rows]
        return cls(study_table.HEADINGS, tuple(rows), study.sealed, study.results.published_on) if rows else None


@dataclass(frozen=True)
class Curves(StudySection):
    """Learning curves of all rows."""

    key: ClassVar[str] = "curves"
    title: ClassVar[str] = "Learning curves"

    curves: Plot
    learning_rates: Plot | None
    sealed: bool

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The learning curves of a study that has rows."""
        curves = study.plots.get("curves")
        return cls(curves, study.plots.get("rates"), study.sealed) if curves else None


@dataclass(frozen=True)
class Grid(StudySection):
    """The cells of a grid, and the confusion matrix of the one that was chosen."""

    key: ClassVar[str] = "grid"
    title: ClassVar[str] = "The grid"

    grid: GridResult
    confusion: Plot | None
    sealed: bool

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The grid of a study, if it has one."""
        grid = study.results.grid
        return cls(grid, study.plots.get("grid_confusion"), study.sealed) if grid else None


@dataclass(frozen=True)
class RowDetails:
    """A row with its network and its images.

    Attributes:
        score: on test images if they have been opened; None where nothing was trained.
        reductions: when the plateau schedule reduced the learning rate, by the member's number.
    """

    row: RowResult
    score: RepeatScore | None
    layers: tuple[Layer, ...]
    reductions: tuple[tuple[int, str], ...]
    confusion: Plot | None
    galleries: tuple[TileGallery, ...]


@dataclass(frozen=True)
class Details(StudySection):
    """Every row by itself."""

    key: ClassVar[str] = "details"
    title: ClassVar[str] = "Row by row"

    rows: tuple[RowDetails, ...]

    @classmethod
    def of(cls, study: StudyContent) -> Self | None:
        """The rows of a study that has any."""
        rows = tuple(_row_details(row, study) for row in study.results.rows)
        return cls(rows) if rows else None


def _row_details(row: RowResult, study: StudyContent) -> RowDetails:
    by_member: dict[int, list[str]] = {}
    for reduction in row.lr_reductions:
        by_member.setdefault(reduction.member, []).append(f"to {reduction.lr:.3g} after epoch {reduction.epoch}")
    names = study.data.class_names
    return RowDetails(
        row=row,
        score=row.test or row.validation,
        layers=study.layers.get(row.name, ()),
        reductions=tuple((member, ", ".join(texts)) for member, texts in by_member.items()),
        confusion=study.plots.get(f"confusion_{row.name}"),
        galleries=tuple(tile_gallery(gallery, names, study.pictures, study.uris) for gallery in row.galleries),
    )


@dataclass(frozen=True)
class Discussion(StudySection):
    """All findings."""

    key: ClassVar[str] = "discussion"
    title: ClassVar[str] = "Discussion"

    findings: tuple[str, ...]

    @classmethod
    def of(cls, study: StudyContent) -> Self:
        """The findings of a study."""
        return cls(tuple(finding.text for finding in study.results.discussion))


@dataclass(frozen=True)
class StudyData(StudySection):
    """The data set."""

    key: ClassVar[str] = "data"
    title: ClassVar[str] = "The data"

    sentence: str
    notes: tuple[str, ...]
    samples: tuple[Sample, ...]

    @classmethod
    def of(cls, study: StudyContent) -> Self:
        """The data set of a study."""
        return cls(data_sentence(study.data), study.data.notes, samples(study.data, study.uris))


@dataclass(frozen=True)
class StudyRecord(StudySection):
    """How the study was evaluated, and what it takes to reproduce it."""

    key: ClassVar[str] = "record"
    title: ClassVar[str] = "The record"

    protocol: tuple[str, ...]
    command: str
    openings: tuple[TestOpening, ...]
    citation: str
    references: tuple[str, ...]
    seconds: float
    environment: Fields
    digests: Fields
    toml: str

    @classmethod
    def of(cls, study: StudyContent) -> Self:
        """The record of a study."""
        return cls(
            protocol=tuple(protocol(study.results)),
            command=shown_command(study.command),
            openings=study.results.test_openings,
            citation=study.study.citation,
            references=_references(study),
            seconds=study.results.seconds,
            environment=fields(study.environment),
            digests=(
                ("training images", study.data.train_digest),
                ("test images", study.data.test_digest),
                *([("contents of the study's folder", study.contents)] if study.contents else []),
            ),
            toml=study.toml,
        )


def _references(study: StudyContent) -> tuple[str, ...]:
    """The publications behind what the page shows."""
    differences = study.differences
    paired = any(difference.method == "exact McNemar" for difference in differences)
    committees = any(row.members > 1 for row in study.results.rows)
    return (
        references.WILSON,
        *([references.MCNEMAR, references.TANGO] if paired else []),
        *([references.HOLM] if differences else []),
        *([references.LAKSHMINARAYANAN] if committees else []),
    )


def protocol(results: StudyResults) -> list[str]:
    """How the figures came about."""
    sentences = [_openings(results), _choices(results), _pseudo_labels(results), INTERVALS, *_comparisons(results)]
    if any(row.members > 1 and (score := row.test or row.validation) and score.repeats == 1 for row in results.rows):
        sentences.append(
            "Where a committee was trained only once, its variation over seeds is estimated as the standard deviation "
            "of its members divided by the square root of their number."
        )
    return [sentence for sentence in sentences if sentence]


INTERVALS = (
    "An interval over images reflects which images happened to be drawn (Wilson 1927); one over seeds and images also "
    "reflects the variation between trainings."
)


def _comparisons(results: StudyResults) -> list[str]:
    """How rows were compared, as far as any were."""
    methods = {row.difference.method for row in results.rows if row.difference}
    sentences = []
    if "seeds and images" in methods:
        sentences.append("Differences between repeated trainings are tested by Welch's test over seeds and images.")
    if "exact McNemar" in methods:
        sentences.append(
            "Differences between two single trainings are tested by the exact McNemar test (McNemar 1947) and given "
            "with Tango's interval (Tango 1998); both say nothing about other trainings by the same recipes."
        )
    if methods:
        sentences.append("All p-values are adjusted for the number of comparisons (Holm 1979).")
    return sentences


def _openings(results: StudyResults) -> str:
    openings = len(results.test_openings)
    if openings == 0:
        return "The test images have never been opened."
    return (
        f"The test images were opened {'once, after training' if openings == 1 else f'{openings} times (see below)'}."
    )


def _choices(results: StudyResults) -> str:
    if results.protocol == "published":
        return (
            "Published protocol: the test images served as validation images, as in the published work. Whatever was "
            "chosen was chosen on them, so these figures are optimistic."
        )
    return (
        "Honest protocol: schedules and choices saw only validation images, a part of the training images; nothing was "
        "chosen on the test images."
    )


def _pseudo_labels(results: StudyResults) -> str:
    if any(row.transductive for row in results.rows):
        return (
            "Transductive: test images were given pseudo-labels. Rows marked so were trained on them, without their "
            "labels, before they were evaluated on them."
        )
    if any(row.audits for row in results.rows):
        return "Pseudo-labels were given to validation images whose labels were hidden, never to test images."
    return ""


SECTIONS: tuple[type[StudySection], ...] = (
    InShort,
    Table,
    Curves,
    Grid,
    Details,
    Discussion,
    StudyData,
    StudyRecord,
)
"""The sections of the page in order."""
