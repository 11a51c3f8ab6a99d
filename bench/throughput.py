"""Training speed on the network of P1 (331,450 parameters, batch 128, Nadam): this package beside a plain PyTorch loop.

In turn, several rounds, each in a fresh process: a committee of two, a process each, and the plain loop with torch's
own threads. Images a second over all members, the first epoch left out. Prints medians, ranges and their ratio, and
writes them with versions and machine to bench/results/throughput.json. Run it with `make bench` on a machine at rest.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

EPOCHS = 4
ROUNDS = 3
MEMBERS = 2


def ours() -> float:
    """A committee of two, a process each, as `committee train` runs it; images a second in sum."""
    from committee import load_dataset, load_recipe, train
    from committee.run import Setting
    from committee.training.jobs import EpochDone, Event

    speeds: dict[int, list[float]] = {}

    def take(event: Event) -> None:
        if isinstance(event, EpochDone) and event.line["epoch"] > 1:
            speeds.setdefault(event.member, []).append(event.line["images_per_second"])

    changes = [f"training.epochs={EPOCHS}", f"committee.members={MEMBERS}", "training.patience=0"]
    with tempfile.TemporaryDirectory() as folder:
        recipe = load_recipe("ensemble-cnn", changes)
        train(load_dataset("mnist-5k"), recipe, Path(folder) / "run", Setting(), keep_sealed=True, on_event=take)
    return sum(statistics.mean(values) for values in speeds.values())


def plain() -> float:
    """The same network and optimiser in float32 with torch's own threads, the way a tutorial writes it."""
    import torch
    from torch import nn

    from committee import load_dataset

    data = load_dataset("mnist-5k").train
    images = torch.from_numpy(data.pixels).permute(0, 3, 1, 2).float().contiguous() / 255
    labels = torch.from_numpy(data.labels)

    def conv(inputs: int, outputs: int, padding: int = 1) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, padding=padding), nn.ReLU()]

    network = nn.Sequential(
        *conv(1, 16), *conv(16, 16), nn.MaxPool2d(2), *conv(16, 32), *conv(32, 32), nn.MaxPool2d(2),
        *conv(32, 64), *conv(64, 64), *conv(64, 64, 0), nn.Flatten(), nn.Dropout(0.25), nn.Linear(1600, 128), nn.ReLU(),
        nn.Dropout(0.5), nn.Linear(128, 128), nn.ReLU(), nn.Dropout(0.5), nn.Linear(128, 10),
    )  # fmt: skip
    optimiser = torch.optim.NAdam(network.parameters(), lr=2e-3, eps=1e-7)
    began, done = 0.0, 0
    for epoch in range(EPOCHS):
        if epoch == 1:
            began = time.perf_counter()
        for batch in torch.randperm(len(labels)).split(128):
            optimiser.zero_grad()
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimiser.step()
            done += len(batch) if epoch else 0
    return done / (time.perf_counter() - began)


def main() -> None:
    from committee.training import machine

    speeds: dict[str, list[float]] = {"committee": [], "plain PyTorch": []}
    for number in range(ROUNDS):
        for name in speeds:
            answer = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
            speeds[name].append(float(answer.stdout))
            print(f"round {number + 1}  {name:14} {speeds[name][-1]:8,.0f} images/s", flush=True)
    medians = {name: statistics.median(values) for name, values in speeds.items()}
    ratios = [a / b for a, b in zip(*speeds.values(), strict=True)]
    for name, values in speeds.items():
        print(f"{name:14} median {medians[name]:8,.0f} images/s, {min(values):,.0f} to {max(values):,.0f}")
    print(f"ratio, pair by pair: median {statistics.median(ratios):.2f}, {min(ratios):.2f} to {max(ratios):.2f}")
    device = machine.pick_device("auto")
    facts = machine.describe(device, machine.pick_precision("auto", device), machine.cores())
    path = Path(__file__).parent / "results" / "throughput.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images_per_second": speeds, "ratios": ratios, "environment": facts}, indent=1) + "\n")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print({"committee": ours, "plain PyTorch": plain}[sys.argv[1]]())
    else:
        main()
