"""MATLAB, LIBSVM and binary files as SVHN, USPS, CIFAR and STL-10 are handed out; pickles are never opened."""

from __future__ import annotations

import bz2
import pickle  # noqa: TID251 - writes what must be refused
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
from numpy.typing import NDArray

from committee.data import catalog
from committee.data.dataset import ImageDataset
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

Digits = tuple[NDArray[np.uint8], NDArray[np.int64]]
CUT = {"train": slice(150), "test": slice(150, None)}


@pytest.fixture(scope="module")
def digits() -> Digits:
    """200 real digits, 8x8, and their classes; 150 are to train."""
    dataset = catalog.load_dataset("digits")
    return dataset.train.pixels[:200, ..., 0], dataset.train.labels[:200]


def coloured(images: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """(image, side, side, 3): digits on a corner of colour that shows which axis is which."""
    canvas = np.zeros((len(images), side, side, 3), np.uint8)
    canvas[:, :8, 8:16, 0] = images
    canvas[:, :8, 8:16, 2] = 255 - images
    return canvas


def is_read(dataset: ImageDataset, images: NDArray[Any], labels: NDArray[Any]) -> bool:
    same = np.array_equal(dataset.train.pixels, images[:150]) and len(dataset.test) == len(images) - 150
    return same and np.array_equal(dataset.train.labels, labels[:150])


def test_svhn_has_the_image_first_and_its_label_10_is_0(tmp_path: Path, digits: Digits) -> None:
    images, labels = coloured(digits[0], 32), digits[1]
    for part, rows in {**CUT, "extra": slice(9)}.items():
        y = np.where(labels[rows] == 0, 10, labels[rows]).astype(np.uint8)[:, None]
        scipy.io.savemat(tmp_path / f"{part}_32x32.mat", {"X": images[rows].transpose(1, 2, 3, 0), "y": y},
                         do_compression=True)  # fmt: skip
    dataset = read_dataset(tmp_path)
    assert is_read(dataset, images, labels)
    assert dataset.class_names == tuple("0123456789")
    assert dataset.notes == (
        "extra_32x32.mat was left out, since its name says no part", "label 10 became 0, as SVHN means it",
    )  # fmt: skip
    assert len(read_dataset(tmp_path / "train_32x32.mat").train) == 120
    read = read_images([tmp_path / "test_32x32.mat"], image_shape=(32, 32, 3), pixel_range=255)
    assert np.array_equal(read.pixels, images[150:])


def test_other_matlab_files_keep_their_labels_and_axes(
    tmp_path: Path, digits: Digits, monkeypatch: pytest.MonkeyPatch
) -> None:
    images, labels = digits
    scipy.io.savemat(tmp_path / "a.mat", {"data": images.reshape(200, 64).T / 255, "labels": labels + 1})
    dataset = read_dataset(tmp_path / "a.mat")
    assert dataset.class_names == tuple(str(i) for i in range(1, 11))
    assert np.array_equal(np.sort(dataset.train.pixels.sum((1, 2, 3)))[:3], np.sort(images[:, :, :].sum((1, 2)))[:3])
    (tmp_path / "b.mat").write_bytes(b"MATLAB 7.3 MAT-file".ljust(124) + b"\0\2IM" + bytes(400))
    with pytest.raises(DataError, match=r"b\.mat: a MATLAB file up to version 7 is expected, got version 7\.3"):
        read_dataset(tmp_path / "b.mat")
    (tmp_path / "c.mat").write_bytes((tmp_path / "a.mat").read_bytes()[:400])
    with pytest.raises(DataError, match=r"c\.mat: a MATLAB file is expected, got something else"):
        read_dataset(tmp_path / "c.mat")
    scipy.io.savemat(tmp_path / "a.mat", {"X": np.zeros((400, 400)), "y": labels}, do_compression=True)
    monkeypatch.setenv("COMMITTEE_LIMITS", "bytes=100_000")
    with pytest.raises(DataError, match=r"a\.mat: at most 100,000 bytes are read"):
        read_dataset(tmp_path / "a.mat")


def libsvm_lines(images: NDArray[Any], labels: NDArray[Any]) -> bytes:
    rows = (
        f"{label} " + " ".join(f"{i}:{value:.6g}" for i, value in enumerate(image.ravel(), 1) if value)
        for image, label in zip(images, labels, strict=True)
    )
    return "\n".join(rows).encode() + b" \n"


@pytest.mark.parametrize("packed", [True, False])
def test_usps_is_from_minus_1_to_1_and_its_labels_are_digits(packed: bool, tmp_path: Path, digits: Digits) -> None:
    images = np.kron(digits[0], np.ones((2, 2), np.uint8))
    ending = ".bz2" if packed else ""
    for name, rows in (("usps", CUT["train"]), ("usps.t", CUT["test"])):
        content = libsvm_lines(images[rows] / 127.5 - 1, digits[1][rows] + 1)
        (tmp_path / f"{name}{ending}").write_bytes(bz2.compress(content) if packed else content)
    dataset = read_dataset(tmp_path)
    assert is_read(dataset, images[..., None], digits[1])
    assert dataset.class_names == tuple("0123456789")
    assert any("labels 1 to 10 became the digits 0 to 9" in note for note in dataset.notes)
    paths = [tmp_path / f"usps.t{ending}"]
    read = read_images(paths, image_shape=(16, 16, 1), pixel_range=255, value_range=dataset.value_range)
    assert np.array_equal(read.pixels[..., 0], images[150:])


def test_pixels_that_no_image_has_are_filled_up(tmp_path: Path, digits: Digits) -> None:
    images, labels = digits
    images = np.where(np.arange(64).reshape(8, 8) > 60, 0, images)
    (tmp_path / "a.libsvm").write_bytes(libsvm_lines(images, labels))
    dataset = read_dataset(tmp_path / "a.libsvm")
    assert dataset.image_shape == (8, 8, 1)
    assert "rows of 61 values were filled up to 64" in dataset.notes
    assert read_dataset(tmp_path / "a.libsvm", ReadOptions(shape=(16, 4, 1))).image_shape == (16, 4, 1)
    (tmp_path / "a.libsvm").write_bytes(libsvm_lines(images, labels) + b"7 1:2 three:4\n")
    with pytest.raises(DataError, match=r"a\.libsvm: line 201 must be a label and pairs such as 1:0\.5"):
        read_dataset(tmp_path / "a.libsvm")


def write_cifar_10(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(len(images), -1)], 1)
    for name, rows in (("data_batch_1", slice(100)), ("data_batch_2", slice(100, 150)), ("test_batch", CUT["test"])):
        (folder / f"{name}.bin").write_bytes(records[rows].astype(np.uint8).tobytes())
    (folder / "batches.meta.txt").write_text("\n".join(f"kind {i}" for i in range(10)) + "\n\n")
    (folder / "readme.html").write_text("<html>")


def write_cifar_100(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    pair = np.stack([labels % 2, labels], 1)
    records = np.concatenate([pair, images.transpose(0, 3, 1, 2).reshape(len(images), -1)], 1)
    for part, rows in CUT.items():
        (folder / f"{part}.bin").write_bytes(records[rows].astype(np.uint8).tobytes())
    (folder / "fine_label_names.txt").write_text("\n".join(f"kind {i}" for i in range(10)) + "\n")


def write_stl_10(folder: Path, images: NDArray[np.uint8], labels: NDArray[np.int64]) -> None:
    for part, rows in CUT.items():
        (folder / f"{part}_X.bin").write_bytes(images[rows].transpose(0, 3, 2, 1).tobytes())
        (folder / f"{part}_y.bin").write_bytes((labels[rows] + 1).astype(np.uint8).tobytes())
    (folder / "class_names.txt").write_text("\n".join(f"kind {i}" for i in range(10)) + "\n")
    (folder / "unlabeled_X.bin").write_bytes(b"")


@pytest.mark.parametrize(
    ("write", "side", "options"),
    [
        (write_cifar_10, 32, ReadOptions()),
        (write_cifar_100, 32, ReadOptions(label="fine")),
        (write_stl_10, 96, ReadOptions()),
    ],
)
def test_binary_files_give_upright_colour_images_and_their_class_names(
    write: Callable[..., None], side: int, options: ReadOptions, tmp_path: Path, digits: Digits
) -> None:
    images, labels = coloured(digits[0], side), digits[1]
    write(tmp_path, images, labels)
    dataset = read_dataset(tmp_path, options)
    assert is_read(dataset, images, labels)
    assert dataset.class_names == tuple(f"kind {i}" for i in range(10))
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive:
        for file in tmp_path.glob("*.[bt]*"):
            archive.write(file, f"set/{file.name}")
    assert read_dataset(tmp_path / "all.zip", options).part_digests() == dataset.part_digests()
    tested = next(file for file in tmp_path.glob("test*.bin") if not file.stem.endswith("y"))
    assert np.array_equal(read_images([tested], image_shape=(side, side, 3), pixel_range=255).pixels, images[150:])


def test_cifar_100_asks_for_one_of_its_two_labels(tmp_path: Path, digits: Digits) -> None:
    write_cifar_100(tmp_path, coloured(digits[0], 32), digits[1])
    with pytest.raises(DataError, match=r"got CIFAR-100's two, .* --label coarse_label or --label fine_label"):
        read_dataset(tmp_path)
    assert read_dataset(tmp_path, ReadOptions(label="coarse_label")).class_names == ("0", "1")


@pytest.mark.parametrize("name", ["data_batch_1", "train.pkl", "batches.meta"])
def test_pickles_are_refused_unopened(name: str, tmp_path: Path) -> None:
    class Harm:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return (open, (str(tmp_path / "harm"), "w"))  # type: ignore[return-value]

    (tmp_path / name).write_bytes(pickle.dumps({"data": Harm()}, protocol=2))
    for path in (tmp_path, tmp_path / name):
        with pytest.raises(DataError, match=f"{name}: data without Python objects are expected, got a pickle"):
            read_dataset(path)
    assert not (tmp_path / "harm").exists()
