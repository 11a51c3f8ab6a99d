"""What `committee data convert` writes is the same data set when it is read back, and what others can read."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray
from PIL import Image

from committee.cli.main import main
from committee.data import catalog
from committee.data.convert import png, to_parquet
from committee.data.formats.decode import decode
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.errors import DataError


@pytest.fixture(scope="module")
def digits() -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """200 real digits, 8x8, and their classes."""
    dataset = catalog.load_dataset("digits")
    return dataset.train.pixels[:200, ..., 0], dataset.train.labels[:200]


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x,
        lambda x: x / 255 * 7,  # 16 bits
        lambda x: np.stack([x, 255 - x, x // 2], 3),
        lambda x: np.stack([x, x.swapaxes(1, 2), x // 2, 255 - x], 3).astype(np.uint16) * np.uint16(199),
        lambda x: np.stack([x, x | 1], 3),
    ],
    ids=["grey", "16 bits", "colour", "16-bit colour with alpha", "grey with alpha"],
)
def test_it_reads_back_to_the_same_digests_and_names(
    change: Any, tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    images, labels = digits
    names = np.array([f"digit, {9 - i}" for i in range(10)])  # in no order
    np.savez(tmp_path / "a.npz", x_train=change(images), y_train=labels, class_names=names)
    dataset = read_dataset(tmp_path / "a.npz")
    result = CliRunner().invoke(main, ["data", "convert", str(tmp_path / "a.npz"), str(tmp_path / "b.parquet")])
    assert result.exit_code == 0, result.output
    assert f"Digest: {dataset.digest()}" in result.output
    again = read_dataset(tmp_path / "b.parquet")
    assert again.part_digests() == dataset.part_digests()
    assert again.class_names == dataset.class_names
    assert np.array_equal(again.train.labels, dataset.train.labels)
    assert [file.name for file in sorted(tmp_path.iterdir())] == ["a.npz", "b.parquet"]


def test_groups_are_kept_and_the_test_record_says_that_images_were_written(
    tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    np.savez(tmp_path / "a.npz", X=digits[0], y=digits[1])
    (tmp_path / "groups.csv").write_text("\n".join(str(i // 4) for i in range(200)))
    dataset = read_dataset(tmp_path / "a.npz", ReadOptions(groups=str(tmp_path / "groups.csv")))
    to_parquet(dataset, tmp_path / "b")
    again = read_dataset(tmp_path / "b")
    assert again.train.groups_digest() == dataset.train.groups_digest() != ""
    record = json.loads((tmp_path / "b" / ".test_record.jsonl").read_text())
    assert (record["images"], "written to" in record["purpose"]) == (len(dataset.test), True)


def test_others_find_images_and_class_names_where_the_hub_has_them(
    tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.int64]]
) -> None:
    np.savez(tmp_path / "a.npz", X=digits[0], y=digits[1])
    dataset = read_dataset(tmp_path / "a.npz")
    train, *_ = to_parquet(dataset, tmp_path / "b")
    table = pq.read_table(train)
    features = json.loads(table.schema.metadata[b"huggingface"])["info"]["features"]
    assert features["label"] == {"names": list("0123456789"), "_type": "ClassLabel"}
    cell = table.column("image")[7].as_py()
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(cell["bytes"]))), dataset.train.pixels[7, ..., 0])
    assert np.array_equal(table.column("label").to_numpy(), dataset.train.labels)


def test_nothing_is_overwritten_or_left_half_written(
    tmp_path: Path, digits: tuple[NDArray[np.uint8], NDArray[np.int64]], monkeypatch: pytest.MonkeyPatch
) -> None:
    np.savez(tmp_path / "a.npz", X=digits[0], y=digits[1])
    dataset = read_dataset(tmp_path / "a.npz")
    with pytest.raises(DataError, match=r"a\.npz: a folder that does not exist yet is expected"):
        to_parquet(dataset, tmp_path / "a.npz")

    def full(*_: object) -> None:
        raise OSError("No space left on device")

    monkeypatch.setattr("committee.data.convert.write_part", full)
    with pytest.raises(DataError, match="b: the folder cannot be written"):
        to_parquet(dataset, tmp_path / "b")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_png_keeps_16_bits(channels: int) -> None:
    pixels = np.random.default_rng(0).integers(0, 65536, (5, 7, channels)).astype(np.uint16)
    assert np.array_equal(decode(png(pixels), "a.png"), pixels)
