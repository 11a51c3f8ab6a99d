"""The tables of a run: as CSV files with full precision, and the members' table as rows for people.

CSV files hold accuracies as fractions and losses in nats; an empty cell is a figure that does not exist.
"""

from __future__ import annotations

import csv
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from committee.metrics.error_analysis import ConfusedPair, most_confused_pairs
from committee.metrics.formatting import NOTHING, percent
from committee.metrics.intervals import mean_and_spread, wilson
from committee.metrics.results import Interval, MemberResult, Picture, ReliabilityBin, Results, Scores

History = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class SummaryRow:
    """One row of the members' table; losses and accuracies of a member are all of its kept epoch.

    `kind` is "member", "failed", "mean", "spread" (sample standard deviation), "out_of_fold" or "committee".
    """

    kind: Literal["member", "failed", "mean", "spread", "out_of_fold", "committee"]
    label: str
    epochs: float | None = None
    best_epoch: float | None = None
    seconds: float | None = None
    train_loss: float | None = None
    validation_loss: float | None = None
    test_loss: float | None = None
    train_accuracy: float | None = None
    validation_accuracy: float | None = None
    test_accuracy: float | None = None
    remark: str = ""


COLUMNS: tuple[tuple[str, str], ...] = (
    ("label", "member"),
    ("best_epoch", "best epoch"),
    ("epochs", "epochs"),
    ("seconds", "seconds"),
    ("train_loss", "train loss"),
    ("validation_loss", "validation loss"),
    ("test_loss", "test loss"),
    ("train_accuracy", "train accuracy"),
    ("validation_accuracy", "validation accuracy"),
    ("test_accuracy", "test accuracy"),
)
"""Fields of a `SummaryRow` in the order of the table, and their headings."""

_FIGURES = tuple(field for field, _ in COLUMNS[1:])


def summary_rows(results: Results) -> tuple[SummaryRow, ...]:
    """The members' table: a row a member, their mean and spread, out-of-fold, the committee.

    The mean and the spread are over the members that finished; the out-of-fold row stands in the held-out columns.
    """
    rows = [_member_row(member) for member in results.members]
    finished = [row for row in rows if row.kind == "member"]
    if len(finished) > 1:
        columns = {field: [getattr(row, field) for row in finished] for field in _FIGURES}
        known = {field: mean_and_spread(values) for field, values in columns.items() if None not in values}
        means: dict[str, Any] = {field: value.mean for field, value in known.items()}
        spreads: dict[str, Any] = {field: value.spread for field, value in known.items()}
        rows.append(SummaryRow("mean", "mean", **means))
        rows.append(SummaryRow("spread", "standard deviation", **spreads))
    if results.out_of_fold:
        rows.append(
            SummaryRow(
                "out_of_fold",
                "committee, out of fold",
                validation_loss=results.out_of_fold.log_loss,
                validation_accuracy=results.out_of_fold.accuracy,
                remark=results.out_of_fold_remark,
            )
        )
    rows.append(
        SummaryRow(
            "committee",
            "committee",
            seconds=results.seconds_training,
            train_loss=results.committee_train.log_loss,
            train_accuracy=results.committee_train.accuracy,
            test_loss=results.test.log_loss if results.test else None,
            test_accuracy=results.test.accuracy if results.test else None,
        )
    )
    return tuple(rows)


def shown_columns(rows: Sequence[SummaryRow]) -> tuple[tuple[str, str], ...]:
    """The columns of the members' table in which at least one row has something to show."""
    return tuple(
        (field, heading) for field, heading in COLUMNS if any(getattr(row, field) not in (None, "") for row in rows)
    )


def cell(row: SummaryRow, field: str) -> str:
    """One cell of the members' table for people: accuracies as percentages, spreads of accuracies in points."""
    value = getattr(row, field)
    if value is None:
        return "" if row.kind in ("spread", "out_of_fold", "committee") else NOTHING
    if isinstance(value, str):
        return value
    if field.endswith("accuracy"):
        return f"± {100 * value:.2f}" if row.kind == "spread" else percent(value)
    if field.endswith("loss"):
        return f"± {value:.4f}" if row.kind == "spread" else f"{value:.4f}"
    if row.kind == "spread":
        return f"± {value:.1f}"
    if field == "seconds":
        return f"{value:,.1f}"
    return f"{value:.1f}" if row.kind == "mean" else f"{value:.0f}"


def headline_scores(results: Results) -> tuple[str, Scores] | None:
    """What the report is about: ("test", ...), or ("out-of-fold", ...) while the test is sealed; None without both."""
    if results.test:
        return "test", results.test
    return ("out-of-fold", results.out_of_fold) if results.out_of_fold else None


def no_better_than_guessing(judgement: Scores) -> bool:
    """Whether the images do not show that the committee beats always answering their most frequent class.

    That is so where the lower end of the accuracy's interval is not above the class's share of the images.
    """
    return judgement.accuracy_interval.low <= guess(judgement)[1]


def guess(judgement: Scores) -> tuple[int, float]:
    """The most frequent true class of a judgement, and its share of the images."""
    counts = [sum(row) for row in judgement.confusion]
    most = max(counts)
    return counts.index(most), most / max(sum(counts), 1)


def judgements(results: Results) -> dict[str, Scores]:
    """The honest judgements that there are, by the name of the images they are on."""
    found = {"test": results.test, "out-of-fold": results.out_of_fold}
    return {name: judgement for name, judgement in found.items() if judgement}


def reliability_rows(judgement: Scores) -> tuple[tuple[ReliabilityBin, Interval], ...]:
    """The bins of the reliability diagram, each with the Wilson interval of its accuracy."""
    return tuple((row, wilson(round(row.accuracy * row.images), row.images)) for row in judgement.reliability)


def confused_pairs(judgement: Scores, class_names: Sequence[str], limit: int = 10) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of classes of a judgement."""
    return most_confused_pairs(judgement.confusion, class_names, limit)


def write_tables(
    results: Results, class_names: Sequence[str], histories: Sequence[History], folder: Path
) -> tuple[Path, ...]:
    """Write every table of a run as CSV (UTF-8, comma, a header line).

    Args:
        results: the run's figures.
        class_names: one name a class.
        histories: for each row of `results.members`, the lines of its history.
        folder: made if it is missing.

    Returns:
        The paths written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    tables: dict[str, tuple[Sequence[str], Iterable[Sequence[object]]]] = {}
    summary = summary_rows(results)
    tables["members"] = (
        ["row", "kind", *_FIGURES, "remark"],
        [[row.label, row.kind, *(getattr(row, field) for field in _FIGURES), row.remark] for row in summary],
    )
    found = judgements(results)
    tables["classes"] = (
        ["part", "class", "images", "precision", "recall", "f1"],
        [[part, c.name, c.images, c.precision, c.recall, c.f1] for part, each in found.items() for c in each.classes],
    )
    for number, each in enumerate(found.values()):
        name = "confusion" if number == 0 else "confusion_out_of_fold"
        matrix = zip(class_names, each.confusion, strict=True)
        tables[name] = (["true \\ predicted", *class_names], [[true, *row] for true, row in matrix])
    tables["confused_pairs"] = (
        ["part", "true", "predicted", "images", "share_of_true_class"],
        [[part, *pair] for part, each in found.items() for pair in confused_pairs(each, class_names, 50)],
    )
    tables["reliability"] = (
        ["part", "low", "high", "images", "confidence", "accuracy", "accuracy_low", "accuracy_high"],
        [
            [part, b.low, b.high, b.images, b.confidence, b.accuracy, interval.low, interval.high]
            for part, each in found.items()
            for b, interval in reliability_rows(each)
        ],
    )
    sizes = {"test": results.size_curve_test, "out-of-fold": results.size_curve_out_of_fold}
    tables["sizes"] = (
        ["part", "members", "subsets", "accuracy", "accuracy_low", "accuracy_high", "log_loss"],
        [
            [part, s.members, s.subsets, s.accuracy, s.accuracy_low, s.accuracy_high, s.log_loss]
            for part, points in sizes.items()
            for s in points
        ],
    )
    if results.agreement:
        labels = agreement_labels(results)
        tables["agreement"] = (
            ["member", *labels],
            [[label, *row] for label, row in zip(labels, results.agreement.matrix, strict=True)],
        )
    tables["mistakes"] = (
        ["gallery", "part", "position", "true", "predicted", "p_true", "p_predicted", "dissenters", "members_asked"],
        [
            [g.name, g.part, p.position, class_names[p.true], class_names[p.predicted], *_opinion(p)]
            for g in results.galleries
            for p in g.pictures
        ],
    )
    tables["history"] = _history_table(results, histories)
    return tuple(_write(folder / f"{name}.csv", header, rows) for name, (header, rows) in tables.items())


def agreement_labels(results: Results) -> list[str]:
    """The members' numbers, as they label the rows of the agreement matrix."""
    wanted = len(results.agreement.matrix) if results.agreement else 0
    every = [str(member.member) for member in results.members]
    finished = [str(member.member) for member in results.members if member.status == "finished"]
    return next((names for names in (finished, every) if len(names) == wanted), [str(i) for i in range(wanted)])


def _opinion(picture: Picture) -> tuple[float, float, int, int]:
    return picture.probability_true, picture.probability_predicted, picture.dissenters, picture.members


def _member_row(member: MemberResult) -> SummaryRow:
    train, validation, test = member.train, member.validation, member.test
    failed = member.status == "failed"
    return SummaryRow(
        "failed" if failed else "member",
        str(member.member),
        epochs=member.epochs,
        best_epoch=None if failed else member.best_epoch,
        seconds=member.seconds,
        train_loss=train.loss if train else None,
        validation_loss=validation.loss if validation else None,
        test_loss=test.loss if test else None,
        train_accuracy=train.accuracy if train else None,
        validation_accuracy=validation.accuracy if validation else None,
        test_accuracy=test.accuracy if test else None,
        remark=member.remark,
    )


def _history_table(results: Results, histories: Sequence[History]) -> tuple[list[str], list[list[object]]]:
    fields = list(dict.fromkeys(field for history in histories for line in history for field in line))
    return ["member", *fields], [
        [member.member, *(line.get(field) for field in fields)]
        for member, history in zip(results.members, histories, strict=True)
        for line in history
    ]


def _write(path: Path, header: Sequence[str], rows: Iterable[Sequence[object]]) -> Path:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(header)
        writer.writerows(rows)
    return path
