"""Events of a training -> an experiment tracker: parameters, every epoch of every member, the results.

A tracker looks on: it changes no bit of a training, and where it fails (a full disk, a server that is gone) it is left
alone from then on, with one note. What a member's history holds is what the tracker gets, so that a training that is
interrupted and goes on is one run there, without a gap and without an epoch twice.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Protocol

from pydantic import Field, JsonValue

from committee import disk
from committee.config.record import Record
from committee.errors import MissingExtraError
from committee.folders.records import EpochRecord
from committee.folders.run_folder import RunFolder
from committee.metrics.results import Results, Scores
from committee.names import file_name, unicode_text
from committee.training.jobs import EpochDone, Event
from committee.training.plan import TrainingPlan


class Tracker(Protocol):
    """A run in a tracker; every method may fail in any way.

    Attributes:
        run: the tracker's own name for it, by which its `Opener` finds it again.
        holds: the last epoch of each member that it holds; None where it holds all that it was told.
        shown_by: the command that shows it, for people.
    """

    run: str
    holds: Mapping[int, int] | None
    shown_by: str

    def log(self, member: int, step: int, values: Mapping[str, float]) -> None:
        """Figures of one member after an epoch (`step`, counted from 1)."""

    def end(self, values: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        """The results, files to keep with them, and whether the training "finished" or was "interrupted"."""


class Opener(Protocol):
    """Begins or goes on with a run in a tracker."""

    def __call__(self, folder: Path, name: str, parameters: Mapping[str, str], run: str) -> Tracker:
        """The run.

        Args:
            folder: of the tracker's own files, where it keeps them on this machine.
            name: of the run, one for each training.
            parameters: of the training.
            run: the `Tracker.run` of an earlier session; "" in the first.

        Raises:
            MissingExtraError: the tracker's package is not installed.
        """


class Logged(Record):
    """What a tracker has already: its name for the run, and the last epoch of each member."""

    run: str = ""
    epochs: dict[int, int] = Field(default_factory=dict)


class Tracking(AbstractContextManager["Tracking"]):
    """An `on_event` that tells a tracker what happens; see the module."""

    def __init__(
        self, kind: str, opener: Opener, plan: TrainingPlan, folder: RunFolder, note: Callable[[str], None]
    ) -> None:
        """Begin, or go on with, the training's run in a tracker.

        Args:
            kind: the tracker's name.
            opener: of a run in it.
            plan: the training.
            folder: of the run; the tracker's files are beside it, in a folder called like the tracker.
            note: told once why the tracker is left alone, in a sentence.

        Raises:
            MissingExtraError: the tracker's package is not installed.
        """
        self.kind, self.folder, self.note = kind, folder, note
        self.tracker: Tracker | None = None
        self.seen: set[int] = set()
        identity = json.dumps(plan.identity.model_dump(mode="json"), sort_keys=True)
        name = f"{file_name(folder.path.resolve().name)}-{hashlib.sha256(identity.encode()).hexdigest()[:8]}"
        run = folder.path.resolve()
        place = run.with_name(kind if run.name != kind else f"{kind}-runs")
        self.marker = place / f"{name}.json"
        self.logged = Logged()
        begin = self.attempt(lambda: self._begin(opener, place, name, parameters(plan)))
        self.shown_by = self.tracker.shown_by if begin and self.tracker else ""

    def _begin(self, opener: Opener, place: Path, name: str, values: Mapping[str, str]) -> None:
        disk.make_folder(place)
        if self.marker.exists():
            self.logged = Logged.model_validate_json(self.marker.read_bytes())
        self.tracker = opener(place, name, values, self.logged.run)
        if self.tracker.run != self.logged.run:  # another run there, such as on another server
            self.logged = Logged(run=self.tracker.run)
        if self.tracker.holds is not None:
            self.logged = Logged(run=self.tracker.run, epochs=dict(self.tracker.holds))
        self._keep()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.tracker is not None:  # not ended by `results`
            self._end({}, [], "interrupted")

    def __call__(self, event: Event) -> None:
        """Tell of an epoch, and of those before it that an earlier session could not tell."""
        if self.tracker is None or not isinstance(event, EpochDone):
            return
        member, record, first = event.member, event.record, event.member not in self.seen
        self.seen.add(member)
        self.attempt(lambda: self._tell(member, self.folder.member(member).history if first else [record]))

    def _tell(self, member: int, history: Iterable[EpochRecord]) -> None:
        assert self.tracker is not None
        last = self.logged.epochs.get(member, 0)
        for record in history:
            if record.epoch > last:
                self.tracker.log(member, record.epoch, epoch_values(record))
                last = record.epoch
        self.logged = self.logged.model_copy(update={"epochs": {**self.logged.epochs, member: last}})
        self._keep()

    def _keep(self) -> None:
        disk.write(self.marker, self.logged.model_dump_json().encode(), synced=False)

    def results(self) -> None:
        """Tell of the results, and of all that an earlier session could not tell; the folder is finished."""
        if self.tracker is not None:
            self.attempt(self._tell_results)

    def _tell_results(self) -> None:
        for member in self.folder.results.members:
            self._tell(member.member, self.folder.member(member.member).history)
        self._end(result_values(self.folder.results), artifacts(self.folder), "finished")

    def _end(self, values: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        tracker, self.tracker = self.tracker, None
        assert tracker is not None
        self.attempt(lambda: tracker.end(values, files, status))

    def attempt(self, step: Callable[[], None]) -> bool:
        """Try something with the tracker; where it fails, a note says so and nothing more is tried.

        Raises:
            MissingExtraError: the tracker's package is not installed, which is said before anything is trained.
        """
        try:
            step()
        except MissingExtraError:
            raise
        except Exception as error:  # whatever a tracker does, the training goes on
            self.tracker = None
            why = " ".join(str(error).split())[:200] or type(error).__name__
            self.note(f"{self.kind} cannot be written to ({why}); the training goes on without it")
            return False
        return True


# --- what is told -----------------------------------------------------------------------------------------------------


def parameters(plan: TrainingPlan) -> dict[str, str]:
    """A training's parameters by their names: every field of the recipe as --set takes it, data, seed, machine."""
    identity, dataset = plan.identity, plan.dataset
    return {
        **dict(_flat(plan.recipe.model_dump(mode="json", exclude={"summary", "citation"}))),
        "data": unicode_text(dataset.name),
        "data.train_images": str(len(dataset.train)),
        "data.classes": str(len(dataset.class_names)),
        "data.train_digest": identity.train_images,
        "seed": str(identity.seed),
        "device": identity.device,
        "precision": identity.precision,
        "kernels": identity.kernels or "",
        "torch": identity.torch,
    }


def _flat(values: Mapping[str, JsonValue], above: str = "") -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for name, value in values.items():
        if isinstance(value, dict):
            found += _flat(value, f"{above}{name}.")
        else:
            found.append((above + name, value if isinstance(value, str) else json.dumps(value)))
    return found


def epoch_values(record: EpochRecord) -> dict[str, float]:
    """The figures of an epoch that are numbers."""
    values = record.model_dump(exclude={"epoch", "lr_reduced_to"})
    return {name: float(value) for name, value in values.items() if value is not None and math.isfinite(value)}


def result_values(results: Results) -> dict[str, float]:
    """The figures of a finished run, accuracies with their intervals."""
    found = {"seconds_training": results.seconds_training, "members": float(len(results.members))}
    for part, scores in (("test", results.test), ("out_of_fold", results.out_of_fold)):
        found |= {f"{part}_{name}": value for name, value in _score_values(scores).items()}
    return found


def _score_values(scores: Scores | None) -> dict[str, float]:
    if scores is None:
        return {}
    return {
        "images": float(scores.images),
        "accuracy": scores.accuracy,
        "accuracy_low": scores.accuracy_interval.low,
        "accuracy_high": scores.accuracy_interval.high,
        "log_loss": scores.log_loss,
        "calibration_error": scores.calibration_error,
    }


def artifacts(folder: RunFolder) -> list[Path]:
    """The files of a finished run that a tracker keeps."""
    return [path for path in (folder.report, folder.recipe_file) if path.exists()]
