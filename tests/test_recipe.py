"""Recipes: what a user writes is what is trained, and every fault is told at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from committee.config import recipe_parsing as recipes
from committee.config.renames import RenamedFieldNote
from committee.config.toml_files import shipped
from committee.errors import RecipeError
from committee.nn.summary import layer_table, totals

P1_PARAMETERS = [160, 2320, 4640, 9248, 18496, 36928, 36928, 204928, 16512, 1290]


def test_the_published_network_has_the_published_parameter_counts() -> None:
    layers = layer_table(recipes.load("ensemble-cnn").network, (28, 28, 1), 10)
    assert [layer.parameters for layer in layers if layer.parameters] == P1_PARAMETERS
    assert totals(layers)[0] == 331_450
    assert next(layer.output for layer in layers if layer.name == "flatten") == (1600,)


def test_built_networks_have_the_parameters_that_the_table_states() -> None:
    from committee.nn.architectures import build
    from committee.rng import torch_generator

    for name in shipped("recipe"):
        for shape in [(28, 28, 1), (32, 40, 3)]:
            network = recipes.load(name).network
            built = build(network, (shape[2], *shape[:2]), 7, torch_generator(0))
            assert sum(p.numel() for p in built.parameters()) == totals(layer_table(network, shape, 7))[0]


@pytest.mark.parametrize("name", shipped("recipe"))
def test_a_recipe_survives_its_own_toml(name: str, tmp_path: Path) -> None:
    recipe = recipes.load(name)
    path = tmp_path / "again.toml"
    path.write_text(recipe.to_toml())
    assert recipes.load(str(path)) == recipe
    assert recipes.load(str(path)).digest() == recipe.digest()


def test_digests_ignore_names_and_notice_every_setting() -> None:
    recipe = recipes.load("standard")
    assert recipe.model_copy(update={"name": "other", "summary": "x"}).digest() == recipe.digest()
    assert recipes.load("standard", ["training.epochs=11"]).digest() != recipe.digest()


def test_all_faults_are_told_at_once_with_the_nearest_name() -> None:
    changes = ["training.epoch=3", "training.batch_size=0", "optimiser.name=admw", "holdout.kind=fold"]
    with pytest.raises(RecipeError) as caught:
        recipes.load("standard", changes)
    message = str(caught.value)
    assert message.startswith("recipe standard has 4 faults: ")
    assert "training.epoch is unknown (did you mean 'epochs'?), training has epochs, batch" in message
    assert "training.batch_size: input should be greater than 0, got 0" in message
    assert "optimiser.name: input should be" in message
    assert "got 'admw' (did you mean 'adamw'?)" in message
    assert "(did you mean 'folds'?)" in message


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (["network.layers=[{type='conv', filter=3}]"], "network.layers.0.filter is unknown (did you mean 'filters'?)"),
        (["network.backbone=compakt"], "did you mean 'compact'?"),
        (["epochs=3"], "--set expects section.field=value, such as training.epochs=3; got 'epochs=3'"),
        (["trainig.epochs=3"], "trainig is unknown (did you mean 'training'?)"),
        (["holdout.kind=none", "training.patience=3"], "training.patience need validation images"),
        (["network.widths=[1,2]"], "backbone compact takes three widths"),
        (
            ["network.layers=[{type='flatten'},{type='dense',units='classes'}]", "network.stem=whitening"],
            'a whitening stem needs a convolution as the first layer, not "flatten"',
        ),
    ],
)
def test_faults_name_the_place_and_the_remedy(changes: list[str], expected: str) -> None:
    with pytest.raises(RecipeError) as caught:
        recipes.load("standard", changes)
    assert expected in str(caught.value)


def test_a_network_that_does_not_fit_the_images_names_the_layer() -> None:
    with pytest.raises(RecipeError, match=r"layer 9 of the network \(conv\) needs at least 3x3 pixels but gets 2x2"):
        layer_table(recipes.load("ensemble-cnn").network, (8, 8, 1), 10)


def test_faults_inside_stages_and_layers_are_told() -> None:
    with pytest.raises(RecipeError, match=r"schedule.stages.0.epoch is unknown .did you mean 'epochs'"):
        recipes.load("standard", ["schedule.stages=[{epoch=1,lr=0.01}]", "schedule.name=stages"])
    with pytest.raises(RecipeError, match=r"there is no layer type 'max_pool' .did you mean 'maxpool'"):
        recipes.load("ensemble-cnn", ["network.layers=[{type='max_pool'}]"])
    with pytest.raises(RecipeError, match=r"training.epochs is 3, but the schedule's stages have 2 epochs together"):
        recipes.parse(
            {
                "name": "x",
                "network": {"layers": [{"type": "flatten"}, {"type": "dense", "units": "classes"}]},
                "training": {"epochs": 3},
                "schedule": {"name": "stages", "stages": [{"epochs": 2, "lr": 0.1}]},
            }
        )


def test_a_digest_counts_only_what_differs_from_the_defaults() -> None:
    recipe = recipes.load("ensemble-cnn")
    content = recipe.content()
    assert "augmentation" not in content
    assert content["network"]["layers"][0] == {
        "type": "conv",
        "filters": 16,
        "activation": "relu",
    }
    assert recipes.parse({"name": "again", **content}).digest() == recipe.digest()


def test_mirroring_takes_the_place_of_a_recipes_own_changes() -> None:
    plain, mirrored = recipes.load("best"), recipes.load("best", ["augmentation.shift=0.05"], mirror=True)
    assert "rotation" in plain.augmentation.changes
    assert mirrored.augmentation.changes == {"flip_horizontal": True, "shift": 0.05}
    assert mirrored.name == "best-mirror"
    assert mirrored.committee == plain.committee.model_copy(update={"tta": "horizontal_flip"})
    few, moved = recipes.load("few"), recipes.load("few", mirror=True)
    assert moved.committee == few.committee.model_copy(update={"tta": "flip_and_shifts"})


def test_names_of_version_0_4_are_still_read_with_a_note_and_the_same_digest(tmp_path: Path) -> None:
    old = ["training.batch=32", "training.keep=best_held_out_loss", "optimiser.rate=0.01", "committee.views=mirror"]
    old += ["schedule.warm_up=0.1", "pseudo_labels.accept=best_share"]
    with pytest.warns(RenamedFieldNote) as notes:
        recipe = recipes.load("standard", old)
    assert str(notes[0].message) == "--set training.batch=32: training.batch is now called batch_size"
    assert recipe.training.checkpoint == "best_validation_loss"
    assert recipe.digest() == "ee98c3cf0d6d754a2e650f45b515a5c4a5bf4be9e4988de0da780e003b2d5443"
    path = tmp_path / "stages.toml"
    path.write_text(
        'name = "old"\nnetwork.layers = [{ type = "dense", units = "classes" }]\n'
        'schedule = { name = "stages", stages = [{ epochs = 2, rate = 0.1, augmented = false }] }\n'
    )
    with pytest.warns(
        RenamedFieldNote, match="schedule.stages: rate is now called lr; .*augmented is now called augment"
    ):
        assert not recipes.load(str(path)).schedule.stages[0].augment
