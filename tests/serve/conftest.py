"""A run of real digits that is served, and its server: one for all tests that do not stop it."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from server_process import Server, serving

import committee
from committee.config import recipe_parsing as recipes
from committee.data.dataset import ImageDataset
from committee.export.onnx_file import export
from committee.folders.run_folder import RunFolder

CHANGES = ["training.epochs=2", "committee.members=2", "holdout.folds=2", "network.widths=[16,16,16]"]


@pytest.fixture(scope="session")
def run(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run of two members."""
    path = tmp_path_factory.mktemp("serve") / "digits"
    committee.train(digits, recipes.load("standard", CHANGES), path)
    return path


@pytest.fixture(scope="session")
def model(run: Path, digits: ImageDataset) -> Path:
    """The run as an .onnx file, whose server starts without torch, in a second."""
    path = run.with_name("exported.onnx")
    export(RunFolder.finished(run), digits).write(path)
    return path


@pytest.fixture(scope="session")
def server(run: Path) -> Iterator[Server]:
    """Its server, with short time limits."""
    with serving(run, "--read-timeout", "2s", "--max-body", "2M", "--max-images", "8", "--timeout", "10s") as found:
        yield found


@pytest.fixture(scope="session")
def images(digits: ImageDataset) -> np.ndarray:
    """(image, height, width) of the data set, 64 of them."""
    return digits.train.pixels[:64, ..., 0]
