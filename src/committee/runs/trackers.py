"""The trackers that `--log` knows: MLflow, TensorBoard, Trackio; local and offline unless their own variables differ.

Their packages are imported when a run in them is opened.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from committee import disk
from committee.errors import require
from committee.folders.run_folder import RunFolder
from committee.runs.tracking import Opener, Tracking
from committee.training.jobs import Event
from committee.training.plan import TrainingPlan

PROJECT = "committee"  # of all runs, in trackers that have projects


class MLflow:
    """A run of MLflow, in a database in the folder, or where MLFLOW_TRACKING_URI says.

    A server that does not answer is asked once, for ten seconds, where those variables do not say otherwise.
    """

    holds: Mapping[int, int] | None = None

    def __init__(self, folder: Path, name: str, parameters: Mapping[str, str], run: str) -> None:
        defaults = {
            "MLFLOW_DISABLE_TELEMETRY": "true",
            "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
            "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
        }
        for variable, value in defaults.items():
            os.environ.setdefault(variable, value)
        mlflow = require("mlflow", extra="mlflow", purpose="Logging to MLflow")
        elsewhere = os.environ.get("MLFLOW_TRACKING_URI", "")
        if not elsewhere:
            require("sqlalchemy", extra="mlflow", purpose="Logging to MLflow")
        for logger in ("mlflow", "alembic"):  # which tell of every table that they make
            logging.getLogger(logger).setLevel(logging.WARNING)
        address = elsewhere or f"sqlite:///{folder / 'mlflow.db'}"
        self.shown_by = f"mlflow ui --backend-store-uri {address}"
        self.client: Any = mlflow.MlflowClient(tracking_uri=address)
        self.metric = mlflow.entities.Metric
        known = self.client.get_experiment_by_name(PROJECT)
        artifacts = None if elsewhere else (folder / "artifacts").as_uri()
        self.experiment = known.experiment_id if known else self.client.create_experiment(PROJECT, artifacts)
        self.run = run if run and self._goes_on(run) else self._begin(name, parameters)

    def _goes_on(self, run: str) -> bool:
        try:
            self.client.update_run(run, status="RUNNING")
        except Exception:  # there is no such run, as where another server is meant now
            return False
        return True

    def _begin(self, name: str, parameters: Mapping[str, str]) -> str:
        run = str(self.client.create_run(self.experiment, run_name=name).info.run_id)
        for key, value in parameters.items():
            self.client.log_param(run, key, value[:500])
        return run

    def _metrics(self, values: Mapping[str, float], step: int) -> None:
        now = int(time.time() * 1000)
        self.client.log_batch(self.run, [self.metric(name, value, now, step) for name, value in values.items()])

    def log(self, member: int, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker.log`; metrics of one kind are together on MLflow's page."""
        self._metrics({f"{name}/member_{member:02d}": value for name, value in values.items()}, step)

    def end(self, values: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        """As `Tracker.end`."""
        if values:
            self._metrics(values, 0)
        for file in files:
            self.client.log_artifact(self.run, str(file))
        self.client.set_terminated(self.run, "FINISHED" if status == "finished" else "KILLED")


class TensorBoard:
    """A run of TensorBoard: a folder of event files, one for each member, written without TensorFlow.

    The records are written here and now by TensorBoard's own writer of records; its writer of events has a thread, and
    opens files by TensorFlow where that is installed.
    """

    holds: Mapping[int, int] | None = None

    def __init__(self, folder: Path, name: str, parameters: Mapping[str, str], run: str) -> None:
        self.events = require(
            "tensorboard.compat.proto.event_pb2", extra="tensorboard", purpose="Logging to TensorBoard"
        )
        self.summaries = require("tensorboard.compat.proto.summary_pb2", extra="tensorboard", purpose="Logging")
        self.records = require("tensorboard.summary.writer.record_writer", extra="tensorboard", purpose="Logging")
        self.folder, self.run = folder / name, name
        self.shown_by = f"tensorboard --logdir {folder}"
        self.files: dict[str, Any] = {}
        if not run:
            rows = "\n".join(f"    {key} = {value}" for key, value in parameters.items())
            self._write("", 0, [self._text("parameters", rows)])

    def _text(self, tag: str, text: str) -> Any:
        metadata = require("tensorboard.plugins.text.metadata", extra="tensorboard", purpose="Logging")
        tensors = require("tensorboard.util.tensor_util", extra="tensorboard", purpose="Logging")
        about, content = metadata.create_summary_metadata(tag, ""), tensors.make_tensor_proto([text.encode()])
        return self.summaries.Summary.Value(tag=tag, tensor=content, metadata=about)

    def _write(self, below: str, step: int, values: Sequence[Any]) -> None:
        if below not in self.files:
            folder = self.folder / below
            disk.make_folder(folder)
            number = sum(1 for _ in folder.glob("events.*"))  # a file for each session, in order
            file = (folder / f"events.out.tfevents.{number:010d}").open("wb", buffering=0)
            self.files[below] = self.records.RecordWriter(file)
            self.files[below].write(self.events.Event(file_version="brain.Event:2").SerializeToString())
        summary = self.summaries.Summary(value=values)
        self.files[below].write(
            self.events.Event(wall_time=time.time(), step=step, summary=summary).SerializeToString()
        )

    def _scalars(self, values: Mapping[str, float]) -> list[Any]:
        return [self.summaries.Summary.Value(tag=name, simple_value=value) for name, value in values.items()]

    def log(self, member: int, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker.log`; members share their charts."""
        try:
            self._write(f"member-{member:02d}", step, self._scalars(values))
        except OSError:
            self._close()
            raise

    def end(self, values: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        """As `Tracker.end`; event files hold no files, only where these are."""
        if values:
            places = "\n".join(f"    {file}" for file in files)
            self._write("", 0, [*self._scalars(values), self._text("files", places)])
        self._close()

    def _close(self) -> None:
        for writer in self.files.values():
            writer.close()


class Trackio:
    """A run of Trackio, in a database in the folder, or where Trackio's own variables say.

    Trackio writes what it is told a little later, in a thread: what a killed process told may be lost, so that the
    database says what there is.
    """

    def __init__(self, folder: Path, name: str, parameters: Mapping[str, str], run: str) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(folder))  # which is read when it is imported
        self.trackio: Any = require("trackio", extra="trackio", purpose="Logging to Trackio")
        self.run = name
        self.shown_by = f"TRACKIO_DIR={os.environ['TRACKIO_DIR']} trackio show --project {PROJECT}"
        self.holds: Mapping[int, int] | None = self._held() if run else None
        with _silent():
            self.open: Any = self.trackio.init(
                project=PROJECT,
                name=name,
                config=dict(parameters),
                resume="allow",
                embed=False,
                auto_log_cpu=False,
                auto_log_gpu=False,
            )

    def _held(self) -> dict[int, int]:
        storage = require("trackio.sqlite_storage", extra="trackio", purpose="Logging to Trackio").SQLiteStorage
        held: dict[int, int] = {}
        for row in storage.get_logs(PROJECT, self.run):
            for name in row:
                if "/member_" in name:
                    member = int(name.rpartition("_")[2])
                    held[member] = max(held.get(member, 0), int(row["step"]))
        return held

    def log(self, member: int, step: int, values: Mapping[str, float]) -> None:
        """As `Tracker.log`; metrics of one kind are together on Trackio's page."""
        with _silent():
            self.open.log({f"{name}/member_{member:02d}": value for name, value in values.items()}, step=step)

    def end(self, values: Mapping[str, float], files: Sequence[Path], status: str) -> None:
        """As `Tracker.end`."""
        with _silent():
            if values:
                self.open.log({f"results/{name}": value for name, value in values.items()}, step=0)
            for file in files:
                self.open.log_artifact(str(file), name=f"{self.run}-{file.stem}")
            self.trackio.finish()


@contextmanager
def _silent() -> Iterator[None]:
    """What Trackio prints is not printed: standard output is for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield


TRACKERS: dict[str, Opener] = {"mlflow": MLflow, "tensorboard": TensorBoard, "trackio": Trackio}
"""How a run is opened in each tracker."""


@contextmanager
def tracked(
    kinds: Sequence[str], plan: TrainingPlan, folder: RunFolder, note: Callable[[str], None]
) -> Iterator[Callable[[Event], None]]:
    """What tells trackers of a training's events; when the block ends without an error, of its results, too.

    Args:
        kinds: names in `TRACKERS`.
        plan: the training.
        folder: of the run, which is finished when the block ends without an error.
        note: told how each tracker shows the training, and once where one fails.

    Raises:
        MissingExtraError: a tracker's package is not installed.
    """
    with ExitStack() as stack:
        trackings = [
            stack.enter_context(Tracking(kind, TRACKERS[kind], plan, folder, note)) for kind in dict.fromkeys(kinds)
        ]
        for each in trackings:
            if each.shown_by:
                note(f"{each.shown_by} shows this training")

        def tell(event: Event) -> None:
            for each in trackings:
                each(event)

        yield tell
        for each in trackings:
            each.results()
