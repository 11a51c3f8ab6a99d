"""The folder of a run: the only place that knows the names of its files (docs/architecture.md lists them).

A file is read when it is first asked for, and kept.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Self

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.config import recipe_parsing
from committee.config.recipe import Recipe
from committee.data.dataset import Labels
from committee.data.prepare import measure
from committee.errors import RecipeError, RunError
from committee.folders import files, manifest
from committee.folders.bundle import is_bundle, unpacked
from committee.folders.folder import Folder, kind_of
from committee.folders.member_folder import MemberFolder
from committee.folders.parsing import RESTORE
from committee.folders.records import (
    CommitteeRecord,
    ImagesRecord,
    ModelManifest,
    RunIdentity,
    RunManifest,
    RunSummary,
    differences,
)
from committee.folders.run_check import check_run
from committee.metrics import familiarity
from committee.metrics.results import Results
from committee.names import csv_text

EXPORTS = {  # what committee export writes, and what takes it
    ".html": "a page; open it in a browser",
    ".onnx": "an exported committee, which predict, serve and verify take; give the run that it was made of",
    **dict.fromkeys(
        (".xml", ".pte", ".tflite"),
        "an exported committee for another runtime; give the run, or export NAME.onnx, which predict and serve take",
    ),
}


class RunFolder(Folder):
    """The folder of a run; a study's models have the same form."""

    @classmethod
    def at(cls, path: str | Path) -> Self:
        """The folder at a path, where a bundle is unpacked into a temporary one; see `committee.folders.bundle`.

        Raises:
            RunError: there is a file that is no bundle; an exported one is told what takes it.
        """
        if (ending := Path(path).suffix.lower()) in EXPORTS and is_bundle(Path(path)):
            raise RunError(f"a run folder or a bundle is expected, got {path}, {EXPORTS[ending]}")
        return cls(unpacked(Path(path)), str(path)) if is_bundle(Path(path)) else cls(path)

    @classmethod
    def finished(cls, path: str | Path, *, or_model: bool = False, to_write: bool = False) -> Self:
        """The folder of a finished run.

        Args:
            path: the folder, or a bundle.
            or_model: whether a model of a study may be meant, too.
            to_write: whether something is to be written there, which a bundle does not take.

        Raises:
            RunError: not a run folder, an unfinished run, one of a version that cannot be read, another kind, or one
                with a file that is missing or not the one that was written.
        """
        if to_write and is_bundle(Path(path)):
            raise RunError(
                f"{path} is a bundle, and nothing is written into it; unpack it (unzip {path} -d FOLDER) and give the "
                "folder"
            )
        folder = cls.at(path)
        kind = kind_of(folder.path)
        if kind == "run" or (kind == "model" and or_model):
            folder.verify()
            check_run(folder, is_model=kind == "model")
            return folder
        wanted = {
            "study": f"{path} is the folder of a study; give one of its models, {path}/models/NAME (its sealed "
            "test images are opened by the committee study command without --keep-sealed)",
            "model": f"{path} is a model of a study and is evaluated there; give a folder that committee train wrote",
        }
        raise RunError(wanted[kind])

    # --- identity and recipe

    def check_free(self, identity: RunIdentity) -> None:
        """Refuse a folder that holds something else than this training; nothing is written.

        Raises:
            RunError: the folder holds another training, or the same one on another kernel path, or other files.
        """
        if self.has_begun and self._is_on_other_kernels(identity):
            kernels = self.identity.kernels
            raise RunError(
                f"{self.path} was begun with the kernels {kernels} and would go on with {identity.kernels}, whose last "
                f"bits differ; set COMMITTEE_CPU={kernels} on a machine that has them, give another folder (--out), or "
                "delete this one"
            )
        self._check_free(identity, RunIdentity)

    def begin(self, identity: RunIdentity) -> None:
        """Make the folder for a training, or enter one that holds the same training.

        Raises:
            RunError: the folder holds another training or other files, or cannot be written.
        """
        self.check_free(identity)
        self._begin(identity)
        for path in self.path.glob("members/*"):
            if MemberFolder(path).is_done:  # the process that wrote its record may have been killed before this
                MemberFolder(path).delete_checkpoints()

    @cached_property
    def identity(self) -> RunIdentity:
        """What makes this training this one."""
        return files.read_record(self.path / "identity.json", RunIdentity)

    def holds(self, identity: RunIdentity) -> bool:
        """Whether this training has entered the folder."""
        return self.has_begun and not differences(self.identity, identity)

    def _is_on_other_kernels(self, identity: RunIdentity) -> bool:
        """Whether only the kernels differ, and the precision, which is chosen by them."""
        stored = self.identity
        if stored.kernels in (None, identity.kernels):
            return False
        return self.holds(identity.model_copy(update={"kernels": stored.kernels, "precision": stored.precision}))

    @property
    def has_recipe(self) -> bool:
        """Whether the recipe is there."""
        return self.recipe_file.exists()

    @property
    def recipe_file(self) -> Path:
        """The recipe as a file that `--recipe` takes."""
        return self.path / "recipe.toml"

    @cached_property
    def recipe(self) -> Recipe:
        """The complete recipe."""
        content = files.read_toml(self.recipe_file)
        try:
            return recipe_parsing.parse(content, f"recipe {self.recipe_file}", note_old_names=False)
        except RecipeError as error:
            raise RunError(f"{error}; {RESTORE}") from error

    def write_recipe(self, recipe: Recipe) -> None:
        """The complete recipe."""
        files.write_text(self.recipe_file, recipe.to_toml())
        self.recipe = recipe

    # --- members

    def member(self, number: int) -> MemberFolder:
        """The folder of a member."""
        return MemberFolder(self.path / "members" / f"{number:02d}")

    def member_numbers(self) -> list[int]:
        """The members of a finished folder that are done, whether they are trained or failed."""
        found = (re.fullmatch(r"members/(\d{2,9})/member\.json", name) for name in self.listed)
        return sorted(int(each.group(1)) for each in found if each)

    @cached_property
    def train_labels(self) -> Labels:
        """(image,), of the training images."""
        return files.read_array(self.path / "train_labels.npy")

    def write_train_labels(self, labels: Labels) -> None:
        """(image,), of the training images."""
        files.write_array(self.path / "train_labels.npy", labels)

    @property
    def seconds_training(self) -> float:
        """Of all sessions together, where the training was interrupted; 0 before the first."""
        path = self.path / "seconds_training.json"
        seconds = files.read_json(path) if path.exists() else 0.0
        if not isinstance(seconds, (int, float)):
            raise RunError(f"{path} holds no number of seconds; {RESTORE}")
        return float(seconds)

    def write_seconds_training(self, seconds: float) -> None:
        """Of all sessions together."""
        files.write_json(self.path / "seconds_training.json", round(seconds, 3))

    # --- the committee

    @property
    def has_committee(self) -> bool:
        """Whether it has been decided how members become one."""
        return (self.path / "committee.json").exists()

    @cached_property
    def committee(self) -> CommitteeRecord:
        """How members become one."""
        return files.read_record(self.path / "committee.json", CommitteeRecord)

    def write_committee(self, committee: CommitteeRecord) -> None:
        """How members become one."""
        files.write_record(self.path / "committee.json", committee)
        self.committee = committee

    @property
    def has_images(self) -> bool:
        """Whether it is stored what the training images look like; older runs and studies' models have no such file."""
        return (self.path / "images.json").exists()

    @cached_property
    def images(self) -> ImagesRecord:
        """What the training images look like; of older runs and studies' models, by the samples on their page."""
        if self.has_images:
            return files.read_record(self.path / "images.json", ImagesRecord)
        owners = (self.path, *(self.path.parents[1:2] if self.path.parent.name == "models" else ()))
        shown = next((Folder(each).pictures for each in owners if (each / "pictures.npz").exists()), {})
        if "samples" not in shown:
            return ImagesRecord()
        samples = shown["samples"].reshape(-1, *self.data.shape)
        samples = samples[samples.any(axis=(1, 2, 3))]
        return ImagesRecord(writing=measure(samples), familiarity=familiarity.fit(samples, None))

    def write_images(self, images: ImagesRecord) -> None:
        """What the training images look like."""
        files.write_record(self.path / "images.json", images)
        self.images = images

    @property
    def has_out_of_fold(self) -> bool:
        """Whether the out-of-fold probabilities are there."""
        return (self.path / "out_of_fold_probabilities.npy").exists()

    @property
    def out_of_fold_probabilities(self) -> NDArray[np.float64]:
        """(image, class), of the training images; rows of NaN where all members trained on the image."""
        return files.read_probabilities(self.path / "out_of_fold_probabilities.npy")

    def write_out_of_fold_probabilities(self, probabilities: NDArray[np.float64]) -> None:
        """(image, class), of the training images."""
        files.write_array(self.path / "out_of_fold_probabilities.npy", probabilities)

    @property
    def is_sealed(self) -> bool:
        """Whether the committee has not predicted the test images yet."""
        return not (self.path / "test_probabilities.npy").exists()

    @property
    def test_labels(self) -> Labels:
        """(image,), of the opened test images."""
        return files.read_array(self.path / "test_labels.npy")

    @property
    def test_probabilities(self) -> NDArray[np.float64]:
        """(image, class), of the opened test images."""
        return files.read_probabilities(self.path / "test_probabilities.npy")

    def write_test(self, labels: Labels, probabilities: NDArray[np.float64]) -> None:
        """Labels (image,) and the committee's probabilities (image, class) of the opened test images."""
        files.write_array(self.path / "test_labels.npy", labels)
        files.write_array(self.path / "test_probabilities.npy", probabilities)

    def write_misclassified(self, part: str, rows: Iterable[tuple[int, str, str, float, float, str]]) -> None:
        """The misclassified images of "train" or "test" as a table.

        Args:
            part: which images.
            rows: position, true class, predicted class, the probability of each, and the image's file.
        """
        columns = ("image", "true", "predicted", "probability_true", "probability_predicted", "file")
        cells = (
            (position, true, predicted, f"{of_true:.6f}", f"{of_predicted:.6f}", file)
            for position, true, predicted, of_true, of_predicted, file in rows
        )
        disk.make_folder(self.tables, within=self.path)
        files.write_text(self.tables / f"misclassified_{part}.csv", csv_text(columns, cells))

    # --- results

    @cached_property
    def results(self) -> Results:
        """Every figure of the run."""
        return files.read_record(self.path / "results.json", Results)

    def write_results(self, results: Results) -> None:
        """Every figure of the run."""
        files.write_record(self.path / "results.json", results)
        self.results = results

    @property
    def report(self) -> Path:
        """The page."""
        return self.path / "report.html"

    @property
    def manifest(self) -> RunManifest:
        """The results in short, and every file."""
        return manifest.read(self.path, RunManifest)

    def contents(self, summary: RunSummary, *, page_only: bool) -> RunManifest:
        """What the run holds but its page, tables and figures, which are written next.

        Args:
            summary: the results in short.
            page_only: whether these are all that the command writes; else it has evaluated the members, too. What it
                has not written keeps the digests of an earlier manifest.
        """
        unchanged = (lambda name: True) if page_only else _is_of_training
        return self._contents(RunManifest, summary.model_dump(mode="json"), unchanged)

    def finish(self, contents: RunManifest) -> RunManifest:
        """Write the manifest, when everything is there."""
        return self._finish(contents)

    def finish_as_model(self, study: str, model: str) -> ModelManifest:
        """Write the manifest of a study's model."""
        return self._finish(self._contents(ModelManifest, {"study": study, "model": model}, lambda name: False))

    def weights_digest(self) -> str:
        """SHA-256 over the members' weights files of a finished run: equal digests, equal members."""
        weights = sorted((name, each) for name, each in self.listed.items() if name.endswith("weights.safetensors"))
        return hashlib.sha256("".join(each.sha256 for _, each in weights).encode()).hexdigest()


def _is_of_training(name: str) -> bool:
    """Whether a file is written by training alone, and not by an evaluation."""
    of_member = name.startswith("members/") and not name.endswith("/test_probabilities.npy")
    return of_member or name in {
        *("recipe.toml", "identity.json", "environment.json", "data.json", "command.txt"),
        *("train_labels.npy", "seconds_training.json"),
    }


def free_folder(parent: Path, name: str, identity: RunIdentity) -> RunFolder:
    """The folder for a training that was given none: the one that holds it already, else the first free name."""
    number = 1
    while True:
        folder = RunFolder(parent / (name if number == 1 else f"{name}-{number}"))
        if not folder.path.exists() or folder.holds(identity):
            return folder
        number += 1
