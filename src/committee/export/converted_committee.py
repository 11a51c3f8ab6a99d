"""A committee in OpenVINO, ExecuTorch or LiteRT, which answer from another process. Nothing here imports torch."""

from __future__ import annotations

import contextlib
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from committee.data.dataset import Pixels
from committee.data.read_options import ValueRange
from committee.ensemble.classifier import Answers, Classifier
from committee.ensemble.export_record import ExportRecord
from committee.errors import CommitteeError, RunError
from committee.export import other_runtimes
from committee.folders.records import ImagesRecord
from committee.temporary import temporary_folder

WEIGHTS = ".bin"
ROOM = 2**28  # bytes for a program, its conversion, and a chunk of images with their answers


@dataclass(frozen=True)
class Format:
    """A format beside ONNX.

    Attributes:
        name: of its runtime.
        package: that converts to it.
        install: the command that brings it.
        lost: what an .onnx file has and this has not, a sentence each.
        weights: whether they lie in a file of their own, NAME.bin.
        familiar: whether it computes `familiar`, which needs float64.
    """

    name: str
    package: str
    install: str
    lost: tuple[str, ...]
    weights: bool = False
    familiar: bool = True


UNKNOWN = "familiar is NaN, which stands for unknown: it needs float64."
NO_METADATA = "Classes, accuracy and preparation are not inside: they stand in the .proof.json."
FORMATS = {
    ".xml": Format(
        "OpenVINO",
        "openvino",
        "pip install 'committee[openvino]'",
        (
            NO_METADATA,
            "It is two files: the weights are in NAME.bin.",
            UNKNOWN,
            "On a processor with bfloat16 its runtime computes in that unless INFERENCE_PRECISION_HINT is f32; the "
            "proof holds with that setting.",
        ),
        weights=True,
        familiar=False,
    ),
    ".pte": Format(
        "ExecuTorch",
        "executorch",
        "pip install 'committee[executorch]'",
        (NO_METADATA, f"It takes at most {other_runtimes.BATCH['.pte']} images at once."),
    ),
    ".tflite": Format(
        "LiteRT",
        "litert-torch",
        "python -m venv litert && litert/bin/pip install litert-torch==0.10.0, and give --python litert/bin/python",
        (NO_METADATA, "It takes one image at a time.", UNKNOWN),
        familiar=False,
    ),
}


@dataclass(frozen=True, repr=False)
class ConvertedCommittee(Classifier):
    """An exported committee in another runtime.

    Attributes:
        runtime: the process of `other_runtimes`.
        folder: where images and answers lie on their way.
        form: of the file.
        record: what the export says of itself.
    """

    runtime: subprocess.Popen[str]
    folder: Path
    form: Format
    record: ExportRecord
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    value_range: ValueRange | None
    images: ImagesRecord
    device: str = field(default="cpu")

    def answer(self, pixels: Pixels) -> Answers:
        """What it says about images (image, height, width, channel).

        Raises:
            RunError: the runtime ended.
        """
        images, answers = self.folder / "images.npy", self.folder / "answers.npz"
        np.save(images, pixels)
        assert self.runtime.stdin is not None
        assert self.runtime.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.runtime.stdin.write(f"{images}\t{answers}\n")
            self.runtime.stdin.flush()
        for line in self.runtime.stdout:  # runtimes may print something of their own
            if line == other_runtimes.DONE:
                break
        else:
            raise RunError(f"{self.form.name} is expected to answer and ended instead: {_last_line(self.folder)}")
        with np.load(answers) as found:
            probabilities, members, familiar = (found[f"arr_{number}"] for number in range(3))
        return Answers(probabilities.astype(np.float64), members, familiar.astype(np.float64))


@contextlib.contextmanager
def opened(path: Path, record: ExportRecord, python: Path | None = None) -> Iterator[ConvertedCommittee]:
    """The committee of a converted file, as long as the block lasts.

    Args:
        path: NAME.xml, NAME.pte or NAME.tflite.
        record: what its proof says of it.
        python: the Python that has the runtime; None takes this one.
    """
    with (
        temporary_folder(ROOM, "images on their way to another runtime") as folder,
        (folder / "errors").open("wb") as errors,
        subprocess.Popen(
            command(python, "answer", path), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True
        ) as runtime,
    ):
        try:
            yield ConvertedCommittee(
                *(runtime, folder, FORMATS[path.suffix], record, record.class_names, record.image_shape),
                *(record.pixel_range, record.value_range, record.images),
            )
        finally:
            runtime.kill()  # it has nothing to lose, and some runtimes take long to end by themselves


def run(command: list[str], form: Format) -> str:
    """What a converter prints.

    Raises:
        CommitteeError: it is not installed, or cannot convert.
    """
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode == 0:
        return done.stdout
    lines = done.stderr.strip().splitlines() or [f"exit status {done.returncode}"]
    if "ModuleNotFoundError" in lines[-1]:
        raise CommitteeError(
            f"an export for {form.name} needs the package {form.package}, which {command[0]} has not; "
            f"install it with: {form.install}"
        )
    raise CommitteeError(f"{form.name}'s converter cannot convert this committee: {lines[-1][:300]}")


def command(python: Path | None, *arguments: str | Path) -> list[str]:
    """Runs `other_runtimes`."""
    return [str(python or sys.executable), other_runtimes.__file__, *map(str, arguments)]


def _last_line(folder: Path) -> str:
    lines = (folder / "errors").read_text(errors="replace").strip().splitlines()
    return lines[-1][:300] if lines else "it said nothing"
