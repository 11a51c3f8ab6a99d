"""What checkpoints cost: the share of a member's training time, the milliseconds and bytes of one.

    python bench/checkpoints.py [--seconds 70] [--every 30] [--recipe standard ...] [--out FOLDER]

A member trains on random images of MNIST's size in this process; FOLDER, on the disk that is to be measured, holds its
checkpoints.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import write

IMAGES = 12_000


def measured(recipe_name: str, seconds: float, every: float, folder: Path) -> dict[str, float]:
    """Train a member by a recipe for so long, with checkpoints so often."""
    from committee.config.recipe_parsing import load
    from committee.data.dataset import LabelledImages
    from committee.folders.member_folder import MemberFolder
    from committee.nn.devices import pick_precision
    from committee.training.jobs import Checkpoints, Job, execute
    from committee.training.shared_images import shared
    from committee.training.state import TrainingState

    costs: list[float] = []
    sizes: list[int] = []
    original = Checkpoints.write

    def timed(self: Checkpoints, state: TrainingState) -> None:
        began = time.perf_counter()
        original(self, state)
        costs.append(time.perf_counter() - began)
        sizes.append(self.latest.stat().st_size if self.latest else 0)

    rng = np.random.default_rng(0)
    images = LabelledImages(
        rng.integers(0, 255, (IMAGES, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, IMAGES, dtype=np.int64)
    )
    recipe = load(recipe_name, ["training.epochs=10000", "training.patience=0"])
    with shared(images) as (files,):
        assert files is not None
        job = Job(
            recipe, 0, 0, files, np.arange(IMAGES - IMAGES // 10, IMAGES), 10, "cpu", pick_precision("auto", "cpu"),
            folder=MemberFolder(folder / recipe_name), checkpoint_seconds=every,
        )  # fmt: skip
        Checkpoints.write = timed  # type: ignore[method-assign]
        began = time.perf_counter()
        for _ in execute(job):
            if time.perf_counter() - began > seconds:
                break
        whole = time.perf_counter() - began
        Checkpoints.write = original  # type: ignore[method-assign]
    return {
        "seconds": round(whole, 1),
        "checkpoints": len(costs),
        "milliseconds_each": round(statistics.median(costs) * 1000, 1),
        "milliseconds_longest": round(max(costs) * 1000, 1),
        "bytes": max(sizes),
        "percent_of_training": round(100 * sum(costs) / whole, 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=70.0, help="of training with each recipe")
    parser.add_argument("--every", type=float, default=30.0, help="seconds between checkpoints; 0: after every step")
    parser.add_argument("--recipe", action="append", help="may be given several times")
    parser.add_argument("--out", type=Path, help="where checkpoints are written, instead of the folder for such files")
    arguments = parser.parse_args()
    found = {}
    with tempfile.TemporaryDirectory(dir=arguments.out) as name:
        for recipe in arguments.recipe or ["standard", "ensemble-cnn"]:
            found[recipe] = row = measured(recipe, arguments.seconds, arguments.every, Path(name))
            print(
                f"{recipe:14} {row['seconds']:6.1f} s of training, {row['checkpoints']} checkpoints of "
                f"{row['bytes'] / 1e6:.2f} MB in {row['milliseconds_each']:.1f} ms (the longest "
                f"{row['milliseconds_longest']:.1f} ms): {row['percent_of_training']:.3f} % of the time",
                flush=True,
            )
    write("checkpoints", {"every": arguments.every, "recipes": found})


if __name__ == "__main__":
    main()
