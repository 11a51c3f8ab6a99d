"""The command line: parse, call, print; nothing else."""

from __future__ import annotations

import inspect
import json
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click

from committee import __version__
from committee.errors import CommitteeError


class _Group(click.Group):
    """Prints an error of this package as one sentence, without a traceback, and exits with status 2."""

    def invoke(self, context: click.Context) -> Any:
        try:
            return super().invoke(context)
        except CommitteeError as error:
            click.echo(f"Error: {error}", err=True)
            context.exit(2)
        except KeyboardInterrupt:
            click.echo("Interrupted.", err=True)
            context.exit(130)

    def resolve_command(
        self, context: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        from committee.errors import nearest

        name = args[0] if args else ""
        if name and self.get_command(context, name) is None and not name.startswith("-"):
            commands = self.list_commands(context)
            raise click.UsageError(
                f"there is no command {name!r}{nearest(name, commands)}; there are {', '.join(commands)}"
            )
        return super().resolve_command(context, args)


def _example(text: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Add an example to a command's help, its lines kept as they are."""

    def add(function: Callable[..., Any]) -> Callable[..., Any]:
        function.__doc__ = f"{inspect.cleandoc(function.__doc__ or '')}\n\n\b\nExample:\n" + "\n".join(
            f"  {line}" for line in text.splitlines()
        )
        return function

    return add


_folder = click.Path(path_type=Path, file_okay=False)
_run_argument = click.argument("run", type=_folder)
_data_dir = click.option("--data-dir", type=_folder, help="Folder that holds a catalogue data set's files.")
_image_size = click.option(
    "--image-size", type=click.IntRange(4, 1024), help="Resize images to this many pixels a side."
)
_seed = click.option("--seed", type=int, default=0, show_default=True, help="The root of all randomness.")
_json = click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")
_device = click.option("--device", default="auto", show_default=True, help="auto, cuda, mps, xpu or cpu.")


_Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]


def _together(options: Sequence[_Decorator], function: Callable[..., Any]) -> Callable[..., Any]:
    """A function with several options, in this order in its help."""
    for option in reversed(options):
        function = option(function)
    return function


def _training_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that trains: where its images are, where and from what seed it runs."""
    workers = click.option(
        "--workers",
        type=click.IntRange(0),
        default=0,
        help="Processes on the CPU; changes no result.  [default: one a core]",
    )
    precision = click.option("--precision", default="auto", show_default=True, help="auto, bfloat16 or float32.")
    return _together([_seed, workers, _device, precision, _data_dir, _image_size], function)


@click.group(cls=_Group)
@click.version_option(__version__, prog_name="committee")
@_example("committee train mnist-5k")
def main() -> None:
    """Turn small labelled images into an honest committee of small convolutional networks."""


# --- train ------------------------------------------------------------------------------------------------------------


@main.command()
@click.argument("data")
@click.option("--recipe", help="A shipped recipe or a TOML file; see committee recipes list.  [default: compact]")
@click.option("--members", type=click.IntRange(1), help="Members of the committee, instead of the recipe's number.")
@click.option("--epochs", type=click.IntRange(1), help="Epochs a member, instead of the recipe's number.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe.")
@_training_options
@click.option("--out", type=_folder, help="The run folder.  [default: runs/DATA-RECIPE-seedS]")
@click.option("--from", "continued", type=_folder, help="Go on from this finished run, for --epochs more epochs.")
@click.option("--keep-sealed", is_flag=True, help="Do not open the test images; committee evaluate can later.")
@_json
@_example(
    "committee train mnist-5k\n"
    "committee train photos/ --members 10 --epochs 20 --out runs/photos\n"
    "committee train mnist --recipe ensemble-cnn --set training.patience=10"
)
def train(
    data: str,
    recipe: str | None,
    members: int | None,
    epochs: int | None,
    changes: Sequence[str],
    seed: int,
    workers: int,
    device: str,
    precision: str,
    data_dir: Path | None,
    image_size: int | None,
    out: Path | None,
    continued: Path | None,
    keep_sealed: bool,
    as_json: bool,
) -> None:
    """Train a committee on DATA: a catalogue name or a path.

    The same command again goes on where it stopped: members that are finished are kept. DATA may be a folder of class
    folders, IDX files, NPZ, CSV, Parquet, or a zip of any of these; without a test part, a fifth is set aside.
    """
    from committee import recipe as recipes
    from committee import run as runs
    from committee import terminal
    from committee.data.catalog import load_dataset
    from committee.training import store

    if continued is not None:
        store.verify(continued)
        recipe = recipe or str(continued / "recipe.toml")
        seed = store.read_json(continued / "identity.json")["seed"]
    changes = list(changes)
    changes += [f"committee.members={members}"] if members else []
    changes += [f"training.epochs={epochs}"] if epochs else []
    chosen = recipes.load(recipe or "compact", changes)
    dataset = load_dataset(data, data_dir=data_dir, seed=seed, image_size=image_size)
    reload = {
        "data": data,
        "data_dir": str(data_dir.resolve()) if data_dir else None,
        "seed": seed,
        "image_size": image_size,
    }
    setting = runs.Setting(seed, device, precision, workers, _command_line(), tuple(reload.items()))
    settled = runs.settled(setting, chosen.committee.members)
    runs.checked_parts(dataset, chosen, settled)
    identity = runs.identity_of(dataset, chosen, settled, continued)
    folder = out or store.free_folder(Path("runs"), f"{dataset.name}-{chosen.name}-seed{seed}", identity)
    missing = [m for m in range(chosen.committee.members) if not store.member_file(folder, m).exists()]
    work = {("", member): (chosen.training.epochs, 1.0) for member in missing}
    watcher = terminal.watcher(work, may_stop_early=chosen.training.patience > 0)
    store.check_free(folder, identity)
    if (folder / store.MANIFEST).exists():
        click.echo(f"{folder} already holds this training; showing its results.", err=True)
    else:
        click.echo(_announcement(dataset, chosen, settled, folder), err=True)
    try:
        with watcher:
            results = runs.train(
                dataset, chosen, folder, setting, keep_sealed=keep_sealed, continued=continued, on_event=watcher
            )
    except KeyboardInterrupt:
        kept = len(list(folder.glob("members/*/member.json")))
        click.echo(
            f"Interrupted; {kept} of {chosen.committee.members} members are finished and kept in {folder}. "
            "Give the same command again to go on.",
            err=True,
        )
        raise SystemExit(130) from None
    _show(folder, results, as_json)


def _announcement(dataset: Any, recipe: Any, setting: Any, folder: Path) -> str:
    """What is about to be trained, in two lines."""
    height, width, channels = dataset.image_shape
    return (
        f"{dataset.name}: {len(dataset.train):,} training images, {len(dataset.test):,} sealed test images, "
        f"{len(dataset.class_names)} classes, {height}x{width}x{channels} ({dataset.source})\n"
        f"Recipe {recipe.name}: {recipe.committee.members} members, {recipe.training.epochs} epochs at most, on "
        f"{setting.device} in {setting.precision}, {setting.workers} at a time; into {folder}"
    )


def _show(folder: Path, results: Any, as_json: bool) -> None:
    """The end of a training or an evaluation."""
    from rich.console import Console

    from committee import terminal
    from committee.training import store

    if as_json:
        manifest = store.read_manifest(folder)
        summary = {name: value for name, value in manifest.items() if name != "files"}
        click.echo(json.dumps({"run": str(folder), "report": str(folder / "report.html"), **summary}))
        return
    for mark in store.read_manifest(folder)["marks"]:
        click.echo(mark)
    Console().print(terminal.members_table(results))
    for line in terminal.closing_lines(results):
        click.echo(line)
    click.echo(f"Report: {folder / 'report.html'}")


# --- studies ----------------------------------------------------------------------------------------------------------


def _study_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """The options of everything that trains a study."""
    options: list[_Decorator] = [
        click.option(
            "--seeds",
            type=click.IntRange(1),
            help="Repeats of every row, committees too.  [default: the study's own; 3 for a grid]",
        ),
        _training_options,
        click.option("--keep-sealed", is_flag=True, help="Do not open the test images; judge by validation images."),
        _json,
    ]
    return _together(options, function)


@main.command()
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
@_study_options
@click.option("--out", type=_folder, help="The study's folder.  [default: runs/DATA-study-STUDY-seedS]")
@_example(
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
    from committee.errors import RecipeError
    from committee.studies import study as studies

    declared = studies.load(study)
    if not (data or declared.published_data):
        raise RecipeError(f"study {declared.name} names no published_data; say what to train on with --data")
    _conduct(
        declared,
        data or declared.published_data,
        out,
        {"quick": quick, "protocol": protocol, "transductive": transductive},
        options,
    )


@main.command()
@click.argument("data")
@click.option("--recipe", default="compact", show_default=True, help="A shipped recipe or a TOML file.")
@click.option(
    "--vary", "axes", multiple=True, required=True, metavar="SECTION.FIELD=VALUE,VALUE", help="An axis of the grid."
)
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe.")
@_study_options
@click.option("--out", type=_folder, help="The grid's folder.  [default: runs/DATA-study-grid-RECIPE-seedS]")
@_example(
    "committee grid mnist-5k --vary optimiser.rate=0.001,0.003,0.01 --vary training.batch=32,64\n"
    "committee grid photos/ --recipe mine.toml --vary augmentation.rotation=0,10,20 --seeds 5"
)
def grid(data: str, recipe: str, axes: Sequence[str], changes: Sequence[str], out: Path | None, **options: Any) -> None:
    """Train every combination of recipe fields on DATA; the best is chosen by validation images.

    A cell is one network, repeated with --seeds. A warning says which cells the best cannot be told from.
    """
    from committee import recipe as recipes
    from committee.studies.grid import study_of

    _conduct(study_of(recipes.load(recipe, changes), axes), data, out, {}, options)


@main.command("pseudo-labels")
@click.argument("data")
@click.option(
    "--unlabelled", type=click.Path(path_type=Path, exists=True), multiple=True, help="Images without labels."
)
@click.option("--held-back", type=click.FloatRange(0, 1, True, True), help="Hide the labels of this share of DATA.")
@click.option("--transductive", is_flag=True, help="Label the test images; every output says so.")
@click.option("--recipe", default="compact", show_default=True, help="A shipped recipe or a TOML file.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe.")
@_training_options
@click.option("--out", type=_folder, help="The folder of all rounds.  [default: runs/DATA-RECIPE-pseudo-labels-seedS]")
@_json
@_example(
    "committee pseudo-labels photos/ --unlabelled more-photos/\n"
    "committee pseudo-labels mnist-5k --held-back 0.5 --set pseudo_labels.rounds=2"
)
def pseudo_labels(
    data: str,
    unlabelled: tuple[Path, ...],
    held_back: float | None,
    transductive: bool,
    recipe: str,
    changes: Sequence[str],
    seed: int,
    workers: int,
    device: str,
    precision: str,
    data_dir: Path | None,
    image_size: int | None,
    out: Path | None,
    as_json: bool,
) -> None:
    """Train a committee on DATA, let it label images without labels, and train again with these.

    The images are a folder (--unlabelled), a part of DATA whose labels are hidden (--held-back), or the test images
    (--transductive). An audit part of DATA takes no part in training and tells how many of the given labels are right;
    below pseudo_labels.precision_limit nothing more is trained. OUT/round-0, OUT/round-1, ... are runs with reports.
    """
    from committee import recipe as recipes
    from committee import run as runs
    from committee import terminal
    from committee.data.catalog import load_dataset
    from committee.data.readers import read_images
    from committee.studies import rounds

    chosen = recipes.load(recipe, changes)
    dataset = load_dataset(data, data_dir=data_dir, seed=seed, image_size=image_size)
    pixels, names = None, None
    if unlabelled:
        shape, largest = dataset.image_shape, dataset.pixel_range
        names, pixels = read_images(list(unlabelled), image_shape=shape, pixel_range=largest)
    folder = out or Path("runs") / f"{dataset.name}-{chosen.name}-pseudo-labels-seed{seed}"
    setting = runs.Setting(seed, device, precision, workers, _command_line())
    source = rounds.Source(unlabelled=pixels, names=names, held_back=held_back, transductive=transductive)

    def watch(number: int) -> Any:
        click.echo(f"Round {number}: {chosen.committee.members} members into {folder / f'round-{number}'}", err=True)
        work = {("", member): (chosen.training.epochs, 1.0) for member in range(chosen.committee.members)}
        return terminal.watcher(work, may_stop_early=chosen.training.patience > 0)

    found = rounds.train(dataset, chosen, folder, setting, source, watch=watch)
    if as_json:
        click.echo(json.dumps({"rounds": str(folder), **found}))
        return
    terminal.show_rounds(found)
    click.echo(f"Reports: {', '.join(str(folder / round_['folder'] / 'report.html') for round_ in found['rounds'])}")


def _conduct(study: Any, data: str, out: Path | None, form: dict[str, Any], options: dict[str, Any]) -> None:
    """Run a study to its end and show it."""
    from committee import run as runs
    from committee import terminal
    from committee.data.catalog import load_dataset
    from committee.studies import conduct

    seed, seeds, as_json = options["seed"], options["seeds"], options["as_json"]
    dataset = load_dataset(data, data_dir=options["data_dir"], seed=seed, image_size=options["image_size"])
    chosen = conduct.Form(seeds=seeds, keep_sealed=options["keep_sealed"], **form)
    setting = runs.Setting(seed, options["device"], options["precision"], options["workers"], _command_line())
    folder = out or Path("runs") / conduct.folder_name(study, dataset, chosen, seed)
    prepared = conduct.prepare(study, dataset, folder, setting, chosen)
    work = conduct.work(prepared)
    total = sum(model.members for model in prepared.plan.models)
    for mark in prepared.marks:
        click.echo(mark, err=True)
    click.echo(
        f"{study.title}, on {dataset.name}: {len(prepared.plan.rungs)} rows from {len(prepared.plan.models)} models, "
        f"{total} trainings, {len(work)} of them still to do; into {folder}",
        err=True,
    )
    try:
        with terminal.watcher(work, may_stop_early=False, whole="study") as watcher:
            results = conduct.conduct(prepared, command=_command_line(), on_event=watcher)
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


@main.group(cls=_Group)
@_example("committee studies list")
def studies() -> None:
    """List and show studies."""


@studies.command("list")
@_example("committee studies list")
def studies_list() -> None:
    """The shipped studies."""
    from committee.studies import study as all_studies

    for name in all_studies.shipped():
        click.echo(f"{name:16} {all_studies.load(name).summary}")


@studies.command("show")
@click.argument("study")
@_example("committee studies show ladder > mine.toml")
def studies_show(study: str) -> None:
    """Print STUDY, a shipped one or a file, as TOML."""
    from committee.studies import study as all_studies

    click.echo(all_studies.text_of(study)[0], nl=False)


@studies.command("check")
@click.argument("study")
@_example("committee studies check mine.toml")
def studies_check(study: str) -> None:
    """Say whether STUDY and all its recipes are valid, and what it would train."""
    from committee.studies import study as all_studies

    planned = all_studies.plan(all_studies.load(study))
    for model in planned.models:
        click.echo(f"{model.name}: {model.members} trainings of {model.recipe.training.epochs} epochs")
    click.echo(f"{planned.study.name} is valid: {len(planned.rungs)} rows")


def _command_line() -> str:
    """The command as it was given, to be given again."""
    import shlex

    return shlex.join(["committee", *sys.argv[1:]])


# --- data, recipes, models --------------------------------------------------------------------------------------------


@main.group(cls=_Group)
@_example("committee data info mnist-5k")
def data() -> None:
    """Look at data sets."""


@data.command("info")
@click.argument("name_or_path", metavar="DATA")
@_data_dir
@_image_size
@_seed
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the picture.  [default: NAME-samples.png]",
)
@_json
@_example("committee data info photos.zip --picture photos.png")
def data_info(
    name_or_path: str, data_dir: Path | None, image_size: int | None, seed: int, picture: Path | None, as_json: bool
) -> None:
    """Shapes, counts a class and a digest of DATA, and a picture of samples and class means."""
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    from committee.data.catalog import load_dataset
    from committee.data.inspect import describe, sample_pictures
    from committee.report import plots, style

    dataset = load_dataset(name_or_path, data_dir=data_dir, seed=seed, image_size=image_size)
    facts = describe(dataset)
    picture = picture or Path(f"{dataset.name}-samples.png")
    samples, means = sample_pictures(dataset)
    style.save(plots.samples_and_means(samples, means, dataset.class_names), picture)
    if as_json:
        click.echo(json.dumps({**facts, "picture": str(picture)}))
        return
    height, width, channels = dataset.image_shape
    table = Table(
        title=f"{dataset.name}: {facts['images']:,} images of {height}x{width}x{channels}, {facts['bits']} bits"
    )
    for heading in ("class", "training images", "sealed test images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, count in facts["counts"].items():
        table.add_row(Text(name), f"{count['train']:,}", f"{count['test']:,}")
    Console().print(table)
    click.echo(f"Source: {dataset.source}")
    for note in facts["notes"]:
        click.echo(f"Note: {note}")
    click.echo(f"Digest: {facts['digest']}")
    click.echo(f"Picture: {picture}")


@data.command("augment")
@click.argument("name_or_path", metavar="DATA")
@click.option("--recipe", default="compact", show_default=True, help="A shipped recipe or a TOML file.")
@click.option("--set", "changes", multiple=True, metavar="SECTION.FIELD=VALUE", help="Change one field of the recipe.")
@_data_dir
@_image_size
@_seed
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the picture.  [default: NAME-augmented.png]",
)
@_example("committee data augment mnist-5k --recipe compact --set augmentation.rotation=30")
def data_augment(
    name_or_path: str,
    recipe: str,
    changes: Sequence[str],
    data_dir: Path | None,
    image_size: int | None,
    seed: int,
    picture: Path | None,
) -> None:
    """A picture of what RECIPE's random changes do to images of DATA: all together, then each alone."""
    from committee import recipe as all_recipes
    from committee.data.catalog import load_dataset
    from committee.data.inspect import augmented_pictures
    from committee.report import plots, style

    chosen = all_recipes.load(recipe, changes)
    if not chosen.augmentation.active:
        raise CommitteeError(
            f"recipe {chosen.name} changes no image; give one that does, or --set augmentation.rotation=10"
        )
    dataset = load_dataset(name_or_path, data_dir=data_dir, seed=seed, image_size=image_size)
    picture = picture or Path(f"{dataset.name}-augmented.png")
    style.save(plots.augmentation(augmented_pictures(dataset, chosen.augmentation, seed)), picture)
    on = chosen.augmentation.model_dump(exclude_defaults=True)
    click.echo(f"Augmentation: {', '.join(f'{name} {value}' for name, value in on.items())}")
    click.echo(f"Picture: {picture}")


@main.group(cls=_Group)
@_example("committee recipes list")
def recipes() -> None:
    """List, show and check recipes."""


@recipes.command("list")
@_example("committee recipes list")
def recipes_list() -> None:
    """The shipped recipes."""
    from committee import recipe as all_recipes

    for name in all_recipes.shipped():
        click.echo(f"{name:16} {all_recipes.load(name).summary}")


@recipes.command("show")
@click.argument("recipe")
@click.option("--complete", is_flag=True, help="Every field, defaults written out.")
@_example("committee recipes show ensemble-cnn > mine.toml")
def recipes_show(recipe: str, complete: bool) -> None:
    """Print RECIPE, a shipped one or a file, as TOML."""
    from committee import recipe as all_recipes

    chosen = all_recipes.load(recipe)
    if complete or recipe not in all_recipes.shipped():
        click.echo(chosen.to_toml(), nl=False)
    else:
        click.echo(all_recipes.shipped_text(recipe), nl=False)


@recipes.command("check")
@click.argument("recipe")
@_example("committee recipes check mine.toml")
def recipes_check(recipe: str) -> None:
    """Say whether RECIPE is valid; all faults at once."""
    from committee import recipe as all_recipes

    chosen = all_recipes.load(recipe)
    click.echo(f"{chosen.name} is valid; digest {chosen.digest()}")


@main.group(cls=_Group)
@_example("committee models summary compact")
def models() -> None:
    """Look at networks."""


@models.command("summary")
@click.argument("recipe")
@click.option(
    "--image-shape",
    nargs=3,
    type=click.IntRange(1),
    default=(28, 28, 1),
    show_default=True,
    metavar="HEIGHT WIDTH CHANNELS",
)
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True)
@_example("committee models summary ensemble-cnn\ncommittee models summary compact --image-shape 32 32 3 --classes 5")
def models_summary(recipe: str, image_shape: tuple[int, int, int], classes: int) -> None:
    """The layers of RECIPE's network: output shapes, parameters, multiply-adds."""
    from rich.console import Console

    from committee import recipe as all_recipes
    from committee.models.summary import layer_table
    from committee.terminal import layers_table

    chosen = all_recipes.load(recipe)
    height, width, channels = image_shape
    title = f"{chosen.name}, a member, for images of {height}x{width}x{channels} in {classes} classes"
    Console().print(layers_table(title, layer_table(chosen.network, image_shape, classes)))


# --- using runs -------------------------------------------------------------------------------------------------------


@main.command()
@_run_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format", "form", type=click.Choice(["table", "json", "csv", "parquet"]), default="table", show_default=True
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
@_device
@_example(
    "committee predict runs/mnist-5k-compact-seed0 digit.png\n"
    "committee predict RUN images/ --format csv --out answers.csv"
)
def predict(run: Path, paths: Sequence[Path], form: str, out: Path | None, device: str) -> None:
    """Classify images with the committee of RUN.

    PATHS are image files, folders (with all below them), .npy or .npz arrays, CSV, Parquet or IDX files. Each image
    gets its class, the committee's probabilities, and the disagreement: the share of members whose own choice differs.
    """
    from committee import predictions
    from committee.data.readers import read_images
    from committee.ensemble.committee import load

    committee = load(run, device=device)
    names, pixels = read_images(paths, image_shape=committee.image_shape, pixel_range=committee.pixel_range)
    predictions.write(predictions.judge(committee, names, pixels), form, out)


@main.command()
@_run_argument
@click.argument("data", required=False)
@_data_dir
@click.option("--again", is_flag=True, help="Judge again although the test images are open already.")
@_json
@_example("committee train mnist-5k --keep-sealed --out runs/a\ncommittee evaluate runs/a")
def evaluate(run: Path, data: str | None, data_dir: Path | None, again: bool, as_json: bool) -> None:
    """Judge RUN on its sealed test images.

    Do it once training and all choices are done: it opens the seal, notes that in the record, and writes the report
    anew. A run whose test images are open already is only shown, unless --again is given.

    DATA is where its data set is now, if not where it was.
    """
    from committee import run as runs
    from committee.conclude import read_results
    from committee.data.catalog import load_dataset
    from committee.training import store

    if store.read_manifest(run)["test_openings"] and not again:
        click.echo(f"The test images of {run} are open already; showing its results (--again judges anew).", err=True)
        _show(run, read_results(run), as_json)
        return
    where = store.read_json(run / "data.json")["reload"]
    where |= {"data": data} if data else {}
    where["data_dir"] = data_dir or (Path(where["data_dir"]) if where.get("data_dir") else None)
    _show(run, runs.evaluate(run, load_dataset(**where)), as_json)


@main.command()
@click.argument("run_a", type=_folder)
@click.argument("run_b", type=_folder)
@click.option(
    "--on", type=click.Choice(["test", "out-of-fold"]), default="test", show_default=True, help="Which images."
)
@_json
@_example("committee compare runs/a runs/b")
def compare(run_a: Path, run_b: Path, on: str, as_json: bool) -> None:
    """Compare two runs on the same images.

    Prints the difference with its interval, the exact McNemar test, and a verdict in words.
    """
    from committee.comparison import as_json as to_json
    from committee.comparison import compare_runs, in_words

    comparison = compare_runs(run_a, run_b, on)
    click.echo(to_json(comparison) if as_json else in_words(comparison, run_a, run_b, on))


@main.command()
@_run_argument
@_example("committee report runs/mnist-5k-compact-seed0\ncommittee report runs/mnist-study-ladder-seed0")
def report(run: Path) -> None:
    """Write the report of RUN, or the page of a study's folder, anew.

    Tables, figures and the page come from the folder's own files; nothing is trained or opened.
    """
    from committee import conclude
    from committee.studies import conduct
    from committee.training import store

    write = conduct.write_page if "study" in store.read_manifest(run, kinds=("run", "study")) else conclude.write_report
    click.echo(f"Report: {write(run)}")
