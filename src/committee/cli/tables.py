"""What the terminal shows of runs, studies and networks: tables and closing lines."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.table import Table

from committee.errors import counted
from committee.folders.records import SelfTrainingResults
from committee.metrics.formatting import NOTHING, duration, interval_text, p_value, percent, points
from committee.metrics.results import Distillation, GridResult, Results, RowResult, Scores, StudyResults, TestOpening
from committee.nn.architectures import PlannedLayer
from committee.nn.summary import shape_text, totals
from committee.report import sentences
from committee.report.student_table import cells as student_cells
from committee.report.student_table import where
from committee.report.study_table import published, spread, verdict
from committee.report.tables import (
    SummaryRow,
    balanced_figures,
    cell,
    headline_scores,
    no_better_than_guessing,
    shown_columns,
    summary_rows,
)
from committee.terminal import console, plain

STYLES = {"mean": "bold", "spread": "dim", "committee": "bold green", "out_of_fold": "cyan"}
STYLES |= {"failed": "red", "died": "red"}


FRAME: dict[str, Any] = {"box": box.SIMPLE_HEAD, "padding": (0, 1, 0, 0), "pad_edge": False}

HEADINGS = {  # narrow enough for 80 columns together
    "label": "\nmember",
    "best_epoch": "best\nepoch",
    "epochs": "\nepochs",
    "seconds": "\ns",
    "train_loss": "train\nloss",
    "validation_loss": "val.\nloss",
    "test_loss": "test\nloss",
    "train_accuracy": "train\nacc.",
    "validation_accuracy": "val.\nacc.",
    "test_accuracy": "test\nacc.",
}
LABELS = {"standard deviation": "± sd", "committee, out of fold": "out of fold", "student, out of fold": "out of fold"}


def members_table(results: Results) -> Table:
    """The training summary: a row a member, mean and spread, out of fold, the committee."""
    rows = summary_rows(results)
    fields = [field for field, _ in shown_columns(rows)]
    table = Table(show_edge=False, **FRAME)
    for field in fields:
        table.add_column(HEADINGS[field], justify="left" if field == "label" else "right", no_wrap=True)
    previous: SummaryRow | None = None
    for row in rows:
        if previous is not None and row.kind != previous.kind and row.kind in ("mean", "out_of_fold"):
            table.add_section()
        cells = [terse(row, field) for field in fields[1:]]
        table.add_row(*map(plain, [LABELS.get(row.label, row.label), *cells]), style=STYLES.get(row.kind, ""))
        previous = row
    return table


def student_table(distillation: Distillation) -> Table:
    """A student beside its teacher."""
    table = Table(show_edge=False, **FRAME)
    for name in ("", "accuracy", "size", "multiply-\nadds", "one\nimage", "images/s"):
        table.add_column(name, justify="right" if name else "left", no_wrap=True)
    for who, accuracy, _, _, *costs in student_cells(distillation):
        table.add_row(*map(plain, (who, accuracy, *costs)))
    return table


def student_lines(distillation: Distillation) -> list[str]:
    """The differences to the committee with their intervals, and what the table's figures are."""
    found = where(distillation)
    nothing = "No accuracies: the test images are sealed, and the student held nothing out."
    lines = [f"Accuracies on {found}." if found else nothing]
    for row in distillation.rows:
        if row.score and row.score.difference is not None and row.score.difference_interval is not None:
            interval = f"95 % interval {interval_text(row.score.difference_interval, points)}"
            lines.append(f"{row.who.capitalize()} minus committee: {points(row.score.difference)} points ({interval})")
    return [*lines, "Times of this machine, measured in turns; images/s on one core."]


def units(results: Results) -> str:
    """What the figures of the members' table are in."""
    calibrated = " Only the committee's own losses, in the last row, are calibrated." if results.calibration else ""
    return f"Losses in nats, accuracies in %.{calibrated}"


def terse(row: SummaryRow, field: str) -> str:
    """A cell without what the heading or the row's label says already."""
    if field == "seconds" and row.seconds is not None and row.seconds >= 100:
        return f"{row.seconds:,.0f}"
    return cell(row, field).removesuffix("\u00a0%").removeprefix("± ")


def scores_line(what: str, scores: Scores) -> str:
    """An accuracy with its interval, as one line."""
    low, high = percent(scores.accuracy_interval.low), percent(scores.accuracy_interval.high)
    errors = counted(scores.errors, "error")
    interval = f"95 % interval {low} to {high}; {errors} in {scores.images:,} images"
    return f"{what}: {percent(scores.accuracy)}  ({interval})"


def balanced_line(scores: Scores) -> str:
    """The figures in which every class counts alike, as one line; "" where there are none."""
    figures = [
        f"{name} {percent(value)}" + (f" ({percent(at.low)} to {percent(at.high)})" if at else "")
        for name, value, at in balanced_figures(scores)
    ]
    return f"Every class counting alike: {', '.join(figures)}." if figures else ""


def closing_lines(results: Results) -> list[str]:
    """What a run reached, a line for each figure."""
    lines, whole = [], results.whole.capitalize()
    if results.out_of_fold:
        lines.append(scores_line(f"{whole}, out of fold", results.out_of_fold))
    if results.test:
        lines.append(scores_line(f"{whole}, test images", results.test))
    found = headline_scores(results)
    if found and found[1].is_imbalanced and (line := balanced_line(found[1])):
        lines.append(line)
    if found and no_better_than_guessing(found[1]):
        lines.append(
            f"This {results.whole} is not shown to be better than guessing: try more --epochs, smaller batches (--set "
            "training.batch_size=16), or look at the data with committee data check."
        )
    lines.append(openings_line(results.test_openings))
    if results.left_out:
        lines.append(
            f"{results.left_out} of {results.planned} planned members were not ready in time and are left out."
        )
    if line := sentences.died_text(results):
        lines.append(line)
    if failed := [row for row in results.members if row.status == "failed"]:
        lines += [f"Member {row.member:02d} failed and is left out: {row.remark}." for row in failed]
    lines.append(
        f"Training took {duration(results.seconds_training)}, with the evaluation {duration(results.seconds_total)}."
    )
    return lines


def openings_line(openings: Sequence[TestOpening]) -> str:
    """How often the test images were opened."""
    times = {0: "are still sealed", 1: "were opened once, after training"}
    return f"The test images {times.get(len(openings), f'were opened {len(openings)} times')}."


def layers_table(title: str, layers: Sequence[PlannedLayer]) -> Table:
    """A network's layers: output shape, parameters, multiply-adds."""
    table = Table(title=plain(title, style="table.title"), show_footer=True)
    parameters, multiply_adds = totals(list(layers))
    table.add_column("layer", footer="all")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right", footer=f"{parameters:,}")
    table.add_column("multiply-adds", justify="right", footer=f"{multiply_adds:,}")
    for layer in layers:
        table.add_row(plain(layer.name), shape_text(layer.output), f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
    return table


def show_study(results: StudyResults) -> None:
    """A study on standard output: its warnings, table and grid, and the part of its discussion that the table lacks."""
    out = console()
    for warning in results.warnings:
        out.print(plain(warning, style="bold"))
    if results.rows:
        out.print(study_rows(results, out.width))
    if results.grid:
        out.print(grid_rows(results.grid))
    for finding in results.discussion:
        if finding.kind in ("overall", "stopped", "undecided", "committee", "published", "grid"):
            out.print(plain(f"- {finding.text}"))
    out.print(plain(openings_line(results.test_openings)))


def study_rows(results: StudyResults, width: int) -> Table:
    """The table of a study: accuracies in per cent, differences in points; validation where there is room."""
    sealed = not any(row.test for row in results.rows)
    where = "validation" if sealed else "test"
    published_for = f"; published figures are for {results.published_on}" if results.published_on else ""
    title = f"Accuracies in %, 95 % intervals; difference on {where} images in points{published_for}"
    table = Table(title=plain(title, style="table.title"), title_justify="left", **FRAME)
    shown = ["row", *(["valid."] if sealed or width >= 88 else []), *([] if sealed else ["test"])]
    shown += ["publ.", "difference", "verdict"]
    for heading in shown:
        table.add_column(heading, justify="left" if heading in ("row", "verdict") else "right", overflow="fold")
    before = None
    for row in results.rows:
        main, d = row.test or row.validation, row.difference
        repeats = (f"n {main.repeats}" if row.members == 1 else f"n {main.repeats} × {row.members}") if main else "none"
        against = f", against {d.against}" if d and d.against != before else ""
        chance = f"p {p_value(d.p_adjusted)}{against}" if d else ""
        judged = (verdict(row)[0], (chance + " TRANSDUCTIVE" * row.transductive).strip())
        cells: dict[str, tuple[str, ...]] = {  # the lines of each
            "row": (row.name, f"  {repeats}, {duration(row.seconds)}"),
            "valid.": validation_cell(row, sealed) if row.validation else (NOTHING,),
            "test": (NOTHING,),
            "publ.": (published(row).removesuffix("\u00a0%"),),
            "difference": (NOTHING,),
            "verdict": tuple(filter(None, judged)),
        }
        if row.test:
            low, high = row.test.interval.low, row.test.interval.high
            cells["test"] = (f"{100 * row.test.mean:.2f}", f"{100 * low:.2f}–{100 * high:.2f}")
        if d:
            cells["difference"] = (points(d.points), f"{points(d.interval.low)} {points(d.interval.high)}")
        table.add_row(*(plain(*cells[name]) for name in shown), style="" if row.members == 1 else "bold")
        before = row.name
    return table


def validation_cell(row: RowResult, sealed: bool) -> tuple[str, ...]:
    """The lines of a row's validation accuracy; with interval and number of images where it is all there is."""
    assert row.validation is not None
    mean = f"{100 * row.validation.mean:.2f}"
    low, high = row.validation.interval.low, row.validation.interval.high
    return (mean, f"{100 * low:.2f}–{100 * high:.2f} of {row.validation.images:,}") if sealed else (mean,)


def grid_rows(grid: GridResult) -> Table:
    """The cells of a grid."""
    title = "Accuracies in %, mean ± sd over seeds; chosen by validation"
    table = Table(title=plain(title, style="table.title"), title_justify="left", **FRAME)
    some_published = any(each.published is not None for each in grid.cells)
    axes = [axis.rpartition(".")[2] for axis in grid.axes]
    for heading in (*axes, "n", "validation", "test", *(["publ."] * some_published), ""):
        table.add_column(plain(heading), justify="right" if heading else "left", overflow="fold")
    for number, each in enumerate(grid.cells):
        remark = "chosen" if number == grid.best else "within noise" if each.within_noise else ""
        scores = [
            f"{100 * score.mean:.2f} ± {spread(score.spread)}" if score else NOTHING
            for score in (each.validation, each.test)
        ]
        printed = NOTHING if each.published is None else f"{100 * each.published:.2f}"
        cells = [*each.values, str(each.validation.repeats), *scores, *([printed] * some_published), remark]
        table.add_row(*map(plain, cells), style="bold" if number == grid.best else "")
    return table


def show_self_training(results: SelfTrainingResults) -> None:
    """Rounds of self-training on standard output."""
    out = console()
    for warning in results.warnings:
        out.print(plain(warning, style="bold"))
    for each in results.rounds:
        line = "no accuracy: its test images are sealed, and it held none out"
        if score := each.test or each.out_of_fold:
            low, high = map(percent, score.interval)
            line = f"{'test' if each.test else 'out-of-fold'} accuracy {percent(score.accuracy)} (95 % interval {low} "
            line += f"to {high}), {score.errors:,} errors in {score.images:,} images"
        out.print(plain(f"Round {each.round}: {line}"))
        if each.audit:
            out.print(plain(f"  then {each.audit}."))
        if each.stopped:
            out.print(plain(f"  Stopped: {each.stopped}.", style="bold"))
    if results.verdict:
        out.print(plain(results.verdict))
