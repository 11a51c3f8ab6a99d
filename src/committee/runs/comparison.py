"""Two runs compared on the same images, from their folders."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from committee.rng import numpy_generator
from committee.errors import RunError, counted
from committee.metrics.paired import Comparison, compare
from committee.report.tables import percent
from committee.folders import files as store


def compare_runs(run_a: Path, run_b: Path, on: str = "test") -> Comparison:
    """Compare the committees of two finished runs.

    Args:
        run_a, run_b: run folders.
        on: "test" or "out-of-fold".

    Raises:
        RunError: a run is unfinished, its test images are still sealed, or the two have other images.
    """
    names = {"test": ("test images", "test"), "out-of-fold": ("training images", "train")}
    images, labels_name = names[on]
    for run in (run_a, run_b):
        store.read_manifest(run)
        if on == "test" and not (run / "test_probabilities.npy").exists():
            raise RunError(
                f"the test images of {run} are still sealed; open them with committee evaluate, or use --on out-of-fold"
            )
    digests = [store.read_json(run / "identity.json")[images] for run in (run_a, run_b)]
    labels_a, labels_b = (store.read_array(run / f"{labels_name}_labels.npy") for run in (run_a, run_b))
    if digests[0] != digests[1] or not np.array_equal(labels_a, labels_b):
        raise RunError(
            f"{run_a} and {run_b} do not have the same {images} in the same order; compare runs on one data set"
        )
    file = "test_probabilities.npy" if on == "test" else "out_of_fold_probabilities.npy"
    a, b = (store.read_array(run / file) for run in (run_a, run_b))
    judged = ~(np.isnan(a[:, 0]) | np.isnan(b[:, 0]))
    if not judged.any():
        raise RunError(f"{run_a} and {run_b} have no held-out image in common; compare them with --on test")
    return compare(a[judged], b[judged], labels_a[judged], numpy_generator(0, "compare"))


def as_json(comparison: Comparison) -> str:
    """All figures as one JSON object."""
    return json.dumps(vars(comparison), default=lambda interval: interval.model_dump())


def in_words(comparison: Comparison, run_a: Path, run_b: Path, on: str) -> str:
    """The comparison as a few lines."""
    c = comparison
    which = "test images" if on == "test" else "out-of-fold judgements of training images"
    identities = [store.read_json(run / "identity.json") for run in (run_a, run_b)]
    between = store.differing(identities[0], identities[1], "{name} {was} in A, {now} in B")
    members_a, members_b = (len(store.read_json(run / "committee.json")["members"]) for run in (run_a, run_b))
    difference, loss = c.accuracy_difference_interval, c.log_loss_difference_interval
    lines = [
        f"{c.images:,} {which}; differences are B minus A, intervals hold 95 %",
        f"A and B differ in: {'; '.join(between) or 'nothing, they are the same training'}",
        f"A  {percent(c.accuracy_a)} ({percent(c.accuracy_interval_a.low)} to {percent(c.accuracy_interval_a.high)})"
        f"  log-loss {c.log_loss_a:.4f}  {counted(members_a, 'member')}  {run_a}",
        f"B  {percent(c.accuracy_b)} ({percent(c.accuracy_interval_b.low)} to {percent(c.accuracy_interval_b.high)})"
        f"  log-loss {c.log_loss_b:.4f}  {counted(members_b, 'member')}  {run_b}",
        f"accuracy  {100 * c.accuracy_difference:+.2f} points "
        f"({100 * difference.low:+.2f} to {100 * difference.high:+.2f})",
        f"log-loss  {c.log_loss_difference:+.4f} nats ({loss.low:+.4f} to {loss.high:+.4f})",
        f"only A right {c.only_a_right:,}, only B right {c.only_b_right:,}, both right {c.both_right:,}, "
        f"both wrong {c.both_wrong:,}; exact McNemar p = {c.mcnemar_p:.3g}",
        c.verdict,
    ]
    return "\n".join(lines)
