"""Run folders of other versions: those of 0.4 are read as today's, others are refused in one sentence."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from committee.cli.main import main
from committee.folders.run_folder import RunFolder

TRAIN = ["train", "digits", "--members", "2", "--epochs", "2", "--workers", "1"]
TRAIN += ["--set", "holdout.folds=2", "--set", "network.widths=[8,8,8]"]

# today's name -> that of 0.4.1, as its files have them
RECIPE = {
    'stem = "random"': 'stem = "drawn"',
    "batch_size": "batch",
    "checkpoint": "keep",
    "adamw_lr_factor": "other_rate",
    "min_lr": "floor",
    "lr =": "rate =",
    "warmup": "warm_up",
    'monitor = "validation_accuracy"': 'watch = "held_out_accuracy"',
    "no_aug_epochs": "plain_epochs",
    'tta = "none"': 'views = "plain"',
    "batch_fraction": "share",
    "top_fraction": "best_share",
    "audit_fraction": "audit",
    "min_precision": "precision_limit",
}
FILES = {
    "results.json": {
        '"best_epoch"': '"kept_epoch"',
        '"validation": {': '"held_out": {',
        "size_curve_": "sizes_",
    },
    "members/*/member.json": {'"best_epoch"': '"kept_epoch"', '"validation"': '"held_out"'},
    "identity.json": {
        "train_images": "training images",
        "test_images": "test images",
        "continued_from": "goes on from",
        "pseudo_labels": "pseudo-labels",
        '"warmup"': '"warm_up"',
        '"no_aug_epochs"': '"plain_epochs"',
        '"lr"': '"rate"',
        '"batch_size"': '"batch"',
    },
    "environment.json": {"threads_per_member": "threads a member"},
    "data.json": {'"warnings"': '"marks"'},
    "recipe.toml": RECIPE,
}


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "run"
    result = call(*TRAIN, "--out", folder)
    assert result.exit_code == 0, result.output
    return folder


def as_written_by_0_4(run: Path, copy: Path) -> Path:
    """A copy of a run folder with the names that version 0.4.1 gave to files and fields."""
    shutil.copytree(run, copy)
    for pattern, names in FILES.items():
        for path in copy.glob(pattern):
            text = path.read_text()
            for new, old in names.items():
                text = text.replace(new, old)
            path.write_text(text)
    for path in copy.glob("members/*/validation.npy"):
        path.rename(path.with_name("held_out.npy"))
    manifest = json.loads((copy / "run.json").read_text())
    del manifest["kind"]
    manifest |= {"schema": 2, "marks": manifest.pop("warnings")}
    contents = {name: (copy / name.replace("validation.npy", "held_out.npy")) for name in manifest["files"]}
    manifest["files"] = {
        path.relative_to(copy).as_posix(): {
            "bytes": path.stat().st_size,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        }
        for path in contents.values()
    }
    manifest.pop("digest")  # which version 0.4 did not write
    (copy / "run.json").write_text(json.dumps(manifest))
    return copy


def test_a_folder_of_version_0_4_is_used_like_one_of_today(run: Path, tmp_path: Path) -> None:
    old = as_written_by_0_4(run, tmp_path / "old")
    assert "kept_epoch" in (old / "members" / "00" / "member.json").read_text()
    assert not re.search(r"^(lr|batch_size|tta|monitor) =", (old / "recipe.toml").read_text(), re.MULTILINE)
    assert "already holds this training" in call(*TRAIN, "--out", old).stderr
    said = call("report", old)
    assert said.exit_code == 0, said.output
    pages = [
        (each / "report.html").read_text().replace(RunFolder(each).contents_digest(), "the digest of its contents")
        for each in (old, run)
    ]
    assert pages[0] == pages[1]
    answers = [json.loads(call("compare", each, run, "--json").stdout) for each in (run, old)]
    assert answers[0] | {"a": ""} == answers[1] | {"a": ""}
    more = call("train", "digits", "--from", old, "--epochs", "1", "--out", tmp_path / "more")
    assert more.exit_code == 0, more.output
    validation = "members/01/validation.npy"
    assert (tmp_path / "more" / validation).read_bytes() == (run / validation).read_bytes()


def test_a_folder_of_another_version_is_refused_in_one_sentence(run: Path, tmp_path: Path) -> None:
    other = shutil.copytree(run, tmp_path / "other")
    manifest = json.loads((other / "run.json").read_text())
    manifest.pop("digest")
    (other / "run.json").write_text(json.dumps(manifest | {"schema": 1}))
    result = call("report", other)
    assert result.exit_code == 2
    assert result.stderr == (
        f"Error: {other} has schema 1, but this version reads 2 and 3; read it with the version that wrote it\n"
    )
