"""Studies: what they plan, what they claim, and that they give the same table however they were cut."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result
from numpy.typing import NDArray

from committee.cli.main import main
from committee.config import study as studies
from committee.config.recipe import PseudoLabels
from committee.config.toml_files import shipped
from committee.data.dataset import ImageDataset
from committee.errors import RecipeError
from committee.folders.run_folder import RunFolder
from committee.metrics.repeats import Correctness, adjust_for_multiplicity, difference, score_repeats
from committee.nn.summary import layer_table, totals
from committee.rng import numpy_generator
from committee.studies import plan as plans
from committee.studies.pseudo_labels import TeacherPredictions, accepted, audit

SMALL = """
name = "small"
title = "A small study"
summary = "four rows on digits"
published_protocol = "test_as_validation"
seeds = 2
[base]
input = { scaling = "standardised" }
network = { layers = [{ type = "flatten" }, { type = "dense", units = "classes" }] }
training = { epochs = 3, batch_size = 32 }
optimiser = { name = "adam", lr = 1e-2 }
holdout = { kind = "shared", fraction = 0.3 }
[[rows]]
name = "linear"
change = "a linear model"
published = 0.90
[[rows]]
name = "hidden"
change = "a hidden layer & <b>more</b>"
published = 0.90
[rows.recipe.network]
layers = [
  { type = "flatten" }, { type = "dense", units = 32, activation = "relu" }, { type = "dense", units = "classes" },
]
[rows.recipe.schedule]
name = "plateau"
patience = 1
[[rows]]
name = "voting"
extends = "hidden"
change = "three together"
members = 3
seeds = 1
[[rows]]
name = "labelled"
extends = "voting"
change = "pseudo-labels"
members = 2
seeds = 1
teacher = "voting"
[rows.recipe.pseudo_labels]
confidence = 0.5
min_precision = 0.5
[grid.axes]
"optimiser.lr" = [0.01, 0.0001]
"""


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of a small study."""
    path = tmp_path_factory.mktemp("study") / "small.toml"
    path.write_text(SMALL)
    return path


@pytest.fixture(scope="module")
def finished(small: Path) -> Path:
    """The folder of the small study, run on real digits."""
    out = small.parent / "finished"
    result = call("study", small, "--data", "digits", "--out", out, "--workers", "1")
    assert result.exit_code == 0, result.output
    return out


def results(folder: Path) -> dict[str, Any]:
    """A study's figures without times and dates."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if key not in ("seconds", "opened")}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    figures: dict[str, Any] = timeless(json.loads((folder / "results.json").read_text()))
    return figures


# --- what is planned --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["conv-committee", "variants", "variants-grid", "ladder"])
def test_every_published_parameter_count_is_met(name: str) -> None:
    planned = plans.plan(studies.load(name))
    networks = {model.name: model.recipe.network for model in planned.models}
    counts = {
        row.row.name: (totals(layer_table(networks[row.model], (28, 28, 1), 10))[0], row.row.published_parameters)
        for row in planned.rows
    }
    assert all(published in (None, counted) for counted, published in counts.values()), counts
    expected = {
        "conv-committee": {"dense": 535_818, "conv": 128_924, "deep-committee": 887_530},
        "variants": {"base": 4_738_826},
        "variants-grid": {},
        "ladder": {
            "linear-raw": 7_850, "one-hidden-layer": 79_510, "three-hidden-layers": 239_410, "convolutions": 55_856,
            "max-pooling": 14_136, "vgg": 98_354, "batch-normalisation": 98_564, "pseudo-labels": 98_564,
        },
    }[name]  # fmt: skip
    assert {row: counts[row][0] for row in expected} == expected


def test_the_shipped_studies_have_every_published_row() -> None:
    published = {
        row.row.name: row.row.published
        for name in shipped("study")
        for row in plans.plan(studies.load(name)).rows
        if row.row.published is not None
    }
    assert len([name for name in published if name.startswith("cell-")]) == 8
    assert len([row for row in studies.load("ladder").rows if row.published is not None]) == 13
    assert published["deep-committee"] == 0.9974
    assert published["pseudo-labels"] == 0.9958


def test_rows_with_one_recipe_share_its_members() -> None:
    planned = plans.plan(studies.parse(tomllib.loads(SMALL)))
    rows = {row.row.name: row for row in planned.rows}
    assert rows["hidden"].model == rows["voting"].model == "hidden"
    assert [list(r) for r in rows["hidden"].repeats()] == [[0], [1], [2]]  # all that the committee needs anyway
    assert [list(r) for r in rows["voting"].repeats()] == [[0, 1, 2]]
    assert {model.name: model.members for model in planned.models}["labelled"] == 2
    more = plans.plan(planned.study, seeds=4)
    assert {model.name: model.members for model in more.models}["hidden"] == 12


def test_faults_of_a_study_are_told() -> None:
    content = tomllib.loads(SMALL)
    content["rows"][1]["extends"] = "nowhere"
    with pytest.raises(RecipeError, match="extends must be a row before it; got 'nowhere'"):
        studies.parse(content)
    content = tomllib.loads(SMALL)
    content["rows"][0]["recipe"] = {"training": {"epoch": 3}}
    with pytest.raises(RecipeError, match=r"row linear of study small.*did you mean"):
        plans.plan(studies.parse(content))
    content = tomllib.loads(SMALL)
    content["base"]["holdout"] = {"kind": "fraction"}
    with pytest.raises(
        RecipeError,
        match=r"row labelled has a teacher, which needs a hold-out that all members share, but .* is 'fraction'",
    ):
        plans.plan(studies.parse(content))
    content = tomllib.loads(SMALL)
    content["rows"][1]["chnage"] = "x"
    with pytest.raises(RecipeError, match=r"rows.1.chnage is unknown .did you mean 'change'"):
        studies.parse(content)
    with pytest.raises(RecipeError, match=r"there is no study 'laddr' .did you mean 'ladder'"):
        studies.load("laddr")


# --- what is claimed --------------------------------------------------------------------------------------------------


def simulated(
    recipes: int, seeds: int, images: int, rng: np.random.Generator, better: float = 0.0
) -> list[NDArray[np.float64]]:
    """Right and wrong answers of recipes on common images, seeds better or worse by luck; the second may be better.

    Most images are easy; the hard ones are answered right with a chance of their own, that luck and skill change.
    """
    hard = rng.random(images) < 0.05
    chance = np.where(hard, rng.beta(0.8, 0.4, images), 0.9995)
    found = []
    for number in range(recipes):
        luck = rng.normal(0, 0.15, (seeds, 1)) - (better if number == 1 else 0)
        answered = np.clip(1 - (1 - chance) * np.exp(luck), 0, 1)
        found.append((rng.random((seeds, images)) < answered).astype(float))
    return found


@pytest.mark.parametrize(("seeds", "images"), [(2, 2000), (3, 4000), (5, 1000)])
def test_a_null_study_reports_no_more_differences_than_it_states(seeds: int, images: int) -> None:
    rng, wrong, studies_run = numpy_generator(seeds, "null"), 0, 300
    for _ in range(studies_run):
        rows = [Correctness(right) for right in simulated(5, seeds, images, rng)]
        pairs = zip(rows[1:], rows[:-1], strict=True)
        compared = adjust_for_multiplicity([difference(this, other, against="", on="test") for this, other in pairs])
        wrong += any(d is not None and d.verdict in ("better", "worse") for d in compared)
    assert wrong <= 0.05 * studies_run + 2 * np.sqrt(0.05 * 0.95 * studies_run)


def test_a_null_study_of_committees_trained_once_reports_no_more_either() -> None:
    rng, wrong, studies_run = numpy_generator(0, "null committees"), 0, 200
    for _ in range(studies_run):
        members = simulated(5, 5, 3000, rng)
        rows = [Correctness((right.mean(axis=0, keepdims=True) > 0.5).astype(float), right) for right in members]
        pairs = zip(rows[1:], rows[:-1], strict=True)
        compared = adjust_for_multiplicity([difference(this, other, against="", on="test") for this, other in pairs])
        wrong += any(d is not None and d.verdict in ("better", "worse") for d in compared)
    assert wrong <= 0.05 * studies_run + 2 * np.sqrt(0.05 * 0.95 * studies_run)


def test_a_real_difference_is_found_and_one_training_each_claims_nothing_about_recipes() -> None:
    rng = numpy_generator(1, "real")
    found = []
    for _ in range(20):
        worse, better = simulated(2, 3, 10000, rng, better=1.3)
        found.append(difference(Correctness(better), Correctness(worse), against="worse", on="test").verdict)
        once = difference(Correctness(better[:1]), Correctness(worse[:1]), against="worse", on="test")
        assert once.method == "exact McNemar"
        assert once.verdict in ("not distinguishable", "these two trainings differ")
    assert found.count("better") >= 18


def test_intervals_cover_the_true_mean_over_seeds_and_images() -> None:
    rng, covered = numpy_generator(2, "coverage"), 0
    for _ in range(200):
        right = simulated(1, 3, 1500, rng)[0]
        interval = score_repeats(right).interval
        truth = 0.05 * (1 - (1 - 0.8 / 1.2) * np.exp(0.15**2 / 2)) + 0.95 * (1 - 0.0005)
        covered += interval.low <= truth <= interval.high
    assert covered >= 0.92 * 200


# --- a whole study ----------------------------------------------------------------------------------------------------


def test_a_study_ends_in_a_table_with_verdicts_and_a_page(finished: Path) -> None:
    found = results(finished)
    rows = {row["name"]: row for row in found["rows"]}
    assert list(rows) == ["linear", "hidden", "voting", "labelled"]
    assert rows["linear"]["test"]["repeats"] == 2
    assert rows["hidden"]["test"]["repeats"] == 3
    assert len(rows["voting"]["member_test"]) == 3
    assert [row["difference"] and row["difference"]["against"] for row in found["rows"]] == [
        None, "linear", "hidden", "voting",
    ]  # fmt: skip
    assert [opening["purpose"] for opening in found["test_openings"]] == ['the end of the study "small"']
    labels = RunFolder(finished / "models" / "hidden").member(0).validation
    assert rows["hidden"]["validation"]["images"] == len(labels)
    assert rows["labelled"]["validation"]["images"] < len(labels)  # scored on the audit images alone
    assert "images were accepted" in rows["labelled"]["audits"][0]
    for number in (f"{100 * rows[name]['difference']['points']:+.2f}" for name in ("hidden", "voting")):
        assert any(number in finding["text"] for finding in found["discussion"] if finding["kind"] == "difference")
    page = (finished / "study.html").read_text()
    assert "<b>more</b>" not in page
    assert page.count('class="row"') == 4
    assert (finished / "tables" / "study.csv").read_text().count("\n") == 1 + 4 + 2


def test_the_page_is_written_anew_from_the_folder_alone(finished: Path) -> None:
    page = (finished / "study.html").read_bytes()
    (finished / "study.html").unlink()
    assert call("report", finished).exit_code == 0
    assert (finished / "study.html").read_bytes() == page


def test_a_committee_of_a_study_can_be_used_like_a_run(finished: Path, digits: ImageDataset, tmp_path: Path) -> None:
    np.save(tmp_path / "images.npy", digits.train.pixels[:5])
    shown = call("predict", finished / "models" / "hidden", tmp_path / "images.npy", "--format", "json")
    assert len(json.loads(shown.stdout)) == 5
    for command, folder, told in [
        (["predict"], finished, "is the folder of a study; give one of its models"),
        (["evaluate"], finished, "is the folder of a study"),
        (["evaluate"], finished / "models" / "hidden", "is a model of a study and is evaluated there"),
        (["report"], finished / "models" / "hidden", "is a model of a study"),
    ]:
        more = [tmp_path / "images.npy"] if command == ["predict"] else []
        wrong = call(*command, folder, *more)
        assert wrong.exit_code == 2
        assert told in wrong.stderr


def test_the_same_command_trains_and_opens_nothing_again(small: Path, finished: Path) -> None:
    before = (finished / "results.json").read_bytes()
    result = call("study", small, "--data", "digits", "--out", finished, "--json")
    assert "0 of them still to do" in result.stderr
    assert len(json.loads(result.stdout)["test_openings"]) == 1
    assert (finished / "results.json").read_bytes() == before


def test_a_killed_study_ends_in_the_same_table(small: Path, finished: Path, tmp_path: Path) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "committee", "study", str(small), "--data", "digits", "--out", str(out)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True)
    deadline = time.monotonic() + 90
    while len(list(out.glob("models/*/members/*/member.json"))) < 3 and time.monotonic() < deadline:
        time.sleep(0.02)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    trained = len(list(out.glob("models/*/members/*/member.json")))
    assert 3 <= trained < 9
    assert not (out / "results.json").exists()
    result = call("study", small, "--data", "digits", "--workers", "1", "--out", out)
    assert result.exit_code == 0, result.output
    assert f"{9 - trained} of them still to do" in result.stderr
    assert results(out) == results(finished)


def test_the_published_protocol_is_stated_everywhere(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "published"
    common = [
        "study",
        small,
        "--data",
        "digits",
        "--workers",
        "1",
        "--out",
        out,
        "--protocol",
        "published",
        "--seeds",
        "1",
    ]
    result = call(*common)
    assert result.exit_code == 0, result.output
    found = results(out)
    assert [row["name"] for row in found["rows"]] == ["linear", "hidden", "voting"]  # held-out images are test images
    for row in found["rows"]:
        assert row["validation"]["accuracies"] == row["test"]["accuracies"]
    purposes = [opening["purpose"] for opening in found["test_openings"]]
    assert purposes[0].startswith("published protocol")
    warning = "PUBLISHED PROTOCOL: the test images served as validation images"
    for text in (result.stdout, (out / "study.html").read_text(), (out / "tables" / "study.csv").read_text()):
        assert warning in text
    assert warning in json.loads(call(*common, "--json").stdout)["warnings"][0]


def test_transductive_is_asked_for_and_stated(small: Path, finished: Path) -> None:
    assert not any(row["transductive"] for row in results(finished)["rows"])
    assert "TRANSDUCTIVE" not in (finished / "study.html").read_text()
    out = finished.parent / "transductive"
    result = call("study", small, "--data", "digits", "--workers", "1", "--out", out, "--transductive", "--seeds", "1")
    assert result.exit_code == 0, result.output
    assert [row["transductive"] for row in results(out)["rows"]] == [False, False, False, True]
    for text in (result.stdout, (out / "study.html").read_text(), (out / "tables" / "study.csv").read_text()):
        assert "TRANSDUCTIVE" in text
    assert (out / "models" / "labelled-transductive").is_dir()


def test_a_kept_seal_compares_on_validation_images(small: Path, tmp_path: Path) -> None:
    out = tmp_path / "sealed"
    result = call("study", small, "--data", "digits", "--workers", "1", "--out", out, "--keep-sealed", "--seeds", "1")
    assert result.exit_code == 0, result.output
    found = results(out)
    assert found["test_openings"] == []
    assert not list(out.glob("models/*/members/*/test_probabilities.npy"))
    assert found["rows"][1]["difference"]["on"] == "validation"


def test_the_ladder_climbs_on_a_few_images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All thirteen rows of the shipped ladder in the quick form, on fewer images still."""
    shipped = studies.load("ladder")
    tiny = shipped.model_copy(update={"quick": studies.Quick(images=300, seeds=1, members=2)})
    monkeypatch.setattr(studies, "load", lambda name: tiny)
    out = tmp_path / "ladder"
    result = call("study", "ladder", "--data", "mnist-5k", "--quick", "--workers", "1", "--out", out)
    assert result.exit_code == 0, result.output
    rows = results(out)["rows"]
    assert len(rows) == 14
    assert [row["parameters"] for row in rows[:3]] == [7850, 7850, 79510]
    assert rows[1]["test"]["mean"] > 0.6
    assert all(row["test"] or row["stopped"] for row in rows)
    assert "QUICK FORM: at most 300 training images" in result.stdout


# --- grids and pseudo-labels ------------------------------------------------------------------------------------------


def test_a_grid_is_chosen_by_validation_and_warns_of_noise(tmp_path: Path) -> None:
    arguments = ["--set", "network.widths=[8,8,8]", "--set", "training.epochs=2", "--seeds", "3"]
    axes = ["--vary", "optimiser.lr=0.00001,0.01,0.02", "--vary", "optimiser.name=adamw,adam"]
    out = tmp_path / "grid"
    result = call("grid", "digits", "--workers", "1", *arguments, *axes, "--out", out)
    assert result.exit_code == 0, result.output
    grid = results(out)["grid"]
    assert grid["axes"] == ["optimiser.lr", "optimiser.name"]
    best = max(range(6), key=lambda number: grid["cells"][number]["validation"]["mean"])
    assert grid["best"] == best
    hopeless = [cell for cell in grid["cells"] if cell["values"][0] == "1e-05"]
    assert not any(cell["within_noise"] for cell in hopeless)
    assert sum(cell["within_noise"] for cell in grid["cells"]) >= 1
    assert "WITHIN NOISE" in " ".join(result.stdout.split())
    assert np.array(grid["confusion"]).sum() == 359
    assert "0 of them still to do" in call("grid", "digits", "--workers", "1", *arguments, *axes, "--out", out).stderr


def test_confident_predictions_are_accepted_and_the_audit_counts_the_right_ones() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.2, 0.8], [0.45, 0.55], [0.99, 0.01]])
    assert accepted(probabilities, PseudoLabels(confidence=0.8)).tolist() == [0, 2, 4]
    best = PseudoLabels(accept="top_fraction", top_fraction=0.5)
    assert accepted(probabilities, best).tolist() == [0, 2, 4]  # of class 0 two of three, of class 1 one of two
    both, labels = TeacherPredictions(probabilities, probabilities), np.array([0, 0, 0, 1, 0])
    found = audit(both, labels, PseudoLabels(confidence=0.8))
    assert (found.accepted, found.audit_accepted, found.audit_right) == (3, 3, 2)
    assert found.precision == pytest.approx(2 / 3)
    assert "the precision is below pseudo_labels.min_precision, 98.00" in found.stopped
    assert not audit(both, labels, PseudoLabels(confidence=0.8, min_precision=0.6)).stopped
    assert "no image was accepted" in audit(both, labels, PseudoLabels(confidence=1)).stopped


SMALL_ROUNDS = [
    *("--workers", "1", "--members", "2", "--epochs", "2", "--set", "network.widths=[8,8,8]"),
    *("--set", "holdout.folds=2", "--set", "pseudo_labels.confidence=0"),
]


def test_self_training_stops_at_a_low_precision(tmp_path: Path) -> None:
    small = [*SMALL_ROUNDS, "--held-back", "0.3"]
    stopped = call("pseudo-labels", "digits", *small, "--keep-sealed", "--out", tmp_path / "a")
    assert stopped.exit_code == 0, stopped.output
    assert "Stopped: the precision is below pseudo_labels.min_precision" in " ".join(stopped.stdout.split())
    assert "Round 0: out-of-fold accuracy" in stopped.stdout
    assert not (tmp_path / "a" / "round-0" / "test_probabilities.npy").exists()
    assert not (tmp_path / "a" / "round-1").exists()
    trusting = [*small, "--set", "pseudo_labels.min_precision=0"]
    joined = call("pseudo-labels", "digits", *trusting, "--out", tmp_path / "b", "--json")
    rounds = json.loads(joined.stdout)["rounds"]
    assert [each["round"] for each in rounds] == [0, 1]
    named = (tmp_path / "b" / "accepted-after-round-0.csv").read_text().splitlines()
    assert named[0] == "image,label,probability"
    assert len(named) > 100
    assert "pseudo-labelled images make up 25%" in (tmp_path / "b" / "round-1" / "report.html").read_text()
    assert call("pseudo-labels", "digits", *small, "--transductive").exit_code == 2


def test_a_transductive_committee_says_so(tmp_path: Path) -> None:
    out, no_limit = tmp_path / "t", ["--set", "pseudo_labels.min_precision=0"]
    assert call("pseudo-labels", "digits", *SMALL_ROUNDS, "--transductive", "--keep-sealed").exit_code == 2
    result = call("pseudo-labels", "digits", *SMALL_ROUNDS, *no_limit, "--transductive", "--out", out)
    assert result.exit_code == 0, result.output
    assert "TRANSDUCTIVE" in result.stdout
    assert "TRANSDUCTIVE" in (out / "round-1" / "report.html").read_text()
    assert "TRANSDUCTIVE" in json.loads((out / "round-1" / "run.json").read_text())["warnings"][0]
    assert "without labels" in (out / "test_record.jsonl").read_text()
