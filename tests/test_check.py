"""The check of a data set finds what was planted, where it was planted, and nothing in a clean set."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image
from sklearn.datasets import load_sample_images

from committee.cli.main import main
from committee.data.catalog import load_dataset
from committee.data.check import DatasetCheck, KindName, check_dataset, quick_notes
from committee.data.dataset import ImageDataset, LabelledImages, SealedTest, checked_images, image_keys
from committee.data.near_duplicates import near_duplicates, reduced


@pytest.fixture(scope="module")
def clean() -> tuple[ImageDataset, LabelledImages]:
    """2,000 and 500 of MNIST's digits."""
    whole = load_dataset("mnist-5k")
    rows = np.arange(0, 4000, 2)
    return dataset_of(
        whole.train.pixels[rows], whole.train.labels[rows], whole.train.pixels[1::8], whole.train.labels[1::8]
    )


def dataset_of(
    pixels: np.ndarray, labels: np.ndarray, test_pixels: np.ndarray, test_labels: np.ndarray
) -> tuple[ImageDataset, LabelledImages]:
    """A data set, and its test images."""
    names = tuple(map(str, range(10)))
    train = checked_images(pixels, labels, names, "train")
    test = checked_images(test_pixels, test_labels, names, "test")
    return ImageDataset("made", train, SealedTest(test), names, "made"), test


def changed(image: np.ndarray, dy: int, dx: int, brightness: float) -> np.ndarray:
    """An image moved with black behind it, brighter or darker, saved as JPEG."""
    height, width = image.shape[:2]
    framed = np.pad(image, ((2, 2), (2, 2), (0, 0)))
    moved = framed[2 - dy : 2 - dy + height, 2 - dx : 2 - dx + width]
    lit = np.clip(np.rint(moved * brightness), 0, 255).astype(np.uint8)
    file = io.BytesIO()
    Image.fromarray(lit[..., 0] if lit.shape[2] == 1 else lit).save(file, "JPEG", quality=75)
    return np.asarray(Image.open(file)).reshape(image.shape)


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments])


def places(check: DatasetCheck, kind: KindName) -> list[tuple[str, int | None, str | None, int | None]]:
    return sorted((f.part, f.index, f.other_part, f.other_index) for f in check.of(kind))


def test_a_clean_set_has_no_findings(clean: tuple[ImageDataset, LabelledImages]) -> None:
    check = check_dataset(*clean)
    assert check.findings == ()
    assert check.near_found is not None
    assert check.near_found > 0.98
    assert quick_notes(clean[0]) == ()


def test_everything_planted_is_found_in_its_place(clean: tuple[ImageDataset, LabelledImages]) -> None:
    dataset, opened = clean
    pixels, labels = dataset.train.pixels.copy(), dataset.train.labels.copy()
    test, answers = opened.pixels.copy(), opened.labels.copy()
    rare = np.flatnonzero(answers == 3)[4:]
    test, answers = np.delete(test, rare, axis=0), np.delete(answers, rare)
    pixels[10:14], labels[10:14] = test[20:24], answers[20:24]  # leaks
    labels[13] = (answers[23] + 1) % 10  # one of them with another label
    pixels[30:33], labels[30:33] = pixels[40:43], labels[40:43]  # copies
    labels[32] = (labels[42] + 1) % 10  # one of them with another label
    pixels[50:55], labels[50:55], test[60] = 0, range(5), 17  # blank
    pixels[100:120] = 255 - pixels[100:120]  # the other way round
    shifts = [(1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (-1, -1), (1, -1), (-1, 1)]
    for number in range(40):
        image = test[100 + number] if number < 20 else pixels[300 + number]
        pixels[200 + number] = changed(image, *shifts[number % 8], 1.15 if number % 2 else 0.85)
    spoilt, opened = dataset_of(pixels, labels, test, answers)

    check = check_dataset(spoilt, opened)
    assert places(check, "leak") == [("test", 20 + i, "train", 10 + i) for i in range(4)]
    assert places(check, "near leak") == [("test", 100 + i, "train", 200 + i) for i in range(20)]
    assert places(check, "near duplicate") == [("train", 220 + i, "train", 320 + i) for i in range(20)]
    assert places(check, "duplicate") == [("train", 40 + i, "train", 30 + i) for i in range(3)]
    assert places(check, "conflict") == [("test", 23, "train", 13), ("train", 42, "train", 32)]
    assert places(check, "blank") == [("test", 60, None, None)] + [("train", 50 + i, None, None) for i in range(5)]
    assert places(check, "polarity") == [("train", 100 + i, None, None) for i in range(20)]
    assert [(f.label, f.part, f.distance) for f in check.of("small class")] == [("3", "test", 4)]
    assert check.lines[0].startswith("4 test images are identical to training images (1 with different labels); ")
    assert [words.split(";")[0] for words in quick_notes(spoilt)] == [
        "3 of 454 test images are also in the training part, identical in every pixel and in class, so test figures "
        "are too favourable",
        "6 images are blank (a single colour)",
        "1 class is too small to judge: 3",
    ]


def test_a_set_that_is_half_dark_and_half_light_has_no_odd_backgrounds(
    clean: tuple[ImageDataset, LabelledImages],
) -> None:
    dataset, opened = clean
    pixels = dataset.train.pixels.copy()
    pixels[::2] = 255 - pixels[::2]
    made = dataset_of(pixels, dataset.train.labels, opened.pixels, opened.labels)
    assert check_dataset(*made).of("polarity") == ()


@pytest.mark.parametrize("bits", [8, 16])
def test_near_duplicates_of_colour_photographs_are_found(bits: int) -> None:
    photographs = [0.8 * image for image in load_sample_images().images]  # two of 427x640; room for brightness
    corners = [(p, y, x) for p in (0, 1) for y in range(8, 340, 64) for x in range(8, 550, 64)]
    pieces = {corner: photographs[corner[0]][corner[1] :, corner[2] :][:64, :64] for corner in corners}
    corners = [corner for corner in corners if pieces[corner].mean(2).std() > 15]  # one piece of sky is like another
    again = [photographs[p][y + 2 :, x - 2 :][:64, :64] for p, y, x in corners[:20]]
    images = np.stack([*(pieces[corner] for corner in corners), *(changed(each, 0, 0, 1.15) for each in again)])
    images = images.astype(np.uint8) if bits == 8 else images.astype(np.uint16) * 257
    pairs = near_duplicates(reduced(images), averaged=True)
    found = set(zip(pairs.first.tolist(), pairs.second.tolist(), strict=True))
    assert found == {(i, len(corners) + i) for i in range(20)}


def test_the_search_ends_where_all_images_are_nearly_the_same(
    clean: tuple[ImageDataset, LabelledImages], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("committee.data.near_duplicates.MOST", 1000)
    image, drawn = clean[0].train.pixels[0].astype(np.int64), np.random.default_rng(0)
    frames = np.clip(image + drawn.integers(-3, 4, (600, *image.shape)), 0, 255).astype(np.uint8)
    check = check_dataset(*dataset_of(frames[:500], np.arange(500) % 10, frames[500:], np.arange(100) % 10))
    assert 0 < len(check.of("near leak")) + len(check.of("near duplicate")) <= 2000
    assert any("not all pairs were compared" in note for note in check.notes)


@pytest.mark.parametrize("pixels", [np.zeros((8, 9, 9, 1), np.uint8), np.arange(8 * 2 * 3, dtype=np.uint8)])
def test_sets_with_nothing_to_compare_are_checked(pixels: np.ndarray) -> None:
    images = pixels.reshape(8, *(pixels.shape[1:] or (2, 3, 1)))
    labels = np.arange(8) % 2
    check = check_dataset(*dataset_of(images[:6], labels[:6], images[6:], labels[6:]))
    assert check.near_found is None
    assert len(check.of("blank")) == (8 if not pixels.any() else 0)


def test_the_command_writes_a_page_a_table_and_a_record(tmp_path: Path, digits: ImageDataset) -> None:
    pixels, labels = digits.train.pixels[:300], digits.train.labels[:300].copy()
    labels[7] = (labels[7] + 1) % 10
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels, x_test=pixels[5:8], y_test=digits.train.labels[5:8])
    result = call("data", "check", tmp_path / "set.npz", "--out", tmp_path / "check")
    assert result.exit_code == 0, result.output
    assert result.output.splitlines()[1].startswith("- 3 test images are identical to training images (1 with diff")
    page = (tmp_path / "check" / "check.html").read_text()
    assert page.count("data:image/png;base64,") >= 6
    assert "http" not in page.replace("http-equiv", "")
    rows = list(csv.DictReader((tmp_path / "check" / "findings.csv").read_text().splitlines()))
    leak = {"kind": "leak", "part": "test", "index": "2", "other_part": "train", "other_index": "7"}
    assert [leak == {name: row[name] for name in leak} for row in rows].count(True) == 1
    record = [json.loads(line) for line in (tmp_path / "check" / "test_record.jsonl").read_text().splitlines()]
    assert [(line["images"], "check of the data" in line["purpose"]) for line in record] == [(3, True)]

    again = call("data", "check", tmp_path / "set.npz", "--out", tmp_path / "check", "--json")
    assert [f["kind"] for f in json.loads(again.stdout)["findings"]][:4] == ["leak"] * 3 + ["conflict"]
    refused = call("data", "check", tmp_path / "set.npz", "--out", tmp_path)
    assert refused.exit_code == 2
    assert "holds something else; give another folder (--out)" in refused.output


def test_quick_findings_are_said_by_data_info_and_before_training(tmp_path: Path, digits: ImageDataset) -> None:
    pixels, labels = digits.train.pixels[:400].copy(), digits.train.labels[:400]
    pixels[3] = 0
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels)
    words = "1 image is blank (a single colour); committee data check shows them"
    info = call("data", "info", tmp_path / "set.npz", "--picture", tmp_path / "a.png", "--json")
    assert words in json.loads(info.stdout)["notes"]
    small = ["--members", "1", "--epochs", "1", "--keep-sealed", "--set", "holdout.folds=2", "--workers", "1"]
    assert f"Note: {words}" in call("train", tmp_path / "set.npz", *small, "--out", tmp_path / "run").stderr


def test_blank_images_are_no_contradiction_and_no_leak(digits: ImageDataset, tmp_path: Path) -> None:
    pixels, labels = digits.train.pixels[:300].copy(), digits.train.labels[:300]
    pixels[:4] = 9  # of several classes
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels, x_test=pixels[:40], y_test=labels[:40])
    dataset = load_dataset(tmp_path / "set.npz")
    assert not any("identical in every pixel to one of another class" in note for note in dataset.notes)
    assert dataset.test_images_also_in_train() == 36


def test_images_that_differ_in_every_eighth_byte_alone_are_told_apart() -> None:
    pixels = np.zeros((4096, 4, 8, 1), np.uint8)
    pixels[:, 0, 7, 0], pixels[:, 1, 7, 0] = np.arange(4096) % 64, np.arange(4096) // 64
    assert len(np.unique(image_keys(pixels))) == 4096
