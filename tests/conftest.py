"""Fixtures: real handwritten digits (scikit-learn's 8x8), small enough that a member trains in a second."""

from __future__ import annotations

import fcntl
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from click.testing import CliRunner

import committee
from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.config.recipe import Recipe
from committee.data.catalog import load_dataset
from committee.data.dataset import ImageDataset
from committee.folders.run_folder import RunFolder
from committee.kernels import binding

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session", autouse=True)
def _no_network() -> Iterator[None]:
    """Any connection to another machine fails; this one's own servers are allowed."""
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: object) -> None:
        if self.family != socket.AF_UNIX and isinstance(address, tuple) and address[0] not in ("127.0.0.1", "::1"):
            raise OSError(f"tests use no network, but {address} was asked for")
        connect(self, address)  # type: ignore[arg-type]

    socket.socket.connect = local_only  # type: ignore[method-assign, assignment]
    yield
    socket.socket.connect = connect  # type: ignore[method-assign]


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """1,797 real digits of 8x8 pixels."""
    return load_dataset("digits")


def made_once(place: Path, make: Callable[[Path], object]) -> Path:
    """A file or folder that all processes of pytest-xdist read and the first of them to come has made."""
    with Path(f"{place}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not Path(f"{place}.done").exists():
            make(place)
            Path(f"{place}.done").touch()
    return place


@pytest.fixture(scope="session")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of this test run that all of its processes see."""
    own = tmp_path_factory.getbasetemp()
    return own.parent if "PYTEST_XDIST_WORKER" in os.environ else own


SMALL = ("training.epochs=2", "committee.members=2", "holdout.folds=2", "network.widths=[16,16,16]")


@pytest.fixture(scope="session")
def run(digits: ImageDataset, shared: Path) -> RunFolder:
    """A run of two members of real digits, its test images opened; to be read, not changed."""
    recipe = recipes.load("standard", list(SMALL))
    setting = committee.Setting(workers=1)
    return RunFolder.finished(made_once(shared / "digits", lambda path: committee.train(digits, recipe, path, setting)))


UNSURE = ("--coverage", ".99", "--by-class", "--precision", ".9")


@pytest.fixture(scope="session")
def exported(run: RunFolder, shared: Path) -> Path:
    """That run as an .onnx file, by the command, with sets and abstentions; its proof beside it. To be read only."""
    pytest.importorskip("onnxscript")

    def export(path: Path) -> None:
        done = CliRunner().invoke(main, ["export", str(run.path), str(path), "digits", *UNSURE])
        assert done.exit_code == 0, done.output

    return made_once(shared / "digits.onnx", export)


@pytest.fixture(scope="session")
def written(shared: Path) -> RunFolder:
    """A run of two members that learnt MNIST's 4,000 images for a few seconds, and read what people write."""
    command = "train mnist-5k --members 2 --epochs 3 --set holdout.folds=2 --workers 2 --out"

    def train(path: Path) -> None:
        subprocess.run(
            [sys.executable, "-m", "committee", *command.split(), str(path)], check=True, capture_output=True
        )

    return RunFolder.finished(made_once(shared / "written", train))


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    """Chromium. Playwright starts once in a process at a time, and while it runs, asyncio.run fails there."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright drives the browser")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("no Chromium is installed")
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        yield found
        found.close()


COMPILED = [each for each in binding.PATHS if each != binding.TORCH]
NONE = "no compiler was there at the installation, or no path is for this architecture"


def on_every_path() -> list[object]:
    """Each path that was compiled, skipped where this processor does not have it."""
    paths = [
        pytest.param(
            each.name, marks=pytest.mark.skipif(not each.supported, reason=f"this processor has no {each.name}")
        )
        for each in COMPILED
    ]
    return [*paths] or [pytest.param("", marks=pytest.mark.skip(reason=NONE))]


@pytest.fixture(params=[*on_every_path(), "torch"])
def any_path(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process computes on this path, or by torch."""
    with binding.use(request.param):
        yield request.param


@pytest.fixture(params=on_every_path())
def path(request: pytest.FixtureRequest) -> Iterator[str]:
    """The process computes on this path."""
    with binding.use(request.param):
        yield request.param


@pytest.fixture
def small_recipe() -> Recipe:
    """The standard recipe with few epochs, for digits of 8x8."""
    return recipes.load(
        "standard", ["training.epochs=3", "committee.members=2", "holdout.folds=2", "network.widths=[16,16,16]"]
    )


def write_npz(path: Path, dataset: ImageDataset, images: int) -> Path:
    """The first training images of a data set as an NPZ without a test part."""
    np.savez(path, images=dataset.train.pixels[:images], labels=dataset.train.labels[:images])
    return path
