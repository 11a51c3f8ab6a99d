"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from committee import __version__
from committee.cli import audit, card, distil, ends, export, inspect, plan, prepare, serving, studies, tuning, using
from committee.cli.options import (
    Group,
    RecipeOptions,
    TrainingOptions,
    example,
    folder_type,
    json_option,
    recipe_options,
    run_type,
    seconds,
    training_options,
)
from committee.errors import CommitteeError, counted
from committee.names import file_name
from committee.terminal import say

if TYPE_CHECKING:
    from committee.config.recipe import Recipe
    from committee.data.dataset import ImageDataset
    from committee.folders.run_folder import RunFolder
    from committee.training.plan import TrainingPlan
    from committee.training.setting import Setting


@click.group(cls=Group)
@click.version_option(__version__, prog_name="committee")
@example("committee train mnist-5k")
def main() -> None:
    """Turn small labelled images into an honest committee of small convolutional networks."""


for command in (
    *(studies.study, studies.grid, studies.pseudo_labels, studies.studies),
    *(using.predict, using.evaluate, using.compare, using.bundle, using.verify, using.report),
    distil.distil,
    *(tuning.tune, tuning.spaces),
    *(inspect.data, inspect.recipes, inspect.models),
    export.export,
    serving.serve,
    card.card,
    audit.audit,
    plan.plan,
):
    main.add_command(command)
inspect.data.add_command(prepare.data_prepare)


@main.command()
@click.argument("data")
@recipe_options
@training_options
@click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="Wall-clock time for all of it, such as 90s, 10m, 1h30m: picks members and epochs by this machine's speed, at "
    "most 20 members of 60 epochs; --members or --epochs may fix one of them.",
)
@click.option(
    "--out",
    type=folder_type,
    help="The run folder.  [default: runs/DATA-RECIPE-seedS, or runs/DATA-corrected-RECIPE-seedS with --labels; with "
    "-2, -3, ... if that folder exists]",
)
@click.option("--from", "continued", type=run_type, help="Continue from this finished run, for --epochs more epochs.")
@click.option("--keep-sealed", is_flag=True, help="Do not open the test images; committee evaluate can later.")
@click.option(
    "--log",
    "trackers",
    multiple=True,
    type=click.Choice(["mlflow", "tensorboard", "trackio"]),
    help="Tell a tracker of the training, too: parameters, epochs, results. It keeps them beside the run folder. "
    "Changes no result; may be given more than once.",
)
@json_option
@example(
    "committee train mnist-5k\n"
    "committee train photos/ --members 10 --epochs 20 --out runs/photos\n"
    "committee train photos/ --budget 10m\n"
    "committee train mnist --recipe ensemble-cnn --set training.patience=10"
)
def train(
    data: str,
    recipe_options: RecipeOptions,
    training_options: TrainingOptions,
    budget: float | None,
    out: Path | None,
    continued: Path | None,
    keep_sealed: bool,
    trackers: Sequence[str],
    as_json: bool,
) -> None:
    """Train a committee on DATA: a data set's name or a path.

    The same command again continues where it stopped: members that are finished are kept. DATA may be a folder of class
    folders, images with a table of labels, IDX, NPY, NPZ, MATLAB, LIBSVM, CSV, Parquet or Arrow files, CIFAR's binary
    files, or a zip of any of these; without a test part, a fifth of the images is set aside.

    With --budget, the first seconds measure this machine's speed; members and epochs are chosen so that everything, the
    report included, is done in that time. A member that would be late because the machine became slower is left out.

    The environment variable COMMITTEE_CPU=avx2 (or avx512, avx512bf16, amx, neon, neonbf16, torch) chooses among the
    kernels that the processor has; without it the fastest are taken.

    Where a member is left out, the exit code is 3. One whose process was killed three times is trained by the same
    command, which then opens the test images; until then they stay sealed.
    """
    from committee.cli import progress
    from committee.folders.run_folder import RunFolder, free_folder
    from committee.runs.run import train_plan
    from committee.runs.trackers import tracked
    from committee.training.plan import plan_training

    began, before = time.monotonic(), None
    if continued is not None:
        if budget is not None:
            raise CommitteeError("--from trains for --epochs more epochs and takes no --budget; give one of the two")
        before = RunFolder.finished(continued)
        training_options = replace(training_options, seed=before.identity.seed)
    recipe, dataset = recipe_options.load(before), training_options.load(data)
    setting = training_options.setting(data)
    stem = run_stem(dataset.name, recipe.name, corrected=training_options.read_options.labels is not None)
    name, deadline = f"{stem}-seed{setting.seed}", math.inf
    if budget is not None:
        name = f"{stem}-{budget:.0f}s-seed{setting.seed}"
        folder = RunFolder(out or Path("runs") / name)
        recipe, setting, deadline = within(budget, began, dataset, recipe_options, setting, folder)
    plan = plan_training(dataset, recipe, setting, continued=before)
    folder = RunFolder(out) if out else free_folder(Path("runs"), name, plan.identity)
    folder.check_free(plan.identity)
    finished = folder.is_finished
    if finished:
        RunFolder.finished(folder.path)  # compared with its manifest before anything is said of it
    missing = plan.missing(folder)
    if finished and not missing:
        say(f"{folder} already holds this training; showing its results.", err=True)
    else:
        say(*announcement(plan, folder), err=True)
        ends.note_missing_kernels(plan.setting.device)
    epochs = recipe.training.epochs
    work = {("", member): (epochs, 1.0) for member in missing}

    def kept() -> str:
        members, unfinished = recipe.committee.members, plan.missing(folder)
        under_way = sum(folder.member(member).has_begun for member in unfinished)
        return ends.kept(members - len(unfinished), under_way, members, "members", folder.path)

    def note(text: str) -> None:
        say(f"Note: {text}", err=True)

    with (
        ends.told_how_to_go_on(kept),
        tracked(trackers if missing or not finished else (), plan, folder, note) as tell,
        progress.monitor(work, may_stop_early=recipe.training.patience > 0) as monitor,
    ):
        on_event = progress.to_all(monitor, tell)
        train_plan(plan, folder, keep_sealed=keep_sealed, deadline=deadline, on_event=on_event)
    using.show(folder, as_json)
    if not folder.manifest.is_complete:
        raise SystemExit(ends.INCOMPLETE)


def run_stem(data: str, recipe: str, *, corrected: bool) -> str:
    """What a run folder's name begins with: the data, whether their labels are corrected (--labels), the recipe."""
    return f"{file_name(data)}{'-corrected' if corrected else ''}-{file_name(recipe)}"


def within(
    budget: float, began: float, dataset: ImageDataset, options: RecipeOptions, setting: Setting, folder: RunFolder
) -> tuple[Recipe, Setting, float]:
    """What a budget allows: the recipe with members and epochs, the setting with the command that repeats the run, and
    the deadline.
    """
    from committee.runs.budget import end_seconds, plan_budget

    left = budget - (time.monotonic() - began)
    say(f"Budget {budget:.0f} seconds: planning for this machine ...", err=True)
    plan = plan_budget(
        dataset, options.load(), left, setting, members=options.members, epochs=options.epochs, run=folder
    )
    say(plan.note, err=True)
    numbers = f"--members {plan.recipe.committee.members} --epochs {plan.recipe.training.epochs}"
    given = re.compile(r"--budget[ =]\S+")  # how long it takes depends on the machine, these numbers do not
    planned = f"{given.sub(numbers, setting.command)}  # planned for --budget {budget:.0f}s"
    repeatable = replace(setting, command=planned)
    return plan.recipe, repeatable, began + budget - end_seconds(len(dataset.train))


def announcement(plan: TrainingPlan, folder: RunFolder) -> list[str]:
    """What is about to be trained, in two lines, and remarks on the data."""
    from committee.data.check import quick_notes

    dataset, recipe, setting = plan.dataset, plan.recipe, plan.setting
    height, width, channels = dataset.image_shape
    members, epochs = counted(recipe.committee.members, "member"), counted(recipe.training.epochs, "epoch")
    kernels = f" ({setting.kernels()})" if setting.device == "cpu" else ""
    nodes = setting.environment().nodes
    placed = f" on {counted(len(nodes), 'node')} of a Ray cluster" if setting.cluster else ""
    return [
        f"{dataset.name}: {len(dataset.train):,} training images, {len(dataset.test):,} sealed test images, "
        f"{len(dataset.class_names)} classes, {height}x{width}x{channels} ({dataset.source})",
        *(f"Note: {note}" for note in (*dataset.notes, *quick_notes(dataset))),
        f"Recipe {recipe.name}: {members}, {epochs}{' at most' * (recipe.training.patience > 0)}, on "
        f"{setting.device}{kernels} in {setting.precision}, {setting.workers} at a time{placed}",
        f"Folder: {folder}",
    ]
