"""The audit of labels: what was planted is found, a person goes through it, and what was decided is trained on."""

from __future__ import annotations

import csv
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner, Result

from committee.cli.main import main, run_stem
from committee.data.catalog import load_dataset
from committee.data.dataset import ImageDataset, Labels
from committee.errors import DataError
from committee.folders.run_folder import RunFolder
from committee.metrics.label_errors import find_label_errors

if TYPE_CHECKING:
    from playwright.sync_api import Browser


def call(*arguments: object) -> Result:
    return CliRunner().invoke(main, [*map(str, arguments)])


@dataclass(frozen=True)
class Audited:
    """A run on digits with wrong labels, and its audit."""

    data: Path
    run: Path
    audit: Path
    wrong: Labels
    true: Labels


@pytest.fixture(scope="module")
def audited(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Audited:
    folder = tmp_path_factory.mktemp("audited")
    pixels, true = digits.train.pixels[:600], digits.train.labels[:600]
    wrong = np.arange(5, 600, 40)
    labels = true.copy()
    labels[wrong] = (true[wrong] + 3) % 10
    data, run = folder / "set.npz", folder / "run"
    np.savez(data, x_train=pixels, y_train=labels, x_test=digits.train.pixels[600:700], y_test=true[:100])
    small = ["--members", 2, "--epochs", 8, "--set", "holdout.folds=2", "--set", "network.widths=[16,16,16]"]
    result = call("train", data, *small, "--keep-sealed", "--workers", 1, "--out", run)
    assert result.exit_code == 0, result.output
    result = call("audit", run, "--json")
    assert result.exit_code == 0, result.output
    return Audited(data, run, folder / "run-audit", wrong, true)


def rows_of(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text(encoding="utf-8").splitlines()))


def decisions(audited: Audited, path: Path, decided: dict[int, tuple[str, str]], **changed: str) -> Path:
    """A table of decisions on images of the audit's table."""
    rows = {int(row["image"]): row for row in rows_of(audited.audit / "suggestions.csv")}
    lines = ["image,file,given,decision,label,pixels"]
    for image, (decision, label) in decided.items():
        row = {**rows[image], **changed}
        lines.append(f"{image},,{row['given']},{decision},{label},{row['pixels']}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return path


def test_wrong_labels_come_first_with_the_right_class(audited: Audited) -> None:
    rows = rows_of(audited.audit / "suggestions.csv")
    first = [int(row["image"]) for row in rows[: 2 * len(audited.wrong)]]
    assert len(set(first) & set(audited.wrong)) >= 0.9 * len(audited.wrong)
    found = [row for row in rows if int(row["image"]) in audited.wrong]
    right = sum(int(row["suggested"]) == audited.true[int(row["image"])] for row in found)
    assert right >= 0.8 * len(found)
    assert RunFolder.finished(audited.run).is_sealed
    assert json.loads((audited.audit / "audit.json").read_text())["judged"] == 600


def test_a_usual_mistake_is_suspected_before_one_that_nobody_makes() -> None:
    random = np.random.default_rng(0)
    true = random.integers(0, 3, 3000)
    labels = true.copy()
    usual = np.flatnonzero(true == 0)[:100]
    labels[usual] = 1
    probabilities = np.full((3000, 3), 0.02)
    probabilities[np.arange(3000), true] = 0.96
    probabilities[0], probabilities[1] = (0.5, 0.4, 0.1), (0.5, 0.1, 0.4)
    labels[0], labels[1] = 1, 2  # the same doubts, but only one of the labels is often wrong
    errors = find_label_errors(probabilities, labels)
    assert errors.log_odds[0] > errors.log_odds[1]
    assert errors.transitions[0, 1] > 4 * errors.transitions[0, 2]
    assert (errors.wrong[usual[5:]] > 0.9).all()


def test_decisions_become_labels_that_training_takes(audited: Audited, tmp_path: Path) -> None:
    one, two, three = (int(row["image"]) for row in rows_of(audited.audit / "suggestions.csv")[:3])
    label = str(audited.true[one])
    table = decisions(audited, tmp_path / "d.csv", {one: ("change", label), two: ("drop", ""), three: ("keep", "")})
    before = audited.data.read_bytes()
    result = call("audit", audited.run, "--apply", table, "--out", tmp_path / "corrected.csv")
    assert result.exit_code == 0, result.output
    assert "599 training images, labels of 1 changed, 1 dropped" in result.output
    assert audited.data.read_bytes() == before

    dataset = load_dataset(audited.data, labels=tmp_path / "corrected.csv")
    original = load_dataset(audited.data)
    assert len(dataset.train) == 599
    assert dataset.train.labels[one - (two < one)] == audited.true[one]
    assert dataset.part_digests()[1] == original.part_digests()[1]
    assert "labels of 1 training image changed, 1 dropped, by " in dataset.notes[-1]

    small = ["--members", 2, "--epochs", 1, "--set", "holdout.folds=2", "--set", "network.widths=[16,16,16]"]
    trained = ["--labels", tmp_path / "corrected.csv", *small, "--keep-sealed", "--workers", 1, "--out", tmp_path / "r"]
    result = call("train", audited.data, *trained)
    assert result.exit_code == 0, result.output
    assert call("evaluate", tmp_path / "r").exit_code == 0  # with the same labels, or it would refuse
    assert len(RunFolder.finished(tmp_path / "r").train_labels) == 599

    again = call("audit", tmp_path / "r", "--out", tmp_path / "second")  # positions are now those of 599 images
    assert again.exit_code == 0, again.output
    second = Audited(audited.data, tmp_path / "r", tmp_path / "second", audited.wrong, audited.true)
    image = next(int(row["image"]) for row in rows_of(second.audit / "suggestions.csv") if int(row["image"]) > two)
    table = decisions(second, tmp_path / "e.csv", {image: ("drop", "")})
    result = call("audit", tmp_path / "r", "--apply", table, "--out", tmp_path / "corrected2.csv")
    assert "598 training images" in result.output, result.output
    kept = {int(row["image"]) for row in rows_of(tmp_path / "corrected2.csv")}
    assert {two, image + 1}.isdisjoint(kept)
    assert len(kept) == 598


def test_decisions_that_belong_to_other_data_are_refused(audited: Audited, tmp_path: Path) -> None:
    image = int(rows_of(audited.audit / "suggestions.csv")[0]["image"])

    def refused(decided: dict[int, tuple[str, str]], **changed: str) -> str:
        table = decisions(audited, tmp_path / "d.csv", decided, **changed)
        result = call("audit", audited.run, "--apply", table, "--out", tmp_path / "c.csv")
        assert result.exit_code == 2
        assert not (tmp_path / "c.csv").exists()
        return result.output

    assert "is another one here" in refused({image: ("keep", "")}, pixels="x0000000000000000")
    given = rows_of(audited.audit / "suggestions.csv")[0]["given"]
    assert "audit it again" in refused({image: ("keep", "")}, given=str((int(given) + 1) % 10))
    assert "got '77'" in refused({image: ("change", "77")})
    assert "a decision is keep, change or drop" in refused({image: ("burn", "")})
    table = decisions(audited, tmp_path / "d.csv", {image: ("drop", "")})
    result = call("audit", audited.run, "--apply", table, "--out", audited.data)
    assert "another one than corrected labels" in result.output
    (tmp_path / "no.csv").write_text("image,label\n0,1\n")
    with pytest.raises(DataError, match="the columns image, label, pixels are expected"):
        load_dataset(audited.data, labels=tmp_path / "no.csv")


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_is_gone_through_by_keyboard(audited: Audited, browser: Browser, tmp_path: Path, width: int) -> None:
    page = browser.new_context(viewport={"width": width, "height": 900}).new_page()
    faults: list[str] = []
    page.on("console", lambda message: faults.append(message.text))
    page.on("pageerror", lambda error: faults.append(str(error)))
    page.goto(f"file://{audited.audit / 'audit.html'}")
    rows = rows_of(audited.audit / "suggestions.csv")
    for key in "kcdc":
        page.keyboard.press(key)
    page.keyboard.press("u")  # the fourth is undone, and answered by a digit
    assert page.locator("#count").inner_text().startswith("3 of ")
    page.keyboard.press("7" if rows[3]["given"] != "7" else "6")
    assert page.locator("#count").inner_text().startswith("4 of ")
    page.reload()  # decisions are kept
    assert page.locator("#count").inner_text().startswith("4 of ")
    assert page.locator("#where").inner_text().startswith(f"Image {rows[4]['image']} ")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    with page.expect_download() as download:
        page.click("#save")
    download.value.save_as(tmp_path / "decisions.csv")
    saved = {int(row["image"]): row for row in rows_of(tmp_path / "decisions.csv")}
    assert [saved[int(row["image"])]["decision"] for row in rows[:3]] == ["keep", "change", "drop"]
    assert saved[int(rows[1]["image"])]["label"] == rows[1]["suggested"]
    result = call("audit", audited.run, "--apply", tmp_path / "decisions.csv", "--out", tmp_path / "corrected.csv")
    assert result.exit_code == 0, result.output
    assert "1 dropped" in result.output
    axe = pytest.importorskip("axe_playwright_python.sync_playwright").Axe()
    assert axe.run(page).violations_count == 0
    assert faults == []


def test_a_runs_name_says_that_its_labels_are_corrected_ones() -> None:
    assert run_stem("mnist", "best", corrected=True) == "mnist-corrected-best"
    assert run_stem("mnist", "best", corrected=False) == "mnist-best"
