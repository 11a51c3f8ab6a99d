"""The check of a data set finds what was planted, where it was planted, and nothing in a clean set."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from committee.data.catalog import load_dataset
from committee.data.check import DatasetCheck, KindName, check_dataset, quick_notes
from committee.data.dataset import ImageDataset, LabelledImages, SealedTest, checked_images


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
    pixels[50:55], test[60] = 0, 17  # blank
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
        "2 images are identical to one with another label",
        "6 images are blank (a single colour)",
        "1 class is too small to judge: 3",
    ]
