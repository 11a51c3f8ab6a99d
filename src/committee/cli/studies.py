"""The commands that train more than one committee: study, grid, pseudo-labels, and studies list, show, check."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click

from committee.cli import ends
from committee.cli.options import (
    Decorator,
    Group,
    RecipeOptions,
    TrainingOptions,
    changes_option,
    example,
    folder_type,
    json_option,
    recipe_options,
    together,
    training_options,
)
from committee.errors import RecipeError
from committee.names import file_name
from committee.terminal import say, show

if TYPE_CHECKING:
    from committee.config.study import Study
    from committee.studies.run import Form


def study_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that trains a study."""
    options: list[Decorator] = [
        click.option(
            "--seeds",
            type=click.IntRange(1),
            help="Repeats of every row, committees too.  [default: the study's own; 3 for a grid]",
        ),
        training_options,
        click.option("--keep-sealed", is_flag=True, help="Do not open the test images; compare on validation images."),
        json_option,
    ]
    return together(options, function)


@click.command()
@click.argument("study")
@click.option("--data", help="A data set's name or a path.  [default: the data of the published figures]")
@click.option("--quick", is_flag=True, help="Fewer images, repeats and members: a few minutes on mnist-5k.")
@click.option(
    "--protocol",
    type=click.Choice(["honest", "published"]),
    default="honest",
    show_default=True,
    help="published: choices on the test images where the write-up made them so.",
)
@click.option("--transductive", is_flag=True, help="Give pseudo-labels to the test images; every output says so.")
@study_options
@click.option("--out", type=folder_type, help="The study's folder.  [default: runs/DATA-study-STUDY-seedS]")
@example(
    "committee study ladder --data mnist-5k --quick\n"
    "committee study conv-committee --data mnist\n"
    "committee study mine.toml --data photos/ --seeds 5"
)
def study(
    study: str,
    data: str | None,
    quick: bool,
    protocol: Literal["honest", "published"],
    transductive: bool,
    training_options: TrainingOptions,
    seeds: int | None,
    keep_sealed: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Train the rows of STUDY (a shipped one or a TOML file) and compare them in one table and page.

    The same command again continues where it stopped; members that are finished are kept. committee studies list
    names the shipped studies.
    """
    from committee.config.study import load
    from committee.studies.run import Form

    declared = load(study)
    if not (data or declared.published_data):
        raise RecipeError(f"study {declared.name} names no published_data; say what to train on with --data")
    form = Form(seeds, quick, protocol, transductive, keep_sealed)
    run_study(declared, data or declared.published_data, out, form, training_options, as_json)


@click.command()
@click.argument("data")
@click.option("--recipe", default="standard", show_default=True, help="A shipped recipe or a TOML file.")
@click.option(
    "--vary", "axes", multiple=True, required=True, metavar="SECTION.FIELD=VALUE,VALUE", help="An axis of the grid."
)
@changes_option
@study_options
@click.option("--out", type=folder_type, help="The grid's folder.  [default: runs/DATA-study-grid-RECIPE-seedS]")
@example(
    "committee grid mnist-5k --vary optimiser.lr=0.001,0.003,0.01 --vary training.batch_size=32,64\n"
    "committee grid photos/ --recipe mine.toml --vary augmentation.rotation=0,10,20 --seeds 5"
)
def grid(
    data: str,
    recipe: str,
    axes: Sequence[str],
    changes: Sequence[str],
    training_options: TrainingOptions,
    seeds: int | None,
    keep_sealed: bool,
    as_json: bool,
    out: Path | None,
) -> None:
    """Train every combination of recipe fields on DATA; the best is chosen by validation accuracy.

    A cell is one network, repeated with --seeds. A warning says which other cells may be as good as the best.
    """
    from committee.config import recipe_parsing as recipes
    from committee.studies.grid import study_of
    from committee.studies.run import Form

    form = Form(seeds, keep_sealed=keep_sealed)
    run_study(study_of(recipes.load(recipe, changes), axes), data, out, form, training_options, as_json)


@click.command("pseudo-labels")
@click.argument("data")
@click.option(
    "--unlabelled", type=click.Path(path_type=Path, exists=True), multiple=True, help="Images without labels."
)
@click.option("--held-back", type=click.FloatRange(0, 1, True, True), help="Hide the labels of this fraction of DATA.")
@click.option("--transductive", is_flag=True, help="Label the test images; every output says so.")
@recipe_options
@training_options
@click.option(
    "--out", type=folder_type, help="The folder of all rounds.  [default: runs/DATA-RECIPE-pseudo-labels-seedS]"
)
@click.option("--keep-sealed", is_flag=True, help="Do not open the test images; rounds are compared out of fold.")
@json_option
@example(
    "committee pseudo-labels photos/ --unlabelled more-photos/\n"
    "committee pseudo-labels mnist-5k --held-back 0.5 --set pseudo_labels.rounds=2"
)
def pseudo_labels(
    data: str,
    unlabelled: tuple[Path, ...],
    held_back: float | None,
    transductive: bool,
    recipe_options: RecipeOptions,
    training_options: TrainingOptions,
    out: Path | None,
    keep_sealed: bool,
    as_json: bool,
) -> None:
    """Self-training: train a committee on DATA, let it label images without labels, and train again with these.

    The images without labels are a folder (--unlabelled), a part of DATA whose labels are hidden (--held-back), or the
    test images (--transductive). An audit part of DATA is kept out of training and shows how many of the pseudo-labels
    are right; below pseudo_labels.min_precision nothing more is trained. OUT/round-0, OUT/round-1, ... are runs with
    reports. Where one of them lacks members, the exit code is 3.
    """
    from committee.cli import progress, tables
    from committee.data.to_classify import read_images
    from committee.folders.study_folder import SelfTrainingFolder
    from committee.studies import self_training

    recipe, dataset = recipe_options.load(), training_options.load(data)
    pixels, names = None, None
    if unlabelled:
        images = read_images(
            list(unlabelled),
            image_shape=dataset.image_shape,
            pixel_range=dataset.pixel_range,
            value_range=dataset.value_range,
        )
        for note in images.noted(skip_unreadable=training_options.read_options.skip_unreadable):
            say(f"Note: {note}", err=True)
        names, pixels = images.names, images.pixels
    setting = replace(training_options.setting(data), reload=None)
    ends.note_missing_kernels(setting.device)
    name = f"{file_name(dataset.name)}-{file_name(recipe.name)}-pseudo-labels-seed{setting.seed}"
    path = out or Path("runs") / name
    folder = SelfTrainingFolder(path)
    source = self_training.Source(unlabelled=pixels, names=names, held_back=held_back, transductive=transductive)

    def monitor(number: int) -> progress.Monitor:
        members, epochs = recipe.committee.members, recipe.training.epochs
        say(f"Round {number}: {members} members into {folder.round(number)}", err=True)
        work = {("", member): (epochs, 1.0) for member in range(members)}
        return progress.monitor(work, may_stop_early=recipe.training.patience > 0)

    def kept() -> str:
        rounds, members = recipe.pseudo_labels.rounds + 1, recipe.committee.members
        runs = [folder.round(number) for number in range(rounds)]
        each = [run.member(member) for run in runs for member in range(members)]
        under_way = sum(member.has_begun for member in each if not member.is_done)
        return ends.kept(sum(member.is_done for member in each), under_way, len(each), "members", path)

    with ends.told_how_to_go_on(kept):
        found = self_training.train_rounds(
            dataset, recipe, path, setting, source, keep_sealed=keep_sealed, monitor=monitor
        )
    if as_json:
        say(json.dumps({"folder": str(path), **found.model_dump(mode="json")}))
    else:
        tables.show_self_training(found)
        say(f"Reports: {', '.join(str(folder.round(each.round).report) for each in found.rounds)}")
    if not all(folder.round(each.round).manifest.is_complete for each in found.rounds):
        raise SystemExit(ends.INCOMPLETE)


def run_study(study: Study, data: str, out: Path | None, form: Form, options: TrainingOptions, as_json: bool) -> None:
    """Run a study to its end and show it."""
    from committee.cli import progress, tables
    from committee.studies.run import folder_name, prepare, run_prepared, work

    dataset, setting = options.load(data), options.setting(data)
    folder = out or Path("runs") / folder_name(study, dataset, form, setting.seed)
    prepared = prepare(study, dataset, folder, setting, form)
    missing = work(prepared)
    total = sum(model.members for model in prepared.plan.models)
    for warning in prepared.warnings:
        say(warning, err=True)
    say(
        f"{study.title}, on {dataset.name}: {len(prepared.plan.rows)} rows from {len(prepared.plan.models)} models, "
        f"{total} trainings, {len(missing) if len(missing) < total else 'all'} of them still to do",
        f"Folder: {folder}",
        err=True,
    )
    ends.note_missing_kernels(setting.device)

    def kept() -> str:
        unfinished = work(prepared)
        trained = prepared.training.folder
        under_way = sum(trained.model(name).member(member).has_begun for name, member in unfinished)
        return ends.kept(total - len(unfinished), under_way, total, "trainings", folder)

    with ends.told_how_to_go_on(kept), progress.monitor(missing, may_stop_early=False, whole="study") as monitor:
        results = run_prepared(prepared, monitor)
    page = prepared.training.folder.page
    if as_json:
        say(json.dumps({"study": str(folder), "page": str(page), **results.model_dump(mode="json")}))
        return
    tables.show_study(results)
    say(f"Page: {page}")


@click.group(cls=Group)
@example("committee studies list")
def studies() -> None:
    """List, show and check studies: the shipped ones, and files of your own."""


@studies.command("list")
@example("committee studies list")
def studies_list() -> None:
    """The shipped studies."""
    from committee.config import study as all_studies
    from committee.config.toml_files import shipped

    for name in shipped("study"):
        say(f"{name:16} {all_studies.load(name).summary}")


@studies.command("show")
@click.argument("study")
@example("committee studies show ladder > mine.toml")
def studies_show(study: str) -> None:
    """Print STUDY, a shipped one or a file, as TOML."""
    from committee.config.toml_files import text_of

    show(text_of("study", study)[0])


@studies.command("check")
@click.argument("study")
@example("committee studies check mine.toml")
def studies_check(study: str) -> None:
    """Check STUDY and all its recipes; say what it would train."""
    from committee.config.study import load
    from committee.studies.plan import plan

    planned = plan(load(study))
    for model in planned.models:
        say(f"{model.name}: {model.members} trainings of {model.recipe.training.epochs} epochs")
    say(f"{planned.study.name} is valid: {len(planned.rows)} rows")
