"""The command data prepare."""

from __future__ import annotations

import os
from pathlib import Path

import click

from committee.cli.options import data_dir_option, example, read_options
from committee.data.read_options import ReadOptions
from committee.terminal import say


@click.command("prepare")
@click.argument("name_or_path", metavar="DATA")
@click.argument("out", type=click.Path(path_type=Path, file_okay=False))
@data_dir_option
@read_options
@click.option(
    "--workers",
    type=click.IntRange(1, 256),
    help="Processes that read Parquet files at once.  [default: one for each core]",
)
@example("committee data prepare big.parquet big/\ncommittee train big/")
def data_prepare(
    name_or_path: str, out: Path, data_dir: Path | None, read_options: ReadOptions, workers: int | None
) -> None:
    """Write DATA into the folder OUT in shards, which training and prediction stream over.

    Do this once for data that are many or slow to read. OUT is a data set like others for all commands: the same images
    in the same order with the same digest, its test images sealed again. Its pixels are mapped into memory, not read,
    so that millions of images need no more memory than thousands; what has been found out about them is stored.

    Parquet files are read a piece at a time, by all cores, and so is what uncompressed NPY and IDX files hold; other
    formats are read whole first. After an interruption the same command keeps the shards that are there.
    """
    from committee.cli import ends
    from committee.cli.counting import counting
    from committee.runs.preparing import prepare, source_of

    source = source_of(name_or_path, data_dir, read_options)
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with (
        ends.told_how_to_go_on(lambda: f"The shards that are finished are kept in {out}"),
        counting("shards") as on_shard,
    ):
        record = prepare(source, out, workers=workers or cores, on_shard=on_shard)
    for note in record.notes:
        say(f"Note: {note}", err=True)
    shards = len(record.train.shards) + len(record.test.shards)
    say(f"{out}: {record.train.images:,} training and {record.test.images:,} sealed test images in {shards:,} shards")
    say(f"Digest: {record.digest}")
