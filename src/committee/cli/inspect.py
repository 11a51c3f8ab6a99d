"""The commands that only look: data info, check, augment and convert, recipes list, show and check, models summary."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import click

from committee import disk
from committee.cli.options import (
    Group,
    changes_option,
    data_dir_option,
    example,
    folder_type,
    json_option,
    mirror_option,
    read_options,
    seed_option,
    tell_of_shared_name,
)
from committee.data.read_options import ReadOptions
from committee.errors import CommitteeError
from committee.names import file_name
from committee.terminal import console, plain, say, show


@click.group(cls=Group)
@example("committee data info mnist-5k")
def data() -> None:
    """Look at data sets."""


@data.command("info")
@click.argument("name_or_path", metavar="DATA")
@data_dir_option
@read_options
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the picture.  [default: NAME-samples.png]",
)
@json_option
@example("committee data info photos.zip --picture photos.png")
def data_info(
    name_or_path: str, data_dir: Path | None, read_options: ReadOptions, picture: Path | None, as_json: bool
) -> None:
    """Shapes, counts for each class and a digest of DATA, and a picture of samples and class means."""
    from rich.table import Table

    from committee.data.catalog import load_dataset
    from committee.data.check import quick_notes
    from committee.data.summary import describe, sample_pictures
    from committee.report import image_plots, style

    dataset = load_dataset(name_or_path, data_dir=data_dir, **dict(read_options))
    summary = describe(dataset)
    notes = tuple(dict.fromkeys([*summary.notes, *quick_notes(dataset)]))  # the summary, too, tells of leaks
    picture = picture or Path(f"{file_name(dataset.name)}-samples.png")
    samples, means = sample_pictures(dataset)
    disk.write(picture, style.as_png(image_plots.samples_and_means(samples, means, dataset.class_names)))
    if as_json:
        say(json.dumps({**summary.model_dump(mode="json"), "notes": notes, "picture": str(picture)}))
        return
    height, width, channels = dataset.image_shape
    size = f"{height}x{width}x{channels}, {summary.bits} bits"
    table = Table(title=plain(f"{dataset.name}: {summary.images:,} images of {size}"))
    for heading in ("class", "training images", "sealed test images"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    for name, count in summary.counts.items():
        table.add_row(plain(name), f"{count.train:,}", f"{count.test:,}")
    console().print(table)
    say(f"Source: {dataset.source}")
    for note in notes:
        say(f"Note: {note}")
    say(f"Digest: {summary.digest}")
    say(f"Picture: {picture}")


@data.command("convert")
@click.argument("name_or_path", metavar="DATA")
@click.argument("out", type=click.Path(path_type=Path))
@data_dir_option
@read_options
@example("committee data convert photos/ photos.parquet\ncommittee train photos.parquet")
def data_convert(name_or_path: str, out: Path, data_dir: Path | None, read_options: ReadOptions) -> None:
    """Write DATA as it was read into OUT, a folder of train.parquet and test.parquet in the Hugging Face hub's layout.

    Images are kept as PNG, in the size in which they were read, classes by their names. What is read back is the same
    data set, with the same digest, and its test images are sealed again. Beside them is croissant.json, which tells
    every program that reads Croissant metadata what they hold.
    """
    from committee.data.catalog import load_dataset
    from committee.data.convert import to_parquet

    dataset = load_dataset(name_or_path, data_dir=data_dir, **dict(read_options))
    for note in dataset.notes:
        say(f"Note: {note}", err=True)
    for file in to_parquet(dataset, out, known_as=name_or_path):
        say(f"Written: {file}")
    say(f"Digest: {dataset.digest()}")


@data.command("check")
@click.argument("name_or_path", metavar="DATA")
@data_dir_option
@read_options
@click.option("--out", type=folder_type, help="Folder for the page and the table.  [default: NAME-check]")
@json_option
@example("committee data check photos/\ncommittee data check mnist --out checks/mnist")
def data_check(
    name_or_path: str, data_dir: Path | None, read_options: ReadOptions, out: Path | None, as_json: bool
) -> None:
    """Look for faults of DATA: what is in both parts, there twice, blank, wrongly labelled, odd.

    Finds test images that are also training images, identical or nearly so; identical images with different labels;
    copies; blank images; images with their background the other way round; outliers; classes too small to judge, and
    classes that look alike. Writes a page with pictures and a table of everything found. Nothing is trained. The test
    images are opened, which the folder's test_record.jsonl notes.
    """
    from committee.data.catalog import load_dataset
    from committee.folders.check_folder import CheckFolder
    from committee.runs.check import check_data

    dataset = load_dataset(name_or_path, data_dir=data_dir, **dict(read_options))
    folder = CheckFolder(out or Path(f"{file_name(dataset.name)}-check"))
    check = check_data(dataset, folder)
    if as_json:
        say(json.dumps({**check.model_dump(mode="json"), "page": str(folder.page), "table": str(folder.table)}))
        return
    say(f"{check.data}: {check.train_images:,} training and {check.test_images:,} test images")
    for found in check.lines:
        say(f"- {found}")
    if not check.lines:
        say("Nothing was found.")
    for note in check.notes:
        say(f"Note: {note}")
    say(f"Page: {folder.page}")
    say(f"Table: {folder.table}")


@data.command("augment")
@click.argument("name_or_path", metavar="DATA")
@click.option("--recipe", default="standard", show_default=True, help="A shipped recipe or a TOML file.")
@mirror_option
@changes_option
@data_dir_option
@read_options
@seed_option
@click.option(
    "--picture",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Where to write the picture.  [default: NAME-augmented.png]",
)
@example("committee data augment mnist-5k --recipe standard --set augmentation.rotation=30")
def data_augment(
    name_or_path: str,
    recipe: str,
    mirror: bool,
    changes: Sequence[str],
    data_dir: Path | None,
    read_options: ReadOptions,
    seed: int,
    picture: Path | None,
) -> None:
    """A picture of what RECIPE's augmentation does to images of DATA: everything together, then each change alone."""
    from committee.config import recipe_parsing
    from committee.data.augment import augmented_pictures
    from committee.data.catalog import load_dataset
    from committee.report import image_plots, style

    chosen = recipe_parsing.load(recipe, changes, mirror=mirror)
    if not chosen.augmentation.active:
        raise CommitteeError(
            f"recipe {chosen.name} has no augmentation; give one that has, or --set augmentation.rotation=10"
        )
    dataset = load_dataset(name_or_path, data_dir=data_dir, **dict(read_options))
    picture = picture or Path(f"{file_name(dataset.name)}-augmented.png")
    disk.write(picture, style.as_png(image_plots.augmentation(augmented_pictures(dataset, chosen.augmentation, seed))))
    on = chosen.augmentation.model_dump(exclude_defaults=True, exclude={"no_aug_epochs"})
    say(f"Augmentation: {', '.join(f'{name} {value}' for name, value in on.items())}")
    say(f"Picture: {picture}")


@click.group(cls=Group)
@example("committee recipes list")
def recipes() -> None:
    """List, show and check recipes."""


@recipes.command("list")
@example("committee recipes list")
def recipes_list() -> None:
    """The shipped recipes."""
    from committee.config import recipe_parsing
    from committee.config.toml_files import shipped

    for name in shipped("recipe"):
        say(f"{name:16} {recipe_parsing.load(name).summary}")


@recipes.command("show")
@click.argument("recipe")
@click.option("--complete", is_flag=True, help="Every field, defaults written out.")
@example("committee recipes show ensemble-cnn > mine.toml")
def recipes_show(recipe: str, complete: bool) -> None:
    """Print RECIPE, a shipped one or a file, as TOML."""
    from committee.config import recipe_parsing
    from committee.config.toml_files import text_of

    chosen = recipe_parsing.load(recipe)
    show(chosen.to_toml() if complete else text_of("recipe", recipe)[0])


@recipes.command("check")
@click.argument("recipe")
@example("committee recipes check mine.toml")
def recipes_check(recipe: str) -> None:
    """Say whether RECIPE is valid; all faults at once."""
    from committee.config import recipe_parsing

    chosen = recipe_parsing.load(recipe)
    tell_of_shared_name(recipe)
    say(f"{chosen.name} is valid; digest {chosen.digest()}")


@click.group(cls=Group)
@example("committee models summary standard")
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
    help="Of the images.",
)
@click.option("--classes", type=click.IntRange(2), default=10, show_default=True, help="How many there are.")
@example("committee models summary ensemble-cnn\ncommittee models summary standard --image-shape 32 32 3 --classes 5")
def models_summary(recipe: str, image_shape: tuple[int, int, int], classes: int) -> None:
    """The layers of RECIPE's network: output shapes, parameters, multiply-adds."""
    from committee.cli.tables import layers_table
    from committee.config import recipe_parsing
    from committee.nn.summary import layer_table

    chosen = recipe_parsing.load(recipe)
    height, width, channels = image_shape
    title = f"{chosen.name}, a member, for images of {height}x{width}x{channels} in {classes} classes"
    console().print(layers_table(title, layer_table(chosen.network, image_shape, classes)))
