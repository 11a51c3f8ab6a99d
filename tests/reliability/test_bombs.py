"""Small files that announce, or unpack to, more than any memory holds: each is answered in a sentence, at once."""

from __future__ import annotations

import contextlib
import json
import re
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path

import bombs
import numpy as np
import pyarrow as pa
import pytest
from bombs import BOMBS
from PIL import Image
from scale import record_figure
from writers import LABELS, PIXELS, class_folders, gif, npy, png, put, table, text_lines

from committee.data.limits import VARIABLE
from committee.data.readers import read_dataset
from committee.data.to_classify import read_images
from committee.errors import DataError

SECONDS, MEGABYTES = 1.0, 64.0

Answer = tuple[str, float, float]
"""The sentence, "" where it was read; seconds; megabytes above the highest memory before."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Answer]:
    """One process reads them all, so that its highest memory grows with what each needs more than all before."""
    folder = tmp_path_factory.mktemp("bombs")
    paths = {}
    for number, (name, (make, _)) in enumerate(BOMBS.items()):
        own = folder / str(number)
        own.mkdir()
        paths[name] = str(make(own))
    (folder / "harmless").mkdir()
    (folder / "paths.json").write_text(json.dumps(paths))
    run = subprocess.run(
        [sys.executable, bombs.__file__, str(folder)], capture_output=True, text=True, timeout=120, check=False
    )
    assert run.returncode == 0, run.stderr
    lines = [json.loads(line) for line in run.stdout.splitlines()]
    found = {name: (sentence, seconds, grown) for name, sentence, seconds, grown in lines}
    slowest, largest = (max(answer[i] for answer in found.values()) for i in (1, 2))
    record_figure("bombs", f"{len(found)} cases, each at most {slowest:.2f} s and {largest:.0f} MB more")
    return found


@pytest.mark.parametrize("name", BOMBS)
def test_a_bomb_is_answered_in_a_sentence_at_once(name: str, answers: dict[str, Answer]) -> None:
    sentence, seconds, grown = answers[name]
    expected = BOMBS[name][1]
    assert expected in sentence
    assert expected or not sentence
    assert "\n" not in sentence
    assert seconds <= SECONDS
    assert grown <= MEGABYTES


def arrays(folder: Path) -> Path:
    put(folder, "X.npy", npy((40, 8, 8), data=PIXELS.tobytes()))
    return put(folder, "y.npy", npy((40,), data=LABELS.tobytes())).parent


def rows(folder: Path, pixel: str = "1") -> Path:
    return put(folder, "a.csv", text_lines(40, f"cat,{','.join([pixel] * 4)}") + text_lines(40, "dog,2,2,2,2"))


def sparse_rows(folder: Path) -> Path:
    return put(folder, "a.libsvm", text_lines(9, "1 1:1 4:1") + text_lines(9, "2 1:1"))


def zeros(folder: Path) -> Path:
    np.savez_compressed(folder / "a.npz", X=np.zeros((40, 1024, 1024), np.uint8), y=LABELS)
    return folder / "a.npz"


def class_zip(folder: Path) -> Path:
    with zipfile.ZipFile(folder / "a.zip", "w") as archive:
        for i, label in enumerate(LABELS):
            archive.writestr(f"{label}/{i}.png", png(i))
    return folder / "a.zip"


def encoded_table(folder: Path, ending: str) -> Path:
    return table(folder, f"a.{ending}", image=[png(i) for i in range(40)])


LOWERED = {
    "bytes of an array": ("bytes=1000", arrays),
    "bytes of images": ("bytes=1000", lambda p: class_folders(p, png())),
    "bytes of a table": ("bytes=500", rows),
    "expansion": ("expansion=10", zeros),
    "files of a folder": ("files=10", lambda p: class_folders(p, png())),
    "files of a zip": ("files=10", class_zip),
    "images of an array": ("images=10", arrays),
    "images of a table": ("images=10", lambda p: rows(p, ".5")),
    "images of a Parquet file": ("images=10", lambda p: encoded_table(p, "parquet")),
    "images of an Arrow file": ("images=10", lambda p: encoded_table(p, "arrow")),
    "classes": ("classes=1", arrays),
    "columns of a table": ("columns=3", rows),
    "pixels of a line": (
        "columns=3",
        sparse_rows,
    ),
    "line": ("line=5", rows),
    "encoded file": ("encoded=10", lambda p: class_folders(p, png())),
    "encoded cell": ("encoded=10", lambda p: encoded_table(p, "parquet")),
    "pixels": ("pixels=10", lambda p: class_folders(p, gif(1), "odd.gif")),
}


@pytest.mark.parametrize(("lowered", "make"), LOWERED.values(), ids=LOWERED.keys())
def test_a_limit_can_be_raised_as_its_sentence_says(
    lowered: str, make: Callable[[Path], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = make(tmp_path)
    monkeypatch.setenv(VARIABLE, lowered)
    for _ in range(12):
        with pytest.raises(DataError) as caught:
            read_dataset(path)
        advice = re.search(rf"{VARIABLE}=([a-z]+=\d+)", str(caught.value))
        assert advice is not None, caught.value
        assert advice[1].partition("=")[0] == lowered.partition("=")[0]
        monkeypatch.setenv(VARIABLE, advice[1])
        with contextlib.suppress(DataError):
            assert len(read_dataset(path).train)
            return
    pytest.fail(f"still too low: {advice[1]}")


def test_pixels_may_be_more_than_pillow_allows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 20)
    path = class_folders(tmp_path, gif(1), "odd.gif")
    monkeypatch.setenv(VARIABLE, "pixels=40")
    with pytest.raises(DataError, match=rf"at most 40 pixels is expected, .* set {VARIABLE}=pixels=80"):
        read_dataset(path)
    monkeypatch.setenv(VARIABLE, "pixels=80")
    assert len(read_dataset(path).train)


@pytest.mark.parametrize("text", ["pixel=3", "=3", "3", "bytes=3,,x"])
def test_a_limit_that_is_none_is_named(text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, text)
    with pytest.raises(DataError, match=rf"{VARIABLE}: limits such as .* are expected, from bytes, .*; correct it"):
        read_dataset(arrays(tmp_path))


@pytest.mark.parametrize("number", ["", "-1", "10M", "1e9", "1.5", "²", "9" * 20])
def test_a_limit_is_a_whole_number(number: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, f"bytes=1000000,pixels={number}")
    message = rf"{VARIABLE}: a whole number .* expected after pixels=, got '{number}'; .* such as pixels=64000000$"
    with pytest.raises(DataError, match=message):
        read_dataset(arrays(tmp_path))


def test_a_dictionary_of_images_is_read(tmp_path: Path) -> None:
    for ending in ("parquet", "arrow"):
        plain = encoded_table(tmp_path / "plain", ending)
        coded = table(tmp_path, f"a.{ending}", image=pa.array([png(i) for i in range(40)]).dictionary_encode())
        assert read_dataset(coded).digest() == read_dataset(plain).digest()
        assert len(read_images([coded], image_shape=(8, 8, 1), pixel_range=255).names) == 40
