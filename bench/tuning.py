"""B8: `committee tune` against the recipe that it starts from, at equal training cost, and against plain random search.

    python bench/tuning.py textures --draws 0,1,2 --budget 2m --out runs/bench-tuning
    python bench/tuning.py --table --out runs/bench-tuning

A draw is another training set, drawn from more images than it has; its test images are others, which nothing looks at
before the end. For each draw two searches run side by side for the same time, one core each: `committee tune` as it
comes, and plain random search (every field drawn anew, every trial trained whole, the best one taken). Then `standard`
and the two winners are trained once more, each a committee of five, and the test images are opened. The table has the
mean over draws with Student's interval, and the differences draw by draw.

Sets: fashion-10, -50, -250 (Fashion-MNIST, so many images a class), fashion-tail (100 of the first class, ever fewer of
the next ones, 10 of the last; balanced accuracy), photographs (which of ten colour photographs is a crop from: those
that scikit-image and scikit-learn bring), textures (likewise, in grey, turned and enlarged at random), digits
(scikit-learn's 8x8 ones, 30 a class).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from dataclasses import replace
from importlib import resources
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from committee import load_dataset, load_recipe, train
from committee.config import space as spaces
from committee.config.recipe import Recipe
from committee.config.recipe_parsing import load as load_recipe_file
from committee.data.dataset import ImageDataset, LabelledImages, SealedTest
from committee.metrics.formatting import percent, points, seconds_of
from committee.metrics.intervals import seed_interval
from committee.metrics.tuning import ObjectiveName
from committee.rng import numpy_generator
from committee.training.setting import Setting
from committee.tuning.run import Search, tune

Images = NDArray[np.uint8]
SIDE = 24
COLOUR = ("astronaut.png", "chelsea.png", "coffee.png", "hubble_deep_field.jpg", "ihc.png", "motorcycle_left.png",
          "retina.jpg", "rocket.jpg", "china.jpg", "flower.jpg")  # fmt: skip
GREY = ("brick.png", "grass.png", "gravel.png", "camera.png", "coins.png", "moon.png", "page.png", "text.png",
        "cell.png", "ihc.png")  # fmt: skip
TEST_CROPS = 200  # of each class


# --- data sets --------------------------------------------------------------------------------------------------------


def fashion(counts: list[int], draw: int, data_dir: Path | None) -> ImageDataset:
    """Fashion-MNIST with so many training images of each class, and its own test images."""
    whole = load_dataset("fashion-mnist", data_dir=data_dir)
    order = numpy_generator("bench tuning", draw).permutation(len(whole.train))
    labels = whole.train.labels[order]
    chosen = np.concatenate([order[labels == each][:count] for each, count in enumerate(counts)])
    name = f"fashion-{'tail' if len(set(counts)) > 1 else counts[0]}-draw{draw}"
    return replace(whole, name=name, train=whole.train.part(np.sort(chosen)))


def digits(count: int, draw: int) -> ImageDataset:
    """scikit-learn's digits with so many training images of each class; all others are tested on."""
    whole = load_dataset("digits")
    order = numpy_generator("bench tuning", draw).permutation(len(whole.train))
    labels = whole.train.labels[order]
    chosen = np.concatenate([order[labels == each][:count] for each in range(10)])
    others = np.setdiff1d(order, chosen)
    train_part, test_part = whole.train.part(np.sort(chosen)), whole.train.part(others)
    return replace(whole, name=f"digits-{count}-draw{draw}", train=train_part, test=SealedTest(test_part))


def photograph(name: str, grey: bool) -> Images:
    """A sample photograph of scikit-image or scikit-learn, (height, width, channel)."""
    package = "sklearn.datasets.images" if name in ("china.jpg", "flower.jpg") else "skimage.data"
    with resources.as_file(resources.files(package) / name) as path, Image.open(path) as image:
        found = np.asarray(image.convert("L" if grey else "RGB"))
    return found[..., None] if grey else found


def crops(names: tuple[str, ...], count: int, draw: int, *, grey: bool) -> ImageDataset:
    """Crops of photographs, whose class is the photograph: training crops from the left half, test from the right.

    Textures (grey) are enlarged by 1 to 2 and turned by any multiple of 90 degrees.
    """
    parts: dict[bool, tuple[list[Images], list[int]]] = {True: ([], []), False: ([], [])}
    for label, name in enumerate(names):
        whole = photograph(name, grey)
        middle = whole.shape[1] // 2
        for training, half, number in ((True, whole[:, :middle], count), (False, whole[:, middle:], TEST_CROPS)):
            generator = numpy_generator("bench crops", draw if training else "test", label)
            pixels, labels = parts[training]
            for _ in range(number):
                side = int(SIDE * generator.uniform(1, 2)) if grey else SIDE * 2
                side = min(side, *half.shape[:2])
                top, left = (int(generator.integers(0, size - side + 1)) for size in half.shape[:2])
                crop = Image.fromarray(half[top : top + side, left : left + side].squeeze())
                small = np.asarray(crop.resize((SIDE, SIDE), Image.Resampling.BOX)).reshape(SIDE, SIDE, -1)
                pixels.append(np.rot90(small, int(generator.integers(4))) if grey else small)
                labels.append(label)
    found = {key: LabelledImages(np.ascontiguousarray(np.stack(pixels)), np.array(labels, dtype=np.int64))
             for key, (pixels, labels) in parts.items()}  # fmt: skip
    classes = tuple(name.partition(".")[0] for name in names)
    kind = "textures" if grey else "photographs"
    return ImageDataset(f"{kind}-draw{draw}", found[True], SealedTest(found[False]), classes, "sample photographs")


def tail(classes: int = 10, most: int = 100, least: int = 10) -> list[int]:
    """Ever fewer images of each class, in equal ratios."""
    return [round(most * (least / most) ** (each / (classes - 1))) for each in range(classes)]


SETS: dict[str, tuple[ObjectiveName, Callable[[int, Path | None], ImageDataset]]] = {
    "fashion-10": ("accuracy", lambda draw, data: fashion([10] * 10, draw, data)),
    "fashion-50": ("accuracy", lambda draw, data: fashion([50] * 10, draw, data)),
    "fashion-250": ("accuracy", lambda draw, data: fashion([250] * 10, draw, data)),
    "fashion-tail": ("balanced-accuracy", lambda draw, data: fashion(tail(), draw, data)),
    "photographs": ("accuracy", lambda draw, _: crops(COLOUR, 30, draw, grey=False)),
    "textures": ("accuracy", lambda draw, _: crops(GREY, 30, draw, grey=True)),
    "digits": ("accuracy", lambda draw, _: digits(30, draw)),
}

# --- one draw ---------------------------------------------------------------------------------------------------------


def search(name: str, how: str, draw: int, budget: float, cost: float, data_dir: Path | None, out: str) -> None:
    """One of the two searches of a draw, in a process of its own, on one core."""
    objective, load = SETS[name]
    asked = Search(
        load_recipe("standard"), spaces.load("everything"), objective=objective, budget=budget, cost=cost, fresh=0
    )
    if how == "random":
        asked = replace(asked, search="random", prune="none", finalists=1)
    tune(load(draw, data_dir), asked, out, Setting(seed=draw, workers=1))


def scored(recipe: Recipe, dataset: ImageDataset, objective: ObjectiveName, draw: int, out: Path) -> dict[str, float]:
    """The test score of a recipe, trained as a committee of five on a seed that no search has used."""
    results = train(dataset, recipe, out, Setting(seed=1000 + draw))
    assert results.test is not None
    score = results.test.accuracy
    if objective == "balanced-accuracy":
        assert results.test.balanced is not None
        score = results.test.balanced.accuracy
    seconds = sum(member.seconds for member in results.members)
    return {"score": score, "log_loss": results.test.log_loss, "seconds": seconds, "epochs": recipe.training.epochs}


def run_draw(name: str, draw: int, budget: float, cost: float, data_dir: Path | None, out: Path) -> None:
    """The searches and trainings of a draw; its figures go to a JSON file."""
    folder = out / f"{name}-draw{draw}-cost{cost:g}"
    if (folder / "figures.json").exists():
        return
    objective, load = SETS[name]
    dataset, began = load(draw, data_dir), time.time()
    context = multiprocessing.get_context("spawn")
    both = [
        context.Process(target=search, args=(name, how, draw, budget, cost, data_dir, str(folder / how)))
        for how in ("tpe", "random")
    ]
    for process in both:
        process.start()
    for process in both:
        process.join()
    standard = load_recipe("standard", [f"training.epochs={round(13 * cost)}"])
    recipes = {"standard": standard} | {
        how: load_recipe_file(str(folder / how / "recipe.toml")) for how in ("tpe", "random")
    }
    figures = {how: scored(recipe, dataset, objective, draw, folder / f"run-{how}") for how, recipe in recipes.items()}
    for how in ("tpe", "random"):
        found = json.loads((folder / how / "results.json").read_text())
        best = next(trial for trial in found["trials"] if trial["number"] == found["winner"])
        figures[how] |= {"trials": len(found["trials"]), "searched": best["score"]}
    (folder / "figures.json").write_text(json.dumps({"set": name, "draw": draw, "cost": cost, **figures}))
    print(name, draw, {how: round(each["score"], 4) for how, each in figures.items()}, round(time.time() - began))


# --- the table --------------------------------------------------------------------------------------------------------


def table(out: Path) -> None:
    """All draws that are there, a line for each set."""
    rows: dict[tuple[str, float], list[dict[str, dict[str, float]]]] = {}
    for path in sorted(out.glob("*/figures.json")):
        found = json.loads(path.read_text())
        rows.setdefault((found.pop("set"), found.pop("cost")), []).append(found)
    print("| data | draws | `standard` | tuned | random search | tuned - `standard` | tuned - random |"
          " trials, tuned / random | seconds a committee, `standard` / tuned |")  # fmt: skip
    print("|---|---|---|---|---|---|---|---|---|")
    for (name, cost), draws in rows.items():
        means = [percent(fmean(each[how]["score"] for each in draws)) for how in ("standard", "tpe", "random")]
        differences = [
            [each["tpe"]["score"] - each[other]["score"] for each in draws] for other in ("standard", "random")
        ]
        shown = [f"{points(fmean(each))}{interval(each)}" for each in differences]
        trials = " / ".join(f"{fmean(each[how]['trials'] for each in draws):.0f}" for how in ("tpe", "random"))
        seconds = " / ".join(f"{fmean(each[how]['seconds'] for each in draws):.1f}" for how in ("standard", "tpe"))
        print(f"| {name}{f', cost {cost:g}' if cost != 1 else ''} | {len(draws)} | {' | '.join(means)} |"
              f" {' | '.join(shown)} | {trials} | {seconds} |")  # fmt: skip


def interval(values: list[float]) -> str:
    """Student's interval over draws."""
    if len(values) < 2:
        return ""
    found = seed_interval(values)
    return f" ({points(found.low)} to {points(found.high)})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sets", nargs="*", metavar="SET", help=", ".join(SETS))
    parser.add_argument("--draws", default="0,1,2", help="numbers with commas")
    parser.add_argument("--budget", default="2m", type=seconds_of, help="of each of the two searches")
    parser.add_argument("--cost", default=1.0, type=float, help="of training, as a multiple of standard's")
    parser.add_argument("--data-dir", type=Path, help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-tuning"))
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    for draw in [] if arguments.table else map(int, arguments.draws.split(",")):
        for name in arguments.sets:
            run_draw(name, draw, arguments.budget, arguments.cost, arguments.data_dir, arguments.out)
    table(arguments.out)


if __name__ == "__main__":
    main()
