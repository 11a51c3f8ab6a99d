"""What a search shows while it goes on, on standard error: a line for each trial; on a terminal a bar, too."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType

from rich.progress import BarColumn, Progress, TextColumn

from committee.errors import counted
from committee.metrics.formatting import duration, score_difference, score_text
from committee.metrics.tuning import ObjectiveName, TrialResult
from committee.terminal import console, plain, say
from committee.training.jobs import EpochDone, Event, Remark
from committee.training.state import StepProgress


class Shown(AbstractContextManager["Shown"]):
    """A line for each trial that ends and for each stage; on a terminal, a bar for what is being trained."""

    def __init__(self, most: float, objective: ObjectiveName, *, bars: bool) -> None:
        self.most, self.objective = most, objective
        self.began = time.monotonic()
        self.done = 0.0
        self.part: dict[tuple[str, int], float] = {}
        self.epochs: dict[tuple[str, int], int] = {}
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}"),
            console=console(err=True),
            transient=True,
            disable=not bars,
        )
        self.bar = self.progress.add_task("", total=1.0, text="")

    def __enter__(self) -> Shown:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def on_work(self, epochs: Mapping[tuple[str, int], int]) -> None:
        """These members are trained next."""
        self.epochs, self.part, self.done = dict(epochs), {}, 0.0
        text = f"{counted(len(epochs), 'network')}, {duration(time.monotonic() - self.began)} so far"
        self.progress.update(self.bar, total=max(sum(epochs.values()), 1), completed=0, text=text)

    def on_event(self, event: Event) -> None:
        """A member's training goes on."""
        key = (event.model, event.member)
        if isinstance(event, EpochDone):
            self.done += 1
            self.part.pop(key, None)
        elif isinstance(event, StepProgress):
            self.part[key] = event.step / event.steps
        elif isinstance(event, Remark):
            self._line(f"{event.model} {event.member:02d}  {event.text}")
        self.progress.update(self.bar, completed=self.done + sum(self.part.values()))

    def on_trial(self, trial: TrialResult, best: float | None) -> None:
        """A trial has ended."""
        number = f"{trial.number:3d}" + ("" if self.most == float("inf") else f" of {self.most:.0f}")
        if trial.score is None:
            self._line(f"trial {number}  {trial.ending}: {trial.why}")
            return
        score = score_text(self.objective, trial.score)
        against = score_difference(self.objective, trial.against_start or 0.0)
        how = "" if trial.ending == "whole" else f"  stopped: {counted(trial.folds, 'fold')}"
        known = "" if best is None else f"  best {score_text(self.objective, best)}"
        self._line(f"trial {number}  {score} ({against})  {duration(trial.seconds)}{known}{how}")

    def on_stage(self, text: str) -> None:
        """Another stage begins."""
        self._line(f"{text} ...")
        self.progress.update(self.bar, description=text)

    def _line(self, text: str) -> None:
        if self.progress.disable:
            say(text, err=True)
        else:
            self.progress.console.print(plain(text))
