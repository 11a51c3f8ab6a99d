"""Data sets by name: found in every place where they may be, upright, and with the right class names."""

from __future__ import annotations

import dataclasses
import gzip
import hashlib
import http.server
import struct
import threading
import zipfile
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from committee.data import catalog
from committee.data.dataset import ImageDataset, open_test
from committee.errors import DataError, DownloadError

TOY = np.random.default_rng(0).integers(0, 256, (60, 4, 4), dtype=np.uint8)
TOY_LABELS = np.arange(60) % 10

MNIST_5K_DIGEST = "b95576eedd2ab34ae68fcb49d0b0992815f76517bab39509bb80c730edaf03b7"
MNIST_5K_TEST_DIGEST = "5bce47f69d18266cdf6497d55d82ef3b222755dc4e3f961d97136fe8e3429825"


@pytest.fixture(autouse=True)
def own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """No test sees or fills the real cache, or reaches a mirror."""
    monkeypatch.delenv("COMMITTEE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(catalog, "cache_dir", lambda: tmp_path / "cache")
    offline = {
        name: dataclasses.replace(entry, mirrors=("http://127.0.0.1:9/",)) for name, entry in catalog.PUBLISHED.items()
    }
    monkeypatch.setattr(catalog, "PUBLISHED", offline)
    return tmp_path / "cache"


def idx(array: NDArray[Any]) -> bytes:
    head = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
    return gzip.compress(head + array.astype(np.uint8).tobytes())


def idx_files(prefix: str = "", images: NDArray[Any] = TOY, labels: NDArray[Any] = TOY_LABELS) -> dict[str, bytes]:
    test = "test" if prefix else "t10k"
    return {
        f"{prefix}train-images-idx3-ubyte.gz": idx(images[:40]),
        f"{prefix}train-labels-idx1-ubyte.gz": idx(labels[:40]),
        f"{prefix}{test}-images-idx3-ubyte.gz": idx(images[40:]),
        f"{prefix}{test}-labels-idx1-ubyte.gz": idx(labels[40:]),
    }


def put(folder: Path, files: dict[str, bytes]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / name).write_bytes(content)
    return folder


def is_toy(dataset: ImageDataset) -> bool:
    return np.array_equal(dataset.train.pixels[..., 0], TOY[:40]) and len(dataset.test) == 20


def test_mnist_5k_is_always_the_same() -> None:
    dataset = catalog.load_dataset("mnist-5k")
    assert dataset.train.counts(10) == [400] * 10
    assert dataset.test.counts(10) == [100] * 10
    assert dataset.image_shape == (28, 28, 1)
    assert dataset.part_digests()[1] == MNIST_5K_TEST_DIGEST
    assert dataset.digest() == MNIST_5K_DIGEST
    assert catalog.load_dataset("mnist-5k", image_size=14).image_shape == (14, 14, 1)


def test_digits_use_the_whole_range(tmp_path: Path) -> None:
    dataset = catalog.load_dataset("digits")
    assert (len(dataset.train), len(dataset.test), dataset.image_shape) == (1438, 359, (8, 8, 1))
    assert (dataset.train.pixels.min(), dataset.train.pixels.max()) == (0, 255)


@pytest.mark.parametrize("place", [".", "mnist", "MNIST/raw"])
@pytest.mark.parametrize("way", ["argument", "environment", "cache"])
def test_published_sets_are_found_on_this_machine(
    place: str, way: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(tmp_path / "data" / place, idx_files())
    put(tmp_path / "cache" / "mnist", idx_files() if way == "cache" else {})
    if way == "environment":
        monkeypatch.setenv("COMMITTEE_DATA", str(tmp_path / "data"))
    dataset = catalog.load_dataset("mnist", data_dir=str(tmp_path / "data") if way == "argument" else None)
    assert is_toy(dataset)
    assert dataset.class_names == tuple("0123456789")


def test_distribution_places_come_after_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = put(tmp_path / "share", idx_files())
    entry = dataclasses.replace(catalog.PUBLISHED["fashion-mnist"], places=(place,))
    monkeypatch.setitem(catalog.PUBLISHED, "fashion-mnist", entry)
    dataset = catalog.load_dataset("fashion-mnist")
    assert is_toy(dataset)
    assert dataset.source == str(place)
    assert dataset.class_names[:3] == ("T-shirt", "Trouser", "Pullover")


@pytest.mark.parametrize("zipped", [True, False])
def test_emnist_is_upright_and_its_labels_start_at_0(zipped: bool, tmp_path: Path) -> None:
    labels = np.arange(60) % 26 + 1
    files = idx_files("emnist-letters-", TOY.swapaxes(1, 2), np.minimum(labels, 26))
    files |= idx_files("emnist-digits-")
    if zipped:
        with zipfile.ZipFile(tmp_path / "gzip.zip", "w") as archive:
            for name, content in files.items():
                archive.writestr(f"gzip/{name}", content)
    else:
        put(tmp_path, files)
    dataset = catalog.load_dataset("emnist-letters", data_dir=tmp_path)
    assert is_toy(dataset)
    assert [dataset.class_names[label] for label in dataset.train.labels[:3]] == ["A", "B", "C"]
    assert open_test(dataset, tmp_path / "record", "test").labels[0] == 40 % 26
    assert len(catalog.PUBLISHED["emnist-balanced"].class_names) == 47


def test_labels_outside_the_known_classes_are_named(tmp_path: Path) -> None:
    put(tmp_path, idx_files(labels=np.where(np.arange(60) == 5, 17, TOY_LABELS)))
    with pytest.raises(DataError, match=r"labels must be from 0 to 9 \(10 classes\), got 17 for image 5"):
        catalog.load_dataset("mnist", data_dir=tmp_path)


class Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *args: object) -> None:
        pass


def test_a_published_set_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = idx_files()
    put(tmp_path / "www", files)
    handler = partial(Quiet, directory=str(tmp_path / "www"))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        entry = dataclasses.replace(
            catalog.PUBLISHED["kmnist"],
            mirrors=("http://127.0.0.1:9/", f"http://127.0.0.1:{server.server_port}/"),
            sums={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        )
        monkeypatch.setitem(catalog.PUBLISHED, "kmnist", entry)
        dataset = catalog.load_dataset("kmnist")
        server.shutdown()
        thread.join()
    assert is_toy(dataset)
    assert is_toy(catalog.load_dataset("kmnist"))
    assert dataset.class_names[:2] == ("o", "ki")


def test_offline_the_error_names_every_place_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(catalog.PUBLISHED["fashion-mnist"], places=(tmp_path / "share",))
    monkeypatch.setitem(catalog.PUBLISHED, "fashion-mnist", entry)
    with pytest.raises(DownloadError) as caught:
        catalog.load_dataset("fashion-mnist", data_dir=tmp_path / "mine")
    message = str(caught.value)
    places = [tmp_path / "mine", tmp_path / "cache" / "fashion-mnist", tmp_path / "share", "http://127.0.0.1:9/train"]
    advice = ["--data-dir DIR", "COMMITTEE_DATA", "dataset-fashion-mnist"]
    assert [text for text in map(str, [*places, *advice]) if text not in message] == []


def test_one_data_set_is_not_taken_for_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = put(tmp_path / "data", idx_files())
    labels = gzip.decompress((files / "train-labels-idx1-ubyte.gz").read_bytes())
    monkeypatch.setitem(catalog._LABELS_OF, hashlib.sha256(labels).hexdigest(), "mnist")
    assert is_toy(catalog.load_dataset("mnist", data_dir=files))
    with pytest.raises(DownloadError, match="data holds mnist instead"):
        catalog.load_dataset("kmnist", data_dir=files)


@pytest.mark.parametrize(("name", "meant"), [("mnist5k", "mnist-5k"), ("fashion_mnist", "fashion-mnist")])
def test_an_unknown_name_gets_the_catalogue_and_a_guess(name: str, meant: str) -> None:
    with pytest.raises(DataError) as caught:
        catalog.load_dataset(name)
    assert f"did you mean '{meant}'?" in str(caught.value)
    assert all(known in str(caught.value) for known in catalog.NAMES)


def test_the_names_table_has_them_all() -> None:
    assert set(catalog.NAMES) == {*catalog.PUBLISHED, "mnist-5k", "digits"}
