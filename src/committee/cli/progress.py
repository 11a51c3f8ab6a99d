"""Progress while members train: bars on a terminal, lines elsewhere; all of it on standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Protocol

from rich.markup import escape
from rich.progress import BarColumn, Progress, TaskID, TextColumn

from committee.errors import counted
from committee.metrics.formatting import duration, percent
from committee.names import visible
from committee.terminal import console, plain, say
from committee.training.jobs import Died, EpochDone, Event, Failed, Finished, Remark
from committee.training.state import StepProgress


class Monitor(AbstractContextManager["Monitor"], Protocol):
    """Shows a training's events."""

    def __call__(self, event: Event) -> None:
        """Show one event."""


ENDS = {Failed: "failed", Died: "died"}
SECONDS_PER_LINE = 10  # of each member, at least, where there are no bars
Key = tuple[str, int]  # a model's name ("" for a run's only one), and a member's number
Work = Mapping[Key, tuple[int, float]]  # for each member still to train: epochs at most, and what an epoch costs


def monitor(work: Work, *, may_stop_early: bool, whole: str = "committee") -> Monitor:
    """Bars on a terminal, plain lines elsewhere; `whole` is the name of the bar for all members."""
    clock = Clock(work, may_stop_early)
    return Bars(clock, whole) if sys.stderr.isatty() else Lines(clock)


def to_all(*listeners: Callable[[Event], None]) -> Callable[[Event], None]:
    """What hands every event to each of several, in order."""

    def hand_on(event: Event) -> None:
        for listener in listeners:
            listener(event)

    return hand_on


def member_name(event: Event) -> str:
    """A member as people call it: "member 03", in a study "annealing 03"."""
    return f"{event.model or 'member'} {event.member:02d}"


class Clock:
    """How long all members together still need, from the epochs done so far; an epoch counts with its cost."""

    def __init__(self, work: Work, may_stop_early: bool) -> None:
        self.began: float | None = None  # of the first step: starting processes is not training
        self.work = work
        self.left = sum(epochs * cost for epochs, cost in work.values())
        self.done = 0.0
        self.part: dict[Key, float] = {}  # cost of the part of its current epoch that each member has done
        self.at_most = "at most " if may_stop_early else ""
        self.seen: dict[Key, int] = {}
        self.reached: dict[Key, int] = {}  # each member's last epoch
        self.before: dict[Key, float] = {}  # cost of the part of its current epoch that an earlier session has done

    def take(self, event: Event) -> None:
        """Count an event."""
        key = (event.model, event.member)
        epochs, cost = self.work.get(key, (0, 0.0))
        self.began = self.began or time.monotonic()
        if isinstance(event, Remark):
            if event.epochs and key not in self.part:  # of earlier sessions: what this one does begins here
                self.part[key], self.seen[key] = 0.0, int(event.epochs)
                self.before[key] = cost * (event.epochs % 1)
                self.left -= cost * event.epochs
        elif isinstance(event, StepProgress):
            self.part[key] = max(cost * event.step / event.steps - self.before.get(key, 0.0), 0.0)
        elif isinstance(event, EpochDone):
            self.part[key] = 0.0
            if event.record.epoch <= self.reached.get(key, 0):  # once more, by a member that was started again
                return
            self.reached[key] = event.record.epoch
            self.seen[key] = self.seen.get(key, 0) + 1
            fresh = cost - self.before.pop(key, 0.0)
            self.done += fresh
            self.left -= fresh
        elif isinstance(event, Finished | Failed | Died):
            self.left -= cost * max(epochs - self.seen.get(key, 0), 0) - self.before.pop(key, 0.0)
            self.part.pop(key, None)

    def time_left(self) -> str:
        """Such as "3 min 20 s left"; "" until enough of an epoch is done to tell."""
        fresh, smallest = sum(self.part.values()), min((cost for _, cost in self.work.values()), default=0.0)
        if self.began is None or self.done + fresh <= 0.5 * smallest:
            return ""
        rate = (time.monotonic() - self.began) / (self.done + fresh)
        return f"{self.at_most}{duration(max(self.left - fresh, 0) * rate)} left"


class Lines(Monitor):
    """A line an epoch, for logs and pipes; where epochs are short, a line every 10 seconds, the first and the last."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.printed: dict[Key, float] = {}  # when a member's last line was

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Print a line for an epoch, a finished or a failed member, or a remark."""
        self.clock.take(event)
        name, key, now = member_name(event), (event.model, event.member), time.monotonic()
        if isinstance(event, EpochDone):
            is_last = self.clock.seen[key] == self.clock.work.get(key, (0, 0.0))[0]
            if is_last or now - self.printed.get(key, -math.inf) >= SECONDS_PER_LINE:
                self.printed[key], left = now, self.clock.time_left()
                say(f"{name}  {epoch_line(event)}{'  ' + left if left else ''}", err=True)
            if reduced := reduction(event):
                say(f"{name}  {reduced}", err=True)
        elif isinstance(event, Finished):
            say(f"{name}  finished after {counted(event.record.epochs, 'epoch')}", err=True)
        elif isinstance(event, Failed | Died):
            say(f"{name}  {ENDS[type(event)].upper()}: {event.why}", err=True)
        elif isinstance(event, Remark):
            say(f"{name}  {event.text}", err=True)


def epoch_line(event: EpochDone) -> str:
    """An epoch in one line: number, seconds, losses and accuracies, speed."""
    epoch = event.record
    validation = ""
    if epoch.validation_loss is not None:
        validation = f"  validation: loss {epoch.validation_loss:.4f}  accuracy {epoch.validation_accuracy:.4f}"
    return (
        f"epoch {epoch.epoch:3d}  {epoch.seconds:6.1f} s  loss {epoch.train_loss:.4f}  "
        f"accuracy {epoch.train_accuracy:.4f}{validation}  {epoch.images_per_second:,.0f} images/s"
    )


def reduction(event: EpochDone) -> str:
    """A sentence where the plateau schedule reduced the learning rate after an epoch; "" where it did not."""
    lr = event.record.lr_reduced_to
    return "" if lr is None else f"learning rate reduced to {lr:.3g} after epoch {event.record.epoch}"


class Bars(Monitor):
    """A bar for each running member, and one for all of them."""

    def __init__(self, clock: Clock, whole: str) -> None:
        self.clock = clock
        self.total = max(clock.left, 1e-9)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[text]}", markup=False),
            console=console(err=True),
        )
        self.whole = self.progress.add_task(f"[bold]{escape(visible(whole))}", total=self.total, text="")
        self.bars: dict[Key, TaskID] = {}
        self.latest: dict[Key, str] = {}

    def __enter__(self) -> Bars:
        self.progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.progress.stop()

    def __call__(self, event: Event) -> None:
        """Move the member's bar and that of all."""
        self.clock.take(event)
        key, name = (event.model, event.member), member_name(event)
        if key not in self.bars and isinstance(event, (StepProgress, EpochDone)):
            epochs = self.clock.work.get(key, (1, 0.0))[0]
            self.bars[key] = self.progress.add_task(escape(visible(name)), total=epochs, text="")
        if isinstance(event, StepProgress):
            done = self.clock.seen.get(key, 0)
            latest = self.latest.get(key, f"loss {event.loss:.4f}")
            self.progress.update(
                self.bars[key],
                completed=done + event.step / event.steps,
                text=f"epoch {event.epoch:<3d} {latest}",
            )
        elif isinstance(event, EpochDone):
            epoch = event.record
            validated = epoch.validation_accuracy is not None
            accuracy = epoch.train_accuracy if epoch.validation_accuracy is None else epoch.validation_accuracy
            self.latest[key] = (
                f"loss {epoch.train_loss:.4f}  {'validation ' * validated}accuracy {percent(accuracy)}  "
                f"{epoch.images_per_second:,.0f} images/s"
            )
            self.progress.update(self.bars[key], completed=self.clock.seen[key])
            if reduced := reduction(event):
                self.progress.console.print(plain(f"{name}: {reduced}"))
        elif isinstance(event, Remark):
            self.progress.console.print(plain(f"{name}: {event.text}"))
        else:
            if key in self.bars:
                self.progress.remove_task(self.bars.pop(key))
            if isinstance(event, Failed | Died):
                self.progress.console.print(plain(f"{name} {ENDS[type(event)]}: {event.why}", style="red"))
            else:
                self.progress.console.print(plain(f"{name} finished: {self.latest.get(key, '')}"))
        self.progress.update(
            self.whole,
            completed=self.clock.done + sum(self.clock.part.values()),
            total=max(self.clock.done + self.clock.left, 1e-9),
            text=self.clock.time_left() if self.clock.left > 0 else "trained",
        )
