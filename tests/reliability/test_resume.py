"""Resume is exact: between any two steps, after any kill -9, from a damaged checkpoint, in one process or several."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scale import LONG, cases, record_figure

from committee import disk
from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages
from committee.errors import StorageError
from committee.folders import files
from committee.folders.member_folder import MemberFolder
from committee.nn.devices import pick_precision, single_threaded
from committee.training import jobs
from committee.training.batches import image_weights
from committee.training.jobs import Checkpoints, EpochDone, Event, Job, Remark, execute
from committee.training.loop import fit
from committee.training.shared_images import shared
from committee.training.state import Task, TrainedNetwork, TrainingState

MEASURED = {"seconds", "images_per_second"}  # what an epoch's record has of the clock


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


# --- between any two steps --------------------------------------------------------------------------------------------

DROPOUT = (
    "network.layers=[{type='conv',filters=8,kernel=3,padding='same',activation='relu'},{type='maxpool',size=2},"
    "{type='flatten'},{type='dropout',rate=0.3},{type='dense',units='classes'}]"
)
BENT = ["augmentation.elastic=0.04", "augmentation.rotation=10", "augmentation.no_aug_epochs=0"]
RECIPES = {  # changes of `ensemble-cnn` where there is dropout, of `standard` elsewhere
    "muon, average, plateau, class weights": [
        "training.ema=0.9", "training.class_weights=balanced", "schedule.name=plateau", "schedule.patience=1",
        "schedule.warmup=0", "augmentation.no_aug_epochs=0", "network.widths=[8,8,8]",
    ],
    "adam, dropout, bending, early stopping": [
        DROPOUT, "optimiser.name=adam", "optimiser.lr=0.2", "training.patience=1", *BENT,
        "training.checkpoint=best_validation_loss",
    ],
    "sgd, pseudo-labels, cutout, cosine": [
        "optimiser.name=sgd", "optimiser.momentum=0.9", "optimiser.nesterov=true", "schedule.name=cosine",
        "augmentation.cutout=3", "augmentation.no_aug_epochs=0", "network.widths=[8,8,8]",
    ],
    "nadam, dropout, stages, whitened": [
        DROPOUT, "network.stem=whitening", "optimiser.name=nadam", "schedule.name=stages",
        "schedule.stages=[{epochs=1,lr=0.01,batch_size=12},{epochs=1,lr=0.002,augment=false}]",
    ],
}  # fmt: skip


def task_of(recipe: Recipe, digits: ImageDataset, *, pseudo: bool) -> Task:
    train = np.arange(70)
    return Task(
        recipe, 0, 0, train, np.arange(70, 130), 10, "cpu", pick_precision("auto", "cpu"),
        pseudo=LabelledImages(digits.train.pixels[200:207], digits.train.labels[200:207]) if pseudo else None,
        weights=image_weights(digits.train.labels, train, recipe.training.class_weights),
    )  # fmt: skip


def ends(events: Iterator[Any]) -> tuple[dict[str, bytes], list[dict[str, Any]], str]:
    """What a training ends with: the bytes of its weights, its history without the measured times, its remark."""
    last = list(events)[-1]
    assert isinstance(last, TrainedNetwork)
    weights = {name: tensor.numpy().tobytes() for name, tensor in last.network.state_dict().items()}
    return weights, [epoch.model_dump(exclude=MEASURED) for epoch in last.history], last.remark


@pytest.mark.parametrize("name", RECIPES)
def test_an_interruption_between_any_two_steps_changes_no_bit(name: str, digits: ImageDataset) -> None:
    recipe = recipes.load("ensemble-cnn" if "dropout" in name else "standard", ["training.epochs=2", *RECIPES[name]])
    task = task_of(recipe, digits, pseudo="pseudo" in name)
    images = digits.train.pixels, digits.train.labels
    whole, stored = ends(fit(*images, task)), []
    for event in fit(*images, task, due=lambda: True):
        if isinstance(event, TrainingState):  # stored at once, since the next step changes it
            stored.append(files.tensors_as_bytes(*event.to_tensors()))
    steps = task.steps_before(task.last_epoch + 1)
    assert len(stored) == steps + 2  # after every step, and after both epochs
    for content in stored:
        state = TrainingState.from_tensors(*files.tensors_from_bytes(content, Path("checkpoint")))
        assert ends(fit(*images, task, resume=state)) == whole, f"epoch {state.epoch}, step {state.step}"


def test_the_seconds_of_an_epoch_are_those_of_all_its_sessions(digits: ImageDataset) -> None:
    task = task_of(recipes.load("standard", ["training.epochs=1", "network.widths=[8,8,8]"]), digits, pseudo=False)
    events = fit(digits.train.pixels, digits.train.labels, task, due=lambda: True)
    state = next(event for event in events if isinstance(event, TrainingState) and event.step == 5)
    assert state.under_way is not None
    tensors, numbers = state.to_tensors()
    numbers["under_way"] = {**numbers["under_way"], "seconds": 100.0}  # type: ignore[dict-item]
    resumed = fit(digits.train.pixels, digits.train.labels, task, resume=TrainingState.from_tensors(tensors, numbers))
    record = next(event for event in resumed if isinstance(event, TrainingState)).history[0]
    assert 100 < record.seconds < 110
    assert record.images_per_second == pytest.approx(70 / record.seconds, rel=0.1)


# --- damaged checkpoints ----------------------------------------------------------------------------------------------


class Stopped(Exception):  # noqa: N818 - not an error
    """Stands for a kill."""


def begin(job: Job, monkeypatch: pytest.MonkeyPatch, writes: int = 14) -> list[Path]:
    """Train until so many checkpoints are written (after a step each, in the second epoch); those that remain."""
    left, write = [writes], MemberFolder.write_checkpoint

    def write_or_stop(self: MemberFolder, *arguments: Any, **named: Any) -> Path:
        left[0] -= 1
        path = write(self, *arguments, **named)
        if not left[0]:
            raise Stopped
        return path

    monkeypatch.setattr(MemberFolder, "write_checkpoint", write_or_stop)
    with pytest.raises(Stopped):
        list(execute(job))
    monkeypatch.undo()
    assert job.folder is not None
    return job.folder.checkpoints


def member_bytes(folder: Path) -> dict[str, object]:
    """All files of a member's folder, without the measured times."""
    found: dict[str, object] = {path.name: path.read_bytes() for path in folder.iterdir()}
    lines = (folder / "history.jsonl").read_text().splitlines()
    found["history.jsonl"] = [
        {name: value for name, value in json.loads(line).items() if name not in MEASURED} for line in lines
    ]
    found["member.json"] = {**json.loads((folder / "member.json").read_text()), "seconds": None}
    return found


@pytest.fixture
def job(digits: ImageDataset, tmp_path: Path) -> Iterator[Job]:
    """A member of three epochs with eight steps each, in an empty folder; a checkpoint after every step."""
    recipe = recipes.load("standard", ["training.epochs=3", "network.widths=[8,8,8]", "augmentation.no_aug_epochs=0"])
    with shared(LabelledImages(digits.train.pixels[:130], digits.train.labels[:130])) as (images,):
        assert images is not None
        yield Job(
            recipe, 0, 0, images, np.arange(64, 130), 10, "cpu", "float32",
            folder=MemberFolder(tmp_path / "member"), checkpoint_seconds=0,
        )  # fmt: skip


@pytest.fixture
def whole(job: Job, tmp_path: Path) -> dict[str, object]:
    """What the job leaves when nothing interrupts it."""
    list(execute(replaced(job, tmp_path / "whole", checkpoint_seconds=30.0)))
    return member_bytes(tmp_path / "whole")


def replaced(job: Job, folder: Path, checkpoint_seconds: float) -> Job:
    return replace(job, folder=MemberFolder(folder), checkpoint_seconds=checkpoint_seconds)


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def flip_header(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[9] ^= 0xFF
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def lack(path: Path) -> None:
    path.write_bytes(files.tensors_as_bytes({}, {"state": None}))


DAMAGE = [flip, flip_header, truncate, empty]


def remarks_and_first_epoch(events: list[Event]) -> tuple[list[str], int]:
    first = next(event for event in events if isinstance(event, EpochDone))
    return [event.text for event in events if isinstance(event, Remark)], first.record.epoch


@pytest.mark.parametrize("damage", DAMAGE)
def test_of_a_damaged_checkpoint_the_one_before_is_used_and_said(
    damage: Any, job: Job, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.folder is not None
    newest, before = begin(job, monkeypatch)
    damage(newest)
    remarks, first = remarks_and_first_epoch(list(execute(job)))
    assert len(remarks) == 1
    assert remarks[0].startswith(f"{newest.name} is damaged (")
    assert remarks[0].endswith(f"); training goes on from {before.name}, the one before")
    assert first == 2
    assert member_bytes(job.folder.path) == whole  # and no checkpoint is left


def test_without_a_whole_checkpoint_the_member_begins_again_and_that_is_said(
    job: Job, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.folder is not None
    newest, before = begin(job, monkeypatch)
    flip(newest)
    truncate(before)
    again = begin(job, monkeypatch, 5)  # killed once more, before it is where it was
    assert [path.name.split("-")[1:3] for path in again] == [["00000", "000005"], ["00000", "000004"]]
    events = list(execute(job))
    assert remarks_and_first_epoch(events) == (["goes on from epoch 1, step 5 of 8"], 1)
    assert member_bytes(job.folder.path) == whole


def test_what_begins_again_says_so(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    newest, before = begin(job, monkeypatch, 3)
    flip(newest)
    empty(before)
    remarks, first = remarks_and_first_epoch(list(execute(job)))
    assert len(remarks) == 1
    assert newest.name in remarks[0]
    assert before.name in remarks[0]
    assert remarks[0].endswith("training goes on from the member's beginning")
    assert first == 1


@pytest.mark.parametrize("damage", [None, flip_header, truncate, empty, lack])
def test_the_checkpoint_of_version_0_6_is_gone_on_from_or_its_damage_said(
    damage: Any, job: Job, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.folder is not None
    newest, before = begin(job, monkeypatch, 9)  # the state after the first epoch
    assert newest.name.startswith("checkpoint-00001-000000-")
    old = newest.rename(newest.with_name("checkpoint.safetensors"))
    before.unlink()
    if damage:
        damage(old)
    remarks, first = remarks_and_first_epoch(list(execute(job)))
    assert (first, len(remarks)) == (1 if damage else 2, 1)
    assert damage or remarks == ["goes on after epoch 1"]
    assert member_bytes(job.folder.path) == whole


def test_a_checkpoint_that_cannot_be_written_costs_neither_the_member_nor_the_one_before(
    job: Job, whole: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert job.folder is not None
    kept = begin(job, monkeypatch)

    def full(path: Path, content: bytes) -> None:
        raise StorageError(f"{path} cannot be written (No space left on device)")

    monkeypatch.setattr(disk, "write", full)
    with pytest.raises(StorageError):
        list(execute(job))
    monkeypatch.undo()
    assert job.folder.checkpoints == kept
    assert not job.folder.is_done
    assert remarks_and_first_epoch(list(execute(job))) == (["goes on from epoch 2, step 5 of 8"], 2)
    assert member_bytes(job.folder.path) == whole


def test_checkpoints_take_at_most_a_hundredth_of_the_time(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    now, cost = [1000.0], 0.1

    def write(self: MemberFolder, *arguments: object, **named: object) -> Path:
        now[0] += cost
        return self.path

    monkeypatch.setattr(MemberFolder, "write_checkpoint", write)
    monkeypatch.setattr(jobs.time, "monotonic", lambda: now[0])
    state = TrainingState(0, {}, {"state": {}, "param_groups": []}, {}, 0)
    checkpoints = Checkpoints(replaced(job, Path("unused"), 30.0))

    def seconds_until_due() -> float:
        began = now[0]
        while not checkpoints.due():
            now[0] += 1
        return now[0] - began

    assert seconds_until_due() == 30
    checkpoints.write(state)
    assert seconds_until_due() == 30
    cost = 2.0
    checkpoints.write(state)
    assert seconds_until_due() == 200
    always = Checkpoints(replaced(job, Path("unused"), 0.0))
    always.write(state)
    assert always.due()


# --- kill -9 ----------------------------------------------------------------------------------------------------------

TRAIN = [
    "train", "digits", "--members", "2", "--epochs", "2", "--set", "holdout.folds=2", "--set", "network.widths=[8,8,8]",
    "--set", "training.ema=0.5", "--set", "augmentation.cutout=2", "--set", "augmentation.no_aug_epochs=0",
]  # fmt: skip
LAST = "run.json" if LONG else "results.json"  # in CI the page is not waited for: it takes longer than all the rest
KILLS = cases(10, 300)
TIMED = ("history.jsonl", "member.json", "results.json", "run.json", "test_record.jsonl", "command.txt")
TIMED += ("environment.json", "seconds_training.json")


def start(out: Path, *options: str) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-m", "committee", *TRAIN, "--out", str(out), *options]
    with out.with_suffix(".log").open("ab") as log:
        return subprocess.Popen(command, stdout=log, stderr=log, start_new_session=True)


def kill(process: subprocess.Popen[bytes]) -> None:
    """Kill -9 of a session: the command and its workers."""
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def progress(out: Path) -> set[str]:
    return {str(path) for path in out.glob("members/*/*") if not path.name.startswith(".")}


def finish(out: Path, process: subprocess.Popen[bytes], seconds: float = 120.0) -> bool:
    """Wait for the last file, or so long; whether it is there. Then the session is killed."""
    until = time.monotonic() + seconds
    while time.monotonic() < until and process.poll() is None and not (out / LAST).exists():
        time.sleep(0.02)
    if process.poll() is None:
        if LONG and (out / LAST).exists():
            process.wait(60)
        else:
            kill(process)
    assert process.returncode in (0, -signal.SIGKILL), out.with_suffix(".log").read_text()
    return (out / LAST).exists()


def wait_for_training(out: Path, process: subprocess.Popen[bytes]) -> None:
    before = progress(out)
    while process.poll() is None and progress(out) == before:
        time.sleep(0.02)


def result_bytes(out: Path) -> dict[str, bytes]:
    """Everything that a run leaves and that does not tell of time and machine."""
    paths = [path for path in out.rglob("*") if path.is_file() and path.name not in TIMED]
    found = [path for path in paths if path.relative_to(out).parts[0] not in ("tables", "figures", "report.html")]
    assert not any("checkpoint" in path.name for path in found)
    return {str(path.relative_to(out)): path.read_bytes() for path in found if not path.name.startswith(".")}


def histories(out: Path) -> list[list[dict[str, Any]]]:
    found = [path.read_text().splitlines() for path in sorted(out.glob("members/*/history.jsonl"))]
    return [[{k: v for k, v in json.loads(line).items() if k not in MEASURED} for line in lines] for lines in found]


@pytest.mark.timeout(7200 if LONG else 300)
def test_killed_at_any_moment_the_same_command_ends_with_the_same_bytes(tmp_path: Path) -> None:
    began, reference = time.monotonic(), tmp_path / "reference"
    assert finish(reference, start(reference, "--workers", "1"))
    expected, expected_histories = result_bytes(reference), histories(reference)
    assert {"committee.json", "members/01/weights.safetensors", "test_probabilities.npy"} <= set(expected)

    def killed_runs(workers: int, kills: int) -> tuple[int, int]:
        """So many kills at random moments, of as many runs as it takes; each ends as it should.

        Returns:
            How many runs there were, and how many kills left a checkpoint of the middle of an epoch.
        """
        rng, runs, in_epochs = random.Random(workers), 0, 0
        while kills:
            runs += 1
            out, finished = tmp_path / f"{workers}-workers-{runs}", False
            while not finished:
                process = start(out, "--workers", str(workers), "--checkpoint-every", "0")
                if not kills:
                    finished = finish(out, process)
                    assert finished
                    break
                if started := rng.random() < 0.8:  # a fifth of the kills may come while it starts
                    wait_for_training(out, process)
                finished = finish(out, process, rng.uniform(0, 0.5 if started else 3))
                kills -= not finished
                in_epochs += any("-000000-" not in name for name in progress(out) if "checkpoint" in name)
            assert result_bytes(out) == expected
            assert histories(out) == expected_histories
        return runs, in_epochs

    by_two = KILLS // 5  # fewer, since three processes start more slowly than one
    with ThreadPoolExecutor(2) as pool:
        found = list(pool.map(killed_runs, (1, 2), (KILLS - by_two, by_two)))
    runs, in_epochs = (sum(numbers) for numbers in zip(*found, strict=True))
    assert in_epochs >= KILLS // 10
    seconds = time.monotonic() - began
    figure = f"{KILLS} kills -9 in {runs} runs, {in_epochs} of them in mid-epoch: the same bytes; {seconds:.0f} s"
    record_figure("resume is exact, mid-epoch too", figure)
