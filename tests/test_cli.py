"""The command line: bad input ends in one sentence, status 2 and nothing written; every command is documented."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Callable
from pathlib import Path

import click
import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from committee.cli.main import main
from committee.cli.reference import file_reference, pages, reference
from committee.data.dataset import ImageDataset

ROOT = Path(__file__).parents[1]


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def folder_of_classes(place: Path, digits: ImageDataset, images: int = 40) -> Path:
    """Real digits as PNG files in class folders."""
    for number, (pixels, label) in enumerate(zip(digits.train.pixels, digits.train.labels, strict=True)):
        if number == images:
            break
        target = place / f"digit {label}" / f"{number:03d}.png"
        target.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[:, :, 0]).save(target)
    return place


def npz(path: Path, **arrays: object) -> Path:
    np.savez(path, **arrays)  # type: ignore[arg-type]
    return path


def unreadable_image(place: Path, digits: ImageDataset) -> Path:
    folder_of_classes(place / "photos", digits)
    broken = next((place / "photos").glob("digit 3/*.png"))
    broken.write_bytes(b"this is not a PNG file")
    return place / "photos"


def truncated_idx(place: Path, digits: ImageDataset) -> Path:
    images, labels = digits.train.pixels[:100, :, :, 0], digits.train.labels[:100]
    header = bytes([0, 0, 8, 3]) + b"".join(n.to_bytes(4, "big") for n in images.shape)
    (place / "idx").mkdir()
    with gzip.open(place / "idx" / "train-images-idx3-ubyte.gz", "wb") as file:
        file.write(header + images.tobytes()[:-500])
    (place / "idx" / "train-labels-idx1-ubyte").write_bytes(
        bytes([0, 0, 8, 1]) + (100).to_bytes(4, "big") + labels.astype(np.uint8).tobytes()
    )
    return place / "idx"


def label_out_of_range(place: Path, digits: ImageDataset) -> Path:
    labels = digits.train.labels[:100].copy()
    labels[37] = 10
    names = np.array([f"digit {n}" for n in range(10)])
    return npz(place / "data.npz", images=digits.train.pixels[:100], labels=labels, class_names=names)


def rare_class(place: Path, digits: ImageDataset) -> Path:
    labels = digits.train.labels
    chosen = np.concatenate([np.flatnonzero(labels == 0)[:50], np.flatnonzero(labels == 1)[:4]])
    return npz(place / "rare.npz", images=digits.train.pixels[chosen], labels=labels[chosen])


def single_class(place: Path, digits: ImageDataset) -> Path:
    return npz(place / "one.npz", images=digits.train.pixels[:20], labels=np.zeros(20, dtype=np.int64))


def empty_set(place: Path, digits: ImageDataset) -> Path:
    return npz(place / "none.npz", images=digits.train.pixels[:0], labels=digits.train.labels[:0])


def not_a_number(place: Path, digits: ImageDataset) -> Path:
    images = digits.train.pixels[:60].astype(np.float32) / 255
    images[11, 2, 2] = np.nan
    return npz(place / "nan.npz", images=images, labels=digits.train.labels[:60])


def mixed_channels(place: Path, digits: ImageDataset) -> Path:
    folder_of_classes(place / "mixed", digits)
    first = min((place / "mixed").glob("digit 1/*.png"))
    Image.open(first).convert("RGB").save(first)
    return place / "mixed"


BAD = [
    (unreadable_image, ["photos", "digit 3", ".png"]),
    (truncated_idx, ["train-images-idx3-ubyte.gz", "6,400", "5,900"]),
    (label_out_of_range, ["data.npz", "37", "10", "9"]),
    (rare_class, ["class '1' has 3 training images, but 5 folds need at least 5 of each class"]),
    (single_class, ["one.npz", "class"]),
    (empty_set, ["none.npz", "no images"]),
    (not_a_number, ["nan.npz", "11"]),
    (mixed_channels, ["mixed", "digit 1", "channel"]),
]


@pytest.mark.parametrize(("make", "expected"), BAD, ids=lambda value: getattr(value, "__name__", ""))
def test_bad_data_ends_in_one_sentence_and_leaves_nothing(
    make: Callable[[Path, ImageDataset], Path], expected: list[str], digits: ImageDataset, tmp_path: Path
) -> None:
    path = make(tmp_path, digits)
    before = sorted(tmp_path.rglob("*"))
    result = call("train", path, "--out", tmp_path / "run")
    assert result.exit_code == 2
    assert result.stdout == ""
    lines = result.stderr.strip().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("Error: ")
    assert all(part in lines[0] for part in expected), lines[0]
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["train", "digits", "--recipe", "standrd"], "there is no recipe 'standrd' (did you mean 'standard'?)"),
        (
            ["train", "digits", "--set", "training.epoch=3", "--set", "holdout.kind=fold"],
            "recipe standard has 2 faults: ",
        ),
        (["train", "mnits"], "(did you mean 'mnist'?)"),
        (["train", "digits", "--recipe", "ensemble-cnn"], "layer 9 of the network (conv) needs at least 3x3 pixels"),
        (
            ["train", "digits", "--device", "tpu"],
            "--device must be auto or one that this machine and this PyTorch have",
        ),
        (["train", "digits", "--precision", "int4"], "--precision must be auto, bfloat16 or float32; got 'int4'"),
        (["recipes", "check", "nothing.toml"], "there is no recipe 'nothing.toml'"),
        (["predict", "nowhere", "."], "there is no run folder nowhere"),
        (["report", "."], "is not a run folder"),
        (["trian", "digits"], "there is no command 'trian' (did you mean 'train'?)"),
    ],
)
def test_wrong_arguments_end_in_one_sentence(
    arguments: list[str], expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    result = call(*arguments)
    assert result.exit_code == 2
    assert expected in result.stderr
    assert "Traceback" not in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_data_info_gives_one_digest_for_the_same_images(digits: ImageDataset, tmp_path: Path) -> None:
    folder_of_classes(tmp_path / "folder", digits)
    names = np.array([f"digit {label}" for label in digits.train.labels[:40]])
    order = np.random.default_rng(0).permutation(40)
    path = npz(tmp_path / "array.npz", images=digits.train.pixels[:40][order], labels=names[order])
    answers = []
    for data in (tmp_path / "folder", path):
        result = call("data", "info", data, "--json", "--picture", tmp_path / "picture.png")
        assert result.exit_code == 0, result.output
        answers.append(json.loads(result.stdout))
    assert answers[0]["digest"] == answers[1]["digest"]
    assert answers[0]["images"] == 40
    assert answers[0]["classes"] == 10
    assert answers[0]["shape"] == [8, 8, 1]
    with Image.open(tmp_path / "picture.png") as picture:
        assert picture.size[0] > 300


def test_data_augment_draws_what_the_recipe_does(tmp_path: Path) -> None:
    result = call("data", "augment", "digits", "--set", "augmentation.rotation=30", "--picture", tmp_path / "a.png")
    assert result.exit_code == 0, result.output
    assert "Augmentation: rotation 30.0, zoom 0.15, shear 0.2, shift 0.1\n" in result.stdout
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size[0] > 300
        assert len(picture.convert("L").getcolors() or []) > 50  # it is not empty
    other = call("data", "augment", "digits", "--recipe", "ensemble-cnn", "--picture", tmp_path / "b.png")
    assert other.exit_code == 2
    assert other.stderr.startswith("Error: recipe ensemble-cnn has no augmentation; give one that has, or --set ")
    assert not (tmp_path / "b.png").exists()


@pytest.mark.parametrize(
    ("command", "names"),
    [
        ("recipes", ["best", "clothes", "ensemble-cnn", "fast", "few", "standard"]),
        ("studies", ["conv-committee", "ladder", "variants", "variants-grid"]),
    ],
)
def test_what_is_shipped_is_listed_and_what_is_shown_can_be_checked_and_changed(
    command: str, names: list[str], tmp_path: Path
) -> None:
    lines = call(command, "list").stdout.splitlines()
    assert [line.split()[0] for line in lines] == names
    assert all(len(line.split()) > 4 for line in lines)  # each says what it is for
    for name in names:
        shown = tmp_path / f"{name}.toml"
        shown.write_text(call(command, "show", name).stdout)
        assert call(command, "check", shown).stdout == call(command, "check", name).stdout
        assert f"{name} is valid" in call(command, "check", shown).stdout
    shown.write_text(shown.read_text().replace("summary", "sumary", 1))
    wrong = call(command, "check", shown)
    assert wrong.exit_code == 2
    assert str(shown) in wrong.stderr
    assert "sumary" in wrong.stderr


@pytest.mark.filterwarnings("default::committee.config.renames.RenamedFieldNote")
def test_a_name_of_version_0_4_is_accepted_with_a_note(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(call("recipes", "show", "standard").stdout.replace("batch_size", "batch").replace("\nlr", "\nrate"))
    result = call("recipes", "check", mine)
    assert result.stdout == call("recipes", "check", "standard").stdout  # the digest, too
    (note,) = result.stderr.splitlines()
    assert note.endswith("training.batch is now called batch_size; optimiser.rate is now called lr")


def test_models_summary_prints_the_published_count() -> None:
    result = call("models", "summary", "ensemble-cnn")
    assert "331,450" in result.stdout
    assert "204,928" in result.stdout


def test_the_command_reference_is_current_and_every_command_has_an_example() -> None:
    assert (ROOT / "docs" / "cli.md").read_text() == reference(), "run make docs"
    assert (ROOT / "docs" / "recipes.md").read_text() == file_reference(), "run make docs"
    for path, text in pages(main, "committee"):
        assert "Example:" in text, path
    assert isinstance(main, click.Group)


def test_predictions_are_written_in_the_format_of_the_file_and_compare_names_what_differs(
    tmp_path: Path, digits: ImageDataset
) -> None:
    base = ["train", "digits", "--members", "2", "--set", "holdout.folds=2", "--set", "network.widths=[8,8,8]"]
    for epochs in ("1", "2"):
        result = call(*base, "--epochs", epochs, "--workers", "1", "--out", tmp_path / epochs)
        assert result.exit_code == 0, result.output
    images = tmp_path / "images.npy"
    np.save(images, np.zeros((2, 8, 8), dtype=np.uint8))
    assert call("predict", tmp_path / "1", images, "--out", tmp_path / "answers.json").exit_code == 0
    assert [row["image"] for row in json.loads((tmp_path / "answers.json").read_text())] == [
        f"images.npy[{number}]" for number in (0, 1)
    ]
    assert call("predict", tmp_path / "1", images, "--out", tmp_path / "answers.csv").exit_code == 0
    assert (tmp_path / "answers.csv").read_text().startswith("image,prediction,probability,")
    for wrong in (["--out", "answers.xlsx"], ["--out", "answers.txt", "--format", "table"]):
        refused = call("predict", tmp_path / "1", images, *wrong)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("Error: a file of predictions is csv, json or parquet, got ")
    photos = unreadable_image(tmp_path, digits)
    partly = call("predict", tmp_path / "1", photos, "--out", tmp_path / "partly.csv")
    assert partly.exit_code == 3
    assert partly.stderr.startswith("1 image cannot be read and 39 images can:\n  ")
    with (tmp_path / "partly.csv").open(newline="") as file:
        *answers, broken = csv.DictReader(file)
    assert [row["image"] for row in answers] == sorted(row["image"] for row in answers)
    assert [len(answers), answers[0]["error"], broken["prediction"]] == [39, "", ""]
    assert broken["image"].startswith("digit 3/")
    assert "image is expected, got a file of another kind" in broken["error"]
    *_, listed = json.loads(call("predict", tmp_path / "1", photos, "--format", "json").stdout)
    assert listed == {"image": broken["image"], "error": broken["error"]}
    skipped = call("data", "info", photos, "--skip-unreadable", "--channels", "colour", "--json", "--picture",
                   tmp_path / "samples.png")  # fmt: skip
    assert (json.loads(skipped.stdout)["images"], json.loads(skipped.stdout)["shape"]) == (39, [8, 8, 3])
    lines = call("compare", tmp_path / "1", tmp_path / "2").stdout.splitlines()
    assert lines[1:3] == ["A and B differ in:", "  training.epochs: 1 in A, 2 in B"]


def test_a_changed_recipe_with_a_shipped_name_is_accepted_with_a_note(tmp_path: Path) -> None:
    mine = tmp_path / "mine.toml"
    mine.write_text(call("recipes", "show", "standard").stdout)
    assert call("recipes", "check", mine).stderr == ""
    mine.write_text(mine.read_text().replace("epochs = 13", "epochs = 5"))
    result = call("recipes", "check", mine)
    assert result.exit_code == 0
    assert result.stderr.startswith(f"Note: {mine} differs from the shipped recipe standard, whose name it has; ")
