"""Members trained as one stack are the members that `fit` trains one by one, within float32's rounding."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Augmentation, Recipe
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.nn.devices import single_threaded
from committee.nn.stacked import FORMS, Form, Stacked
from committee.runs import run as runs
from committee.training import stacked_loop
from committee.training.batches import image_weights
from committee.training.executors import inline, stacked
from committee.training.loop import fit
from committee.training.setting import Setting
from committee.training.stacked_loop import CapturedStep, fit_stacked, reason_not_to_stack
from committee.training.state import NonFiniteLossError, Task, TrainedNetwork, TrainingState

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
    """Members with different validation images, of equal number."""
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


WEIGHTED = {"training": {"epochs": 3, "batch_size": 96, "class_weights": "balanced"}}
MUON = {"optimiser": {"name": "muon", "lr": 1e-2, "epsilon": 1e-3}}


# Muon makes all directions of an update equally large, and so enlarges the rounding errors of the small ones.
@pytest.mark.parametrize(
    ("form", "changes", "most"),
    [*((form, {}, 2e-4) for form in FORMS), ("separate", MUON, 2e-3), ("separate", WEIGHTED, 2e-4)],
)
def test_a_stack_of_two_trains_the_members_that_fit_trains(
    form: Form, changes: dict[str, Any], most: float, digits: ImageDataset
) -> None:
    tasks, images = tasks_of(recipe_of(**changes), digits), digits.train
    kind = tasks[0].recipe.training.class_weights
    tasks = [replace(task, weights=image_weights(images.labels, task.train, kind)) for task in tasks]
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
    assert not np.allclose(*(member.network[1].weight.detach().numpy() for member in together))  # two members, not one


def test_a_member_that_stops_early_keeps_its_state(digits: ImageDataset) -> None:
    recipe = recipe_of(
        training={"epochs": 12, "batch_size": 32, "patience": 1, "checkpoint": "best_validation_loss"},
        optimiser={"name": "adam", "lr": 3e-2},
        schedule={"name": "constant"},
    )
    tasks, images = tasks_of(recipe, digits, members=3), digits.train
    epochs: dict[int, list[int]] = {0: [], 1: [], 2: []}
    members: dict[int, TrainedNetwork] = {}
    with single_threaded():
        for place, event in fit_stacked(images.pixels, images.labels, tasks):
            if isinstance(event, TrainingState):
                epochs[place].append(event.epoch)
            elif isinstance(event, TrainedNetwork):
                members[place] = event
    ends = [each[-1] for each in epochs.values()]
    assert len(set(ends)) > 1, "the members should stop at different epochs"
    for place, member in members.items():
        assert len(member.history) == ends[place]
        assert member.remark == (
            "all 12 epochs" if ends[place] == 12 else "early stopping: validation loss not lower for 1 epoch"
        )


def test_the_stacked_executor_gives_the_same_run_and_falls_back(
    digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_of(holdout={"kind": "folds", "folds": 3}, committee={"members": 3})
    dataset = replace(digits, train=digits.train.part(np.arange(600)))
    accuracies = {}
    for executor in (inline, stacked):
        monkeypatch.setattr(runs, "executor_for", lambda setting, jobs, executor=executor: executor.run)
        folder = RunFolder(tmp_path / executor.__name__)
        results = runs.train(dataset, recipe, folder.path, Setting(0, "cpu", "float32", 1))
        assert results.out_of_fold is not None
        accuracies[executor] = results.out_of_fold.accuracy
        assert folder.member(2).record.status == "finished"
    assert accuracies[stacked] == pytest.approx(accuracies[inline], abs=3 / 600)
    uneven = [*tasks_of(recipe, digits), replace(tasks_of(recipe, digits)[0], train=np.arange(100))]
    assert reason_not_to_stack(uneven) == "they train on different numbers of images"
    assert reason_not_to_stack(tasks_of(recipe, digits)) == ""
    mixing = recipe.model_copy(update={"augmentation": Augmentation(cutmix=0.5)})
    assert reason_not_to_stack(tasks_of(mixing, digits)) == "the recipe mixes images (cutmix)"


# --- CUDA graphs, on fake streams and graphs --------------------------------------------------------------------------


class FakeGraph:
    """A graph that keeps the steps launched while it is captured, without running them, and runs them on replay."""

    capturing: ClassVar[FakeGraph | None] = None

    def __init__(self) -> None:
        self.generators: list[torch.Generator] = []
        self.launches: list[Callable[[], None]] = []
        self.replays = 0

    def register_generator_state(self, generator: torch.Generator) -> None:
        self.generators.append(generator)

    def replay(self) -> None:
        self.replays += 1
        for launch in self.launches:
            launch()


@dataclass
class FakeCuda:
    """What happened on the fake device: streams that steps ran on (None: the current one), captured graphs."""

    streams: list[str | None] = field(default_factory=list)
    graphs: list[FakeGraph] = field(default_factory=list)
    stream: str | None = None

    def launched(self, step: Callable[..., None]) -> Callable[..., None]:
        """A step as CUDA runs it: kept while a graph is captured, else run at once."""

        def launch(*arguments: Any) -> None:
            if FakeGraph.capturing:
                FakeGraph.capturing.launches.append(lambda: step(*arguments))
            else:
                self.streams.append(self.stream)
                step(*arguments)

        return launch


@pytest.fixture
def fake_cuda(monkeypatch: pytest.MonkeyPatch) -> FakeCuda:
    """torch.cuda's streams and graphs, replaced by fakes on the CPU."""
    device = FakeCuda()

    @contextmanager
    def capture(graph: FakeGraph) -> Iterator[None]:
        FakeGraph.capturing = graph
        yield
        FakeGraph.capturing = None
        device.graphs.append(graph)

    @contextmanager
    def on_stream(stream: Any) -> Iterator[None]:
        device.stream = stream.name
        yield
        device.stream = None

    def new_stream() -> Any:
        return SimpleNamespace(name="side", wait_stream=lambda other: None)

    monkeypatch.setattr(torch.cuda, "Stream", new_stream)
    monkeypatch.setattr(torch.cuda, "current_stream", new_stream)
    monkeypatch.setattr(torch.cuda, "stream", on_stream)
    monkeypatch.setattr(torch.cuda, "CUDAGraph", FakeGraph)
    monkeypatch.setattr(torch.cuda, "graph", capture)
    return device


def test_a_step_is_captured_once_for_each_shape_and_augmentation_and_replayed_on_new_positions(
    fake_cuda: FakeCuda,
) -> None:
    runs: list[tuple[list[list[int]], bool]] = []
    read_from: list[int] = []  # addresses of the positions

    def step(positions: torch.Tensor, augmented: bool) -> None:
        runs.append((positions.tolist(), augmented))
        read_from.append(positions.data_ptr())

    generators = [torch.Generator(), torch.Generator()]
    captured = CapturedStep(fake_cuda.launched(step), generators)
    expected: list[tuple[list[list[int]], bool]] = []
    given = []
    for number in range(6):
        for key in ((1, 2, True), (1, 2, False), (2, 3, True)):
            *shape, augmented = key
            positions = torch.arange(6)[: shape[0] * shape[1]].view(*shape) + 10 * number
            expected.append((positions.tolist(), augmented))
            captured(positions, augmented)
            given.append(positions.fill_(-1))  # a graph that reads from here has nothing to go by
    assert runs == expected  # every step ran exactly once, on its own positions
    assert fake_cuda.streams == ["side"] * 9  # three warm-up runs of each, not on the current stream
    assert [graph.replays for graph in fake_cuda.graphs] == [3, 3, 3]
    assert all(graph.generators == generators for graph in fake_cuda.graphs)
    replayed = read_from[9:]
    assert replayed[:3] * 3 == replayed  # each graph reads where it read when it was captured
    assert len(set(replayed)) == 3
    assert all((positions == -1).all() for positions in given)  # and writes to none of its callers' tensors


def test_two_epochs_of_captured_steps_end_with_the_same_bits_as_plain_ones(
    fake_cuda: FakeCuda, digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With Muon, whose learning rate and step count are tensors then; augmentation ends after the first epoch."""
    training = {"epochs": 2, "batch_size": 96}
    augmentation = {"rotation": 10, "shift": 0.1, "cutout": 2, "no_aug_epochs": 1}
    tasks, images = tasks_of(recipe_of(**MUON, training=training, augmentation=augmentation), digits), digits.train
    monkeypatch.setattr(stacked_loop, "is_capturable", lambda task: True)
    with single_threaded():
        with monkeypatch.context() as patch:
            patch.setattr(stacked_loop, "CapturedStep", lambda step, generators: step)
            plain = trained(tasks, images)
        assert not fake_cuda.graphs
        monkeypatch.setattr(stacked_loop, "train_step", fake_cuda.launched(stacked_loop.train_step))
        captured = trained(tasks, images)
    assert len(fake_cuda.graphs) == 2  # with augmentation and without; the last, shorter batches never get that far
    assert all(len(graph.generators) == 4 for graph in fake_cuda.graphs)  # augmentation and dropout of two members
    for one, other in zip(plain, captured, strict=True):
        for a, b in zip(one.network.state_dict().values(), other.network.state_dict().values(), strict=True):
            assert torch.equal(a, b)
        assert [epoch.train_loss for epoch in one.history] == [epoch.train_loss for epoch in other.history]


def test_the_fastest_form_is_chosen_by_its_time_after_the_first_pass(
    digits: ImageDataset, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three passes of "im2col" are the fastest here, although its first one is slow, as when torch chooses kernels."""
    clock, passes = [0.0], dict.fromkeys(FORMS, 0)
    forward = Stacked.forward

    def timed(self: Stacked, pixels: torch.Tensor) -> torch.Tensor:
        form = next(layer.form for layer in self.layers if hasattr(layer, "form"))
        passes[form] += 1
        clock[0] += 100.0 if form == "im2col" and passes[form] == 1 else 1.0 if form == "im2col" else 2.0
        return forward(self, pixels)

    monkeypatch.setattr(Stacked, "forward", timed)
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(stacked_loop.time, "perf_counter", lambda: clock[0])
    tasks = tasks_of(recipe_of(), digits)
    networks = [stacked_loop.new_network(digits.train.pixels, task) for task in tasks]
    times = {form: stacked_loop.seconds_of_form(form, networks, torch.zeros(2, 4, 1, 8, 8), tasks[0]) for form in FORMS}
    assert times == {"grouped": 6.0, "im2col": 3.0, "separate": 6.0, "streams": 6.0}
    assert stacked_loop.fastest_form(networks, torch.from_numpy(digits.train.pixels), tasks[0]) == "separate"  # a CPU
    monkeypatch.setattr(stacked_loop, "seconds_of_form", lambda form, *arguments: times[form])
    on_cuda = replace(tasks[0], device="cuda")
    assert stacked_loop.fastest_form(networks, torch.from_numpy(digits.train.pixels), on_cuda) == "im2col"


def test_members_that_fail_leave_the_others_in_training(digits: ImageDataset, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every task ends with one trained network or one error."""
    plain = stacked_loop.evaluate_epoch

    def fails_in_epoch_2(*arguments: Any) -> Any:
        *_, task, epoch, totals = arguments
        if task.member == 1 and epoch == 2:
            totals = replace(totals, loss=float("nan"))
        return plain(*arguments[:-1], totals)

    monkeypatch.setattr(stacked_loop, "evaluate_epoch", fails_in_epoch_2)
    tasks, images = tasks_of(recipe_of(), digits, members=3), digits.train
    with single_threaded():
        events = list(fit_stacked(images.pixels, images.labels, tasks))
    ends = [(m, type(event)) for m, event in events if isinstance(event, TrainedNetwork | NonFiniteLossError)]
    assert ends == [(0, TrainedNetwork), (1, NonFiniteLossError), (2, TrainedNetwork)]
    assert events[-2][1].args == ("the training loss became nan in epoch 2",)
    epochs = [[event.epoch for at, event in events if at == m and isinstance(event, TrainingState)] for m in range(3)]
    assert epochs == [[1, 2, 3], [1], [1, 2, 3]]
