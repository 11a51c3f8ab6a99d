"""What a study found, in sentences; each rests on the numbers that stand in it."""

from __future__ import annotations

from collections.abc import Iterator

from committee.evaluation.results import Difference, Finding, Interval, RungRow, StudyResults
from committee.report.tables import percent

PUBLISHED_MARGIN = 0.001  # a measured accuracy counts as reaching a published one down to this much below it


def findings(results: StudyResults) -> Iterator[Finding]:
    """The discussion of a study: what helped, what could not be told apart, what was published."""
    parts = {
        "overall": ladder_ends(results),
        "difference": differences(results),
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
    """Every rung against the one that it is compared with."""
    for row in results.rungs:
        if row.difference:
            yield difference_sentence(row, row.difference)
        if row.stopped:
            yield f"{row.name}: nothing was trained. {' '.join(row.audits)}."


def undecided(results: StudyResults) -> Iterator[str]:
    """What could not be told apart."""
    compared = [row for row in results.rungs if row.difference]
    names = [row.name for row in compared if row.difference and row.difference.verdict == "not distinguishable"]
    if names:
        yield (
            f"{len(names)} of {len(compared)} comparisons could not be told from chance ({', '.join(names)}): more "
            "seeds or more test images would be needed."
        )


def method(results: StudyResults) -> Iterator[str]:
    """At what level the verdicts are."""
    if number := sum(row.difference is not None for row in results.rungs):
        yield (
            f"Verdicts are at the 5 % level for all {number} comparisons together (Holm): were all rungs equally good, "
            "at most one study in twenty would report any difference."
        )


def ladder_ends(results: StudyResults) -> Iterator[str]:
    """From the least to the most accurate row."""
    scored = [(score, row) for row in results.rungs if (score := row.test or row.validation)]
    if len(scored) < 2:
        return
    (low, worst), (high, best) = (pick(scored, key=lambda pair: pair[0].mean) for pick in (min, max))
    where = "test" if results.rungs[0].test else "validation"
    if low.mean < high.mean < 1:
        fewer = (1 - low.mean) / (1 - high.mean)
        yield (
            f"From {worst.name} to {best.name} the {where} accuracy goes from {percent(low.mean)} to "
            f"{percent(high.mean)}: {fewer:,.1f} times fewer errors."
        )


def difference_sentence(row: RungRow, d: Difference) -> str:
    """What a rung changed, by how much, how surely."""
    amount = f"{100 * d.points:+.2f} points (95 % interval {points(d.interval)}, p {chance(d.p_adjusted)})"
    what = f"{row.name} ({row.change}) against {d.against}"
    if d.verdict == "not distinguishable":
        return f"{what}: no difference could be shown, {amount}."
    if d.verdict == "these two trainings differ":
        return f"{what}: these two trainings differ by {amount}; of the recipes, one training each says nothing."
    return f"{what}: {d.verdict}, {amount}."


def committees(results: StudyResults) -> Iterator[str]:
    """What voting together gives over the members."""
    for row in results.rungs:
        if row.test and row.member_test:
            mean, best = sum(row.member_test) / len(row.member_test), max(row.member_test)
            own = row.test.accuracies[0]
            if mean < 1:
                share = 100 * (own - mean) / (1 - mean)
                verb = "removes" if share >= 0 else "adds"
                than = "better than" if own > best else "no better than" if own < best else "as good as"
                yield (
                    f"{row.name}: {row.members} members alone reach {percent(mean)} on average ({percent(best)} the "
                    f"best), together {percent(own)}: voting {verb} {abs(share):.0f} % of a member's errors and is "
                    f"{than} the best member."
                )


def published(results: StudyResults) -> Iterator[str]:
    """Measured beside published, where both are for the same data."""
    if results.published_on:
        return
    known = [(row.name, row.test, row.published) for row in results.rungs]
    if results.grid:
        known += [(", ".join(cell.values), cell.test, cell.published) for cell in results.grid.cells]
    both = [(name, score.mean, figure) for name, score, figure in known if score and figure is not None]
    if not both:
        return
    below = [(name, mean, figure) for name, mean, figure in both if mean < figure - PUBLISHED_MARGIN]
    yield (
        f"{len(both) - len(below)} of {len(both)} rows reach the published accuracy (within "
        f"{100 * PUBLISHED_MARGIN:.1f} points)"
        + (
            "; below it are "
            + ", ".join(f"{name} ({percent(mean)}, published {percent(figure)})" for name, mean, figure in below)
            if below
            else ""
        )
        + "."
    )
    far = [(name, mean, figure) for name, mean, figure in both if mean > figure + 10 * PUBLISHED_MARGIN]
    for name, mean, figure in far:
        more = f"{100 * (mean - figure):.2f} points more"
        yield f"{name} reaches {percent(mean)} where {percent(figure)} was published: {more}."


def remarked(results: StudyResults) -> Iterator[str]:
    """What is said about a published row, beside what was measured."""
    for row in results.rungs:
        if row.remark and (score := row.test or row.validation):
            low, high = percent(score.interval.low), percent(score.interval.high)
            printed = "" if row.published is None or results.published_on else f", published {percent(row.published)}"
            measured = f"measured {percent(score.mean)} (95 % interval {low} to {high}){printed}"
            yield f"{row.name}: {row.remark.rstrip('.')}: {measured}."


def points(interval: Interval) -> str:
    """An interval of differences, in points."""
    return f"{100 * interval.low:+.2f} to {100 * interval.high:+.2f}"


def chance(p: float) -> str:
    """A p-value for people."""
    return "< 0.0001" if p < 0.0001 else f"= {p:.4f}" if p < 0.1 else f"= {p:.2f}"
