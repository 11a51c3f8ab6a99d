"""NPY and NPZ files as data sets are handed out: one array a file, a file or a folder a class, any usual name."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from committee.data import catalog
from committee.data.formats.arrays import role_of
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]


@pytest.fixture(scope="module")
def digits() -> Digits:
    """200 real digits, 8x8, and their classes; 150 are to train."""
    dataset = catalog.load_dataset("digits")
    return dataset.train.pixels[:200, ..., 0], dataset.train.labels[:200]


def save(path: Path, array: NDArray[Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez(path, array) if path.suffix == ".npz" else np.save(path, array)


def four_files(
    names: tuple[str, str, str, str], images: Callable[[NDArray[Any]], NDArray[Any]] = lambda x: x
) -> Callable[[Path, Digits], None]:
    """A writer of training images and labels, test images and labels, each in a file of its own."""

    def write(folder: Path, digits: Digits) -> None:
        x, y = images(digits[0]), digits[1]
        for name, array in zip(names, (x[:150], y[:150], x[150:], y[150:]), strict=True):
            save(folder / name, array)

    return write


def by_part(folder: Path, digits: Digits) -> None:
    for part, chosen in (("train", slice(150)), ("test", slice(150, None))):
        np.savez(folder / f"digits_{part}.npz", X=digits[0][chosen], y=digits[1][chosen])


def a_file_a_class(folder: Path, digits: Digits) -> None:
    for part, chosen in (("train", slice(150)), ("test", slice(150, None))):
        x, y = digits[0][chosen], digits[1][chosen]
        for label in range(10):
            save(folder / part / f"full_numpy_bitmap_{label}.npy", x[y == label].reshape(-1, 64))


def a_folder_a_class(folder: Path, digits: Digits) -> None:
    for i, (image, label) in enumerate(zip(*digits, strict=True)):
        save(folder / ("train" if i < 150 else "test") / str(label) / f"{i}.npy", image)


WRITERS: dict[str, Callable[[Path, Digits], None]] = {
    "K49": four_files(("k49-train-imgs.npz", "k49-train-labels.npz", "k49-test-imgs.npz", "k49-test-labels.npz")),
    "Xtrain": four_files(("Xtrain.npy", "ytrain.npy", "Xtest.npy", "ytest.npy")),
    "words behind": four_files(("images_train.npy", "labels_train.npy", "images_test.npy", "labels_test.npy")),
    "folders": four_files(("train/X.npy", "train/Y.npy", "test/X.npy", "test/Y.npy")),
    "rows": four_files(("X_train.npy", "Y_train.npy", "X_test.npy", "Y_test.npy"), lambda x: x.reshape(-1, 64) / 255),
    "NPZ a part": by_part,
    "file a class": a_file_a_class,
    "folder a class": a_folder_a_class,
}


@pytest.mark.parametrize("write", WRITERS.values(), ids=WRITERS)
def test_every_layout_gives_the_same_data_set(
    write: Callable[[Path, Digits], None], tmp_path: Path, digits: Digits
) -> None:
    (tmp_path / "a").mkdir()
    np.savez(tmp_path / "b.npz", x_train=digits[0][:150], y_train=digits[1][:150],
             x_test=digits[0][150:], y_test=digits[1][150:])  # fmt: skip
    write(tmp_path / "a", digits)
    dataset, reference = read_dataset(tmp_path / "a"), read_dataset(tmp_path / "b.npz")
    assert (len(dataset.train), len(dataset.test)) == (150, 50)
    assert dataset.part_digests() == reference.part_digests()
    assert any("is a class, called like it" in note for note in dataset.notes) == (write.__name__[:2] == "a_")


def test_capital_x_and_y_are_enough(tmp_path: Path, digits: Digits) -> None:
    np.save(tmp_path / "X.npy", digits[0])
    np.save(tmp_path / "Y.npy", np.eye(10)[digits[1]])  # the sign language digits come so
    assert len(read_dataset(tmp_path).train) == 160
    assert len(read_images([tmp_path], image_shape=(8, 8, 1), pixel_range=255).names) == 200  # labels are passed over


@pytest.mark.parametrize(
    ("name", "role"),
    [
        ("x_train", ("train", "images")),
        ("Y", ("train", "labels")),
        ("kmnist-test-labels", ("test", "labels")),
        ("valid/images", ("val", "images")),
        ("X_test", ("test", "images")),
        ("val_image_ids", None),
        ("class_names", None),
        ("cat", None),
        ("train/label/3", None),
    ],
)
def test_names_say_what_an_array_holds(name: str, role: tuple[str, str] | None) -> None:
    assert role_of(name) == role


BAD: dict[str, tuple[dict[str, NDArray[Any]], str]] = {
    "test labels missing": (
        {"k49-train-imgs.npz": np.zeros((4, 8, 8)), "k49-train-labels.npz": np.arange(4),
         "k49-test-imgs.npz": np.zeros((4, 8, 8))},
        "the array 'k49-test-imgs' needs an array 'k49-test-labels', got k49-test-imgs, ",
    ),
    "two sets": (
        {f"{name}-train-{kind}.npz": np.zeros(4) for name in ("k49", "kmnist") for kind in ("imgs", "labels")},
        "got several of train images (k49-train-imgs, kmnist-train-imgs); give the path of one set",
    ),
    "no labels at all": (
        {"x_train.npy": np.zeros((4, 8, 8)), "x_test.npy": np.zeros((4, 8, 8))},
        "the array 'x_test' needs an array 'y_test'",
    ),
    "classes of two sizes": (
        {"cat/0.npy": np.zeros((8, 8)), "dog/0.npy": np.zeros((9, 8))},
        "dog/0.npy: images like those of",
    ),
    "no images": ({"a.npy": np.zeros(4), "b.npy": np.zeros(4)}, "got the shape (4,); name the arrays x_train and y_tr"),
}  # fmt: skip


@pytest.mark.parametrize(("arrays", "message"), BAD.values(), ids=BAD)
def test_what_is_missing_or_doubtful_is_named(arrays: dict[str, NDArray[Any]], message: str, tmp_path: Path) -> None:
    for name, array in arrays.items():
        save(tmp_path / name, array)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path)
    assert message in str(caught.value)
