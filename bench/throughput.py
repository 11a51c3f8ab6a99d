"""B1, training throughput: P1's network (331,450 parameters), batch 128, Nadam, dropout; images/s of all members.

    python bench/throughput.py [--rounds 3] [--quick] [--isa avx2] [--only "plain PyTorch,Lightning"]

A committee of four, two at a time, beside Keras on three backends, PyTorch's plain loop, Lightning, Ensemble-PyTorch.
Each tool is first run once in every sensible setting (both cores on one network, or a network a core; float32 or
bfloat16; compiled or not), then its best setting takes part in the rounds. Start and first epoch count for nobody.
Rounds go on, up to three times as many, while any tool's spread is above 15 %. --isa avx2 holds all tools to AVX2.
--quick surveys only what has been best so far: a network a core, of plain PyTorch, Lightning and Keras on TensorFlow.
Intel's extension takes no part: intel-extension-for-pytorch has no release for this torch, its newest, 2.8.0, is for
torch 2.8. Then the limit: what the network's convolutions alone allow with torch's (oneDNN's) kernels; and where our
step's time goes.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from side_by_side import (
    ISAS,
    Setting,
    best_peer,
    best_settings,
    compare,
    features,
    measure,
    rounds,
    survey,
    use_isa,
    write,
)

HERE = Path(__file__).parent
IMAGES = 12_000
EPOCHS = 3
MEMBERS = 4


def ours(path: str, members: int = MEMBERS, name: str = "ensemble-cnn") -> None:
    """Print our images a second over all members, as `committee train` runs them: a core each, or all on one GPU.

    Args:
        path: an NPZ file with `images` and `labels`.
        members: of the committee.
        name: of the recipe.
    """
    from committee.data.catalog import load_dataset
    from committee.data.dataset import checked_images
    from committee.nn import devices

    data, base = np.load(path), load_dataset("mnist-5k")
    images, labels = data["images"][:IMAGES], data["labels"][:IMAGES]
    dataset = replace(base, train=checked_images(images, labels, base.class_names, "bench"))
    speeds = epoch_speeds(dataset, name, members, EPOCHS)
    at_once = members if devices.pick_device() == "cuda" else min(devices.cores(), members)
    print(json.dumps({"images_per_second": statistics.mean(speeds) * at_once}))


def epoch_speeds(dataset: Any, name: str, members: int, epochs: int, *changes: str) -> list[float]:
    """Images a second of every epoch but the first of every member, trained as `committee train` does.

    Args:
        dataset: an `ImageDataset`.
        name: of the recipe.
        members, epochs: in the place of the recipe's.
        changes: of other fields of the recipe, as `--set` takes them.
    """
    from committee import load_recipe, train
    from committee.training.jobs import EpochDone, Event
    from committee.training.setting import Setting as TrainingSetting

    speeds: list[float] = []

    def take(event: Event) -> None:
        if isinstance(event, EpochDone) and event.record.epoch > 1:
            speeds.append(event.record.images_per_second)

    fixed = [f"training.epochs={epochs}", f"committee.members={members}", "training.patience=0"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe(name, [*fixed, *changes, "holdout.fraction=0.01"])
        train(dataset, recipe, Path(folder) / "run", TrainingSetting(), keep_sealed=True, on_event=take)
    return speeds


def settings(path: str, quick: bool = False) -> dict[str, list[Setting]]:
    """Every setting of every tool; quickly, those of a network a core of the tools that have been fastest."""
    keras, torch_peers = str(HERE / "peers" / "keras_peer.py"), str(HERE / "peers" / "torch_peers.py")
    epochs = ("--epochs", str(EPOCHS))
    placements = {"both cores on one": (("--threads", "2"), 1), "one a core": (("--threads", "1"), 2)}
    if quick:
        del placements["both cores on one"]
    both = [False] if quick else [False, True]
    tools: dict[str, list[Setting]] = {"committee": [Setting("as it is", (__file__, "ours", path))]}
    for backend in ("tensorflow",) if quick else ("tensorflow", "jax", "torch"):
        tools[f"Keras on {backend}"] = [
            Setting(
                f"{precision}{', compiled' * compiled}, {placement}",
                (keras, path, *epochs, *threads, "--precision", precision, *(["--compile"] * compiled)),
                {"KERAS_BACKEND": backend},
                copies,
            )
            for precision in ("float32", "bfloat16")
            for compiled in (both if backend == "tensorflow" else [backend == "jax"])
            for placement, (threads, copies) in placements.items()
        ]
    for kind, name in (("plain", "plain PyTorch"), ("lightning", "Lightning")):
        tools[name] = [
            Setting(
                f"{precision}{', compiled' * compiled}, {placement}",
                (torch_peers, kind, path, *epochs, *threads, "--precision", precision, *(["--compile"] * compiled)),
                {},
                copies,
            )
            for precision in ("float32", "bfloat16")
            for compiled in (False, True)
            for placement, (threads, copies) in placements.items()
        ]
    if quick:
        return tools
    tools["Ensemble-PyTorch"] = [
        Setting(
            f"float32, {jobs} jobs", (torch_peers, "torchensemble", path, *epochs, "--threads", threads, "--jobs", jobs)
        )
        for jobs, threads in (("1", "2"), ("2", "1"))
    ]
    return tools


def convolutions_alone(precision: str) -> float:
    """Images a second and core that P1's convolutions allow in torch, channels last, with both gradients."""
    import torch
    from torch.nn import functional

    from committee import load_recipe
    from committee.config.recipe import Conv
    from committee.nn.devices import single_threaded
    from committee.nn.summary import layer_table

    seconds = 0.0
    with single_threaded():
        for number, planned in enumerate(layer_table(load_recipe("ensemble-cnn").network, (28, 28, 1), 10)):
            if not isinstance(planned.layer, Conv):
                continue
            (channels, height, width), kind = planned.input, getattr(torch, precision) if number else torch.float32
            x = torch.randn(128, channels, height, width).to(dtype=kind, memory_format=torch.channels_last)
            x.requires_grad_(number > 0)
            weight = torch.randn(planned.layer.filters, channels, 3, 3).to(kind, memory_format=torch.channels_last)
            weight.requires_grad_()
            bias = torch.zeros(planned.layer.filters, dtype=kind, requires_grad=True)
            padding, best = planned.layer.padding == "same", float("inf")
            for _ in range(12):
                began = time.perf_counter()
                y = functional.conv2d(x, weight, bias, padding=int(padding))
                forward = time.perf_counter() - began
                dy = torch.randn_like(y)
                began = time.perf_counter()
                y.backward(dy)  # type: ignore[no-untyped-call]
                best = min(best, forward + time.perf_counter() - began)
            seconds += best
    return 128 / seconds


def breakdown() -> dict[str, float]:
    """Milliseconds of one of our steps on one core, by what they are spent on."""
    import torch

    from committee import load_recipe
    from committee.kernels import binding
    from committee.nn.devices import single_threaded
    from committee.nn.forward import training_gradients
    from committee.nn.images import on_device
    from committee.training import loop, losses
    from committee.training.batches import epoch_batches, epoch_start, generators_at
    from committee.training.optim import make_optimiser
    from committee.training.state import Task

    recipe, call = load_recipe("ensemble-cnn"), binding.call
    spent: dict[str, float] = {}

    def timed(name: str, *arguments: object) -> object:
        began = time.perf_counter()
        result = call(name, *arguments)  # type: ignore[arg-type]
        spent[name] = spent.get(name, 0.0) + time.perf_counter() - began
        return result

    pixels = np.random.default_rng(0).integers(0, 255, (128 * 20, 28, 28, 1), dtype=np.uint8)
    labels = np.zeros(len(pixels), dtype=np.int64)
    task = Task(recipe, 0, 0, np.arange(len(pixels)), np.arange(0), 10, "cpu", "bfloat16")
    with single_threaded():
        network = loop.new_network(pixels, task)
        optimiser = make_optimiser(recipe.optimiser, network)
        gradients = training_gradients(network, "cpu", "bfloat16")
        images, targets = on_device(pixels, "cpu"), torch.from_numpy(labels)
        for epoch in (1, 2):
            spent.clear()
            binding.call, began = timed, time.perf_counter()
            generator = generators_at(epoch_start(task, epoch), network, "cpu").augmentation
            for batch, target, *_ in epoch_batches(images, targets, task, epoch, generator):
                gradients(batch, partial(losses.loss_of, targets=target, training=recipe.training))
                optimiser.step()
            whole = time.perf_counter() - began
        binding.call = call
    parts = {
        "convolutions": ("convolution", "weight_gradient", "transform_filters", "transform_weight_gradient"),
        "first convolution": ("stem", "stem_weight_gradient", "transpose"),
        "dense layers": ("pack_dense", "dense", "dense_gradient"),
        "pooling": ("max_pool_choosing", "max_pool_gradient"),
        "dropout": ("dropout", "dropout_gradient"),
        "optimiser": ("nadam",),
    }
    found = {part: sum(spent.get(name, 0.0) for name in names) * 50 for part, names in parts.items()}
    return {
        **found,
        "loss, data and all else": whole * 50 - sum(found.values()),
        "whole step": whole * 50,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", default="", help="tools to run, with commas")
    parser.add_argument("--quick", action="store_true", help="survey few settings of few tools")
    parser.add_argument("--isa", choices=list(ISAS), default="", help="hold all tools to these instructions")
    arguments = parser.parse_args()
    use_isa(arguments.isa)
    found_features = features()
    from committee.data.catalog import load_dataset

    train = load_dataset("mnist-5k").train
    repeats = IMAGES // len(train)
    with tempfile.TemporaryDirectory() as folder:
        path = str(Path(folder) / "images.npz")
        np.savez(path, images=np.tile(train.pixels, (repeats, 1, 1, 1)), labels=np.tile(train.labels, repeats))
        tools = settings(path, arguments.quick)
        if arguments.only:
            tools = {tool: each for tool, each in tools.items() if tool in ["committee", *arguments.only.split(",")]}
        surveyed = survey(tools, "images_per_second")
        chosen = best_settings(tools, surveyed)
        values = rounds(chosen, "images_per_second", arguments.rounds, most=3 * arguments.rounds)
        summary = compare(values, "committee", "images/s")
        alone = [measure(Setting(each, (__file__, "limit", each), copies=2)) for each in ("float32", "bfloat16")]
    limit = max((figures["images_per_second"] for figures in alone if figures), default=float("nan"))
    share = summary["committee"]["median"] / limit
    print(f"limit: torch's convolutions alone, one core each, {limit:,.0f} images/s; our share of it {share:.0%}")
    spent = breakdown()
    for part, milliseconds in spent.items():
        print(f"{milliseconds:8.2f} ms  {part}")
    peer = best_peer(summary, "committee")
    ratio = summary[peer]["ours_over_it"] if peer else None
    if peer:
        print(f"ratio to the best peer, {peer}: {ratio:.2f}")
    content: dict[str, Any] = {
        "benchmark": "B1",
        "unit": "images a second",
        "members": MEMBERS,
        "isa": arguments.isa or "the processor's",
        "features": found_features,
        "survey": surveyed,
        "settings": {t: s.name for t, s in chosen.items()},
    }
    content |= {"rounds": values, "summary": summary, "ratio_to_best_peer": ratio, "milliseconds_of_a_step": spent}
    write(
        "-".join(filter(None, ("throughput", arguments.isa))),
        {**content, "convolutions_alone": limit, "share_of_limit": share},
    )


if __name__ == "__main__":
    if sys.argv[1:2] == ["ours"]:
        members, name = ([*sys.argv[3:], None, None])[:2]
        ours(sys.argv[2], int(members or MEMBERS), name or "ensemble-cnn")
    elif sys.argv[1:2] == ["limit"]:
        print(json.dumps({"images_per_second": convolutions_alone(sys.argv[2])}))
    else:
        main()
