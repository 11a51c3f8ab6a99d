"""The folder of a study, and of rounds of self-training: the only place that knows the names of their files."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Self

import tomli_w
from pydantic import JsonValue

from committee import disk
from committee.config.study import Study
from committee.errors import RunError
from committee.folders import files, manifest
from committee.folders.folder import Folder, kind_of
from committee.folders.lock import is_empty, locked
from committee.folders.records import AnsweredPlan, Audits, SelfTrainingResults, StudyIdentity, StudyManifest
from committee.folders.run_folder import RunFolder
from committee.metrics.results import StudyResults
from committee.names import csv_text, file_name


class StudyFolder(Folder):
    """The folder of a study; its models' folders have the form of runs."""

    @classmethod
    def finished(cls, path: str | Path) -> Self:
        """The folder of a finished study.

        Raises:
            RunError: not a finished study's folder, or one with a file that is missing or not the one that was written.
        """
        if kind_of(Path(path)) != "study":
            raise RunError(f"{path} is the folder of a run; give the folder of a study")
        folder = cls(path)
        folder.verify()
        return folder

    def check_free(self, identity: StudyIdentity) -> None:
        """Refuse a folder that holds something else than this study; nothing is written.

        Raises:
            RunError: the folder holds another training, or other files.
        """
        self._check_free(identity, StudyIdentity)

    def begin(self, identity: StudyIdentity) -> None:
        """Make the folder for a study, or enter one that holds the same study.

        Raises:
            RunError: the folder holds another training or other files, or cannot be written.
        """
        self.check_free(identity)
        self._begin(identity)

    @property
    def declaration(self) -> str:
        """The study as TOML."""
        return files.read_text(self.path / "study.toml")

    def write_declaration(self, study: Study) -> None:
        """The study as TOML."""
        content = study.model_dump(mode="json", exclude_none=True)
        files.write_text(self.path / "study.toml", tomli_w.dumps(content))

    # --- models

    def model(self, name: str) -> RunFolder:
        """The folder of a model."""
        return RunFolder(self.path / "models" / file_name(name))

    def audits(self, model: str) -> Audits | None:
        """The audits of a model's pseudo-labels; None where it has none."""
        path = self._audits_file(model)
        if not path.exists():
            return None
        content = files.read_json(path)
        return files.as_record({"rounds": content} if isinstance(content, list) else content, Audits, path)

    def write_audits(self, model: str, audits: Audits) -> None:
        """The audits of a model's pseudo-labels."""
        files.write_record(self._audits_file(model), audits)

    def _audits_file(self, model: str) -> Path:
        return self.path / "models" / f"{file_name(model)}-audits.json"

    # --- results

    @cached_property
    def results(self) -> StudyResults:
        """Every figure of the study."""
        return files.read_record(self.path / "results.json", StudyResults)

    def write_results(self, results: StudyResults, plan: AnsweredPlan) -> None:
        """Every figure of the study, and the plan that they answer."""
        files.write_record(self.path / "results.json", results)
        files.write_record(self.path / "plan.json", plan)
        self.results = results

    def answers(self, plan: AnsweredPlan) -> bool:
        """Whether the folder is finished and its results answer this plan."""
        path = self.path / "plan.json"
        if not self.is_finished or not path.exists():
            return False
        try:
            return files.read_record(path, AnsweredPlan) == plan and bool(self.results)
        except RunError:  # another version wrote it: evaluate again
            return False

    @property
    def page(self) -> Path:
        """The page."""
        return self.path / "study.html"

    @property
    def manifest(self) -> StudyManifest:
        """What the folder holds."""
        return manifest.read(self.path, StudyManifest)

    def contents(self) -> StudyManifest:
        """What the study holds but its page, tables and figures, which are written next."""
        results = self.results
        summary: dict[str, JsonValue] = {
            "study": results.name,
            "data": results.data,
            "warnings": list(results.warnings),
        }
        return self._contents(StudyManifest, summary, lambda name: True)

    def finish(self, contents: StudyManifest) -> StudyManifest:
        """Write the manifest, when everything is there."""
        return self._finish(contents)


class SelfTrainingFolder:
    """The folder of rounds of self-training: each round is a run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    def check_free(self) -> None:
        """Refuse a folder that holds something else than rounds.

        Raises:
            RunError: it does.
        """
        if self.path.exists() and not is_empty(self.path) and not self.round(0).path.exists():
            raise RunError(f"{self.path} exists and holds no rounds of self-training; give another folder (--out)")

    def round(self, number: int) -> RunFolder:
        """The run of a round."""
        return RunFolder(self.path / f"round-{number}")

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for a block in which it is written; see `committee.folders.lock.locked`."""
        return locked(self.path)

    @property
    def test_record(self) -> Path:
        """Where openings of the test images are noted, a line each; its folder is made."""
        disk.make_folder(self.path)
        return self.path / "test_record.jsonl"

    def write_accepted(self, number: int, rows: Iterable[tuple[str, str, float]]) -> None:
        """The images accepted after a round: name, label, probability."""
        cells = ((name, label, f"{probability:.6f}") for name, label, probability in rows)
        text = csv_text(("image", "label", "probability"), cells)
        files.write_text(self.path / f"accepted-after-round-{number}.csv", text)

    def write_results(self, results: SelfTrainingResults) -> None:
        """What the rounds reached."""
        files.write_record(self.path / "rounds.json", results)
