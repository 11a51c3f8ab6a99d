"""Tables of images as people have them: where the label stands, what shape a row has, which files belong together."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset, read_images
from committee.errors import DataError

Part = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module")
def digits() -> Part:
    """Real handwritten digits: 600 of 8x8 pixels with values from 0 to 16, and their classes."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    return values[:600].astype(np.int64), labels[:600]


def table(path: Path, *columns: NDArray[Any], header: str = "", name: str = "set.csv") -> Path:
    rows = [",".join(map(str, row)) for row in np.column_stack(columns).tolist()]
    (path / name).write_text("\n".join([*([header] if header else []), *rows]) + "\n")
    return path / name


def same(dataset: ImageDataset, pixels: NDArray[Any], labels: NDArray[Any]) -> bool:
    """Whether these are the training and test images together, whatever their order."""
    images = [dataset.train, dataset.test._images]
    got = [
        (image.tobytes(), dataset.class_names[c]) for p in images for image, c in zip(p.pixels, p.labels, strict=True)
    ]
    return Counter(got) == Counter(
        (image.astype(np.uint8).tobytes(), str(label)) for image, label in zip(pixels, labels, strict=True)
    )


def renamed(cells: list[int]) -> str:
    """What pandas calls columns whose names are these cells."""
    seen: Counter[int] = Counter()
    names = []
    for cell in cells:
        names.append(f"{cell}.{seen[cell]}" if seen[cell] else str(cell))
        seen[cell] += 1
    return ",".join(names)


# Where the label stands.


@pytest.mark.parametrize(
    "place", ["first", "last", "names last", "one-hot last", "first of A_Z", "last of A_Z", "odd name"]
)
def test_the_label_is_found_by_its_values_or_its_name(place: str, tmp_path: Path, digits: Part) -> None:
    pixels, labels = digits
    if "A_Z" in place:  # sorted by class, and the first row has become a header
        order = np.argsort(labels, kind="stable")
        pixels, labels = pixels[order], labels[order]
        columns = (labels, pixels) if "first" in place else (pixels, labels)
        path = table(tmp_path, *columns, header=renamed(np.column_stack(columns)[0].tolist()))
    elif place == "one-hot last":  # semeion
        pixels = (pixels > 7) * 1
        path = table(tmp_path, pixels, np.eye(10)[labels])
        pixels = pixels * 255
    elif place == "odd name":  # Devanagari
        path = table(tmp_path, pixels, labels, header=",".join(f"pixel_{i:04}" for i in range(64)) + ",character")
    elif place == "names last":
        labels = np.array([f"digit {label}" for label in labels])
        path = table(tmp_path, pixels, labels)
    else:
        path = table(tmp_path, *((labels, pixels) if place == "first" else (pixels, labels)))
    dataset = read_dataset(path)
    assert dataset.class_names == tuple(map(str, np.unique(labels)))
    assert same(dataset, pixels, labels)
    said = [note for note in dataset.notes if "as its values say" in note]
    assert bool(said) == (place not in ("one-hot last", "odd name"))
    assert all(f"the {'first' if 'first' in place else 'last'} column" in note for note in said)


def test_two_columns_that_may_be_the_label_are_both_named(tmp_path: Path, digits: Part) -> None:
    pixels, labels = digits
    spread = np.arange(600) * 7 % 10 * 2  # no pixel: unlike its neighbour, and as often this as that
    path = table(tmp_path, spread, pixels[:, 1:], labels)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    for words in (
        "the first column (10 values from 0 to 18)",
        "the last column (10 values from 0 to 9)",
        "both may be",
    ):
        assert words in str(caught.value)
    assert "--label 0 or --label -1" in str(caught.value)
    expected = np.column_stack([spread, pixels[:, 1:]])
    assert same(read_dataset(path, ReadOptions(label="-1")), expected, labels)
    assert same(read_dataset(path, ReadOptions(label="0")), np.column_stack([pixels[:, 1:], labels]), spread)


def test_no_column_that_may_be_the_label_is_said(tmp_path: Path, digits: Part) -> None:
    path = table(tmp_path, digits[0][:, :1] * 0, digits[0])
    with pytest.raises(DataError, match=r"the first column \(always 0\) and the last column .*--label 0 or --label -1"):
        read_dataset(table(tmp_path, digits[0][:, :1] * 0, digits[0][:, :63], digits[0][:, :1] * 0))
    with pytest.raises(DataError, match=r"called kind, or one at that position \(0 to 64, -1 for the last\)"):
        read_dataset(path, ReadOptions(label="kind"))


def test_a_small_test_table_has_the_columns_of_the_training_table(tmp_path: Path, digits: Part) -> None:
    """Three rows say nothing about columns; and one column fewer has no labels."""
    pixels, labels = digits
    table(tmp_path, pixels, labels, name="train.csv")
    table(tmp_path, pixels[:3], labels[:3], name="test.csv")
    assert len(read_dataset(tmp_path).test) == 3
    table(tmp_path, pixels[:3], name="test.csv")
    assert "test.csv has no labels, so it was left out" in read_dataset(tmp_path).notes


def test_a_label_by_name_may_stand_anywhere(tmp_path: Path, digits: Part) -> None:
    pixels, labels = digits
    header = ",".join([f"p{i}" for i in range(30)] + ["Species"] + [f"p{i}" for i in range(30, 64)])
    path = table(tmp_path, pixels[:, :30], labels, pixels[:, 30:], header=header)
    for label in ("species", "30", "-35"):
        assert same(read_dataset(path, ReadOptions(label=label)), pixels, labels)


# What shape a row has.


@pytest.mark.parametrize("first", [0, 1])
def test_the_header_tells_the_shape_of_images_that_are_no_squares(first: int, tmp_path: Path, digits: Part) -> None:
    pixels, labels = digits[0][:, :48], digits[1]
    names = [f"{row}x{column}" for row in range(first, 6 + first) for column in range(first, 8 + first)]
    dataset = read_dataset(table(tmp_path, labels, pixels, header=",".join(["label", *names])))
    assert dataset.image_shape == (6, 8, 1)
    assert same(dataset, pixels, labels)
    names[3], names[4] = names[4], names[3]  # no order of a grid: nothing is told
    with pytest.raises(DataError, match=r"may be images of several shapes \(height x width x channels: 4x4x3, 8x6x1, "):
        read_dataset(table(tmp_path, labels, pixels, header=",".join(["label", *names])))


@pytest.mark.parametrize(
    ("values", "given", "shape", "words"),
    [
        (300, None, None, "(height x width x channels: 10x10x3, 20x15x1, 15x20x1); say which with --shape H,W"),
        (300, (20, 15, 1), (20, 15, 1), ""),
        (300, (20, 16, 1), None, "images of 20x16x1 (320 values) are expected as --shape says, got 300 values each"),
        (49, None, (7, 7, 1), ""),
        (192, None, (8, 8, 3), "rows of 192 values were read as 8x8 pixels of 3 colours"),
        (363, None, (11, 11, 3), "rows of 363 values were read as 11x11 pixels of 3 colours"),
        (144, (6, 8, 3), (6, 8, 3), ""),
        (7, None, None, "7 values in a row do not make a square image"),
    ],
)
@pytest.mark.parametrize("form", ["csv", "npz"])
def test_the_shape_of_rows_is_sure_or_said_or_asked_for(
    form: str, values: int, given: Any, shape: Any, words: str, tmp_path: Path
) -> None:
    pixels = np.arange(20 * values).reshape(20, values) % 251
    labels = np.arange(20) % 2
    if form == "csv":
        path = table(tmp_path, labels, pixels, header=",".join(["label", *(f"p{i}" for i in range(values))]))
    else:
        path = tmp_path / "set.npz"
        np.savez(path, X=pixels, y=labels)
    if shape is None:
        with pytest.raises(DataError) as caught:
            read_dataset(path, ReadOptions(shape=given))
        assert words in str(caught.value)
        return
    dataset = read_dataset(path, ReadOptions(shape=given))
    assert dataset.image_shape == shape
    assert same(dataset, pixels, labels)
    assert any(note.startswith(words or "rows of") for note in dataset.notes) == bool(words)


def test_rows_to_classify_have_the_shape_of_the_training_images(tmp_path: Path, digits: Part) -> None:
    rows = digits[0][:5, :48]
    path = table(tmp_path, rows)
    _, read = read_images([path], image_shape=(6, 8, 1), pixel_range=255)
    assert np.array_equal(read, rows.reshape(5, 6, 8, 1))


# Which files belong together.


@pytest.mark.parametrize("suffix", ["train", "train-0"])
def test_several_data_sets_in_one_folder_are_refused_with_their_names(
    suffix: str, tmp_path: Path, digits: Part
) -> None:
    for name in ("emnist-balanced", "emnist-letters"):  # Kaggle's
        table(tmp_path, *digits[::-1], name=f"{name}-{suffix}.csv")
        table(tmp_path, *digits[::-1], name=f"{name}-test.csv")
    with pytest.raises(
        DataError, match=r"got those of 2 \(emnist-balanced, emnist-letters\); give the path of one file"
    ):
        read_dataset(tmp_path)
    assert len(read_dataset(tmp_path / f"emnist-letters-{suffix}.csv").train) == 480


@pytest.mark.parametrize(
    ("names", "images"),
    [
        (("data-0.csv", "data-1.csv"), (960, 240)),
        (("my-train-00000-of-00002-1b2f3c4d5e6f7a8b.csv", "my-train-00001-of-00002-aaaabbbbcccc1111.csv"), (960, 240)),
        (("sign_train/sign_train.csv", "sign_test/sign_test.csv"), (600, 600)),
        (("train/0.csv", "train/1.csv", "test/0.csv", "sample_submission.csv"), (1200, 600)),
    ],
)
def test_shards_and_parts_of_one_data_set_stay_joined(
    names: tuple[str, ...], images: tuple[int, int], tmp_path: Path, digits: Part
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        table(tmp_path, *digits[::-1], name=name)
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == images
