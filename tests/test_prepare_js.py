"""The page's own preparation of photographs and drawings, in JavaScript, against Python's: the same pixels."""

from __future__ import annotations

import json
import shutil
import subprocess
from io import BytesIO
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from committee.data.catalog import load_dataset
from committee.data.prepare import How, Preparation, Writing, measure
from committee.errors import DataError
from photographs import STYLES, framed, photograph

WEB = Path(__file__).parents[1] / "src" / "committee" / "web"
NODE = shutil.which("node")
DRIVER = """
const fs = require("fs");
for (const name of ["planes", "ink", "prepare"]) require(`${process.argv[1]}/${name}.js`);
const bytes = fs.readFileSync(0), end = bytes.indexOf(10);
let at = end + 1;
const answers = JSON.parse(bytes.subarray(0, end)).map(({ width, height, options }) => {
  const rgba = new Uint8ClampedArray(bytes.subarray(at, (at += 4 * width * height)));
  try {
    const made = globalThis.committeePage.prepare(rgba, width, height, options);
    return { ...made, kind: made.pixels.constructor.name, pixels: Array.from(made.pixels) };
  } catch (error) {
    return { error: error.message };
  }
});
console.log(JSON.stringify(answers));
"""

pytestmark = pytest.mark.skipif(NODE is None, reason="node, which runs the page's scripts here, is not installed")


class Case(NamedTuple):
    """An image (height, width, channel), what it is prepared for, and how."""

    image: NDArray[np.uint8]
    shape: tuple[int, int, int] = (28, 28, 1)
    writing: Writing | None = None
    how: How = "auto"
    pixel_range: int = 255


def by_page(cases: list[Case]) -> list[dict[str, Any]]:
    """What the page's scripts make of images, all in one node."""
    heads = []
    for case in cases:
        writing = case.writing and case.writing.model_dump(mode="json")
        options = {"shape": case.shape, "pixelRange": case.pixel_range, "writing": writing, "how": case.how}
        heads.append({"height": case.image.shape[0], "width": case.image.shape[1], "options": options})
    pixels = b"".join(Image.fromarray(case.image.squeeze()).convert("RGBA").tobytes() for case in cases)
    said = subprocess.run(
        [NODE or "node", "-e", DRIVER, str(WEB)],
        input=json.dumps(heads).encode() + b"\n" + pixels,
        capture_output=True,
        check=True,
    )
    found: list[dict[str, Any]] = json.loads(said.stdout)
    return found


def differences(cases: list[Case]) -> NDArray[np.int64]:
    """(case, 2): pixels that the page and Python make different, and by how much at most; the rest must be equal."""
    found = []
    for case, made in zip(cases, by_page(cases), strict=True):
        preparation = Preparation(case.shape, case.pixel_range, case.writing, case.how)
        wanted = preparation(case.image[None], "image")[0]
        original = preparation.originals[0]
        assert (made["prepared"], made["isEmpty"]) == (original.prepared, original.is_empty)
        assert made["kind"] == ("Uint8Array" if case.pixel_range == 255 else "Uint16Array")
        apart = np.abs(np.reshape(made["pixels"], case.shape) - wanted.astype(int))
        found.append((int((apart > 0).sum()), int(apart.max())))
    return np.array(found)


def drawing(rng: np.random.Generator, side: int = 448) -> NDArray[np.uint8]:
    """Two anti-aliased strokes of a round pen, dark on white, as the page's sheet has them."""
    image = Image.new("L", (4 * side, 4 * side), 255)
    draw = ImageDraw.Draw(image)
    for _ in range(2):
        points = rng.uniform(0.2, 0.8, (4, 2)) * 4 * side
        wide = int(0.055 * 4 * side)
        draw.line([tuple(point) for point in points], fill=24, width=wide, joint="curve")
        for x, y in points:
            draw.ellipse((x - wide / 2, y - wide / 2, x + wide / 2, y + wide / 2), fill=24)
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))[..., None]


@pytest.fixture(scope="module")
def frames() -> NDArray[np.uint8]:
    """Sixty real digits, framed as MNIST's are: (image, height, width, channel)."""
    digits = load_dataset("digits").train.pixels[:60, ..., 0]
    return np.stack([framed(each) for each in digits])[..., None]


@pytest.fixture(scope="module")
def writing(frames: NDArray[np.uint8]) -> Writing:
    """Their measures."""
    found = measure(frames)
    assert found is not None
    return found


def test_photographs_and_drawings_become_the_pixels_that_python_makes(
    frames: NDArray[np.uint8], writing: Writing
) -> None:
    """Floats are summed in another order here and there: of 200 photographs of MNIST's digits, 3 differed, by 1."""
    rng = np.random.default_rng(0)
    photographs = [photograph(frames[i, ..., 0], style, rng) for i, style in enumerate(STYLES.values())]
    images = [np.asarray(Image.open(BytesIO(each))) for each in photographs] + [drawing(rng) for _ in range(2)]
    found = differences([Case(image, writing=writing) for image in images])
    assert found[:, 1].max() <= 1
    assert (found[:, 0] > 0).sum() <= 1


def test_images_like_the_training_images_stay_as_they_are(frames: NDArray[np.uint8], writing: Writing) -> None:
    cases = [Case(image, writing=writing) for image in frames[:20]]
    for case, made in zip(cases, by_page(cases), strict=True):
        assert not made["prepared"]
        assert made["pixels"] == case.image.ravel().tolist()


def test_colours_sizes_depths_and_alpha_become_those_of_the_training_images(
    frames: NDArray[np.uint8], writing: Writing
) -> None:
    """Resized as they are, larger and smaller, or prepared; an empty sheet is empty; alpha is ink, or an error."""
    rng = np.random.default_rng(1)
    colour = rng.integers(0, 256, (61, 90, 3), np.uint8)
    clear = np.concatenate([colour, rng.integers(0, 256, (61, 90, 1), np.uint8)], axis=2)
    sheet = rng.normal(235, 3, (200, 300, 1)).clip(0, 255).astype(np.uint8)
    alpha = np.concatenate([np.zeros((448, 448, 3), np.uint8), 255 - drawing(rng)], axis=2)
    large = np.kron(frames[0], np.ones((6, 6, 1), np.uint8))
    cases = [
        Case(colour, (32, 32, 3)),
        Case(colour, (100, 120, 3)),
        Case(colour, (61, 90, 1)),
        Case(colour, (20, 31, 4), pixel_range=65535),
        Case(clear, (20, 31, 4)),
        Case(clear, (90, 90, 2)),
        Case(sheet, (64, 64, 3)),
        Case(sheet, writing=writing),
        Case(alpha, writing=writing),
        Case(alpha, (28, 28, 4), writing, pixel_range=65535),
        Case(drawing(rng), writing=writing, how="as-is"),
        Case(frames[1], writing=writing, how="digits"),
        Case(large, writing=writing),
    ]
    assert differences(cases).max() <= 1  # one pixel, by 1
    errors = [
        (Case(clear, (28, 28, 1)), "Parts of the image are transparent, where opaque images are expected"),
        (Case(colour, (28, 28, 1), how="digits"), "Preparing digits needs training images of isolated writing"),
    ]
    for (case, sentence), made in zip(errors, by_page([case for case, _ in errors]), strict=True):
        assert made["error"].startswith(sentence)
        with pytest.raises(DataError, match=sentence[1:]):
            Preparation(case.shape, 255, case.writing, case.how)(case.image[None], "image")
