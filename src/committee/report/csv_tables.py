"""The tables of a run as CSV files (UTF-8, comma, a header line) with full precision.

Accuracies are fractions, losses are in nats; an empty cell is a figure that does not exist. Names that a spreadsheet
would take for formulas have an apostrophe before them; see `committee.names.csv_cell`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from committee import disk
from committee.folders.records import EpochRecord
from committee.metrics.results import Results, Scores
from committee.names import csv_text
from committee.report import tables

PAIRS = 50
"""The most pairs of confused classes that a table lists."""

Cells = Sequence[object]


@dataclass(frozen=True)
class Table:
    """A table: its columns, and rows of as many cells."""

    columns: Sequence[str]
    rows: Iterable[Cells]

    def write(self, path: Path) -> None:
        """The table as a CSV file."""
        disk.write(path, csv_text(self.columns, self.rows).encode())


def write_run_tables(
    results: Results, class_names: Sequence[str], histories: Sequence[Sequence[EpochRecord]], folder: Path
) -> None:
    """Write every table of a run.

    Args:
        results: the run's figures.
        class_names: one name for each class.
        histories: for each of `results.members` its epochs.
        folder: made if it is missing.

    Raises:
        StorageError: it cannot be written to.
    """
    disk.make_folder(folder, within=folder.parent)
    for name, table in run_tables(results, class_names, histories).items():
        table.write(folder / f"{name}.csv")


def run_tables(
    results: Results, class_names: Sequence[str], histories: Sequence[Sequence[EpochRecord]]
) -> dict[str, Table]:
    """Every table of a run, by the name of its file."""
    scores = tables.scores_by_part(results)
    return {
        "members": members(results),
        "classes": classes(scores),
        "balanced": balanced(scores),
        **confusion_matrices(scores, class_names),
        "confused_pairs": confused_pairs(scores, class_names),
        "reliability": reliability(scores),
        "sizes": sizes(results),
        **({"agreement": agreement(results)} if results.agreement else {}),
        "mistakes": galleries(results, class_names),
        "history": history(results, histories),
    }


def members(results: Results) -> Table:
    """The members' table."""
    rows = tables.summary_rows(results)
    return Table(
        ("row", "kind", *tables.FIGURES, "remark"),
        [[row.label, row.kind, *(getattr(row, field) for field in tables.FIGURES), row.remark] for row in rows],
    )


def classes(scores: Mapping[str, Scores]) -> Table:
    """Precision, recall with its interval, and F1 of each class."""
    intervals = {part: [tables.recall_interval(c) for c in each.classes] for part, each in scores.items()}
    return Table(
        ("part", "class", "images", "precision", "recall", "recall_low", "recall_high", "f1"),
        [
            [part, c.name, c.images, c.precision, c.recall, *((at.low, at.high) if at else ("", "")), c.f1]
            for part, each in scores.items()
            for c, at in zip(each.classes, intervals[part], strict=True)
        ],
    )


def balanced(scores: Mapping[str, Scores]) -> Table:
    """The figures in which every class counts alike."""
    return Table(
        ("part", "figure", "value", "low", "high"),
        [
            [part, name, value, *((interval.low, interval.high) if interval else ("", ""))]
            for part, each in scores.items()
            for name, value, interval in tables.balanced_figures(each)
        ],
    )


def confusion_matrices(scores: Mapping[str, Scores], class_names: Sequence[str]) -> dict[str, Table]:
    """The confusion matrices; the first is that of the headline."""
    return {
        name: Table(
            ("true \\ predicted", *class_names),
            [[true, *row] for true, row in zip(class_names, each.confusion, strict=True)],
        )
        for name, each in zip(("confusion", "confusion_out_of_fold"), scores.values(), strict=False)
    }


def confused_pairs(scores: Mapping[str, Scores], class_names: Sequence[str]) -> Table:
    """The most confused pairs of classes."""
    return Table(
        ("part", "true", "predicted", "images", "share_of_true_class"),
        [[part, *pair] for part, each in scores.items() for pair in tables.confused_pairs(each, class_names, PAIRS)],
    )


def reliability(scores: Mapping[str, Scores]) -> Table:
    """The bins of the reliability diagram."""
    return Table(
        ("part", "low", "high", "images", "confidence", "accuracy", "accuracy_low", "accuracy_high"),
        [
            [part, b.low, b.high, b.images, b.confidence, b.accuracy, interval.low, interval.high]
            for part, each in scores.items()
            for b, interval in tables.reliability_rows(each)
        ],
    )


def sizes(results: Results) -> Table:
    """Accuracy and log-loss by the size of the committee."""
    curves = {"test": results.size_curve_test, "out-of-fold": results.size_curve_out_of_fold}
    return Table(
        ("part", "members", "subsets", "accuracy", "accuracy_low", "accuracy_high", "log_loss"),
        [
            [part, p.members, p.subsets, p.accuracy, p.accuracy_low, p.accuracy_high, p.log_loss]
            for part, curve in curves.items()
            for p in curve
        ],
    )


def agreement(results: Results) -> Table:
    """The share of images on which two members agree."""
    labels = tables.agreement_labels(results)
    matrix = results.agreement.matrix if results.agreement else ()
    return Table(("member", *labels), [[label, *row] for label, row in zip(labels, matrix, strict=True)])


def galleries(results: Results, class_names: Sequence[str]) -> Table:
    """The images of all galleries."""
    return Table(
        ("gallery", "part", "position", "true", "predicted", "p_true", "p_predicted", "dissenters", "members"),
        [
            [g.name, g.part, p.position, class_names[p.true], class_names[p.predicted], p.probability_true,
             p.probability_predicted, p.dissenters, p.members]
            for g in results.galleries
            for p in g.pictures
        ],
    )  # fmt: skip


def history(results: Results, histories: Sequence[Sequence[EpochRecord]]) -> Table:
    """Every epoch of every member."""
    fields = tuple(EpochRecord.model_fields)
    return Table(
        ("member", *fields),
        [
            [member.member, *(getattr(epoch, field) for field in fields)]
            for member, epochs in zip(results.members, histories, strict=True)
            for epoch in epochs
        ],
    )
