"""Large data: MNIST many times over, changed at random; prepared, trained on for an epoch and classified.

    python bench/large.py make FOLDER --data-dir DIR [--times 100]       # FOLDER/source: a Parquet file for each time
    python bench/large.py run FOLDER [--recipe fast]                     # prepare, train, predict: seconds and memory
    python bench/large.py speed FOLDER [--seconds 30] [--rounds 3]       # images a second: shards, and images in memory

`make` changes every training image by the augmentation of `standard`, drawn by key, and writes PNG into Parquet, a
process for each core; MNIST's test images are the test part. 100 times are 6 million images: 2 GB of Parquet files, 4.7
GB of shards. `run` measures each command as `bench/memory.py` does, over its whole process tree. `speed` trains one
member on the same images from shards and from an array in memory, in turn, each in a fresh process, and counts seconds
and seconds of the processor: the latter are comparable on a machine that does other work, too.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
from memory import peak
from side_by_side import Setting, features, measure, write

WARM = 2.0  # seconds that do not count


def make_file(copy: int, times: int, folder: Path, data_dir: Path | None) -> None:
    """One time MNIST, changed at random; a file that is there stays."""
    import torch

    from committee.config import recipe_parsing
    from committee.data.augment import augment
    from committee.data.catalog import load_dataset
    from committee.data.convert import write_part
    from committee.data.dataset import LabelledImages
    from committee.rng import torch_generator

    torch.set_num_threads(1)
    file = folder / f"train-{copy:05d}-of-{times:05d}.parquet"
    if file.exists():
        return
    dataset = load_dataset("mnist", data_dir=data_dir)
    settings, generator = recipe_parsing.load("standard").augmentation, torch_generator("bench large", copy)
    changed = []
    for some in np.array_split(dataset.train.pixels, 60):
        floats = torch.from_numpy(some.astype(np.float32)).permute(0, 3, 1, 2)
        changed.append(augment(floats, settings, generator).permute(0, 2, 3, 1).round().numpy().astype(np.uint8))
    unfinished = file.with_suffix(".part")
    write_part(LabelledImages(np.concatenate(changed), dataset.train.labels), dataset.class_names, unfinished)
    unfinished.rename(file)


def make_test(folder: Path, data_dir: Path | None) -> None:
    """MNIST's test images."""
    from committee.data.catalog import load_dataset
    from committee.data.convert import to_parquet

    dataset, whole = load_dataset("mnist", data_dir=data_dir), folder / "whole"
    shutil.rmtree(whole, ignore_errors=True)
    to_parquet(dataset, whole)
    (whole / "test.parquet").rename(folder / "test-00000-of-00001.parquet")
    shutil.rmtree(whole)


def make(folder: Path, times: int, data_dir: Path | None) -> None:
    """The source."""
    source = folder / "source"
    source.mkdir(parents=True, exist_ok=True)
    make_test(source, data_dir)
    with ProcessPoolExecutor() as pool:
        list(pool.map(partial(make_file, times=times, folder=source, data_dir=data_dir), range(times)))


def run(folder: Path, recipe: str) -> None:
    """The three commands."""
    shards, trained, answers = folder / "shards", folder / "run", folder / "answers.parquet"
    for each in (shards, trained):
        shutil.rmtree(each, ignore_errors=True)
    commands = {
        "prepare": ["data", "prepare", str(folder / "source"), str(shards)],
        "train": [
            *("train", str(shards), "--recipe", recipe, "--members", "1", "--epochs", "1"),
            *("--keep-sealed", "--out", str(trained)),
        ],
        "predict": ["predict", str(trained), str(folder / "source"), "--out", str(answers)],
    }
    found = {}
    for name, command in commands.items():
        began = time.monotonic()
        found[name] = {**peak(command), "seconds": round(time.monotonic() - began, 1)}
        print(name, json.dumps(found[name]), flush=True)
    images = json.loads((shards / "prepared.json").read_text())["train"]["images"]
    write(f"large-{images}", {"benchmark": "large", "recipe": recipe, "images": images, "commands": found})


def point(folder: Path, kind: str, recipe: str, seconds: float) -> None:
    """Print the images a second of one member's steps, from shards or from memory, after two seconds to warm up."""
    from committee.config import recipe_parsing
    from committee.data.prepared import read_record
    from committee.data.shards import Shards
    from committee.nn.devices import single_threaded
    from committee.training.loop import fit
    from committee.training.setting import Setting as TrainingSetting
    from committee.training.state import StepProgress, Task

    record = read_record(folder / "shards")
    train = folder / "shards" / "train"
    files = tuple(train / name for name in record.train.shards)
    pixels = Shards(files, (record.train.images, *record.shape), "uint8").mapped()
    labels = np.load(train / "labels.npy")
    if kind == "memory":
        pixels = np.concatenate([np.fromfile(file, np.uint8) for file in files]).reshape(pixels.shape)
    precision = TrainingSetting().resolved(1).precision
    everything, nothing = np.arange(len(labels)), np.empty(0, np.int64)
    task = Task(recipe_parsing.load(recipe), 0, 0, everything, nothing, 10, "cpu", precision)
    clocks: list[tuple[float, float, int]] = []  # seconds, seconds of the processor, steps
    with single_threaded():
        for event in fit(pixels, labels, task):
            if isinstance(event, StepProgress):
                clocks.append((time.perf_counter(), time.process_time(), event.step))
                if clocks[-1][0] - clocks[0][0] > seconds + WARM:
                    break
    first = next(each for each in clocks if each[0] - clocks[0][0] > WARM)
    wall, processor, steps = (last - began for last, began in zip(clocks[-1], first, strict=True))
    images = steps * task.batch_size(1)
    print(json.dumps({"images_per_second": images / wall, "images_per_processor_second": images / processor}))


def speed(folder: Path, recipe: str, seconds: float, rounds: int) -> None:
    """Both in turn."""
    settings = {
        kind: Setting(kind, (__file__, "point", str(folder), kind, recipe, str(seconds)))
        for kind in ("shards", "memory")
    }
    found: dict[str, list[dict[str, float]]] = {kind: [] for kind in settings}
    for turn in range(rounds):
        for kind, setting in list(settings.items())[:: -1 if turn % 2 else 1]:
            if figures := measure(setting):
                found[kind].append(figures)
                print(f"round {turn + 1}  {kind:8} {json.dumps(figures)}", flush=True)
    ratios = {
        what: [ours[what] / theirs[what] for ours, theirs in zip(found["shards"], found["memory"], strict=True)]
        for what in found["shards"][0]
    }
    for what, each in ratios.items():
        print(f"{what}, shards / memory: {statistics.median(each):.3f} ({min(each):.3f} to {max(each):.3f})")
    content = {"benchmark": "large speed", "features": features(), "rounds": found, "ratios": ratios}
    write(f"large-speed-{recipe}", content)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "run", "speed"])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--times", type=int, default=100)
    parser.add_argument("--recipe", default="fast")
    parser.add_argument("--seconds", type=float, default=30)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.what == "make":
        make(arguments.folder, arguments.times, arguments.data_dir)
    elif arguments.what == "run":
        run(arguments.folder, arguments.recipe)
    else:
        speed(arguments.folder, arguments.recipe, arguments.seconds, arguments.rounds)


if __name__ == "__main__":
    if sys.argv[1:2] == ["point"]:
        point(Path(sys.argv[2]), sys.argv[3], sys.argv[4], float(sys.argv[5]))
    else:
        main()
