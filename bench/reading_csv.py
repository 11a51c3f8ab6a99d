"""B7: reading a CSV file of 42,000 images of 28x28, like Kaggle's Digit Recognizer, beside other readers.

    python bench/reading_csv.py [--rounds 5]

The file has the images of mnist-5k (extra `samples`) over and over. Each reader runs in turn in fresh processes, after
a first file of a few rows, so that no imports are counted. "committee" is all of `read_dataset`: checks, labels, a test
part set aside. The others read the table, as "committee, the table alone" does: pandas (which mlxtend brings) with its
defaults, pyarrow.csv with all cores. `peak` is the growth of the process's highest resident memory (Linux's VmHWM)
while it reads, over the pixels' own 32.9 MB.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from side_by_side import Setting, compare, measure, write

IMAGES, PIXELS = 42_000, 784
TABLE = "committee, the table alone"


def write_csv(path: Path) -> None:
    """The file, about 77 MB."""
    from committee import load_dataset

    train = load_dataset("mnist-5k").train
    rows = np.column_stack([train.labels, train.pixels.reshape(len(train), -1)])
    lines = [",".join(map(str, row)) + "\n" for row in rows.tolist()]
    with path.open("w") as file:
        file.write("label," + ",".join(f"pixel{i}" for i in range(PIXELS)) + "\n")
        file.writelines(lines[i % len(lines)] for i in range(IMAGES))


def reader_of(tool: str, path: Path) -> Callable[[], object]:
    """What is timed, its imports done."""
    if tool == "pandas":
        import pandas

        return lambda: pandas.read_csv(path)
    if tool == "pyarrow":
        import pyarrow.csv

        return lambda: pyarrow.csv.read_csv(path)
    from committee.data.formats.csv_files import read_csv
    from committee.data.formats.opening import open_files
    from committee.data.readers import read_dataset

    def table() -> object:
        with open_files(path) as files:
            return read_csv(files, path.name)

    return table if tool == TABLE else lambda: read_dataset(path)


def highest_memory() -> int:
    """Bytes; getrusage would count what the process that started this one had."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))


def one(tool: str, path: Path) -> dict[str, float]:
    """One reading in this process, after a first one of a few rows: imports that wait for it are not counted either."""
    with tempfile.TemporaryDirectory() as folder:
        few = Path(folder) / "few.csv"
        with path.open() as file:
            few.write_text("".join(line for i, line in enumerate(file) if i % 400 == 0))
        reader_of(tool, few)()
    read = reader_of(tool, path)
    before, start = highest_memory(), time.perf_counter()
    table = read()
    seconds = time.perf_counter() - start
    grown = highest_memory() - before
    del table
    return {"images_per_second": IMAGES / seconds, "seconds": seconds, "peak": grown / (IMAGES * PIXELS)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", nargs=2, metavar=("TOOL", "FILE"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one:
        print(json.dumps(one(options.one[0], Path(options.one[1]))))
        return
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "train.csv"
        write_csv(path)
        found: dict[str, list[dict[str, float]]] = {}
        for _ in range(options.rounds):
            for tool in (TABLE, "committee", "pandas", "pyarrow"):
                if figures := measure(Setting(tool, (sys.argv[0], "--one", tool, str(path)))):
                    found.setdefault(tool, []).append(figures)
                    print(
                        f"{tool:28} {figures['seconds']:6.3f} s, peak {figures['peak']:5.2f} x the pixels", flush=True
                    )
    speeds = {tool: [each["images_per_second"] for each in runs] for tool, runs in found.items()}
    summary = compare(speeds, TABLE, "images a second")
    peaks = {tool: max(each["peak"] for each in runs) for tool, runs in found.items()}
    write("reading-csv", {"images": IMAGES, "images_per_second": summary, "peak_over_pixels": peaks})


if __name__ == "__main__":
    main()
