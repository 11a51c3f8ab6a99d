"""Damaged files of every kind: a data set comes of each, or one sentence; never a traceback, and never a long wait."""

from __future__ import annotations

import gzip
import io
import resource
import shutil
import struct
import tempfile
import time
import warnings
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import scipy.io
from PIL import Image
from scale import cases, record_figure
from writers import LABELS, PIXELS, idx, png, put, table

from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

SECONDS, MEGABYTES = 2.0, 512.0
GREY = ReadOptions(channels="grey", skip_unreadable=True)

Written = dict[str, bytes]
"""The files of a data set by their names."""


def arrays() -> Written:
    file = io.BytesIO()
    np.savez_compressed(file, x_train=PIXELS, y_train=LABELS, class_names=["cat", "dog"])
    return {"a.npz": file.getvalue()}


def lines(separator: str = ",", ending: str = "") -> Written:
    header = separator.join(["label", *(f"pixel{i}" for i in range(64))])
    rows = [
        separator.join([name, *(f"{value}{ending}" for value in image.ravel())])
        for name, image in zip(np.where(LABELS, "dog", "cat"), PIXELS, strict=True)
    ]
    return {"a.csv": "\n".join([header, *rows[:8]]).encode() + b"\n"}


def digits() -> Written:
    rows = np.column_stack([LABELS, PIXELS.reshape(40, 64)])[:12]
    return {"a.csv": "\n".join(",".join(map(str, row)) for row in rows).encode()}


def strings() -> Written:
    rows = (
        f"{label},{' '.join(map(str, image.ravel()))},Training" for label, image in zip(LABELS, PIXELS, strict=True)
    )
    return {"a.csv": "\n".join(["emotion,pixels,Usage", *list(rows)[:8]]).encode()}


def column_file(folder: Path, name: str, images: object) -> Written:
    return {name: table(folder, name, image=images).read_bytes()}


def parquet(folder: Path) -> Written:
    return column_file(folder, "a.parquet", [png(i) for i in range(40)])


def number_lists(folder: Path) -> Written:
    return column_file(folder, "a.parquet", [image.ravel().tolist() for image in PIXELS])


def arrow(folder: Path) -> Written:
    return column_file(folder, "a.arrow", [png(i) for i in range(40)])


def matlab() -> Written:
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": PIXELS, "y": LABELS, "other": {"a": [1, 2]}}, do_compression=True)
    return {"a.mat": file.getvalue()}


def old_matlab() -> Written:
    file = io.BytesIO()
    scipy.io.savemat(file, {"X": PIXELS.reshape(40, 64), "y": LABELS}, format="4")
    return {"a.mat": file.getvalue()}


def encoded(kind: str, ending: str, mode: str = "L", **options: object) -> Written:
    file = io.BytesIO()
    Image.fromarray(np.tile(PIXELS[0], (3, 3))).convert(mode).save(file, kind, **options)
    return {f"0/odd.{ending}": file.getvalue()}


def zipped() -> Written:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for i, label in enumerate(LABELS[:12]):
            archive.writestr(f"{label}/{i}.png", png(i))
    return {"a.zip": file.getvalue()}


def idx_files(ending: str = "") -> Written:
    packed = gzip.compress if ending else bytes
    return {
        f"train-images-idx3-ubyte{ending}": packed(idx(8, 40, 8, 8, data=PIXELS.tobytes())),
        f"train-labels-idx1-ubyte{ending}": packed(idx(8, 40, data=LABELS.tobytes())),
    }


def libsvm() -> Written:
    rows = [
        f"{label} " + " ".join(f"{i}:{value}" for i, value in enumerate(image.ravel(), 1))
        for label, image in zip(LABELS[:8], PIXELS, strict=False)
    ]
    return {"a.libsvm": "\n".join(rows).encode()}


def cifar() -> Written:
    record = np.random.default_rng(0).integers(0, 256, (4, 3073), np.uint8)
    record[:, 0] = [0, 1, 0, 1]
    return {"data_batch_1.bin": record.tobytes(), "batches.meta.txt": b"cat\ndog\n"}


def listing() -> Written:
    rows = "".join(f"images/{i}.png,{'cat' if i % 2 else 'dog'}\n" for i in range(8))
    return {"labels.csv": f"file_name,label\n{rows}".encode(), **{f"images/{i}.png": png(i) for i in range(8)}}


def json_listing() -> Written:
    rows = "".join(f'{{"file_name": "{i}.png", "label": {i % 2}}}\n' for i in range(8))
    return {"metadata.jsonl": rows.encode(), **{f"{i}.png": png(i) for i in range(8)}}


Maker = Callable[[Path], list[Written]]

KINDS: dict[str, tuple[int, Maker]] = {
    "IDX": (1000, lambda p: [idx_files(), idx_files(".gz")]),
    "NPZ": (1000, lambda p: [arrays()]),
    "CSV": (1000, lambda p: [lines(), lines(";", ".5"), digits(), strings()]),
    "Parquet": (1000, lambda p: [parquet(p), number_lists(p)]),
    "images": (
        1000,
        lambda p: [
            encoded("PNG", "png"), encoded("PNG", "png", "RGBA"), encoded("PNG", "png", "P"), encoded("JPEG", "jpg"),
            encoded("JPEG", "jpg", "RGB", progressive=True), encoded("GIF", "gif"), encoded("BMP", "bmp", "RGB"),
            encoded("TIFF", "tif", "RGB", compression="tiff_lzw"), encoded("TIFF", "tif", "F"),
            encoded("TIFF", "tif", "I;16"),
            encoded("WEBP", "webp", "RGB"), encoded("WEBP", "webp", "RGBA", lossless=True),
            encoded("PPM", "ppm", "RGB"), encoded("JPEG2000", "jp2", "RGB"),
        ],
    ),
    "ZIP": (1000, lambda p: [zipped()]),
    "MATLAB": (200, lambda p: [matlab(), old_matlab()]),
    "LIBSVM": (200, lambda p: [libsvm()]),
    "CIFAR": (100, lambda p: [cifar()]),
    "Arrow": (300, lambda p: [arrow(p)]),
    "listings": (200, lambda p: [listing(), json_listing()]),
}  # fmt: skip
"""Cases in the CI form, and the data sets that are damaged."""

ODD_NUMBERS = (0, 1, 255, 256, 2**15, 2**16 - 1, 2**24, 2**31 - 1, 2**31, 2**32 - 1)
ODD_WORDS = (
    b"nan",
    b"-1",
    b"1e999",
    b'"',
    b",,",
    b"\xff\xfe",
    b"\0",
    b"1_0",
    b"99999999999999999999",
    b"\r",
    b";",
    b"{",
    b"[",
)


def damaged(content: bytes, other: bytes, rng: np.random.Generator) -> bytes:
    """One to three faults at random places: most in the first bytes and the last, where headers and directories are."""
    data = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        size = max(len(data), 1)
        zone = rng.integers(4)
        at = int(
            rng.integers(min(size, 64))
            if zone == 0
            else size - 1 - rng.integers(min(size, 200))
            if zone == 1
            else rng.integers(size)
        )
        length = int(2 ** rng.integers(0, 8))
        match rng.integers(9):
            case 0:
                data[at : at + 1] = bytes([data[at] ^ 1 << int(rng.integers(8))] if data else b"")
            case 1:
                del data[at:]
            case 2:
                data[at:at] = bytes([int(rng.integers(256))]) * length
            case 3:
                data[at:at] = data[max(0, at - length) : at]
            case 4:
                number = int(rng.choice(ODD_NUMBERS))
                data[at : at + 4] = struct.pack("<I" if rng.integers(2) else ">I", number)
            case 5:
                start = int(rng.integers(max(len(other), 1)))
                data[at : at + length] = other[start : start + length]
            case 6:
                data[at : at + length] = rng.bytes(length)
            case 7:
                del data[at : at + length]
            case 8:
                data[at:at] = ODD_WORDS[rng.integers(len(ODD_WORDS))]
    return bytes(data)


def place(folder: Path, files: Written) -> Path:
    """What is given to read: the file itself where there is one."""
    return folder / next(iter(files)) if len(files) == 1 and not (folder / "0").is_dir() else folder


def outcome(case: str, path: Path, options: ReadOptions = GREY, *, to_classify: bool = False) -> tuple[bool, str]:
    """Whether images were read, and everything that is said about them; any error but a sentence fails the test."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            if to_classify:
                images = read_images([path], image_shape=(8, 8, 1), pixel_range=255)
                return bool(images.names), " ".join([*images.notes, *(sentence for _, sentence in images.unreadable)])
            return True, " ".join(read_dataset(path, options).notes)
        except DataError as error:
            return False, str(error)
        except Exception as error:
            raise AssertionError(f"{case}: {error!r} instead of a sentence") from error


def without_names(said: str, path: Path) -> str:
    """What is said without the names in a zip, which are whatever they are; where they are shown, they are escaped."""
    try:
        with zipfile.ZipFile(path) as archive:
            names = archive.namelist()
    except (OSError, ValueError, NotImplementedError, zipfile.BadZipFile):
        return said
    for part in (part for name in names if "\n" in name for part in name.split("/")):
        said = said.replace(part, "") if part else said
    return said


def memory() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder in memory, where the system has one."""
    shared = Path("/dev/shm")
    folder = Path(tempfile.mkdtemp(prefix="committee-bad-data-", dir=shared if shared.is_dir() else tmp_path))
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("kind", KINDS)
def test_damaged_data_are_read_or_named_in_a_sentence(kind: str, quick_folder: Path, tmp_path: Path) -> None:
    number, make = KINDS[kind]
    sets = make(tmp_path)
    for i, files in enumerate(sets):
        own = quick_folder / str(i)
        for j in range(6 * (kind == "images")):
            put(own, f"{j % 2}/{j}.png", png(j))
        for name, content in files.items():
            put(own, name, content)
        assert len(read_dataset(place(own, files), GREY).train)
    others = [content for files in sets for content in files.values()]
    before, slowest, read = memory(), 0.0, 0
    for seed in range(cases(number, 100 * number)):
        rng = np.random.default_rng([seed, len(kind)])
        chosen = int(rng.integers(len(sets)))
        name = list(sets[chosen])[rng.integers(len(sets[chosen]))]
        content = sets[chosen][name]
        path = put(quick_folder / str(chosen), name, damaged(content, others[rng.integers(len(others))], rng))
        given, start = place(quick_folder / str(chosen), sets[chosen]), time.perf_counter()
        was_read, said = outcome(f"case {seed}", given, to_classify=seed % 4 == 0)
        seconds = time.perf_counter() - start
        slowest, read = max(slowest, seconds), read + was_read
        assert "\n" not in without_names(said, path), f"case {seed}"
        assert seconds <= SECONDS, f"case {seed}"
        assert memory() - before <= MEGABYTES, f"case {seed}"
        path.write_bytes(content)
    record_figure(
        f"bad data, {kind}",
        f"{seed + 1:,} cases, {read:,} read, each at most {slowest:.2f} s, {memory() - before:.0f} MB more in all",
    )


ODD_OPTIONS: list[dict[str, object]] = [
    *({"label": label} for label in ("", " ", "-99", "1e5", "nan", "²", "9" * 30, "9" * 5000, "pixel0", "-1", "0")),
    *(
        {"shape": shape}
        for shape in ((0, 0, 1), (-1, -64, 1), (-8, -8, 1), (2**40, 1, 1), (8, 8, 0), (64, 1, 1), (4, 4, 4))
    ),
    *({"pixel_range": pair} for pair in ((0, 0), (1, 0), (0, 5e-324), (-1e308, 1e308), (0, 1e308), (254, 255))),
    *(
        {"pixel_range": (low, high)}
        for low in (0.0, float("nan"), float("-inf"))
        for high in (float("nan"), float("inf"))
    ),
    *({"image_size": size} for size in (0, -1, 1, 10**9)),
    *(
        {"groups": way}
        for way in ("", "path:0", "path:²", "path:" + "9" * 5000, "path:1", "path:-7", "name:(", "name:\\")
    ),
    *({"groups": way} for way in ("name:a", "name:(x)?", "label", "pixel0", "/nowhere.csv", "\0", "a" * 5000)),
]


@pytest.mark.parametrize("make", [arrays, lines, digits, strings, zipped, listing], ids=lambda make: make.__name__)
def test_odd_options_are_kept_or_named_in_a_sentence(make: Callable[[], Written], tmp_path: Path) -> None:
    files = make()
    for name, content in files.items():
        put(tmp_path, name, content)
    for options in ODD_OPTIONS:
        _, said = outcome(str(options), place(tmp_path, files), ReadOptions.model_validate(options))
        assert "\n" not in said, options
