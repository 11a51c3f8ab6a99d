"""Groups: images of one patient, writer or board are on one side of every split."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from committee.config import recipe_parsing
from committee.config.recipe import Holdout, Recipe
from committee.data.catalog import load_dataset
from committee.data.dataset import ImageDataset
from committee.data.splits import stratified_part, validation_positions
from committee.errors import DataError
from committee.training.plan import plan_training
from committee.training.setting import Setting

RNG = np.random.default_rng(0)
LABELS = RNG.integers(0, 4, 3000)
GROUPS = RNG.integers(0, 60, 3000)  # of 30 to 70 images
NAMES = list("abcd")


def torn(part: np.ndarray, groups: np.ndarray) -> set[int]:
    """Groups with images inside and outside a part."""
    inside = np.isin(np.arange(len(groups)), part)
    return set(groups[inside]) & set(groups[~inside])


@pytest.mark.parametrize(
    "holdout", [Holdout(folds=5), Holdout(kind="fraction", fraction=0.3), Holdout(kind="shared", fraction=0.3)]
)
def test_no_split_tears_a_group_and_classes_stay_in_proportion(holdout: Holdout) -> None:
    parts = validation_positions(LABELS, holdout, 7, 3, NAMES, GROUPS)
    fraction = 0.2 if holdout.kind == "folds" else 0.3
    for part in parts:
        assert torn(part, GROUPS) == set()
        assert len(part) == pytest.approx(fraction * 3000, rel=0.1)
        assert np.bincount(LABELS[part]) == pytest.approx(fraction * np.bincount(LABELS), rel=0.15)
    if holdout.kind == "folds":
        assert np.array_equal(np.sort(np.concatenate(parts[:5])), np.arange(3000))
        assert not np.array_equal(parts[0], parts[5])  # the second draw has other folds
    again = validation_positions(LABELS, holdout, 7, 3, NAMES, GROUPS)
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))


def test_every_class_stays_outside_a_part_of_groups() -> None:
    labels = np.repeat([0, 0, 0, 0, 1], 20)
    groups = np.repeat(np.arange(5), 20)  # all of class 1 is one group
    part = stratified_part(labels, 0.5, np.random.default_rng(0), groups)
    assert set(labels) == set(np.delete(labels, part))
    assert torn(part, groups) == set()


def test_what_groups_forbid_is_said() -> None:
    with pytest.raises(DataError, match="class 'a' has images of 3 groups, but 5 folds need at least 5"):
        validation_positions(LABELS, Holdout(folds=5), 5, 0, NAMES, GROUPS % 3)
    with pytest.raises(DataError, match="may tear groups apart"):
        validation_positions(LABELS, Holdout(kind="last", fraction=0.2), 2, 0, NAMES, GROUPS)


def patients(place: Path, digits: ImageDataset) -> list[str]:
    """Digits in class folders with a folder for each of ten patients; the names of the files in their order."""
    for number in range(200):
        path = place / f"d{digits.train.labels[number]}" / f"patient{number % 10}" / f"p{number % 10}_{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(digits.train.pixels[number, :, :, 0]).save(path)
    return sorted(path.relative_to(place).as_posix() for path in place.rglob("*.png"))


def test_a_path_a_name_and_a_table_give_the_same_groups(digits: ImageDataset, tmp_path: Path) -> None:
    files = patients(tmp_path / "set", digits)
    table, column = tmp_path / "groups.csv", tmp_path / "column.csv"
    table.write_text("file,patient\n" + "".join(f"{name},{name.split('/')[1]}\n" for name in files))
    column.write_text("patient\n" + "".join(f"{name.split('/')[1]}\n" for name in files))
    ways = ["path:2", "path:-1", r"name:^p(\d)_", str(table), str(column)]
    found = [load_dataset(tmp_path / "set", groups=way) for way in ways]
    for dataset in found:
        assert dataset.train.groups is not None
        assert dataset.test._images.groups is not None
        assert set(dataset.train.groups).isdisjoint(dataset.test._images.groups)
        assert len(set(dataset.train.groups) | set(dataset.test._images.groups)) == 10
        assert any("stay on one side of every split: 10 groups, by " in note for note in dataset.notes)
    assert len({dataset.digest() for dataset in found}) == 1
    assert len({dataset.train.groups_digest() for dataset in found}) == 1
    assert load_dataset(tmp_path / "set").train.groups is None


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("path:7", "need so many folders above every image"),
        ("path:first", "need the number of a folder"),
        ("name:^q_(x)", "does not match the pattern of groups"),
        ("name:^p", "need brackets around what names the group"),
        ("patient", "groups are given by path:1"),
    ],
)
def test_groups_that_cannot_be_found_end_in_one_sentence(
    given: str, expected: str, digits: ImageDataset, tmp_path: Path
) -> None:
    patients(tmp_path / "set", digits)
    with pytest.raises(DataError, match=expected):
        load_dataset(tmp_path / "set", groups=given)


def test_groups_are_a_part_of_what_a_training_is(digits: ImageDataset, tmp_path: Path, small_recipe: Recipe) -> None:
    patients(tmp_path / "set", digits)
    recipe = recipe_parsing.load("standard", ["holdout.folds=2", "committee.members=2"])
    plain, grouped = (
        plan_training(load_dataset(tmp_path / "set", groups=groups), recipe, Setting()) for groups in (None, "path:2")
    )
    assert plain.identity.groups is None
    assert grouped.identity.groups is not None
    groups = grouped.dataset.train.groups
    assert groups is not None
    assert all(torn(part, groups) == set() for part in grouped.validation)


def test_a_column_of_a_listing_says_the_groups_and_is_pointed_at(tmp_path: Path) -> None:
    rows = ["image,patient_id,diagnosis"]
    for number in range(40):
        Image.fromarray(np.full((8, 8), 6 * number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
        rows.append(f"{number}.png,p{number % 10},{'ab'[number % 2]}")
    (tmp_path / "labels.csv").write_text("\n".join(rows))
    note = "the column patient_id may say which images belong together (10 values for 40 images)"
    assert any(note in each for each in load_dataset(str(tmp_path)).notes)
    dataset = load_dataset(str(tmp_path), groups="Patient_ID")
    assert dataset.train.groups is not None
    names = [str(name) for name in dataset.train.names or ()]
    patients = np.array([int(name.rpartition("/")[2].removesuffix(".png")) % 10 for name in names])
    pairs = set(zip(patients, dataset.train.groups, strict=True))
    assert len(pairs) == len(set(patients)) < 10  # whole patients are sealed
    assert not any("may say which images" in each for each in dataset.notes)


def test_a_column_of_parquet_says_the_groups(tmp_path: Path) -> None:
    arrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    pixels = np.arange(40 * 16).reshape(40, 16) % 256
    columns = {"pixels": pixels.tolist(), "label": [i % 2 for i in range(40)], "board": [i // 4 for i in range(40)]}
    parquet.write_table(arrow.table(columns), tmp_path / "train.parquet")
    assert any("--groups board" in each for each in load_dataset(str(tmp_path / "train.parquet")).notes)
    train = load_dataset(str(tmp_path / "train.parquet"), groups="board").train
    assert train.groups is not None
    assert np.unique(train.groups, return_counts=True)[1].tolist() == [4] * 8  # two whole boards are sealed


@pytest.mark.parametrize("names", [[f"p{number // 4}" for number in range(40)], list(range(100, 140))])
def test_a_column_of_csv_says_the_groups(names: list[str] | list[int], tmp_path: Path) -> None:
    pixels = np.arange(40 * 16).reshape(40, 16) % 256
    rows = ["writer,label," + ",".join(f"pixel{i}" for i in range(16))]
    rows += [",".join(map(str, [names[i], i % 2, *pixels[i]])) for i in range(40)]
    (tmp_path / "train.csv").write_text("\n".join(rows))
    train = load_dataset(str(tmp_path), groups="writer").train
    assert train.pixels.shape[1:] == (4, 4, 1)
    assert train.groups is not None
    assert len(np.unique(train.groups)) == len(set(names)) * 4 // 5


def test_a_table_of_groups_beside_the_images_is_no_table_of_labels(tmp_path: Path) -> None:
    for number in range(40):
        Image.fromarray(np.full((8, 8), 6 * number, dtype=np.uint8)).save(tmp_path / f"{number}.png")
    labels = [f"{number}.png,{'ab'[number % 2]}" for number in range(40)]
    patients = [f"{number}.png,p{number // 4}" for number in range(40)]
    (tmp_path / "labels.csv").write_text("\n".join(["image,label", *labels]))
    (tmp_path / "groups.csv").write_text("\n".join(["image,patient_id", *patients]))
    dataset = load_dataset(str(tmp_path), groups=str(tmp_path / "groups.csv"))
    assert dataset.class_names == ("a", "b")
    assert dataset.train.groups is not None
    (tmp_path / "groups.csv").unlink()
    with pytest.raises(DataError, match=r"no column 'labl' among image, label \(did you mean 'label'\?\)"):
        load_dataset(str(tmp_path), groups="labl")
