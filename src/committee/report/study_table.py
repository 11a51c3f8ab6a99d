"""The table of a study: for people, as Markdown, and as CSV with full precision."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from pathlib import Path

from committee.metrics.formatting import NOTHING, duration, percent
from committee.metrics.results import RepeatScore, RowResult, StudyResults

HEADINGS = ("row", "parameters", "time", "n", "validation", "test", "published", "difference", "verdict")


def cells(row: RowResult) -> list[tuple[str, str]]:
    """The cells of a row after its name, in the order of `HEADINGS`: a figure, and what stands small below it."""
    main = row.test or row.validation
    return [
        (f"{row.parameters:,}", published_parameters(row)),
        (NOTHING if row.stopped else duration(row.seconds), f"{row.epochs} epochs"),
        ((f"{main.repeats}" if row.members == 1 else f"{main.repeats} × {row.members}") if main else NOTHING, ""),
        (percent(row.validation.mean) if row.validation else NOTHING, validation_remark(row)),
        (
            percent(row.test.mean) if row.test else NOTHING,
            "; ".join(filter(None, [with_spread(row.test), interval(row.test)])),
        ),
        (published(row), ""),
        difference(row),
        verdict(row),
    ]


def published_parameters(row: RowResult) -> str:
    """A remark where the parameters are not as many as published (on images of another shape they cannot be)."""
    other = row.published_parameters not in (None, row.parameters)
    return f"published {row.published_parameters:,}" if other else ""


def validation_remark(row: RowResult) -> str:
    """The spread; on how few images an audited row's validation rests; the interval while there is no test."""
    if row.validation is None:
        return ""
    of = f"of {row.validation.images:,} images" if row.audits or row.test is None else ""
    return "; ".join(filter(None, [with_spread(row.validation), "" if row.test else interval(row.validation), of]))


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


def difference(row: RowResult) -> tuple[str, str]:
    """Points more or less than another row, and the interval."""
    d = row.difference
    if d is None:
        return NOTHING, ""
    return f"{100 * d.points:+.2f}", f"{100 * d.interval.low:+.2f} to {100 * d.interval.high:+.2f}"


def verdict(row: RowResult) -> tuple[str, str]:
    """The verdict, and its p with what a reader must know about the row."""
    d, remarks = row.difference, []
    if d:
        remarks.append("p < .0001" if d.p_adjusted < 0.0001 else f"p = {d.p_adjusted:.2g}")
        remarks.append(f"against {d.against}")
    remarks += ["TRANSDUCTIVE"] if row.transductive else []
    what = "nothing trained: see the audit" if row.stopped else d.verdict if d else ""
    return what, ", ".join(remarks)


def spread(value: float | None) -> str:
    """A standard deviation of accuracies in points."""
    return NOTHING if value is None else f"{100 * value:.2f}"


def write_csv(results: StudyResults, path: Path) -> None:
    """A row a row and a row a cell of the grid; accuracies as fractions."""
    columns = (
        *("name", "change", "members", "repeats", "parameters", "multiply_adds", "epochs", "seconds"),
        *("validation", "validation_sd", "test", "test_sd", "test_low", "test_high", "interval_over"),
        *("published", "against", "difference", "difference_low", "difference_high", "p", "p_adjusted", "verdict"),
        *("transductive", "warnings"),
    )
    warnings = "; ".join(results.warnings)
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(columns)
        for row in results.rows:
            main, d = row.test or row.validation, row.difference
            writer.writerow(
                [row.name, row.change, row.members, main.repeats if main else 0, row.parameters, row.multiply_adds,
                 row.epochs, row.seconds, *_score(row.validation)[:2], *_score(row.test), row.published,
                 *((d.against, d.points, d.interval.low, d.interval.high, d.p, d.p_adjusted, d.verdict) if d
                   else (None,) * 7),
                 row.transductive, warnings]
            )  # fmt: skip
        for cell in results.grid.cells if results.grid else ():
            writer.writerow(
                [", ".join(cell.values), "cell of the grid", 1, cell.validation.repeats, *(None,) * 4,
                 *_score(cell.validation)[:2], *_score(cell.test), cell.published, *(None,) * 7, False, warnings]
            )  # fmt: skip


def write_markdown(results: StudyResults, path: Path) -> None:
    """The table, the grid and the discussion as Markdown, to be put into a document."""
    lines = [f"**{mark}**" for mark in results.warnings]
    if results.rows:
        headings = ("row", "what changed", *HEADINGS[1:])
        lines += ["", _line(headings), _line("---" for _ in headings)]
        for row in results.rows:
            texts = [f"{text} ({small})" if small else text for text, small in cells(row)]
            lines.append(_line([row.name, row.change, *texts]))
    if results.grid:
        columns = (*results.grid.axes, "n", "validation", "test", "95 % interval", "published", "")
        lines += ["", _line(columns), _line("---" for _ in columns)]
        for number, cell in enumerate(results.grid.cells):
            scores = [f"{percent(s.mean)} ({with_spread(s)})" if s else NOTHING for s in (cell.validation, cell.test)]
            printed = NOTHING if cell.published is None else percent(cell.published)
            remark = "chosen" if number == results.grid.best else "within noise" if cell.within_noise else ""
            repeats = str(cell.validation.repeats)
            lines.append(_line([*cell.values, repeats, *scores, interval(cell.test), printed, remark]))
    lines += ["", *(f"- {finding.text}" for finding in results.discussion), ""]
    path.write_text("\n".join(lines), encoding="utf-8")


def _line(texts: Iterable[str]) -> str:
    return "| " + " | ".join(text.replace("|", "\\|") for text in texts) + " |"


def _score(score: RepeatScore | None) -> tuple[float | str | None, ...]:
    if score is None:
        return (None,) * 5
    return (score.mean, score.spread, score.interval.low, score.interval.high, score.over)
