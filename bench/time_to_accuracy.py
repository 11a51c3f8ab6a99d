"""B2, time to accuracy on MNIST: seconds of training until the mean test accuracy reaches .990, .994, .996, .997.

    python bench/time_to_accuracy.py --data-dir DIR [--seeds 5] [--rounds 3] [--train-only]
    python bench/time_to_accuracy.py --data-dir DIR --check bench/speedrun/committee-fast --target 0.994 --seeds 10

Ours: the recipe `fast` with several numbers of epochs, all 60,000 images. Peers: P1's and P3's published recipes and
Keras's own MNIST example, evaluated after each epoch. For every recipe and epoch, committees of one to all seeds are
formed; the mean over all committees of a size that can be drawn from the seeds has to reach the target.

Accuracies and speeds are measured apart. The peers' accuracies come from PyTorch's plain loop; trainings stay in
runs/bench/, so that the command can be interrupted. Speeds are measured each time, side by side on a machine at
rest: each recipe in Keras on TensorFlow and in PyTorch, in every sensible setting, the fastest counts. A committee's
time is that of the faster way: one network after the other on both cores, or two at a time on one core each. Only
training steps count: no start, no evaluation, and for peers no augmentation. Test accuracy is the
finishing line here and chooses nothing that is shipped.

`--check` checks a submission by the rules of docs/speedrun.md, whole programs from the data to the answers; an
interrupted check goes on, and so does one with more seeds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from peers.networks import RECIPES
from side_by_side import Setting, best_settings, rounds, survey, write

HERE = Path(__file__).parent
FOLDER = Path("runs/bench")
TARGETS = (0.990, 0.994, 0.996, 0.997)
OUR_EPOCHS = (1, 2, 3, 4, 6, 8, 12)
OURS = "committee, fast"
PEER = str(HERE / "peers" / "learning_curve.py")
ON_BOTH, A_CORE_EACH = "both cores on one", "one a core"


def mnist_file(data_dir: Path | None, folder: Path) -> tuple[Path, Any]:
    """MNIST as one file for the peers, beside the record of its opened test images; and its test labels."""
    from committee import load_dataset
    from committee.data.dataset import open_test

    dataset, path = load_dataset("mnist", data_dir=data_dir), folder / "mnist.npz"
    train, test = dataset.train, open_test(dataset, folder / "test_record.jsonl", "B2 measures time to test accuracy")
    np.savez(path, images=train.pixels, labels=train.labels, test_images=test.pixels, test_labels=test.labels)
    return path, test.labels


def accuracies(probabilities: Any, labels: Any, size: int) -> list[float]:
    """Test accuracies of all committees of a size: probabilities (member, image, class), labels (image,)."""
    return [
        float((probabilities[list(chosen)].mean(0).argmax(1) == labels).mean())
        for chosen in combinations(range(len(probabilities)), size)
    ]


def points(probabilities: Any, labels: Any, epochs: int, images: int, speeds: dict[str, float]) -> Iterator[Any]:
    """Time and accuracy (mean, lowest, highest) of committees of every size after so many epochs.

    Args:
        probabilities: (member, image, class).
        labels: (image,).
        epochs: that each member has behind it.
        images: that a member sees in an epoch.
        speeds: images a second of the whole machine by the placement of networks on its cores.
    """
    for size in range(1, len(probabilities) + 1):
        trained = {ON_BOTH: size, A_CORE_EACH: 2 * ceil(size / 2)}
        seconds = min(trained[placement] * epochs * images / speed for placement, speed in speeds.items())
        found = accuracies(probabilities, labels, size)
        spread = {"accuracy": round(statistics.fmean(found), 6), "lowest": min(found), "highest": max(found)}
        yield {"members": size, "epochs": epochs, "seconds": round(seconds, 2), **spread}


def train_ours(data_dir: Path | None, seeds: int) -> dict[int, Any]:
    """Test probabilities (member, image, class) by the number of epochs: a run each."""
    from committee import load_dataset, load_recipe, train
    from committee.folders.run_folder import RunFolder

    dataset, found = load_dataset("mnist", data_dir=data_dir), {}
    for epochs in OUR_EPOCHS:
        changes = [f"training.epochs={epochs}", f"committee.members={seeds}", "holdout.kind=none"]
        recipe = load_recipe("fast", [*changes, "committee.calibration=none"])
        run = FOLDER / f"fast-{epochs}-{recipe.digest()[:8]}"
        train(dataset, recipe, run)
        members = [RunFolder(run).member(member) for member in range(seeds)]
        found[epochs] = np.stack([member.test_probabilities for member in members])
        print(f"fast, {epochs} epochs: trained", flush=True)
    return found


def curve_file(recipe: str, seed: int) -> Path:
    """Where a peer's test probabilities after each epoch are kept."""
    return FOLDER / f"{''.join(letter for letter in recipe.lower() if letter.isalnum())}-{seed}.npz"


def train_peer(recipe: str, seed: int, data: Path) -> None:
    """One training of a published recipe by PyTorch's plain loop on one core, unless it is there."""
    out = curve_file(recipe, seed)
    if not out.exists():
        part = out.with_suffix(".part.npz")
        fixed = [sys.executable, PEER, "torch", recipe, str(data), "--out", str(part), "--seed", str(seed)]
        subprocess.run(fixed, check=True, stdout=subprocess.DEVNULL)
        part.replace(out)
        print(f"{recipe}, seed {seed}: trained", flush=True)


def train_peers(seeds: int, data: Path) -> dict[str, Any]:
    """Test probabilities (member, epoch, image, class) of each published recipe; two trainings at a time."""
    longest_first = sorted(RECIPES, key=lambda recipe: -RECIPES[recipe].parameters)
    with ThreadPoolExecutor(2) as both_cores:
        jobs = [both_cores.submit(train_peer, recipe, seed, data) for recipe in longest_first for seed in range(seeds)]
        for job in jobs:
            job.result()
    return {
        recipe: np.stack(
            [np.load(curve_file(recipe, seed))["probabilities"].astype(np.float32) for seed in range(seeds)]
        )
        for recipe in RECIPES
    }


def speed_settings(data: Path) -> dict[str, list[Setting]]:
    """Of each recipe and placement every setting of every tool; ours trains a network a core."""
    found = {
        f"{OURS}: {A_CORE_EACH}": [Setting("as it is", (str(HERE / "throughput.py"), "ours", str(data), "2", "fast"))]
    }
    for recipe in RECIPES:
        for placement, threads, copies in ((ON_BOTH, "2", 1), (A_CORE_EACH, "1", 2)):
            found[f"{recipe}: {placement}"] = [
                Setting(
                    f"{tool}, {precision}{', compiled' * compiled}",
                    (PEER, tool, recipe, str(data), "--threads", threads, "--precision", precision)
                    + ("--compile",) * compiled,
                    {},
                    copies,
                )
                for tool in ("keras", "torch")
                for precision in ("float32", "bfloat16")
                for compiled in (False, True)
            ]
    return found


def measured_speeds(data: Path, turns: int) -> tuple[dict[str, dict[str, float]], dict[str, Any]]:
    """Images a second by recipe and placement, medians; and how they were measured."""
    tools = speed_settings(data)
    surveyed = survey(tools, "images_per_second")
    chosen = best_settings(tools, surveyed)
    values = rounds(chosen, "images_per_second", turns)
    speeds: dict[str, dict[str, float]] = {}
    for name, each in values.items():
        recipe, placement = name.split(": ")
        speeds.setdefault(recipe, {})[placement] = statistics.median(each)
    settings = {name: setting.name for name, setting in chosen.items()}
    return speeds, {"survey": surveyed, "settings": settings, "rounds": values}


def first(points_found: Sequence[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """The quickest point that reaches the target."""
    reached = [point for point in points_found if point["accuracy"] >= target]
    return min(reached, key=lambda point: point["seconds"]) if reached else None


def check_submission(folder: Path, target: float, seeds: int, data_dir: Path | None) -> None:
    """Run a submission, print its line of the table and write what was measured."""
    import submissions

    from committee import load_dataset
    from committee.data.dataset import open_test

    try:
        submission = submissions.read(folder)
        dataset = load_dataset("mnist", data_dir=data_dir)
        purpose = f"{submission.name} is checked for docs/speedrun.md, target {target}"
        test = open_test(dataset, FOLDER / "test_record.jsonl", purpose)
        runs = submissions.check(submission, target, seeds, dataset.train, test, FOLDER / "speedrun.jsonl")
    except submissions.SubmissionError as error:
        sys.exit(f"Error: {error}.")
    write(f"speedrun-{folder.name}-{target:g}", submissions.verdict(submission, target, runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--train-only", action="store_true", help="leave the speeds for a time when the machine rests")
    parser.add_argument("--check", type=Path, metavar="FOLDER", help="a submission to check, and nothing else")
    parser.add_argument("--target", type=float, default=0.994, help="with --check: the accuracy to reach")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    if arguments.check:
        check_submission(arguments.check, arguments.target, arguments.seeds, arguments.data_dir)
        return
    data, labels = mnist_file(arguments.data_dir, FOLDER)
    ours, peers = train_ours(arguments.data_dir, arguments.seeds), train_peers(arguments.seeds, data)
    if arguments.train_only:
        return
    speeds, conditions = measured_speeds(data, arguments.rounds)
    found = {
        OURS: [point for epochs, each in ours.items() for point in points(each, labels, epochs, 60_000, speeds[OURS])]
    }
    for recipe, published in RECIPES.items():
        found[recipe] = [
            point
            for epoch in range(published.epochs)
            for point in points(peers[recipe][:, epoch], labels, epoch + 1, published.images, speeds[recipe])
        ]
    reached = {name: {str(target): first(each, target) for target in TARGETS} for name, each in found.items()}
    print(f"{'seconds of training to a mean test accuracy of':48}" + "".join(f"{target:>22.3f}" for target in TARGETS))
    for name, each in reached.items():
        cells = [
            f"{point['seconds']:,.0f} s ({point['members']} x {point['epochs']} ep.)" if point else "not reached"
            for point in each.values()
        ]
        print(f"{name:48}" + "".join(f"{cell:>22}" for cell in cells))
    ratios = {}
    for target in map(str, TARGETS):
        seconds = {name: point["seconds"] for name, each in reached.items() if (point := each[target])}
        others = [value for name, value in seconds.items() if name != OURS]
        if OURS in seconds and others:
            ratios[target] = min(others) / seconds[OURS]
            print(f"to {target}: the best peer takes {ratios[target]:.1f} times as long")
    content = {
        "benchmark": "B2",
        "seeds": arguments.seeds,
        **conditions,
        "reached": reached,
        "ratio_to_best_peer": ratios,
    }
    write("time-to-accuracy", {**content, "points": found})


if __name__ == "__main__":
    main()
