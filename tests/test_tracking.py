"""`--log`: trackers get every epoch once and the results, whatever happens; the training never notices them."""

from __future__ import annotations

import os
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from importlib import metadata
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from committee.cli.main import main
from committee.folders.run_folder import RunFolder

SMALL = ["digits", "--recipe", "fast", "--members", "2", "--epochs", "3", "--workers", "1"]
Points = dict[tuple[str, str], list[tuple[int, float]]]
"""(step, value) by a figure's name and the member, or "" for the results."""

KILLED_IN_MEMBER_1 = """
import os, signal, sys
from committee.cli import main, progress
from committee.training.jobs import EpochDone


def kill(event):
    if isinstance(event, EpochDone) and (event.member, event.record.epoch) == (1, 2):
        os.kill(os.getpid(), signal.SIGKILL)

to_all = progress.to_all
progress.to_all = lambda *listeners: to_all(kill, *listeners)
main.main()
"""


def installed(*packages: str) -> bool:
    for package in packages:
        try:
            metadata.version(package)
        except metadata.PackageNotFoundError:
            return False
    return True


def has_trackio() -> bool:
    return installed("trackio") and int(metadata.version("trackio").split(".")[1]) >= 43


def tensorboard_points(runs: Path) -> Points:
    from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

    found: Points = {}
    for file in sorted((runs / "tensorboard").rglob("events.*")):
        member = file.parent.name.removeprefix("member-") if file.parent.name.startswith("member-") else ""
        for event in EventFileLoader(str(file)).Load():
            for value in event.summary.value:
                if value.metadata.plugin_data.plugin_name == "scalars":
                    number = value.tensor.float_val[0]
                    found.setdefault((value.tag, member), []).append((event.step, number))
    return found


def mlflow_points(runs: Path) -> Points:
    found: Points = {}
    with sqlite3.connect(runs / "mlflow" / "mlflow.db") as base:
        assert base.execute("select count(*) from runs").fetchone() == (1,)
        for key, step, value in base.execute("select key, step, value from metrics order by step"):
            name, _, member = key.partition("/member_")
            found.setdefault((name, member), []).append((step, value))
    return found


def trackio_points(runs: Path) -> Points:
    code = (
        "import json, trackio.sqlite_storage as s; p = 'committee'; S = s.SQLiteStorage; r = S.get_runs(p);"
        "assert len(r) == 1; print(json.dumps(S.get_logs(p, r[0])))"
    )
    environment = {**os.environ, "TRACKIO_DIR": str(runs / "trackio")}
    out = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    import json

    found: Points = {}
    for row in json.loads(out.stdout):
        for key, value in row.items():
            if isinstance(value, float | int) and "/" in key:
                name, _, member = key.removeprefix("results/").partition("/member_")
                found.setdefault((name, member), []).append((row["step"], value))
    return found


READ: dict[str, Callable[[Path], Points]] = {
    "tensorboard": tensorboard_points,
    "mlflow": mlflow_points,
    "trackio": trackio_points,
}
HERE = {
    "tensorboard": installed("tensorboard"),
    "mlflow": installed("mlflow-skinny", "sqlalchemy") or installed("mlflow"),
    "trackio": has_trackio(),
}
each_tracker = pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.skipif(not HERE[kind], reason="not installed")) for kind in READ]
)


def train(folder: Path, *more: str) -> Result:
    return CliRunner().invoke(main, ["train", *SMALL, "--out", str(folder), *more], catch_exceptions=False)


def in_process(code: str, folder: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """Trackers keep threads and settings for their process, so that each gets one of its own."""
    command = [sys.executable, "-W", "ignore", "-c", code, "train", *SMALL, "--out", str(folder), *more]
    return subprocess.run(command, capture_output=True, text=True)


@pytest.fixture(scope="module")
def untracked(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    folder = tmp_path_factory.mktemp("runs") / "without"
    assert train(folder).exit_code == 0
    return RunFolder(folder)


def check(points: Points, run: Path) -> None:
    """Every epoch of every member once, in order, with its figures; the results of the folder."""
    folder = RunFolder(run)
    for member in range(2):
        history = folder.member(member).history
        for name in ("train_loss", "validation_accuracy", "learning_rate"):  # not times: it may be another session's
            told = points[name, f"{member:02d}"]
            assert [step for step, _ in told] == [1, 2, 3], (name, told)
            assert [value for _, value in told] == pytest.approx([getattr(epoch, name) for epoch in history], rel=1e-6)
    test = folder.results.test
    assert test
    assert points["test_accuracy", ""][-1][1] == pytest.approx(test.accuracy, rel=1e-6)
    assert points["test_accuracy_low", ""][-1][1] == pytest.approx(test.accuracy_interval.low, rel=1e-6)


@each_tracker
def test_a_killed_training_is_one_run_of_the_tracker_and_has_the_same_bits(
    kind: str, tmp_path: Path, untracked: RunFolder
) -> None:
    """It is killed before the tracker hears of an epoch, which is then trained again, or was kept by a checkpoint."""
    run, more = tmp_path / "run", ["--log", kind, "--checkpoint-every", "0" if kind == "tensorboard" else "30s"]
    killed = in_process(KILLED_IN_MEMBER_1, run, *more)
    assert killed.returncode == -9, killed.stderr
    ended = in_process("from committee.cli.main import main; main()", run, *more)
    assert ended.returncode == 0, ended.stderr
    assert "Trackio" not in ended.stdout
    check(READ[kind](tmp_path), run)
    assert RunFolder(run).weights_digest() == untracked.weights_digest()
    RunFolder.finished(run)
    assert not RunFolder(run).others()


def test_a_full_disk_is_one_note(tmp_path: Path, untracked: RunFolder) -> None:
    """Event files go to /dev/full, which says that no space is left."""
    pytest.importorskip("tensorboard")
    first = train(tmp_path / "run", "--log", "tensorboard")
    (place,) = (tmp_path / "tensorboard").glob("run-*/")
    again = tmp_path / "again"
    for member in ("member-00", "member-01"):
        folder = again / "tensorboard" / place.name / member
        folder.mkdir(parents=True)
        (folder / "events.out.tfevents.0000000001").symlink_to("/dev/full")
    result = train(again / "run", "--log", "tensorboard")
    assert first.exit_code == result.exit_code == 0
    assert result.stderr.count("cannot be written to") == 1
    assert "No space left on device" in result.stderr
    assert RunFolder(again / "run").weights_digest() == untracked.weights_digest()


@pytest.mark.skipif(not HERE["mlflow"], reason="not installed")
def test_a_server_that_is_gone_is_one_note(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    result = in_process(
        "from committee.cli.main import main; main()", tmp_path / "run", "--log", "mlflow", "--members=1"
    )
    assert result.returncode == 0, result.stderr
    assert result.stderr.count("cannot be written to") == 1


def test_a_tracker_that_is_not_installed_is_said_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "trackio", None)
    result = train(tmp_path / "run", "--log", "trackio")
    assert result.exit_code == 2
    assert "pip install 'committee[trackio]'" in result.stderr
    assert not (tmp_path / "run").exists()
