"""The folder of a search for a recipe: the only place that knows the names of its files."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.config.recipe import Recipe
from committee.config.record import Record
from committee.errors import RunError
from committee.folders import files
from committee.folders.folder import Folder
from committee.folders.records import StoredTable
from committee.folders.run_folder import RunFolder
from committee.metrics.tuning import ObjectiveName, PruneName, SearchName, TuningResults
from committee.names import file_name


class TuningIdentity(Record):
    """`identity.json` of a search: with the same identity and as many trials, the same winner.

    Attributes:
        start: the starting recipe, what differs from the defaults.
        space: the parameters in numbers.
        together: trials that are proposed before any of them is known.
        cost: allowed, as a multiple of the starting recipe's.
        latency: most milliseconds for one image.
    """

    start: StoredTable
    space: StoredTable
    objective: ObjectiveName
    search: SearchName
    prune: PruneName
    seed: int
    folds: int
    together: int
    cost: float
    latency: float | None
    train_images: str
    groups: str | None = None
    device: str
    precision: str
    kernels: str
    committee: str
    torch: str


class Evaluated(Record):
    """`evaluated.json`: a recipe has been trained on as many folds as it needed, and its members are gone.

    Attributes:
        folds: that were trained.
        seconds: of their training, together.
        why: it was stopped or failed, in words; "" where all folds were trained.
        failed: whether it could not be trained.
    """

    folds: int
    seconds: float
    why: str = ""
    failed: bool = False


class TuningFolder(Folder):
    """The folder of a search."""

    def check_free(self, identity: TuningIdentity) -> None:
        """Refuse a folder that holds something else than this search; nothing is written.

        Raises:
            RunError: the folder holds another search or training, or other files.
        """
        if self.has_begun and not (self.path / "trained").is_dir():  # of something else, or killed in between
            try:
                files.read_record(self.path / "identity.json", TuningIdentity)
            except RunError:
                raise RunError(f"{self.path} holds a run or a study; give another folder (--out)") from None
        self._check_free(identity, TuningIdentity)

    def begin(self, identity: TuningIdentity) -> None:
        """Make the folder for a search, or enter one that holds the same search.

        Raises:
            RunError: as `check_free`, or it cannot be written.
        """
        self.check_free(identity)
        self._begin(identity)
        disk.make_folder(self.path / "trained", within=self.path)

    @property
    def journal(self) -> Path:
        """Optuna's journal, where no other storage is given."""
        return self.path / "journal.log"

    # --- recipes that are trained to be judged

    def trained(self, name: str) -> RunFolder:
        """Where the members of a recipe are while it is judged."""
        return RunFolder(self.path / "trained" / file_name(name))

    def evaluated(self, name: str) -> Evaluated | None:
        """What became of a recipe; None while it is still judged."""
        path = self.trained(name).path / "evaluated.json"
        return files.read_record(path, Evaluated) if path.exists() else None

    def answers(self, name: str) -> NDArray[np.float32]:
        """(image, class): a recipe's out-of-fold answers, rows of NaN where there are none."""
        return files.read_probabilities(self.trained(name).path / "answers.npy").astype(np.float32)

    def write_evaluated(self, name: str, evaluated: Evaluated, answers: NDArray[np.float32]) -> None:
        """What became of a recipe, and its out-of-fold answers (image, class)."""
        folder = self.trained(name).path
        files.write_array(folder / "answers.npy", answers)
        files.write_record(folder / "evaluated.json", evaluated)

    def discard_members(self, name: str) -> None:
        """Remove the members of a recipe that has been judged; its answers stay."""
        shutil.rmtree(self.trained(name).path / "members", ignore_errors=True)

    # --- results

    @property
    def seconds(self) -> float:
        """How long the search has taken so far, over all sessions."""
        path = self.path / "seconds.json"
        found = files.read_json(path) if path.exists() else 0.0
        return float(found) if isinstance(found, int | float) else 0.0

    def write_seconds(self, seconds: float) -> None:
        """How long the search has taken so far."""
        files.write_json(self.path / "seconds.json", round(seconds, 3))

    @property
    def recipe_file(self) -> Path:
        """The winner as a file that `--recipe` takes."""
        return self.path / "recipe.toml"

    def write_recipe(self, recipe: Recipe) -> None:
        """The winner."""
        files.write_text(self.recipe_file, recipe.to_toml())

    @property
    def has_results(self) -> bool:
        """Whether a search has ended here."""
        return (self.path / "results.json").exists()

    @property
    def results(self) -> TuningResults:
        """Every figure of the search."""
        return files.read_record(self.path / "results.json", TuningResults)

    def write_results(self, results: TuningResults) -> None:
        """Every figure of the search."""
        files.write_record(self.path / "results.json", results)

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "tuning.html"
