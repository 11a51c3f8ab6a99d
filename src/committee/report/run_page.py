"""The report of a run: one HTML file that needs nothing else, with its figures and tables as files beside it.

To add a section to the report:

1. In `run_sections.py`, write a frozen dataclass with what the section shows: a subclass of `RunSection` with its `key`
   (the anchor), its `title` (the heading) and `of(run)`, which returns None where there is nothing to show. Put it into
   `SECTIONS`, where the order is.
2. In `run_sections.html`, write a macro whose name is the key; its argument is the dataclass.

The table of contents follows by itself. A section that needs a figure takes it from `run.plots`, where `page_figures`
in `run_content.py` puts it; a figure there is also written to figures/. A study's page is made in the same way, of
`study_sections.py` and `study_sections.html`. A template that asks for a name that does not exist is an error.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from committee import disk
from committee.folders.run_folder import RunFolder
from committee.metrics.formatting import duration, interval_text, number, percent
from committee.metrics.results import Interval, MemberResult, Scores
from committee.report import csv_tables, sentences
from committee.report.formatting import short
from committee.report.page import Page, Plot, embed
from committee.report.page_images import image_uris
from committee.report.run_content import Run, image_figures, page_figures
from committee.report.run_sections import SECTIONS

LARGEST = 5_600_000
"""Characters that the page may have; photographs are made smaller until it fits."""

FEWEST_FOR_IMAGES = 200_000
CLASSES_SHOWN = 100
NOT_EMBEDDED = "confused_pairs"  # a figure that the page shows as a table


@dataclass(frozen=True)
class Headline:
    """The accuracy at the top of the page and what it rests on; `part` is "test" or "out-of-fold"."""

    part: str
    accuracy: float
    interval: Interval
    images: int
    errors: int


@dataclass(frozen=True)
class KeyFigure:
    """One of the few figures below the headline."""

    name: str
    value: str
    remark: str


@dataclass(frozen=True)
class RunPage(Page):
    """The report of a run.

    Attributes:
        headline: None where no image could be predicted without having been trained on.
        members_plot: the members' accuracies beside the committee's.
        guessing: the warning that the committee is no better than guessing.
        imbalance: what accuracy hides where classes differ in size; "" elsewhere.
        sealed: whether the test images have not been opened.
        failed: the members that failed.
        died: which members' processes died, and how the run gets them; None where none did.
        left_out, planned: members that were not ready in time, and all that were planned.
        key_figures: the few figures below the headline.
        citation: where the recipe comes from; "" where nothing was published.
    """

    template: ClassVar[str] = "report.html"

    headline: Headline | None
    members_plot: Plot | None
    guessing: sentences.Guessing | None
    imbalance: str
    sealed: bool
    failed: tuple[MemberResult, ...]
    died: sentences.Died | None
    left_out: int
    planned: int
    key_figures: tuple[KeyFigure, ...]
    citation: str


def write_run_page(folder: RunFolder, contents: str = "") -> Path:
    """Tables, figures and report.html from the files of the run folder alone.

    Args:
        folder: the run's.
        contents: the digest of what it holds, see `committee.folders.manifest`.
    """
    run = Run.read(folder, contents)
    csv_tables.write_run_tables(run.results, run.data.class_names, run.histories, folder.tables)
    plots = embed(page_figures(run), folder.figures)
    embed(image_figures(run), folder.figures)
    shown = {name: plot for name, plot in plots.items() if name != NOT_EMBEDDED}
    parts = {gallery.part for gallery in run.results.galleries if gallery.pictures}
    uris = image_uris(run.pictures, sorted(parts), CLASSES_SHOWN, _image_budget(shown, len(run.data.class_names)))
    page = run_page(replace(run, plots=shown, uris=uris))
    disk.write(folder.report, page.render().encode())
    return folder.report


def _image_budget(plots: Mapping[str, Plot], classes: int) -> int:
    """The characters that the images of the data may take."""
    spare = LARGEST - sum(len(plot.uri) for plot in plots.values()) - 2_000 * classes - 500_000
    return max(spare, FEWEST_FOR_IMAGES)


def run_page(run: Run) -> RunPage:
    """The report of a run whose figures and images are embedded."""
    headline = None
    if run.headline:
        part, scores = run.headline
        headline = Headline(part, scores.accuracy, scores.accuracy_interval, scores.images, scores.errors)
    found = (section.of(run) for section in SECTIONS)
    return RunPage(
        title=title(run),
        version=run.environment.committee,
        warnings=run.data.warnings,
        sections=tuple(section for section in found if section is not None),
        headline=headline,
        members_plot=run.plots.get("headline"),
        guessing=sentences.guessing(run.headline[1], run.data.class_names) if run.headline else None,
        imbalance=sentences.imbalance(run.headline[1], run.data.class_names) if run.headline else "",
        sealed=run.results.test is None,
        failed=run.failed,
        died=sentences.died(run.results),
        left_out=run.results.left_out,
        planned=run.results.planned,
        key_figures=tuple(key_figures(run)),
        citation=run.recipe.citation,
    )


def title(run: Run) -> str:
    """The data, how many of the planned members finished, and the recipe."""
    members, planned = len(run.finished), run.results.planned
    if members < planned:
        committee = f"a committee of {members} of {planned} members"
    else:
        committee = f"a committee of {members} members" if members > 1 else "a single network"
    return f"{short(run.data.name, 60)}: {committee}, recipe {run.recipe.name}"


def key_figures(run: Run) -> list[KeyFigure]:
    """The few figures below the headline."""
    results, figures = run.results, []
    if results.test and results.out_of_fold:
        figures.append(out_of_fold_figure(results.out_of_fold))
    accuracies = run.member_accuracies
    if len(accuracies) > 1:
        where = "test images" if results.test else "validation images"
        spread = f"lowest {percent(min(accuracies))}, highest {percent(max(accuracies))}"
        mean = percent(sum(accuracies) / len(accuracies))
        figures.append(KeyFigure(f"mean of {len(accuracies)} members on their own, {where}", mean, spread))
    if run.headline:
        part, scores = run.headline
        where = f"{number(scores.images)} {'test' if part == 'test' else 'training'} images"
        error = f"expected calibration error {percent(scores.calibration_error)}; {where}"
        figures.append(KeyFigure("log-loss", f"{scores.log_loss:.4f} nats", error))
    training, total = duration(results.seconds_training), duration(results.seconds_total)
    figures.append(KeyFigure("training time", training, f"{total} with the evaluation" if total != training else ""))
    return figures


def out_of_fold_figure(scores: Scores) -> KeyFigure:
    """The out-of-fold accuracy with its interval."""
    remark = (
        f"95\u00a0% interval {interval_text(scores.accuracy_interval)}; {number(scores.images)} training images, each "
        "predicted only by members that did not train on it"
    )
    return KeyFigure("out of fold", percent(scores.accuracy), remark)
