"""Long checks of what the README claims: `make soak`, on a machine at rest."""

from __future__ import annotations

import statistics
from pathlib import Path

import pytest

import committee


@pytest.mark.soak
def test_the_demo_keeps_its_promise_over_seeds(tmp_path: Path) -> None:
    dataset, recipe = committee.load_dataset("mnist-5k"), committee.load_recipe("standard")
    accuracies, seconds = [], []
    for seed in range(3):
        results = committee.train(dataset, recipe, tmp_path / str(seed), committee.Setting(seed=seed))
        assert results.test is not None
        accuracies.append(results.test.accuracy)
        seconds.append(results.seconds_training)
    print(accuracies, seconds)
    assert statistics.mean(accuracies) >= 0.990
    assert statistics.median(seconds) <= 60
