"""Speed-up from one to two workers for worker processes and for Ray, and what Ray costs a member.

    python bench/cluster.py [--members 4] [--seconds 10] [--rounds 3] [--before "flock -x FILE"]

Members of the standard recipe train on random images of MNIST's size; each figure comes from a fresh process. For Ray
it starts a cluster of this machine first, and asks its node what it has; that is told apart. What Ray costs is told
by many short members on workers that have trained one before, beside the same ones in worker processes.
"""

from __future__ import annotations

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Sequence
from functools import partial
from pathlib import Path

import numpy as np
from side_by_side import write

IMAGES, SHORT_IMAGES, SHORT_MEMBERS = 12_000, 200, 40


def executor(name: str, workers: int) -> tuple[Callable[..., Generator[object]], float]:
    """What runs jobs, and how many seconds it took to be ready."""
    from committee import kernels
    from committee.training.cluster import Cluster, survey
    from committee.training.executors import processes, ray

    if name == "processes":
        return partial(processes.run, workers=workers), 0.0
    began = time.perf_counter()
    nodes, cluster = survey("local", "cpu"), Cluster("local")
    run = partial(ray.run, cluster=cluster, nodes=nodes, path=kernels.path(), most=workers)
    return run, time.perf_counter() - began


def measured(name: str, workers: int, members: int, epochs: int, images: int, warm: bool) -> dict[str, float]:
    """Seconds that members take together, from handing them over to the end of the last one."""
    from committee.config.recipe_parsing import load
    from committee.data.dataset import LabelledImages
    from committee.folders.member_folder import MemberFolder
    from committee.nn.devices import pick_precision
    from committee.training.jobs import Finished, Job
    from committee.training.shared_images import shared

    rng = np.random.default_rng(0)
    part = LabelledImages(
        rng.integers(0, 255, (images, 28, 28, 1), dtype=np.uint8), rng.integers(0, 10, images, dtype=np.int64)
    )
    recipe = load("standard", [f"training.epochs={epochs}", "training.patience=0"])
    run, ready = executor(name, workers)
    with tempfile.TemporaryDirectory() as folder, shared(part) as (files,):
        assert files is not None
        precision, validation = pick_precision("auto", "cpu"), np.arange(images - images // 10, images)
        jobs = [
            Job(
                recipe, member, 0, files, validation, 10, "cpu", precision,
                folder=MemberFolder(Path(folder) / "members" / f"{member:02d}"),
            )
            for member in range(members)
        ]  # fmt: skip
        first = jobs[:workers] if warm else []  # so that the workers are there
        began, finished = time.perf_counter(), list[float]()
        for event in run(jobs):
            if isinstance(event, Finished):
                finished.append(time.perf_counter() - began)
    assert len(finished) == members
    start = finished[len(first) - 1] if first else 0.0
    return {"seconds": finished[-1] - start, "members": members - len(first), "ready": ready}


def in_fresh_process(before: Sequence[str], *arguments: object) -> dict[str, float]:
    """What `measured` finds with these arguments in a process of its own."""
    command = [*before, sys.executable, __file__, "--one", *map(str, arguments)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def epochs_of(seconds: float, before: Sequence[str]) -> int:
    """How many epochs a member has that takes so long."""
    one = in_fresh_process(before, "processes", 1, 1, 3, IMAGES, 0)["seconds"]
    return max(round(3 * seconds / one), 1)


def main() -> None:
    if sys.argv[1:2] == ["--one"]:
        name, *numbers = sys.argv[2:]
        workers, members, epochs, images, warm = map(int, numbers)
        print(json.dumps(measured(name, workers, members, epochs, images, bool(warm))))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--members", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=10.0, help="that a member takes")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--before", default="", help="a command before each measurement, such as one that waits")
    arguments = parser.parse_args()
    before = shlex.split(arguments.before)
    epochs = epochs_of(arguments.seconds, before)
    found: dict[str, list[dict[str, float]]] = {}
    for _ in range(arguments.rounds):
        for name in ("processes", "ray"):
            for workers in (1, 2):
                row = in_fresh_process(before, name, workers, arguments.members, epochs, IMAGES, 0)
                found.setdefault(f"{name} {workers}", []).append(row)
            short = in_fresh_process(before, name, 1, SHORT_MEMBERS + 1, 1, SHORT_IMAGES, 1)
            found.setdefault(f"{name} short", []).append(short)
        print(json.dumps({key: [round(row["seconds"], 2) for row in rows] for key, rows in found.items()}), flush=True)
    medians = {key: statistics.median(row["seconds"] for row in rows) for key, rows in found.items()}
    for name in ("processes", "ray"):
        one, two = medians[f"{name} 1"], medians[f"{name} 2"]
        print(f"{name:9}  1 worker {one:6.1f} s  2 workers {two:6.1f} s  speed-up {one / two:.2f}")
    overhead = (medians["ray short"] - medians["processes short"]) / SHORT_MEMBERS
    ready = statistics.median(row["ready"] for row in found["ray 1"])
    print(f"Ray costs a member {1000 * overhead:.0f} ms, and its start {ready:.1f} s")
    write("cluster", {"epochs": epochs, "members": arguments.members, "rows": found, "overhead_seconds": overhead})


if __name__ == "__main__":
    main()
