"""The records: what recipes reach on real test images, over several trainings that share no member.

    python bench/records.py few --data-dir DIR               # 4,000 images of MNIST, five draws of them; a minute each
    python bench/records.py mnist --data-dir DIR             # MNIST, `best`, three committees
    python bench/records.py clothes --data-dir DIR           # Fashion-MNIST, one recipe without --set, three committees

Recipes are chosen by bench/search.py on training images; this opens the test images once for each training, at its end,
and notes it in the run's folder. Trainings stay in runs/records/: the same command goes on with an interrupted one and
reads those that are there, so the seconds are of those alone that were trained in one go.
"""

from __future__ import annotations

import argparse
import statistics
import time
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
from search import drawn
from side_by_side import write

from committee import load_dataset, load_recipe, train
from committee.folders.run_folder import RunFolder
from committee.metrics.repeats import score_repeats
from committee.training.setting import Setting

FOLDER = Path("runs/records")


class Record(NamedTuple):
    """A record: the data set, the recipe, the goal for the mean accuracy, the seeds, and whether each draws images."""

    data: str
    recipe: str
    goal: float
    seeds: tuple[int, ...]
    drawn: bool = False


RECORDS = {
    "few": Record("mnist", "few", 0.9945, (10, 11, 12, 13, 14), drawn=True),  # draws 0 to 9 are the search's
    "mnist": Record("mnist", "best", 0.9983, (0, 1, 2)),
    "clothes": Record("fashion-mnist", "clothes", 0.955, (0, 1, 2)),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", choices=list(RECORDS))
    parser.add_argument("--seeds", type=int, nargs="+", help="others than the record's, for a part of them at a time")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one a core")
    parser.add_argument("--data-dir", type=Path)
    arguments = parser.parse_args()
    record = RECORDS[arguments.record]
    dataset, recipe = load_dataset(record.data, data_dir=arguments.data_dir), load_recipe(record.recipe)
    right, rows = [], []
    for seed in arguments.seeds or record.seeds:
        images = replace(drawn(dataset, seed), test=dataset.test) if record.drawn else dataset
        run = RunFolder(FOLDER / f"{arguments.record}-{seed}-{recipe.digest()[:8]}")
        began, fresh = time.perf_counter(), not run.path.exists()
        results = train(images, recipe, run.path, Setting(seed=seed, workers=arguments.workers))
        seconds = round(time.perf_counter() - began, 1) if fresh else None
        assert results.test is not None
        right.append((run.test_probabilities.argmax(1) == run.test_labels).astype(float))
        members = [member.test.accuracy for member in results.members if member.test]
        rows.append(
            {
                "seed": seed,
                "accuracy": results.test.accuracy,
                "errors": results.test.errors,
                "members": [min(members), statistics.fmean(members), max(members)],
                "openings": len(results.test_openings),
                "seconds": seconds,
            }
        )
        took = f"{seconds} s" if fresh else "trained before"
        print(f"seed {seed}: {results.test.accuracy:.4f}, members {statistics.fmean(members):.4f}, {took}", flush=True)
    score = score_repeats(np.stack(right))
    low, high = score.interval.low, score.interval.high
    reached = "reached" if score.mean >= record.goal else "not reached"
    print(
        f"{record.recipe} on {record.data}: mean {score.mean:.5f} ({low:.5f} to {high:.5f} over seeds and images) "
        f"of {len(rows)}; the goal of {record.goal} is {reached}"
    )
    found = {"accuracy": score.mean, "interval": [low, high], "goal": record.goal, "trainings": rows}
    write(f"records-{arguments.record}", {"record": arguments.record, "recipe": recipe.content(), **found})


if __name__ == "__main__":
    main()
