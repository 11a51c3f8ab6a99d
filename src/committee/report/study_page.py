"""The page of a study as one HTML file, its figures as PNG and its table as CSV beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from numpy.typing import NDArray

from committee.folders.study_folder import StudyFolder
from committee.metrics.results import Gallery, RowResult, StudyResults
from committee.nn.summary import layer_table, shape_text
from committee.report import plots, study_table
from committee.report.formatting import shown_command, spell, words
from committee.report.pictures import data_uris, displayable, strips
from committee.report.run_page import LARGEST, css, embed, templates, tile
from committee.report.sentences import data_sentence
from committee.report.study_table import spread
from committee.report.style import save
from committee.training.optim import lr_curves

CLASSES_SHOWN = 40


def write_study_page(folder: StudyFolder) -> Path:
    """Tables, figures and study.html from the files of the study's folder alone."""
    results, data, environment = folder.results, folder.data, folder.environment
    layers: dict[str, list[tuple[str, str, int]]] = {}
    curves: dict[str, Sequence[tuple[float, float]]] = {}
    for row in results.rows:
        model = folder.model(row.model)
        if model.has_recipe:
            table = layer_table(model.recipe.network, data.shape, len(data.class_names))
            layers[row.name] = [(layer.name, shape_text(layer.output), layer.parameters) for layer in table]
            history = model.member(0).history
            if history and row.members == 1:
                curves[row.name] = next(iter(lr_curves(model.recipe, {row.name: history}).values()))
    return _write(
        folder.path,
        results=results,
        facts={
            "dataset": data.model_dump(mode="json"),
            "environment": environment.model_dump(mode="json"),
            "version": environment.committee,
            "command": folder.command,
            "study_toml": folder.declaration,
        },
        class_names=data.class_names,
        layers=layers,
        rates=curves,
        pictures=folder.pictures,
    )


def _write(
    folder: Path,
    *,
    results: StudyResults,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    layers: Mapping[str, Sequence[tuple[str, str, int]]],
    rates: Mapping[str, Sequence[tuple[float, float]]],
    pictures: Mapping[str, NDArray[Any]],
) -> Path:
    """Write figures/*.png, tables/study.csv, tables/study.md and study.html.

    Args:
        folder: the study's folder.
        results: its figures.
        facts: dataset, environment, command, version, study_toml.
        class_names: one name a class.
        layers: for each row the name, output shape and parameters of its layers.
        rates: for each row the learning rate as a line, (epochs done, rate).
        pictures: `samples`, `class_means`, and `test` or `train` (slot, height, width, channel) for the galleries.

    Returns:
        The path of study.html.
    """
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    study_table.write_csv(results, folder / "tables" / "study.csv")
    study_table.write_markdown(results, folder / "tables" / "study.md")
    embedded = {
        name: embed(figure, save(figure, folder / "figures" / f"{name}.png"))
        for name, figure in _figures(results, class_names, rates).items()
    }
    path = folder / "study.html"
    path.write_text(_page(results, facts, class_names, layers, pictures, embedded), encoding="utf-8")
    return path


def _figures(
    results: StudyResults, class_names: Sequence[str], rates: Mapping[str, Sequence[tuple[float, float]]]
) -> dict[str, Figure]:
    found: dict[str, Figure] = {}
    if results.rows:
        found["row_accuracies"] = plots.row_accuracies(results.rows, published=not results.published_on)
        found["curves"] = plots.compared_curves(results.rows)
        if any(len({rate for _, rate in line}) > 1 for line in rates.values()):
            found["rates"] = plots.rates(rates, width=9.6)
        for row in results.rows:
            if row.confusion:
                found[f"confusion_{row.name}"] = plots.confusion(row.confusion, class_names)
    if results.grid:
        found["grid_confusion"] = plots.confusion(results.grid.confusion, class_names)
    return found


def _page(
    results: StudyResults,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    layers: Mapping[str, Sequence[tuple[str, str, int]]],
    pictures: Mapping[str, NDArray[Any]],
    embedded: Mapping[str, Any],
) -> str:
    environment = templates()
    environment.filters["spread"] = spread
    samples, uris = _images(class_names, pictures, 3 * LARGEST)
    sealed = not any(row.test for row in results.rows) and not (results.grid and results.grid.cells[0].test)
    short = [
        finding for finding in results.discussion if finding.kind in ("overall", "stopped", "committee", "published")
    ]
    contents = [("found", "In short")] if short else []
    contents += [("table", "The table"), ("curves", "Learning curves")] if results.rows else []
    contents += [("grid", "The grid")] if results.grid else []
    contents += [("details", "Row by row")] if results.rows else []
    contents += [("discussion", "Discussion"), ("data", "The images"), ("record", "The record")]
    return environment.get_template("study.html").render(
        css=css(),
        quiet=True,
        results=results,
        facts={**facts, "command": shown_command(str(facts.get("command", "")))},
        plots=embedded,
        sealed=sealed,
        short=short,
        contents=contents,
        headings=study_table.HEADINGS,
        rows=[
            {
                "kind": "committee" if row.members > 1 else "",
                "name": row.name,
                "change": row.change,
                "cells": study_table.cells(row),
            }
            for row in results.rows
        ],
        details=[_details(row, layers.get(row.name, ()), class_names, uris, pictures) for row in results.rows],
        samples=samples,
        data_sentence=data_sentence(facts.get("dataset", {}), class_names),
        protocol=protocol(results),
        environment=[(words(name), spell(value)) for name, value in facts.get("environment", {}).items()],
    )


def _images(
    class_names: Sequence[str], pictures: Mapping[str, NDArray[Any]], budget: int
) -> tuple[list[dict[str, str]], Mapping[str, list[str]]]:
    """Samples of each class, and the addresses of the galleries' pictures by part."""
    shown = min(CLASSES_SHOWN, len(class_names))
    means = displayable(pictures["class_means"][:shown])
    rows = strips(displayable(pictures["samples"][:shown]))
    addresses = data_uris([*means, *rows], budget // 4)
    samples = [
        {"name": name, "mean": mean, "strip": strip}
        for name, mean, strip in zip(class_names, addresses[:shown], addresses[shown:], strict=False)
    ]
    parts = [part for part in ("test", "train") if part in pictures]
    return samples, {part: data_uris(list(displayable(pictures[part])), budget // 2) for part in parts}


def _details(
    row: RowResult,
    layers: Sequence[tuple[str, str, int]],
    class_names: Sequence[str],
    uris: Mapping[str, list[str]],
    pictures: Mapping[str, NDArray[Any]],
) -> dict[str, Any]:
    by_member: dict[int, list[str]] = {}
    for reduction in row.lr_reductions:
        by_member.setdefault(reduction.member, []).append(f"to {reduction.lr:.3g} after epoch {reduction.epoch}")
    return {
        "row": row,
        "score": row.test or row.validation,
        "layers": [{"name": name, "output": output, "parameters": count} for name, output, count in layers],
        "reductions": [(member, ", ".join(texts)) for member, texts in by_member.items()],
        "galleries": [_gallery(gallery, class_names, uris, pictures) for gallery in row.galleries],
    }


def _gallery(
    gallery: Gallery, class_names: Sequence[str], uris: Mapping[str, list[str]], pictures: Mapping[str, NDArray[Any]]
) -> dict[str, Any]:
    shape = pictures[gallery.part].shape[1:] if gallery.pictures else (1, 1, 1)
    tiles = [tile(p, gallery, class_names, uris[gallery.part][p.slot], shape) for p in gallery.pictures]
    by_class: dict[str, list[dict[str, Any]]] = {}
    if gallery.name.startswith("sure_"):
        for each in tiles:
            by_class.setdefault(each["true"], []).append(each)
    return {"title": gallery.title, "tiles": tiles, "by_class": list(by_class.items())}


def protocol(results: StudyResults) -> list[str]:
    """How the figures came about."""
    openings = len(results.test_openings)
    opened = {0: "have never been opened", 1: "were opened once, after training"}.get(
        openings, f"were opened {openings} times (see below)"
    )
    sentences = [f"The test images {opened}."]
    if results.protocol == "published":
        sentences.append(
            "Published protocol: the test images served as validation images, as in the write-up. Whatever was chosen "
            "was chosen by them, so these figures flatter."
        )
    else:
        sentences.append(
            "Honest protocol: schedules and choices saw a validation part of the training images; the test images "
            "chose nothing."
        )
    if any(row.transductive for row in results.rows):
        sentences.append(
            "Transductive: pseudo-labels were given to the test images. Rows so marked were trained on them, without "
            "their labels, before they were judged on them."
        )
    elif any(row.audits for row in results.rows):
        sentences.append(
            "Pseudo-labels were given to validation images whose labels were hidden, never to test images."
        )
    sentences.append(
        "An interval over images says how far a figure may be off because the images are a sample; one over seeds and "
        "images also covers the luck of another training. Differences between repeats are judged by Welch's test with "
        "both; between single trainings by the exact McNemar test, which speaks of these two trainings only."
    )
    sentences.append(
        "A committee that was trained once takes the spread of its members, divided by the root of their number, for "
        "its own spread over seeds."
    )
    return sentences
