"""Progress while members train: the time left that is foretold, bars on a terminal, lines in a log."""

from __future__ import annotations

import os
import pty
import re
import subprocess
import sys
from pathlib import Path

import pytest

from committee.cli import progress
from committee.folders.records import EpochRecord
from committee.training.jobs import EpochDone, Failed, Remark
from committee.training.state import StepProgress


def epoch_done(member: int, epoch: int) -> EpochDone:
    record = EpochRecord(
        epoch=epoch,
        seconds=1.0,
        images_per_second=100.0,
        learning_rate=0.1,
        train_loss=0.5,
        train_accuracy=0.9,
        validation_loss=0.4,
        validation_accuracy=0.92,
    )
    return EpochDone(member, record)


class Watch:
    """A clock that shows what it is told."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr("committee.cli.progress.time.monotonic", lambda: self.now)


def test_the_time_left_follows_the_speed_and_counts_what_is_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    clock = progress.Clock({("", 0): (4, 1.0), ("", 1): (4, 1.0)}, may_stop_early=False)
    clock.take(StepProgress(0, 1, 1, 10, 2.3))
    assert clock.time_left() == ""  # a tenth of an epoch tells nothing yet
    watch.now += 60
    clock.take(epoch_done(0, 1))
    clock.take(StepProgress(1, 1, 5, 10, 2.3))
    assert clock.time_left() == "4 min 20 s left"  # 1.5 epochs in 60 s, and 6.5 are missing
    clock.take(Failed(1, "its loss became nan"))
    assert clock.time_left() == "3 min 00 s left"  # one in 60 s, 3 are missing, and none of the failed member's
    early = progress.Clock({("", 0): (4, 1.0)}, may_stop_early=True)
    early.take(epoch_done(0, 1))
    watch.now += 10
    assert early.time_left() == "at most 30 s left"


def test_the_time_left_does_not_count_what_an_earlier_session_has_done(monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    clock = progress.Clock({("", 0): (10, 1.0), ("", 1): (10, 1.0)}, may_stop_early=False)
    clock.take(Remark(0, "goes on from epoch 8, step 9 of 10", epochs=7.9))
    clock.take(Remark(1, "goes on after epoch 9", epochs=9.0))
    assert clock.left == pytest.approx(3.1)
    watch.now += 10
    clock.take(StepProgress(0, 8, 10, 10, 2.3))
    clock.take(epoch_done(0, 8))  # a tenth of an epoch
    watch.now += 50
    clock.take(StepProgress(1, 10, 5, 10, 2.3))
    assert clock.time_left() == "4 min 10 s left"  # .6 epochs in 60 s, and 2.5 are missing
    clock.take(Remark(1, "goes on after epoch 9", epochs=9.0))  # its worker died: nothing new
    clock.take(epoch_done(1, 10))
    clock.take(Failed(0, "its loss became nan"))
    assert clock.left == pytest.approx(0)
    assert clock.seen == {("", 0): 8, ("", 1): 10}


def test_in_a_log_short_epochs_have_a_line_every_ten_seconds_and_the_last_one(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    watch = Watch(monkeypatch)
    with progress.Lines(progress.Clock({("", 3): (12, 1.0)}, may_stop_early=False)) as lines:
        for epoch in range(1, 13):
            watch.now += 4
            lines(epoch_done(3, epoch))
    printed = capsys.readouterr().err.splitlines()
    assert [int(line.split()[3]) for line in printed] == [1, 4, 7, 10, 12]
    assert printed[1].startswith(
        "member 03  epoch   4     1.0 s  loss 0.5000  accuracy 0.9000  validation: loss 0.4000"
    )


@pytest.mark.parametrize("kind", ["lines", "bars"])
def test_a_remark_is_shown_and_its_member_trains_on(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    clock = progress.Clock({("", 3): (4, 1.0)}, may_stop_early=False)
    with progress.Lines(clock) if kind == "lines" else progress.Bars(clock, "committee") as shown:
        shown(StepProgress(3, 1, 5, 10, 2.3))
        shown(Remark(3, "a checkpoint is damaged; training goes on from the one before"))
    assert clock.left == 4
    assert clock.part == {("", 3): 0.5}
    assert re.search(r"member 03(:| ) a checkpoint is damaged; training goes on", capsys.readouterr().err)


def test_on_a_terminal_every_member_and_the_committee_have_a_bar(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "committee", "train", "digits", "--members", "2", "--epochs", "6"]
    command += ["--set", "holdout.folds=2", "--workers", "1", "--out", str(tmp_path / "run")]
    controller, terminal = pty.openpty()
    environment = os.environ | {"TERM": "xterm-256color", "COLUMNS": "120", "NO_COLOR": "1"}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=terminal, env=environment)
    os.close(terminal)
    seen = b""
    while True:
        try:
            seen += os.read(controller, 4096)
        except OSError:  # the other side is closed
            break
    os.close(controller)
    assert process.wait() == 0
    text = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", seen.decode())
    assert re.search(r"member 00 ━+╸? +epoch \d +loss \d\.\d+ +validation accuracy \d+\.\d+\s% +[\d,]+ images/s", text)
    assert re.search(r"committee ━+╸? +[\d.]+ s left", text)
    assert re.search(r"committee ━+ trained", text)
    assert "member 01 finished: loss" in text
