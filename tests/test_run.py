"""Whole runs through the command line: the same bits however placed or cut, and a test split that stays sealed."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

import committee
from committee import kernels
from committee.cli.main import main
from committee.data.dataset import open_test
from committee.data.formats import mapped
from committee.folders.lock import HOLDER
from committee.folders.run_folder import RunFolder

SMALL = ["--recipe", "standard", "--members", "2", "--epochs", "2"]
SMALL += ["--set", "holdout.folds=2", "--set", "network.widths=[8,8,8]"]


KILLED_IN_MEMBER_1 = """
import os, signal, sys
import committee

def kill(event):
    if event.member == 1 and isinstance(event, committee.training.jobs.EpochDone):
        os.kill(os.getpid(), signal.SIGKILL)

changes = ["committee.members=2", "training.epochs=2", "holdout.folds=2", "network.widths=[8,8,8]"]
recipe, setting = committee.load_recipe("standard", changes), committee.Setting(workers=1)
committee.train(committee.load_dataset("digits"), recipe, sys.argv[1], setting, on_event=kill)
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def weights(run: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(run.glob("members/*/weights.safetensors"))]


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on real digits, trained in this process."""
    folder = tmp_path_factory.mktemp("runs") / "one"
    result = call("train", "digits", *SMALL, "--workers", "1", "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def test_a_run_folder_holds_what_scripts_rely_on(run: Path) -> None:
    for name in ("run.json", "recipe.toml", "report.html", "results.json", "tables/members.csv"):
        assert (run / name).is_file(), name
    assert list((run / "figures").glob("*.png"))
    history = RunFolder(run).member(1).history
    assert [epoch.epoch for epoch in history] == [1, 2]
    line = json.loads((run / "members" / "01" / "history.jsonl").read_text().splitlines()[0])
    names = {"epoch", "images_per_second", "seconds", "train_loss", "validation_loss", "validation_accuracy"}
    assert names | {"learning_rate"} <= set(line)
    listed = RunFolder(run).manifest.files
    on_disk = {str(path.relative_to(run)) for path in run.rglob("*") if path.is_file()} - {"run.json", ".lock"}
    assert set(listed) == on_disk
    assert all((run / name).stat().st_size == record.bytes for name, record in listed.items())


def test_processes_and_this_process_give_the_same_bytes(run: Path, tmp_path: Path) -> None:
    result = call("train", "digits", *SMALL, "--workers", "2", "--out", tmp_path / "two")
    assert result.exit_code == 0, result.output
    assert weights(tmp_path / "two") == weights(run)
    assert (tmp_path / "two" / "out_of_fold_probabilities.npy").read_bytes() == (
        run / "out_of_fold_probabilities.npy"
    ).read_bytes()
    other = call("train", "digits", *SMALL, "--seed", "1", "--out", tmp_path / "three")
    assert other.exit_code == 0
    assert weights(tmp_path / "three") != weights(run)
    folders = (run, tmp_path / "two", tmp_path / "three")
    told = [line for each in folders for line in call("verify", each).stdout.splitlines() if "Members: " in line]
    assert told[0] == told[1] != told[2], "one digest for trainings that give the same members"


def test_members_never_train_on_what_they_are_validated_on(run: Path) -> None:
    validation = [RunFolder(run).member(member).validation for member in (0, 1)]
    images = len(np.load(run / "train_labels.npy"))
    assert np.array_equal(np.sort(np.concatenate(validation)), np.arange(images))
    probabilities = np.load(run / "out_of_fold_probabilities.npy")
    own = np.load(run / "members" / "00" / "train_probabilities.npy")
    assert np.array_equal(probabilities[validation[0]], own[validation[0]].astype(float))


def test_a_kept_seal_is_opened_once_by_evaluate_and_recorded(run: Path, tmp_path: Path) -> None:
    sealed = tmp_path / "sealed"
    result = call("train", "digits", *SMALL, "--out", sealed, "--keep-sealed", "--json")
    assert json.loads(result.stdout)["test"] is None
    assert not (sealed / "test_record.jsonl").exists()
    assert not (sealed / "test_probabilities.npy").exists()
    assert "sealed" in (sealed / "report.html").read_text()
    answer = json.loads(call("evaluate", sealed, "--json").stdout)
    manifest = RunFolder(run).manifest.model_dump(mode="json")
    assert answer["test"] == manifest["test"]
    assert answer["out_of_fold"] == manifest["out_of_fold"]
    record = [json.loads(line) for line in (sealed / "test_record.jsonl").read_text().splitlines()]
    assert [line["purpose"] for line in record] == ["committee evaluate"]
    again = call("evaluate", sealed, "--json")
    assert json.loads(again.stdout)["test_openings"] == 1
    assert "are open already" in again.stderr
    assert json.loads(call("evaluate", sealed, "--json", "--again").stdout)["test_openings"] == 2


def test_every_misclassified_test_image_is_listed_with_both_probabilities(run: Path) -> None:
    rows = (run / "tables" / "misclassified_test.csv").read_text().splitlines()
    assert rows[0] == "image,true,predicted,probability_true,probability_predicted,file"
    summary = RunFolder(run).manifest.test
    assert summary is not None
    assert len(rows) - 1 == summary.errors
    image, true, predicted, own, chosen, _ = rows[1].split(",")
    probabilities = np.load(run / "test_probabilities.npy")[int(image)]
    assert true == str(np.load(run / "test_labels.npy")[int(image)]) != predicted
    assert (float(own), float(chosen)) == pytest.approx((probabilities[int(true)], probabilities.max()), abs=1e-6)


def test_json_prints_one_object_and_a_finished_run_is_shown_again(run: Path) -> None:
    result = call("train", "digits", *SMALL, "--out", run, "--json")
    answer = json.loads(result.stdout)
    assert answer["members"] == 2
    assert answer["test"]["images"] == 359
    low, high = answer["test"]["interval"]
    assert low < answer["test"]["accuracy"] < high
    assert "already holds this training" in result.stderr


def test_another_training_does_not_enter_a_run_folder(run: Path) -> None:
    result = call("train", "digits", *SMALL, "--seed", "5", "--out", run)
    assert result.exit_code == 2
    assert "holds another training (seed was 0, now 5); give another folder (--out)" in result.stderr
    result = call("train", "digits", *SMALL, "--epochs", "3", "--out", run)
    assert "(recipe: training: epochs was 2, now 3); give another folder (--out)" in result.stderr
    assert "already holds" not in result.stderr


def test_missing_kernels_are_told_once_by_each_command(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kernels, "are_missing", lambda: True)
    monkeypatch.setattr("committee.runs.run.evaluate", lambda run, dataset: None)
    image = tmp_path / "image.npy"
    np.save(image, np.zeros((1, 8, 8), np.uint8))
    for command in (
        ("train", "digits", *SMALL, "--members", "1", "--epochs", "1", "--workers", "1", "--out", tmp_path / "run"),
        ("predict", run, image),
        ("evaluate", run, "--again"),
    ):
        assert call(*command).stderr.count("two to three times as slowly; install") == 1, command
    assert "slowly" not in call("evaluate", run).stderr  # which only shows it


def test_a_run_that_was_killed_goes_on_to_the_same_bytes(run: Path, tmp_path: Path) -> None:
    folder = tmp_path / "killed"
    script = tmp_path / "killed.py"
    script.write_text(KILLED_IN_MEMBER_1)
    process = subprocess.run([sys.executable, script, folder], capture_output=True, text=True)
    assert process.returncode == -signal.SIGKILL, process.stderr
    assert (folder / "members" / "00" / "member.json").exists()
    assert not (folder / "members" / "01" / "member.json").exists()
    assert not (folder / "run.json").exists()
    first = (folder / "members" / "00" / "weights.safetensors").stat().st_mtime_ns
    assert "is an unfinished run" in call("report", folder).stderr
    with RunFolder(folder).locked():
        assert f"is being trained by process {os.getpid()} on " in call("report", folder).stderr
    (folder / HOLDER).write_text('{"process": 1}')  # as after SIGKILL
    assert "is an unfinished run" in call("report", folder).stderr
    assert call("train", "digits", *SMALL, "--out", folder).exit_code == 0
    assert (folder / "members" / "00" / "weights.safetensors").stat().st_mtime_ns == first
    assert weights(folder) == weights(run)


def test_a_script_without_the_main_guard_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        'import committee\nrecipe = committee.load_recipe("standard", ["committee.members=2", "training.epochs=1"])\n'
        'committee.train(committee.load_dataset("digits"), recipe, "run", committee.Setting(workers=2))\n'
    )
    ended = subprocess.run([sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 1
    assert 'put its calls under `if __name__ == "__main__":`' in ended.stderr
    assert re.search("no member could be trained: the worker process of member [01] ended with status 1", ended.stderr)


def test_without_out_each_training_has_a_folder_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quick = [*SMALL, "--epochs", "1", "--keep-sealed", "--workers", "1"]
    for momentum in ("0.9", "0.8", "0.7", "0.8"):
        result = call("train", "digits", *quick, "--set", f"optimiser.momentum={momentum}")
        assert result.exit_code == 0, result.output
    names = ["digits-standard-seed0", "digits-standard-seed0-2", "digits-standard-seed0-3"]
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == names
    assert "runs/digits-standard-seed0-2 already holds this training" in result.stderr


def test_ctrl_c_keeps_finished_members_and_says_how_to_go_on(tmp_path: Path) -> None:
    folder = tmp_path / "interrupted"
    command = [sys.executable, "-m", "committee", "train", "digits", "--epochs", "400", "--out", str(folder)]
    process = subprocess.Popen(
        command,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # shells start background jobs without it
    )
    for _ in range(600):
        if list(folder.glob("members/*/history.jsonl")):
            break
        time.sleep(0.05)
    for _ in range(400):  # again and again, as an impatient user does
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGINT)
            time.sleep(0.02)
    try:
        _, stderr = process.communicate(timeout=30)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Give the same command again to continue." in stderr
    assert "Traceback" not in stderr


def test_going_on_from_a_run_keeps_its_validation_images(run: Path, tmp_path: Path) -> None:
    more = tmp_path / "more"
    result = call("train", "digits", "--from", run, "--epochs", "1", "--out", more)
    assert result.exit_code == 0, result.output
    assert [epoch.epoch for epoch in RunFolder(more).member(0).history] == [3]
    for member in ("00", "01"):
        validation = "members/" + member + "/validation.npy"
        assert (more / validation).read_bytes() == (run / validation).read_bytes()
    before, after = (np.load(folder / "members" / "00" / "train_probabilities.npy") for folder in (run, more))
    labels = np.load(run / "train_labels.npy")
    rows = np.arange(len(labels))
    assert np.log(after[rows, labels]).mean() > np.log(before[rows, labels]).mean()


def test_a_diverging_member_is_named_and_the_exit_code_is_3(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from committee.training import losses

    loss_of = losses.loss_of
    calls = {"count": 0}

    def breaks_first_member(*arguments: Any, **named: Any) -> Any:
        calls["count"] += 1
        return loss_of(*arguments, **named) * (float("nan") if calls["count"] == 1 else 1.0)

    monkeypatch.setattr(losses, "loss_of", breaks_first_member)
    result = call("train", "digits", *SMALL, "--workers", "1", "--out", tmp_path / "half")
    assert result.exit_code == 3, result.output
    assert "Member 00 failed and is left out: the training loss became nan in epoch 1" in result.stdout
    half = RunFolder(tmp_path / "half")
    assert half.committee.members == (1,)
    assert half.manifest.failed_members == (0,)
    loaded = committee.load(tmp_path / "half")
    assert len(loaded.networks) == 1


def test_predictions_are_those_of_the_evaluation_in_every_form(run: Path, tmp_path: Path, digits: Any) -> None:
    from committee.data.dataset import open_test

    test = open_test(digits, tmp_path / "record.jsonl", "a test of the tests")
    loaded = committee.load(run)
    assert np.array_equal(loaded.predict_proba(test.pixels), np.load(run / "test_probabilities.npy"))
    assert np.array_equal(loaded.predict_proba(test.pixels[7:8])[0], loaded.predict_proba(test.pixels)[7])
    np.save(tmp_path / "some.npy", test.pixels[:5])
    records = json.loads(call("predict", run, tmp_path / "some.npy", "--format", "json").stdout)
    assert [record["prediction"] for record in records] == loaded.predict(test.pixels[:5])
    assert {record["disagreement"] for record in records} <= {0.0, 0.5, 1.0}
    table = call("predict", run, tmp_path / "some.npy", "--format", "csv").stdout.splitlines()
    assert table[0].startswith("image,prediction,probability,disagreement,familiar,p(0),p(1)")
    assert len(table) == 6
    out = tmp_path / "answers.parquet"
    assert call("predict", run, tmp_path / "some.npy", "--format", "parquet", "--out", out).exit_code == 0
    import pyarrow.parquet as parquet

    assert parquet.read_table(out).column("prediction").to_pylist() == loaded.predict(test.pixels[:5])
    assert parquet.read_table(out).column("familiar").to_pylist() == [record["familiar"] for record in records]
    assert all(0 <= record["familiar"] <= 1 for record in records)


@pytest.mark.parametrize(
    "name",
    ["members/01/weights.safetensors", "members/00/member.json", "members/00/train_probabilities.npy", "committee.json",
     "results.json", "recipe.toml", "data.json", "images.json", "pictures.npz"],
)  # fmt: skip
def test_damage_is_noticed_by_every_command_and_never_laundered(name: str, run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 0x81
    (copy / name).write_bytes(content)
    commands = [("report", copy), ("predict", copy, copy / "train_labels.npy"), ("evaluate", copy), ("verify", copy)]
    for command in (*commands, ("compare", copy, run), ("train", "digits", *SMALL, "--from", copy)):
        result = call(*command)
        assert result.exit_code == 2, (command, result.output)
        assert f"{name} is not the file that training wrote (SHA-256 differs)" in result.stderr.replace("\n", " ")
    result = call("train", "digits", *SMALL, "--out", copy)  # the run's own command does not show what is damaged
    assert result.exit_code == 2
    assert "restore it, or delete the folder and train again" in result.stderr
    assert "already holds this training" not in result.stderr


def test_verify_looks_at_the_page_too_and_report_writes_it_again(run: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(run, copy)
    said = call("verify", copy).output
    assert "files of this run are those that were written" in said
    (copy / "report.html").write_text("another page")
    told = call("verify", copy).stderr
    assert "report.html is not the file" in told
    assert f"; committee report {copy} writes it again" in told
    assert call("report", copy).exit_code == 0
    assert call("verify", copy).output == said  # the same contents
    for name in ("extra.txt", "members/00/extra.npy"):
        (copy / name).write_text("not of the run")
    assert f"2 other files lie in {copy} (extra.txt, members/00/extra.npy)" in call("verify", copy).stderr


def test_an_image_in_place_of_a_run_is_told_as_that(run: Path, tmp_path: Path) -> None:
    picture = Path(shutil.copy(next((run / "figures").glob("*.png")), tmp_path / "digit.png"))
    result = call("predict", picture, run)
    assert result.exit_code == 2
    assert f"{picture} is neither a run's folder nor a bundle; give a folder" in result.stderr


def test_compare_tells_a_run_from_itself_and_from_a_better_one(run: Path, tmp_path: Path) -> None:
    told = call("compare", run, run).stdout
    assert "not distinguishable" in told
    assert told.count(f"  {len(committee.load(run).networks)} members  ") == 2
    call("train", "digits", *SMALL, "--epochs", "12", "--out", tmp_path / "long")
    answer = json.loads(call("compare", run, tmp_path / "long", "--on", "out-of-fold", "--json").stdout)
    assert answer["accuracy_difference"] > 0
    assert answer["mcnemar_p"] < 0.01


def test_the_report_is_written_again_from_the_folder_alone(run: Path) -> None:
    before = (run / "report.html").read_text()
    (run / "report.html").unlink()
    assert call("report", run).exit_code == 0
    assert (run / "report.html").read_text() == before


def test_when_every_member_fails_the_same_command_can_try_again(tmp_path: Path) -> None:
    hopeless = ["--set", "optimiser.name=sgd", "--set", "optimiser.lr=1e30", "--set", "schedule.name=constant"]
    for _ in range(2):
        result = call("train", "digits", *SMALL, *hopeless, "--workers", "1", "--out", tmp_path / "run")
        assert result.exit_code == 2
        assert "no member could be trained: the " in result.stderr
        assert "a lower optimiser.lr may help" in result.stderr
    assert list((tmp_path / "run").glob("members/*/member.json")) == []


def test_members_with_their_own_kernels_and_views_come_back_as_they_were(tmp_path: Path, digits: Any) -> None:
    changes = ["--set", "network.kernels=[3,5]", "--set", "committee.tta=horizontal_flip", "--out", tmp_path / "run"]
    result = call("train", "digits", *SMALL, *changes)
    assert result.exit_code == 0, result.output
    loaded = committee.load(tmp_path / "run")
    kernels = [max(p.shape[-1] for p in network.parameters() if p.ndim == 4) for network in loaded.networks]
    assert kernels == [3, 5]
    pixels = open_test(digits, tmp_path / "record.jsonl", "a test").pixels[:50]
    mine, mirrored = (loaded.member_probabilities(each) for each in (pixels, pixels[:, :, ::-1]))
    assert np.allclose(mine, mirrored, atol=1e-6)
    stored = [RunFolder(tmp_path / "run").member(member).test_probabilities for member in (0, 1)]
    assert np.array_equal(mine, np.stack(stored)[:, :50])


def test_large_arrays_are_mapped_not_read_and_train_as_any(
    tmp_path: Path, digits: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 1)
    (tmp_path / "set").mkdir()
    np.save(tmp_path / "set" / "images.npy", digits.train.pixels)
    np.save(tmp_path / "set" / "labels.npy", digits.train.labels)
    dataset = committee.load_dataset(tmp_path / "set")
    for part in (dataset.train.pixels, dataset.test._images.pixels):  # whose test part was split off
        assert mapped.is_mapped(part)
    pixels = np.concatenate([dataset.train.pixels, dataset.test._images.pixels])
    assert sorted(map(bytes, pixels)) == sorted(map(bytes, digits.train.pixels))
    assert call("train", tmp_path / "set", *SMALL, "--workers", "1", "--out", tmp_path / "run").exit_code == 0
