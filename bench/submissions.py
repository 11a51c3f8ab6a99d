"""Submissions to docs/speedrun.md, checked: a program is started, given MNIST, timed, and its answers are counted.

A submission is a folder with `submission.toml` and a program that keeps to the protocol of docs/speedrun.md: it says
`ready`, reads one line of JSON, trains, writes its classes of the test images and says `done`. The clock runs from that
line to `done`. Every run has a fresh copy of the folder, its own order of test images, and no test labels. Runs are
kept by the folder's digest, so that a check goes on where it was interrupted.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from threading import Timer
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import LabelledImages
from committee.metrics.intervals import seed_interval
from committee.rng import derive, numpy_generator

LIMIT = 3_600.0  # seconds of a run, and of the time until `ready`
LEAST_SEEDS = 10  # that an entry of the table has


class SubmissionError(Exception):
    """A submission does not keep to the protocol; what was expected, what was got."""


@dataclass(frozen=True)
class Submission:
    """A submission as its folder declares it.

    Attributes:
        commands: by target accuracy, as written in submission.toml; "python" stands for the checker's own.
        digest: of every file in the folder.
    """

    folder: Path
    name: str
    author: str
    method: str
    commands: dict[float, tuple[str, ...]]
    digest: str


@dataclass(frozen=True)
class Run:
    """One run: its seed, the seconds from the data to the answers, the share of test images that were right."""

    seed: int
    seconds: float
    accuracy: float


def read(folder: Path) -> Submission:
    """A submission's declaration.

    Raises:
        SubmissionError: it is missing, or lacks something.
    """
    path = folder / "submission.toml"
    if not path.is_file():
        raise SubmissionError(f"a submission is expected to have {path}, which is not there; docs/speedrun.md has one")
    declared = tomllib.loads(path.read_text(encoding="utf-8"))
    if missing := [field for field in ("name", "author", "method", "commands") if not declared.get(field)]:
        raise SubmissionError(f"{path} is expected to give {', '.join(missing)}; add what is missing")
    commands = {float(target): tuple(map(str, command)) for target, command in declared["commands"].items()}
    name, author, method = (str(declared[field]) for field in ("name", "author", "method"))
    return Submission(folder, name, author, method, commands, digest_of(folder))


def digest_of(folder: Path) -> str:
    """SHA-256 over the names and contents of all files in a folder."""
    total = hashlib.sha256()
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        content = path.read_bytes()
        total.update(f"{path.relative_to(folder).as_posix()} {len(content)}\n".encode() + content)
    return total.hexdigest()


def check(
    submission: Submission,
    target: float,
    seeds: int,
    train: LabelledImages,
    test: LabelledImages,
    kept: Path,
    limit: float = LIMIT,
) -> list[Run]:
    """Run a submission with so many seeds, which follow from its digest; what is kept of earlier runs is not repeated.

    Args:
        submission: from `read`.
        target: which of its commands.
        seeds: how many runs.
        train, test: pixels (image, height, width, 1) and labels.
        kept: a file of JSON lines that every finished run is added to.
        limit: seconds that a run may take.

    Raises:
        SubmissionError: the submission does not keep to the protocol.
    """
    if target not in submission.commands:
        raise SubmissionError(
            f"{submission.name} has commands for {sorted(submission.commands)}, got the target {target}; give one of "
            "these"
        )
    key = f"{submission.digest} {target}"
    lines = [json.loads(line) for line in kept.read_text().splitlines()] if kept.exists() else []
    known = {run.seed: run for run in (Run(**line["run"]) for line in lines if line["of"] == key)}
    found = []
    for number in range(seeds):
        seed = derive("speedrun", submission.digest, number) % 2**31
        if seed not in known:
            known[seed] = one_run(submission, target, seed, train, test, limit)
            kept.parent.mkdir(parents=True, exist_ok=True)
            with kept.open("a") as file:
                file.write(json.dumps({"of": key, "run": asdict(known[seed])}) + "\n")
            print(f"seed {seed}: {known[seed].seconds:.2f} s, {known[seed].accuracy:.4f}", flush=True)
        found.append(known[seed])
    return found


def one_run(
    submission: Submission, target: float, seed: int, train: LabelledImages, test: LabelledImages, limit: float
) -> Run:
    """Start the program, give it the data once it is ready, and count its answers."""
    order = numpy_generator(seed, "test order").permutation(len(test))
    with tempfile.TemporaryDirectory(prefix="speedrun-") as place:
        data, answers, program = Path(place) / "data.npz", Path(place) / "answers.npy", Path(place) / "program"
        np.savez(
            data, images=train.pixels[..., 0], labels=train.labels, test_images=test.pixels[order][..., 0]
        )  # no test labels: they never leave this process
        shutil.copytree(submission.folder, program)
        seconds = timed(submission.commands[target], program, data, seed, answers, limit)
        if not answers.is_file():
            raise SubmissionError(
                f"the program is expected to have written its classes to {answers.name} before `done`"
            )
        accuracy = float((classes_in(answers, len(test)) == test.labels[order]).mean())
    return Run(seed, round(seconds, 3), accuracy)


def timed(command: Sequence[str], folder: Path, data: Path, seed: int, answers: Path, limit: float) -> float:
    """Seconds from the line that names the data to `done`."""
    started = [sys.executable if part == "python" else part for part in command]
    with subprocess.Popen(started, cwd=folder, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        late = Timer(limit, process.kill)
        late.start()
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            expect("ready", process.stdout, process, limit)
            began = time.perf_counter()
            line = json.dumps({"data": str(data), "seed": seed, "answers": str(answers)}) + "\n"
            with suppress(BrokenPipeError):  # it has ended; what follows says so
                os.write(process.stdin.fileno(), line.encode())
            expect("done", process.stdout, process, limit)
            return time.perf_counter() - began
        finally:
            late.cancel()
            process.kill()


def expect(word: str, said: IO[str], process: subprocess.Popen[str], limit: float) -> None:
    """Read lines up to one that is the word; others are the program's own affair."""
    for line in said:
        if line.strip() == word:
            return
    status = process.wait()
    raise SubmissionError(
        f"the program is expected to print `{word}` within {limit:g} seconds, and ended with status {status}"
    )


def classes_in(path: Path, images: int) -> NDArray[Any]:
    """The program's answers, (image,) whole numbers."""
    found = np.load(path, allow_pickle=False)
    if found.shape != (images,) or found.dtype.kind not in "iu":
        raise SubmissionError(
            f"answers are expected to be {images} whole numbers, one a test image in the order given, got an array of "
            f"{found.dtype} and shape {found.shape}"
        )
    return np.asarray(found)


def verdict(submission: Submission, target: float, runs: Sequence[Run]) -> dict[str, Any]:
    """What the runs show, printed and as a value: reached where the interval of the mean lies above the target."""
    accuracies, seconds = [run.accuracy for run in runs], [run.seconds for run in runs]
    interval = seed_interval(accuracies)
    enough, reached = len(runs) >= LEAST_SEEDS, interval.low >= target
    load, cores = os.getloadavg()[0], os.cpu_count() or 1
    figures = {
        "submission": submission.name,
        "author": submission.author,
        "digest": submission.digest,
        "target": target,
        "seeds": len(runs),
        "accuracy": round(statistics.fmean(accuracies), 6),
        "interval": [round(interval.low, 6), round(interval.high, 6)],
        "lowest": min(accuracies),
        "highest": max(accuracies),
        "seconds": round(statistics.median(seconds), 3),
        "fastest": min(seconds),
        "slowest": max(seconds),
        "reached": enough and reached,
        "load": round(load, 2),
        "runs": [asdict(run) for run in runs],
    }
    print(
        f"| {target:.3f} | {submission.name} | **{statistics.median(seconds):.1f} s** ({min(seconds):.1f} to "
        f"{max(seconds):.1f}) | {len(runs)} | {statistics.fmean(accuracies):.4f} ({interval.low:.4f} to "
        f"{interval.high:.4f}) | {submission.author} |"
    )
    if not reached:
        print(f"not reached: the interval of the mean begins at {interval.low:.5f}, below {target:.3f}")
    if not enough:
        print(f"an entry needs {LEAST_SEEDS} seeds, got {len(runs)}")
    if load > cores + 1:
        print(f"the machine had other work (load {load:.1f} on {cores} cores): the seconds are no entry")
    return figures
