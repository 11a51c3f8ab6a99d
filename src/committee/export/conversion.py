"""A run folder -> the committee for OpenVINO, ExecuTorch or LiteRT, proven as an .onnx file is.

NAME.xml (with NAME.bin), NAME.pte or NAME.tflite takes raw pixels and gives the outputs of `committee.export.graph`, in
their order. What these formats have no room for, the classes' names before all, stands in NAME.proof.json beside it,
with the proof. Converters run in a process of their own, by this Python or by another that has them: `other_runtimes`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from committee import disk
from committee.data.dataset import ImageDataset, Pixels
from committee.ensemble.committee import committee_of
from committee.ensemble.export_record import ExportRecord
from committee.export import other_runtimes
from committee.export.converted_committee import FORMATS, ROOM, WEIGHTS, Format, command, opened, run
from committee.export.graph import ExportedCommittee, onnx_bytes, program_of
from committee.export.onnx_file import in_float32, of_training, record_of
from committee.export.proof import Answering, Proven, prove
from committee.export.proof_file import write_proof
from committee.folders.run_folder import RunFolder
from committee.metrics.conformal import NotSure
from committee.temporary import temporary_folder


@dataclass(frozen=True)
class Converted:
    """A proven export in another format.

    Attributes:
        contents: bytes of the files, by their endings.
        form: of the files.
        record: what the .proof.json says of the committee.
        proven: its proof, with the answers that it rests on.
    """

    contents: dict[str, bytes]
    form: Format
    record: ExportRecord
    proven: Proven

    def write(self, path: Path) -> Path:
        """Write the files, and the proof beside them, whose path is returned."""
        for ending, content in self.contents.items():
            disk.write(path.with_suffix(ending), content)
        return write_proof(path, self.proven, self.form, self.record)


def convert(
    folder: RunFolder, dataset: ImageDataset, ending: str, unsure: NotSure | None = None, python: Path | None = None
) -> Converted:
    """Convert a finished run, and prove it on all of its training images.

    Args:
        folder: of the run, or of a study's model.
        dataset: its data; the test images stay sealed.
        ending: a key of `FORMATS`.
        unsure: its prediction sets and when it abstains.
        python: the Python that has converter and runtime; None takes this one.

    Raises:
        RunError: the conversion answers otherwise than the trained committee.
        CommitteeError: the converter is not installed, or cannot convert.
    """
    trained = committee_of(folder, folder.committee.members, "cpu")
    if not FORMATS[ending].familiar:
        trained = replace(trained, images=trained.images.model_copy(update={"familiarity": None}))
    reference = in_float32(trained)
    record = record_of(folder, reference).model_copy(update={"not_sure": unsure})
    module = ExportedCommittee(reference, unsure)
    return converted(module, record, reference.answer, of_training(trained), dataset.train.pixels, ending, python)


def converted(
    module: ExportedCommittee,
    record: ExportRecord,
    reference: Answering,
    trained: Answering | None,
    pixels: Pixels,
    ending: str,
    python: Path | None = None,
) -> Converted:
    """A module in another format, once it is proven to answer as `reference`; see `committee.export.proof.prove`."""
    form = FORMATS[ending]
    with temporary_folder(ROOM, f"the conversion for {form.name}") as place:
        target = place / f"committee{ending}"
        if ending == ".xml":
            source = target.with_suffix(".onnx")
            source.write_bytes(onnx_bytes(module))
        else:
            source = target.with_suffix(".pt2")
            torch.export.save(program_of(module, other_runtimes.BATCH[ending]), source)
        printed = run(command(python, "convert", source, target), form)
        endings = (ending, WEIGHTS) if form.weights else (ending,)
        contents = {each: target.with_suffix(each).read_bytes() for each in endings}
        with opened(target, record, python) as exported:
            packages = json.loads(printed.splitlines()[-1])
            proven = prove(exported, contents[ending], reference, trained, pixels, packages=packages)
    return Converted(contents, form, record, proven)
