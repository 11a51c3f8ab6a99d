"""Data sets by name: found in every place where they may be, upright, and with the right class names."""

from __future__ import annotations

import bz2
import dataclasses
import gzip
import hashlib
import http.server
import io
import shutil
import struct
import tarfile  # noqa: TID251 - writes what a mirror sends
import threading
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
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


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address of a server of the files in a folder."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}/"
        finally:
            server.shutdown()
            thread.join()


def test_a_published_set_is_downloaded_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = idx_files()
    with served(put(tmp_path / "www", files)) as address:
        entry = dataclasses.replace(
            catalog.PUBLISHED["kmnist"],
            mirrors=("http://127.0.0.1:9/", address),
            sums={name: hashlib.sha256(content).hexdigest() for name, content in files.items()},
        )
        monkeypatch.setitem(catalog.PUBLISHED, "kmnist", entry)
        dataset = catalog.load_dataset("kmnist")
    assert is_toy(dataset)
    assert is_toy(catalog.load_dataset("kmnist"))
    assert dataset.class_names[:2] == ("o", "ki")


def npz_bytes(**arrays: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def mat_bytes(images: NDArray[Any], labels: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    scipy.io.savemat(buffer, {"X": images.transpose(1, 2, 3, 0), "y": labels[:, None]}, do_compression=True)
    return buffer.getvalue()


def libsvm_bytes(images: NDArray[Any], labels: NDArray[Any]) -> bytes:
    rows = (
        f"{label} " + " ".join(f"{i}:{value:.6f}" for i, value in enumerate(image.ravel() / 127.5 - 1, 1))
        for image, label in zip(images, labels, strict=True)
    )
    return bz2.compress("\n".join(rows).encode())


def cifar_bytes(images: NDArray[Any], labels: NDArray[Any]) -> bytes:
    """The archive with its folder and five batches."""
    records = np.concatenate([labels[:, None], images.transpose(0, 3, 1, 2).reshape(60, -1)], 1).astype(np.uint8)
    parts = {f"data_batch_{i + 1}.bin": records[8 * i : 8 * i + 8] for i in range(5)} | {"test_batch.bin": records[40:]}
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for name, part in {**parts, "../readme.html": records[:1]}.items():
            member = tarfile.TarInfo(f"cifar-10-batches-bin/{name}")
            member.size = part.nbytes
            archive.addfile(member, io.BytesIO(part.tobytes()))
    return buffer.getvalue()


def canvas(side: int, *channels: int) -> NDArray[np.uint8]:
    return np.random.default_rng(1).integers(0, 256, (60, side, side, *channels), dtype=np.uint8)


QMNIST = np.zeros((60, 8), np.int32)
QMNIST[:, 0], QMNIST[:, 2] = TOY_LABELS, np.arange(60) // 5
TENS = np.where(TOY_LABELS == 0, 10, TOY_LABELS)

HANDED_OUT: dict[str, tuple[NDArray[np.uint8], dict[str, bytes]]] = {
    "qmnist": (
        TOY,
        idx_files("qmnist-")
        | {
            f"qmnist-{part}-labels-idx2-int.gz": gzip.compress(
                struct.pack(">HBBII", 0, 0x0C, 2, len(rows), 8) + rows.astype(">i4").tobytes()
            )
            for part, rows in (("train", QMNIST[:40]), ("test", QMNIST[40:]))
        },
    ),
    "kmnist-49": (
        TOY,
        {
            f"k49-{part}-{kind}.npz": npz_bytes(arr_0=array[rows])
            for part, rows in (("train", slice(40)), ("test", slice(40, None)))
            for kind, array in (("imgs", TOY), ("labels", TOY_LABELS.astype(np.uint8)))
        },
    ),
    "svhn": (
        canvas(32, 3),
        {
            f"{part}_32x32.mat": mat_bytes(canvas(32, 3)[rows], TENS[rows].astype(np.uint8))
            for part, rows in (("train", slice(40)), ("test", slice(40, None)))
        },
    ),
    "usps": (
        canvas(16),
        {
            f"{name}.bz2": libsvm_bytes(canvas(16)[rows], TOY_LABELS[rows] + 1)
            for name, rows in (("usps", slice(40)), ("usps.t", slice(40, None)))
        },
    ),
    "cifar-10": (canvas(32, 3), {"cifar-10-binary.tar.gz": cifar_bytes(canvas(32, 3), TOY_LABELS)}),
    "organamnist": (
        TOY,
        {
            "organamnist.npz": npz_bytes(
                **{
                    f"{part}_{kind}": array[rows]
                    for part, rows in (("train", slice(30)), ("val", slice(30, 40)), ("test", slice(40, None)))
                    for kind, array in (("images", TOY), ("labels", TOY_LABELS[:, None].astype(np.uint8)))
                }
            )
        },
    ),
}
"""The images of each data set, and its files as their authors hand them out."""


@pytest.mark.parametrize("name", HANDED_OUT)
def test_each_form_is_downloaded_checked_and_read(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images, files = HANDED_OUT[name]
    published = catalog.PUBLISHED[name]
    with served(put(tmp_path / "www", files)) as address:
        entry = dataclasses.replace(
            published,
            mirrors=("http://127.0.0.1:9/", address),
            sums={file: f"md5:{hashlib.md5(files[file]).hexdigest()}" for file in published.sums},
        )
        monkeypatch.setitem(
            catalog.PUBLISHED, name, dataclasses.replace(entry, sums=dict.fromkeys(entry.sums, "md5:0"))
        )
        with pytest.raises(DownloadError, match="wrong checksum: expected md5:0, got md5:"):
            catalog.load_dataset(name)
        monkeypatch.setitem(catalog.PUBLISHED, name, entry)
        first = catalog.load_dataset(name)
    for dataset in (first, catalog.load_dataset(name)):  # the second one from the cache
        assert np.array_equal(dataset.train.pixels.squeeze(), images[:40])
        assert np.array_equal(dataset.train.labels, TOY_LABELS[:40])
        assert (len(dataset.test), dataset.class_names) == (20, published.class_names)
        assert f"licence: {published.licence}" in dataset.notes
        assert (dataset.train.groups is not None) == (name == "qmnist")
    assert not list((tmp_path / "cache").rglob("*.gz")) or name == "qmnist"
    own = put(tmp_path / "own", files)
    if name == "cifar-10":  # as tar unpacks it
        own = own / "cifar-10-batches-bin"
        shutil.copytree(tmp_path / "cache" / name, own)
    assert catalog.load_dataset(name, data_dir=tmp_path / "own").source == str(own)


def test_the_published_tables_are_complete() -> None:
    for name, entry in catalog.PUBLISHED.items():
        assert len(set(entry.class_names)) == len(entry.class_names) > 1, name
        assert all(
            len(checksum.removeprefix("md5:")) == (32 if ":" in checksum else 64) for checksum in entry.sums.values()
        )
        assert entry.licence, name
    assert len(catalog.PUBLISHED["kmnist-49"].class_names) == 49
    with pytest.raises(
        DataError, match="chestmnist: one label for each image is expected, got a set with up to 14 each"
    ):
        catalog.load_dataset("chestmnist")


def test_offline_the_error_names_every_place_and_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = dataclasses.replace(catalog.PUBLISHED["fashion-mnist"], places=(tmp_path / "share",))
    monkeypatch.setitem(catalog.PUBLISHED, "fashion-mnist", entry)
    with pytest.raises(DownloadError) as caught:
        catalog.load_dataset("fashion-mnist", data_dir=tmp_path / "mine")
    message = str(caught.value)
    places = [tmp_path / "mine", tmp_path / "cache" / "fashion-mnist", tmp_path / "share", "http://127.0.0.1:9/train"]
    advice = ["--data-dir DIR", "COMMITTEE_DATA", "dataset-fashion-mnist"]
    assert [text for text in map(str, [*places, *advice]) if text not in message] == []


def test_what_is_not_to_be_downloaded_is_only_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(catalog, "fetch", lambda *args, **options: pytest.fail("it was downloaded"))
    with pytest.raises(DownloadError, match="nothing is to be downloaded"):
        catalog.load_dataset("kmnist", data_dir=tmp_path, download=False)
    assert is_toy(catalog.load_dataset("mnist", data_dir=put(tmp_path / "mnist", idx_files()), download=False))


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
