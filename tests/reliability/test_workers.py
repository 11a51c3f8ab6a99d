"""Workers that die, a parent that dies, SIGTERM, full disks, losses that are not finite: real processes, real signals."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from scale import cases, record_figure

import committee
from committee.cli.main import main
from committee.cli.options import Group
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.rng import numpy_generator
from committee.training import jobs, loop, shared_images
from committee.training.executors import processes
from committee.training.jobs import Died, EpochDone, Event, Failed, Finished, Job, Remark
from committee.training.shared_images import shared
from committee.training.state import TrainedNetwork


MEMBERS, EPOCHS = 3, 3
SMALL = ["--recipe", "standard", "--members", str(MEMBERS), "--epochs", str(EPOCHS)]
SMALL += ["--set", f"holdout.folds={MEMBERS}", "--set", "network.widths=[8,8,8]"]
CHANGES = [f"committee.members={MEMBERS}", f"training.epochs={EPOCHS}", f"holdout.folds={MEMBERS}"]
RECIPE = committee.load_recipe("standard", [*CHANGES, "network.widths=[8,8,8]"])
LINUX = pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="looks for processes in /proc")


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def without_times(value: Any) -> Any:
    """A JSON value without what differs between any two runs: seconds, speeds, dates."""
    if isinstance(value, dict):
        times = re.compile(r"(.*_)?seconds(_.*)?|images_per_second|opened")
        return {name: without_times(each) for name, each in value.items() if not times.fullmatch(name)}
    return [without_times(each) for each in value] if isinstance(value, list) else value


def contents(run: Path) -> dict[str, Any]:
    """All that a run says: bytes of arrays and weights, records without their times."""
    found: dict[str, Any] = {}
    for path in sorted(each for each in run.rglob("*") if each.is_file()):
        name = path.relative_to(run).as_posix()
        if path.suffix in (".npy", ".safetensors") or name in ("committee.json", "recipe.toml", "images.json"):
            found[name] = path.read_bytes()
        elif path.suffix == ".jsonl":
            found[name] = [without_times(json.loads(line)) for line in path.read_text().splitlines()]
        elif name == "results.json" or path.name == "member.json":
            found[name] = without_times(json.loads(path.read_text()))
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    assert call("train", "digits", *SMALL, "--workers", "1", "--out", run).exit_code == 0
    return run


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[processes._Worker]:
    """The workers that are started from now on."""
    found: list[processes._Worker] = []
    start = processes._start

    def start_and_note(job: Job) -> processes._Worker:
        found.append(start(job))
        return found[-1]

    monkeypatch.setattr(processes, "_start", start_and_note)
    return found


# --- workers ----------------------------------------------------------------------------------------------------------


def test_every_member_s_worker_is_killed_once_and_the_bytes_are_the_same(
    undisturbed: Path, started: list[processes._Worker], tmp_path: Path, digits: ImageDataset
) -> None:
    runs, kills, began = cases(2, 34), 0, time.monotonic()
    for number in range(runs):
        rng, killed, remarks = numpy_generator("kills", number), set[int](), list[str]()
        delays = rng.uniform(0, 0.3, MEMBERS) if number else np.zeros(MEMBERS)

        def kill(event: Event, killed: set[int] = killed, remarks: list[str] = remarks, delays: Any = delays) -> None:
            if isinstance(event, Remark):
                remarks.append(event.text)
            elif event.member not in killed:
                killed.add(event.member)
                (victim,) = (each for each in started if each.job.member == event.member and each.process.is_alive())
                threading.Timer(delays[event.member], victim.process.kill).start()

        run = tmp_path / str(number)
        committee.train(digits, RECIPE, run, committee.Setting(workers=2), on_event=kill)
        assert contents(run) == contents(undisturbed), number
        assert number or len(remarks) == MEMBERS
        assert all("was killed by SIGKILL (the usual reason is that memory ran out; " in text for text in remarks)
        kills += len(remarks)
        shutil.rmtree(run)
        started.clear()
    record_figure("killed workers", f"{kills} kills in {runs} runs, {time.monotonic() - began:.0f} s, equal bytes")


def test_a_third_death_leaves_the_test_images_sealed_and_the_same_command_completes_the_run(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, train = tmp_path / "run", ("train", "digits", *SMALL, "--workers", "2", "--out", tmp_path / "run")
    start = processes._start

    def start_and_kill(job: Job) -> processes._Worker:
        worker = start(job)
        if job.member == 1:
            worker.process.kill()
        return worker

    monkeypatch.setattr(processes, "_start", start_and_kill)
    result = call(*train)
    assert result.exit_code == 3, result.output
    said = result.stdout.replace("\n", " ")
    assert "1 of 3 members died and is not part of the committee: member 1 (its worker process was killed by" in said
    assert "The same command trains it and opens the test images, which stay sealed until then" in said
    assert result.stderr.count("it is started again from the beginning") == 2
    assert "1 of 3 members died" in (run / "report.html").read_text()
    folder = RunFolder(run)
    assert folder.is_sealed and not folder.test_openings
    assert (folder.manifest.died_members, folder.manifest.failed_members) == ((1,), ())
    assert call("verify", run).exit_code == 0
    shutil.copytree(run, tmp_path / "smaller")
    smaller = json.loads(call("evaluate", tmp_path / "smaller", "--json").stdout)
    assert (smaller["members"], smaller["died_members"], smaller["test_openings"]) == (2, [1], 1)

    monkeypatch.setattr(processes, "_start", start)
    assert call(*train).exit_code == 0
    assert contents(run) == contents(undisturbed)
    assert "already holds this training" in call(*train).stderr
    assert call("train", "digits", *SMALL, "--keep-sealed", "--out", tmp_path / "smaller").exit_code == 0
    again = RunFolder(tmp_path / "smaller")  # what was opened stays open
    assert len(again.test_openings) == 2
    assert (tmp_path / "smaller" / "test_probabilities.npy").read_bytes() == (
        undisturbed / "test_probabilities.npy"
    ).read_bytes()


def test_a_killed_worker_goes_on_from_its_checkpoint(
    undisturbed: Path, started: list[processes._Worker], tmp_path: Path, digits: ImageDataset, monkeypatch: Any
) -> None:
    def stop(event: Event) -> None:
        if isinstance(event, EpochDone) and event.record.epoch == 2:
            raise InterruptedError

    def kill(event: Event) -> None:
        if isinstance(event, Remark):
            remarks.append(event.text)
        elif event.member == 0 and not remarks:
            started[0].process.kill()

    remarks: list[str] = []
    monkeypatch.setattr(jobs, "CHECKPOINT_SECONDS", 0.0)
    with pytest.raises(InterruptedError):
        committee.train(digits, RECIPE, tmp_path / "run", committee.Setting(workers=1), on_event=stop)
    committee.train(digits, RECIPE, tmp_path / "run", committee.Setting(workers=2), on_event=kill)
    assert [text.partition("; ")[2] for text in remarks] == ["fewer --workers need less), the first time; it is started again from its checkpoint"]
    assert contents(tmp_path / "run") == contents(undisturbed)
