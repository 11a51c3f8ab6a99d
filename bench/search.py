"""The search for the shipped recipes: one change at a time, judged out of fold; the test images stay sealed.

    python bench/search.py bench/search/fast.toml --data mnist --data-dir DIR

A file gives a base recipe and a list of changes to try. Each is trained with as many members as there are folds, so
that every training image is judged once, by the one member that did not train on it: 60,000 judgements of single
networks on MNIST. Each line is compared with the base on the same images (exact McNemar test). Runs go to
runs/search/ and are kept: the same command again only reads them, a longer file trains what is new. `--only` picks.
"""

from __future__ import annotations

import argparse
import tomllib
from pathlib import Path

from committee import load_dataset, train
from committee.comparison import compare_runs
from committee.recipe_reading import parse, with_changes
from committee.run import Setting


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("file", type=Path)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--only", default="", help="names of changes to train, with commas; the base always is")
    arguments = parser.parse_args()
    declared = tomllib.loads(arguments.file.read_text(encoding="utf-8"))
    dataset = load_dataset(arguments.data, data_dir=arguments.data_dir)
    tried = {"base": [], **{name: list(changes) for name, changes in declared["tried"].items()}}
    only = arguments.only.split(",") if arguments.only else list(tried)
    base = Path("runs/search") / f"{dataset.name}-{arguments.file.stem}-base"
    print(f"{'change':24} {'errors':>7} {'log-loss':>9} {'seconds a member':>17} {'against the base':>17}  McNemar p")
    for name, changes in tried.items():
        if name not in only and name != "base":
            continue
        folder = base.with_name(f"{dataset.name}-{arguments.file.stem}-{name}")
        recipe = parse(with_changes({**declared["base"], "name": name}, changes), f"{arguments.file}, {name}")
        results = train(dataset, recipe, folder, Setting(), keep_sealed=True)
        found = results.out_of_fold
        assert found is not None
        c = compare_runs(base, folder, "out-of-fold")
        difference = c.only_a_right - c.only_b_right
        seconds = sum(member.seconds for member in results.members) / len(results.members)
        line = f"{name:24} {found.errors:7,} {found.log_loss:9.5f} {seconds:17.1f} {difference:+17,}"
        print(f"{line}  {c.mcnemar_p:9.2g}", flush=True)


if __name__ == "__main__":
    main()
