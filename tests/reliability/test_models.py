"""A model is data: whatever a run folder or a bundle holds, it is used as it was written or refused in a sentence."""

from __future__ import annotations

import resource
import shutil
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import committee
from committee.cli.main import main
from committee.config import recipe_parsing
from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset
from committee.errors import RunError
from committee.training.setting import Setting

sys.path.insert(0, str(Path(__file__).parent))
from hostile import HOSTILE, sign

SECONDS, MEMORY = 2.0, 256 * 1024  # that a refusal may take; KiB


@pytest.fixture(scope="module")
def recipe() -> Recipe:
    changes = ["training.epochs=1", "committee.members=2", "holdout.folds=2", "network.widths=[8,8,8]"]
    return recipe_parsing.load("standard", changes)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset, recipe: Recipe) -> Path:
    """A small real run, without what is only looked at."""
    folder = tmp_path_factory.mktemp("runs") / "run"
    committee.train(digits, recipe, folder, Setting(workers=1))
    for name in ("figures", "tables"):
        shutil.rmtree(folder / name)
    (folder / "report.html").unlink()
    sign(folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory, digits: ImageDataset) -> Path:
    path = tmp_path_factory.mktemp("pictures") / "some.npy"
    np.save(path, digits.train.pixels[:2])
    return path


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_run_is_refused_in_a_sentence_by_every_command(
    name: str, run: Path, pictures: Path, digits: ImageDataset, recipe: Recipe, tmp_path: Path
) -> None:
    hostile = shutil.copytree(run, tmp_path / "hostile")
    mutate, words = HOSTILE[name]
    mutate(hostile)
    commands = {
        "predict": [hostile, pictures],
        "compare": [hostile, run],
        "verify": [hostile],
        "report": [hostile],
        "evaluate": [hostile],
    }
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for command, arguments in commands.items():
        began = time.monotonic()
        result = CliRunner().invoke(main, [command, *map(str, arguments)])
        assert (result.exit_code, type(result.exception)) == (2, SystemExit), (command, result.output, result.exception)
        assert words in result.stderr, (command, result.stderr)
        assert result.stderr.startswith("Error: ")
        assert result.stderr.count("\n") == 1
        assert len(result.stderr) < 1200
        assert time.monotonic() - began < SECONDS, command
    with pytest.raises(RunError):
        committee.train(digits, recipe, tmp_path / "new", Setting(workers=1), continued=hostile)
    with pytest.raises(RunError):
        committee.train(digits, recipe, hostile, Setting(workers=1))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < MEMORY
    assert not (tmp_path / "new").exists()


def test_the_run_itself_is_used_by_every_command(run: Path, pictures: Path) -> None:
    for command in (["predict", run, pictures], ["compare", run, run], ["verify", run], ["evaluate", run]):
        result = CliRunner().invoke(main, [str(word) for word in command])
        assert result.exit_code == 0, result.output
