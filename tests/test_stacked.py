"""Members trained as one stack are the members that `fit` trains one by one, within float32's rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.nn.devices import single_threaded
from committee.nn.stacked import FORMS, Form
from committee.runs import run as runs
from committee.training import stacked_loop
from committee.training.executors import inline, stacked
from committee.training.loop import fit
from committee.training.setting import Setting
from committee.training.stacked_loop import CapturedStep, Step, fit_stacked, reason_not_to_stack
from committee.training.state import Task, TrainedNetwork, TrainingState

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
            "training": {"epochs": 3, "batch_size": 96, "checkpoint": "best_validation_loss"},
            "optimiser": {"name": "adamw", "lr": 1e-3, "weight_decay": 0.05, "epsilon": 1e-3},
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


def trained(tasks: list[Task], images: Any, form: Form | None = None) -> list[TrainedNetwork]:
    """The members of a stack, in the order of their tasks."""
    events = fit_stacked(images.pixels, images.labels, tasks, form=form)
    found = {place: event for place, event in events if isinstance(event, TrainedNetwork)}
    return [found[place] for place in range(len(tasks))]


def trained_alone(task: Task, images: Any) -> TrainedNetwork:
    *_, last = fit(images.pixels, images.labels, task)
    assert isinstance(last, TrainedNetwork)
    return last


MUON = {"optimiser": {"name": "muon", "lr": 1e-2, "epsilon": 1e-3}}


# Muon makes a gradient's small directions as large as the others, and the rounding in them too.
@pytest.mark.parametrize(("form", "changes", "most"), [*((form, {}, 2e-4) for form in FORMS), ("apart", MUON, 2e-3)])
def test_a_stack_of_two_trains_the_members_that_fit_trains(
    form: Form, changes: dict[str, Any], most: float, digits: ImageDataset
) -> None:
    tasks, images = tasks_of(recipe_of(**changes), digits), digits.train
    with single_threaded():
        alone = [trained_alone(task, images) for task in tasks]
        together = trained(tasks, images, form)
    for one, other in zip(alone, together, strict=True):
        assert other.best_epoch == one.best_epoch
        for (name, a), b in zip(one.network.state_dict().items(), other.network.state_dict().values(), strict=True):
            assert torch.allclose(a.float(), b.float(), atol=most, rtol=1e-3), name
        for a, b in zip(one.history, other.history, strict=True):
            assert b.train_loss == pytest.approx(a.train_loss, rel=1e-3)
            assert b.validation_accuracy == pytest.approx(a.validation_accuracy, abs=0.009)  # one image of 120
    assert not np.allclose(*(fitted.network[1].weight.detach().numpy() for fitted in together))  # two members, not one


def test_a_member_that_stopped_early_is_left_as_it_was(digits: ImageDataset) -> None:
    recipe = recipe_of(
        training={"epochs": 12, "batch_size": 32, "patience": 1, "checkpoint": "best_validation_loss"},
        optimiser={"name": "adam", "lr": 3e-2},
        schedule={"name": "constant"},
    )
    tasks, images = tasks_of(recipe, digits, members=3), digits.train
    epochs: dict[int, list[int]] = {0: [], 1: [], 2: []}
    fitted: dict[int, TrainedNetwork] = {}
    with single_threaded():
        for place, event in fit_stacked(images.pixels, images.labels, tasks):
            if isinstance(event, TrainingState):
                epochs[place].append(event.epoch)
            elif isinstance(event, TrainedNetwork):
                fitted[place] = event
    ends = [each[-1] for each in epochs.values()]
    assert len(set(ends)) > 1, "the members should stop at different epochs"
    for place, member in fitted.items():
        assert len(member.history) == ends[place]
        assert ends[place] == 12 or "not lower" in member.remark


def test_the_stacked_executor_gives_the_same_run_and_falls_back(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(holdout={"kind": "folds", "folds": 3}, committee={"members": 3})
    dataset = replace(digits, train=digits.train.part(np.arange(600)))
    accuracies = {}
    for executor in (inline, stacked):
        monkeypatch.setattr(runs, "executor_for", lambda device, workers, executor=executor: executor.run)
        folder = RunFolder(tmp_path / executor.__name__)
        results = runs.train(dataset, recipe, folder.path, Setting(0, "cpu", "float32", 1))
        assert results.out_of_fold is not None
        accuracies[executor] = results.out_of_fold.accuracy
        assert folder.member(2).record.status == "finished"
    assert accuracies[stacked] == pytest.approx(accuracies[inline], abs=3 / 600)
    uneven = [*tasks_of(recipe, digits), replace(tasks_of(recipe, digits)[0], train=np.arange(100))]
    assert reason_not_to_stack(uneven) == "they train on different numbers of images"
    assert reason_not_to_stack(tasks_of(recipe, digits)) == ""


# --- CUDA graphs, on streams and graphs that only pretend ------------------------------------------------------------


class FakeGraph:
    """A graph that records a call made while it is captured, and makes it again on replay, as kernels would."""

    capturing: ClassVar[FakeGraph | None] = None
    captured: ClassVar[list[FakeGraph]] = []

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.calls: list[Callable[[], None]] = []

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        for call in self.calls:
            call()


def launched(step: Step) -> Step:
    """A step as CUDA runs it: recorded while a graph is captured, else run at once."""

    def launch(chosen: torch.Tensor, augmented: bool) -> None:
        if FakeGraph.capturing:
            FakeGraph.capturing.calls.append(lambda: step(chosen, augmented))
        else:
            step(chosen, augmented)

    return launch


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> type[FakeGraph]:
    """torch.cuda's streams and graphs, replaced by ones that work on the CPU."""
    FakeGraph.captured = []

    @contextmanager
    def capture(graph: FakeGraph) -> Iterator[None]:
        FakeGraph.capturing = graph
        yield
        FakeGraph.capturing = None
        FakeGraph.captured.append(graph)

    stream = SimpleNamespace(wait_stream=lambda other: None)
    monkeypatch.setattr(torch.cuda, "Stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda: stream)
    monkeypatch.setattr(torch.cuda, "stream", lambda stream: nullcontext())
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return FakeGraph


def test_a_captured_step_warms_up_is_captured_once_for_a_shape_and_replayed_on_new_positions(
    fake_cuda: type[FakeGraph],
) -> None:
    seen: list[tuple[list[list[int]], bool]] = []
    generators = [torch.Generator(), torch.Generator()]
    run = CapturedStep(launched(lambda chosen, augmented: seen.append((chosen.tolist(), augmented))), generators)
    wanted = [([[number, number + 1]], True) for number in range(6)] + [([[7]], True), ([[8, 9]], False)]
    for positions, augmented in wanted:
        run(torch.tensor(positions), augmented)
    assert seen == wanted  # every step happened once, on its own positions
    assert len(fake_cuda.captured) == 1  # the other shape, and the step without augmentation, are still warming up
    assert fake_cuda.captured[0].generators == generators


def test_a_stack_trained_by_captured_steps_is_the_stack_trained_without(
    fake_cuda: type[FakeGraph], digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    class CapturedStack(stacked_loop.Stack):
        def __init__(self, *arguments: Any) -> None:
            super().__init__(*arguments)
            self.step = CapturedStep(launched(self.plain_step), [*self.augmentation, *self.dropout])

    tasks, images = tasks_of(recipe_of(), digits), digits.train
    with single_threaded():
        plain = trained(tasks, images, "apart")
        monkeypatch.setattr(stacked_loop, "Stack", CapturedStack)
        captured = trained(tasks, images, "apart")
    assert fake_cuda.captured
    for one, other in zip(plain, captured, strict=True):
        for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
            assert torch.equal(a, b)
