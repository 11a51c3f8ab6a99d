"""Tables of images as people have them: where the label stands, what shape a row has, which files belong together."""

from __future__ import annotations

import io
import json
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from committee.config.recipe import Holdout
from committee.data.dataset import ImageDataset
from committee.data.formats import csv_numbers
from committee.data.formats.csv_files import read_csv
from committee.data.formats.opening import open_files
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.splits import validation_positions
from committee.data.summary import describe
from committee.data.to_classify import read_images
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
    read = read_images([path], image_shape=(6, 8, 1), pixel_range=255).pixels
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


# Image files and a table of their labels.


def png(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray((image.reshape(8, 8) * 15).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


NAMES = [f"kind {number}" for number in range(10)]


def listing(rows: dict[int, str], name: str, header: str, row: Callable[[int], str]) -> str:
    """A table in the form that its name says, of images by number and their classes."""
    columns = header.split(",")
    if name.endswith(".jsonl"):
        lines = [json.dumps(dict(zip(columns, [row(i), label], strict=True))) for i, label in rows.items()]
    else:
        sign = {"tsv": "\t", "csv": ",", "txt": " "}[name[-3:]]
        lines = [*([sign.join(columns)] if header else []), *(f"{row(i)}{sign}{label}" for i, label in rows.items())]
    return "\n".join(lines) + "\n"


# name of the case: (where image i lies, {table: (header, what row i calls its image)}, whether there is a test part)
LISTINGS: dict[str, tuple[Callable[[int], str], dict[str, tuple[str, Callable[[int], str]]], bool]] = {
    "Hugging Face's imagefolder": (
        lambda i: f"{i:05}.png",
        {"metadata.csv": ("file_name,label", lambda i: f"{i:05}.png")},
        False,
    ),
    "the same with parts": (
        lambda i: f"{'train' if i < 80 else 'test'}/{i:05}.png",
        {
            "train/metadata.jsonl": ("file_name,label", lambda i: f"{i:05}.png"),
            "test/metadata.jsonl": ("file_name,label", lambda i: f"{i:05}.png"),
        },
        True,
    ),
    "parts in one table": (
        lambda i: f"data/{'train' if i < 80 else 'test'}/{i % 80}.png",  # the same names in both
        {"metadata.csv": ("file_name,label", lambda i: f"{'train' if i < 80 else 'test'}/{i % 80}.png")},
        True,
    ),
    "Kaggle's ids": (
        lambda i: f"{'train' if i < 80 else 'test'}/{i * 977:x}.png",
        {"labels.csv": ("id,breed", lambda i: f"{i * 977:x}"), "sample_submission.csv": ("id,a,b", lambda i: f"{i},0")},
        False,
    ),
    "tables by part": (
        lambda i: f"images/{i}.png",
        {
            "train.csv": ("image_id,label", lambda i: f"{i}.png"),
            "test.csv": ("image_id,label", lambda i: f"{i}.png"),
        },
        True,
    ),
    "lists of path and label": (
        lambda i: f"jpg/a b/{i}.png",
        {"train.txt": ("", lambda i: f"jpg/a b/{i}.png"), "test.txt": ("", lambda i: f"./jpg/a b/{i}.png")},
        True,
    ),
    "TSV": (lambda i: f"{i}.png", {"all.tsv": ("picture,kind", lambda i: f"C:\\photos\\{i}.png")}, False),
    "another ending": (lambda i: f"{i}.PNG", {"all.csv": ("picture,kind", lambda i: f"{i}.jpg")}, False),
}


@pytest.mark.parametrize("zipped", [False, True])
@pytest.mark.parametrize("case", LISTINGS)
def test_labels_in_a_table_are_those_of_the_images_that_it_names(
    case: str, zipped: bool, tmp_path: Path, digits: Part
) -> None:
    place, tables, parted = LISTINGS[case]
    names = {i: NAMES[digits[1][i]].replace(" ", "_" if "lists" in case else " ") for i in range(100)}
    files: dict[str, bytes] = {place(i): png(digits[0][i]) for i in range(100)}
    for name, (header, row) in tables.items():
        listed = (
            names
            if not parted or len(tables) == 1
            else {i: n for i, n in names.items() if (i < 80) != ("test" in name)}
        )
        if case == "Kaggle's ids":
            listed = {i: n for i, n in names.items() if i < 80}
        files[name] = listing(listed, name, header, row).encode()
    path = tmp_path / "set.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    if not zipped:
        path = tmp_path / "set"
        zipfile.ZipFile(tmp_path / "set.zip").extractall(path)
    dataset = read_dataset(path)
    count = 80 if case == "Kaggle's ids" else 100
    assert same(dataset, digits[0][:count] * 15, np.array([names[i] for i in range(count)]))
    assert (len(dataset.test), *dataset.train.labels.shape) == (
        20 if parted else round(count / 5),
        80 if count == 100 else 64,
    )
    assert ("20 images without a label in a table were left out" in dataset.notes) == (count == 80)
    if parted:
        assert {image.tobytes() for image in dataset.test._images.pixels} == {
            (image * 15).astype(np.uint8).tobytes() for image in digits[0][80:100]
        }


def listed_folder(path: Path, digits: Part, rows: list[str], header: str = "file_name,label") -> Path:
    for i in range(20):
        (path / f"{i}.png").write_bytes(png(digits[0][i]))
    (path / "labels.csv").write_text("\n".join([header, *rows]) + "\n")
    return path


def test_one_hot_columns_and_a_column_of_parts(tmp_path: Path, digits: Part) -> None:
    """ISIC's table, with a column that tells the parts."""
    rows = [f"{i},{1.0 * (i % 2)},{1.0 - i % 2},{'test' if i > 13 else 'train'}" for i in range(20)]
    dataset = read_dataset(listed_folder(tmp_path, digits, rows, "image,MEL,NV,split"))
    assert (dataset.class_names, len(dataset.train), len(dataset.test)) == (("mel", "nv"), 14, 6)
    assert dataset.train.counts(2) == [7, 7]


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (
            [f"{i + 11}.png,a" for i in range(20)],
            "file_name,label",
            "11 of 20 listed images are not there, such as 20.png",
        ),
        ([f"{i}.png,a" for i in range(20)] + ["3.png,b"], "file_name,label", "got a and b for 3.png"),
        (
            [f"{i}.png,{i % 2},{i % 3}" for i in range(20)],
            "file_name,kind,place",
            "got kind, place; say which is the label",
        ),
        ([f"{i}.png" for i in range(20)], "file_name", "a table of image files and their labels is expected"),
    ],
)
def test_faults_of_a_table_of_image_files(
    rows: list[str], header: str, words: str, tmp_path: Path, digits: Part
) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(listed_folder(tmp_path, digits, rows, header))
    assert words in str(caught.value)


def test_missing_and_unlabelled_images_are_counted(tmp_path: Path, digits: Part) -> None:
    rows = [f"{i}.png,{i % 2}" for i in range(4, 23)] + ["2.png,"]
    dataset = read_dataset(listed_folder(tmp_path, digits, rows))
    assert len(dataset.train) + len(dataset.test) == 16
    assert "3 of 19 listed images are not there, such as 20.png in labels.csv" in dataset.notes
    assert "4 images without a label in a table were left out" in dataset.notes
    assert read_images([tmp_path], image_shape=(8, 8, 1), pixel_range=255).pixels.shape[0] == 20
    with pytest.raises(DataError, match=r"got names of image files \(4\.png\); give the path of the folder"):
        read_dataset(tmp_path / "labels.csv")


def test_a_label_of_a_table_of_image_files_may_be_chosen(tmp_path: Path, digits: Part) -> None:
    rows = [f"{i}.png,{i % 2},{i % 3}" for i in range(20)]
    path = listed_folder(tmp_path, digits, rows, "file_name,kind,place")
    assert read_dataset(path, ReadOptions(label="place")).class_names == ("0", "1", "2")
    assert read_dataset(path, ReadOptions(label="1")).class_names == ("0", "1")


def test_tables_beside_class_folders_are_ignored(tmp_path: Path, digits: Part) -> None:
    for i in range(20):
        (tmp_path / f"{i % 2}").mkdir(exist_ok=True)
        (tmp_path / f"{i % 2}" / f"{i}.png").write_bytes(png(digits[0][i]))
    (tmp_path / "labels.csv").write_text("file,label\n" + "".join(f"{i % 2}/{i}.png,x{i % 5}\n" for i in range(20)))
    assert read_dataset(tmp_path).class_names == ("0", "1")


def test_numbers_of_classes_are_not_taken_for_names_of_images(tmp_path: Path, digits: Part) -> None:
    """Pictures called by numbers beside a table of pixels."""
    pixels, labels = digits
    for i in range(10):
        (tmp_path / f"{i}.png").write_bytes(png(pixels[i]))
    table(tmp_path, labels, pixels, header=",".join(["label", *(f"p{i}" for i in range(64))]), name="train.csv")
    assert same(read_dataset(tmp_path), pixels, labels)


# Labels that cannot all be right.


@pytest.mark.parametrize(
    ("known", "strange", "near"),
    [("0", "0.0", True), ("cat", "Cat", True), ("red cat", "red_cat", True), ("a", "A", False), ("cat", "cab", False)],
)
def test_labels_that_are_nearly_one_are_named(
    known: str, strange: str, near: bool, tmp_path: Path, digits: Part
) -> None:
    pixels = digits[0][:40] * 15
    labels = np.array([known, "other"] * 20)
    test = np.array([strange, "other"] * 20)
    np.savez(tmp_path / "set.npz", x_train=pixels, y_train=labels, x_test=pixels, y_test=test)
    with pytest.raises(DataError) as caught:
        read_dataset(tmp_path / "set.npz")
    assert (f"the training part has none (but {known!r}: is it the same?); use one" in str(caught.value)) == near
    np.savez(tmp_path / "set.npz", X=np.concatenate([pixels, pixels + 1]), y=np.concatenate([labels, test]))
    notes = " ".join(read_dataset(tmp_path / "set.npz").notes)
    assert ("nearly one are taken for different ones: " in notes) == near
    assert all(repr(name) in notes for name in (known, strange)) == near


def test_identical_images_of_different_classes_are_counted(tmp_path: Path, digits: Part) -> None:
    """Also where 64-bit sums would agree, the pixels decide; copies of one class contradict nothing."""
    pixels, labels = digits[0][:60] * 15, digits[1][:60].copy()
    pixels[50:55], labels[50:55] = pixels[:5], labels[:5]
    path = tmp_path / "set.npz"
    np.savez(path, X=pixels.reshape(-1, 8, 8), y=labels)
    assert "identical" not in " ".join(read_dataset(path).notes)
    labels[50:53] += 1
    np.savez(path, X=pixels.reshape(-1, 8, 8), y=labels)
    notes = [note for note in read_dataset(path).notes if "identical" in note]
    assert [note.partition(":")[0] for note in notes] == [
        f"6 images are identical in every pixel to one of another class, such as {path} [X][0] and {path} [X][50]"
    ]
    pixels[50, 63] ^= 1  # the last pixel of an image counts
    np.savez(path, X=pixels.reshape(-1, 8, 8), y=labels)
    assert "4 images are identical" in " ".join(read_dataset(path).notes)


def test_a_class_of_one_image_is_noted_and_training_says_the_ways_out(tmp_path: Path, digits: Part) -> None:
    pixels, labels = digits[0][:60] * 15, np.array(["odd", "evenly"] * 30)
    labels[7] = "lonely"
    np.savez(tmp_path / "set.npz", X=pixels.reshape(-1, 8, 8), y=labels)
    dataset = read_dataset(tmp_path / "set.npz")
    assert any(note.startswith("the class lonely has one training image only") for note in describe(dataset).notes)
    with pytest.raises(
        DataError, match=r"leave the class out, or share a validation part with --set holdout\.kind=shared"
    ):
        validation_positions(dataset.train.labels, Holdout(), 5, 0, dataset.class_names)
    held_out = validation_positions(dataset.train.labels, Holdout(kind="shared"), 5, 0, dataset.class_names)
    assert all(dataset.class_names[c] != "lonely" for part in held_out for c in dataset.train.labels[part])


# Reading quickly.


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize("block", [64, 1000, 2**17])
@pytest.mark.parametrize(
    ("highest", "line_end", "dtype"),
    [
        (255, "\n", np.uint8),
        (256, "\n", np.int32),
        (99, "\r\n", np.uint8),
        (65535, "\r\n", np.int32),
        (9, "\n", np.uint8),
    ],
)
def test_digits_are_read_exactly_wherever_a_block_ends(
    highest: int, line_end: str, dtype: Any, block: int, wide: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(csv_numbers, "_BLOCK", block)
    pixels = np.random.Generator(np.random.PCG64(highest)).integers(0, highest, (300, 16), endpoint=True)
    pixels[7, 3] = highest
    size = 999 if wide else 1  # labels and numbers of rows may be larger than pixels
    labels = np.arange(300) * 7 % 12 * size
    lines = ["id,label," + ",".join(f"p{i}" for i in range(16))]
    lines += [
        ",".join(map(str, [i % 100 * size, label, *row]))
        for i, (label, row) in enumerate(zip(labels, pixels, strict=True))
    ]
    (tmp_path / "set.csv").write_text(line_end.join(lines) + line_end * 3, newline="")
    with open_files(tmp_path) as files:
        table = read_csv(files, "set.csv")
    assert table.values.dtype == dtype
    assert np.array_equal(table.values, pixels)
    assert table.labels is not None
    assert np.array_equal(table.labels, labels)


@pytest.mark.parametrize("cell", ["", "-1", "1 ", "1.5", "x", "1,1", "1\n1"])
def test_what_is_no_digit_is_left_to_the_slow_reader(cell: str, tmp_path: Path) -> None:
    """Never a wrong number: the cell is read, or its row is named."""
    rows = [["0" if i % 2 else "1", *"123456789"] for i in range(40)]
    rows[30][5] = cell
    (tmp_path / "set.csv").write_text("label," + ",".join("abcdefghi") + "\n" + "\n".join(map(",".join, rows)))
    with open_files(tmp_path) as files:
        if cell in ("-1", "1 ", "1.5"):
            assert read_csv(files, "set.csv").values[30, 4] == float(cell)
        else:
            with pytest.raises(DataError, match="row 32"):
                read_csv(files, "set.csv")


# All pixels in one cell.


def fer(path: Path, digits: Part, columns: str, name: str = "fer.csv", change: tuple[str, str] = ("?", "")) -> Path:
    """The first 100 digits as FER2013 is written."""
    usages = ["Training"] * 60 + ["PublicTest"] * 20 + ["PrivateTest"] * 20
    cells = [
        {"emotion": str(label), "pixels": " ".join(map(str, image)), "usage": usage}
        for image, label, usage in zip(digits[0], digits[1], usages, strict=False)
    ]
    lines = [",".join(row[column.strip().lower()] for column in columns.split(",")) for row in cells]
    (path / name).write_text("\n".join([columns, *(line.replace(*change) for line in lines)]))
    return path / name


@pytest.mark.parametrize("columns", ["emotion,pixels,Usage", "emotion, Usage, pixels"])
def test_fer2013_has_its_parts(columns: str, tmp_path: Path, digits: Part) -> None:
    path = fer(tmp_path, digits, columns)
    dataset = read_dataset(path)
    assert same(dataset, digits[0][:100], digits[1][:100])
    assert [image.tobytes() for image in dataset.test._images.pixels] == [
        image.astype(np.uint8).tobytes() for image in digits[0][80:100]
    ]
    assert any(note.startswith("the validation part (20 images) was joined") for note in dataset.notes)
    read = read_images([path], image_shape=(8, 8, 1), pixel_range=255).pixels
    assert np.array_equal(read.reshape(100, 64), digits[0][:100])


def test_kaggles_fer_test_file_without_labels_is_left_out(tmp_path: Path, digits: Part) -> None:
    fer(tmp_path, digits, "emotion,pixels", "train.csv")
    fer(tmp_path, digits, "pixels", "test.csv")
    dataset = read_dataset(tmp_path)
    assert same(dataset, digits[0][:100], digits[1][:100])
    assert "test.csv has no labels, so it was left out" in dataset.notes


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (("PublicTest", "Elsewhere"), "row 62 must have a usage (Training, PublicTest, PrivateTest), got"),
        (("0 0 0,PrivateTest", "0 0,PrivateTest"), "must have 64 whole numbers in its column pixels"),
        (("0 0 0,PrivateTest", "0 0 x,PrivateTest"), "must have 64 whole numbers in its column pixels"),
    ],
)
def test_faults_in_pixel_strings_name_the_row(
    change: tuple[str, str], words: str, tmp_path: Path, digits: Part
) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(fer(tmp_path, digits, "emotion,pixels,Usage", change=change))
    assert words in str(caught.value)


@pytest.mark.parametrize("place", ["first", "last"])
def test_a_pixel_is_known_by_its_neighbour(place: str, tmp_path: Path, digits: Part) -> None:
    """Cut so close that both ends have ink, with classes that are not counted from 0."""
    pixels, labels = digits[0].reshape(-1, 8, 8)[:, 0:6, 1:5].reshape(-1, 24), digits[1] * 5 + 3
    columns = (labels, pixels) if place == "first" else (pixels, labels)
    dataset = read_dataset(table(tmp_path, *columns), ReadOptions(shape=(6, 4, 1)))
    assert same(dataset, pixels, labels)


def test_kaggles_emnist_is_put_upright(tmp_path: Path) -> None:
    images = np.zeros((52, 28, 28), np.uint8)
    images[:, 4:24, 10] = 200  # upright strokes
    images[:, 4, :10] = np.arange(52)[:, None]
    rows = np.hstack([np.tile(np.arange(1, 27), 2)[:, None], images.swapaxes(1, 2).reshape(52, -1)])
    for part in ("train", "test"):
        np.savetxt(tmp_path / f"emnist-letters-{part}.csv", rows, fmt="%d", delimiter=",")
    dataset = read_dataset(tmp_path)
    assert dataset.class_names == tuple("ABCDEFGHIJKLMNOPQRSTUVWXYZ")
    assert np.array_equal(dataset.train.pixels[..., 0], images)
    assert any("emnist-letters" in note and "put upright" in note for note in dataset.notes)
    (tmp_path / "emnist-letters-train.csv").rename(tmp_path / "letters-train.csv")
    (tmp_path / "emnist-letters-test.csv").unlink()
    assert read_dataset(tmp_path).train.pixels[0, 10, 4:24, 0].all()  # not called so: as it lies
