"""Kills, power cuts and failing disks at every operation that changes the disk."""

from __future__ import annotations

import errno
import json
import os
import random
import subprocess
import time
from collections.abc import Callable, Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from scale import LONG, cases, record_figure

from committee import disk
from committee.cli.main import main
from committee.errors import StorageError
from committee.folders.lock import HOLDER, LOCK
from committee.folders.run_folder import RunFolder
from committee.report import page, run_page

SMALL = ("--members", "2", "--epochs", "2", "--set", "holdout.folds=2", "--set", "network.widths=[8,8,8]")
VARYING = ("seconds", "images_per_second", "opened", "cpu_threads")  # what differs between two runs of one training
Operation = tuple[str, *tuple[Any, ...]]


def train(out: Path, *more: str) -> Result:
    """The training of all these tests."""
    options = ("train", "digits", "--recipe", "standard", *SMALL, "--workers", "1", "--checkpoint-every", "0")
    return CliRunner().invoke(main, [*options, "--out", str(out), *more])


class Watched:
    """`os` for `committee.disk`: notes every operation that changes the disk, or fails where it is told to."""

    def __init__(self, before: Callable[[Operation], None]) -> None:
        self.before = before
        self.paths: dict[int, Path] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(os, name)

    def open(self, path: Path, flags: int, mode: int = 0o777) -> int:
        if flags & os.O_CREAT:
            self.before(("create", path))
        file = os.open(path, flags, mode)
        self.paths[file] = path
        return file

    def write(self, file: int, content: memoryview) -> int:
        self.before(("write", self.paths[file], bytes(content)))
        return os.write(file, content)

    def fsync(self, file: int) -> None:
        self.before(("fsync", self.paths[file]))
        os.fsync(file)

    def replace(self, source: Path, target: Path) -> None:
        self.before(("rename", source, target))
        os.replace(source, target)

    def unlink(self, path: Path) -> None:
        if path.exists():
            self.before(("unlink", path))
        os.unlink(path)

    def mkdir(self, path: Path) -> None:
        self.before(("mkdir", path))
        os.mkdir(path)


@pytest.fixture
def quick_figures(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are drawn once: their pixels are not what these tests are about, and take most of a report's time."""
    drawn: dict[str, Any] = {}

    def once(name: str, make: Callable[[Any], Any]) -> Callable[[Any], Any]:
        def made(run: Any) -> Any:
            if name not in drawn:
                drawn[name] = make(run)
            return drawn[name]

        return made

    monkeypatch.setattr(run_page, "page_figures", once("plots", run_page.page_figures))
    monkeypatch.setattr(run_page, "image_figures", once("images", run_page.image_figures))
    monkeypatch.setattr(page, "as_png", lru_cache(page.as_png))
    monkeypatch.setattr(page, "templates", lru_cache(page.templates))


# --- what a kill or a power cut leaves --------------------------------------------------------------------------------


class Disk:
    """A model of a disk: what is there after a power cut, by POSIX and no more.

    A file's bytes are there once it was synced, a name (of a file or folder, made, renamed or removed) once its folder
    was synced. What was not synced may be there or not, each by itself: `chance` decides.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.files: dict[Path, bytes] = {}  # as programs see them
        self.synced: dict[Path, bytes | None] = {}  # bytes on the disk; None is a folder
        self.pending: list[tuple[Path, Path, bytes | None, bool]] = []  # folder, path, bytes, there or gone
        self.content: dict[Path, bytes] = {}  # synced bytes by the name under which they were written

    def apply(self, operation: Operation) -> None:
        """The next operation."""
        kind, path, *more = operation
        if kind == "create":
            self.files[path] = b""
            self.content.pop(path, None)
            self.pending.append((path.parent, path, b"", True))
        elif kind == "write":
            self.files[path] += more[0]
        elif kind == "mkdir":
            self.pending.append((path.parent, path, None, True))
        elif kind == "fsync" and path in self.files:
            self.content[path] = self.files[path]
            self.pending = [
                (folder, name, self.files[path] if name == path else content, there)
                for folder, name, content, there in self.pending
            ]
            if path in self.synced:
                self.synced[path] = self.files[path]
        elif kind == "fsync":
            for change in [each for each in self.pending if each[0] == path]:
                self._make(change)
            self.pending = [each for each in self.pending if each[0] != path]
        elif kind == "rename":
            target = more[0]
            self.files[target] = self.files.pop(path)
            lost = self.content.pop(path, b"")  # bytes that were not synced may be gone, or a part of them
            self.pending = [each for each in self.pending if each[1] != path]
            self.synced.pop(path, None)
            self.pending.append((target.parent, target, lost, True))
        elif kind == "unlink":
            self.files.pop(path, None)
            self.pending.append((path.parent, path, None, False))

    def _make(self, change: tuple[Path, Path, bytes | None, bool]) -> None:
        _, path, content, there = change
        if there:
            self.synced[path] = content
        else:
            self.synced.pop(path, None)

    def after_power_cut(self, folder: Path, chance: Callable[[], bool]) -> None:
        """Write what is left into a folder."""
        kept = dict(self.synced)
        for _, path, content, there in self.pending:
            if chance():
                if there:
                    kept[path] = content
                else:
                    kept.pop(path, None)
        for path in sorted(kept):
            self._put(folder, path, kept[path], kept)

    def _put(self, folder: Path, path: Path, content: bytes | None, kept: dict[Path, bytes | None]) -> None:
        inside = path.relative_to(self.root)
        if any(self.root / parent not in kept for parent in inside.parents if parent != Path()):
            return  # its folder's name is lost, and so is the file
        place = folder / inside
        if content is None:
            place.mkdir(parents=True, exist_ok=True)
        else:
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)

    def after_kill(self, folder: Path) -> None:
        """Write what programs see into a folder: a kill loses nothing that was written."""
        for path, content in self.files.items():
            place = folder / path.relative_to(self.root)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_bytes(content)


@pytest.fixture
def recorded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, quick_figures: None) -> tuple[Path, list[Operation]]:
    """A finished run, and every operation of its training."""
    operations: list[Operation] = []
    monkeypatch.setattr(disk, "os", Watched(operations.append))
    folder = tmp_path / "whole"
    result = train(folder)
    assert result.exit_code == 0, result.output
    monkeypatch.setattr(disk, "os", os)
    return folder, operations


@pytest.mark.timeout(600 if not LONG else 14400)
def test_a_kill_or_a_power_cut_at_any_operation_loses_no_member_and_no_report(
    recorded: tuple[Path, list[Operation]], tmp_path: Path
) -> None:
    whole, operations = recorded
    rng, began, checked, resumed = random.Random(0), time.perf_counter(), 0, 0
    state = Disk(whole)
    state.synced[whole] = None
    every = cases(300, 41)
    for number, operation in enumerate((*operations, ("end", whole))):
        ways: list[Callable[[Path], None]] = [
            state.after_kill,
            lambda folder: state.after_power_cut(folder, lambda: False),
            *[lambda folder: state.after_power_cut(folder, lambda: rng.random() < 0.5)] * cases(1, 3),
        ]
        for way, leave in enumerate(ways):
            folder = tmp_path / f"{number}-{way}"
            folder.mkdir()
            leave(folder)
            check(folder, whole, f"operation {number} ({operation[0]} of {operation[1].name}), way {way}")
            checked += 1
            if (LONG and way == 0) or (number * len(ways) + way) % every == every // 2:
                result = train(folder)
                assert result.exit_code == 0, f"operation {number}, way {way}: {result.output}"
                assert_same_results(folder, whole)
                resumed += 1
            subprocess.run(["rm", "-rf", str(folder)], check=True)
        if operation[0] != "end":
            state.apply(operation)
    record_figure(
        "crash-safe",
        f"{len(operations)} operations, {checked} states left by a kill or a power cut, {resumed} of them trained to "
        f"the end with equal bytes, {time.perf_counter() - began:.0f} s",
    )


def check(folder: Path, whole: Path, where: str) -> None:
    """What is finished in a state is whole: the manifest's files, a finished member's files, whole checkpoints."""
    run = RunFolder(folder)
    if run.is_finished:
        run.verify(shown_too=True)
    for number in range(2):
        member = run.member(number)
        if member.is_done:
            for name in ("weights.safetensors", "validation.npy", "train_probabilities.npy"):
                file = Path("members") / f"{number:02d}" / name
                assert (folder / file).read_bytes() == (whole / file).read_bytes(), f"{where}: {file}"
            assert len(member.history) == member.record.epochs, where
    for path in folder.rglob("*.json"):
        if not path.name.startswith("."):
            assert json.loads(path.read_bytes()) is not None, f"{where}: {path.name} is not whole"


def assert_same_results(folder: Path, whole: Path) -> None:
    """A run gives the answers of another: all bytes of its members and of what they predict."""
    names = {path.relative_to(whole) for path in whole.rglob("*") if path.is_file()}
    apart = {Path(HOLDER), Path(LOCK)}  # of whoever writes; a folder that was finished is only read
    assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} - apart == names - apart
    for name in names:
        if name.suffix in (".npy", ".safetensors", ".toml", ".npz", ".png") or name.name in (
            "committee.json",
            "identity.json",
            "data.json",
            "images.json",
        ):
            assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


# --- a disk that is full or fails -------------------------------------------------------------------------------------


OPERATIONS = ("create", "write", "fsync", "rename", "mkdir")
ERRORS = (errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT, errno.EACCES, errno.ENOENT)


@pytest.mark.parametrize("code", ERRORS, ids=errno.errorcode.get)
@pytest.mark.parametrize("kind", OPERATIONS)
def test_a_failing_operation_leaves_the_old_file_and_nothing_else(
    kind: str, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = tmp_path / ("new/folder" if kind == "mkdir" else "file")
    if kind != "mkdir":
        old.write_bytes(b"old")

    def fail(operation: Operation) -> None:
        if operation[0] == kind:
            raise OSError(code, os.strerror(code))

    monkeypatch.setattr(disk, "os", Watched(fail))
    with pytest.raises(StorageError, match=os.strerror(code)) as error:
        disk.make_folder(old) if kind == "mkdir" else disk.write(old, b"new")
    assert str(error.value).count("\n") == 0
    monkeypatch.setattr(disk, "os", os)
    left = {path.name: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    assert left == ({} if kind == "mkdir" else {"file": b"old"})


@pytest.mark.parametrize("kind", ["fsync", "rename"])
def test_a_file_system_that_lacks_an_operation_is_used_and_noted(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(operation: Operation) -> None:
        if operation[0] == kind:
            raise OSError(errno.ENOTSUP, os.strerror(errno.ENOTSUP))

    monkeypatch.setattr(disk, "os", Watched(fail))
    with pytest.warns(disk.DurabilityNote, match="cannot sync|cannot rename"):
        disk.write(tmp_path / "file", b"new")
    assert (tmp_path / "file").read_bytes() == b"new"


@pytest.mark.timeout(600 if not LONG else 14400)
def test_a_full_or_failing_disk_ends_a_run_in_one_sentence_and_the_same_command_goes_on(
    recorded: tuple[Path, list[Operation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Places all over the training; in the long form every operation fails, and after a third the same command ends."""
    whole, operations = recorded
    places = [number for number, operation in enumerate(operations) if operation[0] in OPERATIONS]
    chosen = places if LONG else places[:: max(1, len(places) // 12)]
    began = time.perf_counter()
    for turn, number in enumerate(chosen):
        code = (errno.ENOSPC, errno.EIO)[turn % 2]
        count = iter(range(len(operations) + 1))

        def fail(operation: Operation, number: int = number, code: int = code, count: Iterator[int] = count) -> None:
            # from here on everything fails, as on a disk that is full: tidying up must not need space
            if next(count) >= number and operation[0] != "unlink":
                raise OSError(code, os.strerror(code))

        folder = tmp_path / str(number)
        monkeypatch.setattr(disk, "os", Watched(fail))
        result = train(folder)
        monkeypatch.setattr(disk, "os", os)
        where = f"operation {number}, {operations[number][:2]}"
        assert result.exit_code == 2, f"{where}: {result.output}"
        errors = [line for line in result.output.splitlines() if line.startswith("Error: ")]
        assert len(errors) == 1, f"{where}: {result.output}"
        assert os.strerror(code) in errors[0], where
        assert "Traceback" not in result.output, where
        assert not list(folder.rglob(".*.part")), where
        if folder.exists():
            check(folder, whole, where)
        if turn % cases(1, 3) == 0:
            result = train(folder)
            assert result.exit_code == 0, f"{where}: {result.output}"
            assert_same_results(folder, whole)
        subprocess.run(["rm", "-rf", str(folder)], check=True)
    record_figure("failing disk", f"{len(chosen)} of {len(places)} operations, {time.perf_counter() - began:.0f} s")


def test_a_run_that_is_moved_away_ends_and_nothing_of_it_comes_back(
    recorded: tuple[Path, list[Operation]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = recorded[0]
    for turn in range(1, cases(7, 50)):
        folder, away = tmp_path / str(turn), tmp_path / f"{turn}-away"
        calls = iter(range(10**6))

        def moving(real: Callable[..., None], at: int, there: Path, away: Path, calls: Iterator[int]) -> Any:
            def moved(*arguments: Any, **options: Any) -> None:
                if (there / "train_labels.npy").exists() and next(calls) == at:
                    there.rename(away)
                real(*arguments, **options)

            return moved

        with monkeypatch.context() as patch:
            for name in ("write_parts", "make_folder"):
                patch.setattr(disk, name, moving(getattr(disk, name), turn * cases(29, 4), folder, away, calls))
            result = train(folder)
        assert away.exists(), f"call {turn}: {result.output}"
        assert result.exit_code == 2, f"call {turn}: {result.output}"
        assert result.output.count("Error: ") == 1, f"call {turn}: {result.output}"
        assert "put it back and give the same command again" in result.output, f"call {turn}: {result.output}"
        assert not folder.exists(), f"call {turn}"
        away.rename(folder)
        result = train(folder)
        assert result.exit_code == 0, f"call {turn}: {result.output}"
        assert_same_results(folder, whole)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can mount a small disk")
def test_a_real_full_disk_is_said_and_space_is_all_that_is_needed(tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(small)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    try:
        result = train(small / "run")
        assert result.exit_code == 2, result.output
        assert "No space left on device" in result.output
        assert "free some space" in result.output
        assert not list(small.rglob(".*.part"))
        subprocess.run(["mount", "-o", "remount,size=64m", str(small)], check=True)
        result = train(small / "run")
        assert result.exit_code == 0, result.output
    finally:
        subprocess.run(["umount", str(small)], check=True)


def test_all_files_of_a_run_may_be_read_by_the_same_people(recorded: tuple[Path, list[Operation]]) -> None:
    files = [path for path in recorded[0].rglob("*") if path.is_file() and not path.name.startswith(".")]
    assert {path.stat().st_mode & 0o777 for path in files} == {0o666 & ~umask()}


def umask() -> int:
    """What new files are not allowed."""
    os.umask(mask := os.umask(0))
    return mask


# --- one process at a time --------------------------------------------------------------------------------------------


def test_a_second_training_of_one_folder_is_refused_and_names_the_first(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with RunFolder(folder).locked():
        result = train(folder)
    assert result.exit_code == 2
    assert f"is being written by process {os.getpid()} on " in result.output
    assert result.output.count("Error:") == 1
    result = train(folder)
    assert result.exit_code == 0, result.output


def test_what_a_killed_process_left_half_written_is_removed_at_the_next_start(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    left = [folder / name for name in (LOCK, HOLDER, ".identity.json.part", ".recipe.toml.part", ".other.json.part")]
    for path in left:
        path.write_bytes(b"half")
    result = train(folder)
    assert result.exit_code == 0, result.output
    assert not list(folder.rglob(".*.part"))
    assert not (folder / HOLDER).exists()
    assert RunFolder(folder).member(0).is_done
