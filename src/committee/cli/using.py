"""The commands that use finished runs: predict, evaluate, compare, bundle, verify, report."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from committee import disk
from committee.cli import ends
from committee.cli.export import verify_export
from committee.cli.options import (
    data_dir_option,
    device_option,
    example,
    json_option,
    key_type,
    not_sure_options,
    python_option,
    run_argument,
    run_type,
)
from committee.errors import CommitteeError, counted
from committee.terminal import console, say

if TYPE_CHECKING:
    from committee.data.prepare import How, Preparation
    from committee.ensemble.classifier import Classifier
    from committee.folders.run_folder import RunFolder
    from committee.metrics.conformal import NotSure


def show(folder: RunFolder, as_json: bool) -> None:
    """The end of a training or an evaluation."""
    from committee.cli import tables

    manifest = folder.manifest
    if as_json:
        summary = manifest.model_dump(mode="json", by_alias=True, exclude={"files", "digest"})
        contents = folder.contents_digest()
        say(json.dumps({"run": str(folder), "report": str(folder.report), **summary, "contents": contents}))
        return
    for warning in manifest.warnings:
        say(warning)
    results = folder.results
    say(tables.units(results))
    console().print(tables.members_table(results))
    for line in tables.closing_lines(results):
        say(line)
    say(f"Contents: {folder.contents_digest()} (committee verify compares every file)")
    say(f"Report: {folder.report}")


@click.command()
@run_argument
@click.argument("paths", nargs=-1, required=True, type=click.Path(path_type=Path, exists=True))
@click.option(
    "--format",
    "form",
    type=click.Choice(["table", "json", "csv", "parquet"]),
    help="How to write them.  [default: by the ending of --out, else a table]",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="Write to this file instead of standard output."
)
@click.option(
    "--prepare",
    type=click.Choice(["auto", "as-is", "digits"]),
    default="auto",
    show_default=True,
    help="Photographs of handwriting, for a committee of digits or characters: digits finds the ink and gives it the "
    "size, place and brightness of the training images; auto does so for images that differ in these; as-is only "
    "resizes.",
)
@device_option
@not_sure_options
@example(
    "committee predict runs/mnist-5k-standard-seed0 digit.png\n"
    "committee predict RUN images/ --out answers.csv\n"
    "committee predict RUN images/ --coverage .99 --precision .999"
)
def predict(
    run: Path,
    paths: Sequence[Path],
    form: str | None,
    out: Path | None,
    prepare: How,
    device: str,
    coverage: float | None,
    precision: float | None,
    by_class: bool,
) -> None:
    """Classify images with the committee of RUN.

    PATHS are image files, folders (with all below them), .npy or .npz arrays, CSV, Parquet, IDX or other files of the
    kinds that train reads. Each image gets its class, the committee's probabilities, and the disagreement: the fraction
    of members whose choice differs.

    The column familiar says whether an image is of the kind that the committee knows: the share of the training images,
    predicted out of fold, that were at least as unusual. It is spread evenly from 0 to 1 for images of that kind, and
    near 0 for others.

    With --coverage, each image gets a set of classes that has the true one as often as promised; with --precision,
    answers that are not certain enough are marked as none. Both are calibrated on the out-of-fold images of RUN; an
    exported committee has those that committee export was asked for.

    A Parquet file (--out answers.parquet) is written as images are read, so that there may be any number of them.

    Images that cannot be read are listed on standard error and at the end of files; the others are classified, and the
    exit code is 3.
    """
    from committee.ensemble.classifier import is_exported, load
    from committee.ensemble.not_sure import not_sure_of
    from committee.runs import predictions

    form = predictions.form_of(form, out)
    committee = load(run, device=device)
    if not is_exported(run):
        ends.note_missing_kernels(committee.device)
    preparation = committee.preparation(prepare)
    if form == "parquet" and out is not None:
        unsure = not_sure_of(run, committee, coverage, precision, by_class=by_class)
        stream_into(out, run, committee, paths, preparation, unsure)
        return
    images = committee.read_images(paths, preparation)
    for note in images.notes:
        say(f"Note: {note}", err=True)
    unsure = not_sure_of(run, committee, coverage, precision, by_class=by_class)
    answers = predictions.predict(committee, images.names, images.pixels, unsure)
    predictions.write(replace(answers, unreadable=images.unreadable), form, out)
    if not is_exported(run):
        ends.note_missing_members(run)
    for note in predictions.remarks(answers, preparation):
        say(f"Note: {note}", err=True)
    if images.unreadable:
        say(*tell_of_unreadable(images.unreadable, len(images.names)), err=True)
        raise SystemExit(ends.INCOMPLETE)


def stream_into(
    out: Path,
    run: Path,
    committee: Classifier,
    paths: Sequence[Path],
    preparation: Preparation,
    unsure: NotSure | None,
) -> None:
    """Any number of images into a Parquet file."""
    from committee.cli.counting import counting
    from committee.ensemble.classifier import is_exported
    from committee.runs.prediction_stream import predict_into

    def note(text: str) -> None:
        say(f"Note: {text}", err=True)

    with disk.failures_said(out), counting("images") as on_images:
        written = predict_into(
            out,
            committee,
            committee.stream_images(paths, preparation),
            preparation,
            unsure,
            on_images=on_images,
            on_note=note,
        )
    if not is_exported(run):
        ends.note_missing_members(run)
    for remark in written.remarks:
        note(remark)
    if written.unreadable:
        say(*tell_of_unreadable(written.unreadable, written.images), err=True)
        raise SystemExit(ends.INCOMPLETE)


def tell_of_unreadable(unreadable: Sequence[tuple[str, str]], read: int) -> list[str]:
    """What is printed where a prediction lacks images: how many, and the first ten with their reasons."""
    return [
        f"{counted(len(unreadable), 'image')} cannot be read and {counted(read, 'image')} can:",
        *(f"  {sentence}" for _, sentence in unreadable[:10]),
        *([f"  and {len(unreadable) - 10:,} more"] if len(unreadable) > 10 else []),
    ]


@click.command()
@run_argument
@click.argument("data", required=False)
@data_dir_option
@click.option("--again", is_flag=True, help="Evaluate again, although the test images are open already.")
@json_option
@example("committee train mnist-5k --keep-sealed --out runs/a\ncommittee evaluate runs/a")
def evaluate(run: Path, data: str | None, data_dir: Path | None, again: bool, as_json: bool) -> None:
    """Evaluate RUN on its sealed test images.

    Do this once training and all choices are done: it opens the seal, notes that in the record, and writes the report
    again. A run whose test images are open already is only shown, unless --again is given.

    DATA says where the data set is now, if it was moved.
    """
    from committee.folders.run_folder import RunFolder
    from committee.runs import run as runs
    from committee.runs.reloading import loaded, source_of

    folder = RunFolder.finished(run, to_write=True)
    if folder.manifest.test_openings and not again:
        say(f"The test images of {run} are open already; showing its results (--again evaluates again).", err=True)
        show_evaluated(folder, as_json)
        return
    if folder.data.reload is None and data is None:
        raise CommitteeError(
            f"{run} was trained from Python on arrays; give its DATA, or call committee.evaluate(run, dataset)"
        )
    dataset = loaded(source_of(folder, data, data_dir))
    ends.note_missing_kernels(folder.identity.device)
    runs.evaluate(run, dataset)
    show_evaluated(RunFolder(run), as_json)


def show_evaluated(folder: RunFolder, as_json: bool) -> None:
    """The end of an evaluation, also of one that had been done already."""
    show(folder, as_json)
    ends.note_missing_members(folder.path)
    if not folder.manifest.is_complete:
        raise SystemExit(ends.INCOMPLETE)


@click.command()
@click.argument("run_a", type=run_type)
@click.argument("run_b", type=run_type)
@click.option(
    "--on", type=click.Choice(["test", "out-of-fold"]), default="test", show_default=True, help="Which images."
)
@json_option
@example("committee compare runs/a runs/b")
def compare(run_a: Path, run_b: Path, on: str, as_json: bool) -> None:
    """Compare two runs on the same images.

    Prints the difference with its interval, the exact McNemar test, and a verdict in words.
    """
    from committee.runs.comparison import as_json as to_json
    from committee.runs.comparison import as_text, compare_runs

    comparison = compare_runs(run_a, run_b, on)
    say(*([to_json(comparison)] if as_json else as_text(comparison, run_a, run_b, on)))
    ends.note_missing_members(run_a, run_b)


@click.command()
@run_argument
@click.argument("out", required=False, type=click.Path(path_type=Path, dir_okay=False))
@click.option("--sign", "private_key", type=key_type, help="Sign it with this private key (PEM): OUT.sig is written.")
@example("committee bundle runs/mnist-5k-standard-seed0 digits.committee")
def bundle(run: Path, out: Path | None, private_key: Path | None) -> None:
    """Make one file of RUN, or of a study's model, to be shared.

    OUT is NAME.committee in the current folder, unless it is given. predict, compare, verify, train --from and
    committee.load take the file in place of the folder. The same run gives the same bytes. It is a zip: unzip OUT -d
    FOLDER gives the folder back.
    """
    from committee.folders import signature
    from committee.folders.bundle import ENDING, write_bundle
    from committee.folders.run_folder import RunFolder

    folder = RunFolder.finished(run, or_model=True)
    folder.verify(shown_too=True)
    sign = signature.signer(private_key) if private_key else None
    path = out or Path(folder.path.resolve().name + ENDING)
    count = write_bundle(folder, path)
    say(f"{path}: {counted(count, 'file')}, {path.stat().st_size:,} bytes.")
    if sign:
        say(f"Signature: {sign(path)}")
    elif (old := signature.path_of(path)).exists():
        disk.remove(old)
        say(f"Note: {old} was the signature of an earlier file and is removed; --sign KEY signs this one", err=True)
    ends.note_missing_members(run)


@click.command()
@run_argument
@click.argument("data", required=False)
@click.option("--key", "public_key", type=key_type, help="Check the signature beside a bundle with this public key.")
@data_dir_option
@python_option
@example(
    "committee verify runs/mnist-5k-standard-seed0\ncommittee verify digits.committee --key public.pem\n"
    "committee verify digits.onnx mnist-5k"
)
def verify(run: Path, data: str | None, public_key: Path | None, data_dir: Path | None, python: Path | None) -> None:
    """Compare every file of RUN, of a study's folder or of a bundle, with what was written.

    Every other command compares the files that it reads; this one looks at all of them, the page and its figures, too.
    With --key, it is the bundle's author who wrote them.

    For an .onnx file of committee export, with its .proof.json beside it and the training's DATA, the proof that it
    answers as the trained committee is repeated on this machine; PyTorch is not needed for that. So it is for its files
    in other formats, where their runtime is installed.
    """
    from committee.ensemble.classifier import is_exported
    from committee.export.converted_committee import FORMATS

    if is_exported(run) or run.suffix in FORMATS:
        verify_export(run, data, data_dir, python)
        return
    from committee.folders import signature
    from committee.folders.folder import Folder, kind_of
    from committee.folders.run_folder import RunFolder
    from committee.folders.study_folder import StudyFolder

    if public_key:
        if not run.is_file():
            raise CommitteeError(f"--key checks the signature of a bundle, and {run} is none; see committee bundle")
        signature.check(run, public_key)
    folder: Folder = RunFolder.at(run)
    kind = kind_of(folder.path)
    folder = StudyFolder.finished(run) if kind == "study" else RunFolder.finished(run, or_model=True)
    count = folder.verify(shown_too=True)
    say(f"{run}: all {count:,} files of this {kind} are those that were written.")
    say(f"Contents: {folder.contents_digest()}")
    if isinstance(folder, RunFolder):
        say(f"Members: {folder.weights_digest()} (trainings with one recipe, data and seed share it)")
    if others := folder.others():
        names = f"{', '.join(others[:3])}{', ...' * (len(others) > 3)}"
        lie = "other file lies" if len(others) == 1 else "other files lie"
        say(f"Note: {len(others):,} {lie} in {run} ({names}); no command reads what the run does not list", err=True)
    if public_key:
        say(f"Signed with the key of {public_key}.")
    elif run.is_file() and (unchecked := signature.path_of(run)).exists():
        say(f"Note: {unchecked} is not checked; --key PUBLIC, with its author's public key, checks it", err=True)
    ends.note_missing_members(run)


@click.command()
@run_argument
@example("committee report runs/mnist-5k-standard-seed0\ncommittee report runs/mnist-study-ladder-seed0")
def report(run: Path) -> None:
    """Write the report of RUN, or the page of a study's folder, again.

    Tables, figures and the page come from the folder's own files; nothing is trained or opened.
    """
    from committee.folders.folder import kind_of
    from committee.folders.run_folder import RunFolder
    from committee.folders.study_folder import StudyFolder
    from committee.runs.evaluation import write_report
    from committee.studies.run import write_page

    if not run.is_file() and kind_of(run) == "study":
        study = StudyFolder.finished(run)
        with study.locked():
            write_page(study)
        say(f"Report: {study.page}")
    else:
        folder = RunFolder.finished(run, to_write=True)
        with folder.locked():
            write_report(folder, page_only=True)
        say(f"Report: {folder.report}")
