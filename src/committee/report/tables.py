"""The figures of a run as tables: the members' table, and the rows behind the other tables and figures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from committee.errors import CommitteeError
from committee.metrics.conformal import fit_abstention, fit_sets
from committee.metrics.error_analysis import ConfusedPair, most_confused_pairs
from committee.metrics.formatting import NOTHING, percent
from committee.metrics.intervals import mean_and_spread, wilson
from committee.metrics.results import ClassRow, Interval, MemberResult, ReliabilityBin, Results, Scores

Kind = Literal["member", "failed", "died", "mean", "spread", "out_of_fold", "committee"]


@dataclass(frozen=True)
class SummaryRow:
    """One row of the members' table; a member's losses and accuracies are all those of its best epoch.

    The row of the kind "spread" holds sample standard deviations.
    """

    kind: Kind
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

FIGURES = tuple(field for field, _ in COLUMNS[1:])
"""The fields of a `SummaryRow` that are numbers."""


def summary_rows(results: Results) -> tuple[SummaryRow, ...]:
    """The members' table: a row for each member, their mean and spread, out of fold, the committee.

    The mean and the spread are over the members that finished; the out-of-fold row fills the validation columns.
    """
    members = [_member_row(member) for member in results.members]
    finished = [row for row in members if row.kind == "member"]
    return (
        *members,
        *(_mean_and_spread(finished) if len(finished) > 1 else ()),
        *([_out_of_fold_row(results, results.out_of_fold)] if results.out_of_fold else ()),
        _committee_row(results),
    )


def _member_row(member: MemberResult) -> SummaryRow:
    train, validation, test = member.train, member.validation, member.test
    kind: Kind = "member" if member.status == "finished" else "died" if member.status == "died" else "failed"
    return SummaryRow(
        kind,
        str(member.member),
        epochs=member.epochs,
        best_epoch=member.best_epoch if kind == "member" else None,
        seconds=member.seconds,
        train_loss=train.loss if train else None,
        validation_loss=validation.loss if validation else None,
        test_loss=test.loss if test else None,
        train_accuracy=train.accuracy if train else None,
        validation_accuracy=validation.accuracy if validation else None,
        test_accuracy=test.accuracy if test else None,
        remark=member.remark,
    )


def _mean_and_spread(rows: Sequence[SummaryRow]) -> tuple[SummaryRow, SummaryRow]:
    """The mean and the standard deviation of every column in which all rows have a figure."""
    means: dict[str, Any] = {}
    spreads: dict[str, Any] = {}
    for field in FIGURES:
        values = [getattr(row, field) for row in rows]
        if None not in values:
            _, means[field], spreads[field] = mean_and_spread(values)
    return SummaryRow("mean", "mean", **means), SummaryRow("spread", "standard deviation", **spreads)


def _out_of_fold_row(results: Results, scores: Scores) -> SummaryRow:
    return SummaryRow(
        "out_of_fold",
        f"{results.whole}, out of fold",
        validation_loss=scores.log_loss,
        validation_accuracy=scores.accuracy,
        remark=results.out_of_fold_remark,
    )


def _committee_row(results: Results) -> SummaryRow:
    return SummaryRow(
        "committee",
        results.whole,
        seconds=results.seconds_training,
        train_loss=results.committee_train.log_loss,
        train_accuracy=results.committee_train.accuracy,
        test_loss=results.test.log_loss if results.test else None,
        test_accuracy=results.test.accuracy if results.test else None,
    )


def shown_columns(rows: Sequence[SummaryRow]) -> tuple[tuple[str, str], ...]:
    """The columns of the members' table in which at least one row has something to show.

    The best epoch is something to show where it is not the last one for every member.
    """
    members = [row for row in rows if row.kind == "member"]
    all_last = all(row.best_epoch == row.epochs for row in members)
    return tuple(
        (field, heading)
        for field, heading in COLUMNS
        if any(getattr(row, field) not in (None, "") for row in rows) and not (field == "best_epoch" and all_last)
    )


def cell(row: SummaryRow, field: str) -> str:
    """One cell of the members' table for people: accuracies in percent, their spreads in percentage points."""
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
    """The scores that the headline shows: ("test", ...), else ("out-of-fold", ...); None where there are neither."""
    if results.test:
        return "test", results.test
    return ("out-of-fold", results.out_of_fold) if results.out_of_fold else None


def no_better_than_guessing(scores: Scores) -> bool:
    """Whether the images do not show that the committee beats a guess that ignores the image.

    That is so where the lower end of the accuracy's interval is not above the most frequent class's share of the
    images, nor that of the balanced accuracy above what any such guess has: 1 / classes.
    """
    balanced = scores.balanced
    if balanced and balanced.accuracy_interval.low > scores.balanced_guess:
        return False
    return scores.accuracy_interval.low <= guess(scores)[1]


def balanced_figures(scores: Scores) -> tuple[tuple[str, float, Interval | None], ...]:
    """The names, values and intervals of the figures in which every class counts alike."""
    found = scores.balanced
    if found is None:
        return ()
    return (
        ("balanced accuracy", found.accuracy, found.accuracy_interval),
        ("macro F1", found.macro_f1, found.macro_f1_interval),
        *([("AUC, one against rest", found.auc, found.auc_interval)] if found.auc is not None else []),
    )


def recall_interval(row: ClassRow) -> Interval | None:
    """The Wilson interval of a class's recall; None for a class without images."""
    return wilson(round((row.recall or 0) * row.images), row.images) if row.images else None


def guess(scores: Scores) -> tuple[int, float]:
    """The most frequent true class, and its share of the images."""
    counts = [sum(row) for row in scores.confusion]
    most = max(counts)
    return counts.index(most), most / max(sum(counts), 1)


def scores_by_part(results: Results) -> dict[str, Scores]:
    """The scores on images that no predicting member trained on, by the name of the images."""
    found = {"test": results.test, "out-of-fold": results.out_of_fold}
    return {name: scores for name, scores in found.items() if scores}


def reliability_rows(scores: Scores) -> tuple[tuple[ReliabilityBin, Interval], ...]:
    """The bins of the reliability diagram, each with the Wilson interval of its accuracy."""
    return tuple((row, wilson(round(row.accuracy * row.images), row.images)) for row in scores.reliability)


def confused_pairs(scores: Scores, class_names: Sequence[str], limit: int = 10) -> tuple[ConfusedPair, ...]:
    """The most confused pairs of classes."""
    return most_confused_pairs(scores.confusion, class_names, limit)


def agreement_labels(results: Results) -> list[str]:
    """The members' numbers, as they label the rows of the agreement matrix."""
    wanted = len(results.agreement.matrix) if results.agreement else 0
    every = [str(member.member) for member in results.members]
    finished = [str(member.member) for member in results.members if member.status == "finished"]
    return next((names for names in (finished, every) if len(names) == wanted), [str(i) for i in range(wanted)])


Predicted = tuple[NDArray[np.float64], NDArray[np.int64]]
COVERAGES = (0.9, 0.95, 0.99, 0.999)
PRECISIONS = (0.95, 0.99, 0.995, 0.999)


def promised(share: float) -> str:
    """A share that was asked for, with as many digits as it has."""
    return f"{100 * share:g}\u00a0%"


def set_rows(calibration: Predicted, test: Predicted | None) -> Iterator[tuple[str, str, str]]:
    """Of prediction sets with each coverage: it, their mean size, the share of test images' sets with the true class.

    Args:
        calibration: probabilities (image, class) and labels of the out-of-fold images.
        test: the same of the test images, where they are open; the size is on these then.
    """
    for coverage in COVERAGES:
        fitted = fit_sets(*calibration, coverage)
        if test is None or not len(test[1]):
            yield promised(coverage), f"{fitted.mean_size:.3f}", ""
            continue
        sets = fitted.sets(test[0])
        covered = float(sets[np.arange(len(sets)), test[1]].mean())
        yield promised(coverage), f"{float(sets.sum(axis=1).mean()):.3f}", percent(covered)


def abstention_rows(calibration: Predicted, test: Predicted | None) -> Iterator[tuple[str, str, str]]:
    """Of answers with each precision: it, the share of images that are answered, the precision on test images.

    The arguments are those of `set_rows`.
    """
    for precision in PRECISIONS:
        try:
            fitted = fit_abstention(*calibration, precision)
        except CommitteeError:
            yield promised(precision), "cannot be promised", ""
            continue
        if test is None or not len(test[1]):
            yield promised(precision), percent(fitted.answered / fitted.images), ""
            continue
        kept = ~fitted.abstains(test[0])
        right = test[0].argmax(axis=1)[kept] == test[1][kept]
        yield promised(precision), percent(float(kept.mean())), percent(float(right.mean())) if kept.any() else ""
