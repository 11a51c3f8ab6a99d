"""Prediction sets and abstentions hold their rates, by simulation, and reach the user."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.ensemble.combine import CombinationRule, combine
from committee.ensemble.not_sure import like_new
from committee.ensemble.temperature import extrapolate, temper, temperatures_by_size
from committee.errors import CommitteeError
from committee.folders.run_folder import RunFolder
from committee.metrics.conformal import fit_abstention, fit_sets, precision_bound

UNSURE = ["--coverage", ".99", "--by-class", "--precision", ".9"]
"""What the fixture `exported` was exported with."""

Drawn = tuple[np.ndarray, np.ndarray]

MEAN = CombinationRule()


def drawn(rng: np.random.Generator, images: int, sharpness: float = 3.0, ties: bool = False) -> Drawn:
    """Probabilities of four classes, of which the last is rare and often mistaken for the first; the true labels."""
    labels = rng.choice(4, images, p=[0.5, 0.3, 0.17, 0.03])
    logits = rng.normal(size=(images, 4))
    logits[np.arange(images), labels] += np.where(labels == 3, 0.5, sharpness)
    powers = np.exp(np.round(logits) if ties else logits)
    return powers / powers.sum(axis=1, keepdims=True), labels


@pytest.mark.parametrize("ties", [False, True])
@pytest.mark.parametrize(("images", "coverage"), [(20, 0.9), (300, 0.95), (300, 0.6)])
def test_sets_hold_their_rate_over_many_calibrations(images: int, coverage: float, ties: bool) -> None:
    rng, covered = np.random.default_rng(1), []
    for _ in range(400):
        sets = fit_sets(*drawn(rng, images, 1.0, ties), coverage)
        probabilities, labels = drawn(rng, 200, 1.0, ties)
        covered.append(sets.sets(probabilities)[np.arange(200), labels].mean())
    error = float(np.std(covered) / np.sqrt(len(covered)))
    assert np.mean(covered) > coverage - 4 * error
    if not ties and images > 100 and coverage > 0.9:  # and not by taking every class
        assert np.mean(covered) < coverage + 2 / images + 4 * error


def test_class_conditional_sets_hold_it_for_a_rare_class_that_marginal_ones_fail() -> None:
    rng, found = np.random.default_rng(2), {True: [], False: []}
    for _ in range(200):
        calibration, (probabilities, labels) = drawn(rng, 1500), drawn(rng, 2000)
        for by_class, covered in found.items():
            sets = fit_sets(*calibration, 0.9, by_class=by_class).sets(probabilities)
            covered.append(sets[np.arange(2000), labels][labels == 3].mean())
    assert np.mean(found[True]) > 0.9 - 4 * np.std(found[True]) / np.sqrt(200)
    assert np.mean(found[False]) < 0.8


def test_too_few_images_of_a_class_put_it_into_every_set_and_no_set_is_empty() -> None:
    probabilities, labels = drawn(np.random.default_rng(3), 40)
    labels[labels == 3] = 0
    labels[:2] = 3
    sets = fit_sets(probabilities, labels, 0.95, by_class=True)
    assert sets.unlimited >= 1
    assert sets.sets(probabilities)[:, 3].all()
    certain = fit_sets(np.eye(4)[labels], labels, 0.5)
    assert certain.sets(np.full((2, 4), 0.25)).any(axis=1).all()


def test_the_promised_precision_is_missed_no_more_often_than_said() -> None:
    rng, missed, answered = np.random.default_rng(4), 0, []
    for _ in range(200):
        calibration, (probabilities, labels) = drawn(rng, 2000), drawn(rng, 20_000)
        abstention = fit_abstention(*calibration, 0.95)
        kept = ~abstention.abstains(probabilities)
        answered.append(kept.mean())
        missed += (probabilities.argmax(axis=1) == labels)[kept].mean() < 0.95
    assert missed <= 200 * 0.05
    assert np.mean(answered) > 0.5
    with pytest.raises(CommitteeError, match=r"a precision of 0\.9999 cannot be promised on 2,000"):
        fit_abstention(*calibration, 0.9999)


@pytest.mark.parametrize(("members", "certainty"), [(5, 1.0), (5, 8.0), (10, 1.0), (10, 8.0)])
def test_sets_fitted_to_few_members_hold_for_all_of_them_even_where_members_are_much_too_certain(
    members: int, certainty: float
) -> None:
    rng, covered = np.random.default_rng(5), []

    def told(images: int) -> Drawn:
        labels, shared = rng.integers(0, 10, images), rng.normal(size=(images, 10))
        logits = shared + rng.normal(size=(members, images, 10)) + 2 * np.eye(10)[labels]
        powers = np.exp(certainty * (logits - logits.max(axis=2, keepdims=True)))
        return powers / powers.sum(axis=2, keepdims=True), labels

    for _ in range(12):
        probabilities, labels = told(1000)
        for first in range(0, members, 5):  # each image is held out by one of five, and by one of the next five
            trained = rng.integers(0, 5, 1000) != np.arange(5)[:, None]
            probabilities[first : first + 5][trained] = np.nan
        by_size = temperatures_by_size(probabilities, labels, MEAN.combine, rng)
        temperature = extrapolate(by_size, members)
        few = like_new(combine(probabilities), np.full(1000, members // 5), by_size, temperature)
        new, truth = told(1000)
        sets = fit_sets(few, labels, 0.95).sets(temper(combine(new), temperature))
        covered.append(sets[np.arange(1000), truth].mean())
    assert np.mean(covered) > 0.95 - 4 * np.std(covered) / np.sqrt(len(covered))


@pytest.mark.parametrize(("right", "answered"), [(10, 10), (0, 10), (95, 100), (9990, 10_000)])
def test_the_bound_is_clopper_and_pearsons(right: int, answered: int) -> None:
    stats = pytest.importorskip("scipy.stats")
    expected = stats.beta.ppf(0.05, right, answered - right + 1) if right else 0.0
    assert precision_bound(right, answered, 0.05) == pytest.approx(expected, abs=1e-6)


def test_predict_and_export_tell_sets_and_abstentions(
    run: RunFolder, exported: Path, digits: ImageDataset, tmp_path: Path
) -> None:
    np.save(tmp_path / "images.npy", digits.train.pixels[:30])

    def invoked(*arguments: str) -> str:
        done = CliRunner().invoke(main, [arguments[0], *arguments[1:]])
        assert done.exit_code == 0, done.output
        return done.stdout

    asked = [str(tmp_path / "images.npy"), "--format", "json"]
    of_run = json.loads(invoked("predict", str(run.path), *asked, *UNSURE))
    of_file = json.loads(invoked("predict", str(exported), *asked))
    alike = [a["set"] == b["set"] for a, b in zip(of_run, of_file, strict=True)]
    assert sum(alike) >= 25  # the run answers in bfloat16, so that a class at the limit may differ
    assert all(each["prediction"] == each["set"][0] for each in of_run)
    assert {each["abstain"] for each in of_run} <= {True, False}
    import onnxruntime

    session = onnxruntime.InferenceSession(str(exported))
    in_set, abstain = session.run(["in_set", "abstain"], {"images": digits.train.pixels[:30]})
    assert [sorted(each["set"]) for each in of_file] == [[str(c) for c in np.flatnonzero(row)] for row in in_set]
    assert [each["abstain"] for each in of_file] == abstain.tolist()
    refused = CliRunner().invoke(main, ["predict", str(exported), *asked, "--coverage", ".5"])
    assert "was exported with a coverage of 0.99 and a precision of 0.9" in refused.output
    assert "set,abstain" in invoked("predict", str(run.path), *asked[:2], "csv", *UNSURE).splitlines()[0]
