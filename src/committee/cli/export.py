"""The command export: a run -> a file that runs elsewhere."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from committee import disk
from committee.cli import ends
from committee.cli.options import data_dir_option, example, not_sure_options, python_option, run_argument
from committee.errors import CommitteeError, counted
from committee.terminal import say

if TYPE_CHECKING:
    from committee.ensemble.export_record import Proof
    from committee.export.conversion import Converted


@click.command()
@run_argument
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
@click.argument("data", required=False)
@data_dir_option
@not_sure_options
@click.option("--quantize", type=click.Choice(["int8"]), help="Whole numbers of 8 bits: a third of the size.")
@click.option(
    "--runtime",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="For a page: the file of npm's package onnxruntime-web, where npm is not at hand.",
)
@python_option
@example(
    "committee export runs/mnist-5k-standard-seed0 digits.onnx\n"
    "committee export RUN digits.onnx --coverage .99 --precision .999"
)
def export(
    run: Path,
    out: Path,
    data: str | None,
    data_dir: Path | None,
    coverage: float | None,
    precision: float | None,
    by_class: bool,
    quantize: str | None,
    runtime: Path | None,
    python: Path | None,
) -> None:
    """Export RUN, or a study's model, to OUT, one file that answers without this program, and prove that it does.

    OUT is NAME.onnx: raw pixels in, probabilities, every member's vote and familiar out; scaling, members, combination
    and temperature are inside. The trained committee and the file answer for every training image and for 1,000 images
    at the corners of the input space, and nothing is written where they disagree. The proof is part of the file, and
    stands in NAME.proof.json beside it.

    OUT may also be NAME.html: the page of committee serve as one file, with the committee and ONNX Runtime for browsers
    inside, which npm fetches once. It is opened from a disk and needs neither a server nor a network.

    Or, with the same proof, NAME.xml for OpenVINO, NAME.pte for ExecuTorch, NAME.tflite for LiteRT. These formats have
    no room for what an .onnx file says of itself; NAME.xml.proof.json and so on say it beside them.

    With --coverage the file also gives a prediction set for each image, in_set, that has the true class as often as
    promised; with --precision also abstain, which says where there should be no answer.

    With --quantize int8, what was proven is then stored in 8 bits, with ranges fixed by training images, and what that
    changes is measured on all training images. It answers nearly the same, not the same.

    DATA says where the data set is now, if it was moved. predict takes the file in place of RUN.
    """
    from committee.ensemble.not_sure import not_sure
    from committee.export.conversion import convert
    from committee.export.converted_committee import FORMATS
    from committee.export.onnx_file import export as exported
    from committee.export.page import page
    from committee.export.web_runtime import web_runtime
    from committee.folders.run_folder import RunFolder
    from committee.runs.reloading import dataset_of

    form = out.suffix.lower()
    if form not in (".onnx", ".html", *FORMATS):
        raise CommitteeError(
            f"an export is NAME.onnx, a page NAME.html, or {' or '.join(f'NAME{each}' for each in FORMATS)}, got {out}"
            "; give such a name"
        )
    if form in FORMATS and (quantize or runtime):
        raise CommitteeError(
            f"--quantize and --runtime are for NAME.onnx and NAME.html, got {out}; leave them out, or give such a name"
        )
    web = web_runtime(runtime) if form == ".html" else None
    folder = RunFolder.finished(run, or_model=True)
    dataset = dataset_of(folder, data, data_dir)
    say(f"Exporting, and comparing the answers for {counted(len(dataset.train), 'training image')} ...", err=True)
    unsure = not_sure(folder, coverage, precision, by_class=by_class)
    if form in FORMATS:
        _say_converted(convert(folder, dataset, form, unsure, python), out.with_suffix(form))
        ends.note_missing_members(run)
        return
    file = exported(folder, dataset, unsure, int8=bool(quantize))
    if web is None:
        path = file.write(out)
    else:
        disk.write(out, page(folder, file, dataset, web))
        path = None
    say(f"{out}: {counted(file.record.members, 'member')}, {out.stat().st_size:,} bytes.")
    _say_proven(file.proof)
    if (small := file.record.quantization) is not None:
        low, high = (f"{100 * each:+.3f}" for each in (small.difference_interval.low, small.difference_interval.high))
        say(
            f"In 8 bits: {counted(small.labels_changed, 'label')} of {small.images:,} training images changed, "
            f"accuracy on them {100 * small.difference:+.3f} points (95 % interval {low} to {high}), "
            f"{small.bytes / small.bytes_float:.0%} of the size, {small.speed:.2f} times as many images a second on "
            "one thread here."
        )
    say(
        f"Proof: {path}"
        if path
        else "The page asks 64 of these images again whenever it is opened, and says what came out."
    )
    ends.note_missing_members(run)


def _say_converted(file: Converted, out: Path) -> None:
    """Write a conversion, and say what it is and what it lost."""
    path = file.write(out)
    size = sum(map(len, file.contents.values()))
    say(f"{out}, for {file.form.name}: {counted(file.record.members, 'member')}, {size:,} bytes.")
    _say_proven(file.proven.proof)
    for each in file.form.lost:
        say(f"Lost: {each}")
    say(f"Proof: {path}")


def _say_proven(proof: Proof) -> None:
    """What a proof found."""
    say(
        f"Proven on {proof.training_images.images:,} training images and {proof.corners.images:,} corners: "
        f"{counted(proof.training_images.labels + proof.corners.labels, 'label')} differ, probabilities by at most "
        f"{max(proof.training_images.probabilities, proof.corners.probabilities):.1e}; alone or in company by at most "
        f"{proof.alone.probabilities:.1e}."
    )
    if (other := proof.training_precision) is not None:
        say(
            f"The run itself answers in bfloat16, the file in float32: {counted(other.labels, 'label')} of "
            f"{other.images:,} training images differ between these, probabilities by at most "
            f"{other.probabilities:.2g}."
        )


def verify_export(path: Path, data: str | None, data_dir: Path | None, python: Path | None) -> None:
    """Repeat the proof of an exported file."""
    from committee.data.catalog import load_dataset
    from committee.export.verification import verify

    if data is None:
        raise CommitteeError(f"the proof of {path} is repeated on the images of its training; give their DATA, too")
    at_corners, on_training = verify(path, load_dataset(data, data_dir=data_dir), python)
    say(
        f"{path} answers here as the trained committee: {on_training.images:,} training images and "
        f"{at_corners.images:,} corners, {counted(on_training.labels + at_corners.labels, 'label')} differ, "
        f"probabilities by at most {max(on_training.probabilities, at_corners.probabilities):.1e}."
    )
