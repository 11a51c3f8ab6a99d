"""B9: `committee tune` against the recipe that it starts from, at equal training cost, and against plain random search.

    python bench/tuning.py textures photographs --draws 0,1,2 --trials 20 --out runs/bench-tuning
    python bench/tuning.py --table --out runs/bench-tuning

A draw is another training set, drawn from more images than it has; its test images are others, which nothing looks at
before the end. For each draw `committee tune` tries so many recipes as it comes (without fresh seeds, which change no
choice); plain random search (every field drawn anew, every trial trained whole, the best one taken) then gets as many
trials as the same training cost allows. Last, `standard` and the two winners are trained as committees of five on a
seed that no search has used, and the test images are opened. The table has the mean over draws with Student's interval
and the differences draw by draw. Cost is that of `tuning/cost.py`, so that a busy machine changes no figure.

Sets: fashion-10, -50, -250 (Fashion-MNIST, so many images a class), fashion-tail (60 of the first class, ever fewer of
the next ones, 6 of the last; balanced accuracy), photographs (which of ten colour photographs is a crop from: those
that scikit-image and scikit-learn bring), textures (likewise, in grey, turned and enlarged at random), digits
(scikit-learn's 8x8 ones, 30 a class).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from importlib import resources
from pathlib import Path
from statistics import fmean

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from committee import CommitteeClassifier, load_dataset, load_recipe
from committee.config import space as spaces
from committee.config.recipe import Recipe
from committee.config.recipe_parsing import load as load_recipe_file
from committee.data.dataset import ImageDataset, LabelledImages, SealedTest, open_test
from committee.metrics.formatting import percent, points
from committee.metrics.intervals import seed_interval
from committee.metrics.scores import score
from committee.metrics.tuning import ObjectiveName, TuningResults
from committee.rng import numpy_generator
from committee.training.setting import Setting
from committee.tuning.run import Search, tune

Images = NDArray[np.uint8]
Figures = dict[str, float]
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


def tail(classes: int = 10, most: int = 60, least: int = 6) -> list[int]:
    """Ever fewer images of each class, in equal ratios."""
    return [round(most * (least / most) ** (each / (classes - 1))) for each in range(classes)]


SETS: dict[str, tuple[ObjectiveName, Callable[[int, Path | None], ImageDataset]]] = {
    "fashion-10": ("accuracy", lambda draw, data: fashion([10] * 10, draw, data)),
    "fashion-50": ("accuracy", lambda draw, data: fashion([50] * 10, draw, data)),
    "fashion-250": ("accuracy", lambda draw, data: fashion([250] * 10, draw, data)),
    "fashion-tail": ("balanced-accuracy", lambda draw, data: fashion(tail(), draw, data)),
    "photographs": ("accuracy", lambda draw, _: crops(COLOUR, 10, draw, grey=False)),
    "textures": ("accuracy", lambda draw, _: crops(GREY, 15, draw, grey=True)),
    "digits": ("accuracy", lambda draw, _: digits(30, draw)),
}

# --- one draw ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Draw:
    """What is compared, on which draw of which set."""

    name: str
    number: int
    trials: int
    cost: float
    data_dir: Path | None
    out: Path

    @property
    def folder(self) -> Path:
        """Where its searches are, and its figures."""
        return self.out / f"{self.name}-draw{self.number}-cost{self.cost:g}"


def spent(results: TuningResults) -> float:
    """What a search has trained, as a multiple of the starting recipe on all folds."""
    again = [each.number for each in results.finalists if each.again is not None]
    costs = {trial.number: trial.cost for trial in results.trials}
    whole = sum(trial.cost * trial.folds / results.folds for trial in results.trials)
    return whole + sum(costs[number] for number in again)


def tuned(draw: Draw, dataset: ImageDataset, asked: Search) -> TuningResults:
    """`committee tune` as it comes."""
    return tune(dataset, asked, draw.folder / "tpe", Setting(seed=draw.number, workers=1))


def random_search(draw: Draw, dataset: ImageDataset, asked: Search, budget: float) -> TuningResults:
    """Plain random search until it has spent as much; the starting recipe is its first trial, too."""
    plain = replace(asked, search="random", prune="none", finalists=1)
    trials = max(2, round(budget))
    while True:
        asked_now = replace(plain, trials=trials)
        found = tune(dataset, asked_now, draw.folder / "random", Setting(seed=draw.number, workers=1))
        if (left := budget - spent(found)) <= 0.3:
            return found
        trials += max(1, round(left / (spent(found) / trials)))


def scored(recipe: Recipe, dataset: ImageDataset, test: LabelledImages, objective: ObjectiveName, draw: int) -> Figures:
    """The test score of a recipe, trained as a committee of five on a seed that no search has used."""
    model = CommitteeClassifier(recipe, random_state=10_000 + draw)
    began = time.process_time()
    model.fit(dataset.train.pixels, dataset.train.labels)
    seconds = time.process_time() - began
    found = score(model.predict_proba(test.pixels), test.labels, dataset.class_names)
    value = found.accuracy
    if objective == "balanced-accuracy":
        assert found.balanced is not None
        value = found.balanced.accuracy
    return {"score": value, "log_loss": found.log_loss, "seconds": seconds, "epochs": recipe.training.epochs}


def run_draw(draw: Draw) -> None:
    """The searches and trainings of a draw; its figures go to a JSON file."""
    if (draw.folder / "figures.json").exists():
        return
    objective, load = SETS[draw.name]
    dataset, began = load(draw.number, draw.data_dir), time.process_time()
    asked = Search(
        load_recipe("standard"), spaces.load("everything"), objective=objective, trials=draw.trials, cost=draw.cost,
        fresh=0,
    )  # fmt: skip
    found = {"tpe": tuned(draw, dataset, asked)}
    found["random"] = random_search(draw, dataset, asked, spent(found["tpe"]))
    test = open_test(dataset, draw.folder / "test_record.jsonl", "the end of the benchmark")
    recipes = {"standard": load_recipe("standard", [f"training.epochs={round(13 * draw.cost)}"])} | {
        how: load_recipe_file(str(draw.folder / how / "recipe.toml")) for how in found
    }
    figures = {how: scored(recipe, dataset, test, objective, draw.number) for how, recipe in recipes.items()}
    for how, results in found.items():
        best = next(trial for trial in results.trials if trial.number == results.winner)
        figures[how] |= {"trials": len(results.trials), "searched": best.score or 0.0, "spent": spent(results)}
    line = {"set": draw.name, "draw": draw.number, "cost": draw.cost, **figures}
    (draw.folder / "figures.json").write_text(json.dumps(line))
    shown = {how: round(each["score"], 4) for how, each in figures.items()}
    print(draw.name, draw.number, shown, f"{time.process_time() - began:.0f} s of a core", flush=True)


def export(draw: Draw, folder: Path) -> None:
    """A draw as an NPZ file, for `bench/peers/autokeras_search.py`."""
    dataset = SETS[draw.name][1](draw.number, draw.data_dir)
    folder.mkdir(parents=True, exist_ok=True)
    test = open_test(dataset, folder / "test_record.jsonl", "a draw for other programs")
    np.savez(
        folder / f"{draw.name}-draw{draw.number}.npz",
        images=dataset.train.pixels,
        labels=dataset.train.labels,
        test_images=test.pixels,
        test_labels=test.labels,
    )


# --- the table --------------------------------------------------------------------------------------------------------


def table(out: Path) -> None:
    """All draws that are there, a line for each set."""
    rows: dict[tuple[str, float], list[dict[str, dict[str, float]]]] = {}
    for path in sorted(out.glob("*/figures.json")):
        found = json.loads(path.read_text())
        rows.setdefault((found.pop("set"), found.pop("cost")), []).append(found)
    print("| data | draws | `standard` | tuned | random search | tuned - `standard` | tuned - random |"
          " trials, tuned / random | core seconds a committee, `standard` / tuned |")  # fmt: skip
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
    parser.add_argument("--trials", default=20, type=int, help="of committee tune")
    parser.add_argument("--cost", default=1.0, type=float, help="of training, as a multiple of standard's")
    parser.add_argument("--at-once", default=2, type=int, help="draws side by side, a core each")
    parser.add_argument("--data-dir", type=Path, help="where Fashion-MNIST is")
    parser.add_argument("--out", type=Path, default=Path("runs/bench-tuning"))
    parser.add_argument("--export", type=Path, help="only write the draws as NPZ files into this folder, for others")
    parser.add_argument("--table", action="store_true", help="only print what is there")
    arguments = parser.parse_args()
    draws = [
        Draw(name, draw, arguments.trials, arguments.cost, arguments.data_dir, arguments.out)
        for draw in map(int, arguments.draws.split(","))
        for name in arguments.sets
    ]
    if arguments.export:
        for each in draws:
            export(each, arguments.export)
        return
    if not arguments.table:
        with ProcessPoolExecutor(arguments.at_once, multiprocessing.get_context("spawn")) as pool:
            for _ in pool.map(run_draw, draws):
                pass
    table(arguments.out)


if __name__ == "__main__":
    main()
