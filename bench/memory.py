"""B5, memory: the peak of the whole process tree while `committee train` trains 1, 2 and 4 members, and on 10 x MNIST.

    python bench/memory.py --data-dir DIR [--recipe standard]

Read from Linux's /proc/PID/smaps_rollup ten times a second: Pss, each page shared by n processes counted 1/n in each.
`own` leaves out pages that are copies of files (program code, the memory-mapped images), which the system can drop
whenever it needs the room. 10 x MNIST is MNIST's training images ten times over, 600,000 images, as an NPY file.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from side_by_side import write

from committee.runs.process_memory import memory, tree


def peak(command: list[str]) -> dict[str, float]:
    """The highest sums over the tree while a command runs, in MB."""
    process = subprocess.Popen([sys.executable, "-m", "committee", *command], stdout=subprocess.DEVNULL)
    whole = own = 0
    while process.poll() is None:
        sizes = [memory(each) for each in tree(process.pid)]
        whole, own = max(whole, sum(size[0] for size in sizes)), max(own, sum(size[1] for size in sizes))
        time.sleep(0.1)
    if process.returncode:
        raise SystemExit(f"committee {' '.join(command)} ended with status {process.returncode}")
    return {"whole_mb": round(whole / 2**20), "own_mb": round(own / 2**20)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where MNIST's IDX files are, if not in the cache")
    parser.add_argument("--recipe", default="standard")
    arguments = parser.parse_args()
    from committee.data.catalog import load_dataset

    train = load_dataset("mnist", data_dir=arguments.data_dir).train
    found = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        for times in (1, 10):
            part = folder / f"mnist-{times}"
            part.mkdir()
            np.save(part / "images.npy", np.tile(train.pixels, (times, 1, 1, 1)))
            np.save(part / "labels.npy", np.tile(train.labels, times))
        for times, members in ((1, 1), (1, 2), (1, 4), (10, 1), (10, 2)):
            changes = ["--members", str(members), "--workers", str(members), "--epochs", "1", "--keep-sealed"]
            changes += ["--recipe", arguments.recipe, "--out", str(folder / f"run-{times}-{members}")]
            case = f"{60_000 * times:,} images, {members} members at once"
            found[case] = peak(["train", str(folder / f"mnist-{times}"), *changes])
            print(f"{case:40} {found[case]['whole_mb']:8,.0f} MB, own {found[case]['own_mb']:8,.0f} MB", flush=True)
    write("memory", {"benchmark": "B5", "recipe": arguments.recipe, "peak": found})


if __name__ == "__main__":
    main()
