"""The search for the shipped recipes: one change at a time, evaluated out of fold; the test images stay sealed.

    python bench/search.py bench/search/fast.toml --data mnist --data-dir DIR
    python bench/search.py bench/search/few.toml --draw 0 1 --workers 1 --data mnist --data-dir DIR

A file gives a base recipe, or the name of a shipped one, and a list of changes to try. Each is trained with as many
members as there are folds, so that every training image is predicted once, by the one member that did not train on it:
60,000 predictions of single networks on MNIST. `--members 1` judges the images of one fold only, for networks that take
long. With `--draw` small data is searched and the committee is evaluated: 4,000 training images are trained on, 20,000
others are the test part, the real one is left out; errors of several draws are added. Each line is compared with the
base on the same images (exact McNemar test). Runs go to runs/search/ and are kept: the same command again only reads
them, goes on with an interrupted one, and trains what is new in a longer file. `--only` picks.
"""

from __future__ import annotations

import argparse
import statistics
import tomllib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from committee import load_dataset, load_recipe, train
from committee.config.recipe import Recipe
from committee.config.recipe_parsing import parse, with_changes
from committee.data.dataset import ImageDataset, SealedTest
from committee.metrics.paired import mcnemar_exact
from committee.metrics.results import Results
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


def line(name: str, results: Sequence[Results], runs: Sequence[Path], bases: Sequence[Path], on: str) -> str:
    """A change's figures, all draws together: errors, mean log-loss, members' mean accuracy and seconds; the base's."""
    judged = [each.test if on == "test" else each.out_of_fold for each in results]
    found = [each for each in judged if each is not None]
    pairs = [compare_runs(base, run, on) for base, run in zip(bases, runs, strict=True)]
    only_base, only_run = sum(c.only_a_right for c in pairs), sum(c.only_b_right for c in pairs)
    members = [member for each in results for member in each.members]
    known = [part.accuracy for m in members if (part := m.test if on == "test" else m.validation) is not None]
    return (
        f"{name:24} {sum(each.errors for each in found):7,} {statistics.fmean(each.log_loss for each in found):9.5f} "
        f"{statistics.fmean(known):8.5f} {statistics.fmean(member.seconds for member in members):17.1f} "
        f"{only_base - only_run:+17,}  {mcnemar_exact(only_base, only_run):9.2g}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--draw", type=int, nargs="+", help="search on small data: numbers of draws, from 0 on")
    parser.add_argument("--members", type=int, help="fewer members than the file says, so fewer images judged")
    parser.add_argument("--workers", type=int, default=0, help="processes; 0 is one a core")
    parser.add_argument("--only", default="", help="names of changes to train, with commas; the base always is")
    arguments = parser.parse_args()
    declared = tomllib.loads(arguments.file.read_text(encoding="utf-8"))
    whole = load_dataset(arguments.data, data_dir=arguments.data_dir)
    datasets = [whole] if arguments.draw is None else [drawn(whole, draw) for draw in arguments.draw]
    on = "out-of-fold" if arguments.draw is None else "test"
    tried = {"base": [], **{name: list(changes) for name, changes in declared["tried"].items()}}
    only = arguments.only.split(",") if arguments.only else list(tried)
    fewer = [] if arguments.members is None else [f"committee.members={arguments.members}"]
    mark = "" if arguments.members is None else f"-of{arguments.members}"
    bases = [Path("runs/search") / f"{dataset.name}-{arguments.file.stem}{mark}-base" for dataset in datasets]
    head = (
        f"{'change':24} {'errors':>7} {'log-loss':>9} {'members':>8} {'seconds a member':>17} {'fewer than base':>17}"
    )
    print(f"{head}  McNemar p", flush=True)
    for name, changes in tried.items():
        if name not in only and name != "base":
            continue
        recipe = recipe_of(declared["base"], name, [*changes, *fewer], f"{arguments.file}, {name}")
        runs = [base.with_name(base.name.removesuffix("base") + name) for base in bases]
        setting = Setting(workers=arguments.workers)
        results = [
            train(dataset, recipe, run, setting, keep_sealed=on == "out-of-fold")
            for dataset, run in zip(datasets, runs, strict=True)
        ]
        print(line(name, results, runs, bases, on), flush=True)


if __name__ == "__main__":
    main()
