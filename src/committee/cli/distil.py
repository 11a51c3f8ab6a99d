"""The command distil: a committee's answers -> one network that gives nearly the same at a member's cost."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from committee.cli import ends, using
from committee.cli.options import (
    RecipeOptions,
    TrainingOptions,
    changes_option,
    example,
    folder_type,
    json_option,
    run_argument,
    training_options,
)
from committee.errors import counted
from committee.names import file_name
from committee.terminal import console, say

if TYPE_CHECKING:
    from committee.config.recipe import Recipe
    from committee.data.dataset import ImageDataset
    from committee.folders.run_folder import RunFolder


@click.command()
@run_argument
@click.argument("data", required=False)
@click.option("--recipe", help="The student's network and training.  [default: RUN's own recipe]")
@click.option("--epochs", type=click.IntRange(1), help="Epochs of the student.  [default: twice the recipe's]")
@changes_option
@click.option(
    "--temperature",
    type=click.FloatRange(0.1, 100),
    default=2.0,
    show_default=True,
    help="Softens the committee's and the student's probabilities in the loss.",
)
@click.option(
    "--weight",
    type=click.FloatRange(0, 1),
    default=0.5,
    show_default=True,
    help="Of the committee's answers in the loss; the labels have the rest.",
)
@training_options
@click.option("--out", type=folder_type, help="The student's folder.  [default: RUN-student-seedS, beside RUN]")
@click.option(
    "--keep-sealed",
    is_flag=True,
    help="Do not open the student's test images; committee evaluate can later, and the same command then compares.",
)
@json_option
@example("committee distil runs/mnist-5k-standard-seed0\ncommittee distil RUN --set network.widths=[16,32,32]")
def distil(
    run: Path,
    data: str | None,
    recipe: str | None,
    epochs: int | None,
    changes: tuple[str, ...],
    temperature: float,
    weight: float,
    training_options: TrainingOptions,
    out: Path | None,
    keep_sealed: bool,
    as_json: bool,
) -> None:
    """Train one network, the student, with the answers of RUN's committee.

    The student is a run of one member: predict, evaluate, compare, bundle and report take it. It trains on all training
    images, and each of them, randomly changed or not, is judged only by the members that did not train on it. The table
    at the end compares committee, best member and student in accuracy, size and speed; the test images are opened for
    it if RUN's are open.

    DATA says where the data set is now, if it was moved or RUN was trained from Python. The same command again
    continues where it stopped.
    """
    from committee.cli import progress, tables
    from committee.folders.run_folder import RunFolder, free_folder
    from committee.runs import distillation

    teacher = RunFolder.finished(run)
    dataset, training_options = dataset_of(teacher, data, training_options)
    setting = training_options.setting(dataset[0])
    student = student_recipe(teacher, recipe, epochs, changes)
    plan = distillation.plan_distillation(teacher, dataset[1], student, setting, temperature=temperature, weight=weight)
    beside = run.resolve()
    name = f"{file_name(beside.stem if beside.is_file() else beside.name)}-student-seed{setting.seed}"
    folder = RunFolder(out) if out else free_folder(beside.parent, name, plan.identity)
    folder.check_free(plan.identity)
    missing = plan.missing(folder)
    if missing:
        say(
            f"Teacher: {counted(len(teacher.committee.members), 'member')} of {run}",
            f"Student: {counted(student.training.epochs, 'epoch')} of recipe {student.name}, on {plan.setting.device}",
            f"Folder: {folder}",
            err=True,
        )
        ends.note_missing_kernels(plan.setting.device)
    else:
        say(f"{folder} already holds this student; showing its results.", err=True)
    work = {("", member): (student.training.epochs, 1.0) for member in missing}

    def kept() -> str:
        begun = sum(folder.member(member).has_begun for member in plan.missing(folder))
        return ends.kept(1 - len(plan.missing(folder)), begun, 1, "members", folder.path)

    with ends.told_how_to_go_on(kept), progress.monitor(work, may_stop_early=False, whole="student") as monitor:
        results = distillation.distil(teacher, plan, folder, keep_sealed=keep_sealed, on_event=monitor)
    folder = RunFolder(folder.path)
    assert results.distillation is not None
    if as_json:
        compared = results.distillation.model_dump(mode="json")
        say(json.dumps({"run": str(folder), "report": str(folder.report), "distillation": compared}))
        return
    using.show(folder, as_json=False)
    say("")
    console().print(tables.student_table(results.distillation))
    for line in tables.student_lines(results.distillation):
        say(line)
    ends.note_missing_members(run)


def dataset_of(
    teacher: RunFolder, data: str | None, options: TrainingOptions
) -> tuple[tuple[str, ImageDataset], TrainingOptions]:
    """The teacher's data set with the name or path that loads it, read as for the teacher's training where nothing is
    said; and the options that read it so.

    Raises:
        RunError: neither DATA nor the run says where it is.
    """
    from committee.runs.reloading import source_of

    source = source_of(teacher, data, options.data_dir)
    if teacher.data.reload is not None:
        known = Path(source.data_dir) if source.data_dir else None
        options = replace(options, data_dir=known, read_options=source.options)
    return (source.data, options.load(source.data)), options


def student_recipe(teacher: RunFolder, recipe: str | None, epochs: int | None, changes: tuple[str, ...]) -> Recipe:
    """The student's recipe: the given one or its teacher's, as one member without a hold-out, then the changes."""
    from committee.runs.distillation import student_changes

    given = RecipeOptions(recipe, None, None, mirror=False, changes=())
    own = student_changes(given.load(None if recipe else teacher))
    return replace(given, epochs=epochs, changes=(*own, *changes)).load(None if recipe else teacher)
