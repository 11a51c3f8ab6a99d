"""Metrics, intervals, comparisons and galleries against known values."""

from __future__ import annotations

import math

import numpy as np
import pytest

from committee.metrics.balanced import balanced_accuracy_interval
from committee.metrics.error_analysis import agreement, galleries, most_confused_pairs
from committee.metrics.intervals import (
    bootstrap_mean_difference,
    mean_and_spread,
    paired_difference,
    seed_interval,
    t_quantile,
    wilson,
)
from committee.metrics.paired import compare, mcnemar_exact
from committee.metrics.scores import (
    accuracy,
    brier_score,
    expected_calibration_error,
    log_loss,
    reliability_bins,
    score,
)

NAMES = ("ant", "bee", "cat")


@pytest.fixture
def predicted() -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(1)
    labels = generator.integers(3, size=500)
    logits = generator.normal(size=(500, 3)) + 1.5 * np.eye(3)[labels]
    return np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True), labels


def test_metrics_agree_with_scikit_learn(predicted: tuple[np.ndarray, np.ndarray]) -> None:
    sklearn = pytest.importorskip("sklearn.metrics")
    probabilities, labels = predicted
    result = score(probabilities, labels, NAMES)
    choices = probabilities.argmax(axis=1)
    assert result.accuracy == pytest.approx(sklearn.accuracy_score(labels, choices))
    assert result.errors == (labels != choices).sum()
    assert result.log_loss == pytest.approx(sklearn.log_loss(labels, probabilities))
    one_hot = np.eye(3)[labels]
    assert result.brier == pytest.approx(sum(((probabilities - one_hot) ** 2).sum(axis=1)) / 500)
    assert np.array_equal(result.confusion, sklearn.confusion_matrix(labels, choices))
    precision, recall, f1, images = sklearn.precision_recall_fscore_support(labels, choices)
    for row, *expected in zip(result.classes, precision, recall, f1, images, strict=True):
        assert [row.precision, row.recall, row.f1, row.images] == pytest.approx(expected)


def test_figures_in_which_every_class_counts_alike_agree_with_scikit_learn() -> None:
    metrics = pytest.importorskip("sklearn.metrics")
    generator = np.random.default_rng(3)
    labels = generator.choice(3, size=2000, p=[0.9, 0.07, 0.03])
    probabilities = generator.dirichlet(np.ones(3), size=2000)
    probabilities[np.arange(2000), labels] += generator.random(2000)
    probabilities = np.round(probabilities / probabilities.sum(1, keepdims=True), 2)  # with ties
    probabilities /= probabilities.sum(1, keepdims=True)
    scores = score(probabilities, labels, ["good", "scratch", "dent"])
    found, predicted = scores.balanced, probabilities.argmax(1)
    assert found is not None
    assert scores.is_imbalanced
    assert found.accuracy == pytest.approx(metrics.balanced_accuracy_score(labels, predicted))
    assert found.macro_f1 == pytest.approx(metrics.f1_score(labels, predicted, average="macro"))
    assert found.auc == pytest.approx(metrics.roc_auc_score(labels, probabilities, multi_class="ovr"))
    drawn = []  # the interval of the area against resampled images
    for rows in generator.integers(2000, size=(300, 2000)):
        drawn.append(metrics.roc_auc_score(labels[rows], probabilities[rows], multi_class="ovr"))
    assert found.auc_interval is not None
    assert (found.auc_interval.low, found.auc_interval.high) == pytest.approx(
        np.quantile(drawn, [0.025, 0.975]), abs=0.01
    )


def test_intervals_of_balanced_accuracy_hold_their_level() -> None:
    generator = np.random.default_rng(4)
    recalls, images, inside = np.array([0.99, 0.75]), np.array([388, 12]), 0
    for right in generator.binomial(images, recalls, size=(1000, 2)):
        confusion = np.array([[right[0], images[0] - right[0]], [images[1] - right[1], right[1]]])
        interval = balanced_accuracy_interval(confusion)
        inside += interval.low <= recalls.mean() <= interval.high
    assert 930 <= inside <= 985
    perfect = balanced_accuracy_interval(np.diag(images))
    assert perfect.high == 1.0
    assert perfect.low < 0.9  # twelve images do not show more


def test_metrics_by_hand() -> None:
    probabilities = np.array([[0.8, 0.2], [0.6, 0.4], [0.1, 0.9], [1.0, 0.0]])
    labels = np.array([0, 1, 1, 1])
    assert accuracy(probabilities, labels) == 0.5
    assert log_loss(probabilities, labels) == pytest.approx(-math.log(0.8 * 0.4 * 0.9 * 1e-12) / 4)
    assert brier_score(probabilities, labels) == pytest.approx((0.08 + 0.72 + 0.02 + 2) / 4)
    # bins of a half: only [.5, 1] is filled; mean confidence .825, accuracy .5
    assert expected_calibration_error(probabilities, labels, bins=2) == pytest.approx(0.325)
    # of a third: .8 and .9 and 1 in the last bin (two right of three), .6 in [1/3, 2/3)
    rows = reliability_bins(probabilities, labels, bins=3)
    assert [(row.images, row.accuracy) for row in rows] == [(1, 0.0), (3, pytest.approx(2 / 3))]


def test_a_class_without_images_or_predictions_has_no_precision_or_recall() -> None:
    rows = score(np.array([[0.9, 0.1, 0.0], [0.2, 0.8, 0.0]]), np.array([0, 0]), NAMES).classes
    assert (rows[1].precision, rows[1].recall, rows[1].f1) == (0.0, None, 0.0)
    assert (rows[2].precision, rows[2].recall, rows[2].f1) == (None, None, None)


def test_missing_and_impossible_predictions_are_refused() -> None:
    with pytest.raises(ValueError, match="image 1 are not finite"):
        score(np.array([[0.9, 0.1], [np.nan, np.nan]]), np.array([0, 0]), ["a", "b"])
    with pytest.raises(ValueError, match=r"0 to 1; got 0 to 2"):
        score(np.array([[0.9, 0.1], [0.5, 0.5]]), np.array([0, 2]), ["a", "b"])


@pytest.mark.parametrize(
    ("successes", "n", "low", "high"),
    [(81, 263, 0.2553, 0.3662), (15, 148, 0.0624, 0.1605), (0, 20, 0.0, 0.1611), (29, 29, 0.8830, 1.0)],
)
def test_wilson_against_newcombe_1998(successes: int, n: int, low: float, high: float) -> None:
    interval = wilson(successes, n)
    assert (interval.low, interval.high) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize(
    ("freedom", "confidence", "expected"),
    [(1, 0.95, 12.7062), (2, 0.95, 4.3027), (3, 0.99, 5.8409), (4, 0.95, 2.7764), (9, 0.95, 2.2622), (30, 0.9, 1.6973)],
)
def test_t_quantiles_against_the_table(freedom: int, confidence: float, expected: float) -> None:
    assert t_quantile(freedom, confidence) == pytest.approx(expected, abs=5e-5)


def test_interval_over_seeds_by_hand() -> None:
    values = [0.990, 0.992, 0.991, 0.993]
    assert mean_and_spread(values) == (4, pytest.approx(0.9915), pytest.approx(0.00129099, abs=1e-8))
    assert mean_and_spread([0.5]).spread is None
    half = 3.18245 * 0.00129099 / 2
    interval = seed_interval(values)
    assert (interval.low, interval.high) == pytest.approx((0.9915 - half, 0.9915 + half), abs=1e-7)


@pytest.mark.parametrize(
    ("only_a", "only_b", "expected"),
    [(0, 0, 1.0), (7, 7, 1.0), (1, 5, 0.21875), (0, 10, 2 / 1024), (10, 2, 158 / 4096), (2, 10, 158 / 4096)],
)
def test_mcnemar_by_hand(only_a: int, only_b: int, expected: float) -> None:
    assert mcnemar_exact(only_a, only_b) == pytest.approx(expected)


def test_mcnemar_of_many_images_agrees_with_the_binomial_test() -> None:
    stats = pytest.importorskip("scipy.stats")
    assert mcnemar_exact(2100, 1900) == pytest.approx(stats.binomtest(2100, 4000).pvalue, rel=1e-9)


def test_bootstrap_is_close_to_the_normal_interval_on_both_paths() -> None:
    generator = np.random.default_rng(2)
    first, second = generator.normal(size=1000), generator.normal(0.1, 1, size=1000)
    for a, b in ((first, second), ((first > 0).astype(float), (second > 0).astype(float))):
        interval = bootstrap_mean_difference(a, b, np.random.default_rng(3), resamples=4000)
        half = 1.96 * (b - a).std() / math.sqrt(1000)
        assert interval.low == pytest.approx((b - a).mean() - half, abs=0.1 * half)
        assert interval.high == pytest.approx((b - a).mean() + half, abs=0.1 * half)


@pytest.mark.parametrize(("only_first", "only_second", "n"), [(3, 9, 50), (0, 4, 360), (0, 0, 40), (50, 30, 10_000)])
def test_the_interval_of_a_paired_difference_holds_what_mcnemars_statistic_allows(
    only_first: int, only_second: int, n: int
) -> None:
    interval = paired_difference(only_first, only_second, n)
    mirrored = paired_difference(only_second, only_first, n)
    assert (interval.low, interval.high) == pytest.approx((-mirrored.high, -mirrored.low), abs=1e-9)
    assert interval.low < (only_second - only_first) / n < interval.high or only_first == only_second
    apart = abs(only_second - only_first) / math.sqrt(max(only_first + only_second, 1)) > 1.959964
    assert apart == (not interval.low < 0 < interval.high)
    generator = np.random.default_rng(6)
    shares = np.array([only_first + 1, only_second + 1, n]) / (n + only_first + only_second + 2)
    draws = generator.multinomial(n, shares, size=400)
    intervals = [paired_difference(int(a), int(b), n) for a, b, _ in draws]
    held = np.mean([each.low <= shares[1] - shares[0] <= each.high for each in intervals])
    assert held > 0.91


def test_equally_good_committees_are_seldom_told_apart() -> None:
    generator = np.random.default_rng(4)
    rounds, alarms, misses = 400, 0, 0
    labels = np.zeros(400, dtype=np.int64)
    for _ in range(rounds):
        shared = generator.random(400)  # the difficulty of each image, the same for both
        sure = [np.where(shared + generator.normal(scale=0.2, size=400) < 0.85, 0.9, 0.2) for _ in range(2)]
        a, b = (np.stack([value, 1 - value], axis=1) for value in sure)
        comparison = compare(a, b, labels, generator)
        alarms += "more accurate" in comparison.verdict
        interval = comparison.accuracy_difference_interval
        misses += not interval.low <= 0 <= interval.high
    assert alarms / rounds <= 0.05 + 3 * math.sqrt(0.05 * 0.95 / rounds)
    assert misses / rounds == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / rounds))


def test_a_better_committee_is_found_and_the_sign_is_b_minus_a() -> None:
    generator = np.random.default_rng(5)
    labels = np.zeros(1000, dtype=np.int64)
    worse, better = (np.where(generator.random(1000) < share, 0.9, 0.2) for share in (0.85, 0.95))
    comparison = compare(
        *(np.stack([p, 1 - p], axis=1) for p in (worse, better)), labels, generator, names=("old", "new")
    )
    assert comparison.accuracy_difference > 0 > comparison.log_loss_difference
    assert comparison.accuracy_difference_interval.low > 0 > comparison.log_loss_difference_interval.high
    assert comparison.mcnemar_p < 0.001
    assert comparison.verdict.startswith("new is more accurate than old")
    assert comparison.verdict.endswith("new has the lower log-loss.")
    counts = (comparison.only_a_right, comparison.only_b_right, comparison.both_right, comparison.both_wrong)
    assert sum(counts) == 1000
    same = compare(*[np.stack([worse, 1 - worse], axis=1)] * 2, labels, generator)
    assert (same.mcnemar_p, same.accuracy_difference) == (1.0, 0.0)
    assert "not distinguishable" in same.verdict


def test_galleries_show_the_right_images_in_the_right_order() -> None:
    probabilities = np.array(
        [[0.7, 0.2, 0.1], [0.1, 0.6, 0.3], [0.9, 0.05, 0.05], [0.4, 0.35, 0.25], [np.nan] * 3], dtype=np.float32
    )
    labels = np.array([0, 2, 1, 0, 0])
    members = np.stack([probabilities, np.roll(probabilities, 1, axis=1)])
    members[1, 2] = np.nan  # the second member trained on image 2
    shown, positions = galleries(probabilities, members, labels, part="train", limit=2)
    by_name = {gallery.name: gallery for gallery in shown}
    assert [p.position for p in by_name["confident_errors"].pictures] == [2, 1]
    assert [p.position for p in by_name["first_errors"].pictures] == [1, 2]
    assert [p.position for p in by_name["least_certain"].pictures] == [3, 1]
    assert sorted(positions) == [1, 2, 3]
    for gallery in shown:
        assert all(positions[p.slot] == p.position for p in gallery.pictures)
    first, second = by_name["confident_errors"].pictures
    assert (first.true, first.predicted, first.dissenters, first.members) == (1, 0, 0, 1)
    assert (first.probability_true, first.probability_predicted) == pytest.approx((0.05, 0.9))
    assert (second.dissenters, second.members) == (1, 2)


def test_most_confused_pairs_and_their_share_of_the_true_class() -> None:
    pairs = most_confused_pairs([[8, 2, 0], [0, 5, 0], [3, 1, 6]], NAMES, limit=2)
    assert pairs == (("cat", "ant", 3, 0.3), ("ant", "bee", 2, 0.2))


def test_agreement_compares_only_members_that_may_predict() -> None:
    choices = np.array([[0, 1, 2, 0], [0, 1, 1, 0], [0, 2, 2, 0]])
    members = np.eye(3)[choices]
    members[2, 1] = np.nan
    members[1:, 3] = np.nan  # one member alone on the last image
    result = agreement(members, on="train")
    assert result is not None
    assert result.images == 3
    assert result.matrix[0] == pytest.approx((1.0, 2 / 3, 1.0))
    assert result.matrix[1][2] == pytest.approx(0.5)
    assert result.mean == pytest.approx((2 / 3 + 1 + 0.5) / 3)
    assert result.all_agree == pytest.approx(2 / 3)
    assert agreement(members[:1], on="train") is None
