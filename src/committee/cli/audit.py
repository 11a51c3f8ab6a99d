"""The command audit: suspected label errors among a run's training images, and what was decided about them."""

from __future__ import annotations

import json
from pathlib import Path

import click

from committee.cli import ends
from committee.cli.options import data_dir_option, example, json_option, run_argument
from committee.errors import counted
from committee.terminal import say


@click.command()
@run_argument
@click.argument("data", required=False)
@data_dir_option
@click.option(
    "--apply",
    "decisions",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    metavar="DECISIONS",
    help="Write corrected labels as decided in this table, which the page of the audit saves.",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    help="Folder for the page and the table, or with --apply the file of corrected labels.  [default: RUN-audit, or "
    "with --apply corrected.csv]",
)
@json_option
@example(
    "committee audit runs/photos\n"
    "committee audit runs/photos --apply decisions.csv --out corrected.csv\n"
    "committee train photos/ --labels corrected.csv"
)
def audit(
    run: Path, data: str | None, data_dir: Path | None, decisions: Path | None, out: Path | None, as_json: bool
) -> None:
    """Find labels of RUN's training images that are probably wrong.

    Each image is judged by the members that did not train on it: how probable is each class, and how usual is it that
    an image of that class has this label? The most suspect labels come first, with the class that is probably right, in
    a table and on a page to go through by keyboard: keep, change or drop. Nothing is trained, the test images stay
    sealed, and nothing is written into RUN.

    What the page saves becomes corrected labels with --apply; the data set's own files stay as they are. committee
    train --labels trains on them.

    DATA says where the data set is now, if it was moved.
    """
    from committee.folders.run_folder import RunFolder
    from committee.runs import audit as audits
    from committee.runs.reloading import loaded, source_of

    where = source_of(RunFolder.finished(run), data, data_dir)
    dataset = loaded(where)
    if decisions:
        out = out or Path("corrected.csv")
        original = loaded(where.model_copy(update={"labels": None})) if where.labels else dataset
        labels = Path(where.labels) if where.labels else None
        changed, dropped = audits.apply_decisions(run, dataset, decisions, original, labels, out)
        kept = len(original.train) - dropped
        if as_json:
            say(json.dumps({"labels": str(out), "kept": kept, "changed": changed, "dropped": dropped}))
            return
        say(f"{out}: {counted(kept, 'training image')}, labels of {changed:,} changed, {dropped:,} dropped.")
        say(f"Train with it: committee train {where.data} --labels {out}")
        return
    record, place = audits.audit(run, dataset, out)
    if as_json:
        say(json.dumps({**record.model_dump(mode="json"), "page": str(place.page), "table": str(place.table)}))
        return
    say(
        f"{record.data}: {counted(record.judged, 'training image')} judged out of fold; "
        f"{counted(record.suspected, 'label')} more probably wrong than right, {record.expected:,.0f} expected in all"
    )
    for note in record.notes:
        say(f"Note: {note}")
    say(f"Page: {place.page}")
    say(f"Table: {place.table}")
    ends.note_missing_members(run)
