"""The commands that train more than one committee: study, grid, pseudo-labels, and studies list, show, check."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from committee.cli.options import (
    Decorator,
    Group,
    changes_option,
    chosen_recipe,
    command_line,
    example,
    folder_type,
    json_option,
    recipe_options,
    together,
    training_options,
)
from committee.errors import RecipeError


def study_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that trains a study."""
    options: list[Decorator] = [
        click.option(
            "--seeds",
            type=click.IntRange(1),
            help="Repeats of every row, committees too.  [default: the study's own; 3 for a grid]",
        ),
        training_options,
        click.option("--keep-sealed", is_flag=True, help="Do not open the test images; judge by validation images."),
        json_option,
    ]
    return together(options, function)


@click.command()
@click.argument("study")
@click.option("--data", help="A catalogue name or a path.  [default: the data of the published figures]")
@click.option("--quick", is_flag=True, help="Fewer images, repeats and members: minutes on mnist-5k.")
@click.option(
    "--protocol",
    type=click.Choice(["honest", "published"]),
    default="honest",
    show_default=True,
    help="published: choices by the test images where the write-up did so.",
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
    study: str, data: str | None, quick: bool, protocol: str, transductive: bool, out: Path | None, **options: Any
) -> None:
    """Train the rows of STUDY (a shipped one or a TOML file) and compare them in one table and page.

    The same command again goes on where it stopped; members that are finished are kept. committee studies list names
    the shipped studies.
    """
    from committee.config import study as studies

    declared = studies.load(study)
    if not (data or declared.published_data):
        raise RecipeError(f"study {declared.name} names no published_data; say what to train on with --data")
    run_study(
        declared,
        data or declared.published_data,
        out,
        {"quick": quick, "protocol": protocol, "transductive": transductive},
        options,
    )


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
def grid(data: str, recipe: str, axes: Sequence[str], changes: Sequence[str], out: Path | None, **options: Any) -> None:
    """Train every combination of recipe fields on DATA; the best is chosen by validation images.

    A cell is one network, repeated with --seeds. A warning says which cells the best cannot be told from.
    """
    from committee.config import recipe_parsing as recipes
    from committee.studies.grid import study_of

    run_study(study_of(recipes.load(recipe, changes), axes), data, out, {}, options)


@click.command("pseudo-labels")
@click.argument("data")
@click.option(
    "--unlabelled", type=click.Path(path_type=Path, exists=True), multiple=True, help="Images without labels."
)
@click.option("--held-back", type=click.FloatRange(0, 1, True, True), help="Hide the labels of this share of DATA.")
@click.option("--transductive", is_flag=True, help="Label the test images; every output says so.")
@recipe_options
@training_options
@click.option(
    "--out", type=folder_type, help="The folder of all rounds.  [default: runs/DATA-RECIPE-pseudo-labels-seedS]"
)
@click.option("--keep-sealed", is_flag=True, help="Do not open the test images; rounds are judged out of fold.")
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
    out: Path | None,
    keep_sealed: bool,
    as_json: bool,
) -> None:
    """Train a committee on DATA, let it label images without labels, and train again with these.

    The images are a folder (--unlabelled), a part of DATA whose labels are hidden (--held-back), or the test images
    (--transductive). An audit part of DATA takes no part in training and tells how many of the given labels are right;
    below pseudo_labels.min_precision nothing more is trained. OUT/round-0, OUT/round-1, ... are runs with reports.
    """
    from committee.cli import terminal
    from committee.data.catalog import load_dataset
    from committee.data.readers import read_images
    from committee.runs import run as runs
    from committee.studies import self_training

    chosen = chosen_recipe(recipe, members, epochs, mirror, changes)
    dataset = load_dataset(data, data_dir=data_dir, image_size=image_size)
    pixels, names = None, None
    if unlabelled:
        shape, largest = dataset.image_shape, dataset.pixel_range
        names, pixels = read_images(list(unlabelled), image_shape=shape, pixel_range=largest)
    folder = out or Path("runs") / f"{dataset.name}-{chosen.name}-pseudo-labels-seed{seed}"
    setting = runs.Setting(seed, device, precision, workers, command_line())
    source = self_training.Source(unlabelled=pixels, names=names, held_back=held_back, transductive=transductive)

    def watch(number: int) -> Any:
        click.echo(f"Round {number}: {chosen.committee.members} members into {folder / f'round-{number}'}", err=True)
        work = {("", member): (chosen.training.epochs, 1.0) for member in range(chosen.committee.members)}
        return terminal.watcher(work, may_stop_early=chosen.training.patience > 0)

    found = self_training.train(dataset, chosen, folder, setting, source, keep_sealed=keep_sealed, watch=watch)
    if as_json:
        click.echo(json.dumps({"rounds": str(folder), **found}))
        return
    terminal.show_rounds(found)
    click.echo(f"Reports: {', '.join(str(folder / round_['folder'] / 'report.html') for round_ in found['rounds'])}")


def run_study(study: Any, data: str, out: Path | None, form: dict[str, Any], options: dict[str, Any]) -> None:
    """Run a study to its end and show it."""
    from committee.cli import terminal
    from committee.data.catalog import load_dataset
    from committee.runs import run as runs
    from committee.studies import run

    seed, seeds, as_json = options["seed"], options["seeds"], options["as_json"]
    dataset = load_dataset(data, data_dir=options["data_dir"], image_size=options["image_size"])
    chosen = run.Form(seeds=seeds, keep_sealed=options["keep_sealed"], **form)
    setting = runs.Setting(seed, options["device"], options["precision"], options["workers"], command_line())
    folder = out or Path("runs") / run.folder_name(study, dataset, chosen, seed)
    prepared = run.prepare(study, dataset, folder, setting, chosen)
    work = run.work(prepared)
    total = sum(model.members for model in prepared.plan.models)
    for mark in prepared.warnings:
        click.echo(mark, err=True)
    click.echo(
        f"{study.title}, on {dataset.name}: {len(prepared.plan.rows)} rows from {len(prepared.plan.models)} models, "
        f"{total} trainings, {len(work)} of them still to do; into {folder}",
        err=True,
    )
    try:
        with terminal.watcher(work, may_stop_early=False, whole="study") as watcher:
            results = run.conduct(prepared, command=command_line(), on_event=watcher)
    except KeyboardInterrupt:
        click.echo(
            f"Interrupted; finished trainings are kept in {folder}. Give the same command again to go on.", err=True
        )
        raise SystemExit(130) from None
    if as_json:
        page = str(folder / "study.html")
        click.echo(json.dumps({"study": str(folder), "page": page, **results.model_dump(mode="json")}))
        return
    terminal.show_study(results)
    click.echo(f"Page: {folder / 'study.html'}")


@click.group(cls=Group)
@example("committee studies list")
def studies() -> None:
    """List and show studies."""


@studies.command("list")
@example("committee studies list")
def studies_list() -> None:
    """The shipped studies."""
    from committee.config import study as all_studies
    from committee.config.toml_files import shipped

    for name in shipped("study"):
        click.echo(f"{name:16} {all_studies.load(name).summary}")


@studies.command("show")
@click.argument("study")
@example("committee studies show ladder > mine.toml")
def studies_show(study: str) -> None:
    """Print STUDY, a shipped one or a file, as TOML."""
    from committee.config.toml_files import text_of

    click.echo(text_of("study", study)[0], nl=False)


@studies.command("check")
@click.argument("study")
@example("committee studies check mine.toml")
def studies_check(study: str) -> None:
    """Say whether STUDY and all its recipes are valid, and what it would train."""
    from committee.config.study import load
    from committee.studies.plan import plan

    planned = plan(load(study))
    for model in planned.models:
        click.echo(f"{model.name}: {model.members} trainings of {model.recipe.training.epochs} epochs")
    click.echo(f"{planned.study.name} is valid: {len(planned.rows)} rows")
