"""How well `committee audit` finds wrong labels: they are flipped, a committee is trained on them, its ranking judged.

    python bench/label_audit.py --data mnist --data-dir DIR --seeds 1,2
    python bench/label_audit.py --data fashion-mnist --data-dir DIR --seeds 100 --images 20000

For each seed, 3 % of the training labels are flipped: "uniform" to any other class, "confused" to the class that the
committee of the uniform flips confuses most with the true one. The test images stay sealed. Every ranking is computed
from the same out-of-fold probabilities: this package's, and cleanlab's by its defaults (`get_label_quality_scores`:
self-confidence; `find_label_issues`: prune by noise rate), where cleanlab is installed. Runs go to runs/label-audit/
and are kept: the same command again only reads them.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee import load_dataset, load_recipe, train
from committee.data.dataset import ImageDataset, Labels, SealedTest
from committee.errors import require
from committee.folders.run_folder import RunFolder
from committee.metrics.label_errors import find_label_errors
from committee.rng import numpy_generator
from committee.training.setting import Setting

RUNS = Path("runs/label-audit")
BOOTSTRAPS = 1000


def part_of(dataset: ImageDataset, images: int | None, seed: int) -> ImageDataset:
    """The data set, or a small one of so many of its training images."""
    if images is None:
        return dataset
    order = numpy_generator(seed, "part").permutation(len(dataset.train))
    train, rest = (dataset.train.part(order[part]) for part in (slice(images), slice(images, images + 1_000)))
    return replace(dataset, name=f"{dataset.name}-{images}", train=train, test=SealedTest(rest))


def flipped(labels: Labels, classes: int, share: float, seed: int, towards: Labels | None) -> Labels:
    """The labels with a share of them wrong: towards a class for each class (class,), or any other where it is None."""
    random = numpy_generator(seed, "flips", "uniform" if towards is None else "confused")
    chosen = random.choice(len(labels), round(share * len(labels)), replace=False)
    wrong = labels.copy()
    by_chance = (labels[chosen] + random.integers(1, classes, len(chosen))) % classes
    wrong[chosen] = by_chance if towards is None else towards[labels[chosen]]
    return wrong


def most_confused(probabilities: NDArray[np.float64], true: Labels) -> Labels:
    """(class,): the other class that each class's images are taken for most."""
    classes = probabilities.shape[1]
    confusion = np.stack([probabilities[true == each].mean(axis=0) for each in range(classes)])
    np.fill_diagonal(confusion, -1)
    return np.asarray(confusion.argmax(axis=1), np.int64)


def trained(dataset: ImageDataset, labels: Labels, recipe_name: str, name: str) -> RunFolder:
    """The run on these labels, test images sealed; one that is there is read."""
    changes = [] if recipe_name != "fast" else ["holdout.kind=folds", "holdout.folds=5", "committee.members=5"]
    noisy = replace(dataset, name=name, train=replace(dataset.train, labels=labels))
    train(noisy, load_recipe(recipe_name, changes), RUNS / name, Setting(), keep_sealed=True)
    return RunFolder.finished(RUNS / name)


@dataclass(frozen=True)
class Found:
    """How well a ranking and a set of suggestions find what was flipped. Fractions.

    Attributes:
        in_first_4: of the flipped labels in the first 4 % of the ranking; `in_first_3` likewise.
        average_precision: of the ranking.
        suggested, precision, recall: labels that are suggested, the flipped ones' share of them, and the other way.
    """

    in_first_4: float
    in_first_3: float
    average_precision: float
    suggested: int
    precision: float
    recall: float


def judged(scores: NDArray[np.float64], suggested: NDArray[np.bool_], wrong: NDArray[np.bool_]) -> Found:
    """A ranking by falling scores (image,) and suggestions (image,), compared with what was flipped (image,)."""
    flips, order = int(wrong.sum()), np.argsort(-scores, kind="stable")
    hits = np.cumsum(wrong[order])
    return Found(
        in_first_4=hits[round(0.04 * len(wrong)) - 1] / flips,
        in_first_3=hits[flips - 1] / flips,
        average_precision=average_precision(scores, wrong),
        suggested=int(suggested.sum()),
        precision=float(wrong[suggested].mean()),
        recall=float((wrong & suggested).sum() / flips),
    )


def average_precision(scores: NDArray[np.float64], wrong: NDArray[np.bool_]) -> float:
    """The mean over flipped labels of the share of flipped ones down to their place in the ranking."""
    sorted_ = wrong[np.argsort(-scores, kind="stable")]
    places = np.flatnonzero(sorted_) + 1
    return float((np.arange(1, len(places) + 1) / places).mean())


def difference(
    ours: NDArray[np.float64], theirs: NDArray[np.float64], wrong: NDArray[np.bool_], seed: int
) -> tuple[float, float]:
    """A 95 % interval of the difference in average precision, by a paired bootstrap over images."""
    random, found = numpy_generator(seed, "bootstrap"), []
    for _ in range(BOOTSTRAPS):
        drawn = random.integers(0, len(wrong), len(wrong))
        found.append(average_precision(ours[drawn], wrong[drawn]) - average_precision(theirs[drawn], wrong[drawn]))
    low, high = np.quantile(found, (0.025, 0.975))
    return float(low), float(high)


def compared(run: RunFolder, true: Labels, seed: int) -> dict[str, object]:
    """This package's ranking and cleanlab's on the same out-of-fold probabilities."""
    probabilities, labels = run.out_of_fold_probabilities, run.train_labels
    wrong = labels != true
    errors = find_label_errors(probabilities, labels)
    rank = require("cleanlab.rank", extra="audit", purpose="The comparison")
    issues = require("cleanlab.filter", extra="audit", purpose="The comparison")
    quality = -np.asarray(rank.get_label_quality_scores(labels, probabilities))
    right = errors.suggested[wrong] == true[wrong]
    return {
        "run": run.path.name,
        "images": len(labels),
        "flipped": int(wrong.sum()),
        "suggested class right": float(right.mean()),
        "committee": asdict(judged(errors.log_odds, errors.log_odds > 0, wrong)),
        "cleanlab": asdict(judged(quality, issues.find_label_issues(labels, probabilities), wrong)),
        "average precision, difference, 95 %": difference(errors.log_odds, quality, wrong, seed),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="mnist")
    parser.add_argument("--data-dir", type=Path)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seeds", default="1", help="of the flips, with commas")
    parser.add_argument("--images", type=int, help="take so many training images only")
    parser.add_argument("--json", type=Path, help="write what was measured there")
    parser.add_argument("--share", type=float, default=0.03, help="of the labels that are flipped")
    arguments = parser.parse_args()
    whole = load_dataset(arguments.data, data_dir=arguments.data_dir)
    measured = []
    for seed in map(int, arguments.seeds.split(",")):
        dataset = part_of(whole, arguments.images, seed)
        true, towards = dataset.train.labels, None
        for noise in ("uniform", "confused"):
            labels = flipped(true, len(dataset.class_names), arguments.share, seed, towards)
            run = trained(dataset, labels, arguments.recipe, f"{dataset.name}-{arguments.recipe}-{noise}{seed}")
            towards = most_confused(run.out_of_fold_probabilities, true)
            measured.append(compared(run, true, seed))
            print(json.dumps(measured[-1]), flush=True)
            if arguments.json:
                arguments.json.write_text(json.dumps(measured, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
