"""Folders of image files as people have them: linked, oddly named, mixed with other files, partly broken."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, features

from committee.data.dataset import ImageDataset
from committee.data.readers import read_dataset, read_images
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


def test_a_linked_folder_inside_what_is_to_be_classified_is_followed(tmp_path: Path) -> None:
    file(tmp_path / "new", "0.png", encoded(picture("cat", 0)))
    class_folder(tmp_path / "more", "dog", 3)
    (tmp_path / "new" / "sub").symlink_to(tmp_path / "more")
    names = read_images([tmp_path / "new"], image_shape=(8, 8, 1), pixel_range=255)[0]
    assert names == ["0.png", "sub/0.png", "sub/1.png", "sub/2.png"]


def test_a_link_that_leads_nowhere_is_named(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
    (tmp_path / "cat" / "gone.png").symlink_to("nowhere.png")
    with pytest.raises(DataError, match=r"cat/gone\.png: the file cannot be read"):
        read_dataset(tmp_path)


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
    names, pixels = read_images([path], image_shape=(8, 8, 1), pixel_range=255)
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
    opened: list[str] = []
    once = Path.open
    monkeypatch.setattr(Path, "open", lambda self, *a, **k: opened.append(self.name) or once(self, *a, **k))
    assert counts(read_dataset(tmp_path)) == (9, 2)
    assert "readme.txt" not in opened
    assert opened.count("odd") == opened.count("0.png") / 2 + 1


def test_what_is_left_out_is_counted_by_kind(tmp_path: Path) -> None:
    for name in SHADES:
        class_folder(tmp_path / name, name)
        for clutter in ("Thumbs.db", ".DS_Store", "desktop.ini", "._0.png"):
            file(tmp_path, f"{name}/{clutter}")
    for other in ("notes.txt", "cat/a.txt", "dog/b.txt", "dog/c.psd", "cat/LICENSE"):
        file(tmp_path, other)
    assert (
        "left out, since they are no images that can be read: 3 .txt files, 1 .psd file, 1 file without an ending"
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
        file(data / top, f"bird/{i}.heic", b"\0\0\0\x18ftypheic")
    with pytest.raises(
        DataError, match=r"bird: PNG, .* files are expected in the folder of a class, got only 3 \.heic"
    ):
        read_dataset(data)


UNREAD: dict[str, tuple[bytes, str]] = {
    "icon": (b"\0\0\1\0" + bytes(40), "an icon"),
    "EPS": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n", "something else"),
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
