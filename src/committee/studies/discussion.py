"""What a study found, in sentences; each states the numbers that it rests on."""

from __future__ import annotations

from collections.abc import Iterator

from committee.metrics.formatting import interval_text, p_value, percent, points
from committee.metrics.results import Difference, Finding, RowResult, StudyResults

PUBLISHED_MARGIN = 0.001  # a measured accuracy down to this much below a published one counts as reaching it


def findings(results: StudyResults) -> Iterator[Finding]:
    """The discussion of a study: what helped, what could not be distinguished, what was published."""
    parts = {
        "overall": overall(results),
        "difference": differences(results),
        "stopped": stopped(results),
        "undecided": undecided(results),
        "committee": committees(results),
        "published": published(results),
        "remark": remarked(results),
        "grid": [results.grid.choice] if results.grid else [],
        "method": method(results),
    }
    for kind, sentences in parts.items():
        yield from (Finding(kind=kind, text=sentence) for sentence in sentences)


def differences(results: StudyResults) -> Iterator[str]:
    """Every row against the one that it is compared with."""
    for row in results.rows:
        if row.difference:
            yield difference_sentence(row, row.difference)


def stopped(results: StudyResults) -> Iterator[str]:
    """Rows whose pseudo-labels could not be trusted."""
    for row in results.rows:
        if row.stopped:
            yield f"{row.name}: it was not trained, since its pseudo-labels cannot be trusted. {'. '.join(row.audits)}."


def undecided(results: StudyResults) -> Iterator[str]:
    """What could not be distinguished."""
    compared = [row for row in results.rows if row.difference]
    names = [row.name for row in compared if row.difference and row.difference.verdict == "not distinguishable"]
    if names:
        yield (
            f"{len(names)} of {len(compared)} differences are within chance ({', '.join(names)}): to show any "
            "would take more seeds or more test images."
        )


def method(results: StudyResults) -> Iterator[str]:
    """The level of the verdicts."""
    if number := sum(row.difference is not None for row in results.rows):
        yield (
            f"Verdicts and p-values are adjusted for all {number} comparisons together (Holm 1979): if all rows were "
            "equally good, at most one study in twenty would report any difference. The intervals are not adjusted, so "
            "one may exclude 0 where the verdict is not distinguishable."
        )


def overall(results: StudyResults) -> Iterator[str]:
    """The first row and the last one, and whether their intervals overlap."""
    scored = [(score, row) for row in results.rows if (score := row.test or row.validation)]
    if len(scored) < 2:
        return
    (start, first), (end, last) = scored[0], scored[-1]
    if start.images != end.images:
        return
    where = "test" if first.test else "validation"
    span = (
        f"From {first.name} to {last.name} the {where} accuracy goes from {percent(start.mean)} to {percent(end.mean)}"
    )
    if start.interval.high < end.interval.low and end.mean < 1:
        yield f"{span}: {(1 - start.mean) / (1 - end.mean):,.1f} times fewer errors."
    elif end.interval.high < start.interval.low:
        yield f"{span}: it falls."
    else:
        yield f"{span}; their 95 % intervals overlap."


def difference_sentence(row: RowResult, d: Difference) -> str:
    """What a row changed, by how much, and how certain that is."""
    amount = f"{points(d.points)} points (95 % interval {interval_text(d.interval, points)}, p {p_value(d.p_adjusted)})"
    what = f"{row.name} ({row.change}) against {d.against}"
    if d.verdict == "not distinguishable":
        return f"{what}: no difference could be shown, {amount}."
    if d.verdict == "these two trainings differ":
        return f"{what}: these two trainings differ by {amount}; one training of each says nothing about the recipes."
    return f"{what}: {d.verdict}, {amount}."


def committees(results: StudyResults) -> Iterator[str]:
    """What a committee gains over its members."""
    for row in results.rows:
        if row.test and row.member_test:
            low, mean, high = min(row.member_test), sum(row.member_test) / len(row.member_test), max(row.member_test)
            if mean < 1:
                share = 100 * (row.test.mean - mean) / (1 - mean)
                verb = "removes" if share >= 0 else "adds"
                each = "" if row.test.repeats == 1 else f", mean of {row.test.repeats} committees"
                yield (
                    f"{row.name}: its members alone reach {percent(mean)} on average ({percent(low)} to "
                    f"{percent(high)}), {row.members} together {percent(row.test.mean)}{each}: the committee {verb} "
                    f"{abs(share):.0f} % of a member's errors."
                )


def published(results: StudyResults) -> Iterator[str]:
    """Measured beside published, where both are for the same data."""
    if results.published_on:
        return
    known = [(row.name, row.test, row.published) for row in results.rows]
    if results.grid:
        known += [(", ".join(cell.values), cell.test, cell.published) for cell in results.grid.cells]
    both = [(name, score, figure) for name, score, figure in known if score and figure is not None]
    if not both:
        return
    short = [(name, score, figure) for name, score, figure in both if score.mean < figure - PUBLISHED_MARGIN]
    inside = [name for name, score, figure in short if figure <= score.interval.high]
    outside = [name for name, score, figure in short if figure > score.interval.high]
    text = (
        f"{len(both) - len(short)} of {len(both)} rows reach the published accuracy minus {100 * PUBLISHED_MARGIN:.1f} "
    )
    text += "points"
    if inside:
        text += f"; below it, but with the published figure inside their 95 % interval: {', '.join(inside)}"
    if outside:
        text += f"; below it: {', '.join(outside)}"
    yield f"{text}."
    for name, score, figure in both:
        if score.mean > figure + 10 * PUBLISHED_MARGIN:
            more = f"{100 * (score.mean - figure):.2f} points more"
            yield f"{name} reaches {percent(score.mean)}; {percent(figure)} was published: {more}."


def remarked(results: StudyResults) -> Iterator[str]:
    """Remarks on published rows, with what was measured here."""
    for row in results.rows:
        if row.remark and (score := row.test or row.validation):
            low, high = percent(score.interval.low), percent(score.interval.high)
            printed = "" if row.published is None or results.published_on else f", published {percent(row.published)}"
            measured = f"measured {percent(score.mean)} (95 % interval {low} to {high}){printed}"
            yield f"{row.name}: {row.remark.rstrip('.')}: {measured}."
