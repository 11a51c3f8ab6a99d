"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import click

from committee import __version__
from committee.cli import inspect, studies
from committee.cli.options import (
    Group,
    chosen_recipe,
    command_line,
    data_dir_option,
    device_option,
    example,
    folder_type,
    json_option,
    recipe_options,
    run_argument,
    seconds,
    training_options,
)
from committee.errors import CommitteeError, counted


@click.group(cls=Group)
@click.version_option(__version__, prog_name="committee")
@example("committee train mnist-5k")
def main() -> None:
    """Turn small labelled images into an honest committee of small convolutional networks."""


for command in (
    *(studies.study, studies.grid, studies.pseudo_labels, studies.studies),
    *(inspect.data, inspect.recipes, inspect.models),
):
    main.add_command(command)


# --- train ------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("data")
@recipe_options
@training_options
@click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="Wall-clock time for all of it, such as 90s, 10m, 1h30m: picks members and epochs by this machine's speed; "
    "--members or --epochs may fix one of them.",
)
@click.option(
    "--out",
    type=folder_type,
    help="The run folder.  [default: runs/DATA-RECIPE-seedS, with -2, -3, ... where others of this name lie]",
)
@click.option("--from", "continued", type=folder_type, help="Go on from this finished run, for --epochs more epochs.")
@click.option("--keep-sealed", is_flag=True, help="Do not open the test images; committee evaluate can later.")
@json_option
@example(
    "committee train mnist-5k\n"
    "committee train photos/ --members 10 --epochs 20 --out runs/photos\n"
    "committee train photos/ --budget 10m\n"
    "committee train mnist --recipe ensemble-cnn --set training.patience=10"
)
def train(
    data: str,
    recipe: str | None,
    members: int | None,
    epochs: int | None,
    mirror: bool,
    changes: Sequence[str],
    seed: int,
    workers: int,
    device: str,
    precision: str,
    data_dir: Path | None,
    image_size: int | None,
    budget: float | None,
    out: Path | None,
    continued: Path | None,
    keep_sealed: bool,
    as_json: bool,
) -> None:
    """Train a committee on DATA: a catalogue name or a path.

    The same command again goes on where it stopped: members that are finished are kept. DATA may be a folder of class
    folders, IDX files, NPZ, CSV, Parquet, or a zip of any of these; without a test part, a fifth is set aside.

    With --budget, the first seconds measure this machine's speed; members and epochs are chosen so that everything, the
    report included, is done in that time. A member that a slower machine would make late is left out.
    """
    began = time.monotonic()
    from committee.cli import terminal
    from committee.data.catalog import load_dataset
    from committee.folders import files as store
    from committee.runs import budget as budgets
    from committee.runs import run as runs

    if continued is not None:
        if budget is not None:
            raise CommitteeError("--from goes on for --epochs more epochs and takes no --budget; give one of the two")
        store.verify(continued)
        recipe = recipe or str(continued / "recipe.toml")
        seed = store.read_json(continued / "identity.json")["seed"]
    chosen = chosen_recipe(recipe, members, epochs, mirror, changes)
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size)
    reload = {
        "data": data,
        "data_dir": str(data_dir.resolve()) if data_dir else None,
        "image_size": image_size,
    }
    setting = runs.Setting(seed, device, precision, workers, command_line(), tuple(reload.items()))
    name, deadline = f"{dataset.name}-{chosen.name}-seed{seed}", math.inf
    if budget is not None:
        name = f"{dataset.name}-{chosen.name}-{budget:.0f}s-seed{seed}"
        deadline = began + budget - budgets.end_seconds(len(dataset.train))
        left = budget - (time.monotonic() - began)
        run = out or Path("runs") / name
        click.echo(f"Budget {budget:.0f} seconds: planning for this machine ...", err=True)
        plan = budgets.plan(dataset, chosen, left, setting, members=members, epochs=epochs, run=run)
        click.echo(plan.note, err=True)
        chosen = plan.recipe
        numbers = f"--members {chosen.committee.members} --epochs {chosen.training.epochs}"  # give the same again
        setting = replace(setting, command=re.sub(r"--budget[ =]\S+", numbers, setting.command))
    settled = runs.settled(setting, chosen.committee.members)
    runs.checked_parts(dataset, chosen, settled)
    identity = runs.identity_of(dataset, chosen, settled, continued)
    folder = out or store.free_folder(Path("runs"), name, identity)
    missing = [m for m in range(chosen.committee.members) if not store.member_file(folder, m).exists()]
    work = {("", member): (chosen.training.epochs, 1.0) for member in missing}
    watcher = terminal.watcher(work, may_stop_early=chosen.training.patience > 0)
    store.check_free(folder, identity)
    if (folder / store.MANIFEST).exists():
        click.echo(f"{folder} already holds this training; showing its results.", err=True)
    else:
        click.echo(announcement(dataset, chosen, settled, folder), err=True)
    try:
        with watcher:
            results = runs.train(
                dataset,
                chosen,
                folder,
                setting,
                keep_sealed=keep_sealed,
                continued=continued,
                deadline=deadline,
                on_event=watcher,
            )
    except KeyboardInterrupt:
        kept = len(list(folder.glob("members/*/member.json")))
        click.echo(
            f"Interrupted; {kept} of {chosen.committee.members} members are finished and kept in {folder}. "
            "Give the same command again to go on.",
            err=True,
        )
        raise SystemExit(130) from None
    show(folder, results, as_json)


def announcement(dataset: Any, recipe: Any, setting: Any, folder: Path) -> str:
    """What is about to be trained, in two lines, and remarks on the data."""
    height, width, channels = dataset.image_shape
    members, epochs = counted(recipe.committee.members, "member"), counted(recipe.training.epochs, "epoch")
    notes = "".join(f"Note: {note}\n" for note in dataset.notes)
    return (
        f"{dataset.name}: {len(dataset.train):,} training images, {len(dataset.test):,} sealed test images, "
        f"{len(dataset.class_names)} classes, {height}x{width}x{channels} ({dataset.source})\n{notes}"
        f"Recipe {recipe.name}: {members}, {epochs}{' at most' * (recipe.training.patience > 0)}, on "
        f"{setting.device} in {setting.precision}, {setting.workers} at a time; into {folder}"
    )


def show(folder: Path, results: Any, as_json: bool) -> None:
    """The end of a training or an evaluation."""
    from rich.console import Console

    from committee.cli import terminal
    from committee.folders import files as store

    if as_json:
        manifest = store.read_manifest(folder)
        summary = {name: value for name, value in manifest.items() if name != "files"}
        click.echo(json.dumps({"run": str(folder), "report": str(folder / "report.html"), **summary}))
        return
    for mark in store.read_manifest(folder)["warnings"]:
        click.echo(mark)
    Console().print(terminal.members_table(results))
    for line in terminal.closing_lines(results):
        click.echo(line)
    click.echo(f"Report: {folder / 'report.html'}")


# --- using runs -------------------------------------------------------------------------------------------------------


@main.command()
@run_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
@device_option
@example(
    "committee predict runs/mnist-5k-standard-seed0 digit.png\n"
    "committee predict RUN images/ --format csv --out answers.csv"
)
def predict(run: Path, paths: Sequence[Path], form: str, out: Path | None, device: str) -> None:
    """Classify images with the committee of RUN.

    PATHS are image files, folders (with all below them), .npy or .npz arrays, CSV, Parquet or IDX files. Each image
    gets its class, the committee's probabilities, and the disagreement: the share of members whose own choice differs.
    """
    from committee.data.readers import read_images
    from committee.ensemble.committee import load
    from committee.runs import predictions

    committee = load(run, device=device)
    names, pixels = read_images(paths, image_shape=committee.image_shape, pixel_range=committee.pixel_range)
    predictions.write(predictions.judge(committee, names, pixels), form, out)


@main.command()
@run_argument
@click.argument("data", required=False)
@data_dir_option
@click.option("--again", is_flag=True, help="Judge again although the test images are open already.")
@json_option
@example("committee train mnist-5k --keep-sealed --out runs/a\ncommittee evaluate runs/a")
def evaluate(run: Path, data: str | None, data_dir: Path | None, again: bool, as_json: bool) -> None:
    """Judge RUN on its sealed test images.

    Do it once training and all choices are done: it opens the seal, notes that in the record, and writes the report
    anew. A run whose test images are open already is only shown, unless --again is given.

    DATA is where its data set is now, if not where it was.
    """
    from committee.data.catalog import load_dataset
    from committee.folders import files as store
    from committee.runs import run as runs
    from committee.runs.evaluation import read_results

    if store.read_manifest(run)["test_openings"] and not again:
        click.echo(f"The test images of {run} are open already; showing its results (--again judges anew).", err=True)
        show(run, read_results(run), as_json)
        return
    where = store.read_json(run / "data.json")["reload"]
    where.pop("seed", None)  # of runs from when the seed drew the test part
    where |= {"data": data} if data else {}
    where["data_dir"] = data_dir or (Path(where["data_dir"]) if where.get("data_dir") else None)
    show(run, runs.evaluate(run, load_dataset(**where)), as_json)


@main.command()
@click.argument("run_a", type=folder_type)
@click.argument("run_b", type=folder_type)
@click.option(
    "--on", type=click.Choice(["test", "out-of-fold"]), default="test", show_default=True, help="Which images."
)
@json_option
@example("committee compare runs/a runs/b")
def compare(run_a: Path, run_b: Path, on: str, as_json: bool) -> None:
    """Compare two runs on the same images.

    Prints the difference with its interval, the exact McNemar test, and a verdict in words.
    """
    from committee.runs.comparison import as_json as to_json
    from committee.runs.comparison import compare_runs, in_words

    comparison = compare_runs(run_a, run_b, on)
    click.echo(to_json(comparison) if as_json else in_words(comparison, run_a, run_b, on))


@main.command()
@run_argument
@example("committee report runs/mnist-5k-standard-seed0\ncommittee report runs/mnist-study-ladder-seed0")
def report(run: Path) -> None:
    """Write the report of RUN, or the page of a study's folder, anew.

    Tables, figures and the page come from the folder's own files; nothing is trained or opened.
    """
    from committee.folders import files as store
    from committee.runs import evaluation
    from committee.studies import run as study_run

    write = (
        study_run.write_page if "study" in store.read_manifest(run, kinds=("run", "study")) else evaluation.write_report
    )
    click.echo(f"Report: {write(run)}")
