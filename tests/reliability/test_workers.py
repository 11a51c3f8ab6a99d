"""Workers and parents that die, SIGTERM, full disks, losses that are not finite: real processes and signals."""

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

import committee
from committee import temporary as temporary_folders
from committee.cli.main import main
from committee.cli.options import Group
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.rng import numpy_generator
from committee.runs import evaluation
from committee.training import fork_server, jobs, losses
from committee.training.executors import processes
from committee.training.fork_server import ForkedProcess, ForkServer
from committee.training.jobs import Died, EpochDone, Event, Failed, Finished, Job, Remark
from committee.training.plan import plan_training
from committee.training.shared_images import shared
from committee.training.state import StepProgress, TrainedNetwork
from reliability.scale import cases, record_figure

MEMBERS, EPOCHS = 5, 3
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "write_run_page", lambda *given: None)
        assert call("train", "digits", *SMALL, "--workers", "1", "--out", run).exit_code == 0
    return run


@pytest.fixture
def no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs without their page, whose figures take most of the time."""
    monkeypatch.setattr(evaluation, "write_run_page", lambda *given: None)


MOST_MEGABYTES = 80
"""Of a worker's private memory, with small images and networks: 21 are its objects and a step's arrays, of which there
may be more on other processors; PyTorch imported by itself would be 130 more, and torch.compile's modules 70.
"""
KILLED = (
    r"its worker process was killed by SIGKILL \(the usual reason is that memory ran out; fewer --workers need less\), "
    r"the (first|second) time; it is started again from its checkpoint"
)
START = processes._start


def killing_member_1(job: Job, server: ForkServer | None) -> processes._Worker:
    """A worker, killed at once where it is to train member 1."""
    worker = START(job, server)
    if job.member == 1:
        worker.process.kill()
    return worker


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> list[processes._Worker]:
    """The workers that are started from now on."""
    found: list[processes._Worker] = []

    def start_and_note(job: Job, server: ForkServer | None) -> processes._Worker:
        found.append(START(job, server))
        return found[-1]

    monkeypatch.setattr(processes, "_start", start_and_note)
    return found


# --- workers ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("no_page")
def test_every_member_s_worker_is_killed_once_and_the_bytes_are_the_same(
    undisturbed: Path, started: list[processes._Worker], tmp_path: Path, digits: ImageDataset
) -> None:
    runs, kills, began = cases(1, 20), 0, time.monotonic()
    for number in range(runs):
        run, killed, remarks = tmp_path / str(number), set[int](), dict[int, str]()
        delays = numpy_generator("kills", number).uniform(0, 0.3, MEMBERS) if number else np.zeros(MEMBERS)
        went_on = dict[int, tuple[int, int]]()  # each killed member's first step afterwards: epoch, step

        def kill(
            event: Event, killed: Any = killed, remarks: Any = remarks, delays: Any = delays, went_on: Any = went_on
        ) -> None:
            if isinstance(event, Remark):
                if not event.epochs:  # else it says from which checkpoint
                    remarks[event.member] = event.text
            elif isinstance(event, StepProgress) and event.member in remarks:
                went_on.setdefault(event.member, (event.epoch, event.step))
            elif isinstance(event, EpochDone) and event.member not in killed:
                killed.add(event.member)
                (victim,) = (each for each in started if each.job.member == event.member and each.process.is_alive())
                threading.Timer(delays[event.member], victim.process.kill).start()

        setting = committee.Setting(workers=2, checkpoint_seconds=0.0)  # a checkpoint after every step
        committee.train(digits, RECIPE, run, setting, on_event=kill)
        assert contents(run) == contents(undisturbed), number
        kills += len(remarks)
        assert remarks
        assert all(re.fullmatch(KILLED, text) for text in remarks.values()), remarks
        assert all(step > (1, 1) for step in went_on.values()), went_on  # from the checkpoint, in fact
        shutil.rmtree(run)
        started.clear()
    record_figure("killed workers", f"{kills} kills in {runs} runs, {time.monotonic() - began:.0f} s, equal bytes")


def test_a_third_death_leaves_the_test_images_sealed_and_the_same_command_completes_the_run(
    undisturbed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, digits: ImageDataset
) -> None:
    run, train = tmp_path / "run", ("train", "digits", *SMALL, "--workers", "2", "--out", tmp_path / "run")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_start", killing_member_1)
        result = call(*train)
    assert result.exit_code == 3, result.output
    said = result.stdout.replace("\n", " ")
    assert "1 of 5 members died, so that the committee has only 4. Member 1: its worker process was killed by" in said
    assert "The same command trains the missing member; until then the test images stay sealed, unless" in said
    assert result.stderr.count("it is started again from the beginning") == 2
    assert "1 of 5 members died" in (run / "report.html").read_text()
    folder = RunFolder(run)
    assert folder.is_sealed
    assert not folder.test_openings
    assert (folder.manifest.died_members, folder.manifest.failed_members) == ((1,), ())
    note = (
        f"Note: {run} lacks member 1 (died) of its 5 members; it answers with the other 4; its committee train command"
    )
    bundle = tmp_path / "run.committee"
    for command in (("verify", run), ("bundle", run, bundle), ("compare", run, run, "--on", "out-of-fold")):
        result = call(*command)
        assert result.exit_code == 0
        assert note in result.stderr
    np.save(tmp_path / "some.npy", digits.train.pixels[:2])
    result = call("predict", bundle, tmp_path / "some.npy")
    assert result.exit_code == 0
    assert note.replace(str(run), str(bundle)) in result.stderr
    monkeypatch.setattr(evaluation, "write_run_page", lambda *given: None)
    shutil.copytree(run, tmp_path / "smaller")
    result = call("evaluate", tmp_path / "smaller", "--json")
    assert result.exit_code == 3
    assert "smaller lacks member 1 (died) of its 5 members" in result.stderr
    smaller = json.loads(result.stdout)
    assert (smaller["members"], smaller["died_members"], smaller["test_openings"]) == (4, [1], 1)

    assert call(*train).exit_code == 0
    assert contents(run) == contents(undisturbed)
    assert "already holds this training" in call(*train).stderr
    assert call("train", "digits", *SMALL, "--keep-sealed", "--out", tmp_path / "smaller").exit_code == 0
    again = RunFolder(tmp_path / "smaller")  # what was opened stays open
    assert len(again.test_openings) == 2
    assert (tmp_path / "smaller" / "test_probabilities.npy").read_bytes() == (
        undisturbed / "test_probabilities.npy"
    ).read_bytes()


@pytest.mark.usefixtures("no_page")
def test_self_training_stops_at_a_round_that_lacks_a_member_and_goes_on(tmp_path: Path, monkeypatch: Any) -> None:
    few = [*SMALL, "--members", "2", "--set", "holdout.folds=2", "--set", "pseudo_labels.min_precision=0"]
    few += ["--set", "pseudo_labels.accept=top_fraction"]
    train = ("pseudo-labels", "digits", "--held-back", "0.5", *few, "--out", tmp_path / "rounds")
    with monkeypatch.context() as patch:
        patch.setattr(processes, "_start", killing_member_1)
        result = call(*train, "--workers", "2")
    assert result.exit_code == 2
    assert "Error: round 0 lacks member 1 (its worker process was killed by SIGKILL" in result.stderr
    assert not (tmp_path / "rounds" / "round-1").exists()
    result = call(*train, "--workers", "1")
    assert result.exit_code == 0, result.output
    assert "Round 1: test accuracy" in result.stdout


def test_a_bug_in_a_worker_keeps_its_traceback_and_is_not_tried_again(
    tmp_path: Path, capfd: pytest.CaptureFixture[str], digits: ImageDataset, no_page: None
) -> None:
    events: list[Event] = []
    with shared(digits.train) as (images,):
        assert images is not None
        job = plan_training(digits, RECIPE, committee.Setting()).jobs(images, None, RunFolder(tmp_path / "run"))[0]
        events += processes.run([replace(job, validation=np.array([10**6]))], workers=1)  # there is no such image
    event = events[-1]
    assert isinstance(event, Died)
    assert not any(isinstance(each, Remark) for each in events)
    assert event.why == "its worker process ended with status 1; its own error message is above"
    assert "IndexError" in capfd.readouterr().err


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("forked", [pytest.param(True, marks=LINUX), False])
def test_workers_that_are_forked_and_workers_that_are_spawned_give_the_same_bytes(
    forked: bool, undisturbed: Path, started: list[processes._Worker], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fork_server, "AVAILABLE", forked)
    assert call("train", "digits", *SMALL, "--workers", "2", "--out", tmp_path / "run").exit_code == 0
    assert {isinstance(each.process, ForkedProcess) for each in started} == {forked}
    assert contents(tmp_path / "run") == contents(undisturbed)


@LINUX
@pytest.mark.usefixtures("no_page")
def test_the_process_that_starts_workers_is_killed_with_one_of_them_and_another_one_takes_over(
    undisturbed: Path, started: list[processes._Worker], tmp_path: Path, digits: ImageDataset
) -> None:
    remarks: list[str] = []

    def kill(event: Event) -> None:
        if isinstance(event, Remark) and not event.epochs:
            remarks.append(event.text)
        elif isinstance(event, EpochDone) and event.member == 1 and not remarks:
            (victim,) = (each.process for each in started if each.job.member == 1)
            assert isinstance(victim, ForkedProcess)
            victim.server.process.kill()
            victim.kill()

    setting = committee.Setting(workers=2, checkpoint_seconds=0.0)
    committee.train(digits, RECIPE, tmp_path / "run", setting, on_event=kill)
    assert remarks
    assert all(re.fullmatch(KILLED, text) for text in remarks), remarks
    assert len({each.process.server for each in started if isinstance(each.process, ForkedProcess)}) == 2
    assert contents(tmp_path / "run") == contents(undisturbed)


@LINUX
@pytest.mark.parametrize(
    ("start", "safe"), [("", True), ("threading.Thread(target=time.sleep, args=[9]).start()", False)]
)
def test_a_process_with_threads_is_not_forked(start: str, safe: bool) -> None:
    script = "import os, threading, time, numpy; from committee.training.fork_server import has_one_thread\n"
    script += f"{start}\nprint(has_one_thread(), flush=True)\nos._exit(0)"
    ended = subprocess.run([sys.executable, "-W", "error", "-c", script], capture_output=True, text=True, check=True)
    assert ended.stdout == f"{safe}\n"


@LINUX
def test_a_worker_shares_the_memory_of_what_it_imports(tmp_path: Path) -> None:
    with long_training(tmp_path / "run", tmp_path / "temporary") as (_, (_, *workers)):
        own = [private_megabytes(each) for each in workers]
    record_figure("memory of a worker", ", ".join(f"{each:.0f} MB" for each in own))
    assert len(own) == 2
    assert max(own) < MOST_MEGABYTES


# --- the parent -------------------------------------------------------------------------------------------------------


def workers_of(process: int) -> list[int]:
    """The process that starts the workers of a process, and the workers."""
    started = map(int, Path(f"/proc/{process}/task/{process}/children").read_text().split())
    spawned = [each for each in started if b"spawn_main" in Path(f"/proc/{each}/cmdline").read_bytes()]
    return [*spawned, *(worker for each in spawned for worker in workers_of(each))]


def private_megabytes(process: int) -> float:
    """Memory that a process shares with no other one and that is no copy of a file: what it costs to have it."""
    lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
    return sum(float(line.split()[1]) for line in lines if line.startswith("Private_Dirty:")) / 1024


def is_running(process: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


@contextmanager
def long_training(folder: Path, temporary: Path, *options: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """A training that is under way, and its two workers with the process that started them."""
    temporary.mkdir()
    command = [sys.executable, "-m", "committee", "train", "digits", *SMALL, "--workers", "2", "--epochs", "2000"]
    process = subprocess.Popen(
        [*command, "--out", str(folder), *options],
        stderr=subprocess.PIPE,
        text=True,
        env=os.environ | {"TMPDIR": str(temporary)},
        start_new_session=True,
    )
    try:
        while len(list(folder.glob("members/*/history.jsonl"))) < 2:
            assert process.poll() is None, process.communicate()
            time.sleep(0.02)
        yield process, workers_of(process.pid)
    finally:
        process.kill()
        process.communicate()


def seconds_until(condition: Callable[[], bool], limit: float) -> float:
    """How long it takes until something is so."""
    began = time.monotonic()
    while not condition():
        assert time.monotonic() - began < limit
        time.sleep(0.01)
    return time.monotonic() - began


@LINUX
def test_workers_end_with_their_parent_and_the_next_training_removes_its_copies(
    tmp_path: Path, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, temporary = tmp_path / "run", tmp_path / "temporary"
    with long_training(run, temporary) as (process, workers):
        monkeypatch.setattr(tempfile, "tempdir", str(temporary))
        (copies,) = temporary.glob("committee-*")
        with shared(digits.train):  # of another training, at the same time
            assert copies.exists()
        process.kill()
        process.wait()
        seconds = seconds_until(lambda: not any(map(is_running, workers)), limit=3)
    record_figure("parent killed", f"{len(workers)} processes gone after {seconds:.2f} s")
    assert len(workers) == 3
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    assert copies.exists()
    mine = temporary / "committee-of-mine"
    mine.mkdir()
    (mine / "votes.txt").write_text("not a copy of images")
    os.utime(mine, (0, 0))
    without_lock = temporary / "committee-abcdefgh"  # as version 0.5 left them
    without_lock.mkdir()
    (without_lock / "0-pixels.npy").touch()
    with shared(digits.train) as (images,):
        assert images is not None
        assert set(temporary.glob("committee-*")) == {images.pixels.parent, mine, without_lock}
        os.utime(without_lock, (0, 0))
    with shared(digits.train):
        assert not without_lock.exists()
    assert list(temporary.glob("committee-*")) == [mine]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before  # nobody wrote


@LINUX
def test_sigterm_ends_the_workers_and_says_how_to_go_on(tmp_path: Path) -> None:
    every_step = "--checkpoint-every", "0"
    with long_training(tmp_path / "run", tmp_path / "temporary", *every_step) as (process, workers):
        process.terminate()
        _, stderr = process.communicate(timeout=20)
        assert len(workers) == 3
        assert not any(map(is_running, workers))
    assert process.returncode == 143
    kept = (
        f"0 of {MEMBERS} members are finished, and 2 under way have checkpoints to go on from; all of this is kept in"
    )
    said = f"Stopped by SIGTERM; {kept} {tmp_path / 'run'}. Give the same command again to continue.\n"
    assert said in stderr
    assert "Traceback" not in stderr
    assert not list((tmp_path / "temporary").glob("committee-*"))


def test_sigterm_ends_any_command_in_a_sentence() -> None:
    @click.group(cls=Group)
    def group() -> None: ...

    @group.command()
    def wait() -> None:
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(5)

    before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    result = CliRunner().invoke(group, ["wait"])
    assert (result.exit_code, result.stderr) == (143, "Stopped by SIGTERM.\n")
    for each, handler in before.items():
        assert signal.signal(each, handler) == signal.SIG_IGN, "the process ends, and nothing stops that"


# --- full disks -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 128 KiB."""
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128k", "none", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("only root can mount a small disk")
    yield path
    subprocess.run(["umount", "--lazy", path], check=True)


def fill(disk: Path) -> Path:
    """A file that takes all the room there is."""
    with (disk / ".filler").open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1024))
        except OSError:
            return disk / ".filler"


def test_a_full_tmpdir_is_one_sentence_with_what_to_do(tmp_path: Path, small_disk: Path, monkeypatch: Any) -> None:
    fill(small_disk)
    monkeypatch.setattr(tempfile, "tempdir", str(small_disk))
    train = ("train", "digits", *SMALL, "--out", tmp_path / "run")
    foreseen = call(*train)
    usage = shutil.disk_usage(small_disk)._replace(free=10**9)
    monkeypatch.setattr(temporary_folders.shutil, "disk_usage", lambda path: usage)
    met = call(*train)
    for result, free, why in ((foreseen, "0", ""), (met, "1,000,000,000", r" \(.+\)")):
        assert result.exit_code == 2
        assert re.search(
            rf"\nError: {small_disk} has {free} bytes free, but the copies of the images that all workers read need "
            rf"[1-9][\d,]+{why}; free some space, or set TMPDIR to a folder that has more\n$",
            result.stderr,
        ), result.stderr
    assert not list(small_disk.glob("committee-*"))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "missing"))
    assert "Error: no temporary folder can be written (No such file or directory); set TMPDIR" in call(*train).stderr


@pytest.mark.usefixtures("no_page")
@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_under_a_member_ends_all_of_them_and_the_same_command_goes_on(
    workers: int, undisturbed: Path, small_disk: Path, tmp_path: Path, digits: ImageDataset
) -> None:
    run, setting = tmp_path / "run", committee.Setting(workers=workers)
    run.mkdir()
    members = run / "members"
    members.symlink_to(small_disk)
    (run / "identity.json").write_bytes((undisturbed / "identity.json").read_bytes())
    ended: list[Event] = []

    def fill_first(event: Event) -> None:
        fill(small_disk)
        ended.extend([event] if isinstance(event, Finished | Failed | Died) else [])

    with pytest.raises(committee.CommitteeError, match=r"No space left on device|is full") as raised:
        committee.train(digits, RECIPE, run, setting, on_event=fill_first)
    assert "\n" not in str(raised.value)
    assert not ended
    assert not list(small_disk.glob("*/member.json"))
    (small_disk / ".filler").unlink()
    members.unlink()
    shutil.copytree(small_disk, members)  # a larger disk
    committee.train(digits, RECIPE, run, committee.Setting(workers=1))
    assert contents(run) == contents(undisturbed)


# --- losses that are not finite ---------------------------------------------------------------------------------------


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Makes the loss of member 1 undefined from an epoch on; after the last one, a weight."""
    fit, loss_of, steps = jobs.fit, losses.loss_of, {"left": -1}

    def poison(epoch: int) -> None:
        def poisoned_fit(pixels: Any, labels: Any, task: Any, **rest: Any) -> Iterator[Any]:
            steps["left"] = task.steps_before(epoch) + 1 if task.member == 1 and epoch <= EPOCHS else -1
            for event in fit(pixels, labels, task, **rest):
                if isinstance(event, TrainedNetwork) and task.member == 1:
                    next(iter(event.network.parameters())).data.fill_(float("nan"))
                yield event

        def poisoned_loss(logits: Any, *rest: Any, **named: Any) -> Any:
            steps["left"] -= logits.requires_grad
            return loss_of(logits, *rest, **named) * (float("nan") if steps["left"] == 0 else 1.0)

        monkeypatch.setattr(jobs, "fit", poisoned_fit)
        monkeypatch.setattr(losses, "loss_of", poisoned_loss)

    return poison


@pytest.mark.parametrize("epoch", range(1, EPOCHS + 2))
def test_a_loss_that_is_not_finite_stays_with_its_member(
    epoch: int, undisturbed: Path, poisoned: Callable[[int], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if epoch > 1:
        monkeypatch.setattr(evaluation, "write_run_page", lambda *given: None)
    poisoned(epoch)
    run = tmp_path / "run"
    result = call("train", "digits", *SMALL, "--workers", "1", "--out", run)
    assert result.exit_code == 3, result.output
    folder = RunFolder(run)
    assert (folder.manifest.failed_members, folder.committee.members) == ((1,), (0, 2, 3, 4))
    assert len(folder.test_openings) == 1  # it would fail again: there is nothing to wait for
    why = folder.member(1).record.remark
    where = "are not finite after the last step" if epoch > EPOCHS else f"loss became nan in epoch {epoch};"
    assert where in why
    kept = {name: each for name, each in contents(undisturbed).items() if re.match("members/0[0234]", name)}
    found = contents(run)
    assert kept
    assert {name: found[name] for name in kept} == kept
    texts = [run / "committee.json", run / "results.json", *run.glob("report.html"), *run.glob("tables/*")]
    for text in texts:
        content = re.sub(r'"data:[^"]*"', "", text.read_text()).replace(why, "")
        assert not re.search(r"\b(nan|inf|infinity)\b", content, re.IGNORECASE), text
