"""What `committee plan` foretells beside what `committee train` then takes, and the formula beside the simulation.

    python bench/plan.py --data-dir DIR [--rounds 3] [--cases 0 3] [--simulation]

Each case in turn: the forecast in a fresh process, then the run it is of, then the next case. `others` is the share of
this machine's processors that other programs took during the two: where it is more than a few percent, forecast and run
have met different machines. With one worker nearly all work is one thread's, so that processor seconds can be compared
there, too: what was foretold, times the share of a processor that the forecast itself got, over those of the run. The
table is Markdown, for docs/results.md.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from side_by_side import write

from committee.runs.cluster import Member, Nodes, makespan
from committee.runs.process_memory import memory, tree
from committee.runs.simulation import simulate

CASES = (  # data, recipe, members, epochs (0 for the recipe's), workers
    ("digits", "standard", 5, 0, 2),
    ("digits", "fast", 2, 10, 1),
    ("mnist-5k", "standard", 4, 0, 2),
    ("mnist-5k", "ensemble-cnn", 2, 5, 1),
    ("mnist-5k", "fast", 1, 0, 1),
    ("MNIST-20000", "fast", 2, 2, 2),
    ("MNIST-20000", "standard", 1, 2, 1),
    ("mnist-5k", "best", 2, 2, 2),
)


def busy() -> tuple[float, float]:
    """Processor seconds of the whole machine, and of the children of this process, since they began."""
    fields = [float(value) for value in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (sum(fields) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK"), used.ru_utime + used.ru_stime


@dataclass(frozen=True)
class Measured:
    """A command's output, seconds, processor seconds, the share of the machine that others took meanwhile, and its
    highest own memory, bytes.
    """

    said: str
    seconds: float
    processor: float
    others: float
    own: int


def measured(command: list[str]) -> Measured:
    """Run a command of this package."""
    before, began, highest = busy(), time.perf_counter(), 0
    process = subprocess.Popen([sys.executable, "-m", "committee", *command], stdout=subprocess.PIPE, text=True)
    while process.poll() is None and process.stdout:
        highest = max(highest, sum(memory(each)[1] for each in tree(process.pid)))
        time.sleep(0.25)
    said = process.stdout.read() if process.stdout else ""
    if process.returncode:
        raise SystemExit(f"committee {' '.join(command)} ended with status {process.returncode}")
    seconds, after = time.perf_counter() - began, busy()
    processor = after[1] - before[1]
    others = (after[0] - before[0] - processor) / seconds / (os.cpu_count() or 1)
    return Measured(said, seconds, processor, others, highest)


def simulations() -> None:
    """The formula's time over the simulation's mean, for many sizes: the worst and the mean distance."""
    distances = {}
    for members in (1, 3, 10, 30, 100, 300, 1_000):
        for count in (1, 3, 10, 30, 100):
            for hours in (math.inf, 24.0, 4.0):
                for seconds in (120.0, 600.0, 3_600.0):
                    nodes, member = Nodes(count, 2, hours * 3600), Member(seconds)
                    found = [simulate(members, member, nodes, seed).seconds for seed in range(20)]
                    distances[members, count, hours, seconds] = makespan(members, member, nodes).seconds / fmean(found)
    worst = max(distances, key=lambda case: abs(distances[case] - 1))
    far = sorted(abs(ratio - 1) for ratio in distances.values())
    print(f"{len(far)} sizes: mean distance {fmean(far):.1%}, 95 % within {far[int(0.95 * len(far))]:.1%}")
    print(f"the worst: {worst}, {distances[worst]:.3f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--cases", type=int, nargs="*", default=list(range(len(CASES))))
    parser.add_argument("--simulation", action="store_true", help="compare formula and simulation instead")
    arguments = parser.parse_args()
    if arguments.simulation:
        simulations()
        return
    from committee.data.catalog import load_dataset

    train = load_dataset("mnist", data_dir=arguments.data_dir).train
    rows: dict[int, list[dict[str, float]]] = {case: [] for case in arguments.cases}
    with tempfile.TemporaryDirectory() as name:
        large = Path(name) / "MNIST-20000"
        large.mkdir()
        np.save(large / "images.npy", train.pixels[:25_000])  # a fifth of them is set aside for the test
        np.save(large / "labels.npy", train.labels[:25_000])
        for number in range(arguments.rounds):
            for case in arguments.cases:
                data, recipe, members, epochs, workers = CASES[case]
                place = str(large) if data == large.name else data
                numbers = ["--members", str(members), *(["--epochs", str(epochs)] if epochs else [])]
                shared = [*numbers, "--workers", str(workers)]
                before = measured(["plan", recipe, "--data", place, *shared, "--json"])
                planned = json.loads(before.said)["planned"]
                out = str(Path(name) / f"run-{number}-{case}")
                run = measured(["train", place, "--recipe", recipe, *shared, "--out", out])
                row = {
                    "foretold": planned["seconds"],
                    "taken": run.seconds,
                    "ratio": planned["seconds"] / run.seconds,
                    "foretold_mb": planned["first_node_bytes"] / 2**20,
                    "own_mb": run.own / 2**20,
                    "others": max(before.others, run.others),
                }
                if workers == 1:
                    row["processor_ratio"] = planned["seconds"] * before.processor / before.seconds / run.processor
                rows[case].append(row)
                print(CASES[case], {key: round(value, 3) for key, value in row.items()}, flush=True)
    print("\n| data | recipe | members x epochs | workers | foretold | taken | ratio | by processor | others |")
    print("|---|---|---|---|---|---|---|---|---|")
    for case, found in rows.items():
        data, recipe, members, epochs, workers = CASES[case]
        middle = {key: median(row[key] for row in found) for key in found[0]}
        by_processor = f"{middle['processor_ratio']:.2f}" if workers == 1 else ""
        ratios = f"{min(row['ratio'] for row in found):.2f} to {max(row['ratio'] for row in found):.2f}"
        print(
            f"| {data} | `{recipe}` | {members} x {epochs or 'its own'} | {workers} | {middle['foretold']:.1f} s | "
            f"{middle['taken']:.1f} s | **{middle['ratio']:.2f}** ({ratios}) | {by_processor} | "
            f"{middle['others']:.0%} |"
        )
    write("plan", {"benchmark": "plan", "cases": [list(CASES[case]) for case in rows], "rounds": list(rows.values())})


if __name__ == "__main__":
    main()
