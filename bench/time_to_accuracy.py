"""B2, time to accuracy on MNIST: seconds of training until the mean test accuracy reaches .990, .994, .996, .997.

    python bench/time_to_accuracy.py --data-dir DIR [--seeds 5] [--peer-seeds 3] [--ours-only]

Ours: the recipe `fast` with several numbers of epochs, all 60,000 images. Peers: P1's and P3's published recipes and
Keras's own MNIST example, in Keras on TensorFlow and in PyTorch (bfloat16), each epoch of each training judged. For
every tool, recipe and epoch, committees of one to all seeds are formed; the mean over all committees of a size that can
be drawn from the seeds has to reach the target. Their time is that of the faster way on two cores: one network after
the other on both, or two at a time on one core each. Only training steps count: no start, no judging, and for peers not
the random changes of images. Test accuracy is the finishing line here and chooses nothing that is shipped.

Trainings are kept in runs/bench/, so that the command can be interrupted; epoch times are measured anew each time.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from itertools import combinations
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
from peers.networks import RECIPES
from side_by_side import write

HERE = Path(__file__).parent
FOLDER = Path("runs/bench")
TARGETS = (0.990, 0.994, 0.996, 0.997)
OUR_EPOCHS = (1, 2, 3, 4, 6, 8, 12)
TOOLS = {"keras": "Keras on TensorFlow", "torch": "plain PyTorch, bfloat16"}


def mnist_file(data_dir: Path | None, folder: Path) -> tuple[Path, Any]:
    """MNIST as one file for the peers, beside the record of its opened test images; and its test labels."""
    from committee import load_dataset
    from committee.data.dataset import open_test

    dataset, path = load_dataset("mnist", data_dir=data_dir), folder / "mnist.npz"
    train, test = dataset.train, open_test(dataset, folder / "test_record.jsonl", "B2 measures time to test accuracy")
    np.savez(path, images=train.pixels, labels=train.labels, test_images=test.pixels, test_labels=test.labels)
    return path, test.labels


def mean_accuracy(probabilities: Any, labels: Any, size: int) -> float:
    """Mean test accuracy of all committees of a size: probabilities (member, image, class), labels (image,)."""
    found = [
        float((probabilities[list(chosen)].mean(0).argmax(1) == labels).mean())
        for chosen in combinations(range(len(probabilities)), size)
    ]
    return statistics.fmean(found)


def points(
    probabilities: Any, labels: Any, epochs: int, together: float | None, side_by_side: float
) -> Iterator[dict[str, Any]]:
    """Time and accuracy of committees of every size after so many epochs.

    Args:
        probabilities: (member, image, class).
        labels: (image,).
        epochs: that each member has behind it.
        together: seconds of an epoch of one network on both cores, None if never measured.
        side_by_side: of two networks, a core each.
    """
    for size in range(1, len(probabilities) + 1):
        seconds = ceil(size / 2) * epochs * side_by_side
        if together is not None:
            seconds = min(seconds, size * epochs * together)
        accuracy = mean_accuracy(probabilities, labels, size)
        yield {"members": size, "epochs": epochs, "seconds": seconds, "accuracy": accuracy}


def ours(data_dir: Path | None, seeds: int, labels: Any) -> list[dict[str, Any]]:
    """Our points: a run for each number of epochs."""
    from committee import load_dataset, load_recipe, train
    from committee.training import store

    dataset, found = load_dataset("mnist", data_dir=data_dir), []
    for epochs in OUR_EPOCHS:
        changes = [f"training.epochs={epochs}", f"committee.members={seeds}", "holdout.kind=none"]
        recipe = load_recipe("fast", [*changes, "committee.calibration=none"])
        run = FOLDER / f"fast-{epochs}-{recipe.digest()[:8]}"
        train(dataset, recipe, run)
        folders = [store.member_folder(run, member) for member in range(seeds)]
        lines = [line for folder in folders for line in store.read_history(folder)]
        an_epoch = statistics.median(len(dataset.train) / line["images_per_second"] for line in lines)
        probabilities = np.stack([store.read_array(folder / "test_probabilities.npy") for folder in folders])
        found += points(probabilities, labels, epochs, None, an_epoch)
        print(f"fast, {epochs} epochs of {an_epoch:.1f} s: {found[-seeds]['accuracy']:.4f}", flush=True)
    return found


def curve(tool: str, recipe: str, data: Path, out: Path, *, seed: int, threads: int, epochs: int | None) -> Any:
    """A running peer."""
    more = [] if epochs is None else ["--epochs", str(epochs)]
    fixed = [str(HERE / "peers" / "learning_curve.py"), tool, recipe, str(data), str(out)]
    settings = ["--seed", str(seed), "--threads", str(threads), *more]
    return subprocess.Popen([sys.executable, *fixed, *settings], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


def finished(processes: Sequence[Any]) -> None:
    """Wait for peers."""
    statuses = [process.wait() for process in processes]
    if any(statuses):
        raise SystemExit(f"a peer failed: {' '.join(processes[0].args)}")


def epoch_seconds(tool: str, recipe: str, data: Path) -> tuple[float, float]:
    """An epoch, the second one, of one network on both cores, and of two at a time."""
    outs = [FOLDER / f"timing-{number}.npz" for number in range(3)]
    finished([curve(tool, recipe, data, outs[0], seed=0, threads=2, epochs=2)])
    finished([curve(tool, recipe, data, out, seed=0, threads=1, epochs=2) for out in outs[1:]])
    together, *apart = (float(np.load(out)["seconds"][1]) for out in outs)
    return together, statistics.fmean(apart)


def peer_points(data: Path, seeds: int, labels: Any) -> dict[str, list[dict[str, Any]]]:
    """The points of each published recipe in the tool that trains it faster."""
    found = {}
    for recipe, published in RECIPES.items():
        times = {tool: epoch_seconds(tool, recipe, data) for tool in TOOLS}
        for tool, (together, apart) in times.items():
            print(f"{recipe} in {TOOLS[tool]}: {together:.1f} s an epoch, two at a time {apart:.1f} s", flush=True)
        tool = min(times, key=lambda each: min(times[each][0], times[each][1] / 2))
        stem = f"{tool}-{recipe.lower().replace(', ', '-').replace(' ', '-').replace(chr(39), '')}"
        outs = [FOLDER / f"{stem}-{seed}.npz" for seed in range(seeds)]
        missing = [seed for seed, out in enumerate(outs) if not out.exists()]
        for pair in (missing[i : i + 2] for i in range(0, len(missing), 2)):
            finished([curve(tool, recipe, data, outs[seed], seed=seed, threads=1, epochs=None) for seed in pair])
        curves = np.stack([np.load(out)["probabilities"] for out in outs]).astype(np.float32)
        name = f"{recipe}, {TOOLS[tool]}"
        found[name] = [
            point for e in range(published.epochs) for point in points(curves[:, e], labels, e + 1, *times[tool])
        ]
        best = max(found[name], key=lambda point: point["accuracy"])
        print(f"{name}: best {best['accuracy']:.4f}", flush=True)
    return found


def first(points_found: Sequence[dict[str, Any]], target: float) -> dict[str, Any] | None:
    """The quickest point that reaches the target."""
    reached = [point for point in points_found if point["accuracy"] >= target]
    return min(reached, key=lambda point: point["seconds"]) if reached else None


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--peer-seeds", type=int, default=3)
    parser.add_argument("--ours-only", action="store_true")
    arguments = parser.parse_args()
    FOLDER.mkdir(parents=True, exist_ok=True)
    data, labels = mnist_file(arguments.data_dir, FOLDER)
    found = {"committee, fast": ours(arguments.data_dir, arguments.seeds, labels)}
    if not arguments.ours_only:
        found |= peer_points(data, arguments.peer_seeds, labels)
    reached = {name: {str(target): first(each, target) for target in TARGETS} for name, each in found.items()}
    print(f"{'seconds of training to a mean test accuracy of':48}" + "".join(f"{target:>22.3f}" for target in TARGETS))
    for name, each in reached.items():
        cells = [
            f"{point['seconds']:,.0f} s ({point['members']} x {point['epochs']} ep.)" if point else "not reached"
            for point in each.values()
        ]
        print(f"{name:48}" + "".join(f"{cell:>22}" for cell in cells))
    if not arguments.ours_only:
        facts = {"seeds": arguments.seeds, "peer_seeds": arguments.peer_seeds}
        write("time-to-accuracy", {"benchmark": "B2", **facts, "reached": reached, "points": found})


if __name__ == "__main__":
    main()
