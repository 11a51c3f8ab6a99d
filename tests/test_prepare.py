"""Photographs of one's own writing, and whether images are of the kind that a committee knows."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

import committee
from committee.cli.main import main
from committee.data.dataset import ImageDataset, open_test
from committee.data.prepare import Preparation, as_digits, measure
from committee.errors import DataError
from photographs import STYLES, framed, photograph


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(each) for each in arguments])


@pytest.fixture(scope="module")
def frames(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> ImageDataset:
    """Real digits framed as MNIST's are."""
    folder = tmp_path_factory.mktemp("frames")
    test = open_test(digits, folder / "record.jsonl", "a test of the tests")
    parts = {
        f"{name}_{part}": value
        for part, images in (("train", digits.train), ("test", test))
        for name, value in (("x", np.stack([framed(each) for each in images.pixels[..., 0]])), ("y", images.labels))
    }
    np.savez(folder / "frames.npz", **parts)
    return committee.load_dataset(folder / "frames.npz")


@pytest.fixture(scope="module")
def run(frames: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A committee of two for framed digits."""
    changes = ["training.epochs=10", "committee.members=2", "holdout.folds=2", "network.widths=[8,16,32]"]
    folder = tmp_path_factory.mktemp("run") / "frames"
    committee.train(frames, committee.load_recipe("standard", changes), folder, setting=committee.Setting(workers=1))
    return folder


@pytest.fixture(scope="module")
def photographs(frames: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, list[str]]:
    """Twenty photographs of test digits, two in each style, and their classes."""
    folder, rng = tmp_path_factory.mktemp("photographs"), np.random.default_rng(0)
    test = open_test(frames, folder / "record.jsonl", "a test of the tests")
    for i, style in enumerate([*STYLES.values()] * 2):
        (folder / f"{i:02d}.jpg").write_bytes(photograph(test.pixels[i, ..., 0], style, rng))
    return folder, [frames.class_names[label] for label in test.labels[:20]]


def answers(run: Path, path: Path, how: str) -> tuple[list[str], str]:
    """What `committee predict` says about the images of a folder or file, and what else it says."""
    result = call("predict", run, path, "--prepare", how, "--format", "json")
    return [record["prediction"] for record in json.loads(result.stdout)], result.stderr


def test_photographs_are_read_rightly_once_they_are_prepared(run: Path, photographs: tuple[Path, list[str]]) -> None:
    folder, labels = photographs
    right = {}
    for how in ("as-is", "auto"):
        given, said = answers(run, folder, how)
        right[how] = sum(answer == label for answer, label in zip(given, labels, strict=True))
        assert ("20 of 20 images were prepared" in said) == (how != "as-is")
    assert right["as-is"] < 10
    assert right["auto"] >= 19


def test_not_one_answer_changes_for_images_of_the_set_itself(run: Path, frames: ImageDataset, tmp_path: Path) -> None:
    """Neither as they are nor enlarged, with JPEG's traces; but upside down in brightness or off the centre."""
    pixels = frames.train.pixels[:200]
    np.save(tmp_path / "own.npy", pixels)
    assert answers(run, tmp_path / "own.npy", "auto")[0] == answers(run, tmp_path / "own.npy", "as-is")[0]
    Image.fromarray(pixels[0, ..., 0]).resize((280, 280)).save(tmp_path / "large.jpg", quality=60)
    assert "prepared" not in answers(run, tmp_path / "large.jpg", "auto")[1]
    loaded = committee.load(run)
    for name, changed in (("inverted", 255 - pixels[:20]), ("shifted", np.roll(pixels[:20], (4, 4), axis=(1, 2)))):
        np.save(tmp_path / f"{name}.npy", changed)
        given, said = answers(run, tmp_path / f"{name}.npy", "auto")
        assert "20 of 20 images were prepared" in said
        assert sum(a == b for a, b in zip(given, loaded.predict(pixels[:20]), strict=True)) >= 19


def test_prepared_images_have_the_measures_of_the_training_images(frames: ImageDataset) -> None:
    """Dark on light and in another place, too: the set's own measures count, not MNIST's."""
    digit, rng = frames.train.pixels[0, ..., 0], np.random.default_rng(1)
    photo = np.asarray(Image.open(BytesIO(photograph(digit, STYLES["squared paper"], rng))))
    wide = np.roll(np.pad(frames.train.pixels, ((0, 0), (4, 4), (4, 4), (0, 0))), 3, axis=1)
    dark = (240 - wide.astype(int) * 200 // 255).astype(np.uint8)
    for pixels, centre in ((frames.train.pixels, (14, 14)), (dark, (21, 18))):
        writing = measure(pixels)
        assert writing is not None
        assert (writing.longer_side, writing.light) == (20, pixels is not dark)
        assert writing.centre == pytest.approx(centre, abs=0.1)
        made = as_digits(writing, photo)
        assert made is not None
        paper = 0 if writing.light else 240
        assert (made.shape, made[0, 0, 0], np.ptp(made)) == ((*writing.shape, 1), paper, 255 if writing.light else 240)
        ink = np.abs(made[..., 0] - float(paper))
        rows, columns = (np.flatnonzero(ink.any(axis=axis)) for axis in (1, 0))
        assert max(np.ptp(rows), np.ptp(columns)) + 1 == 20
        mass = [np.average(np.arange(len(ink)), weights=ink.sum(axis=axis)) for axis in (1, 0)]
        assert np.abs(np.subtract(mass, writing.centre)).max() <= 0.6


def test_only_writing_in_a_frame_of_its_own_is_prepared(digits: ImageDataset, tmp_path: Path) -> None:
    """Scikit-learn's 8x8 digits fill their frames."""
    assert measure(digits.train.pixels) is None
    members = committee.Committee((), digits.class_names, digits.image_shape, digits.pixel_range)
    assert members.preparation("auto").writing is None
    with pytest.raises(DataError, match="preparing digits needs training images of isolated writing"):
        members.preparation("digits")


def test_an_empty_sheet_and_a_transparent_drawing(frames: ImageDataset) -> None:
    """Nothing is written on an empty sheet, whose noise is not taken for ink; a drawing's ink may be its alpha."""
    writing, rng = measure(frames.train.pixels), np.random.default_rng(2)
    assert writing is not None
    assert as_digits(writing, rng.normal(235, 3, (200, 300, 1)).clip(0, 255).astype(np.uint8)) is None
    drawing = np.zeros((28, 28, 4), np.uint8)
    drawing[..., 3] = frames.train.pixels[0, ..., 0]
    made = Preparation((28, 28, 1), 255, writing)(drawing[None], "drawing.png")
    assert np.abs(made[0].astype(int) - frames.train.pixels[0]).mean() < 12


def test_images_of_another_kind_are_told_from_the_sets_own(
    run: Path, frames: ImageDataset, photographs: tuple[Path, list[str]], tmp_path: Path
) -> None:
    """The column familiar is an even share for test images, and about 0 for photographs as they are; both are said."""
    test = open_test(frames, tmp_path / "record.jsonl", "a test of the tests")
    np.save(tmp_path / "own.npy", test.pixels)
    own = call("predict", run, tmp_path / "own.npy", "--format", "json")
    familiar = np.array([record["familiar"] for record in json.loads(own.stdout)])
    assert np.abs(np.sort(familiar) - np.linspace(0, 1, len(familiar))).max() < 0.15
    assert own.stderr == ""
    folder, _ = photographs
    table = call("predict", run, folder, "--prepare", "as-is", "--format", "csv")
    rows = [line.split(",") for line in table.stdout.splitlines()]
    assert rows[0][:5] == ["image", "prediction", "probability", "disagreement", "familiar"]
    assert max(float(row[4]) for row in rows[1:]) < 1e-4
    assert (
        "20 of 20 images look unlike the training images: mostly dark on light where those were light on dark, 300x400 "
        "pixels where those had 28x28"
    ) in table.stderr


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda x: 255 - x, "dark on light where those were light on dark"),
        (lambda x: x // 4, "with less contrast than those"),
        (lambda x: (x // 2 + 100).astype(np.uint8), "with a lighter border than those"),
        (lambda x: np.random.default_rng(0).permuted(x.reshape(len(x), -1), axis=1).reshape(x.shape), "more detail"),
    ],
)
def test_it_is_said_why_images_are_unfamiliar(
    run: Path, frames: ImageDataset, tmp_path: Path, change: Callable[[Any], Any], reason: str
) -> None:
    np.save(tmp_path / "changed.npy", change(frames.train.pixels[:10]))
    said = call("predict", run, tmp_path / "changed.npy", "--prepare", "as-is").stderr
    assert said.startswith("Note: 10 of 10 images look unlike the training images: ")
    assert reason in said


def forget(folder: Path, name: str) -> None:
    """Take a file out of a run folder and out of its manifest, which fits the others then."""
    (folder / name).unlink()
    manifest = json.loads((folder / "run.json").read_text())
    del manifest["files"][name]
    for other in manifest["files"]:
        content = (folder / other).read_bytes()
        manifest["files"][other] = {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}
    manifest.pop("digest", None)
    (folder / "run.json").write_text(json.dumps(manifest))


def test_older_runs_are_compared_with_the_samples_that_they_show(
    run: Path, photographs: tuple[Path, list[str]], tmp_path: Path
) -> None:
    shutil.copytree(run, tmp_path / "old")
    forget(tmp_path / "old", "images.json")
    (folder := tmp_path / "some").mkdir()
    for path in sorted(photographs[0].iterdir())[3:7]:
        shutil.copy(path, folder)
    given, said = answers(tmp_path / "old", folder, "digits")
    assert given == photographs[1][3:7]
    assert "look unlike" not in said
    assert "4 of 4 images look unlike" in answers(tmp_path / "old", folder, "as-is")[1]
    results = json.loads((tmp_path / "old" / "results.json").read_text())
    (tmp_path / "old" / "results.json").write_text(json.dumps(results | {"galleries": []}))
    forget(tmp_path / "old", "pictures.npz")
    records = json.loads(call("predict", tmp_path / "old", folder, "--format", "json").stdout)
    assert {record["familiar"] for record in records} == {None}
