"""The same images are the same data set in every format; a fault gets one sentence that names its place."""

from __future__ import annotations

import gzip
import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray
from PIL import Image

from committee.data import dataset as data
from committee.data.dataset import open_test
from committee.data.formats import mapped
from committee.data.formats.kinds import IMAGES
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.summary import ClassCount, DatasetSummary, describe, sample_pictures
from committee.data.to_classify import read_images
from committee.errors import DataError

Part = tuple[NDArray[Any], NDArray[Any]]
NAMES = tuple("0123456789")


@pytest.fixture(scope="module")
def digits() -> tuple[Part, Part]:
    """Real handwritten digits, 8x8: 300 to train and 100 to test."""
    from sklearn.datasets import load_digits

    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(values * (255 / 16)).astype(np.uint8).reshape(-1, 8, 8)
    return (pixels[:300], labels[:300]), (pixels[300:400], labels[300:400])


# Writers: each writes both parts (or only the training part) and returns the path to read.


def idx_bytes(array: NDArray[Any]) -> bytes:
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.astype(np.uint8).tobytes()


def write_idx(folder: Path, train: Part, test: Part | None) -> Path:
    for name, part in (("train", train), ("t10k", test)):
        if part is not None:
            (folder / f"{name}-images-idx3-ubyte.gz").write_bytes(gzip.compress(idx_bytes(part[0])))
            (folder / f"{name}-labels.idx1-ubyte").write_bytes(idx_bytes(part[1]))
    return folder


def write_npz(folder: Path, train: Part, test: Part | None) -> Path:
    arrays = {"x_train": train[0], "y_train": train[1]}
    if test is not None:
        arrays |= {"x_test": test[0], "y_test": test[1]}
    np.savez_compressed(folder / "set.npz", **arrays)
    return folder / "set.npz"


def write_medmnist(folder: Path, train: Part, test: Part | None) -> Path:
    arrays = {"train_images": train[0][:200], "train_labels": train[1][:200, None]}
    arrays |= {"val_images": train[0][200:], "val_labels": train[1][200:, None]}
    if test is not None:
        arrays |= {"test_images": test[0], "test_labels": test[1][:, None]}
    np.savez(folder / "set.npz", **arrays)
    return folder / "set.npz"


def csv_text(part: Part, header: bool = True) -> str:
    lines = [",".join(map(str, [label, *image.ravel()])) for image, label in zip(*part, strict=True)]
    pixels = part[0][0].size
    return "\n".join([*(["label," + ",".join(f"pixel{i}" for i in range(pixels))] if header else []), *lines]) + "\n"


def write_csv(folder: Path, train: Part, test: Part | None) -> Path:
    (folder / "train.csv").write_text(csv_text(train))
    if test is not None:
        (folder / "test.csv").write_text(csv_text(test))
    return folder


def png(image: NDArray[Any]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return buffer.getvalue()


def write_parquet(folder: Path, train: Part, test: Part | None) -> Path:
    (folder / "data").mkdir()
    for name, part in (("train", train), ("test", test)):
        if part is None:
            continue
        images = [{"bytes": png(image), "path": None} for image in part[0]]
        features = {"image": {"_type": "Image"}, "label": {"names": list(NAMES), "_type": "ClassLabel"}}
        struct_type = pa.struct({"bytes": pa.binary(), "path": pa.string()})
        table = pa.table({"image": pa.array(images, struct_type), "label": pa.array(part[1])})
        table = table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})
        half = len(images) // 2
        for shard, rows in enumerate((table[:half], table[half:])):
            pq.write_table(rows, folder / "data" / f"{name}-{shard:05}-of-00002.parquet")
    return folder


def image_files(train: Part, test: Part | None) -> dict[str, bytes]:
    parts = {"": train} if test is None else {"train/": train, "test/": test}
    return {
        f"{prefix}{label}/{i}.png": png(image)
        for prefix, part in parts.items()
        for i, (image, label) in enumerate(zip(*part, strict=True))
    }


def write_folders(folder: Path, train: Part, test: Part | None) -> Path:
    for name, content in image_files(train, test).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    return folder


def write_zip(folder: Path, train: Part, test: Part | None) -> Path:
    with zipfile.ZipFile(folder / "set.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in image_files(train, test).items():
            archive.writestr(f"my digits/{name}", content)
        archive.writestr("__MACOSX/my digits/._0.png", b"clutter")
    return folder / "set.zip"


def write_zip_of_idx(folder: Path, train: Part, test: Part | None) -> Path:
    (folder / "inner").mkdir()
    write_idx(folder / "inner", train, test)
    with zipfile.ZipFile(folder / "set.zip", "w") as archive:
        for file in (folder / "inner").iterdir():
            archive.write(file, file.name)
    return folder / "set.zip"


WRITERS = [
    write_idx,
    write_npz,
    write_medmnist,
    write_csv,
    write_parquet,
    write_folders,
    write_zip,
    write_zip_of_idx,
]


@pytest.mark.parametrize("write", WRITERS)
def test_every_format_gives_the_same_data_set(
    write: Callable[..., Path], tmp_path: Path, digits: tuple[Part, Part]
) -> None:
    reference_folder, folder = tmp_path / "reference", tmp_path / "digits"
    reference_folder.mkdir()
    folder.mkdir()
    reference = read_dataset(write_npz(reference_folder, *digits))
    dataset = read_dataset(write(folder, *digits))
    assert dataset.class_names == NAMES
    assert dataset.image_shape == (8, 8, 1)
    assert dataset.pixel_range == 255
    assert (len(dataset.train), len(dataset.test)) == (300, 100)
    assert dataset.digest() == reference.digest()
    assert dataset.part_digests() == reference.part_digests()
    tested = open_test(dataset, tmp_path / "record.jsonl", "test")
    assert tested.counts(10) == np.bincount(digits[1][1], minlength=10).tolist()


@pytest.mark.parametrize("write", [write_idx, write_npz, write_csv, write_parquet, write_folders, write_zip])
def test_without_a_test_part_a_fixed_stratified_fifth_is_sealed(
    write: Callable[..., Path], tmp_path: Path, digits: tuple[Part, Part]
) -> None:
    path = write(tmp_path, digits[0], None)
    dataset, again = read_dataset(path), read_dataset(path)
    assert len(dataset.test) == 60
    counts = zip(dataset.test.counts(10), np.bincount(digits[0][1]), strict=True)
    assert all(abs(tested - count / 5) < 1 for tested, count in counts)
    assert "stratified fifth" in " ".join(dataset.notes)
    assert dataset.part_digests() == again.part_digests()


def test_an_image_can_be_found_again_by_its_name(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    folder = read_dataset(write_folders(tmp_path / "photos", digits[0], None))
    table = read_dataset(write_npz(tmp_path, digits[0], None))
    for image in (0, 100, 239):
        assert folder.train.names
        assert table.train.names
        file = tmp_path / "photos" / folder.train.names[image]
        assert np.array_equal(np.asarray(Image.open(file)), folder.train.pixels[image, ..., 0])
        position = int(table.train.names[image].rpartition("[")[2].removesuffix("]"))
        assert np.array_equal(digits[0][0][position], table.train.pixels[image, ..., 0])


@pytest.mark.parametrize("form", ["idx", "npy"])
def test_large_uncompressed_arrays_are_memory_mapped(
    form: str, tmp_path: Path, digits: tuple[Part, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    reference = read_dataset(write_npz(within(tmp_path, "npz"), digits[0], None))
    folder = within(tmp_path, form)
    if form == "idx":
        idx_pair(folder, idx_bytes(digits[0][0]), idx_bytes(digits[0][1]))
    else:
        np.save(folder / "X.npy", digits[0][0])
        np.save(folder / "y.npy", digits[0][1])
    monkeypatch.setattr(mapped, "MAPPED_BYTES", 1000)
    dataset = read_dataset(folder)
    assert mapped.is_mapped(dataset.train.pixels)
    assert dataset.part_digests() == reference.part_digests()
    if form == "idx":
        (folder / "train-images-idx3-ubyte").write_bytes(idx_bytes(digits[0][0]) + b"x")
        with pytest.raises(DataError, match="the file is longer than its header says"):
            read_dataset(folder)


def test_the_digest_sees_a_changed_pixel_and_a_changed_name(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    (pixels, labels), test = digits
    digests = set()
    for change in ("nothing", "pixel", "label", "order"):
        images, classes = pixels.copy(), labels.copy()
        if change == "pixel":
            images[7, 3, 3] ^= 1
        elif change == "label":
            classes[7] = (classes[7] + 1) % 10
        elif change == "order":
            images, classes = images[::-1], classes[::-1]
        digests.add(read_dataset(write_npz(tmp_path, (images, classes), test)).digest())
    assert len(digests) == 3


def test_kaggle_test_csv_without_labels_is_left_out(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    write_csv(tmp_path, *digits)
    rows = [line.partition(",")[2] for line in (tmp_path / "test.csv").read_text().splitlines()]
    (tmp_path / "test.csv").write_text("\n".join(rows))
    (tmp_path / "sample_submission.csv").write_text("ImageId,Label\n1,0\n")
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (240, 60)
    assert "test.csv has no labels, so it was left out" in " ".join(dataset.notes)


def test_names_as_labels_and_a_label_column_anywhere(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    names = np.array([f"digit {label}" for label in digits[0][1]])
    lines = [
        ",".join([*map(str, image.ravel() / 255), f'"{name}"']) for image, name in zip(digits[0][0], names, strict=True)
    ]
    (tmp_path / "set.csv").write_text(",".join(f"p{i}" for i in range(64)) + ",Class\n" + "\n".join(lines))
    by_csv = read_dataset(tmp_path / "set.csv")
    np.savez(tmp_path / "set.npz", X=digits[0][0].reshape(-1, 64), y=names)
    assert by_csv.class_names == tuple(f"digit {label}" for label in range(10))
    assert by_csv.digest() == read_dataset(tmp_path / "set.npz").digest()


def test_integer_classes_sort_by_number_and_given_names_are_kept(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    (pixels, labels), _ = digits
    np.savez(tmp_path / "a.npz", images=pixels, labels=labels * 5)
    assert read_dataset(tmp_path / "a.npz").class_names[:4] == ("0", "5", "10", "15")
    for name in ("10", "9"):
        (tmp_path / "folders" / name).mkdir(parents=True)
        for i in range(4):
            (tmp_path / "folders" / name / f"{i}.png").write_bytes(png(pixels[i]))
    assert read_dataset(tmp_path / "folders").class_names == ("9", "10")
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"])
    np.savez(tmp_path / "b.npz", images=pixels / 255, labels=np.eye(10)[labels], class_names=names)
    named = read_dataset(tmp_path / "b.npz")
    assert named.class_names == tuple(names)
    assert named.train.pixels.max() == 255


# Image files: what people's pictures are like.


def wide_png(pixels: NDArray[Any], claimed: tuple[int, int] | None = None) -> bytes:
    """A 16-bit colour PNG, which Pillow cannot write; its header may claim another height and width."""
    channels = pixels.shape[2]
    height, width = claimed or pixels.shape[:2]
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in pixels)
    head = struct.pack(">IIBBBBB", width, height, 16, {3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = ((b"IHDR", head), (b"IDAT", zlib.compress(rows)), (b"IEND", b""))
    packed = (struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def folder_of(path: Path, *pictures: bytes | Image.Image, suffix: str = ".png", **options: Any) -> Path:
    """Two classes with four copies of each picture."""
    for name in ("cat", "dog"):
        (path / name).mkdir(parents=True, exist_ok=True)
        for i, picture in enumerate(pictures * 4):
            file = path / name / f"{i}{suffix}"
            if isinstance(picture, bytes):
                file.write_bytes(picture)
            else:
                picture.save(file, **options)
    return path


def ramp(*shape: int, bits: int = 8) -> NDArray[Any]:
    values = np.linspace(0, 2**bits - 1, int(np.prod(shape))).reshape(shape)
    return values.astype(np.uint8 if bits == 8 else np.uint16)


GREY_PALETTE = Image.fromarray(ramp(6, 5)).convert("P")
COLOUR = Image.fromarray(ramp(6, 5, 3))


@pytest.mark.parametrize(
    ("picture", "suffix", "shape", "bits"),
    [
        (Image.fromarray(ramp(6, 5)), ".bmp", (6, 5, 1), 8),
        (Image.fromarray(ramp(6, 5) > 99), ".png", (6, 5, 1), 8),
        (Image.fromarray(ramp(6, 5, bits=16)), ".png", (6, 5, 1), 16),
        (Image.fromarray(ramp(6, 5, bits=16)), ".tiff", (6, 5, 1), 16),
        (Image.fromarray(ramp(6, 5, 2)), ".png", (6, 5, 2), 8),
        (COLOUR, ".tif", (6, 5, 3), 8),
        (COLOUR, ".webp", (6, 5, 3), 8),
        (Image.fromarray(ramp(6, 5, 4)), ".png", (6, 5, 4), 8),
        (wide_png(ramp(6, 5, 3, bits=16)), ".png", (6, 5, 3), 16),
        (wide_png(ramp(6, 5, 4, bits=16)), ".png", (6, 5, 4), 16),
        (GREY_PALETTE, ".png", (6, 5, 1), 8),
        (COLOUR.convert("P"), ".png", (6, 5, 3), 8),
    ],
    ids=lambda value: getattr(value, "mode", value),
)
def test_image_files_keep_their_channels_depth_and_pixels(
    picture: bytes | Image.Image, suffix: str, shape: tuple[int, int, int], bits: int, tmp_path: Path
) -> None:
    dataset = read_dataset(folder_of(tmp_path, picture, suffix=suffix, **({"lossless": True} if "w" in suffix else {})))
    assert dataset.image_shape == shape
    assert dataset.pixel_range == 2**bits - 1
    expected = ramp(*shape[: 3 if shape[2] > 1 else 2], bits=bits).reshape(shape)
    if isinstance(picture, Image.Image) and picture.mode == "1":
        expected = np.where(expected > 99, 255, 0)
    elif isinstance(picture, Image.Image) and picture.mode == "P" and shape[2] == 3:
        expected = np.asarray(picture.convert("RGB"))
    assert np.array_equal(dataset.train.pixels[0], expected)


def test_palette_with_transparency_becomes_rgb_with_alpha(tmp_path: Path) -> None:
    folder_of(tmp_path, COLOUR.convert("P"), transparency=0)
    assert read_dataset(tmp_path).image_shape == (6, 5, 4)


UPRIGHT: list[Callable[[NDArray[Any]], NDArray[Any]]] = [
    lambda a: a,
    np.fliplr,
    lambda a: np.rot90(a, 2),
    np.flipud,
    np.transpose,
    lambda a: np.rot90(a, -1),
    lambda a: np.rot90(a, 2).T,
    np.rot90,
]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tiff"])
def test_exif_rotation_is_applied(orientation: int, suffix: str, tmp_path: Path) -> None:
    picture = Image.fromarray(ramp(6, 5))
    exif = picture.getexif()
    exif[0x0112] = orientation
    folder_of(tmp_path, picture, suffix=suffix, exif=exif)
    upright = UPRIGHT[orientation - 1](ramp(6, 5))
    assert np.array_equal(read_dataset(tmp_path).train.pixels[0, ..., 0], upright)


def test_differing_sizes_become_the_most_common_one(tmp_path: Path) -> None:
    small, large = (Image.fromarray(ramp(*size)) for size in ((10, 8), (40, 30)))
    dataset = read_dataset(folder_of(tmp_path, small, small, large))
    assert dataset.image_shape == (10, 8, 1)
    assert "2 different sizes to 10x8" in " ".join(dataset.notes)
    assert read_dataset(tmp_path, ReadOptions(image_size=12)).image_shape == (12, 12, 1)


def test_large_images_shrink_to_96_in_every_format(tmp_path: Path) -> None:
    picture = Image.fromarray(ramp(300, 150))
    by_folder = read_dataset(folder_of(tmp_path / "images", picture))
    assert by_folder.image_shape == (96, 48, 1)
    np.savez(tmp_path / "set.npz", X=np.stack([np.asarray(picture)] * 8), y=["cat"] * 4 + ["dog"] * 4)
    assert read_dataset(tmp_path / "set.npz").digest() == by_folder.digest()


def test_eight_bits_among_sixteen_are_stretched(tmp_path: Path) -> None:
    folder_of(tmp_path, Image.fromarray(ramp(6, 5, bits=16)), Image.fromarray(ramp(6, 5)))
    pixels = read_dataset(tmp_path).train.pixels
    assert pixels.dtype == np.uint16
    assert set(pixels.reshape(len(pixels), -1).max(axis=1).tolist()) == {65535}


# Faults: one sentence each.


def digit_images(count: int = 20) -> Part:
    return np.arange(count * 16, dtype=np.uint8).reshape(count, 4, 4), np.arange(count) % 2


def npz(path: Path, **arrays: Any) -> Path:
    np.savez(path / "set.npz", **arrays)
    return path / "set.npz"


def text(path: Path, content: str, name: str = "set.csv") -> Path:
    (path / name).write_text(content)
    return path / name


def binary(path: Path, content: bytes, name: str) -> Path:
    (path / name).write_bytes(content)
    return path / name


def within(path: Path, folder: str) -> Path:
    (path / folder).mkdir()
    return path / folder


def idx_pair(path: Path, images: bytes, labels: bytes) -> Path:
    binary(path, images, "train-images-idx3-ubyte")
    binary(path, labels, "train-labels-idx1-ubyte")
    return path


def huge_npy(path: Path) -> Path:
    header = str({"descr": "<f8", "fortran_order": False, "shape": (2**32,)}).encode().ljust(117) + b"\n"
    content = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header
    with zipfile.ZipFile(path / "set.npz", "w") as archive:
        archive.writestr("X.npy", content)
        archive.writestr("y.npy", content)
    return path / "set.npz"


def corrupt_zip(path: Path) -> Path:
    write_zip(path, digit_images(), None)
    content = bytearray((path / "set.zip").read_bytes())
    content[60:90] = bytes(30)
    return binary(path, bytes(content), "bad.zip")


def parquet(path: Path, **columns: Any) -> Path:
    pq.write_table(pa.table(columns), path / "set.parquet")
    return path / "set.parquet"


X, Y = digit_images()
WITH_NAN = np.where(np.arange(20)[:, None, None] == 3, np.nan, X / 255)
ROWS = "label,a,b,c,d\n0,1,2,3,4\n1,5,6,7,8\n"
PNGS = [png(image) for image in X]
STRANGER = np.where(np.arange(20) == 9, 7, Y)

BAD: dict[str, tuple[Callable[[Path], Path], str]] = {
    "no such path": (lambda p: p / "none", "none: there is no such file or folder; check the path"),
    "empty folder": (lambda p: p, "labelled images are expected, got no files; give IDX files"),
    "unknown format": (
        lambda p: text(p, "x", "a.txt").parent,
        "labelled images are expected, got only files such as",
    ),
    "empty arrays": (lambda p: npz(p, X=X[:0], y=Y[:0]), "set.npz [X]: there are no images"),
    "single class": (
        lambda p: npz(p, X=X, y=Y * 0 + 3),
        "at least two classes are expected, got one (3); add images of another class",
    ),
    "single class folder": (
        lambda p: binary(within(p, "a"), PNGS[0], "0.png").parent.parent,
        "at least two classes are expected, got one (a); give each class a folder of its own",
    ),
    "one image a class": (
        lambda p: npz(p, X=X[:5], y=np.arange(5)),
        "5 images of 5 classes are too few to split off a test part; "
        "give at least two images of each class (10 images), or a test part",
    ),
    "label out of range": (
        lambda p: npz(p, X=X, y=STRANGER, class_names=["cat", "dog"]),
        "labels must be from 0 to 1 (2 classes), got 7 for image 9 (counted from 0)",
    ),
    "NaN": (lambda p: npz(p, X=WITH_NAN, y=Y), "set.npz [X]: image 3 (counted from 0) holds NaN"),
    "infinite": (
        lambda p: npz(p, X=np.where(X == 0, np.inf, X), y=Y),
        "set.npz [X]: image 0 (counted from 0) holds an infinite value",
    ),
    "parts in two ranges": (
        lambda p: npz(p, x_train=X / 255, y_train=Y, x_test=X * 1.0, y_test=Y),
        "[x_test]: values from 0 to 1 are expected, like the training images (of",
    ),
    "fractions to test": (
        lambda p: npz(p, x_train=X, y_train=Y, x_test=X / 255, y_test=Y),
        "[x_test]: whole numbers like the training images' (0 to 255) are expected, got values from 0 to 1",
    ),
    "missing key": (lambda p: npz(p, x_train=X), "the array 'x_train' needs an array 'y_train', got x_train; add it"),
    "no arrays": (lambda p: npz(p, pictures=X), "x_train and y_train"),
    "numbers differ": (lambda p: npz(p, X=X, y=Y[:-1]), "there are 20 images, but 19 labels"),
    "pickle": (lambda p: npz(p, X=X, y=np.array([{}] * 20)), "got the type object; save it without pickle"),
    "not square": (
        lambda p: npz(p, X=np.ones((40, 7)), y=np.tile(Y, 2)),
        "7 values in a row do not make a square image",
    ),
    "huge header": (huge_npy, "X.npy: at most 8,589,934,592 bytes are read, and the header announces 34,359,738,368"),
    "test class unknown": (
        lambda p: npz(p, x_train=X, y_train=Y, x_test=X, y_test=STRANGER),
        "the test part has 1 image of the class '7', the training part has none",
    ),
    "mixed parts": (
        lambda p: npz(p, x_train=X, y_train=Y, x_test=np.stack([X] * 3, 3), y_test=Y),
        "mixed channels: the training images have 1, the test images",
    ),
    "truncated IDX": (
        lambda p: idx_pair(p, idx_bytes(X)[:-20], idx_bytes(Y)),
        "train-images-idx3-ubyte: the file is cut off: 320 bytes of data are expected, got 300",
    ),
    "truncated gz": (
        lambda p: (
            (
                binary(idx_pair(p, b"", idx_bytes(Y)), gzip.compress(idx_bytes(X))[:-30], "train-images-idx3-ubyte.gz")
                and (p / "train-images-idx3-ubyte").unlink()
            )
            or p
        ),
        "train-images-idx3-ubyte.gz: the file is cut off: 320 bytes of data are expected",
    ),
    "no IDX": (
        lambda p: idx_pair(p, b"<html>", idx_bytes(Y)),
        "an IDX file begins with bytes such as 00 00 08 03, this one with 3c",
    ),
    "long IDX": (
        lambda p: idx_pair(p, idx_bytes(X) + b"x", idx_bytes(Y)),
        "the file is longer than its header says (shape (20, 4, 4))",
    ),
    "IDX numbers differ": (lambda p: idx_pair(p, idx_bytes(X), idx_bytes(Y[:7])), "there are 20 images, but 7 labels"),
    "IDX labels missing": (
        lambda p: binary(p, idx_bytes(X), "train-images-idx3-ubyte").parent,
        "the file of its labels is missing; put both into one folder",
    ),
    "corrupt zip": (corrupt_zip, "bad.zip: my digits/0/0.png: the file cannot be read (Bad CRC-32"),
    "no zip": (lambda p: text(p, "no zip", "a.zip"), "a.zip: a zip is expected, got something else"),
    "CSV columns": (lambda p: text(p, ROWS + "1,2,3,4\n"), "set.csv: row 4 has 4 columns, but the first row has 5"),
    "CSV word": (lambda p: text(p, ROWS + "1,2,x,4,5\n"), "set.csv: row 4, column 3 must hold a number, got 'x'"),
    "CSV NaN": (
        lambda p: text(p, ROWS + "1,2,3,nan,5\n"),
        "row 4, column 4 must hold a finite number, got 'nan'",
    ),
    "CSV of numbers of rows": (
        lambda p: text(p, "index\n0\n1\n"),
        "set.csv: a column for the label and one for each pixel are expected, got 1 of row numbers or groups",
    ),
    "CSV no label": (lambda p: text(p, ROWS + ",2,3,4,5\n"), "set.csv: row 4 has no label"),
    "CSV width": (
        lambda p: text(p, "label,a,b\n1,2,3\n"),
        "set.csv: 2 values in a row do not make a square image of 1 or 3 channels",
    ),
    "CSV header only": (
        lambda p: text(p, "label,a,b,c,d\n"),
        "a row for each image is expected below the header",
    ),
    "CSV unlabelled": (
        lambda p: text(p, ",".join("abcdefghi") + "\n1,2,3,4,5,6,7,8,9\n"),
        "got 9 pixels and nothing else",
    ),
    "Parquet unlabelled": (
        lambda p: parquet(p, image=PNGS),
        "set.parquet: a column of labels called label, ",
    ),
    "Parquet no image": (
        lambda p: parquet(p, label=Y),
        "a column of encoded images (bytes, or",
    ),
    "Parquet hole": (
        lambda p: parquet(p, image=[*PNGS[:5], None], label=Y[:6]),
        "got nothing in row 6, column 'image'",
    ),
    "Parquet bad image": (
        lambda p: parquet(p, image=[*PNGS[:5], b"x"], label=Y[:6]),
        f"set.parquet row 6: a {IMAGES} image is expected",
    ),
    "no Parquet": (lambda p: text(p, "x", "a.parquet"), "a.parquet: a Parquet file is expected, got something else"),
    "unreadable image": (
        lambda p: folder_of(p, PNGS[0], b"x"),
        "got 8 of 16 that are not: cat/1.png, cat/3.png, cat/5.png, cat/7.png, dog/1.png, dog/3.png, dog/5.png, "
        "dog/7.png (a file of another kind)",
    ),
    "cut-off image": (
        lambda p: folder_of(p, PNGS[0], PNGS[1][:-20]),
        "cat/5.png, cat/7.png, dog/1.png, dog/3.png, dog/5.png, dog/7.png (the image is damaged or",
    ),
    "mixed channels": (lambda p: folder_of(p, PNGS[0], COLOUR), "cat/0.png is grey, "),
    "loose image": (
        lambda p: binary(folder_of(p, PNGS[0]), PNGS[0], "loose.png").parent,
        "loose.png: images are expected in a folder for each class, got one outside",
    ),
    "bomb": (
        lambda p: folder_of(p, wide_png(ramp(1, 1, 3), claimed=(9000, 9000))),
        "dog/3.png (an image of at most 64,000,000 pixels is expected, got 9000x9000",
    ),
    "great bomb": (
        lambda p: folder_of(p, wide_png(ramp(1, 1, 3), claimed=(60000, 60000))),
        "dog/3.png (an image of at most 64,000,000 pixels is expected, got a larger one",
    ),
}


@pytest.mark.parametrize(("make", "message"), BAD.values(), ids=BAD.keys())
def test_bad_input_is_named_in_one_sentence(make: Callable[[Path], Path], message: str, tmp_path: Path) -> None:
    path = make(tmp_path)
    with pytest.raises(DataError) as caught:
        read_dataset(path)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


# Images to classify.


def test_read_images_takes_what_people_have(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    (pixels, labels), _ = digits
    pixels, labels = pixels[:4], labels[:4]
    (tmp_path / "folder" / "sub").mkdir(parents=True)
    for i, image in enumerate(pixels):
        (tmp_path / "folder" / "sub" / f"{i}.png").write_bytes(png(image))
    np.save(tmp_path / "a.npy", pixels)
    np.savez(tmp_path / "b.npz", x_test=pixels / 255, y_test=labels)
    (tmp_path / "c.csv").write_text(csv_text((pixels, labels)))
    (tmp_path / "d.csv").write_text("\n".join(",".join(map(str, image.ravel())) for image in pixels))
    pq.write_table(pa.table({"image": [png(image) for image in pixels]}), tmp_path / "e.parquet")
    (tmp_path / "t10k-images-idx3-ubyte").write_bytes(idx_bytes(pixels))
    inputs = ["folder", "a.npy", "b.npz", "c.csv", "d.csv", "e.parquet", "t10k-images-idx3-ubyte", "folder/sub/3.png"]
    images = read_images([tmp_path / name for name in inputs], image_shape=(8, 8, 1), pixel_range=255)
    names, read = images.names, images.pixels
    assert np.array_equal(read[..., 0], np.concatenate([*[pixels] * 7, pixels[3:]]))
    assert (names[0], names[5], names[8], names[-1]) == ("sub/0.png", "a.npy[1]", "b.npz[0]", "3.png")


def test_read_images_converts_to_the_form_of_the_training(tmp_path: Path) -> None:
    Image.fromarray(np.full((20, 10, 4), (200, 100, 50, 255), np.uint8)).save(tmp_path / "a.png")
    Image.fromarray(np.full((4, 4), 7, np.uint8)).save(tmp_path / "b.png")
    paths = [tmp_path / "a.png", tmp_path / "b.png"]
    grey = read_images(paths, image_shape=(6, 6, 1), pixel_range=255).pixels
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    assert (grey.shape, grey.dtype, set(grey[0].ravel()), set(grey[1].ravel())) == ((2, 6, 6, 1), np.uint8, {luma}, {7})
    colour = read_images(paths, image_shape=(6, 6, 3), pixel_range=65535).pixels
    assert (colour[0, 0, 0] == np.array([200, 100, 50]) * 257).all()
    opaque = read_images(paths[1:], image_shape=(6, 6, 4), pixel_range=255).pixels
    assert opaque[0, 0, 0].tolist() == [7, 7, 7, 255]
    with pytest.raises(DataError, match="images to classify are expected"):
        read_images([text(tmp_path, "x", "notes.txt")], image_shape=(6, 6, 1), pixel_range=255)


def test_read_images_refuses_transparency_where_the_training_had_none(tmp_path: Path) -> None:
    """A shape that is drawn in the alpha channel alone would become an even square, and be classified as such."""
    pixels = np.zeros((6, 6, 4), np.uint8)
    pixels[2:4, 2:4, 3] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    with pytest.raises(DataError, match=r"a\.png: parts of the image are transparent"):
        read_images([tmp_path / "a.png"], image_shape=(6, 6, 1), pixel_range=255)
    kept = read_images([tmp_path / "a.png"], image_shape=(6, 6, 4), pixel_range=255).pixels
    assert np.array_equal(kept[0], pixels)


def test_read_images_reads_arrays_of_one_name_in_several_folders(tmp_path: Path) -> None:
    for folder in ("a", "b"):
        np.save(within(tmp_path, folder) / "x.npy", np.full((2, 6, 6), ord(folder), np.uint8))
    images = read_images([tmp_path], image_shape=(6, 6, 1), pixel_range=255)
    names, read = images.names, images.pixels
    assert names == ["a/x.npy[0]", "a/x.npy[1]", "b/x.npy[0]", "b/x.npy[1]"]
    assert read[:, 0, 0, 0].tolist() == [97, 97, 98, 98]


def test_read_images_prefers_image_files_and_passes_over_labels(tmp_path: Path) -> None:
    idx_pair(tmp_path, idx_bytes(X), idx_bytes(Y))
    assert len(read_images([tmp_path], image_shape=(4, 4, 1), pixel_range=255).names) == 20
    binary(tmp_path, PNGS[0], "0.png")
    assert read_images([tmp_path], image_shape=(4, 4, 1), pixel_range=255).names == ["0.png"]


def test_read_images_names_a_table_without_rows(tmp_path: Path) -> None:
    path = parquet(tmp_path, image=pa.array([], pa.binary()))
    with pytest.raises(DataError, match="images to classify are expected"):
        read_images([path], image_shape=(4, 4, 1), pixel_range=255)


def test_read_images_tells_files_of_one_name_apart(tmp_path: Path) -> None:
    for folder in ("3", "5"):
        (tmp_path / folder).mkdir()
        Image.fromarray(np.zeros((6, 6), np.uint8)).save(tmp_path / folder / "0.png")
    paths = [tmp_path / folder / "0.png" for folder in ("3", "5")]
    assert read_images(paths[:1], image_shape=(6, 6, 1), pixel_range=255).names == ["0.png"]
    assert read_images(paths, image_shape=(6, 6, 1), pixel_range=255).names == list(map(str, paths))


def test_describe_and_samples_show_training_images_only(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    train, test = digits
    dataset = read_dataset(write_npz(tmp_path, train, (test[0] * 0 + 255, test[1])))
    shown = describe(dataset)
    assert (shown.images, shown.classes, shown.shape, shown.bits) == (400, 10, (8, 8, 1), 8)
    assert shown.counts["3"] == ClassCount(train=int((train[1] == 3).sum()), test=int((test[1] == 3).sum()))
    assert DatasetSummary.model_validate_json(shown.model_dump_json()) == shown
    samples, means = sample_pictures(dataset, per_class=40)
    threes = train[0][train[1] == 3]
    assert np.array_equal(sample_pictures(dataset)[0][3, ..., 0], threes[:12])
    assert np.array_equal(samples[3, : len(threes), ..., 0], threes)
    assert not samples[3, len(threes) :].any()
    assert np.array_equal(means[3, ..., 0], np.rint(threes.mean(axis=0)))


def test_test_images_that_are_also_in_the_training_part_are_noted(tmp_path: Path, digits: tuple[Part, Part]) -> None:
    (pixels, labels), (tested, answers) = digits
    clean = describe(read_dataset(write_npz(tmp_path, *digits)))
    assert clean.test_images_also_in_train == 0
    assert not any("identical in every pixel" in note for note in clean.notes)
    tested, answers = tested.copy(), answers.copy()
    tested[:12], answers[:12] = pixels[:12], labels[:12]
    answers[3] = (answers[3] + 1) % 10  # the same pixels in another class are not a duplicate
    shown = describe(read_dataset(write_npz(tmp_path, (pixels, labels), (tested, answers))))
    assert shown.test_images_also_in_train == 11
    assert shown.notes == (
        "2 images are identical in every pixel to one of another class: at least one label of each is wrong, or the "
        "images do not tell the classes apart",
        "11 of 100 test images are also in the training part, identical in every pixel and in class, so test figures "
        "are too favourable",
    )


@pytest.mark.parametrize(
    ("classes", "words"),
    [((3,), "no images of the class 3, so"), (range(7), "no images of 7 classes (0, 1, 2, 3, 4 and 2 more), so")],
)
def test_classes_without_test_images_are_named(
    classes: Any, words: str, tmp_path: Path, digits: tuple[Part, Part]
) -> None:
    train, (pixels, labels) = digits
    kept = ~np.isin(labels, list(classes))
    shown = describe(read_dataset(write_npz(tmp_path, train, (pixels[kept], labels[kept]))))
    assert [words in note for note in shown.notes] == [True]


@pytest.mark.parametrize("form", ["npz", "folders", "csv", "parquet", "idx"])
def test_a_validation_part_that_joins_the_training_images_is_noted(
    form: str, tmp_path: Path, digits: tuple[Part, Part]
) -> None:
    (pixels, labels), test = digits
    validation = pixels[200:], labels[200:]
    if form == "npz":
        write_medmnist(tmp_path, *digits)
    elif form == "csv":
        write_csv(tmp_path, (pixels[:200], labels[:200]), test)
        (tmp_path / "val.csv").write_text(csv_text(validation))
    elif form == "parquet":
        for name, part in (("train", (pixels[:200], labels[:200])), ("validation", validation), ("test", test)):
            pq.write_table(pa.table({"image": [png(image) for image in part[0]], "label": part[1]}),
                           tmp_path / f"{name}.parquet")  # fmt: skip
    elif form == "idx":
        write_idx(tmp_path, (pixels[:200], labels[:200]), test)
        (tmp_path / "val-images-idx3-ubyte").write_bytes(idx_bytes(validation[0]))
        (tmp_path / "val-labels-idx1-ubyte").write_bytes(idx_bytes(validation[1]))
    else:
        for name, part in (("train", (pixels[:200], labels[:200])), ("val", validation), ("test", test)):
            for i, (image, label) in enumerate(zip(*part, strict=True)):
                (tmp_path / name / str(label)).mkdir(parents=True, exist_ok=True)
                (tmp_path / name / str(label) / f"{i}.png").write_bytes(png(image))
    dataset = read_dataset(tmp_path)
    assert (len(dataset.train), len(dataset.test)) == (300, 100)
    assert dataset.notes == (
        "the validation part (100 images) was joined to the training images, since each recipe draws its own "
        "validation images",
    )


def test_a_data_set_shows_itself_in_a_line_and_hashes_its_images_once(
    tmp_path: Path, digits: tuple[Part, Part], monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = read_dataset(write_npz(tmp_path, *digits))
    assert repr(dataset) == "<ImageDataset set: 300 training and 100 sealed test images, 10 classes, 8x8x1>"
    assert repr(dataset.train) == "<LabelledImages: 300 images, 8x8x1, uint8>"
    assert repr(dataset.test) == "<SealedTest: 100 images>"
    hashed: list[int] = []
    once = data.image_hashes
    monkeypatch.setattr(data, "image_hashes", lambda part, names: hashed.append(len(part)) or once(part, names))
    assert describe(dataset) == describe(dataset)
    assert hashed == [300, 100]
