"""A student beside its teacher, as text: for the page and the terminal."""

from __future__ import annotations

from committee.metrics.formatting import NOTHING, interval_text, number, percent, points
from committee.metrics.results import Contender, Distillation

HEADINGS = ("", "accuracy", "95 % interval", "difference (95 %)", "size", "multiply-adds", "one image", "images/s")
WHERE = {"test": "test images", "out of fold": "training images, out of fold"}


def where(distillation: Distillation) -> str:
    """The images of the accuracies, such as "10,000 test images"; "" where there are none."""
    scores = [row.score for row in distillation.rows if row.who == "student"]
    return f"{number(scores[0].images)} {WHERE[distillation.on]}" if scores[0] else ""


def cells(distillation: Distillation) -> tuple[tuple[str, ...], ...]:
    """The rows under HEADINGS."""
    return tuple(_cells(row) for row in distillation.rows)


def _cells(row: Contender) -> tuple[str, ...]:
    who = f"{row.who}, {row.members} members" if row.who == "committee" else row.who
    costs = (
        f"{row.bytes / 1e6:.2f} MB",
        f"{row.multiply_adds / 1e6:.1f} M",
        f"{row.milliseconds:.2f} ms",
        number(round(row.images_per_second)),
    )
    score = row.score
    if score is None:
        return (who, NOTHING, NOTHING, NOTHING, *costs)
    difference = NOTHING
    if score.difference is not None and score.difference_interval is not None:
        difference = f"{points(score.difference)} ({interval_text(score.difference_interval, points)})"
    return (who, percent(score.accuracy), interval_text(score.interval), difference, *costs)
