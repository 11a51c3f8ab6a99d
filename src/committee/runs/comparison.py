"""Two runs compared on the same images, from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from committee.errors import RunError, counted
from committee.folders.records import differences
from committee.folders.run_folder import RunFolder
from committee.metrics.formatting import p_value, percent, points
from committee.metrics.paired import Comparison, compare
from committee.rng import numpy_generator


def compare_runs(run_a: str | Path, run_b: str | Path, on: str = "test") -> Comparison:
    """Compare the committees of two finished runs.

    Args:
        run_a, run_b: run folders or bundles.
        on: "test" or "out-of-fold".

    Raises:
        RunError: a run is unfinished, its test images are still sealed, or the two have different images.
    """
    a, b = RunFolder.finished(run_a), RunFolder.finished(run_b)
    for run in (a, b):
        if on == "test" and run.is_sealed:
            raise RunError(
                f"the test images of {run} are still sealed; open them with committee evaluate, or use --on out-of-fold"
            )
    if on == "test":
        images, digests = "test images", [run.identity.test_images for run in (a, b)]
        labels, probabilities = [run.test_labels for run in (a, b)], [run.test_probabilities for run in (a, b)]
    else:
        images, digests = "training images", [run.identity.train_images for run in (a, b)]
        labels, probabilities = [run.train_labels for run in (a, b)], [run.out_of_fold_probabilities for run in (a, b)]
    if digests[0] != digests[1] or not np.array_equal(labels[0], labels[1]):
        raise RunError(f"{a} and {b} do not have the same {images} in the same order; compare runs on one data set")
    of_a, of_b = probabilities
    both = ~(np.isnan(of_a[:, 0]) | np.isnan(of_b[:, 0]))
    if not both.any():
        raise RunError(f"{a} and {b} have no validation image in common; compare them with --on test")
    return compare(of_a[both], of_b[both], labels[0][both], numpy_generator(0, "compare"))


def recipe_differences(a: RunFolder, b: RunFolder) -> list[str]:
    """The fields in which two runs' recipes differ, such as "committee.members: 5 in A, 20 in B"."""
    of_a, of_b = (run.recipe.model_dump(mode="json", exclude={"name", "summary", "citation"}) for run in (a, b))
    return [
        f"{section}.{field}: {value} in A, {of_b[section][field]} in B"
        for section, fields in of_a.items()
        for field, value in fields.items()
        if value != of_b[section][field]
    ]


def identity_differences(a: RunFolder, b: RunFolder) -> list[str]:
    """In what two trainings differ besides their recipes."""
    was, now = (run.identity.model_copy(update={"recipe": {}}) for run in (a, b))
    return differences(was, now, "{name}: {was} in A, {now} in B")


def as_json(comparison: Comparison) -> str:
    """All figures as one JSON object."""
    return json.dumps(vars(comparison), default=lambda interval: interval.model_dump())


def as_text(comparison: Comparison, run_a: str | Path, run_b: str | Path, on: str) -> list[str]:
    """The comparison as a few lines."""
    c, a, b = comparison, RunFolder.at(run_a), RunFolder.at(run_b)
    which = "test images" if on == "test" else "training images, out of fold and not calibrated"
    between = [*recipe_differences(a, b), *identity_differences(a, b)]
    difference, loss = c.accuracy_difference_interval, c.log_loss_difference_interval
    lines = [
        f"{c.images:,} {which}; differences are B minus A, intervals are 95 %",
        "A and B differ in:" if between else "A and B differ in nothing: they are the same training",
        *(f"  {each}" for each in between),
    ]
    for name, accuracy, interval, log_loss, run in (
        ("A", c.accuracy_a, c.accuracy_interval_a, c.log_loss_a, a),
        ("B", c.accuracy_b, c.accuracy_interval_b, c.log_loss_b, b),
    ):
        members = counted(len(run.committee.members), "member")
        lines.append(
            f"{name}  {percent(accuracy)} ({percent(interval.low)} to {percent(interval.high)})"
            f"  log-loss {log_loss:.4f}  {members}  {run}"
        )
    return [
        *lines,
        f"accuracy  {points(c.accuracy_difference)} points ({points(difference.low)} to {points(difference.high)})",
        f"log-loss  {c.log_loss_difference:+.4f} nats ({loss.low:+.4f} to {loss.high:+.4f})",
        f"only A correct {c.only_a_right:,}, only B correct {c.only_b_right:,}, both correct {c.both_right:,}, "
        f"both wrong {c.both_wrong:,}; exact McNemar p {p_value(c.mcnemar_p)}",
        c.verdict,
    ]
