"""Damage is noticed by every command that reads, and no command takes it over."""

from __future__ import annotations

import json
import random
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from scale import LONG, cases, record_figure

from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.errors import RunError
from committee.folders.manifest import SHOWN
from committee.folders.run_folder import RunFolder
from committee.runs import evaluation

SMALL = ("--members", "2", "--epochs", "1", "--set", "holdout.folds=2", "--set", "network.widths=[4,4,4]")


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    """A finished run on 60 digits, whose test images are sealed."""
    folder = tmp_path_factory.mktemp("corruption")
    np.savez(folder / "few.npz", images=digits.train.pixels[:60], labels=digits.train.labels[:60])
    result = call("train", folder / "few.npz", *SMALL, "--workers", "1", "--keep-sealed", "--out", folder / "run")
    assert result.exit_code == 0, result.output
    return folder / "run"


@contextmanager
def flipped(path: Path, position: int, bit: int) -> Iterator[None]:
    """A file with one bit turned over."""
    with path.open("r+b") as file:
        file.seek(position)
        byte = file.read(1)[0]
        file.seek(position)
        file.write(bytes([byte ^ 1 << bit]))
    try:
        yield
    finally:
        with path.open("r+b") as file:
            file.seek(position)
            file.write(bytes([byte]))


def read(run: Path, shown_too: bool) -> None:
    """What every command does first, and what verify does besides."""
    folder = RunFolder.finished(run)
    if shown_too:
        folder.verify(shown_too=True)


def test_a_flipped_bit_anywhere_is_noticed(run: Path) -> None:
    rng, began, tried = random.Random(0), time.perf_counter(), 0
    for path in sorted(path for path in run.rglob("*") if path.is_file() and not path.name.startswith(".")):
        name = path.relative_to(run).as_posix()
        shown = name.startswith(SHOWN)  # no command but verify reads these
        step = cases(17 * 400, 1009) if shown else cases(17, 1)
        for position in range(rng.randrange(min(step, path.stat().st_size)), path.stat().st_size, step):
            with flipped(path, position, rng.randrange(8)), pytest.raises(RunError) as error:
                read(run, shown)
            assert str(error.value).count("\n") == 0, f"{name}, byte {position}: {error.value}"
            tried += 1
    read(run, shown_too=True)
    record_figure("flipped bytes of a run", f"{tried:,} noticed, none missed, {time.perf_counter() - began:.0f} s")


def commands(run: Path, tmp_path: Path) -> dict[str, tuple[object, ...]]:
    """Every command that reads a run."""
    image = tmp_path / "image.npy"
    np.save(image, np.zeros((1, 8, 8), np.uint8))
    return {
        "predict": ("predict", run, image),
        "evaluate": ("evaluate", run),
        "compare": ("compare", run, run, "--on", "out-of-fold"),
        "report": ("report", run),
        "verify": ("verify", run),
        "bundle": ("bundle", run, tmp_path / "x.committee"),
        "train --from": ("train", run.parent / "few.npz", "--from", run, "--epochs", "1", "--out", tmp_path / "more"),
    }


def test_every_command_that_reads_refuses_each_damaged_file(run: Path, tmp_path: Path) -> None:
    names = [name for name in RunFolder(run).listed if not name.startswith(SHOWN)] + ["run.json"]
    for number, name in enumerate(names):
        path = run / name
        before = {each: each.read_bytes() for each in run.rglob("*") if each.is_file()}
        for command, arguments in commands(run, tmp_path).items():
            if not LONG and number % len(commands(run, tmp_path)) != list(commands(run, tmp_path)).index(command):
                continue
            with flipped(path, path.stat().st_size // 2, 0):
                result = call(*arguments)
            assert result.exit_code == 2, f"{command} of {name}: {result.output}"
            assert result.output.count("Error: ") == 1, f"{command} of {name}: {result.output}"
            assert name in result.output, f"{command} of {name}: {result.output}"
        assert {each: each.read_bytes() for each in run.rglob("*") if each.is_file()} == before, name


def test_damage_while_a_report_is_written_is_not_taken_over(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    weights, real = copy / "members" / "00" / "weights.safetensors", evaluation.summary

    def damaging(folder: RunFolder) -> Any:
        content = bytearray(weights.read_bytes())
        content[-1] ^= 1
        weights.write_bytes(content)
        return real(folder)

    monkeypatch.setattr(evaluation, "summary", damaging)
    call("report", copy)
    result = call("verify", copy)
    assert result.exit_code == 2
    assert "weights.safetensors" in result.output


def test_page_terminal_and_verify_tell_one_digest_which_outlives_a_new_report(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    digest = RunFolder(copy).contents_digest()
    assert digest in (copy / "report.html").read_text(encoding="utf-8")
    assert f"Contents: {digest}" in call("verify", copy).output
    assert call("report", copy).exit_code == 0
    assert f"Contents: {digest}" in call("verify", copy).output
    assert digest in (copy / "report.html").read_text(encoding="utf-8")
    result = call("evaluate", copy, run.parent / "few.npz")
    assert result.exit_code == 0, result.output
    assert digest not in result.output, "other contents have another digest"
    assert RunFolder(copy).contents_digest() in result.output


def test_a_forged_digest_in_the_manifest_is_another_contents_digest(run: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    manifest = json.loads((copy / "run.json").read_text())
    manifest["out_of_fold"]["accuracy"] = 0.999
    del manifest["digest"]
    (copy / "run.json").write_text(json.dumps(manifest))
    assert RunFolder(copy).contents_digest() != RunFolder(run).contents_digest()


@pytest.mark.parametrize("command", ["report", "evaluate"])
def test_a_folder_that_cannot_be_written_to_is_told_in_a_sentence(
    command: str, run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    copy = shutil.copytree(run, tmp_path / "copy")
    monkeypatch.setattr("os.open", _refusing(copy))
    result = call(command, copy, *([run.parent / "few.npz"] if command == "evaluate" else []))
    assert result.exit_code == 2, result.output
    assert "cannot be written (Read-only file system)" in result.output
    assert result.output.count("Error: ") == 1
    monkeypatch.undo()
    assert call("verify", copy).exit_code == 0


def _refusing(folder: Path) -> Any:
    """os.open of a disk that is mounted read-only; root may write where permissions forbid it."""
    import errno
    import os

    real = os.open

    def opened(path: Any, flags: int, *more: Any, **others: Any) -> int:
        if flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) and str(path).startswith(str(folder)):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
        return real(path, flags, *more, **others)

    return opened
