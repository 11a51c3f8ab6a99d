"""B3, the published job: P2's ten members on Fashion-MNIST, by its own recipe and by ours in four minutes.

    python bench/published_job.py [--data-dir DIR]

The write-up reports .9355 after 107 minutes on a laptop's GPU. Minutes are those of the whole command, from its start
to the finished report; the test images are opened once, at its end. Runs stay in runs/bench/ and are not timed again.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from side_by_side import write

FOLDER = Path("runs/bench")
JOBS = {
    "ours": ["--mirror", "--budget", "4m"],
    "P2's recipe": ["--recipe", "ensemble-cnn", "--set", "training.patience=10"],
}


def job(name: str, options: list[str], data_dir: Path | None) -> dict[str, Any]:
    """One command: minutes, test accuracy with its interval, members."""
    from committee.folders.run_folder import RunFolder

    out = FOLDER / f"fashion-{name.split()[0].lower().replace(chr(39), '')}"
    clock = out / "minutes.json"
    if not clock.exists():
        place = ["--data-dir", str(data_dir)] if data_dir else []
        began = time.perf_counter()
        command = [sys.executable, "-m", "committee", "train", "fashion-mnist", *options, *place, "--out", str(out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        clock.write_text(json.dumps((time.perf_counter() - began) / 60) + "\n")
    results, minutes = RunFolder(out).results, json.loads(clock.read_text())
    assert results.test is not None
    low, high = results.test.accuracy_interval.low, results.test.accuracy_interval.high
    members = len(results.members)
    print(f"{name:24} {minutes:6.1f} min, {members} members, {results.test.accuracy:.4f} ({low:.4f} to {high:.4f})")
    measured = {"minutes": minutes, "members": members, "accuracy": results.test.accuracy, "interval": [low, high]}
    return measured | {"options": options}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data-dir", type=Path, help="where Fashion-MNIST's IDX files are, if not in the cache")
    arguments = parser.parse_args()
    found = {name: job(name, options, arguments.data_dir) for name, options in JOBS.items()}
    published = {"accuracy": 0.9355, "minutes": 107}
    write("published-job", {"benchmark": "B3", "published": published, "measured": found})


if __name__ == "__main__":
    main()
