"""The search for the shipped recipes: one change at a time, evaluated out of fold; the test images stay sealed.

    python bench/search.py bench/search/fast.toml --data mnist --data-dir DIR
    python bench/search.py bench/search/standard.toml --draw 0 --data mnist --data-dir DIR

A file gives a base recipe, or the name of a shipped one, and a list of changes to try. Each is trained with as many
members as there are folds, so that every training image is predicted once, by the one member that did not train on it:
60,000 predictions of single networks on MNIST. With `--draw` small data is searched and the committee is evaluated:
4,000 training images are trained on, 20,000 others are the test part, the real one is left out. Each line is compared
with the base on the same images (exact McNemar test). Runs go to runs/search/ and are kept: the same command again
only reads them, a longer file trains what is new. `--only` picks.
"""

from __future__ import annotations

import argparse
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

from committee import load_dataset, load_recipe, train
from committee.config.recipe import Recipe
from committee.config.recipe_parsing import parse, with_changes
from committee.data.dataset import ImageDataset, SealedTest
from committee.rng import numpy_generator
from committee.runs.comparison import compare_runs
from committee.training.setting import Setting

SMALL, OTHERS = 4_000, 20_000  # images of a draw: trained on, evaluated on


def drawn(dataset: ImageDataset, draw: int) -> ImageDataset:
    """A small set out of a large one's training images, others of which are its test part."""
    order = numpy_generator(draw, "draw").permutation(len(dataset.train))
    train, others = (dataset.train.part(order[part]) for part in (slice(SMALL), slice(SMALL, SMALL + OTHERS)))
    return replace(dataset, name=f"{dataset.name}-draw{draw}", train=train, test=SealedTest(others))


def recipe_of(base: str | dict[str, Any], name: str, changes: list[str], where: str) -> Recipe:
    """The base recipe, changed; `where` it is declared, for messages."""
    if isinstance(base, str):
        return load_recipe(base, changes)
    return parse(with_changes({**base, "name": name}, changes), where)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--draw", type=int, help="search on small data: the number of the draw, from 0 on")
    parser.add_argument("--only", default="", help="names of changes to train, with commas; the base always is")
    arguments = parser.parse_args()
    declared = tomllib.loads(arguments.file.read_text(encoding="utf-8"))
    dataset = load_dataset(arguments.data, data_dir=arguments.data_dir)
    if arguments.draw is not None:
        dataset = drawn(dataset, arguments.draw)
    on = "out-of-fold" if arguments.draw is None else "test"
    tried = {"base": [], **{name: list(changes) for name, changes in declared["tried"].items()}}
    only = arguments.only.split(",") if arguments.only else list(tried)
    base = Path("runs/search") / f"{dataset.name}-{arguments.file.stem}-base"
    print(f"{'change':24} {'errors':>7} {'log-loss':>9} {'seconds a member':>17} {'against the base':>17}  McNemar p")
    for name, changes in tried.items():
        if name not in only and name != "base":
            continue
        folder = base.with_name(f"{dataset.name}-{arguments.file.stem}-{name}")
        recipe = recipe_of(declared["base"], name, changes, f"{arguments.file}, {name}")
        results = train(dataset, recipe, folder, Setting(), keep_sealed=on == "out-of-fold")
        found = results.test if on == "test" else results.out_of_fold
        assert found is not None
        c = compare_runs(base, folder, on)
        difference = c.only_a_right - c.only_b_right
        seconds = sum(member.seconds for member in results.members) / len(results.members)
        line = f"{name:24} {found.errors:7,} {found.log_loss:9.5f} {seconds:17.1f} {difference:+17,}"
        print(f"{line}  {c.mcnemar_p:9.2g}", flush=True)


if __name__ == "__main__":
    main()
