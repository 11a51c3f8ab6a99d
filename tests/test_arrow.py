"""Parquet and Arrow files in the ways in which images are kept in them; two columns of labels are a question."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.feather as pf
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from committee.data import catalog
from committee.data.dataset import ImageDataset
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

Images = NDArray[np.uint8]
Column = Callable[[Images], dict[str, Any]]


@pytest.fixture(scope="module")
def digits() -> tuple[Images, NDArray[np.int64]]:
    """200 real digits, 8x8, and their classes; 150 are to train."""
    dataset = catalog.load_dataset("digits")
    return dataset.train.pixels[:200, ..., 0], dataset.train.labels[:200]


def png(image: Images) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def pngs(images: Images) -> list[bytes]:
    return [png(image) for image in images]


def structs(images: Images, kind: pa.DataType) -> pa.Array:
    cells = [{"bytes": content, "path": None} for content in pngs(images)]
    return pa.array(cells, pa.struct({"bytes": kind, "path": pa.string()}))


def tensors(images: Images) -> pa.Array:
    storage = pa.array(images.reshape(len(images), -1).tolist(), pa.list_(pa.uint8(), 64))
    return pa.ExtensionArray.from_storage(pa.fixed_shape_tensor(pa.uint8(), [8, 8]), storage)


COLUMNS: dict[str, Column] = {
    "dictionary": lambda x: {"image": pa.array(pngs(x)).dictionary_encode()},
    "large binary": lambda x: {"picture": pa.array(pngs(x), pa.large_binary())},
    "binary view": lambda x: {"image": pa.array(pngs(x), pa.binary_view())},
    "struct of views": lambda x: {"image": structs(x, pa.binary_view())},
    "pixel columns": lambda x: {f"pixel{i}": x.reshape(-1, 64)[:, i] for i in range(64)},
    "places": lambda x: {f"{i // 8 + 1}x{i % 8 + 1}": x.reshape(-1, 64)[:, i] / 255 for i in range(64)},
    "lists": lambda x: {"image": pa.array(x.reshape(-1, 64).tolist())},
    "fixed-size lists": lambda x: {"pixels": pa.array(x.reshape(-1, 64).tolist(), pa.list_(pa.uint8(), 64))},
    "lists of lists": lambda x: {"anything": pa.array(x.tolist(), pa.list_(pa.list_(pa.uint8())))},
    "lists of floats": lambda x: {"image": pa.array((x / 255).tolist(), pa.large_list(pa.list_(pa.float32(), 8)))},
    "tensors": lambda x: {"image": tensors(x)},
}


def parts_of(digits: tuple[Images, NDArray[np.int64]], column: Column) -> dict[str, pa.Table]:
    images, labels = digits
    cut = {"train": slice(150), "test": slice(150, None)}
    return {
        part: pa.table({"id": np.arange(len(labels[rows])), **column(images[rows]), "label": labels[rows]})
        for part, rows in cut.items()
    }


def is_digits(dataset: ImageDataset, digits: tuple[Images, NDArray[np.int64]]) -> bool:
    same = np.array_equal(dataset.train.pixels[..., 0], digits[0][:150]) and len(dataset.test) == 50
    return same and np.array_equal(dataset.train.labels, digits[1][:150])


@pytest.mark.parametrize("column", COLUMNS.values(), ids=COLUMNS)
@pytest.mark.parametrize("form", ["parquet", "feather"])
def test_images_are_read_however_a_column_keeps_them(
    form: str, column: Column, tmp_path: Path, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    for part, table in parts_of(digits, column).items():
        if form == "parquet":
            pq.write_table(table, tmp_path / f"{part}.parquet")
        else:
            pf.write_feather(table, str(tmp_path / f"{part}.feather"))
    dataset = read_dataset(tmp_path)
    assert is_digits(dataset, digits)
    read = read_images(
        [tmp_path / f"test.{form}"], image_shape=(8, 8, 1), pixel_range=255, value_range=dataset.value_range
    )
    assert np.array_equal(read.pixels[..., 0], digits[0][150:])


def test_a_folder_that_datasets_saved_is_read_with_its_class_names(
    tmp_path: Path, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    names = [f"digit {i}" for i in range(10)]
    features = {"image": {"_type": "Image"}, "label": {"names": names, "_type": "ClassLabel"}}
    metadata = {"huggingface": json.dumps({"info": {"features": features}})}
    for part, table in parts_of(digits, lambda x: {"image": structs(x, pa.binary())}).items():
        folder = tmp_path / "saved" / part
        folder.mkdir(parents=True)
        table = table.replace_schema_metadata(metadata)
        for shard, rows in enumerate((table[:30], table[30:])):
            with pa.ipc.new_stream(folder / f"data-{shard:05}-of-00002.arrow", table.schema) as stream:
                stream.write_table(rows)
        (folder / "state.json").write_text("{}")
        (folder / "cache-0123.arrow").write_bytes(b"what map() computed")
    (tmp_path / "saved" / "dataset_dict.json").write_text('{"splits": ["train", "test"]}')
    dataset = read_dataset(tmp_path / "saved")
    assert is_digits(dataset, digits)
    assert dataset.class_names == tuple(names)
    assert len(read_dataset(tmp_path / "saved" / "train").train) == 120  # a fifth of 150 is sealed


def test_two_columns_of_labels_are_a_question_that_label_answers(
    tmp_path: Path, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    images, labels = digits
    features = {
        "img": {"_type": "Image"},
        "fine_label": {"names": [f"fine {i}" for i in range(10)], "_type": "ClassLabel"},
        "coarse_label": {"names": ["even", "odd"], "_type": "ClassLabel"},
    }
    for part, rows in (("train", slice(150)), ("test", slice(150, None))):
        table = pa.table({"img": pngs(images[rows]), "fine_label": labels[rows], "coarse_label": labels[rows] % 2})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        pq.write_table(table, tmp_path / f"{part}.parquet")
    with pytest.raises(DataError, match=r"got fine_label, coarse_label; say which it is with --label fine_label"):
        read_dataset(tmp_path)
    assert is_digits(read_dataset(tmp_path, ReadOptions(label="fine_label")), digits)
    coarse = read_dataset(tmp_path, ReadOptions(label="coarse_label"))
    assert coarse.class_names == ("even", "odd")
    assert np.array_equal(coarse.train.labels, labels[:150] % 2)
    assert len(read_images([tmp_path / "test.parquet"], image_shape=(8, 8, 1), pixel_range=255).names) == 50
    with pytest.raises(DataError, match="a column of labels called fine, "):
        read_dataset(tmp_path, ReadOptions(label="fine"))


def test_a_test_file_without_the_label_column_is_left_out_whatever_else_it_has(
    tmp_path: Path, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    images, labels = digits
    names = [f"{i}.png" for i in range(200)]
    pq.write_table(pa.table({"image": pngs(images), "label": labels, "name": names}), tmp_path / "train.parquet")
    pq.write_table(pa.table({"image": pngs(images), "name": names}), tmp_path / "test.parquet")
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (160, 40)
    assert "test.parquet has no labels, so it was left out" in dataset.notes


def test_a_column_of_parts_splits_a_file_and_pandas_index_is_no_pixel(
    tmp_path: Path, digits: tuple[Images, NDArray[np.int64]]
) -> None:
    images, labels = digits
    columns = {f"pixel{i}": images.reshape(-1, 64)[:, i] for i in range(64)}
    parts = ["train"] * 140 + ["validation"] * 10 + ["test"] * 50
    table = {"label": labels, **columns, "split": parts, "__index_level_0__": np.arange(200)}
    pq.write_table(pa.table(table), tmp_path / "a.parquet")
    dataset = read_dataset(tmp_path / "a.parquet")
    assert is_digits(dataset, digits)
    assert "the validation part (10 images) was joined" in " ".join(dataset.notes)
    pq.write_table(
        pa.table({"image": pngs(images), "kind": labels, "split": pa.array(parts).dictionary_encode()}),
        tmp_path / "b.parquet",
    )
    assert is_digits(read_dataset(tmp_path / "b.parquet"), digits)


X = np.zeros((6, 8, 8), np.uint8)
Y = np.arange(6) % 2
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "uneven lists": ({"image": [[1] * 4] * 5 + [[1] * 9], "label": Y}, "lists of one length are expected"),
    "hole in a list": ({"image": [[1, 2, 3, None]] * 6, "label": Y}, "every pixel must be a number, got nothing in ro"),
    "empty cell": ({"image": [[1] * 4] * 5 + [None], "label": Y}, "got nothing in row 6, column 'image'"),
    "hole in a column": (
        {**{f"p{i}": [1, 2, 3, 4, 5, None] for i in range(4)}, "label": Y},
        "got nothing in row 6, column 'p0'",
    ),
    "no pixels": ({"width": Y, "label": Y}, "or a column for each pixel is expected, got width, label; add it"),
    "unlabelled": ({f"p{i}": Y for i in range(9)}, "or name it with --label COLUMN"),
}


@pytest.mark.parametrize(("columns", "message"), BAD.values(), ids=BAD)
def test_what_cannot_be_read_is_named(columns: dict[str, Any], message: str, tmp_path: Path) -> None:
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path / "a.parquet")
    assert message in str(caught.value)


def test_another_file_called_arrow_is_named(tmp_path: Path) -> None:
    (tmp_path / "train.arrow").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"train\.arrow: an Arrow file is expected, got something else"):
        read_dataset(tmp_path)
