"""The search for a recipe: its space, its race, its figures, and that it goes on after any end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner, Result

from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.config import space as spaces
from committee.config.toml_files import shipped
from committee.data.dataset import ImageDataset
from committee.errors import RecipeError
from committee.folders.run_folder import RunFolder
from committee.folders.tuning_folder import TuningFolder
from committee.metrics.balanced import auc, balanced_accuracy
from committee.metrics.repeats import paired_mean
from committee.metrics.scores import accuracy, confusion_matrix
from committee.rng import numpy_generator
from committee.tuning.cost import at_equal_cost, epoch_cost
from committee.tuning.objective import OBJECTIVES, is_worse

optuna = pytest.importorskip("optuna")

RECIPE = """
name = "small"
network = { layers = [
  { type = "flatten" }, { type = "dense", units = 24, activation = "relu" }, { type = "dense", units = "classes" },
] }
training = { epochs = 6, batch_size = 16 }
optimiser = { name = "adamw", lr = 2e-4 }
input = { scaling = "standardised" }
holdout = { kind = "folds", folds = 3 }
committee = { members = 3 }
"""

SPACE = """
name = "small"
[fields."optimiser.lr"]
range = [0.1, 50.0]
scale = "log"
of = "start"
[fields."training.label_smoothing"]
range = [0.0, 0.2]
[fields."training.epochs"]
range = [0.5, 1.0]
of = "cost"
[fields.width.choices]
"twice as wide" = { "network.width" = 2.0 }
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> list[str]:
    """A small search on 300 digits, all but its number of trials and its folder."""
    folder = tmp_path_factory.mktemp("tuning")
    (folder / "recipe.toml").write_text(RECIPE)
    (folder / "space.toml").write_text(SPACE)
    data = folder / "digits.npz"
    np.savez(data, images=digits.train.pixels[:360], labels=digits.train.labels[:360])
    return ["tune", str(data), "--recipe", str(folder / "recipe.toml"), "--space", str(folder / "space.toml"),
            "--together", "2", "--finalists", "2", "--fresh", "5"]  # fmt: skip


@pytest.fixture(scope="module")
def finished(given: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of that search after nine trials, in one process."""
    out = tmp_path_factory.mktemp("tuned") / "search"
    found = call(*given, "--trials", "9", "--workers", "1", "--out", out)
    assert found.exit_code == 0, found.output
    return out


def call(*arguments: str | Path) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)


def figures(folder: Path) -> dict[str, Any]:
    """A search's figures without times."""

    def timeless(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: timeless(each) for key, each in value.items() if "seconds" not in key}
        return [timeless(each) for each in value] if isinstance(value, list) else value

    found: dict[str, Any] = timeless(json.loads((folder / "results.json").read_text()))
    return found


# --- the space --------------------------------------------------------------------------------------------------------

AROUND = spaces.Surroundings(side=28, imbalanced=True)


@pytest.mark.parametrize("name", shipped("space"))
@pytest.mark.parametrize("recipe", ["standard", "ensemble-cnn"])
def test_the_starting_recipe_is_in_every_space(name: str, recipe: str) -> None:
    unusual = ["augmentation.rotation=90", "optimiser.weight_decay=0.7", "training.batch_size=24"]
    start = recipes.load(recipe, unusual)
    parameters = spaces.resolved(spaces.load(name), start, AROUND)
    same = spaces.changed(start, parameters, {each.name: each.start for each in parameters})
    assert same.digest() == start.digest()
    for each in parameters:
        assert each.start in each.choices if each.choices else each.low <= float(each.start) <= each.high


def test_every_value_of_the_shipped_spaces_makes_a_recipe() -> None:
    start = recipes.load("standard")
    parameters = spaces.resolved(spaces.load("everything"), start, AROUND)
    usual = {each.name: each.start for each in parameters}
    for each in parameters:
        for value in each.choices or (each.low, each.high):
            assert spaces.changed(start, parameters, {**usual, each.name: value})


def test_what_is_set_is_not_tuned() -> None:
    start = recipes.load("standard", ["optimiser.lr=0.02", "augmentation.flip_horizontal=true"])
    fixed = ("optimiser.lr", "augmentation.flip_horizontal")
    parameters = spaces.resolved(spaces.load("everything"), start, AROUND, fixed)
    assert "optimiser.lr" not in {each.name for each in parameters}
    assert "mirror" not in {each.name for each in parameters}


def test_a_space_that_names_no_field_says_so(tmp_path: Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('name = "mine"\n[fields."optimiser.rate"]\nrange = [0.1, 1.0]\n')
    with pytest.raises(RecipeError, match=r"optimiser\.rate \(did you mean 'optimiser"):
        spaces.resolved(spaces.load(str(file)), recipes.load("standard"), AROUND)


def test_a_larger_network_gets_fewer_epochs_at_equal_cost() -> None:
    start, sizes = recipes.load("standard", ["training.epochs=40"]), ((28, 28, 1), 10, 4000)
    wide = recipes.load("standard", ["network.widths=[64,128,128]"])
    found = at_equal_cost(wide, start, 1.0, *sizes)
    costs = [each.training.epochs * epoch_cost(each, *sizes) for each in (found, start)]
    assert found.training.epochs < 25
    assert costs[0] / costs[1] == pytest.approx(1, abs=0.06)


# --- objectives and the race ------------------------------------------------------------------------------------------


def answers(right: float, images: int = 600, classes: int = 4) -> tuple[Any, Any]:
    """Random probabilities that are right so often, and labels of classes that differ in size."""
    generator = numpy_generator("test", int(1000 * right))
    labels = generator.choice(classes, images, p=[0.6, 0.2, 0.15, 0.05])
    chosen = np.where(generator.random(images) < right, labels, (labels + 1) % classes)
    probabilities = 0.3 * generator.dirichlet(np.ones(classes), images) + 0.7 * np.eye(classes)[chosen]
    return probabilities, labels


def test_the_mean_of_an_objectives_values_is_the_score_of_the_reports() -> None:
    probabilities, labels = answers(0.8)
    confusion = confusion_matrix(probabilities.argmax(axis=1), labels, 4)
    expected = {
        "accuracy": accuracy(probabilities, labels),
        "balanced-accuracy": balanced_accuracy(confusion),
        "auc": auc(probabilities, labels)[0],
    }
    for name, value in expected.items():
        assert OBJECTIVES[name](probabilities, labels).mean() == pytest.approx(value)  # type: ignore[index]


def test_the_race_drops_what_is_worse_and_keeps_what_may_be_as_good() -> None:
    generator = numpy_generator("race")
    best = (generator.random(400) < 0.9).astype(float)
    worse = np.where(generator.random(400) < 0.15, 0.0, best)
    flipped = generator.permutation(400)[:8]
    similar = best.copy()
    similar[flipped] = 1 - similar[flipped]
    unseen = np.where(np.arange(400) < 390, np.nan, worse)
    assert is_worse(worse, best, 0.1)
    assert not is_worse(best, worse, 0.1)
    assert not is_worse(unseen, best, 0.001)
    alike = [(generator.random((2, 400)) < 0.9).astype(float) for _ in range(300)]
    dropped = sum(is_worse(one, other, 0.1) for one, other in alike) / 300
    assert 0.05 < dropped < 0.16, "one that is just as good is dropped about one time in ten"


def test_an_interval_over_seeds_and_images_has_the_true_difference_as_often_as_it_says() -> None:
    generator, inside = numpy_generator("coverage"), 0
    for _ in range(400):
        seeds = generator.normal(0, 0.03, (3, 1))
        images = generator.normal(0, 0.4, (1, 300))
        _, interval, _ = paired_mean(0.05 + seeds + images + generator.normal(0, 0.3, (3, 300)))
        inside += interval.low <= 0.05 <= interval.high
    assert inside / 400 > 0.93


# --- a search ---------------------------------------------------------------------------------------------------------


def test_a_search_ends_with_a_better_recipe_and_says_by_how_much_it_flattered_itself(finished: Path) -> None:
    found = figures(finished)
    assert len(found["trials"]) == 9
    assert found["trials"][0]["values"]["optimiser.lr"] == 2e-4, "the first trial is the starting recipe"
    assert found["winner"] > 0, "a learning rate that is far too low is easily bettered"
    assert found["gain"]["interval"]["low"] > 0
    assert len(found["seeds"]) == 5
    assert found["flattery"] is not None
    assert {each["ending"] for each in found["trials"]} == {"whole", "stopped"}
    assert max(each["cost"] for each in found["trials"]) < 1.2
    recipe = recipes.load(str(finished / "recipe.toml"))
    assert recipe.name == "small-tuned"
    assert recipe.optimiser.lr > 2e-4
    assert recipe.holdout.folds == 3
    page = (finished / "tuning.html").read_text()
    assert "better than small" in page
    assert "flattered itself" in page or "not more than on fresh seeds" in page
    assert (finished / "tables" / "trials.csv").read_text().count("\n") == 10


def test_the_test_images_stay_sealed_and_no_members_are_left(finished: Path) -> None:
    assert not list(finished.rglob("test_record.jsonl"))
    assert not list(finished.rglob("test_probabilities.npy"))
    assert not list(finished.rglob("weights.safetensors"))


def test_the_same_command_again_trains_nothing_and_more_trials_go_on(finished: Path, given: list[str]) -> None:
    before = figures(finished)
    trained = {path: path.stat().st_mtime_ns for path in finished.rglob("answers.npy")}
    again = call(*given, "--trials", "9", "--workers", "1", "--out", finished, "--json")
    assert again.exit_code == 0
    assert figures(finished) == before
    assert {path: path.stat().st_mtime_ns for path in finished.rglob("answers.npy")} == trained


@pytest.mark.parametrize(
    "places",
    [
        ("trial-0003",),
        pytest.param(("start", "trial-0001", "trial-0005", "finalist-*", "fresh-*"), marks=pytest.mark.soak),
    ],
)
def test_a_search_that_was_killed_in_mid_trial_goes_on_to_the_same_end(
    finished: Path, given: list[str], tmp_path: Path, places: tuple[str, ...]
) -> None:
    out = tmp_path / "killed"
    command = [sys.executable, "-m", "committee", *given, "--trials", "9", "--out", str(out), "--workers", "1"]
    for place in places:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while not (members := list(out.glob(f"trained/{place}/members/00/member.json"))):
            assert process.poll() is None, "it ended before it was killed"
            assert time.monotonic() < deadline
            time.sleep(0.005)
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    begun = members[0].read_bytes()  # it says how long the member trained, to the millisecond
    seen: list[bytes] = []
    written = TuningFolder.write_evaluated

    def watched(folder: TuningFolder, name: str, *others: Any) -> None:
        record = folder.path / "trained" / name / "members" / "00" / "member.json"
        seen.append(record.read_bytes() if record.exists() else b"")
        written(folder, name, *others)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TuningFolder, "write_evaluated", watched)
        whole = call(*given, "--trials", "9", "--out", out, "--workers", "2")
    assert whole.exit_code == 0, whole.output
    assert begun in seen, "the member that was finished when the search was killed is kept"
    assert figures(out) == figures(finished)


def test_a_trial_whose_loss_is_not_finite_fails_and_the_search_goes_on(given: list[str], tmp_path: Path) -> None:
    (tmp_path / "space.toml").write_text('name = "wild"\n[fields."optimiser.lr"]\nvalues = [1e30, 1e-3]\n')
    arguments = [*given[:4], "--space", tmp_path / "space.toml", "--trials", "6", "--fresh", "0", "--finalists", "1"]
    found = call(*arguments, "--search", "random", "--out", tmp_path / "search", "--workers", "1")
    assert found.exit_code == 0, found.output
    endings = {each["ending"] for each in figures(tmp_path / "search")["trials"]}
    assert endings >= {"failed", "whole"}
    assert recipes.load(str(tmp_path / "search" / "recipe.toml")).optimiser.lr < 1


def test_machines_that_share_a_storage_share_their_trials(given: list[str], tmp_path: Path) -> None:
    storage = ("--storage", f"sqlite:///{tmp_path}/trials.db", "--fresh", "0", "--finalists", "1", "--workers", "1")
    for number, trials in ((1, 3), (2, 6)):
        found = call(*given, *storage, "--trials", str(trials), "--out", tmp_path / f"machine-{number}")
        assert found.exit_code == 0, found.output
    first, second = (figures(tmp_path / f"machine-{number}")["trials"] for number in (1, 2))
    assert second[:3] == first
    assert len(second) == 6
    own = {path.name for path in (tmp_path / "machine-2" / "trained").glob("trial-*")}
    assert own == {"trial-0003", "trial-0004", "trial-0005"}, "it trains none of the other machine's trials"


# --- limits and faults ------------------------------------------------------------------------------------------------


def test_no_recipe_over_the_latency_limit_is_trained_or_wins(given: list[str], tmp_path: Path) -> None:
    found = call(*given, "--trials", "3", "--latency", "0.00001ms", "--out", tmp_path / "none", "--workers", "1")
    assert found.exit_code == 2
    assert "no recipe answers within 1e-05 ms, the fastest took" in found.output
    assert [path.name for path in sorted((tmp_path / "none" / "trained").iterdir())] == ["start"]
    found = call(*given, "--trials", "3", "--latency", "500ms", "--out", tmp_path / "all", "--workers", "1")
    assert found.exit_code == 0, found.output
    assert json.loads((tmp_path / "all" / "results.json").read_text())["winner_milliseconds"] < 500
    assert "Accuracy and time" in (tmp_path / "all" / "tuning.html").read_text()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--latency", "2"], "a time such as 2ms"),
        (["--space", "everythin"], "did you mean 'everything'"),
        (["--budget", "1s"], "the budget is too short"),
        (["--storage", "nonsense://x"], "give --storage the address of a database"),
    ],
)
def test_faults_are_told_in_a_sentence(given: list[str], tmp_path: Path, arguments: list[str], words: str) -> None:
    found = call(*given, *arguments, "--out", tmp_path / "faulty", "--workers", "1")
    assert found.exit_code == 2, found.output
    assert words in found.output
    assert "Traceback" not in found.output


def test_another_search_does_not_enter_the_folder(finished: Path, given: list[str]) -> None:
    found = call(*given, "--objective", "log-loss", "--out", finished)
    assert found.exit_code == 2
    assert "objective was accuracy, now log-loss" in found.output
    assert call("train", "digits", "--out", finished).exit_code == 2
    assert "is a search for a recipe, not a run" in call("predict", finished, finished / "figures").output


def test_a_search_does_not_enter_a_runs_folder(run: RunFolder, given: list[str]) -> None:
    found = call(*given, "--trials", "3", "--out", run.path)
    assert found.exit_code == 2
    assert "holds a run or a study" in found.output


def test_a_torn_last_line_of_the_journal_does_no_harm(finished: Path, given: list[str]) -> None:
    before = figures(finished)
    with (finished / "journal.log").open("ab") as journal:
        journal.write(b'{"op_code":4,"worker')  # what a power cut leaves
    found = call(*given, "--trials", "10", "--workers", "1", "--out", finished)
    assert found.exit_code == 0, found.output
    assert figures(finished)["trials"][:9] == before["trials"]
