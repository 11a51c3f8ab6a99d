"""Folders of image files as people have them: linked, oddly named, mixed with other files, partly broken."""

from __future__ import annotations

import io
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow
import pytest
import tifffile
from numpy.typing import NDArray
from PIL import Image, features
from pyarrow import parquet

from committee.data.dataset import ImageDataset, open_test
from committee.data.formats import plain_png
from committee.data.formats.decode import decode, probe
from committee.data.formats.files import Files
from committee.data.formats.opening import open_files
from committee.data.read_options import ReadOptions
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

SHADES = {"cat": 40, "dog": 200}


def encoded(image: NDArray[Any], form: str = "PNG", **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, form, **options)
    return buffer.getvalue()


def picture(name: str, number: int) -> NDArray[np.uint8]:
    """Even grey, another for each image, that no encoder changes much."""
    return np.full((8, 8), SHADES[name] + number, np.uint8)


def class_folder(folder: Path, name: str, count: int = 5, form: str = "PNG", ending: str = ".png") -> Path:
    folder.mkdir(parents=True)
    for i in range(count):
        (folder / f"{i}{ending}").write_bytes(encoded(picture(name, i), form))
    return folder


def counts(dataset: ImageDataset) -> tuple[int, int]:
    return len(dataset.train), len(dataset.test)


def file(folder: Path, name: str, content: bytes = b"words") -> Path:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


# Symbolic links.


def test_linked_class_folders_and_parts_are_followed(tmp_path: Path) -> None:
    class_folder(tmp_path / "data" / "train" / "cat", "cat")
    class_folder(tmp_path / "elsewhere" / "dogs", "dog")
    class_folder(tmp_path / "other" / "cat", "cat", 2)
    class_folder(tmp_path / "other" / "dog", "dog", 2)
    (tmp_path / "data" / "train" / "dog").symlink_to(tmp_path / "elsewhere" / "dogs")
    (tmp_path / "data" / "test").symlink_to("../other")
    dataset = read_dataset(tmp_path / "data")
    assert (dataset.class_names, counts(dataset)) == (("cat", "dog"), (10, 4))
    assert not [note for note in dataset.notes if "test part" in note]


def test_loops_and_second_ways_to_a_folder_are_noticed(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / "data" / name, name)
    (tmp_path / "data" / "a second way").symlink_to("dog")  # before the real one by name
    (tmp_path / "data" / "cat" / "up").symlink_to("..")
    (tmp_path / "data" / "dog" / "far up").symlink_to(tmp_path)
    dataset = read_dataset(tmp_path / "data")
    assert (dataset.class_names, counts(dataset)) == (("cat", "dog"), (8, 2))
    assert dataset.notes[0].startswith("3 linked folders (a second way, cat/up, dog/far up) were passed over")


def test_of_links_to_a_folder_and_to_one_inside_it_both_are_read_once(tmp_path: Path) -> None:
    class_folder(tmp_path / "elsewhere" / "inner", "dog")
    class_folder(tmp_path / "elsewhere" / "more", "cat")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a").symlink_to("../elsewhere/inner")
    (tmp_path / "data" / "b").symlink_to("../elsewhere")
    dataset = read_dataset(tmp_path / "data")
    assert (dataset.class_names, counts(dataset)) == (("a", "b"), (8, 2))


def test_a_linked_folder_inside_what_is_to_be_classified_is_followed(tmp_path: Path) -> None:
    file(tmp_path / "new", "0.png", encoded(picture("cat", 0)))
    class_folder(tmp_path / "more", "dog", 3)
    (tmp_path / "new" / "sub").symlink_to(tmp_path / "more")
    names = read_images([tmp_path / "new"], image_shape=(8, 8, 1), pixel_range=255).names
    assert names == ["0.png", "sub/0.png", "sub/1.png", "sub/2.png"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"cat/gone\.png: the file cannot be read"):
        read_dataset(tmp_path)


@pytest.mark.parametrize("size", [0, 2**16 - 1, 2**16, 2**16 + 1, 300_000])
def test_files_are_read_whole_and_not_beyond_the_limit(
    size: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    content = np.random.default_rng(size).bytes(size)
    file(tmp_path, "a.png", content)
    with open_files(tmp_path) as files:
        monkeypatch.setenv("COMMITTEE_LIMITS", f"encoded={size}")
        assert files.read("a.png") == files.read("a.png", "encoded") == content
        if size:
            monkeypatch.setenv("COMMITTEE_LIMITS", f"encoded={size - 1}")
            message = rf"a\.png: at most {size - 1:,} bytes of a file are read, got {size:,}; .* set COMMITTEE_LIMITS="
            with pytest.raises(DataError, match=message):
                files.read("a.png", "encoded")


def test_what_a_message_advises_is_enough_for_a_folder_of_many_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(8):
        for inner in ("", "x"):
            class_folder(tmp_path / str(number) / inner, "dog", 3)
    monkeypatch.setenv("COMMITTEE_LIMITS", "files=2")
    with pytest.raises(DataError, match=r"at most 2 files are read, got 48; .* set COMMITTEE_LIMITS=files=48$"):
        read_dataset(tmp_path)
    monkeypatch.setenv("COMMITTEE_LIMITS", "files=48")
    assert len(read_images([tmp_path], image_shape=(8, 8, 1), pixel_range=255).names) == 48


def test_lowered_limits_hold_for_small_plain_images_and_for_images_to_classify(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    monkeypatch.setenv("COMMITTEE_LIMITS", "pixels=63")
    with pytest.raises(DataError, match=r"an image of at most 63 pixels is expected, got 8x8"):
        read_dataset(tmp_path)
    monkeypatch.setenv("COMMITTEE_LIMITS", "bytes=500,expansion=1")
    with pytest.raises(DataError, match=r"at most 500 bytes of images are read, got 512; give fewer of them at once"):
        read_images([tmp_path], image_shape=(8, 8, 1), pixel_range=255)


# Endings.


KINDS = {
    "jfif": ("JPEG", ".jfif"),
    "no ending": ("PNG", ""),
    "a number": ("JPEG", ".001"),
    "upper case": ("TIFF", ".TIF"),
    "wrong": ("PNG", ".jpg"),
    "gif": ("GIF", ".gif"),
    "pgm": ("PPM", ".pgm"),
    "pnm without ending": ("PPM", ""),
    "bmp without ending": ("BMP", ""),
    "webp": ("WEBP", ".picture"),
    "avif": ("AVIF", ".avif"),
    "jp2": ("JPEG2000", ".jp2"),
}


@pytest.mark.parametrize(("form", "ending"), KINDS.values(), ids=KINDS.keys())
@pytest.mark.parametrize("zipped", [False, True], ids=["folder", "zip"])
def test_images_are_told_by_their_content(form: str, ending: str, zipped: bool, tmp_path: Path) -> None:
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    for name in SHADES:
        class_folder(tmp_path / "set" / name, name, form=form, ending=ending)
    path = tmp_path / "set"
    if zipped:
        path = tmp_path / "set.zip"
        with zipfile.ZipFile(path, "w") as archive:
            for each in sorted((tmp_path / "set").rglob("*.*" if ending else "*")):
                archive.write(each, each.relative_to(tmp_path))
    dataset = read_dataset(path)
    assert (dataset.class_names, counts(dataset)) == (("cat", "dog"), (8, 2))
    images = read_images([path], image_shape=(8, 8, 1), pixel_range=255)
    names, pixels = images.names, images.pixels
    expected = np.array([SHADES[name] + i for name in SHADES for i in range(5)])
    assert names[6].endswith(f"dog/1{ending}")
    assert np.abs(pixels.mean(axis=(1, 2, 3)) - expected).max() < 4


def test_only_files_whose_ending_does_not_tell_are_opened_to_find_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    file(tmp_path, "cat/readme.txt")
    file(tmp_path, "dog/odd", encoded(picture("dog", 7)))
    looked_at: set[str] = set()
    once = Files.head
    monkeypatch.setattr(Files, "head", lambda self, name: looked_at.add(name) or once(self, name))
    assert counts(read_dataset(tmp_path)) == (9, 2)
    assert looked_at == {"dog/odd"}


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
        for clutter in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png"):
            file(tmp_path, f"{name}/{clutter}")
    for other in ("notes.txt", "cat/a.txt", "dog/b.txt", "dog/c.psd", "cat/LICENSE"):
        file(tmp_path, other)
    assert (
        "files other than images were left out: 3 .txt files, 1 .psd file, 1 file without an ending"
        in read_dataset(tmp_path).notes
    )


@pytest.mark.parametrize("top", ["", "train"])
def test_a_class_whose_files_are_no_images_is_refused_and_an_empty_one_noted(top: str, tmp_path: Path) -> None:
    data = tmp_path / "data"
    for name in SHADES:
        class_folder(data / top / name, name)
        if top:
            class_folder(data / "test" / name, name)
    (data / top / "bird").mkdir()
    assert f"1 empty class folder ({Path(top, 'bird').as_posix()}) is no class" in read_dataset(data).notes
    for i in range(3):
        file(data / top, f"bird/{i}.psd", b"8BPS")
    with pytest.raises(DataError, match=r"bird: PNG, .* files are expected in the folder of a class, got only 3 \.psd"):
        read_dataset(data)


UNREAD: dict[str, tuple[bytes, str]] = {
    "icon": (b"\0\0\1\0" + bytes(40), "an icon"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "a file of another kind"),
    "web page": (b"<!DOCTYPE html><html>", "a web page"),
    "empty": (b"", "an empty file"),
}


@pytest.mark.parametrize(("content", "words"), UNREAD.values(), ids=UNREAD.keys())
def test_no_other_decoder_sees_a_file(
    content: bytes, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    file(tmp_path, "cat/odd.png", content)
    seen: list[Any] = []
    once: Callable[..., Any] = Image.open
    monkeypatch.setattr(Image, "open", lambda file, formats: seen.append(formats) or once(file, formats=formats))
    with pytest.raises(DataError, match=rf"odd\.png: .* expected, got {words}"):
        read_dataset(tmp_path)
    assert set(seen) <= {("PNG",)}


# Unreadable images.

POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 12345\n"


def broken_set(folder: Path) -> Path:
    """Two classes of ten images, of which three cannot be read: a pointer, one cut off, one that is no image."""
    for name in SHADES:
        class_folder(folder / name, name, 10)
    file(folder, "cat/3.png", POINTER)
    file(folder, "cat/5.png", encoded(picture("cat", 5))[:-25])
    file(folder, "dog/0.png", b"no image")
    return folder


def test_all_unreadable_images_are_told_at_once_or_left_out_with_a_note(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        read_dataset(broken_set(tmp_path / "set"))
    message = str(caught.value)
    for words in (
        "readable images are expected, got 3 of 20 that are not: cat/3.png (",
        "cat/3.png (a Git LFS pointer, whose image 'git lfs pull' fetches)",
        "cat/5.png (the image is damaged or cut off",
        "dog/0.png (",
        "or leave them out with --skip-unreadable",
    ):
        assert words in message
    dataset = read_dataset(tmp_path / "set", ReadOptions(skip_unreadable=True))
    assert counts(dataset) == (14, 3)
    names = dataset.train.names
    assert names
    for i, image in enumerate(dataset.train.pixels):  # each image kept its own name and class
        name = Path(names[i])
        assert set(image.ravel()) == {SHADES[name.parent.name] + int(name.stem)}
        assert dataset.class_names[dataset.train.labels[i]] == name.parent.name
    assert [note for note in dataset.notes if note.startswith("3 unreadable images were left out: cat/3.png (")]


def test_of_many_unreadable_images_ten_are_named(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name, 20)
    for i in range(12):
        file(tmp_path, f"cat/{i}.png", POINTER)
    with pytest.raises(
        DataError, match=r"got 12 of 40 that are not: .*cat/7\.png \(a Git LFS .* fetches\), and 2 more; "
    ):
        read_dataset(tmp_path)
    for i in range(20):
        file(tmp_path, f"cat/{i}.png", POINTER)
        file(tmp_path, f"dog/{i}.png", POINTER)
    with pytest.raises(DataError, match="got 40 of 40 that are not"):
        read_dataset(tmp_path, ReadOptions(skip_unreadable=True))


def test_readable_images_are_classified_and_the_others_listed(tmp_path: Path) -> None:
    """Rows of a table and files alike."""
    folder = broken_set(tmp_path / "set")
    rows = [encoded(picture("cat", 0)), POINTER, encoded(picture("cat", 2))]
    parquet.write_table(pyarrow.table({"image": rows}), tmp_path / "rows.parquet")
    read = read_images(
        [folder / "cat", tmp_path / "rows.parquet", file(tmp_path, "words.txt")], image_shape=(8, 8, 1), pixel_range=255
    )
    assert read.names == [*(f"{i}.png" for i in (0, 1, 2, 4, 6, 7, 8, 9)), "rows.parquet[0]", "rows.parquet[2]"]
    assert read.pixels[:, 0, 0, 0].tolist() == [40 + i for i in (0, 1, 2, 4, 6, 7, 8, 9, 0, 2)]
    assert [name for name, _ in read.unreadable] == ["3.png", "5.png", "rows.parquet[1]", "words.txt"]
    assert ["row 2: a PNG" in sentence for _, sentence in read.unreadable] == [False, False, True, False]
    with pytest.raises(DataError, match=r"got 4 of 14 that are not: .* or leave them out with --skip-unreadable"):
        read.noted(skip_unreadable=False)
    (note,) = read.noted(skip_unreadable=True)
    assert note.startswith(
        "4 unreadable images left out: 3.png (a Git LFS pointer, whose image 'git lfs pull' fetches)"
    )
    with pytest.raises(DataError, match="images to classify are expected"):
        read_images([tmp_path / "words.txt"], image_shape=(8, 8, 1), pixel_range=255)


@pytest.mark.parametrize(
    "form", ["PNG", "PNG palette", "JPEG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "AVIF", "JPEG2000"]
)
@pytest.mark.filterwarnings("ignore")  # as read_dataset does
def test_a_file_of_any_kind_may_be_cut_off_anywhere_or_damaged(form: str) -> None:
    """Ends in pixels or one sentence, never in an error of a decoder."""
    if form == "AVIF" and not features.check("avif"):
        pytest.skip("this Pillow reads no AVIF")
    draw = np.random.default_rng(1)
    image = draw.integers(0, 256, (12, 10, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    (Image.fromarray(image).convert("P") if "palette" in form else Image.fromarray(image)).save(buffer, form.split()[0])
    whole = buffer.getvalue()
    damaged = [whole[:size] for size in np.linspace(1, len(whole) - 1, 60).astype(int)]
    for _ in range(100):
        content = bytearray(whole)
        for _ in range(3):
            content[draw.integers(min(len(content), 300))] = draw.integers(256)
        damaged.append(bytes(content))
    refused = 0
    for content in damaged:
        for function in (probe, decode):
            with suppress(DataError):
                function(content, "x.png")
                continue
            refused += 1
    assert refused > 10


# Grey and colour.


@pytest.mark.parametrize("container", ["folder", "npz"])
def test_grey_and_colour_together_are_refused_or_converted(container: str, tmp_path: Path) -> None:
    grey, colour = picture("cat", 0), np.full((8, 8, 3), (200, 100, 50), np.uint8)
    if container == "folder":
        path = tmp_path / "set"
        for name in SHADES:
            for i in range(5):
                file(path, f"train/{name}/{i}.png", encoded(grey))
                file(path, f"test/{name}/{i}.png", encoded(colour))
    else:
        path = tmp_path / "set.npz"
        labels = np.repeat([0, 1], 5)
        np.savez(path, x_train=[grey] * 10, y_train=labels, x_test=[colour] * 10, y_test=labels)
    with pytest.raises(DataError, match=r"mixed channels: .*; give --channels grey or --channels colour"):
        read_dataset(path)
    luma = round(0.299 * 200 + 0.587 * 100 + 0.114 * 50)
    as_grey, as_colour = (read_dataset(path, ReadOptions(channels=channels)) for channels in ("grey", "colour"))
    assert (as_grey.image_shape, as_colour.image_shape) == ((8, 8, 1), (8, 8, 3))
    tests = [open_test(dataset, tmp_path / "record.jsonl", "test").pixels for dataset in (as_grey, as_colour)]
    assert (tests[0] == luma).all()
    assert (as_grey.train.pixels == grey[0, 0]).all()
    assert (tests[1] == colour).all()
    assert (as_colour.train.pixels == grey[0, 0]).all()


def test_alpha_stays_where_all_images_have_it_and_otherwise_they_must_be_opaque(tmp_path: Path) -> None:
    clear = np.full((8, 8, 4), (200, 100, 50, 90), np.uint8)
    for name in SHADES:
        for i in range(4):
            file(tmp_path, f"{name}/{i}.png", encoded(clear))
            file(tmp_path, f"{name}/{i}a.png", encoded(clear[..., [0, 3]]))
    assert read_dataset(tmp_path, ReadOptions(channels="grey")).image_shape == (8, 8, 2)
    file(tmp_path, "cat/9.png", encoded(picture("cat", 0)))
    with pytest.raises(DataError, match="parts of the image are transparent"):
        read_dataset(tmp_path, ReadOptions(channels="grey"))


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_a_transparent_grey_of_any_depth_is_transparent(depth: int) -> None:
    white = 2**depth - 1
    greys = np.array([[0, white, 0, white] * 2] * 4, np.uint8)
    bits = np.unpackbits(greys[..., None], axis=2)[..., 8 - depth :]
    rows = b"".join(b"\0" + np.packbits(row).tobytes() for row in bits.reshape(4, -1))
    head = struct.pack(">IIBBBBB", 8, 4, depth, 0, 0, 0, 0)
    chunks = (b"IHDR", head), (b"tRNS", struct.pack(">H", white)), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")
    parts = [
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    ]
    pixels = decode(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "a.png")
    assert np.array_equal(pixels[..., 0] > 0, greys > 0)
    assert np.array_equal(pixels[..., 1], np.where(greys == white, 0, 255))


# TIFF.

RAMP = np.linspace(0, 1, 48).reshape(6, 8)
DEEP = np.rint(RAMP * 65535).astype(np.uint16)
EIGHT = np.rint(RAMP * 255).astype(np.uint8)
TIFFS: dict[str, tuple[NDArray[Any], dict[str, Any], NDArray[Any]]] = {
    "16 bits": (DEEP, {}, DEEP),
    "signed 16 bits": ((DEEP // 2).astype(np.int16), {}, DEEP // 2),
    "signed 32 bits": (DEEP.astype(np.int32), {}, DEEP),
    "unsigned 32 bits": (DEEP.astype(np.uint32), {}, DEEP),
    "signed 8 bits": ((EIGHT // 2).astype(np.int8), {}, EIGHT // 2),
    "float": (RAMP.astype(np.float32), {}, EIGHT),
    "double": (RAMP, {}, EIGHT),
    "colour float": (np.stack([RAMP.astype(np.float32)] * 3, 2), {"photometric": "rgb"}, np.stack([EIGHT] * 3, 2)),
    "16-bit planes": (
        np.stack([DEEP, DEEP // 2, DEEP // 3]),
        {"photometric": "rgb", "planarconfig": "separate"},
        np.stack([DEEP, DEEP // 2, DEEP // 3], 2),
    ),
    "signed 16 bits, packed": ((DEEP // 2).astype(np.int16), {"compression": "zlib"}, DEEP // 2),
    "signed 32 bits, packed": (DEEP.astype(np.int32), {"compression": "zlib"}, DEEP),
    "float, packed": (RAMP.astype(np.float32), {"compression": "zlib"}, EIGHT),
    "16 bits, packed": (DEEP, {"compression": "zlib"}, DEEP),
    "white is zero": (65535 - DEEP, {"photometric": "miniswhite"}, DEEP),
    "white is zero, packed": (65535 - DEEP, {"photometric": "miniswhite", "compression": "zlib"}, DEEP),
    "white is zero, 8 bits": (255 - EIGHT, {"photometric": "miniswhite"}, EIGHT),
    "white is zero, 1 bit": (RAMP < 0.5, {"photometric": "miniswhite"}, np.where(RAMP < 0.5, 0, 255)),
    "large format": (EIGHT, {"bigtiff": True}, EIGHT),
}


@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize(("values", "options", "expected"), TIFFS.values(), ids=TIFFS.keys())
def test_tiff_files_of_every_type_are_read(
    values: NDArray[Any], options: dict[str, Any], expected: NDArray[Any], byteorder: Any, tmp_path: Path
) -> None:
    for name in SHADES:
        for i in range(3):
            (tmp_path / name).mkdir(exist_ok=True)
            tifffile.imwrite(
                tmp_path / name / f"{i}.tif", values, **({"photometric": "minisblack"} | options), byteorder=byteorder
            )
    pixels = read_dataset(tmp_path).train.pixels
    assert pixels.dtype == (np.uint16 if expected.dtype == np.uint16 else np.uint8)
    assert np.array_equal(pixels[0].reshape(expected.shape), expected)
    read = read_images([tmp_path], image_shape=pixels.shape[1:], pixel_range=np.iinfo(pixels.dtype).max)
    assert np.array_equal(read.pixels[0], pixels[0])


REFUSED: dict[str, tuple[NDArray[Any], str]] = {
    "negative": ((DEEP // 2).astype(np.int16) - 9, "values must be from 0 to 65535, got -9 to 32758"),
    "wide floats": (RAMP.astype(np.float32) * 300, "floating-point values must be from 0 to 1, got 0 to 300"),
    "holes": (np.full((4, 4), np.nan, np.float32), "floating-point values must be from 0 to 1, got nan to nan"),
    "five channels": (np.stack([EIGHT] * 5, 2), "1 to 4 channels of numbers are expected, got 5 of uint8"),
}


@pytest.mark.parametrize(("values", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_tiff_that_cannot_be_used_is_not_called_damaged(values: NDArray[Any], message: str, tmp_path: Path) -> None:
    class_folder(tmp_path / "cat", "cat")
    class_folder(tmp_path / "dog", "dog")
    tifffile.imwrite(tmp_path / "cat" / "odd.tif", values, photometric="minisblack", planarconfig="contig")
    with pytest.raises(DataError, match=rf"cat/odd\.tif: {message}") as caught:
        read_dataset(tmp_path)
    assert "damaged" not in str(caught.value)


def test_a_tiff_whose_header_promises_more_strips_than_it_lists_is_refused(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "a.tif", RAMP, photometric="minisblack", byteorder=">")
    content = (tmp_path / "a.tif").read_bytes()
    height, twice = (struct.pack(">HHII", 257, 4, 1, rows) for rows in (6, 12))
    assert height in content
    with pytest.raises(DataError, match=r"damaged or cut off \(2 strips or tiles are expected, got 1\)"):
        decode(content.replace(height, twice), "a.tif")


def test_without_tifffile_the_package_is_named_and_other_files_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name, form="TIFF", ending=".tif")
    tifffile.imwrite(tmp_path / "cat" / "odd.tif", RAMP, photometric="minisblack")
    monkeypatch.setitem(sys.modules, "tifffile", None)
    with pytest.raises(
        DataError, match=r"cat/odd\.tif: the package tifffile is needed .*pip install 'committee\[tiff\]'"
    ):
        read_dataset(tmp_path)
    assert counts(read_dataset(tmp_path, ReadOptions(skip_unreadable=True))) == (8, 2)


def test_further_pages_and_frames_are_counted(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    pages = np.stack([picture("cat", 7), picture("cat", 8)])
    tifffile.imwrite(tmp_path / "cat" / "5.tif", pages, photometric="minisblack")
    first, second = map(Image.fromarray, pages)
    first.save(tmp_path / "cat" / "6.gif", save_all=True, append_images=[second])
    note = "2 images have several pages or frames, of which the first was read"
    assert note in read_dataset(tmp_path).notes
    read = read_images([tmp_path / "cat"], image_shape=(8, 8, 1), pixel_range=255)
    assert (read.pixels[5:] == 47).all()
    assert note in read.notes


def test_class_folders_are_found_below_a_folder_of_their_own(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / "UCMerced_LandUse" / "Images" / ("river", "beach")[number % 2]
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    (tmp_path / "UCMerced_LandUse" / "readme.txt").write_text("21 classes")
    assert read_dataset(tmp_path).class_names == ("beach", "river")


def test_twelve_bits_mean_the_same_in_tiff_and_pgm(tmp_path: Path) -> None:
    values = np.tile(np.array([0, 1000, 2048, 4095]), (4, 1))
    pairs = values.reshape(-1, 2)  # two values in three bytes
    packed = np.stack([pairs[:, 0] >> 4, (pairs[:, 0] & 15) << 4 | pairs[:, 1] >> 8, pairs[:, 1] & 255], axis=1)
    data = packed.astype(np.uint8).tobytes()
    tags = {256: 4, 257: 4, 258: 12, 259: 1, 262: 1, 273: 8, 277: 1, 278: 4, 279: len(data)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    directory = struct.pack("<H", len(tags)) + entries + bytes(4)
    (tmp_path / "a.tif").write_bytes(b"II*\0" + struct.pack("<I", 8 + len(data)) + data + directory)
    (tmp_path / "a.pgm").write_bytes(b"P5 4 4 4095\n" + values.astype(">u2").tobytes())
    found = [decode((tmp_path / name).read_bytes(), name)[0, :, 0].tolist() for name in ("a.tif", "a.pgm")]
    assert found == [[0, 16004, 32776, 65535]] * 2


# Small plain PNG files, decoded together.


def filtered_png(image: NDArray[np.uint8], kinds: list[int], extra: bytes = b"") -> bytes:
    """A PNG whose rows have these filters in turn, which no encoder lets one choose; `extra` chunks before the data."""
    height, width, channels = image.shape
    values = image.reshape(height, width * channels).astype(int)
    rows = []
    for y in range(height):
        line = b""
        for x in range(width * channels):
            a = values[y, x - channels] if x >= channels else 0
            b = values[y - 1, x] if y else 0
            c = values[y - 1, x - channels] if y and x >= channels else 0
            p = a + b - c
            nearest = min((abs(p - a), 0, a), (abs(p - b), 1, b), (abs(p - c), 2, c))[2]
            guess = (0, a, b, (a + b) // 2, nearest)[kinds[y % len(kinds)]]
            line += bytes([(values[y, x] - guess) % 256])
        rows.append(bytes([kinds[y % len(kinds)]]) + line)
    data = zlib.compress(b"".join(rows))
    head = struct.pack(">IIBBBBB", width, height, 8, {1: 0, 2: 4, 3: 2, 4: 6}[channels], 0, 0, 0)
    chunks = [(b"IHDR", head), (b"tEXt", b"a\0b"), (b"IDAT", data[:9]), (b"IDAT", data[9:]), (b"IEND", b"")]
    packed = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + packed[0] + extra + b"".join(packed[1:])


@pytest.mark.parametrize("channels", [1, 2, 3, 4])
def test_plain_png_files_are_read_bit_for_bit_as_pillow_reads_them(
    channels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    draw = np.random.default_rng(channels)
    monkeypatch.setattr(plain_png, "BATCH_BYTES", 4000)  # several batches
    contents = []
    for i in range(40):
        rough = draw.integers(0, 256, (9, 7, channels))
        smooth = np.linspace(draw.integers(256), draw.integers(256), 63)[:, None].repeat(channels, 1).reshape(9, 7, -1)
        image = (rough if i % 2 else smooth).astype(np.uint8)
        contents.append(filtered_png(image, draw.permutation(5).tolist()))
    expected = np.stack([np.asarray(Image.open(io.BytesIO(content))) for content in contents])
    pixels = plain_png.decode_alike(len(contents), contents.__getitem__)
    assert pixels is not None
    assert np.array_equal(pixels, expected.reshape(pixels.shape))


def chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


PLAIN = filtered_png(np.full((8, 8, 1), 7, np.uint8), [0])
NOT_PLAIN: dict[str, bytes] = {
    "transparency": filtered_png(np.full((8, 8, 1), 7, np.uint8), [0], chunk(b"tRNS", b"\0\7")),
    "orientation": filtered_png(np.full((8, 8, 1), 7, np.uint8), [0], chunk(b"eXIf", b"MM\0*\0\0\0\x08\0\0")),
    "frames": filtered_png(np.full((8, 8, 1), 7, np.uint8), [0], chunk(b"acTL", bytes(8))),
    "interlaced": PLAIN[:28] + b"\1" + PLAIN[29:],
    "another shape": filtered_png(np.full((9, 8, 1), 7, np.uint8), [0]),
    "a JPEG": encoded(np.full((8, 8), 7, np.uint8), "JPEG"),
    "no data": b"",
    "cut off": PLAIN[:-14],
}


@pytest.mark.parametrize("content", NOT_PLAIN.values(), ids=NOT_PLAIN.keys())
def test_whatever_is_not_plain_is_left_to_pillow(content: bytes) -> None:
    contents = [PLAIN, PLAIN, content]
    assert plain_png.decode_alike(2, contents.__getitem__) is not None
    assert plain_png.decode_alike(3, contents.__getitem__) is None


def test_a_data_set_is_split_without_a_copy_of_its_pixels(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name, 20)
    dataset = read_dataset(tmp_path)
    names = dataset.train.names
    assert names
    assert [set(image.ravel()) for image in dataset.train.pixels] == [
        {SHADES[Path(names[i]).parent.name] + int(Path(names[i]).stem)} for i in range(32)
    ]
    test = open_test(dataset, tmp_path / "record.jsonl", "test")
    assert np.shares_memory(dataset.train.pixels.base, test.pixels)


def test_sizes_of_images_that_are_left_out_are_not_told(tmp_path: Path) -> None:
    for number in range(12):
        folder = tmp_path / ("river", "beach")[number % 2]
        folder.mkdir(exist_ok=True)
        Image.fromarray(np.full((8, 8), 20 * number, dtype=np.uint8)).save(folder / f"{number}.png")
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (60, 60), dtype=np.uint8)).save(tmp_path / "cut.jpg")
    content = (tmp_path / "cut.jpg").read_bytes()
    (tmp_path / "cut.jpg").unlink()
    (tmp_path / "river" / "cut.jpg").write_bytes(content[: len(content) // 2])
    (tmp_path / "river" / "photo.HEIC").write_bytes(b"\0\0\0\x18ftypheic" + bytes(20))
    with pytest.raises(DataError, match=r"got 2 of 14 that are not: .*a HEIC photograph, which must be saved as JPEG"):
        read_dataset(tmp_path)
    notes = read_dataset(tmp_path, ReadOptions(skip_unreadable=True)).notes
    assert not any("resized" in note for note in notes)
