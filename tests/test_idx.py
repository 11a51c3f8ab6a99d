"""IDX files as their authors and download sites hand them out: EMNIST's, QMNIST's, Kaggle's, half-unpacked ones."""

from __future__ import annotations

import gzip
import shutil
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from committee.data import catalog
from committee.data.dataset import ImageDataset
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError


@pytest.fixture(scope="module")
def mnist() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """120 real digits, 28x28, twelve of each class in turn."""
    dataset = catalog.load_dataset("mnist-5k")
    order = np.stack([np.flatnonzero(dataset.train.labels == label)[:12] for label in range(10)]).T.ravel()
    return dataset.train.pixels[order, ..., 0], dataset.train.labels[order]


def idx(array: NDArray[Any]) -> bytes:
    code = {1: 8, 4: 0x0C}[array.dtype.itemsize]
    return (
        struct.pack(f">HBB{array.ndim}I", 0, code, array.ndim, *array.shape)
        + array.astype(array.dtype.newbyteorder(">")).tobytes()
    )


def put(folder: Path, images: NDArray[Any], labels: NDArray[Any], prefix: str = "", kind: str = "idx1-ubyte") -> Path:
    """The four files, compressed: 80 images to train and 40 to test."""
    folder.mkdir(exist_ok=True, parents=True)
    for part, chosen in (("train", slice(80)), ("test", slice(80, None))):
        for name, array in (("images-idx3-ubyte", images), (f"labels-{kind}", labels)):
            (folder / f"{prefix}{part}-{name}.gz").write_bytes(gzip.compress(idx(array[chosen]), 1))
    return folder


def is_upright(dataset: ImageDataset, images: NDArray[Any]) -> bool:
    return np.array_equal(dataset.train.pixels[..., 0], images[:80])


@pytest.mark.parametrize(("name", "first", "names"), [("letters", 1, "ABCDEFGHIJ"), ("byclass", 0, "0123456789")])
def test_emnist_by_its_path_is_upright_and_has_its_class_names(
    name: str, first: int, names: str, tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = mnist
    stored = (images.swapaxes(1, 2), (labels + first).astype(np.uint8), f"emnist-{name}-")
    dataset = read_dataset(put(tmp_path, *stored))
    assert is_upright(dataset, images)
    assert [dataset.class_names[label] for label in dataset.train.labels] == [names[label] for label in labels[:80]]
    assert f"the files are those of emnist-{name}: the images, stored with rows" in dataset.notes[0]
    assert ("labels from 1 on became class names from A on" in dataset.notes[0]) == (name == "letters")
    assert dataset.digest() == catalog.load_dataset(f"emnist-{name}", data_dir=tmp_path).digest()


def test_files_that_only_share_emnists_names_are_read_as_they_lie(
    tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = mnist
    small = read_dataset(put(tmp_path / "small", images[:, ::2, ::2], labels.astype(np.uint8), "emnist-digits-"))
    assert is_upright(small, images[:, ::2, ::2])
    from_0 = read_dataset(put(tmp_path / "from 0", images, labels.astype(np.uint8), "emnist-letters-"))
    assert is_upright(from_0, images)
    assert from_0.class_names == tuple("0123456789")


def test_several_emnist_sets_are_refused_with_the_way_to_choose(
    tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    for name in ("digits", "balanced"):
        put(tmp_path, mnist[0], mnist[1].astype(np.uint8), f"emnist-{name}-")
    with pytest.raises(DataError, match=r"got those of 2 \(emnist-balanced-, emnist-digits-\).* with --data-dir"):
        read_dataset(tmp_path)


def test_qmnist_has_its_classes_and_keeps_a_writer_on_one_side(
    tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = mnist
    columns = np.zeros((120, 8), np.int32)
    columns[:, 0], columns[:, 1], columns[:, 2] = labels, 4, 2100 + np.arange(120) // 10
    columns[:, 3], columns[:, 4], columns[:, 5] = np.arange(120) % 10, 30 + labels, np.arange(120)
    dataset = read_dataset(put(tmp_path, images, columns, "qmnist-", "idx2-int"))
    assert is_upright(dataset, images)
    assert dataset.class_names == tuple("0123456789")
    assert np.array_equal(dataset.train.labels, labels[:80])
    assert dataset.train.groups is not None
    assert np.array_equal(dataset.train.groups, np.arange(80) // 10)
    assert any(note.startswith("QMNIST's labels have eight columns") for note in dataset.notes)
    assert any("one side of every split: 12 groups" in note for note in dataset.notes)
    one_hot = read_dataset(put(tmp_path / "8", images, np.eye(8, dtype=np.int32)[np.arange(120) % 8], "", "idx2-int"))
    assert (len(one_hot.class_names), one_hot.train.groups) == (8, None)


def test_kaggles_folders_named_like_their_file_are_one_data_set(
    tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = mnist
    flat = put(tmp_path / "flat", images, labels.astype(np.uint8))
    for file in flat.iterdir():
        name = file.name.removesuffix(".gz")
        folder = tmp_path / "kaggle" / name
        folder.mkdir(parents=True)
        (folder / name).write_bytes(gzip.decompress(file.read_bytes()))
    dotted = tmp_path / "kaggle" / "train-labels.idx1-ubyte"
    shutil.copy(tmp_path / "kaggle" / "train-labels-idx1-ubyte" / "train-labels-idx1-ubyte", dotted)
    assert read_dataset(tmp_path / "kaggle").part_digests() == read_dataset(flat).part_digests()


def test_a_gz_that_the_browser_unpacked_is_read_and_a_saved_page_is_named(
    tmp_path: Path, mnist: tuple[NDArray[Any], NDArray[Any]]
) -> None:
    images, labels = mnist
    reference = read_dataset(put(tmp_path / "a", images, labels.astype(np.uint8))).part_digests()
    folder = put(tmp_path / "b", images, labels.astype(np.uint8))
    file = folder / "train-images-idx3-ubyte.gz"
    file.write_bytes(gzip.decompress(file.read_bytes()))
    assert read_dataset(folder).part_digests() == reference
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        for each in folder.iterdir():
            archive.write(each, each.name)
    assert read_dataset(tmp_path / "b.zip").part_digests() == reference
    assert np.array_equal(read_images([file], image_shape=(28, 28, 1), pixel_range=255).pixels[..., 0], images[:80])
    file.write_bytes(b"\n<!DOCTYPE html>\n<html><title>Sign in</title></html>")
    with pytest.raises(DataError, match=r"ubyte\.gz: a compressed file is expected, got an HTML page"):
        read_dataset(folder)


@pytest.mark.parametrize("beside", [["sampleSubmission.csv"], []])
def test_zips_inside_a_zip_are_named_instead_of_the_table_beside_them(beside: list[str], tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("train.zip", "test.zip", *beside):
            archive.writestr(name, b"id,label\n1,0\n")
    with pytest.raises(DataError, match=r"a\.zip: .* got zips inside it \(test\.zip, train\.zip\).* unpack them"):
        read_dataset(tmp_path / "a.zip")
