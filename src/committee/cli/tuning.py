"""The commands tune and spaces."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import click

from committee.cli import ends
from committee.cli.options import (
    Group,
    RecipeOptions,
    TrainingOptions,
    example,
    folder_type,
    json_option,
    recipe_options,
    seconds,
    training_options,
)
from committee.errors import require
from committee.terminal import say, show

if TYPE_CHECKING:
    from committee.metrics.tuning import ObjectiveName, TuningResults


def milliseconds(context: click.Context, parameter: click.Parameter, value: str | None) -> float | None:
    """An option's length of time for one image, such as 2ms, in milliseconds."""
    if value is None:
        return None
    number = value.removesuffix("ms").strip()
    try:
        found = float(number)
    except ValueError:
        found = 0.0
    if not found > 0 or number == value:
        raise click.BadParameter(f"a time such as 2ms or 0.5ms is expected, got {value!r}")
    return found


@click.command()
@click.argument("data")
@click.option(
    "--trials",
    type=click.IntRange(2),
    help="Recipes to try, the starting one among them.  [default: 40, or the budget]",
)
@click.option(
    "--budget",
    callback=seconds,
    metavar="TIME",
    help="Wall-clock time for all of it, such as 20m or 2h; what was spent before an interruption counts.",
)
@click.option(
    "--objective",
    type=click.Choice(["accuracy", "balanced-accuracy", "auc", "log-loss"]),
    default="accuracy",
    show_default=True,
    help="What is maximised, out of fold; the log-loss is minimised.",
)
@click.option("--latency", callback=milliseconds, metavar="TIME", help="At most this for one image, such as 2ms.")
@click.option("--space", default="everything", show_default=True, help="A shipped space or a TOML file.")
@click.option(
    "--cost",
    type=click.FloatRange(0, min_open=True),
    default=1.0,
    show_default=True,
    help="What training a recipe may cost, as a multiple of the starting recipe's; larger networks get fewer epochs.",
)
@click.option(
    "--search",
    type=click.Choice(["tpe", "random"]),
    default="tpe",
    show_default=True,
    help="How recipes are proposed: from the trials so far, or all fields drawn anew.",
)
@click.option(
    "--prune",
    type=click.Choice(["folds", "none"]),
    default="folds",
    show_default=True,
    help="Whether trials that are clearly worse are stopped after some of the folds.",
)
@click.option(
    "--finalists",
    type=click.IntRange(1),
    default=3,
    show_default=True,
    help="The best trials, trained once more; with --budget perhaps fewer.",
)
@click.option(
    "--fresh",
    type=click.IntRange(0),
    default=5,
    show_default=True,
    help="Fresh seeds on which the winner and the starting recipe are compared; with --budget perhaps fewer.",
)
@click.option(
    "--together",
    type=click.IntRange(1),
    default=4,
    show_default=True,
    help="Trials proposed before any of them is known; give more where there are many cores.",
)
@click.option(
    "--storage",
    help="Where several machines keep their trials together: the address of a database, as Optuna takes it, or the "
    "path of a journal on a disk that all of them see.  [default: a journal in the folder]",
)
@recipe_options
@training_options
@click.option("--out", type=folder_type, help="The folder.  [default: runs/DATA-tune-RECIPE-OBJECTIVE-seedS]")
@json_option
@example(
    "committee tune photos/ --trials 40\n"
    "committee tune photos/ --budget 1h --objective balanced-accuracy --set training.batch_size=32\n"
    "committee tune photos/ --latency 2ms --space augmentation\n"
    "committee tune photos/ --budget 8h --storage postgresql://host/trials    # the same on every machine"
)
def tune(
    data: str,
    trials: int | None,
    budget: float | None,
    objective: ObjectiveName,
    latency: float | None,
    space: str,
    cost: float,
    search: Literal["tpe", "random"],
    prune: Literal["folds", "none"],
    finalists: int,
    fresh: int,
    together: int,
    storage: str | None,
    recipe_options: RecipeOptions,
    training_options: TrainingOptions,
    out: Path | None,
    as_json: bool,
) -> None:
    """Search for a recipe that is better on DATA than the starting one (--recipe, or standard).

    A trial is a recipe, trained on the folds of the training images; what decides is out of fold, and the test images
    stay sealed. Fields that --set gives keep that value. At the end the winner and the starting recipe are trained on
    fresh seeds, since the best of many trials flatters itself, and the folder has recipe.toml, for committee train
    --recipe, and a page with what mattered. The same command again goes on: with more --trials or a larger --budget,
    or after an interruption of whatever kind.
    """
    require("optuna", "tune", "committee tune")
    require("sklearn", "tune", "committee tune")
    from committee.cli.search_progress import Shown
    from committee.config import space as spaces
    from committee.report import tuning_words
    from committee.tuning.run import Search, folder_name, prepare, run_prepared

    dataset, setting = training_options.load(data), training_options.setting(data)
    asked = Search(
        start=recipe_options.load(),
        space=spaces.load(space),
        fixed=tuple(change.partition("=")[0].strip() for change in recipe_options.changes),
        objective=objective,
        search=search,
        trials=trials,
        budget=budget,
        prune=prune,
        cost=cost,
        latency=latency,
        finalists=finalists,
        fresh=fresh,
        together=together,
        storage=storage,
    )
    folder = out or Path("runs") / folder_name(dataset, asked, setting.seed)
    prepared = prepare(dataset, asked, folder, setting)
    height, width, channels = dataset.image_shape
    say(
        f"{dataset.name}: {len(dataset.train):,} training images, {len(dataset.class_names)} classes, "
        f"{height}x{width}x{channels}; the test images stay sealed",
        f"Recipe {asked.start.name}, {len(prepared.parameters)} fields of the space {asked.space.name}, "
        f"{asked.folds} folds, on {prepared.setting.device} in {prepared.setting.precision}",
        f"Folder: {folder}",
        err=True,
    )
    ends.note_missing_kernels(setting.device)

    def kept() -> str:
        return f"all trials so far and the members under way are kept in {folder}"

    with ends.told_how_to_go_on(kept), Shown(asked.most_trials, objective, bars=sys.stderr.isatty()) as shown:
        results = run_prepared(prepared, shown)
    if as_json:
        say(json.dumps({"folder": str(folder), "recipe": str(prepared.folder.recipe_file),
                        "page": str(prepared.folder.page), **results.model_dump(mode="json")}))  # fmt: skip
        return
    lines = (tuning_words.count(results), tuning_words.verdict(results), tuning_words.gain(results),
             tuning_words.flattery(results), tuning_words.speed(results), _mattered(results))  # fmt: skip
    for line in lines:
        if line:
            say(f"{line}.")
    say(f"Recipe: {prepared.folder.recipe_file}", f"Page: {prepared.folder.page}")


def _mattered(results: TuningResults) -> str:
    """The three most important fields, as a sentence; "" where that is not known."""
    shown = [f"{each.name} {100 * each.importance:.0f} %" for each in results.fields[:3] if each.importance is not None]
    return f"What mattered most: {', '.join(shown)}" if shown else ""


@click.group(cls=Group)
@example("committee spaces list")
def spaces() -> None:
    """List and show search spaces for committee tune: the shipped ones, and files of your own."""


@spaces.command("list")
@example("committee spaces list")
def spaces_list() -> None:
    """The shipped search spaces."""
    from committee.config import space as all_spaces
    from committee.config.toml_files import shipped

    for name in shipped("space"):
        say(f"{name:16} {all_spaces.load(name).summary}")


@spaces.command("show")
@click.argument("space")
@example("committee spaces show everything > mine.toml")
def spaces_show(space: str) -> None:
    """Print SPACE, a shipped one or a file, as TOML."""
    from committee.config import space as all_spaces
    from committee.config.toml_files import text_of

    all_spaces.load(space)
    show(text_of("space", space)[0])
