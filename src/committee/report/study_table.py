"""The table of a study: for people, as Markdown, and as CSV with full precision."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from committee import disk
from committee.metrics.formatting import (
    NOTHING,
    duration,
    interval_text,
    number,
    p_value,
    percent,
    percent_or_nothing,
    points,
)
from committee.metrics.results import GridCell, GridResult, RepeatScore, RowResult, StudyResults
from committee.names import markdown
from committee.report.csv_tables import Table

HEADINGS: tuple[str, ...] = (
    "row",
    "parameters",
    "time",
    "n",
    "validation",
    "test",
    "published",
    "difference",
    "verdict",
)


@dataclass(frozen=True)
class Cell:
    """A cell of the table: a figure, and what stands small below it, a line each."""

    text: str
    notes: tuple[str, ...] = ()


def cells(row: RowResult) -> tuple[Cell, ...]:
    """The cells of a row after its name, in the order of `HEADINGS`."""
    main = row.test or row.validation
    repeats = NOTHING
    if main:
        repeats = f"{main.repeats}" if row.members == 1 else f"{main.repeats} × {row.members}"
    what, remark = verdict(row)
    return (
        Cell(number(row.parameters), published_parameters(row)),
        Cell(NOTHING if row.stopped else duration(row.seconds), (f"{row.epochs} epochs",)),
        Cell(repeats),
        score_cell(row.validation, images=bool(row.audits) or row.test is None),
        score_cell(row.test),
        Cell(published(row)),
        difference(row),
        Cell(what, (remark,) if remark else ()),
    )


def published_parameters(row: RowResult) -> tuple[str, ...]:
    """A note where the parameters are not as many as published (on images of another shape they cannot be)."""
    if row.published_parameters is None or row.published_parameters == row.parameters:
        return ()
    return (f"published {number(row.published_parameters)}",)


def score_cell(score: RepeatScore | None, *, images: bool = False) -> Cell:
    """A mean accuracy with its spread and its interval; with the number of images it rests on, if asked for."""
    if score is None:
        return Cell(NOTHING)
    notes = (with_spread(score), interval(score), f"of {number(score.images)} images" if images else "")
    return Cell(percent(score.mean), tuple(filter(None, notes)))


def with_spread(score: RepeatScore | None) -> str:
    """The standard deviation over repeats."""
    return "" if score is None or score.spread is None else f"± {100 * score.spread:.2f}"


def interval(score: RepeatScore | None) -> str:
    """The 95 % interval."""
    return "" if score is None else f"{100 * score.interval.low:.2f} to {100 * score.interval.high:.2f}"


def published(row: RowResult) -> str:
    """The published accuracy, or that of its members."""
    if row.published is not None:
        return percent(row.published)
    if row.published_members:
        low, high = row.published_members
        return f"{100 * low:.2f} to {percent(high)}"
    return NOTHING


def difference(row: RowResult) -> Cell:
    """The difference from another row in points, with its interval."""
    d = row.difference
    return Cell(points(d.points), (interval_text(d.interval, points),)) if d else Cell(NOTHING)


def verdict(row: RowResult) -> tuple[str, str]:
    """The verdict, and its adjusted p-value with what a reader must know about the row."""
    d, remarks = row.difference, []
    if d:
        remarks += [f"p {p_value(d.p_adjusted)}", f"against {d.against}"]
    remarks += ["TRANSDUCTIVE"] if row.transductive else []
    what = "not trained: see the audit" if row.stopped else d.verdict if d else ""
    return what, ", ".join(remarks)


def spread(value: float | None) -> str:
    """A standard deviation of accuracies in points."""
    return NOTHING if value is None else f"{100 * value:.2f}"


COLUMNS = (
    *("name", "change", "members", "repeats", "parameters", "multiply_adds", "epochs", "seconds"),
    *("validation", "validation_sd", "test", "test_sd", "test_low", "test_high", "interval_over"),
    *("published", "against", "difference", "difference_low", "difference_high", "p", "p_adjusted", "verdict"),
    *("transductive", "warnings"),
)
"""Columns of study.csv."""


def write_csv(results: StudyResults, path: Path) -> None:
    """Every row of the table and every cell of the grid in a row each; accuracies as fractions."""
    warnings = "; ".join(results.warnings)
    rows = [(*_row_values(row), warnings) for row in results.rows]
    rows += [(*_grid_values(cell), warnings) for cell in (results.grid.cells if results.grid else ())]
    Table(COLUMNS, rows).write(path)


def _row_values(row: RowResult) -> tuple[object, ...]:
    main, d = row.test or row.validation, row.difference
    return (
        *(row.name, row.change, row.members, main.repeats if main else 0),
        *(row.parameters, row.multiply_adds, row.epochs, row.seconds),
        *_score_values(row.validation)[:2],
        *_score_values(row.test),
        row.published,
        *((d.against, d.points, d.interval.low, d.interval.high, d.p, d.p_adjusted, d.verdict) if d else (None,) * 7),
        row.transductive,
    )


def _grid_values(cell: GridCell) -> tuple[object, ...]:
    return (
        *(", ".join(cell.values), "cell of the grid", 1, cell.validation.repeats),
        *(None,) * 4,
        *_score_values(cell.validation)[:2],
        *_score_values(cell.test),
        cell.published,
        *(None,) * 7,
        False,
    )


def _score_values(score: RepeatScore | None) -> tuple[object, ...]:
    if score is None:
        return (None,) * 5
    return (score.mean, score.spread, score.interval.low, score.interval.high, score.over)


def write_markdown(results: StudyResults, path: Path) -> None:
    """The table, the grid and the discussion as Markdown, to be put into a document."""
    lines = [f"**{markdown(warning)}**" for warning in results.warnings]
    if results.rows:
        headings = ("row", "what changed", *HEADINGS[1:])
        lines += _markdown_table(headings, ([row.name, row.change, *map(_in_line, cells(row))] for row in results.rows))
    if results.grid:
        lines += _markdown_grid(results.grid)
    lines += ["", *(f"- {markdown(finding.text)}" for finding in results.discussion), ""]
    disk.write(path, "\n".join(lines).encode())


def _markdown_grid(grid: GridResult) -> list[str]:
    headings = (*grid.axes, "n", "validation", "test", "published", "")
    rows = []
    for place, cell in enumerate(grid.cells):
        scores = [_in_line(score_cell(score)) for score in (cell.validation, cell.test)]
        remark = "chosen" if place == grid.best else "within noise" if cell.within_noise else ""
        rows.append([*cell.values, str(cell.validation.repeats), *scores, percent_or_nothing(cell.published), remark])
    return _markdown_table(headings, rows)


def _in_line(cell: Cell) -> str:
    return f"{cell.text} ({'; '.join(cell.notes)})" if cell.notes else cell.text


def _markdown_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """The lines of a table, after an empty one."""
    first, *others = ([markdown(text) for text in row] for row in (headings, *rows))
    return ["", *("| " + " | ".join(row) + " |" for row in (first, ["---"] * len(first), *others))]
