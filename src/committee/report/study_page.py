"""The page of a study: one HTML file that needs nothing else, its figures as PNG and its table as CSV beside it.

How to add a section is written in `committee.report.run_page`.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

from matplotlib.figure import Figure

from committee import disk
from committee.config.study import parse
from committee.folders.study_folder import StudyFolder
from committee.metrics.results import StudyResults
from committee.nn.summary import layer_table, shape_text
from committee.report import plots, study_plots, study_table
from committee.report.page import Page, Plot, embed
from committee.report.page_images import image_uris
from committee.report.plots import Curve
from committee.report.study_sections import SECTIONS, Layer, StudyContent
from committee.training.optim import lr_curves

IMAGE_BUDGET = 17_000_000
"""Characters that the images of the data may have; photographs are made smaller until they fit."""

CLASSES_SHOWN = 40


@dataclass(frozen=True)
class StudyPage(Page):
    """The page of a study.

    Attributes:
        name, data: of the study, and of the data set.
        summary: what the study compares.
        citation: the published work that it repeats; "" where nothing was published.
        accuracies: every row's accuracy with its interval; None where there are no rows.
        sealed: whether the test images have not been opened.
        published_here: whether published figures are for this data, so that they are drawn.
    """

    template: ClassVar[str] = "study.html"

    name: str
    data: str
    summary: str
    citation: str
    accuracies: Plot | None
    sealed: bool
    published_here: bool


def write_study_page(folder: StudyFolder, contents: str = "") -> Path:
    """Tables, figures and study.html from the files of the study's folder alone.

    Args:
        folder: the study's.
        contents: the digest of what it holds, see `committee.folders.manifest`.
    """
    study = read(folder)
    disk.make_folder(folder.tables, within=folder.path)
    study_table.write_csv(study.results, folder.tables / "study.csv")
    study_table.write_markdown(study.results, folder.tables / "study.md")
    embedded = embed(figures(study.results, study.data.class_names, study.curves), folder.figures)
    parts = {g.part for row in study.results.rows for g in row.galleries if g.pictures}
    uris = image_uris(study.pictures, sorted(parts), CLASSES_SHOWN, IMAGE_BUDGET)
    page = study_page(replace(study, plots=embedded, uris=uris, contents=contents))
    disk.write(folder.page, page.render().encode())
    return folder.page


def read(folder: StudyFolder) -> StudyContent:
    """The records of a study's folder; figures and images are still missing."""
    toml = folder.declaration
    return StudyContent(
        results=folder.results,
        study=parse(tomllib.loads(toml), note_old_names=False),
        toml=toml,
        data=folder.data,
        environment=folder.environment,
        command=folder.command,
        layers=layers(folder),
        curves=learning_rates(folder),
        pictures=folder.pictures,
    )


def layers(folder: StudyFolder) -> dict[str, tuple[Layer, ...]]:
    """The layers of each row's network, as far as it was planned."""
    found = {}
    for row in folder.results.rows:
        model = folder.model(row.model)
        if model.has_recipe:
            table = layer_table(model.recipe.network, folder.data.shape, len(folder.data.class_names))
            found[row.name] = tuple(Layer(each.name, shape_text(each.output), each.parameters) for each in table)
    return found


def learning_rates(folder: StudyFolder) -> dict[str, Curve]:
    """The learning rate of each row of single networks; with a plateau schedule that of the first member."""
    found: dict[str, Curve] = {}
    for row in folder.results.rows:
        model = folder.model(row.model)
        if row.members == 1 and model.has_recipe and (history := model.member(0).history):
            found[row.name] = next(iter(lr_curves(model.recipe, {row.name: history}).values()))
    return found


def figures(results: StudyResults, class_names: tuple[str, ...], curves: Mapping[str, Curve]) -> dict[str, Figure]:
    """The figures of a study, by name."""
    found: dict[str, Figure] = {}
    if results.rows:
        found["row_accuracies"] = study_plots.row_accuracies(results.rows, published=not results.published_on)
        found["curves"] = study_plots.learning_curves(results.rows)
        if any(len({lr for _, lr in curve}) > 1 for curve in curves.values()):
            found["rates"] = plots.learning_rates(curves, width=9.6)
        for row in results.rows:
            if row.confusion:
                found[f"confusion_{row.name}"] = plots.confusion(row.confusion, class_names)
    if results.grid:
        found["grid_confusion"] = plots.confusion(results.grid.confusion, class_names)
    return found


def study_page(study: StudyContent) -> StudyPage:
    """The page of a study whose figures and images are embedded."""
    results = study.results
    found = (section.of(study) for section in SECTIONS)
    return StudyPage(
        title=results.title,
        version=study.environment.committee,
        warnings=results.warnings,
        sections=tuple(section for section in found if section is not None),
        name=results.name,
        data=results.data,
        summary=results.summary,
        citation=study.study.citation,
        accuracies=study.plots.get("row_accuracies"),
        sealed=study.sealed,
        published_here=not results.published_on and any(row.published is not None for row in results.rows),
    )
