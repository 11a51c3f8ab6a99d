"""The report of a run as one HTML file that needs nothing else, and its figures and tables as files beside it."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup
from matplotlib.figure import Figure
from numpy.typing import NDArray

from committee.folders.run_folder import RunFolder
from committee.metrics.formatting import NOTHING, duration, percent
from committee.metrics.results import Gallery, Picture, Results
from committee.report import image_plots, plots, sentences, tables
from committee.report.formatting import settings, short, shown_command, spell, words
from committee.report.pictures import data_uris, displayable, strips
from committee.report.style import save
from committee.report.tables import History
from committee.training.optim import lr_curves

LARGEST = 5_600_000
"""Characters that the page may have; photographs are made smaller until it fits."""

CLASSES_SHOWN = 100
FEWEST_IN_MATRIX = 4
"""Members from which on a matrix of their agreement says more than a sentence."""

_HERE = Path(__file__).parent


def write_run_page(folder: RunFolder) -> Path:
    """Tables, figures and report.html from the files of the run folder alone."""
    results, recipe, environment = folder.results, folder.recipe, folder.environment
    members = recipe.committee.members - results.left_out
    whole = f"a committee of {members}" if members > 1 else "one network"
    histories = [folder.member(row.member).history for row in results.members]
    curves = lr_curves(recipe, {f"member {r.member}": h for r, h in zip(results.members, histories, strict=True)})
    reductions = []
    for row, history in zip(results.members, histories, strict=True):
        texts = [f"to {e.lr_reduced_to:.3g} after epoch {e.epoch}" for e in history if e.lr_reduced_to is not None]
        reductions += [(row.member, ", ".join(texts))] if texts else []
    return _write(
        folder.path,
        results=results,
        facts={
            "title": f"{folder.data.name}: {whole} by the recipe {recipe.name}",
            "dataset": folder.data.model_dump(mode="json"),
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "recipe_toml": recipe.to_toml(),
            "recipe_digest": recipe.digest(),
            "environment": environment.model_dump(mode="json"),
            "seed": folder.identity.seed,
            "command": folder.command,
            "version": environment.committee,
            "rate_reductions": reductions,
        },
        class_names=folder.data.class_names,
        histories=[[epoch.model_dump() for epoch in history] for history in histories],
        pictures=folder.pictures,
        rates=curves,
    )


def _write(
    folder: Path,
    *,
    results: Results,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    histories: Sequence[History],
    pictures: Mapping[str, NDArray[Any]],
    rates: Mapping[str, Sequence[tuple[float, float]]] | None = None,
) -> Path:
    """Write figures/*.png, tables/*.csv and report.html.

    Args:
        folder: the run's folder.
        results: its figures.
        facts: title, dataset (name, source, shape, counts, digests, notes), recipe, recipe_toml, recipe_digest,
            environment, seed, command, version; what is missing is left out of the page.
        class_names: one name a class; may hold anything.
        histories: for each row of `results.members` the lines of its history.
        pictures: `samples` (class, sample, height, width, channel), `class_means` (class, height, width, channel), and
            for each part that galleries show, `test` or `train`, (slot, height, width, channel); uint8 or uint16.
        rates: lines (epochs done, learning rate) by name; drawn where the rate changes.

    Returns:
        The path of report.html.
    """
    tables.write_tables(results, class_names, histories, folder / "tables")
    (folder / "figures").mkdir(parents=True, exist_ok=True)
    embedded = {}
    for name, figure in (_plots(results, class_names, histories) | _rate_plot(rates or {})).items():
        embedded[name] = embed(figure, save(figure, folder / "figures" / f"{name}.png"))
    for name, figure in _picture_plots(results, class_names, pictures).items():
        save(figure, folder / "figures" / f"{name}.png")
    path = folder / "report.html"
    path.write_text(_page(results, facts, class_names, pictures, embedded), encoding="utf-8")
    return path


def _plots(results: Results, class_names: Sequence[str], histories: Sequence[History]) -> dict[str, Figure]:
    """The figures inside the page; those without anything to show are left out."""
    found: dict[str, Figure] = {}
    kept = [member.best_epoch if member.status == "finished" else None for member in results.members]
    out_of_fold = results.out_of_fold.accuracy if results.out_of_fold else None
    if any(histories):
        found["learning_loss"] = plots.loss_curves(histories, kept)
    if any(line.get("validation_accuracy") is not None for history in histories for line in history):
        found["learning_accuracy"] = plots.accuracy_curves(histories, kept, out_of_fold, _images_held_out(results))
    sizes = {"test": results.size_curve_test, "out of fold": results.size_curve_out_of_fold}
    curves = {name: points for name, points in sizes.items() if len(points) > 1}
    if curves:
        found["size_accuracy"], found["size_loss"] = plots.size_accuracy(curves), plots.size_loss(curves)
    if judged := tables.headline_scores(results):
        part, judgement = judged
        scores = [member.test if part == "test" else member.validation for member in results.members]
        members = [score.accuracy for score in scores if score]
        interval = judgement.accuracy_interval
        title = "Accuracy on the test images" if part == "test" else "Accuracy on held-out training images"
        found["headline"] = plots.member_accuracies(members, judgement.accuracy, interval, title)
        found["confusion"] = plots.confusion(judgement.confusion, class_names)
        found["confused_pairs"] = plots.pairs(tables.confused_pairs(judgement, class_names))
        found["classes"] = plots.classes(judgement.classes)
        found["reliability"] = plots.reliability(tables.reliability_rows(judgement))
    if results.agreement and len(results.agreement.matrix) >= FEWEST_IN_MATRIX:
        found["agreement"] = plots.agreement(results.agreement.matrix, tables.agreement_labels(results))
    return found


def _rate_plot(rates: Mapping[str, Sequence[tuple[float, float]]]) -> dict[str, Figure]:
    """The schedule, where there is something to see."""
    changes = any(len({rate for _, rate in line}) > 1 for line in rates.values())
    return {"learning_rate": plots.rates(rates)} if changes else {}


def _images_held_out(results: Results) -> int:
    """The most images that a held-out accuracy rests on."""
    judged = [member.validation.images for member in results.members if member.validation]
    return max([*judged, results.out_of_fold.images if results.out_of_fold else 0]) or 5_000


def _picture_plots(
    results: Results, class_names: Sequence[str], pictures: Mapping[str, NDArray[Any]]
) -> dict[str, Figure]:
    """The figures whose images the page shows in its own way."""
    found: dict[str, Figure] = {}
    if "samples" in pictures and "class_means" in pictures:
        found["samples"] = image_plots.samples_and_means(pictures["samples"], pictures["class_means"], class_names)
        found["class_means"] = image_plots.class_means(pictures["class_means"], class_names)
    for gallery in results.galleries:
        if gallery.pictures:
            found[f"{gallery.part}_{gallery.name}"] = image_plots.gallery(gallery, pictures[gallery.part], class_names)
    return found


def embed(figure: Figure, path: Path) -> dict[str, Any]:
    """A saved figure for the page: its address and its size in the page's pixels."""
    width, height = figure.get_size_inches()
    uri = "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()
    return {"uri": uri, "width": round(100 * width), "height": round(100 * height)}


def _page(
    results: Results,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    pictures: Mapping[str, NDArray[Any]],
    embedded: Mapping[str, Any],
) -> str:
    drawn = {name: plot for name, plot in embedded.items() if name != "confused_pairs"}
    spare = LARGEST - sum(len(plot["uri"]) for plot in drawn.values()) - 2_000 * len(class_names) - 500_000
    samples, galleries = _pictures(results, facts, class_names, pictures, max(spare, 200_000))
    rows = tables.summary_rows(results)
    columns = tables.shown_columns(rows)
    judged = tables.headline_scores(results)
    part, head = judged if judged else ("", None)
    context = {
        "css": css(),
        "facts": {
            "dataset": {},
            "title": "A committee",
            **facts,
            "command": shown_command(str(facts.get("command", ""))),
        },
        "results": results,
        "plots": drawn,
        "sealed": results.test is None,
        "failed": [member for member in results.members if member.status == "failed"],
        "remarks": any(member.remark for member in results.members),
        "head": head
        and {
            **{name: getattr(head, name) for name in type(head).model_fields},
            "part": part,
            "where": "test images" if part == "test" else "training images, out of fold",
            "low": head.accuracy_interval.low,
            "high": head.accuracy_interval.high,
        },
        "guessing": sentences.guessing(head, class_names) if head else {},
        "undrawn": sentences.undrawn(class_names),
        "reductions": facts.get("lr_reductions", ()),
        "key": _key(results),
        "protocol": sentences.protocol(results, facts),
        "gain": "" if head and tables.no_better_than_guessing(head) else sentences.gain(results),
        "columns": columns,
        "summary": [{"kind": row.kind, "cells": [tables.cell(row, field) for field, _ in columns]} for row in rows],
        "pairs": tables.confused_pairs(head, class_names) if head else (),
        "galleries": galleries,
        "samples": samples,
        "more_classes": max(0, len(class_names) - len(samples)),
        "data_sentence": sentences.data_sentence(facts.get("dataset", {}), class_names),
        "settings": settings(facts.get("recipe", {})),
        "environment": [(words(name), spell(value)) for name, value in facts.get("environment", {}).items()],
        "digests": _digests(facts),
        "contents": _contents(results, bool(galleries), "size_accuracy" in embedded),
    }
    return templates().get_template("report.html").render(context)


def templates() -> jinja2.Environment:
    """The page templates, with the filters that they use."""
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_HERE), autoescape=True, undefined=jinja2.ChainableUndefined, trim_blocks=True
    )
    environment.filters |= {
        "percent": percent,
        "percent_or_nothing": lambda value: NOTHING if value is None else percent(value),
        "chance": lambda value: percent(value, 1),
        "number": lambda value: f"{value:,}",
        "duration": duration,
        "short": short,
        "sentence": lambda text: f"{text[:1].upper()}{text[1:].rstrip('.')}.",
        "moment": lambda value: value.replace("T", " ").replace("+00:00", " UTC"),
    }
    return environment


def css() -> Markup:
    """The style of all pages."""
    return Markup((_HERE / "style.css").read_text(encoding="utf-8"))


def _contents(results: Results, galleries: bool, sizes: bool) -> list[tuple[str, str]]:
    judged = tables.headline_scores(results) is not None
    every = [
        ("protocol", "How it was judged", True),
        ("members", "The members", True),
        ("size", "How many are enough", sizes),
        ("errors", "What is taken for what", judged),
        ("galleries", "Worth looking at", galleries),
        ("confidence", "Its probabilities", judged),
        ("disagreement", "Where members differ", results.agreement is not None),
        ("data", "The images", True),
        ("record", "The record", True),
    ]
    return [(key, name) for key, name, there in every if there]


def _key(results: Results) -> list[dict[str, str]]:
    """The few figures under the headline."""
    items = []
    if results.test and results.out_of_fold:
        remark = f"{results.out_of_fold.images:,} training images, each judged by members that did not train on it"
        items.append({"name": "out of fold", "value": percent(results.out_of_fold.accuracy), "remark": remark})
    finished = [member for member in results.members if member.status == "finished"]
    scores = [score.accuracy for member in finished if (score := member.test or member.validation)]
    where = "test images" if results.test else "their held-out images"
    if len(scores) > 1:
        spread = f"lowest {percent(min(scores))}, highest {percent(max(scores))}"
        mean = percent(sum(scores) / len(scores))
        items.append({"name": f"{len(scores)} members, mean on {where}", "value": mean, "remark": spread})
    if judged := tables.headline_scores(results):
        loss = f"{judged[1].log_loss:.4f} nats"
        error = f"calibration error {percent(judged[1].calibration_error)}"
        items.append({"name": "log-loss", "value": loss, "remark": error})
    total = f"{duration(results.seconds_total)} with judging"
    items.append({"name": "training time", "value": duration(results.seconds_training), "remark": total})
    return items


def _pictures(
    results: Results,
    facts: Mapping[str, Any],
    class_names: Sequence[str],
    pictures: Mapping[str, NDArray[Any]],
    budget: int,
) -> tuple[list[dict[str, str]], list[tuple[str, list[dict[str, Any]]]]]:
    """Samples of each class, and the galleries by part, their images as data addresses within the budget."""
    images: list[NDArray[Any]] = []
    places: dict[tuple[str, int], int] = {}
    shown = min(CLASSES_SHOWN, len(class_names)) if "samples" in pictures and "class_means" in pictures else 0
    if shown:
        rows = strips(displayable(pictures["samples"][:shown]))
        for number, (mean, strip) in enumerate(zip(displayable(pictures["class_means"][:shown]), rows, strict=True)):
            places["mean", number], places["strip", number] = len(images), len(images) + 1
            images += [mean, strip]
    for part in dict.fromkeys(gallery.part for gallery in results.galleries):
        for slot, image in enumerate(displayable(pictures[part])):
            places[part, slot] = len(images)
            images.append(image)
    uris = data_uris(images, budget)
    counts = facts.get("dataset", {}).get("counts", {})
    samples = []
    for number, name in enumerate(class_names[:shown]):
        count = counts.get(name, {}).get("train") if isinstance(counts, Mapping) else None
        mean, strip = uris[places["mean", number]], uris[places["strip", number]]
        samples.append({"name": name, "mean": mean, "strip": strip, "counts": "" if count is None else f"{count:,}"})
    galleries: dict[str, list[dict[str, Any]]] = {}
    for gallery in results.galleries:
        where = "test images" if gallery.part == "test" else "training images, judged out of fold"
        tiles = [
            tile(
                picture,
                gallery,
                class_names,
                uris[places[gallery.part, picture.slot]],
                images[places[gallery.part, picture.slot]].shape,
            )
            for picture in gallery.pictures
        ]
        galleries.setdefault(where, []).append(
            {"id": f"{gallery.part}-{gallery.name}", "title": gallery.title, "remark": gallery.remark, "tiles": tiles}
        )
    return samples, list(galleries.items())


def tile(
    picture: Picture, gallery: Gallery, class_names: Sequence[str], uri: str, shape: tuple[int, ...]
) -> dict[str, Any]:
    """A picture as the templates show it, enlarged by a whole factor where it is small."""
    height, width = shape[:2]
    scale = max(1, 100 // max(height, width)) if max(height, width) <= 100 else 100 / max(height, width)
    true, predicted = class_names[picture.true], class_names[picture.predicted]
    where = f"{'test' if gallery.part == 'test' else 'training'} image {picture.position:,}"
    where += f": {picture.name}" if picture.name else ""
    return {
        "uri": uri,
        "width": round(scale * width),
        "height": round(scale * height),
        "enlarged": scale > 1,
        "where": where,
        "file": (picture.name or "").rpartition("/")[2],
        "alt": f"{where}, of class {true}, taken for {predicted}",
        "true": true,
        "predicted": predicted,
        "is_right": picture.true == picture.predicted,
        "p_true": picture.probability_true,
        "p_predicted": picture.probability_predicted,
        "dissenters": picture.dissenters,
        "members": picture.members,
    }


def _digests(facts: Mapping[str, Any]) -> list[tuple[str, str]]:
    dataset = facts.get("dataset", {})
    every = [
        ("all images", dataset.get("digest")),
        ("training images", dataset.get("train_digest")),
        ("test images", dataset.get("test_digest")),
        ("recipe", facts.get("recipe_digest")),
        ("seed", facts.get("seed")),
    ]
    return [(name, str(value)) for name, value in every if value is not None]
