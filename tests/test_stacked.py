"""Members trained as one stack are the members that `fit` trains one by one, within float32's rounding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.folders import files as store
from committee.nn.stacked import FORMS, Form
from committee.runs import run as runs
from committee.training.executors import inline, stacked
from committee.training.jobs import one_thread
from committee.training.loop import fit
from committee.training.stacked_loop import fit_stacked, why_not
from committee.training.state import Fitted, State, Task

NETWORK: dict[str, Any] = {
    "layers": [
        {"type": "conv", "filters": 8, "activation": "relu"},
        {"type": "conv", "filters": 8, "padding": "valid", "bias": False},
        {"type": "batchnorm"},
        {"type": "activation", "kind": "relu"},
        {"type": "maxpool"},
        {"type": "dropout", "rate": 0.2},
        {"type": "conv", "filters": 6, "activation": "relu"},
        {"type": "flatten"},
        {"type": "dense", "units": 16, "activation": "relu"},
        {"type": "batchnorm"},
        {"type": "dropout", "rate": 0.3},
        {"type": "dense", "units": "classes"},
    ]
}


def recipe_of(**sections: Any) -> Recipe:
    return recipes.parse(
        {
            "name": "stack",
            "network": NETWORK,
            "training": {"epochs": 3, "batch": 96, "keep": "best_validation_loss"},
            "optimiser": {"name": "adamw", "rate": 1e-3, "weight_decay": 0.05, "epsilon": 1e-3},
            "schedule": {"name": "triangular", "warmup": 0.3},
            "augmentation": {"rotation": 10, "shift": 0.1, "cutout": 2},
            **sections,
        }
    )


def tasks_of(recipe: Recipe, digits: ImageDataset, members: int = 2) -> list[Task]:
    """Members that hold out different images, of equal number."""
    rows = np.arange(600)
    parts = [rows[member * 120 : (member + 1) * 120] for member in range(members)]
    return [Task(recipe, m, 7, np.setdiff1d(rows, part), part, 10, "cpu", "float32") for m, part in enumerate(parts)]


def finished(training: Any) -> Any:
    while True:
        try:
            next(training)
        except StopIteration as end:
            return end.value


MUON = {"optimiser": {"name": "muon", "rate": 1e-2, "epsilon": 1e-3}}


# Muon makes a gradient's small directions as large as the others, and the rounding in them too.
@pytest.mark.parametrize(("form", "changes", "most"), [*((form, {}, 2e-4) for form in FORMS), ("apart", MUON, 2e-3)])
def test_a_stack_of_two_trains_the_members_that_fit_trains(
    form: Form, changes: dict[str, Any], most: float, digits: ImageDataset
) -> None:
    tasks, images = tasks_of(recipe_of(**changes), digits), digits.train
    with one_thread():
        alone = [finished(fit(images.pixels, images.labels, task)) for task in tasks]
        together = finished(fit_stacked(images.pixels, images.labels, tasks, form=form))
    for one, other in zip(alone, together, strict=True):
        assert isinstance(other, Fitted)
        assert other.kept_epoch == one.kept_epoch
        for (name, a), b in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
            assert torch.allclose(a.float(), b.float(), atol=most, rtol=1e-3), name
        for a, b in zip(one.history, other.history, strict=True):
            assert b["train_loss"] == pytest.approx(a["train_loss"], rel=1e-3)
            assert b["validation_accuracy"] == pytest.approx(a["validation_accuracy"], abs=0.009)  # one image of 120
    assert not np.allclose(*(fitted.network[1].weight.detach().numpy() for fitted in together))  # two members, not one


def test_a_member_that_stopped_early_is_left_as_it_was(digits: ImageDataset) -> None:
    recipe = recipe_of(
        training={"epochs": 12, "batch": 32, "patience": 1, "keep": "best_validation_loss"},
        optimiser={"name": "adam", "rate": 3e-2},
        schedule={"name": "constant"},
    )
    tasks, images = tasks_of(recipe, digits, members=3), digits.train
    epochs: dict[int, list[int]] = {0: [], 1: [], 2: []}
    with one_thread():
        training = fit_stacked(images.pixels, images.labels, tasks)
        while True:
            try:
                event = next(training)
            except StopIteration as end:
                fitted = end.value
                break
            if isinstance(event, tuple):
                place, state = event
                assert isinstance(state, State)
                epochs[place].append(state.epoch)
    ends = [each[-1] for each in epochs.values()]
    assert len(set(ends)) > 1, "the members should stop at different epochs"
    for place, member in enumerate(fitted):
        assert len(member.history) == ends[place]
        assert ends[place] == 12 or "not lower" in member.remark


def test_the_stacked_runner_gives_the_same_run_and_falls_back(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(holdout={"kind": "folds", "folds": 3}, committee={"members": 3})
    dataset = replace(digits, train=digits.train.part(np.arange(600)))
    accuracies = {}
    for runner in (inline, stacked):
        monkeypatch.setattr(runs, "pick_runner", lambda setting, jobs, runner=runner: runner.run)
        results = runs.train(dataset, recipe, tmp_path / runner.__name__, runs.Setting(0, "cpu", "float32", 1))
        assert results.out_of_fold is not None
        accuracies[runner] = results.out_of_fold.accuracy
        assert len(store.read_json(store.member_file(tmp_path / runner.__name__, 2))) > 5
    assert accuracies[stacked] == pytest.approx(accuracies[inline], abs=3 / 600)
    uneven = [*tasks_of(recipe, digits), replace(tasks_of(recipe, digits)[0], train=np.arange(100))]
    assert why_not(uneven) == "they train on different numbers of images"
    assert why_not(tasks_of(recipe, digits)) == ""
