"""What the folders of runs and of studies share: identity, record, test record; which kind a folder is of.

The manifest is written last: a folder without it is not finished.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray
from pydantic import JsonValue

from committee import disk
from committee.config.record import Record
from committee.errors import RunError
from committee.folders import files, manifest
from committee.folders.lock import holder, is_empty, locked
from committee.folders.manifest import MANIFEST, SCHEMA, SHOWN, listed_files
from committee.folders.parsing import RESTORE
from committee.folders.records import (
    Environment,
    FileRecord,
    Manifest,
    RunData,
    differences,
)
from committee.metrics.results import TestOpening
from committee.names import visible

READABLE = (2, SCHEMA)  # 2: version 0.2 to 0.4, whose names `committee.config.record` translates

M = TypeVar("M", bound=Manifest)


class Folder:
    """What the folders of runs and of studies share: an identity, a manifest, tables, figures, a test record."""

    def __init__(self, path: str | Path, name: str = "") -> None:
        """A folder at a path; `name` is what to call it where it has been unpacked from elsewhere."""
        self.path = Path(path)
        self._name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {visible(str(self))}>"

    def __str__(self) -> str:
        return self._name or str(self.path)

    @property
    def is_finished(self) -> bool:
        """Whether everything is there."""
        return (self.path / MANIFEST).exists()

    def reopen(self) -> None:
        """Take the manifest away: the folder is about to change."""
        disk.remove(self.path / MANIFEST)

    def locked(self) -> AbstractContextManager[None]:
        """Hold the folder for a block in which it is written; see `committee.folders.lock.locked`."""
        return locked(self.path)

    # --- identity

    @property
    def has_begun(self) -> bool:
        """Whether a training has entered the folder."""
        return (self.path / "identity.json").exists()

    def _check_free(self, identity: Record, kind: type[Record]) -> None:
        if self.has_begun:
            stored = files.read_record(self.path / "identity.json", kind)
            if found := differences(stored, identity):
                raise RunError(
                    f"{self.path} holds another training ({'; '.join(found)}); give another folder (--out), or delete "
                    "this one"
                )
        elif self.path.exists() and (not self.path.is_dir() or not is_empty(self.path)):
            raise RunError(f"{self.path} exists and is not a run folder; give another folder (--out)")

    def _begin(self, identity: Record) -> None:
        if self.has_begun:  # with the same identity, perhaps in the words of another version
            return
        disk.make_folder(self.path)
        files.write_record(self.path / "identity.json", identity)

    # --- record

    @cached_property
    def environment(self) -> Environment:
        """Where it was trained."""
        return files.read_record(self.path / "environment.json", Environment)

    def write_environment(self, environment: Environment) -> None:
        """Where it was trained."""
        files.write_record(self.path / "environment.json", environment)
        self.environment = environment

    @cached_property
    def data(self) -> RunData:
        """The data set in numbers, and how it is loaded again."""
        return files.read_record(self.path / "data.json", RunData)

    def write_data(self, data: RunData) -> None:
        """The data set in numbers, and how it is loaded again."""
        files.write_record(self.path / "data.json", data)
        self.data = data

    @property
    def command(self) -> str:
        """How it was started."""
        return files.read_text(self.path / "command.txt").strip()

    def write_command(self, command: str) -> None:
        """How it was started."""
        files.write_text(self.path / "command.txt", command + "\n")

    @property
    def test_record(self) -> Path:
        """Where openings of the test images are noted, a line each."""
        return self.path / "test_record.jsonl"

    @property
    def test_openings(self) -> tuple[TestOpening, ...]:
        """Every opening of the test images."""
        return files.read_records(self.test_record, TestOpening)

    # --- what people look at

    @property
    def pictures(self) -> dict[str, NDArray[Any]]:
        """The few images that the page shows: `samples`, `class_means`, and `test` or `train` for the galleries."""
        return files.read_arrays(self.path / "pictures.npz")

    def write_pictures(self, pictures: Mapping[str, NDArray[Any]]) -> None:
        """The few images that the page shows."""
        files.write_arrays(self.path / "pictures.npz", pictures)

    @property
    def figures(self) -> Path:
        """The folder of the page's figures."""
        return self.path / "figures"

    @property
    def tables(self) -> Path:
        """The folder of the page's tables."""
        return self.path / "tables"

    # --- manifest

    def verify(self, *, shown_too: bool = False) -> int:
        """Compare the files of a finished folder with its manifest, before any of them is trusted.

        Args:
            shown_too: whether the page, its tables and its figures are compared, too; nothing is read from these.

        Returns:
            How many files were compared.

        Raises:
            RunError: a file is missing or is not the one that was written.
        """
        listed = self.listed
        for inner in sorted({parent for name in listed for parent in Path(name).parents[:-1]}):
            if (self.path / inner).is_symlink():
                raise RunError(f"{self.path / inner} is a link; a run's files lie in its own folder: put them there")
        names = [name for name in sorted(listed) if shown_too or not name.startswith(SHOWN)]
        for name in names:
            path = self.path / name
            if not path.exists():
                raise RunError(f"{path} is missing, but {MANIFEST} lists it; {self._remedy(name)}")
            if files.digest(path, listed[name].bytes) != listed[name].sha256:
                raise RunError(f"{path} is not the file that training wrote (SHA-256 differs); {self._remedy(name)}")
        return len(names)

    def others(self) -> list[str]:
        """The names of files in a finished folder that are not of the run or study."""
        listed = {*self.listed, MANIFEST}
        return [name for name in self._names() if name not in listed]

    def _names(self) -> list[str]:
        """The files in the folder and below; hidden ones are no content."""
        there = (path for path in self.path.rglob("*") if path.is_file() and not path.name.startswith("."))
        return sorted(path.relative_to(self.path).as_posix() for path in there)

    def _remedy(self, name: str) -> str:
        """What to do about a file that is missing or damaged."""
        return f"committee report {shlex.quote(str(self))} writes it again" if name.startswith(SHOWN) else RESTORE

    def contents_digest(self) -> str:
        """What the finished folder holds, as one number; see `committee.folders.manifest`."""
        return manifest.stored_contents_digest(self.path)

    @property
    def listed(self) -> dict[str, FileRecord]:
        """The files of the manifest, by their names."""
        return listed_files(files.read_bytes(self.path / MANIFEST), self.path / MANIFEST)

    def _contents(self, kind: type[M], summary: Mapping[str, JsonValue], unchanged: Callable[[str], bool]) -> M:
        """A manifest of all that is there but what people look at, which is written after it.

        Args:
            kind: of the manifest.
            summary: its other fields.
            unchanged: which files the command has not written; where there is a manifest, they keep what it says of
                them, so that damage is not taken over.
        """
        before = {name: each for name, each in self.listed.items() if unchanged(name)} if self.is_finished else {}
        listed = {
            name: before.get(name) or manifest.record_of(self.path / name)
            for name in self._names()
            if name != MANIFEST and not name.startswith(SHOWN)
        }
        return kind.model_validate({"schema": SCHEMA, "files": listed, **summary})

    def _finish(self, contents: M) -> M:
        """Write the manifest: of `_contents` and what people look at."""
        shown = (path.relative_to(self.path).as_posix() for each in SHOWN for path in self._below(each))
        listed = {**contents.files, **{name: manifest.record_of(self.path / name) for name in shown}}
        whole = contents.model_copy(update={"files": dict(sorted(listed.items()))})
        manifest.write(self.path, whole)
        return whole

    def _below(self, name: str) -> list[Path]:
        path = self.path / name
        if path.is_file():
            return [path]
        return [each for each in path.rglob("*") if each.is_file() and not each.name.startswith(".")]


def kind_of(path: Path) -> str:
    """Whether a finished folder is that of a "run", a "study", or a "model" of a study.

    Raises:
        RunError: there is no such folder, it is unfinished, or a version wrote it that cannot be read.
    """
    if not path.is_dir():
        models = sorted(each.name for each in path.parent.iterdir() if each.is_dir()) if path.parent.is_dir() else []
        there = f"; {path.parent} has {', '.join(models)}" if path.parent.name == "models" and models else ""
        raise RunError(f"there is no run folder {path}{there}; give a folder that committee train wrote")
    if not (path / MANIFEST).exists():
        whole = path.parents[1] if path.parent.name == "models" else path
        if at_work := holder(whole):
            raise RunError(f"{path} is being trained by {at_work}; wait for it to end")
        if (path / "trained").is_dir():
            recipe = shlex.quote(str(path / "recipe.toml"))
            raise RunError(
                f"{path} is a search for a recipe, not a run; train its winner: committee train DATA --recipe {recipe}"
            )
        if (path / "identity.json").exists():
            if (whole / "study.toml").exists():
                what = f"{path} belongs to" if whole != path else f"{path} is"
                raise RunError(f"{what} an unfinished study; give the same committee study command again to finish it")
            raise RunError(f"{path} is an unfinished run; give the same committee train command again to finish it")
        raise RunError(f"{path} is not a run folder: it has no {MANIFEST}; give a folder that committee train wrote")
    content = manifest.checked(files.read_bytes(path / MANIFEST), path / MANIFEST)
    if content.get("schema") not in READABLE:
        found, readable = str(content.get("schema"))[:40], " and ".join(map(str, READABLE))
        raise RunError(
            f"{path} has schema {found}, but this version reads {readable}; read it with the version that wrote it"
        )
    if (named := content.get("kind")) in ("run", "study", "model"):
        return str(named)
    if named is not None:
        raise RunError(f"{path / MANIFEST} is of no kind that is known ({str(named)[:40]}); {RESTORE}")
    return "model" if "model" in content else "study" if "study" in content else "run"
