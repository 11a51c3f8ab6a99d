"""`committee card`: the hub reads its head, people its text, and what it says to run runs, whatever the names are."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from markdown_it import MarkdownIt
from PIL import Image

import committee
from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.export.card import CARD, card_text
from committee.export.card_metadata import yaml_text
from committee.folders.run_folder import RunFolder
from committee.names import visible

pytest.importorskip("onnxscript")
HOSTILE = (
    'a"|b',
    "[x](http://e)",
    "{{7*7}}",
    "\u202eabc",
    "<b>x</b>",
    "line\nbreak",
    "# @id",
    "![i](u)",
    "ü😀",
    "null",
)
NAME = "*my* <data> | x"


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def data(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Real digits with names that nobody would wish for, in a folder that nobody should hear of."""
    file = tmp_path_factory.mktemp("secret-patients") / f"{NAME}.npz"
    parts = {"x_train": digits.train.pixels, "y_train": digits.train.labels}
    parts |= {"x_test": digits.test._images.pixels, "y_test": digits.test._images.labels}
    np.savez(file, **parts, class_names=np.array(HOSTILE))
    return file


@pytest.fixture(scope="module")
def run(data: Path) -> Path:
    folder = data.parent / "run"
    result = call(
        "train", data, "--recipe", "fast", "--members", "2", "--epochs", "4", "--workers", "1", "--out", folder
    )
    assert result.exit_code == 0, result.output
    return folder


@pytest.fixture(scope="module")
def card(run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cards") / "card"
    (folder / ".git").mkdir(parents=True)
    (folder / ".git" / "HEAD").touch()
    result = call("card", run, folder, "--license", "CC-BY-4.0")
    assert result.exit_code == 0, result.output
    return folder


def test_the_hub_reads_its_head(card: Path, run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    loaded = hub.ModelCard.load(card / CARD).data
    results = RunFolder(run).results
    assert results.test
    assert results.out_of_fold
    assert (loaded.license, loaded.pipeline_tag, loaded.model_name) == (
        "cc-by-4.0",
        "image-classification",
        f"{NAME}-fast",
    )
    accuracies = {
        each.dataset_split: (each.metric_value, each.metric_name, each.dataset_name)
        for each in loaded.eval_results
        if each.metric_type == "accuracy"
    }
    low, high = results.test.accuracy_interval.low, results.test.accuracy_interval.high
    assert accuracies["test"][0] == pytest.approx(results.test.accuracy, abs=1e-6)
    assert accuracies["test"][1] == f"Accuracy (n = 359; 95 % interval {100 * low:.2f} % to {100 * high:.2f} %)"
    assert accuracies["test"][2] == NAME
    assert accuracies["train"][1].startswith(f"Accuracy, out of fold (n = {results.out_of_fold.images:,};")


def test_yaml_is_read_as_what_was_meant() -> None:
    import yaml  # noqa: TID251 - as the hub's package reads it

    values = {
        "a": ["no", "null", "1.0", "x: y", "- z", "#", "", "\u2028\u0085\x7f😀\u202e", '"\\'],
        "1 b": 1e-6,
        "c": 3,
    }
    nested = {"d": [{"e": {"f": 0.25, "g": [1, True, None]}}, {}], "h": {}, "i": []}
    assert yaml.safe_load(yaml_text(values | nested)) == values | nested  # type: ignore[operator, arg-type]


def test_names_from_data_are_text_and_no_place_is_told(card: Path, data: Path) -> None:
    body = (card / CARD).read_text("utf-8").split("\n---\n", 1)[1]
    tokens = MarkdownIt("gfm-like", {"linkify": False}).parse(body)
    inline = [child for token in tokens for child in token.children or []]
    html = [token.content for token in (*tokens, *inline) if token.type.startswith("html")]
    assert all(re.fullmatch(r'<img src="figures/\w+\.png" alt="[\w ,:]+" width="520">\n?', each) for each in html)
    assert not [child.type for child in inline if child.type in ("link_open", "image", "em_open", "s_open")]
    assert [token.tag for token in tokens if token.type == "heading_open"].count("h1") == 1
    cells = [token.content for token in tokens if token.type == "inline"]
    shown = ["".join(child.content for child in token.children or []) for token in tokens if token.type == "inline"]
    assert not any("\u202e" in cell or "\n" in cell for cell in cells if "|" in cell)
    assert set(map(visible, HOSTILE)) <= set(shown)
    for file in (path for path in card.iterdir() if path.is_file()):
        assert b"secret-patients" not in file.read_bytes(), file.name


def test_what_it_says_to_run_gives_the_committees_answers(card: Path, run: Path, data: Path, tmp_path: Path) -> None:
    """Grey, colour, with a palette, with 16 bits, in other sizes; with three packages and nothing of this one."""
    digit = committee.load_dataset(data).train.pixels[3, ..., 0]
    large = Image.fromarray(digit).resize((21, 30), Image.Resampling.BICUBIC)
    colours = Image.merge("RGB", [large, large.point(lambda value: 255 - value), large.rotate(90)])
    pictures = {
        "grey": Image.fromarray(digit),
        "large": large,
        "colour": colours,
        "palette": colours.quantize(16),
        "wide": Image.fromarray(np.asarray(large).astype(np.uint16) * 201),
        "bits": large.convert("1"),
        "alpha": Image.merge("LA", [large, Image.new("L", large.size, 255)]),
    }
    paths = [tmp_path / f"{name}.png" for name in pictures]
    for path, picture in zip(paths, pictures.values(), strict=True):
        picture.save(path)
    example = str(card / "example.py")
    code = f"import runpy, sys; sys.argv[0] = {example!r}; runpy.run_path(sys.argv[0], run_name='__main__')"
    code += "; assert not {'torch', 'committee', 'onnx'} & set(sys.modules)"
    shown = subprocess.run(
        [sys.executable, "-I", "-c", code, *map(str, paths)], capture_output=True, text=True, check=True
    )
    trained = committee.load(run)
    answers = trained.answer(trained.read_images(paths, "as-is").pixels)
    for line, path, chances, known in zip(
        shown.stdout.splitlines(), paths, answers.probabilities, answers.familiar, strict=True
    ):
        best = int(chances.argmax())
        start, _, numbers = line.rpartition(", probability ")
        assert start == f"{path}: {HOSTILE[best]!a}"
        probability, familiar = (float(number) for number in numbers.split(", familiar "))
        assert probability == pytest.approx(chances[best], abs=2e-2)  # trained in bfloat16, exported in float32
        assert familiar == pytest.approx(known, abs=2e-2)


def test_it_writes_over_itself_and_over_nothing_else(card: Path, run: Path, tmp_path: Path) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "thesis.tex").touch()
    (tmp_path / "own" / CARD).write_text("# My project")
    for folder, named in ((tmp_path / "thesis", "thesis.tex"), (tmp_path / "own", CARD)):
        result = call("card", run, folder)
        assert result.exit_code == 2
        assert named in result.output
    assert (tmp_path / "own" / CARD).read_text() == "# My project"
    from committee.export.card import check_free

    check_free(card)


def test_a_run_that_kept_its_test_images_sealed_says_so(card: Path, run: Path) -> None:
    folder = RunFolder(run)
    folder.results = folder.results.model_copy(update={"test": None, "test_openings": ()})
    proof = json.loads((card / "model.proof.json").read_text())["proof"]
    from committee.ensemble.export_record import Proof

    text = card_text(folder, Proof.model_validate(proof), card, None)
    assert "training images, out of fold." in text
    assert "The test images have never been opened" in text
    assert "has stated no licence" in text
    assert 'split: "test"' not in text


def test_a_licence_that_the_hub_cannot_know_is_refused(run: Path, tmp_path: Path) -> None:
    result = call("card", run, tmp_path / "card", "--license", "my own licence")
    assert result.exit_code == 2
    assert "apache-2.0" in result.output
    assert not (tmp_path / "card").exists()
