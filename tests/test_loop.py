"""The training loop: the same bits after an interruption, the learning rates and updates that the recipe asks for."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Augmentation, Conv, Optimiser, Recipe, Schedule, Training
from committee.config.toml_files import shipped
from committee.data.augment import augment, mix, random_bends, random_matrices, warp
from committee.data.dataset import ImageDataset, LabelledImages
from committee.folders.member_folder import MemberFolder
from committee.nn.architectures import KeyedDropout, StemConv, build
from committee.nn.devices import single_threaded
from committee.nn.forward import inference_forward
from committee.nn.images import as_float, on_device
from committee.nn.inference import predict_logits
from committee.nn.summary import layer_table
from committee.rng import torch_generator
from committee.training import batches, loop, losses
from committee.training.batches import scaling_of
from committee.training.loop import fit
from committee.training.optim import OPTIMISERS, Muon, Sgd, lr_at, make_optimiser
from committee.training.state import NonFiniteLossError, Task, TrainedNetwork, TrainingState


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    with single_threaded():
        yield


def task_of(recipe: Recipe, dataset: ImageDataset, precision: str = "float32", train: int = 200) -> Task:
    positions = np.arange(train + 300)
    return Task(recipe, 0, 0, positions[:train], positions[train:], len(dataset.class_names), "cpu", precision)


def run(
    dataset: ImageDataset, task: Task, resume: TrainingState | None = None
) -> tuple[TrainedNetwork, list[TrainingState]]:
    events = list(fit(dataset.train.pixels, dataset.train.labels, task, resume=resume))
    assert isinstance(events[-1], TrainedNetwork)
    return events[-1], [event for event in events if isinstance(event, TrainingState)]


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a.state_dict().values(), b.state_dict().values(), strict=True))


PLATEAU = [
    "schedule.name=plateau",
    "schedule.patience=1",
    "training.ema=0.9",
    "training.checkpoint=best_validation_loss",
    "optimiser.name=adamw",
    "optimiser.lr=0.5",
    "augmentation.no_aug_epochs=0",
    "augmentation.cutmix=0.5",
]


@pytest.mark.parametrize("name", ["standard", "ensemble-cnn", "plateau and average"])
def test_an_interrupted_training_ends_with_the_same_bits(name: str, digits: ImageDataset, tmp_path: Any) -> None:
    folder = MemberFolder(tmp_path)
    network = "network.layers=[{type='flatten'},{type='dropout',rate=0.3},{type='dense',units='classes'}]"
    changes = ["training.epochs=4"] + ([network] if name == "ensemble-cnn" else ["network.widths=[8,8,8]"])
    base = name if name in shipped("recipe") else "standard"
    task = task_of(recipes.load(base, changes + (PLATEAU if name == "plateau and average" else [])), digits)
    if name == "plateau and average":  # and pseudo-labelled images
        task = replace(task, pseudo=LabelledImages(digits.train.pixels[600:700], digits.train.labels[600:700]))
    whole, _ = run(digits, task)
    training = fit(digits.train.pixels, digits.train.labels, task)
    for event in training:
        if isinstance(event, TrainingState) and event.epoch == 2:
            path = folder.write_checkpoint(event.epoch, event.step, *event.to_tensors(), before=None)
            break
    resumed, states = run(digits, task, TrainingState.from_tensors(*folder.read_checkpoint(path)))
    assert [state.epoch for state in states] == [3, 4]
    assert same(whole.network, resumed.network)
    timeless, again = (
        [epoch.model_dump(exclude={"seconds", "images_per_second"}) for epoch in trained.history]
        for trained in (whole, resumed)
    )
    assert timeless == again
    assert any(epoch.lr_reduced_to for epoch in whole.history) == (name == "plateau and average")


def test_a_checkpoint_of_version_0_4_is_resumed_with_the_same_bits(digits: ImageDataset) -> None:
    changes = ["training.epochs=4", "network.widths=[8,8,8]", *PLATEAU, "training.ema=0.5"]
    changes += ["optimiser.name=muon", "optimiser.lr=10"]
    task = task_of(recipes.load("standard", changes), digits)
    whole, _ = run(digits, task)
    third = next(event for event in fit(digits.train.pixels, digits.train.labels, task) if is_epoch(event, 3))
    resumed, states = run(digits, task, TrainingState.from_tensors(*as_in_0_4(*third.to_tensors())))
    assert [state.epoch for state in states] == [4]
    assert same(whole.network, resumed.network)
    assert resumed.best_epoch == whole.best_epoch
    assert [epoch.lr_reduced_to for epoch in resumed.history] == [epoch.lr_reduced_to for epoch in whole.history]
    assert any(epoch.lr_reduced_to for epoch in whole.history[:3])


def as_in_0_4(tensors: dict[str, torch.Tensor], numbers: dict[str, Any]) -> tuple[dict[str, torch.Tensor], Any]:
    """A checkpoint with the names that version 0.4.1 wrote."""
    fields = {
        "epoch": "epoch",
        "best_epoch": "kept_epoch",
        "best_score": "best",
        "lowest_loss": "lowest_loss",
        "epochs_since_lowest": "epochs_since_lowest",
        "lr_factor": "rate_factor",
        "best_monitored": "best_watched",
        "epochs_since_improvement": "epochs_since_watched",
    }
    history = [dict(epoch) for epoch in numbers["history"]]
    for epoch in history:
        if lr := epoch.pop("lr_reduced_to"):
            epoch["rate_reduced_to"] = lr
    groups = [dict(group) for group in numbers["groups"]]
    for group in groups:
        group["share"] = group.pop("lr_factor")
    state = {fields[name]: value for name, value in numbers["state"].items()}
    old_tensors = {name.replace("best/", "kept/"): tensor for name, tensor in tensors.items()}
    assert {name.partition("/")[0] for name in old_tensors} == {"network", "optimiser", "kept", "average"}
    return old_tensors, {"state": state, "groups": groups, "history": history}


def is_epoch(event: Any, number: int) -> bool:
    return isinstance(event, TrainingState) and event.epoch == number


def test_bfloat16_learns_what_float32_learns(digits: ImageDataset) -> None:
    recipe = recipes.load("standard", ["training.epochs=8", "network.widths=[16,16,16]", "training.batch_size=32"])
    accuracy = {}
    for precision in ("float32", "bfloat16"):
        trained, _ = run(digits, task_of(recipe, digits, precision, train=1000))
        accuracy[precision] = trained.history[-1].validation_accuracy
    assert min(accuracy.values()) > 0.9
    assert abs(accuracy["float32"] - accuracy["bfloat16"]) < 0.04


def test_bfloat16_convolutions_of_the_recipes_agree_with_float32() -> None:
    """Some bfloat16 convolutions of some releases were wrong on CPUs; those that we use must not be."""
    shapes = {
        (planned.input, planned.layer.filters, planned.layer.padding)
        for name in shipped("recipe")
        for planned in layer_table(recipes.load(name).network, (28, 28, 1), 10)
        if isinstance(planned.layer, Conv) and planned.input[0] > 1
    }
    for (channels, height, width), filters, padding in sorted(shapes):
        generator = torch_generator(channels, filters, height)
        conv = nn.Conv2d(channels, filters, 3, padding=1 if padding == "same" else 0).to(
            memory_format=torch.channels_last
        )
        images = torch.randn(32, channels, height, width, generator=generator).contiguous(
            memory_format=torch.channels_last
        )
        found = {}
        for precision in ("float32", "bfloat16"):
            images = images.detach().requires_grad_()
            conv.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
                output = conv(images)
            output.float().sin().sum().backward()
            found[precision] = (output.detach().float(), images.grad, conv.weight.grad)
        for reference, value in zip(found["float32"], found["bfloat16"], strict=True):
            assert torch.linalg.norm(value - reference) < 0.02 * torch.linalg.norm(reference)


def test_the_first_convolution_is_computed_in_float32() -> None:
    conv = StemConv(1, 4, 2)
    images = torch.rand(2, 1, 8, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        output = conv(images)
    assert output.dtype == torch.bfloat16
    assert torch.equal(output, functional.conv2d(images, conv.weight, conv.bias).to(torch.bfloat16))


def test_a_loss_that_is_not_finite_ends_the_training(digits: ImageDataset) -> None:
    recipe = recipes.load(
        "standard", ["optimiser.name=sgd", "optimiser.lr=1e30", "training.epochs=2", "schedule.name=constant"]
    )
    with pytest.raises(NonFiniteLossError, match=r"the (training|validation) loss became (nan|inf) in epoch 1"):
        run(digits, task_of(recipe, digits))


@pytest.mark.parametrize(
    ("checkpoint", "badness"),
    [
        ("best_validation_accuracy", lambda epoch: -epoch.validation_accuracy),
        ("best_validation_loss", lambda epoch: epoch.validation_loss),
    ],
)
def test_the_selected_weights_are_those_of_the_best_epoch(checkpoint: str, badness: Any, digits: ImageDataset) -> None:
    recipe = recipes.load(
        "standard",
        ["training.epochs=6", f"training.checkpoint={checkpoint}", "network.widths=[8,8,8]", "optimiser.lr=0.02"],
    )
    task = task_of(recipe, digits)
    trained, _ = run(digits, task)
    best = min(trained.history, key=badness)
    assert trained.best_epoch == best.epoch
    images, labels = torch.from_numpy(digits.train.pixels), torch.from_numpy(digits.train.labels)
    score = loop.evaluate(trained.network, images, labels, task.validation, task)
    assert score.loss == pytest.approx(best.validation_loss, rel=1e-6)
    assert score.accuracy == pytest.approx(best.validation_accuracy)


def test_patience_stops_after_epochs_without_a_lower_loss(digits: ImageDataset) -> None:
    recipe = recipes.load(
        "standard", ["training.epochs=40", "training.patience=2", "optimiser.lr=0.03", "network.widths=[8,8,8]"]
    )
    trained, _ = run(digits, task_of(recipe, digits))
    losses = [epoch.validation_loss or 0.0 for epoch in trained.history]
    assert len(losses) < 40
    assert min(losses) == losses[-3]
    assert trained.remark == "early stopping: validation loss not lower for 2 epochs"


# --- optimisers and schedules -----------------------------------------------------------------------------------------


def test_a_whitening_stem_gives_uncorrelated_outputs_of_its_own_images(digits: ImageDataset) -> None:
    recipe = recipes.load("standard", ["network.stem=whitening", "network.widths=[24,16,16]", "optimiser.name=adamw"])
    task = task_of(recipe, digits)
    network = loop.new_network(digits.train.pixels, task)
    images = as_float(torch.from_numpy(digits.train.pixels[task.train]))
    stem = network[1]
    with torch.no_grad():
        outputs = functional.conv2d(network[0](images), stem.weight).transpose(0, 1).flatten(1)
    assert torch.equal(stem.weight[9:16], -stem.weight[:7])  # 16 filters, 9 principal components
    covariance = torch.cov(outputs[:9])
    assert torch.allclose(covariance[:6, :6], torch.eye(6), atol=0.05)
    assert covariance.fill_diagonal_(0).abs().max() < 0.01


def test_muon_is_torchs_and_updates_the_output_layer_by_adamw() -> None:
    draws = torch.Generator().manual_seed(0)
    ours = [nn.Parameter(torch.randn(shape, generator=draws)) for shape in ((20, 30), (40, 10), (12,), (10, 40))]
    start = [p.detach().clone() for p in ours]
    theirs = [nn.Parameter(p.clone()) for p in start]
    settings = Optimiser(name="muon", lr=0.02, weight_decay=0.1)
    other = {"lr": 0.02 * settings.adamw_lr_factor, "eps": settings.epsilon}
    optimisers = [
        Muon(settings, [ours[0], ours[1], ours[3]], [ours[2]]),
        torch.optim.Muon(theirs[:2], lr=0.02, weight_decay=0.1),
        torch.optim.AdamW(theirs[2:3], weight_decay=0, **other),
        torch.optim.AdamW(theirs[3:], weight_decay=0.1, **other),
    ]
    for _ in range(10):
        for a, b in zip(ours, theirs, strict=True):
            assert a.grad is not None
            b.grad = torch.randn(a.shape, generator=draws)
            a.grad.copy_(b.grad)
        for optimiser in optimisers:
            optimiser.step()
    for a, b, before in zip(ours, theirs, start, strict=True):
        assert (a - b).norm() < 0.03 * (b - before).norm()  # torch's Newton-Schulz steps are in bfloat16


STAGES = """[
  {epochs = 1, lr = 1e-3, batch_size = 16, augment = false},
  {epochs = 2, lr = 1e-2},
]""".replace("\n", "")


@pytest.fixture
def lrs_used(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The learning rate of SGD in each of its steps."""
    used: list[float] = []
    step = Sgd.step

    def spy(self: Sgd, *arguments: Any) -> Any:
        used.extend({group["lr"] for group in self.param_groups})
        return step(self, *arguments)

    monkeypatch.setattr(Sgd, "step", spy)
    return used


@pytest.mark.parametrize("name", ["constant", "triangular", "cosine"])
def test_the_schedule_reaches_the_optimiser_in_every_step(
    name: str, digits: ImageDataset, lrs_used: list[float]
) -> None:
    changes = ["training.epochs=2", "network.widths=[8,8,8]", "optimiser.name=sgd", f"schedule.name={name}"]
    recipe = recipes.load("standard", changes)
    run(digits, task_of(recipe, digits))
    steps = 2 * 10  # 200 images: batches of a tenth
    assert lrs_used == [lr_at(number, steps, recipe.schedule, recipe.optimiser.lr) for number in range(steps)]
    assert len(set(lrs_used)) > 3  # standard warms up, even to a constant learning rate


def test_stages_have_their_own_learning_rates_batches_and_augmentation(
    digits: ImageDataset, lrs_used: list[float], monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    def spy(images: torch.Tensor, *arguments: Any) -> torch.Tensor:
        seen.append(len(images))
        return augment(images, *arguments)

    monkeypatch.setattr(batches, "augment", spy)
    changes = ["network.widths=[8,8,8]", "optimiser.name=sgd", "augmentation.no_aug_epochs=0"]
    recipe = recipes.load("standard", changes)
    content = recipe.content() | {
        "name": "staged",
        "schedule": {"name": "stages", "stages": tomllib.loads(f"a={STAGES}")["a"]},
    }
    del content["training"]["epochs"]
    staged = recipes.parse(content)
    assert staged.training.epochs == 3
    run(digits, task_of(staged, digits))
    assert lrs_used == [1e-3] * 13 + [1e-2] * 20  # 200 images: 13 steps of 16, then twice 10 of a tenth
    assert seen == [20] * 20
    seen.clear()
    plain_at_the_end = recipe.content() | {"name": "plain", "augmentation": {"rotation": 9, "no_aug_epochs": 1}}
    run(digits, task_of(recipes.parse(plain_at_the_end | {"training": {"epochs": 3}}), digits))
    assert seen == [20] * 20  # ten steps in each of the first two epochs


def test_a_plateau_halves_the_learning_rate_down_to_its_least(digits: ImageDataset, lrs_used: list[float]) -> None:
    recipe = recipes.load("standard", ["training.epochs=8", "network.widths=[8,8,8]", "optimiser.name=sgd"])
    changes = {"schedule": {"name": "plateau", "patience": 1, "min_lr": 0.01, "monitor": "validation_loss"}}
    # with so high a learning rate hardly any epoch has a lower loss than the one before
    plateau = recipes.parse(recipe.content() | {"name": "plateau", "optimiser": {"name": "sgd", "lr": 2.0}} | changes)
    trained, _ = run(digits, task_of(plateau, digits))
    reduced = [(epoch.epoch, epoch.lr_reduced_to) for epoch in trained.history if epoch.lr_reduced_to]
    losses = [epoch.validation_loss or 0.0 for epoch in trained.history]
    lr, expected = 2.0, []
    for epoch in range(1, 9):
        expected += [lr] * 10
        if epoch > 1 and losses[epoch - 1] >= min(losses[: epoch - 1]) and lr > 0.01:
            lr = max(lr / 2, 0.01)
            assert (epoch, lr) in reduced
    assert lrs_used == expected
    assert len(reduced) >= 2


def test_the_moving_average_of_the_weights_is_what_is_selected(digits: ImageDataset) -> None:
    recipe = recipes.load("standard", ["training.epochs=3", "network.widths=[8,8,8]", "training.ema=0.9"])
    averaged, states = run(digits, task_of(recipe, digits))
    plain, _ = run(digits, task_of(recipes.load("standard", ["training.epochs=3", "network.widths=[8,8,8]"]), digits))
    losses = [[epoch.train_loss for epoch in trained.history] for trained in (averaged, plain)]
    assert losses[0] == losses[1]  # training itself does not change
    assert not same(averaged.network, plain.network)
    selected = averaged.network.state_dict()
    assert all(torch.equal(selected[name], tensor) for name, tensor in states[-1].average.items())
    network = torch.nn.Linear(1, 1, bias=False)
    moving = loop.MovingAverage(network, 0.9)
    average = float(network.weight.detach())
    for step, value in enumerate([1.0, 5.0, -2.0]):
        with torch.no_grad():
            network.weight.fill_(value)
        moving.update(network, step)
        decay = min(0.9, (1 + step) / (10 + step))
        average = decay * average + (1 - decay) * value
    assert float(moving.network.weight.detach()) == pytest.approx(average)


def test_a_fraction_of_every_batch_is_pseudo_labelled(digits: ImageDataset) -> None:
    recipe = recipes.load("standard", ["training.batch_size=16", "augmentation.cutout=0"])
    marked = np.full((7, 8, 8, 1), 255, dtype=np.uint8)
    task = replace(task_of(recipe, digits), pseudo=LabelledImages(marked, np.full(7, 3)))
    plain = replace(task, recipe=recipe.model_copy(update={"augmentation": Augmentation()}))
    images, labels = torch.from_numpy(digits.train.pixels), torch.from_numpy(digits.train.labels)
    found = list(batches.epoch_batches(images, labels, plain, 1, torch_generator("unused")))
    assert len(found) == -(-200 // 12)  # one pass over the labelled images, 12 and 4 in a batch
    for pixels, classes, *_ in found[:-1]:
        is_pseudo = (pixels == 255).all((1, 2, 3))
        assert int(is_pseudo.sum()) == 4
        assert (classes[is_pseudo] == 3).all()


def test_weights_are_factors_of_the_loss_and_balanced_classes_weigh_alike(digits: ImageDataset) -> None:
    labels, train = digits.train.labels[:200], np.arange(0, 200, 2)
    weights = batches.image_weights(labels, train, "balanced", np.where(np.arange(200) == 0, 3.0, 1.0))
    assert weights is not None
    assert weights[train].mean() == pytest.approx(1)
    of_class = np.bincount(labels[train], weights[train], minlength=10)
    assert of_class == pytest.approx(np.full(10, 10.0), rel=1e-5)
    same_class = np.flatnonzero(labels == labels[0])
    assert weights[0] == pytest.approx(3 * weights[same_class[1]])
    assert batches.image_weights(labels, train, "none") is None
    logits, targets = torch.randn(4, 10), torch.tensor([1, 2, 3, 4])
    twice = torch.cat([logits, logits[:1]]), torch.cat([targets, targets[:1]])
    for loss in ("cross_entropy", "mean_squared_error"):
        training = recipes.load("standard", [f"training.loss={loss}"]).training
        weighted = losses.loss_of(logits, targets, training, torch.tensor([2.0, 1.0, 1.0, 1.0]) * 4 / 5)
        assert float(weighted) == pytest.approx(float(losses.loss_of(*twice, training)), rel=1e-5)


def test_class_weights_find_more_of_a_rare_class(digits: ImageDataset) -> None:
    rare = digits.train.labels == 8
    kept = np.flatnonzero(~rare | (np.cumsum(rare) <= 6))
    few = LabelledImages(digits.train.pixels[kept], (digits.train.labels[kept] == 8).astype(np.int64))
    others = LabelledImages(digits.train.pixels, rare.astype(np.int64))
    found = {}
    for kind in ("none", "balanced"):
        recipe = recipes.load("standard", [f"training.class_weights={kind}", "training.epochs=3"])
        task = replace(task_of(recipe, digits, train=len(few)), classes=2, validation=np.empty(0, dtype=np.int64))
        task = replace(task, weights=batches.image_weights(few.labels, task.train, kind))
        *_, last = fit(few.pixels, few.labels, task)
        logits = predict_logits(
            inference_forward(last.network, "cpu", "float32"), torch.from_numpy(others.pixels), np.arange(len(others))
        )
        found[kind] = float((logits.argmax(1).numpy()[rare] == 1).mean())
    assert found["balanced"] > found["none"] + 0.1


def test_dropout_meets_its_rate_and_keeps_the_mean_in_any_memory_order() -> None:
    layer = KeyedDropout(0.3)
    for shape, memory_format in [((64, 20), torch.contiguous_format), ((16, 8, 9, 7), torch.channels_last)]:
        layer.generator = torch_generator(1)
        values = torch.ones(shape).contiguous(memory_format=memory_format)
        dropped = layer(values)
        assert dropped.stride() == values.stride()
        assert float((dropped == 0).float().mean()) == pytest.approx(0.3, abs=0.03)
        assert dropped[dropped != 0].unique().numpy() == pytest.approx(1 / 0.7, rel=1e-4)
        layer.generator = torch_generator(1)
        assert torch.equal(layer(values), dropped)


def test_schedules_rise_to_the_peak_and_fall_towards_zero() -> None:
    triangular = [lr_at(step, 100, Schedule(name="triangular", warmup=0.2), 1.0) for step in range(100)]
    assert max(triangular) == triangular[20] == 1.0
    assert triangular[:21] == sorted(triangular[:21])
    assert triangular[20:] == sorted(triangular[20:], reverse=True)
    assert triangular[-1] == pytest.approx(1 / 80)
    cosine = [lr_at(step, 100, Schedule(name="cosine"), 2.0) for step in range(100)]
    assert (cosine[0], cosine[50]) == pytest.approx((2.0, 1.0))
    assert {lr_at(step, 100, Schedule(), 0.3) for step in range(100)} == {0.3}


def test_mixed_images_count_for_the_labels_of_both_by_their_shares_of_the_pixels() -> None:
    values = torch.arange(1, 33.0)[:, None, None, None].expand(32, 1, 28, 28)  # an image is its own number everywhere
    mixed = mix(values, 0.5, torch_generator(0))
    own = mixed.images == values
    assert torch.equal(mixed.images, torch.where(own, values, values[mixed.others]))
    assert torch.allclose(mixed.shares, own.float().mean((1, 2, 3)))
    whole = mixed.shares == 1
    assert 6 < int(whole.sum()) < 26
    assert not whole.all()
    assert torch.equal(mix(values, 0, torch_generator(0)).images, values)
    logits, targets = torch.randn(32, 10, generator=torch_generator(1)), torch.arange(32) % 10
    training = Training(label_smoothing=0.1)
    both = torch.stack([functional.one_hot(each, 10) for each in (targets, targets[mixed.others])], 2).float()
    soft = (both * torch.stack([mixed.shares, 1 - mixed.shares], 1)[:, None]).sum(2)
    expected = functional.cross_entropy(logits, soft, label_smoothing=0.1)
    loss = losses.loss_on(batches.Batch(mixed.images, targets, None, None, mixed), training)(logits)
    assert float(loss) == pytest.approx(float(expected), rel=1e-5)


def test_biases_and_batch_normalisation_have_no_weight_decay() -> None:
    network = build(recipes.load("standard").network, (1, 28, 28), 10, torch_generator(0))
    for name in OPTIMISERS:
        settings = recipes.load("standard", [f"optimiser.name={name}"]).optimiser
        groups = make_optimiser(settings, network).param_groups
        assert [group["weight_decay"] for group in groups] == [0.01, 0.0]
        assert {p.ndim for p in groups[1]["params"]} == {1}


# --- input scaling and augmentation -----------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_standardised_input_has_mean_0_and_deviation_1_over_the_members_training_images(dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (50, 5, 4, 3)).astype(dtype)
    train = np.arange(10, 40)
    scaled = scaling_of(pixels, train, "standardised")(as_float(on_device(pixels, "cpu")[train]))
    assert float(scaled.mean()) == pytest.approx(0, abs=1e-5)
    assert float(scaled.std(correction=0)) == pytest.approx(1, abs=1e-5)
    unit = scaling_of(pixels, train, "unit")(as_float(on_device(pixels, "cpu")))
    assert torch.allclose(unit, torch.from_numpy(pixels / np.iinfo(dtype).max).float().permute(0, 3, 1, 2))


def test_a_rotation_by_90_degrees_and_a_shift_move_pixels_as_they_should() -> None:
    images = torch.rand(2, 3, 6, 6, generator=torch_generator(0))
    quarter = torch.tensor([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0]]).expand(2, 2, 3)  # output (x, y) <- input (y, -x)
    assert torch.allclose(warp(images, quarter, "zero"), torch.rot90(images, -1, (2, 3)), atol=1e-5)
    right = torch.tensor([[1.0, 0.0, -2.0], [0.0, 1.0, 0.0]]).expand(2, 2, 3)
    moved = warp(images, right, "zero")
    assert torch.allclose(moved[..., 2:], images[..., :-2], atol=1e-5)
    assert (moved[..., :2].abs() < 1e-5).all()


@pytest.mark.parametrize("fill", ["zero", "edge", "reflect"])
def test_any_affine_map_agrees_with_scipy(fill: str) -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    images = torch.rand(4, 1, 12, 15, generator=torch_generator(5))
    settings = Augmentation(rotation=40, zoom=0.3, zoom_axes="separately", shear=0.3, shift=0.2, flip_vertical=True)
    matrices = random_matrices(4, settings, images, torch_generator(6))
    warped = warp(images, matrices, fill).numpy()
    mode = {"zero": "grid-constant", "edge": "nearest", "reflect": "reflect"}[fill]
    for image, matrix, ours in zip(images.numpy()[:, 0], matrices.numpy(), warped[:, 0], strict=True):
        swapped = matrix[::-1, [1, 0]]  # scipy counts (row, column), from the corner's pixel
        centre = (np.array(image.shape) - 1) / 2
        offset = centre + matrix[::-1, 2] - swapped @ centre
        theirs = ndimage.affine_transform(image, swapped, offset, order=1, mode=mode)
        assert np.abs(ours - theirs).max() < 1e-4


def test_bending_shifts_pixels_smoothly_as_far_as_asked_and_agrees_with_scipy() -> None:
    ndimage = pytest.importorskip("scipy.ndimage")
    many = random_bends(4000, 0.04, torch.zeros(1, 1, 28, 20), torch_generator(0))
    assert many.shape == (4000, 2, 28, 20)
    assert many.std((0, 2, 3)).numpy() == pytest.approx([0.04 * 20, 0.04 * 28], rel=0.02)
    assert float(many.mean()) == pytest.approx(0, abs=0.02)
    neighbours = torch.corrcoef(torch.stack([many[:, 0, :, 5].flatten(), many[:, 0, :, 6].flatten()]))[0, 1]
    assert neighbours > 0.95
    image, bends = torch.rand(1, 1, 12, 15, generator=torch_generator(5)), many[:1, :, :12, :15]
    still = torch.tensor([[[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]])
    rows, columns = np.mgrid[:12, :15]
    places = [rows + bends[0, 1].numpy(), columns + bends[0, 0].numpy()]
    theirs = ndimage.map_coordinates(image[0, 0].numpy(), places, order=1, mode="grid-constant")
    assert np.abs(warp(image, still, "zero", bends)[0, 0].numpy() - theirs).max() < 1e-4


def test_one_zoom_keeps_the_shape_and_two_do_not() -> None:
    like = torch.zeros(100, 1, 28, 28)
    for axes, same_factor in [("together", True), ("separately", False)]:
        drawn = random_matrices(100, Augmentation(zoom=0.2, zoom_axes=axes), like, torch_generator(0))
        assert torch.equal(drawn[:, 0, 0], drawn[:, 1, 1]) == same_factor
        assert (drawn[:, 0, 0] >= 1 / 1.2 - 1e-6).all()
        assert (drawn[:, 1, 1] <= 1 / 0.8 + 1e-6).all()


def test_augmentation_is_its_key_and_stays_in_its_range() -> None:
    images = torch.rand(64, 1, 28, 28, generator=torch_generator(0)) * 255
    settings = Augmentation(rotation=12, zoom=0.1, shift=0.07, elastic=0.03, cutout=6, flip_horizontal=True)
    first, again = (augment(images, settings, torch_generator(3)) for _ in range(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, augment(images, settings, torch_generator(4)))
    assert float(first.min()) >= 0
    assert float(first.max()) <= 255.001
    erased = augment(torch.ones(64, 1, 28, 28), Augmentation(cutout=6), torch_generator(1))
    assert ((erased == 0).sum((1, 2, 3)) <= 36).all()
    assert (erased == 0).any()
    flipped = augment(images, Augmentation(flip_horizontal=True), torch_generator(2))
    mirrored = (flipped == images.flip(3)).all((1, 2, 3))
    assert (mirrored | (flipped == images).all((1, 2, 3))).all()
    assert 16 < int(mirrored.sum()) < 48
