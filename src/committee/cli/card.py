"""The command that hands a committee over: card."""

from __future__ import annotations

import re
from pathlib import Path

import click

from committee.cli import ends
from committee.cli.options import data_dir_option, example, folder_type, run_argument
from committee.errors import counted
from committee.names import file_name
from committee.terminal import say


def license_id(context: click.Context, parameter: click.Parameter, value: str | None) -> str | None:
    """An option's licence, as the Hugging Face hub spells it."""
    if value is None or re.fullmatch(r"[a-z0-9][a-z0-9.+-]*", value.lower()):
        return value and value.lower()
    raise click.BadParameter(f"an identifier of the Hugging Face hub is expected, such as apache-2.0, got {value!r}")


@click.command()
@run_argument
@click.argument("folder", required=False, type=folder_type)
@click.argument("data", required=False)
@data_dir_option
@click.option(
    "--license",
    "license_id",
    callback=license_id,
    metavar="ID",
    help="The model's licence, as the hub spells it, such as mit or apache-2.0. Without it, the card says that none is "
    "stated.",
)
@click.option(
    "--bundle",
    "with_bundle",
    is_flag=True,
    help="The run itself goes in, too, as run.committee, with the training images that its report shows.",
)
@example("committee card runs/mnist-5k-standard-seed0\ncommittee card runs/photos photos-card --license mit")
def card(
    run: Path, folder: Path | None, data: str | None, data_dir: Path | None, license_id: str | None, with_bundle: bool
) -> None:
    """Write all that others need to use and judge the committee of RUN into FOLDER.

    FOLDER is NAME-card, unless it is given. It is what the Hugging Face hub expects of a model: README.md, a model card
    with figures, their intervals and limits; model.onnx with its proof; example.py, which classifies images with it and
    needs onnxruntime, numpy and pillow only; the recipe; and Croissant metadata of the data set. No image is in it.

    Nothing is trained, and no test image is opened. The same command again replaces the files. DATA says where the data
    set is now, if it was moved.
    """
    from committee.export.card import check_free, write_card
    from committee.folders.run_folder import RunFolder
    from committee.runs.reloading import dataset_of

    place = folder or Path(f"{file_name(run.resolve().name.removesuffix('.committee'))}-card")
    check_free(place)
    source = RunFolder.finished(run)
    dataset = dataset_of(source, data, data_dir)
    say(f"Exporting, and comparing the answers for {counted(len(dataset.train), 'training image')} ...", err=True)
    for path in write_card(source, dataset, place, license_id=license_id, with_bundle=with_bundle):
        say(f"Written: {path}")
    if license_id is None:
        say("Note: no licence is stated; --license ID states one", err=True)
    ends.note_missing_members(run)
