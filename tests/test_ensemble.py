"""Combination, out-of-fold votes, temperature, weights, size curve: against hand-made and simulated truth."""

from __future__ import annotations

import numpy as np
import pytest

from committee.config.recipe import Holdout
from committee.data.splits import validation_positions
from committee.ensemble.combine import CombinationRule, combine
from committee.ensemble.member_predictions import MemberPredictions
from committee.ensemble.size_curve import curve_sizes, size_curve
from committee.ensemble.temperature import extrapolate, fit_temperature, temper, temperatures_by_size
from committee.ensemble.weights import fit_weights
from committee.errors import DataError
from committee.metrics.scores import accuracy

RNG = np.random.default_rng(0)

MEAN = CombinationRule()


def simulated(sharpness: list[float], images: int = 4000, classes: int = 5) -> tuple[np.ndarray, np.ndarray]:
    """Members (member, image, class) that see each label through noise, the sharper the better."""
    labels = RNG.integers(0, classes, images)
    logits = RNG.normal(size=(len(sharpness), images, classes))
    for member, sharp in enumerate(sharpness):
        logits[member, np.arange(images), labels] += sharp
    powers = np.exp(logits)
    return (powers / powers.sum(2, keepdims=True)).astype(np.float32), labels


def out_of_fold(members: np.ndarray, validation: list[np.ndarray]) -> np.ndarray:
    """(member, image, class) with rows of NaN where a member trained on the image."""
    return MemberPredictions(members, tuple(validation)).honest


def test_combinations_by_hand() -> None:
    members = np.array([[[0.5, 0.5, 0.0]], [[0.1, 0.2, 0.7]], [[0.6, 0.3, 0.1]]])
    assert combine(members)[0] == pytest.approx([0.4, 1 / 3, 0.8 / 3])
    assert combine(members, "vote")[0] == pytest.approx([2 / 3, 0, 1 / 3])
    assert combine(members, "weighted", np.array([0.0, 1.0, 0.0]))[0] == pytest.approx([0.1, 0.2, 0.7])
    two = combine(members[1:], "geometric")[0]
    assert two == pytest.approx(np.sqrt([0.06, 0.06, 0.07]) / np.sqrt([0.06, 0.06, 0.07]).sum())


def test_an_image_is_predicted_only_by_members_that_may() -> None:
    members, _ = simulated([1.0, 1.0, 1.0], images=6)
    honest = out_of_fold(members, [np.array([0, 1]), np.array([1, 2]), np.array([2])])
    for how in ("mean", "geometric", "vote", "weighted"):
        weights = np.array([1.0, 1.0, 1.0])
        combined = combine(honest, how, weights)
        assert np.isnan(combined[3:]).all()
        assert combined[0] == pytest.approx(combine(members[[0]], how)[0])
        assert combined[1] == pytest.approx(combine(members[[0, 1]], how)[1])


def test_folds_hold_out_every_image_equally_often_and_classes_evenly() -> None:
    labels = RNG.permutation(np.repeat(np.arange(4), [50, 60, 70, 80]))
    parts = validation_positions(labels, Holdout(kind="folds", folds=5), 10, 7, list("abcd"))
    assert (np.bincount(np.concatenate(parts)) == 2).all()
    for part in parts:
        assert np.bincount(labels[part]) == pytest.approx([10, 12, 14, 16])
    assert not np.array_equal(parts[0], parts[5])
    again = validation_positions(labels, Holdout(kind="folds", folds=5), 10, 7, list("abcd"))
    assert all(np.array_equal(a, b) for a, b in zip(parts, again, strict=True))
    random = validation_positions(labels, Holdout(kind="fraction", fraction=0.2), 3, 7, list("abcd"))
    assert [len(part) for part in random] == [52, 52, 52]
    last = validation_positions(labels, Holdout(kind="last", fraction=0.1), 2, 7, list("abcd"))
    assert np.array_equal(last[1], np.arange(234, 260))


def test_a_class_with_fewer_images_than_folds_is_told() -> None:
    labels = np.array([0] * 9 + [1] * 3)
    with pytest.raises(
        DataError, match=r"class 'rare' has 3 training images, but 5 folds need at least 5 of each class"
    ):
        validation_positions(labels, Holdout(folds=5), 5, 0, ["common", "rare"])


@pytest.mark.parametrize("true", [0.4, 1.0, 2.5])
def test_the_temperature_is_found_again(true: float) -> None:
    calibrated, _ = simulated([0.0], images=20000)
    probabilities = calibrated[0].astype(float)
    labels = np.array([RNG.choice(5, p=row / row.sum()) for row in probabilities])
    assert fit_temperature(temper(probabilities, 1 / true), labels) == pytest.approx(true, rel=0.06)


def test_the_whole_committees_temperature_is_extrapolated_from_smaller_ones() -> None:
    """Members that are each too sure, their mean too modest: one member's temperature would make that worse."""
    shared, labels = simulated([3.0], images=6000)  # what all members see alike, and each its own noise on top
    logits = np.log(shared) + RNG.normal(size=(10, 6000, 5))
    members = np.stack([temper(np.exp(own - own.max(1, keepdims=True)), 0.6) for own in logits]).astype(np.float32)
    validation = [RNG.permutation(6000)[:1800] for _ in range(10)]
    sizes = temperatures_by_size(out_of_fold(members, validation), labels, MEAN.combine, np.random.default_rng(0))
    assert [size.temperature for size in sizes] == sorted((size.temperature for size in sizes), reverse=True)
    assert sizes[0].temperature > 1
    together = combine(members)
    truth, guess = fit_temperature(together, labels), extrapolate(sizes, 10)
    assert abs(guess - truth) < 0.25 * abs(sizes[0].temperature - truth)
    assert extrapolate(sizes[:1], 10) == 1.0
    assert extrapolate([sizes[0].model_copy(update={"temperature": 0.6})], 10) == 0.6


def test_weights_favour_the_better_member_and_stay_equal_without_evidence() -> None:
    members, labels = simulated([0.2, 3.0, 0.2])
    weights = fit_weights(members, labels)
    assert weights.sum() == pytest.approx(1)
    assert weights.argmax() == 1
    assert weights[1] > 0.7
    rows = np.arange(len(labels))
    weighted, plain = combine(members, "weighted", weights), combine(members)
    assert np.log(weighted[rows, labels]).mean() > np.log(plain[rows, labels]).mean()
    disjoint = out_of_fold(members, [np.arange(0, 1000), np.arange(1000, 2000), np.arange(2000, 4000)])
    assert fit_weights(disjoint, labels) == pytest.approx([1 / 3] * 3)


def test_the_size_curve_rises_and_ends_with_the_whole_committee() -> None:
    members, labels = simulated([1.5] * 6)
    curve = size_curve(members, labels, MEAN.combine, np.random.default_rng(0))
    assert [point.members for point in curve] == [1, 2, 3, 4, 5, 6]
    assert curve[0].accuracy == pytest.approx(np.mean([accuracy(member, labels) for member in members]))
    assert curve[-1].accuracy == accuracy(combine(members), labels)
    assert curve[-1].accuracy > curve[0].accuracy + 0.1
    validation = [np.arange(start % 3, 4000, 3) for start in range(6)]
    honest = size_curve(out_of_fold(members, validation), labels, MEAN.combine, np.random.default_rng(0))
    assert [point.members for point in honest] == [1, 2]
    assert honest[1].accuracy == pytest.approx(accuracy(combine(out_of_fold(members, validation)), labels))


def test_the_curve_of_a_large_committee_tries_few_of_its_large_sizes_and_gives_weights_their_own_members() -> None:
    sizes = curve_sizes(300)
    assert [size for size, _ in sizes[:20]] == list(range(1, 21))
    assert sizes[-1] == (300, 1)
    assert all(size * number <= 2_000 for size, number in sizes)  # so that no size takes longer than that of 20
    members, labels = simulated([3.0, 0.2, 0.2, 0.2])
    rule = CombinationRule("weighted", (0.97, 0.01, 0.01, 0.01))
    curve = size_curve(members, labels, rule.combine, np.random.default_rng(0))
    assert curve[-1].accuracy == accuracy(combine(members, "weighted", np.array(rule.weights)), labels)
    chosen = np.array([[1, 3]] * len(labels)).T
    found = rule.combine(members[[1, 3]], chosen)
    assert found == pytest.approx(combine(members[[1, 3]]))  # of equal weights, whatever the heavy member has
