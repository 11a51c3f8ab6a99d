"""Numbers that are no pixels: their range is that of the whole training part, said, recorded and used by predict."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from committee.cli.main import main
from committee.data import catalog
from committee.data.dataset import ImageDataset, open_test
from committee.data.read_options import ReadOptions, ValueRange
from committee.data.readers import read_dataset
from committee.data.summary import DatasetSummary, describe
from committee.data.to_classify import read_images
from committee.errors import DataError

Part = tuple[NDArray[Any], NDArray[Any]]


@pytest.fixture(scope="module")
def digits() -> Part:
    """Real digits, 8x8, 0 to 255."""
    dataset = catalog.load_dataset("digits")
    return dataset.train.pixels[:200, ..., 0], dataset.train.labels[:200]


def as_npz(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> Path:
    np.savez(path / "set.npz", x_train=images[:150], y_train=labels[:150], x_test=images[150:], y_test=labels[150:])
    return path / "set.npz"


def as_csv(path: Path, images: NDArray[Any], labels: NDArray[Any]) -> Path:
    for name, part in (("train", slice(150)), ("test", slice(150, None))):
        rows = [",".join(map(str, [y, *x.ravel()])) for x, y in zip(images[part], labels[part], strict=True)]
        (path / f"{name}.csv").write_text("\n".join(["label," + ",".join(f"p{i}" for i in range(64)), *rows]))
    return path


@pytest.mark.parametrize("write", [as_npz, as_csv])
@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda x: x / 255, (0, 1)),
        (lambda x: (x / 127.5 - 1).astype(np.float32), (-1, 1)),
        (lambda x: x * 1.0, (0, 255)),
        (lambda x: x / 255 * 6 - 3, (-3, 3)),
    ],
)
def test_the_usual_ranges_give_the_pixels_back_and_others_more_bits(
    write: Callable[..., Path],
    change: Callable[..., NDArray[Any]],
    expected: tuple[float, float],
    tmp_path: Path,
    digits: Part,
) -> None:
    images, labels = digits
    dataset = read_dataset(write(tmp_path, change(images), labels))
    if write is as_csv and expected == (0, 255):
        return  # whole numbers in a table are integers, and stay
    assert dataset.value_range is not None
    assert (dataset.value_range.low, dataset.value_range.high) == pytest.approx(expected, abs=1e-6)
    wide = expected == (-3, 3)
    assert dataset.pixel_range == (65535 if wide else 255)
    assert np.array_equal(dataset.train.pixels[..., 0], images[:150] * (np.uint16(257) if wide else np.uint8(1)))
    said = "values from" in " ".join(dataset.notes)
    assert said == (expected != (0, 255))
    shown = describe(dataset)
    assert DatasetSummary.model_validate_json(shown.model_dump_json()) == shown
    assert shown.value_range == dataset.value_range
    old = {name: value for name, value in shown.model_dump(mode="json").items() if name != "value_range"}
    assert DatasetSummary.model_validate(old).value_range is None  # folders of 0.5.0 and before


def read_one(path: Path, image: NDArray[Any], dataset: ImageDataset) -> NDArray[Any]:
    np.save(path / "one.npy", image[None])
    form = {"image_shape": dataset.image_shape, "pixel_range": dataset.pixel_range}
    return read_images([path / "one.npy"], **form, value_range=dataset.value_range).pixels[0, ..., 0]  # type: ignore[arg-type]


def test_an_image_to_classify_is_scaled_as_the_training_images_were(tmp_path: Path, digits: Part) -> None:
    images, labels = digits
    dim = images[0] // 3
    signed = read_dataset(as_npz(tmp_path, images / 127.5 - 1, labels))
    assert np.array_equal(read_one(tmp_path, dim / 127.5 - 1, signed), dim)
    assert np.array_equal(read_one(tmp_path, dim, signed), dim)  # 8-bit pixels are pixels
    wide = read_dataset(as_npz(tmp_path, images / 255 * 6 - 3, labels))
    assert np.array_equal(read_one(tmp_path, dim / 255 * 6 - 3, wide), dim * np.uint16(257))
    assert read_one(tmp_path, np.full((8, 8), 4.0), wide).min() == 65535  # a little brighter than any: white
    whole = read_dataset(as_npz(tmp_path, images * 1.0, labels))
    assert read_one(tmp_path, np.eye(8), whole).max() == 1  # nearly black, not white
    for dataset, other in ((signed, images[0] * 1.0), (wide, images[0] * 1.0), (whole, images[0] / 255)):
        with pytest.raises(DataError, match=r"one\.npy: values from .* like the training images"):
            read_one(tmp_path, other, dataset)


def test_a_few_images_alone_show_no_range_of_their_own(tmp_path: Path, digits: Part) -> None:
    """Scaled by themselves, a dark image would become a bright one: as before, what is no pixel is refused."""
    images, labels = digits
    pixels = read_dataset(as_npz(tmp_path, images, labels))
    assert pixels.value_range is None
    assert np.array_equal(read_one(tmp_path, images[0] / 255, pixels), images[0])
    for change in (lambda x: x / 127.5 - 1, lambda x: x / 255 * 6 - 3, lambda x: x / 2.5, lambda x: x.astype(int) - 9):
        with pytest.raises(DataError, match=r"one\.npy: .* are expected, since the training images were pixels, got"):
            read_one(tmp_path, change(images[0]), pixels)


def test_a_given_range_is_used_for_all_numbers_and_says_what_it_cut_off(tmp_path: Path, digits: Part) -> None:
    images, labels = digits
    sixteenths = np.rint(images / (255 / 16)).astype(np.uint8)
    path = as_npz(tmp_path, sixteenths, labels)
    dataset = read_dataset(path, ReadOptions(pixel_range=(0, 16)))
    assert np.array_equal(dataset.train.pixels[..., 0], np.rint(sixteenths[:150] * (255 / 16)))
    assert dataset.value_range == ValueRange(low=0, high=16, given=True)
    assert "values from 0 (black) to 16 (white) were scaled to pixels, as given" in dataset.notes
    assert np.array_equal(read_one(tmp_path, sixteenths[0], dataset), dataset.train.pixels[0, ..., 0])
    window = read_dataset(as_npz(tmp_path, images * 16.0 - 1000, labels), ReadOptions(pixel_range=(-1000, 600)))
    assert "200 images have values outside this range, which became black or white" in window.notes
    assert np.array_equal(window.train.pixels[..., 0] == 65535, images[:150] >= 100)
    tested = open_test(window, tmp_path / "record", "test").pixels
    assert np.array_equal(read_one(tmp_path, images[150] * 16.0 - 1000, window), tested[0, ..., 0])
    with pytest.raises(DataError, match="got 3 and 1; give them as LOW,HIGH"):
        read_dataset(path, ReadOptions(pixel_range=(3, 1)))


def test_whole_numbers_that_use_little_of_the_range_are_questioned(tmp_path: Path, digits: Part) -> None:
    images, labels = digits
    dataset = read_dataset(as_npz(tmp_path, np.rint(images / (255 / 16)), labels))
    assert dataset.train.pixels.max() == 16
    assert "the highest value of a pixel is 16 of 255; if 16 means white, give --pixel-range 0,16" in dataset.notes


def test_the_command_line_takes_a_range_and_predicts_with_the_one_of_the_training(tmp_path: Path, digits: Part) -> None:
    images, labels = digits

    def call(*arguments: str | Path) -> str:
        result = CliRunner().invoke(main, list(map(str, arguments)), catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.output

    run, path = tmp_path / "run", as_npz(tmp_path, images / 255 * 6 - 3, labels)
    small = ["--members", "1", "--epochs", "1", "--set", "network.widths=[16,16,16]", "--set", "holdout.folds=2"]
    call("train", path, *small, "--out", run)
    dim = images[:3] // 3
    np.save(tmp_path / "pixels.npy", dim)
    np.save(tmp_path / "floats.npy", dim / 255 * 6 - 3)
    answers = [call("predict", run, tmp_path / f"{name}.npy", "--format", "csv") for name in ("pixels", "floats")]
    assert answers[0].replace("pixels.npy", "floats.npy") == answers[1]
    picture = ["--picture", str(tmp_path / "a.png")]
    info = json.loads(call("data", "info", path, "--pixel-range", "-1,0", "--json", *picture))
    assert info["value_range"] == {"low": -1, "high": 0, "given": True}
    refused = CliRunner().invoke(main, ["data", "info", str(path), "--pixel-range", "0;1"])
    assert "two numbers are expected, such as 0,1 or -1,1, got '0;1'" in refused.stderr
