"""What the terminal shows: progress while members train, and tables afterwards. All progress goes to standard error."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Any, Protocol

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn
from rich.table import Table
from rich.text import Text

from committee.errors import counted
from committee.metrics.results import GridResult, Judgement, Results, RowResult, StudyResults
from committee.nn.architectures import PlannedLayer
from committee.nn.summary import spell, totals
from committee.report.study_table import published, spread, verdict
from committee.report.tables import (
    NOTHING,
    SummaryRow,
    cell,
    headline_judgement,
    no_better_than_guessing,
    percent,
    shown_columns,
    summary_rows,
)
from committee.training.jobs import EpochDone, Event, Failed, Finished
from committee.training.state import Progress as Step


class Watcher(AbstractContextManager["Watcher"], Protocol):
    """Shows a training's events."""

    def __call__(self, event: Event) -> None:
        """Show one event."""


SECONDS_A_LINE = 10  # of a member, at least, where nobody sees bars
Key = tuple[str, int]  # a model's name ("" for a run's only one), and a member's number
Work = Mapping[Key, tuple[int, float]]  # for each member still to train: epochs at most, and what an epoch costs


def watcher(work: Work, *, may_stop_early: bool, whole: str = "committee") -> Watcher:
    """Bars on a terminal, plain lines elsewhere; `whole` names what all members make up."""
    clock = Clock(work, may_stop_early)
    return Bars(clock, whole) if sys.stderr.isatty() else Lines(clock)


def member_name(event: Event) -> str:
    """A member as people call it: "member 03", in a study "annealing 03"."""
    return f"{event.model or 'member'} {event.member:02d}"


class Clock:
    """How long all members together still need, from the epochs done so far; an epoch counts with its cost."""

    def __init__(self, work: Work, may_stop_early: bool) -> None:
        self.began: float | None = None  # when the first step was told; starting processes is not training
        self.work = work
        self.left = sum(epochs * cost for epochs, cost in work.values())
        self.done = 0.0
        self.part: dict[Key, float] = {}  # cost of what each member has done of its running epoch
        self.at_most = "at most " if may_stop_early else ""
        self.seen: dict[Key, int] = {}

    def take(self, event: Event) -> None:
        """Count an event."""
        key = (event.model, event.member)
        epochs, cost = self.work.get(key, (0, 0.0))
        self.began = self.began or time.monotonic()
        if isinstance(event, Step):
            self.part[key] = cost * event.step / event.steps
        elif isinstance(event, EpochDone):
            self.part[key] = 0.0
            self.seen[key] = self.seen.get(key, 0) + 1
            self.done += cost
            self.left -= cost
        else:
            self.left -= cost * max(epochs - self.seen.get(key, 0), 0)
            self.part.pop(key, None)

    def time_left(self) -> str:
        """In words, such as "3 min 20 s left"; nothing before there is a ground for it."""
        fresh, smallest = sum(self.part.values()), min((cost for _, cost in self.work.values()), default=0.0)
        if self.began is None or self.done + fresh <= 0.5 * smallest:
            return ""
        rate = (time.monotonic() - self.began) / (self.done + fresh)
        return f"{self.at_most}{duration(max(self.left - fresh, 0) * rate)} left"


def duration(seconds: float) -> str:
    """Seconds for people: "8 s", "3 min 20 s", "1 h 05 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


class Lines(Watcher):
    """A line an epoch, for logs and pipes; where epochs are short, a line every 10 seconds, the first and the last."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.told: dict[Key, float] = {}  # when a member's last line was written

    def __enter__(self) -> Lines:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    def __call__(self, event: Event) -> None:
        """Print a line for an epoch, a finished or a failed member."""
        self.clock.take(event)
        name, key, now = member_name(event), (event.model, event.member), time.monotonic()
        if isinstance(event, EpochDone):
            is_last = self.clock.seen[key] == self.clock.work.get(key, (0, 0.0))[0]
            if is_last or now - self.told.get(key, -math.inf) >= SECONDS_A_LINE:
                self.told[key], left = now, self.clock.time_left()
                print(f"{name}  {epoch_line(event)}{'  ' + left if left else ''}", file=sys.stderr, flush=True)
            if reduced := reduction(event):
                print(f"{name}  {reduced}", file=sys.stderr, flush=True)
        elif isinstance(event, Finished):
            print(f"{name}  finished after {counted(event.epochs, 'epoch')}", file=sys.stderr, flush=True)
        elif isinstance(event, Failed):
            print(f"{name}  FAILED: {event.why}", file=sys.stderr, flush=True)


def epoch_line(event: EpochDone) -> str:
    """An epoch in one line: number, seconds, losses and accuracies, speed."""
    line = event.line
    held_out = ""
    if line["validation_loss"] is not None:
        held_out = f"  held out: loss {line['validation_loss']:.4f}  accuracy {line['validation_accuracy']:.4f}"
    return (
        f"epoch {line['epoch']:3d}  {line['seconds']:6.1f} s  loss {line['train_loss']:.4f}  "
        f"accuracy {line['train_accuracy']:.4f}{held_out}  {line['images_per_second']:,.0f} images/s"
    )


def reduction(event: EpochDone) -> str:
    """That the plateau schedule reduced the rate after an epoch; "" where it did not."""
    rate = event.line.get("rate_reduced_to")
    return "" if rate is None else f"learning rate reduced to {rate:.3g} after epoch {event.line['epoch']}"


class Bars(Watcher):
    """A bar for each running member, and one for all of them."""

    def __init__(self, clock: Clock, whole: str) -> None:
        self.clock = clock
        self.total = max(clock.left, 1e-9)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[facts]}"),
            console=Console(stderr=True),
        )
        self.whole = self.progress.add_task(f"[bold]{whole}", total=self.total, facts="")
        self.bars: dict[Key, TaskID] = {}
        self.facts: dict[Key, str] = {}

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
        if key not in self.bars and isinstance(event, (Step, EpochDone)):
            epochs = self.clock.work.get(key, (1, 0.0))[0]
            self.bars[key] = self.progress.add_task(name, total=epochs, facts="")
        if isinstance(event, Step):
            done = self.clock.seen.get(key, 0)
            facts = self.facts.get(key, f"loss {event.loss:.4f}")
            self.progress.update(
                self.bars[key],
                completed=done + event.step / event.steps,
                facts=f"epoch {event.epoch:<3d} {facts}",
            )
        elif isinstance(event, EpochDone):
            line = event.line
            accuracy = line["train_accuracy"] if line["validation_accuracy"] is None else line["validation_accuracy"]
            which = "accuracy" if line["validation_accuracy"] is None else "held-out accuracy"
            self.facts[key] = (
                f"loss {line['train_loss']:.4f}  {which} {percent(accuracy)}  {line['images_per_second']:,.0f} images/s"
            )
            self.progress.update(self.bars[key], completed=self.clock.seen[key])
            if reduced := reduction(event):
                self.progress.console.print(Text(f"{name}: {reduced}"))
        else:
            if key in self.bars:
                self.progress.remove_task(self.bars.pop(key))
            if isinstance(event, Failed):
                self.progress.console.print(Text(f"{name} failed: {event.why}", style="red"))
            else:
                self.progress.console.print(Text(f"{name} finished: {self.facts.get(key, '')}"))
        self.progress.update(
            self.whole,
            completed=self.clock.done + sum(self.clock.part.values()),
            total=max(self.clock.done + self.clock.left, 1e-9),
            facts=self.clock.time_left() if self.clock.left > 0 else "trained",
        )


# --- after the training -----------------------------------------------------------------------------------------------

STYLES = {"mean": "bold", "spread": "dim", "failed": "red", "committee": "bold green", "out_of_fold": "cyan"}


HEADINGS = {  # narrow enough for 80 columns together
    "label": "\n\nmember",
    "kept_epoch": "\nkept\nepoch",
    "epochs": "\n\nof",
    "seconds": "\nsec-\nonds",
    "train_loss": "\ntrain\nloss",
    "held_out_loss": "held\nout\nloss",
    "test_loss": "\ntest\nloss",
    "train_accuracy": "\ntrain\nacc.",
    "held_out_accuracy": "held\nout\nacc.",
    "test_accuracy": "\ntest\nacc.",
}
LABELS = {"standard deviation": "± sd", "committee, out of fold": "out of fold"}


def members_table(results: Results) -> Table:
    """The training summary: a row a member, mean and spread, out of fold, the committee."""
    rows = summary_rows(results)
    fields = [field for field, _ in shown_columns(rows)]
    title = "Losses in nats, accuracies in %; members' of their kept epoch, not calibrated"
    table = Table(
        title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, show_edge=False, title_justify="left"
    )
    for field in fields:
        table.add_column(HEADINGS[field], justify="left" if field == "label" else "right", no_wrap=True)
    previous: SummaryRow | None = None
    for row in rows:
        if previous is not None and row.kind != previous.kind and row.kind in ("mean", "out_of_fold"):
            table.add_section()
        cells = [terse(row, field) for field in fields[1:]]
        table.add_row(*map(Text, [LABELS.get(row.label, row.label), *cells]), style=STYLES.get(row.kind, ""))
        previous = row
    return table


def terse(row: SummaryRow, field: str) -> str:
    """A cell without what the heading or the row's label says already."""
    if field == "seconds" and row.seconds is not None and row.seconds >= 100:
        return f"{row.seconds:,.0f}"
    return cell(row, field).removesuffix("\u00a0%").removeprefix("± ")


def judgement_line(what: str, judgement: Judgement) -> str:
    """An accuracy with its interval, as one line."""
    low, high = percent(judgement.accuracy_interval.low), percent(judgement.accuracy_interval.high)
    errors = counted(judgement.errors, "error")
    interval = f"95 % interval {low} to {high}; {errors} in {judgement.images:,} images"
    return f"{what}: {percent(judgement.accuracy)}  ({interval})"


def closing_lines(results: Results) -> list[str]:
    """What a run reached, in lines."""
    lines = []
    if results.out_of_fold:
        lines.append(judgement_line("Committee, out of fold", results.out_of_fold))
    if results.test:
        lines.append(judgement_line("Committee, test images", results.test))
    found = headline_judgement(results)
    if found and no_better_than_guessing(found[1]):
        lines.append(
            "This committee learnt nothing beyond guessing: try more --epochs, smaller batches (--set "
            "training.batch_size=16), or look at the labels with committee data info."
        )
    openings = len(results.test_openings)
    times = {0: "are still sealed", 1: "were opened once, after training"}.get(
        openings, f"were opened {openings} times"
    )
    lines.append(f"The test images {times}.")
    if results.left_out:
        planned = len(results.members) + results.left_out
        lines.append(f"{results.left_out} of {planned} planned members were not ready in time and are left out.")
    if failed := [row for row in results.members if row.status != "finished"]:
        lines += [f"Member {row.member:02d} failed and is left out: {row.remark}." for row in failed]
    lines.append(f"Training took {duration(results.seconds_training)}, with judging {duration(results.seconds_total)}.")
    return lines


def layers_table(title: str, layers: Sequence[PlannedLayer]) -> Table:
    """A network's layers: output shape, parameters, multiply-adds."""
    table = Table(title=title, show_footer=True)
    parameters, multiply_adds = totals(list(layers))
    table.add_column("layer", footer="all")
    table.add_column("output", justify="right")
    table.add_column("parameters", justify="right", footer=f"{parameters:,}")
    table.add_column("multiply-adds", justify="right", footer=f"{multiply_adds:,}")
    for layer in layers:
        table.add_row(layer.name, spell(layer.output), f"{layer.parameters:,}", f"{layer.multiply_adds:,}")
    return table


def show_study(results: StudyResults) -> None:
    """A study on standard output: its warnings, table and grid, and the part of its discussion that the table lacks."""
    console = Console()
    for mark in results.warnings:
        console.print(Text(mark, style="bold"))
    if results.rows:
        console.print(study_rows(results, console.width))
    if results.grid:
        console.print(grid_rows(results.grid))
    for finding in results.discussion:
        if finding.kind in ("overall", "stopped", "undecided", "committee", "published", "grid"):
            console.print(Text(f"- {finding.text}"))
    openings = len(results.test_openings)
    times = {0: "are still sealed", 1: "were opened once, after training"}.get(
        openings, f"were opened {openings} times"
    )
    console.print(Text(f"The test images {times}."))


def study_rows(results: StudyResults, width: int) -> Table:
    """The table of a study: accuracies in per cent, differences in points; validation where there is room."""
    sealed = not any(row.test for row in results.rows)
    where = "validation" if sealed else "test"
    published_for = f"; published figures are for {results.published_on}" if results.published_on else ""
    title = f"Accuracies in %, 95 % intervals; difference on {where} images in points{published_for}"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    shown = ["row", *(["valid."] if sealed or width >= 88 else []), *([] if sealed else ["test"])]
    shown += ["publ.", "difference", "verdict"]
    for heading in shown:
        table.add_column(heading, justify="left" if heading in ("row", "verdict") else "right", overflow="fold")
    before = None
    for row in results.rows:
        main, d = row.test or row.validation, row.difference
        repeats = (f"n {main.repeats}" if row.members == 1 else f"n {main.repeats} × {row.members}") if main else "none"
        against = f", against {d.against}" if d and d.against != before else ""
        chance = ("p < .0001" if d.p_adjusted < 0.0001 else f"p = {d.p_adjusted:.2g}") + against if d else ""
        cells = {
            "row": f"{row.name}\n  {repeats}, {duration(row.seconds)}",
            "valid.": validation_cell(row, sealed) if row.validation else NOTHING,
            "test": NOTHING,
            "publ.": published(row).removesuffix("\u00a0%"),
            "difference": NOTHING,
            "verdict": "\n".join([verdict(row)[0], chance + " TRANSDUCTIVE" * row.transductive]).strip(),
        }
        if row.test:
            low, high = row.test.interval.low, row.test.interval.high
            cells["test"] = f"{100 * row.test.mean:.2f}\n{100 * low:.2f}–{100 * high:.2f}"
        if d:
            cells["difference"] = f"{100 * d.points:+.2f}\n{100 * d.interval.low:+.2f} {100 * d.interval.high:+.2f}"
        table.add_row(*(Text(cells[name]) for name in shown), style="" if row.members == 1 else "bold")
        before = row.name
    return table


def validation_cell(row: RowResult, sealed: bool) -> str:
    """A row's validation accuracy; with its interval and number of images where it is all there is."""
    assert row.validation is not None
    mean = f"{100 * row.validation.mean:.2f}"
    low, high = row.validation.interval.low, row.validation.interval.high
    return f"{mean}\n{100 * low:.2f}–{100 * high:.2f} of {row.validation.images:,}" if sealed else mean


def grid_rows(grid: GridResult) -> Table:
    """The cells of a grid."""
    title = "Accuracies in %, mean ± sd over seeds; chosen by validation"
    table = Table(title=title, box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0), pad_edge=False, title_justify="left")
    some_published = any(each.published is not None for each in grid.cells)
    axes = [axis.rpartition(".")[2] for axis in grid.axes]
    for heading in (*axes, "n", "validation", "test", *(["publ."] * some_published), ""):
        table.add_column(heading, justify="right" if heading else "left", overflow="fold")
    for number, each in enumerate(grid.cells):
        remark = "chosen" if number == grid.best else "within noise" if each.within_noise else ""
        scores = [
            f"{100 * score.mean:.2f} ± {spread(score.spread)}" if score else NOTHING
            for score in (each.validation, each.test)
        ]
        printed = NOTHING if each.published is None else f"{100 * each.published:.2f}"
        cells = [*each.values, str(each.validation.repeats), *scores, *([printed] * some_published), remark]
        table.add_row(*map(Text, cells), style="bold" if number == grid.best else "")
    return table


def show_rounds(found: Mapping[str, Any]) -> None:
    """Rounds of pseudo-labelling on standard output."""
    console = Console()
    for mark in found["warnings"]:
        console.print(Text(mark, style="bold"))
    for each in found["rounds"]:
        part = "test" if each["test"] else "out_of_fold"
        told = "not judged: its test images are sealed, and it held none out"
        if score := each[part]:
            low, high = map(percent, score["interval"])
            told = f"{part.replace('_', '-')} accuracy {percent(score['accuracy'])} (95 % interval {low} to {high}), "
            told += f"{score['errors']:,} errors in {score['images']:,} images"
        console.print(Text(f"Round {each['round']}: {told}"))
        if each["audit"]:
            console.print(Text(f"  then {each['audit']}."))
        if each["stopped"]:
            console.print(Text(f"  Stopped: {each['stopped']}.", style="bold"))
    if found["verdict"]:
        console.print(Text(found["verdict"]))
