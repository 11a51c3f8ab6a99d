"""The check of a data set, measured: what it finds of planted near duplicates, how long it takes, how much memory.

    python bench/data_check.py mnist fashion-mnist [--data-dir DIR] [--draws 5] [--rounds 3]

Planting: 50 test images take the places of training images, each shifted by one pixel (any of eight directions, black
behind it), 15 % brighter or darker, saved as JPEG of quality 75, all at once. Counted are the planted pairs that the
search finds and all other pairs that it reports, the data's own near duplicates among them: in 10,000 images (8,571
training and 1,429 test images, other ones in each draw) and in the whole set. The search's limits were chosen on
training images; here test images are planted.

Time: `committee data check` on the set's files, the whole command, in turn with an epoch of `standard` (one member on
one core: a run of three epochs less one of one, halved). Memory: the peak of the process tree, as in memory.py.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from memory import peak
from PIL import Image
from side_by_side import write

SHIFTS = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1) if dy or dx]


def changed(image: np.ndarray, drawn: np.random.Generator) -> np.ndarray:
    """An image (height, width, 1), shifted, brighter or darker, through JPEG."""
    height, width = image.shape[:2]
    dy, dx = SHIFTS[drawn.integers(8)]
    moved = np.pad(image[..., 0], 1)[1 - dy : 1 - dy + height, 1 - dx : 1 - dx + width]
    lit = np.clip(np.rint(moved * drawn.choice([0.85, 1.15])), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(lit).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file))[..., None]


def planted(train: np.ndarray, test: np.ndarray, drawn: np.random.Generator) -> dict[str, int | float]:
    """What the search finds with 50 test images planted among the training images."""
    from committee.data.near_duplicates import near_duplicates, reduced

    images = np.concatenate([train, test])
    places = drawn.choice(len(train), 50, replace=False)
    sources = len(train) + drawn.choice(len(test), 50, replace=False)
    for place, source in zip(places, sources, strict=True):
        images[place] = changed(images[source], drawn)
    began = time.monotonic()
    pairs = near_duplicates(reduced(images))
    seconds = time.monotonic() - began
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    true = set(zip(places.tolist(), sources.tolist(), strict=True))
    return {"found": len(found & true), "others": len(found - true), "seconds": round(seconds, 2)}


def timed(command: list[str]) -> tuple[float, float]:
    """Seconds of a committee command, and processor seconds of it and all its processes."""
    before, began = os.times(), time.monotonic()
    subprocess.run(
        [sys.executable, "-m", "committee", *command], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    seconds, after = time.monotonic() - began, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return seconds, used


def epoch(data: list[str], folder: Path) -> tuple[float, float]:
    """Seconds and processor seconds of an epoch of one member of `standard` on one core: three epochs less one."""
    few = ["--members", "1", "--workers", "1", "--keep-sealed"]
    one, three = (
        timed(["train", *data, *few, "--epochs", str(epochs), "--out", f"{folder}-{epochs}"]) for epochs in (1, 3)
    )
    return (three[0] - one[0]) / 2, (three[1] - one[1]) / 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="+", help="names or paths of data sets of 60,000 and 10,000 images")
    parser.add_argument("--data-dir", type=Path, help="where the files of data sets with names are")
    parser.add_argument("--draws", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    from committee.data.catalog import load_dataset
    from committee.data.dataset import open_test

    results = {}
    for name in arguments.data:
        data = [name, *(["--data-dir", str(arguments.data_dir)] if arguments.data_dir else [])]
        dataset = load_dataset(name, data_dir=arguments.data_dir)
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            train = dataset.train.pixels
            test = open_test(dataset, folder / "record.jsonl", "bench/data_check.py").pixels
            small, whole = [], []
            for draw in range(arguments.draws):
                drawn = np.random.default_rng(draw)
                some = drawn.permutation(len(train))[:8571], drawn.permutation(len(test))[:1429]
                small.append(planted(train[some[0]], test[some[1]], drawn))
                whole.append(planted(train, test, drawn))
                print(f"{name}: draw {draw}: 10,000 images {small[-1]}, all {whole[-1]}", flush=True)
            times = [
                (
                    *timed(["data", "check", *data, "--out", str(folder / f"check{number}")]),
                    *epoch(data, folder / f"run{number}"),
                )
                for number in range(arguments.rounds)
            ]
            memory = peak(["data", "check", *data, "--out", str(folder / "memory")])
            listed = subprocess.run(
                [sys.executable, "-m", "committee", "data", "check", *data, "--out", str(folder / "memory"), "--json"],
                check=True,
                capture_output=True,
                text=True,
            ).stdout
        findings = [finding["kind"] for finding in json.loads(listed)["findings"]]
        seconds, processor, trained, training = (statistics.median(column) for column in zip(*times, strict=True))
        results[dataset.name] = {
            "in_10000_images": small,
            "in_all_images": whole,
            "findings": {kind: findings.count(kind) for kind in dict.fromkeys(findings)},
            "seconds": [[round(value, 2) for value in row] for row in times],
            "memory": memory,
        }
        print(
            f"{name}: check {seconds:.1f} s ({processor:.1f} processor seconds), epoch of standard {trained:.1f} s "
            f"({training:.1f}), memory {memory['whole_mb']:.0f} MB; {results[dataset.name]['findings']}",
            flush=True,
        )
    write("data_check", {"benchmark": "the check of a data set", "results": results})


if __name__ == "__main__":
    main()
