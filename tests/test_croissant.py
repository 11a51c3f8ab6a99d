"""Croissant metadata as MLCommons' own reader takes them: names from data stay names, records are the images."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from committee.cli.main import main
from committee.data.convert import to_parquet
from committee.data.croissant import croissant
from committee.data.dataset import ImageDataset
from committee.data.published import PUBLISHED
from committee.data.summary import describe

HOSTILE = (
    'a"|b',
    "[x](http://e)",
    "{{7*7}}",
    "\u202eabc",
    "<b>",
    "line\nbreak",
    "@id",
    "http://e.org/x",
    "ü😀",
    "null",
)


def read(file: Path) -> Any:
    """The data set as `mlcroissant` sees it; what it cannot read it raises."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        mlcroissant = pytest.importorskip("mlcroissant")
        return mlcroissant.Dataset(str(file))


def rows(dataset: Any, name: str) -> list[dict[str, Any]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return list(dataset.records(name))


def test_converted_images_are_records_with_their_labels_and_names(digits: ImageDataset, tmp_path: Path) -> None:
    named = replace(digits, class_names=HOSTILE)
    files = to_parquet(named, tmp_path / "a")
    found = read(files[-1])
    for part, images in (("train", named.train), ("test", named.test._images)):
        records = rows(found, part)
        assert [record[f"{part}/label"] for record in records] == images.labels.tolist()
        assert np.array_equal(np.asarray(records[5][f"{part}/image"]), images.pixels[5, ..., 0])
    classes = rows(found, "classes")
    assert tuple(row["classes/name"] for row in classes) == HOSTILE
    assert [row["classes/train"] for row in classes] == named.train.counts(10)


def test_a_published_set_is_its_files_with_checksums_licence_and_citation(digits: ImageDataset, tmp_path: Path) -> None:
    """Every one of them, by the numbers of another set."""
    for name, published in PUBLISHED.items():
        (tmp_path / f"{name}.json").write_text(croissant(describe(digits), published=published))
        found = read(tmp_path / f"{name}.json").metadata
        assert found.cite_as == published.citation
        assert [file.content_url for file in found.distribution] == [
            published.mirrors[0] + file for file in published.sums
        ]
        for file in found.distribution:
            assert file.sha256 or file.md5, name


def test_a_folder_that_is_called_like_a_published_set_has_not_its_licence(digits: ImageDataset, tmp_path: Path) -> None:
    np.savez(tmp_path / "mnist.npz", x=digits.train.pixels[:200], y=digits.train.labels[:200])
    result = CliRunner().invoke(main, ["data", "convert", str(tmp_path / "mnist.npz"), str(tmp_path / "b")])
    assert result.exit_code == 0, result.output
    content = json.loads((tmp_path / "b" / "croissant.json").read_text())
    assert content["name"] == "mnist"
    assert "license" not in content
    assert str(tmp_path) not in (tmp_path / "b" / "croissant.json").read_text()
