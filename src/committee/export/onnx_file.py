"""A run folder -> one ONNX file that anything with an ONNX runtime can use, and the proof that it answers the same."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from committee import disk
from committee.data.dataset import ImageDataset, LabelledImages, Pixels
from committee.ensemble.committee import Committee, committee_of
from committee.ensemble.export_record import KEY, ExportRecord, Proof
from committee.ensemble.onnx_committee import from_bytes
from committee.errors import require
from committee.export.corners import corners
from committee.export.graph import OPSET, ExportedCommittee, onnx_bytes
from committee.export.proof import ALONE, Answering, Proven, alone, chosen, chunks, prove
from committee.export.proof_file import write_proof
from committee.export.quantize import cost, quantized
from committee.folders.folder import kind_of
from committee.folders.run_folder import RunFolder
from committee.metrics.conformal import NotSure
from committee.version import version


@dataclass(frozen=True)
class Exported:
    """A proven export.

    Attributes:
        content: the file's bytes.
        record: what it says of itself, the proof included.
        proven: its proof, with the answers that it rests on.
    """

    content: bytes
    record: ExportRecord
    proven: Proven

    @property
    def proof(self) -> Proof:
        """That it answers as the trained committee."""
        return self.proven.proof

    def write(self, path: Path) -> Path:
        """Write the file, and its proof beside it, whose path is returned."""
        disk.write(path, self.content)
        return write_proof(path, self.proven)


def export(
    folder: RunFolder,
    dataset: ImageDataset,
    unsure: NotSure | None = None,
    progress: Callable[[int], None] = lambda done: None,
    *,
    int8: bool = False,
) -> Exported:
    """Export a finished run and prove it on all of its training images.

    Args:
        folder: of the run, or of a study's model.
        dataset: its data; the test images stay sealed.
        unsure: its prediction sets and when it abstains.
        progress: is told how many training images are done.
        int8: whether to give the 8-bit form of what was proven, with what it costs and saves.

    Raises:
        RunError: the export answers otherwise than the trained committee.
        MissingExtraError: what exporting needs is not installed.
    """
    require("onnxruntime", extra="export", purpose="The proof of an export")
    trained = committee_of(folder, folder.committee.members, "cpu")
    reference = in_float32(trained)
    record = record_of(folder, reference).model_copy(update={"not_sure": unsure})
    graph = onnx_bytes(ExportedCommittee(reference, unsure))
    exported = proven(graph, record, reference, trained, dataset.train.pixels, progress)
    return in_int8(graph, exported, dataset.train) if int8 else exported


def in_int8(graph: bytes, exported: Exported, train: LabelledImages) -> Exported:
    """The 8-bit form of a proven export.

    Its proof is the one of the float32 form; its own answers are what `committee verify` compares with elsewhere.

    Raises:
        RunError: an image's answer depends on its company.
    """
    small = quantized(graph, train.pixels)
    files = [from_bytes(with_record(each, exported.record), "the export", threads=1) for each in (small, graph)]
    edge = corners(exported.record.image_shape, exported.record.pixel_range)
    alone(files[0], chosen(train.pixels, ALONE), edge).checked(exported.record.name)
    answers = np.concatenate([files[0].answer(chunk).probabilities for chunk in chunks(train.pixels)])
    quantization = cost(files[0], files[1], (len(small), len(graph)), train, answers)
    record = exported.record.model_copy(update={"quantization": quantization})
    own = Proven(exported.proof, files[0].answer(edge).probabilities, answers)
    return Exported(with_record(small, record), record, own)


def proven(
    graph: bytes,
    record: ExportRecord,
    reference: Committee,
    trained: Committee | None,
    pixels: Pixels,
    progress: Callable[[int], None] = lambda done: None,
) -> Exported:
    """A graph with its record, once it has been proven; see `committee.export.proof.prove`."""
    exported = from_bytes(with_record(graph, record), "the export")
    found = prove(exported, graph, reference.answer, of_training(trained), pixels, progress)
    record = record.model_copy(update={"proof": found.proof})
    return Exported(with_record(graph, record), record, found)


def of_training(trained: Committee | None) -> Answering | None:
    """How members answer in the precision of their training, where that is not the reference's."""
    return trained.answer if trained is not None and trained.precision != "float32" else None


def in_float32(committee: Committee) -> Committee:
    """The same members, computed in float32 by torch."""
    return replace(committee, precision="float32")


def record_of(folder: RunFolder, committee: Committee) -> ExportRecord:
    """What an exported committee says of itself, without a proof."""
    data = folder.data
    manifest = folder.manifest if kind_of(folder.path) == "run" else None
    return ExportRecord(
        name=folder.path.resolve().name,
        class_names=committee.class_names,
        image_shape=committee.image_shape,
        pixel_range=committee.pixel_range,
        value_range=committee.value_range,
        members=len(committee.networks),
        combination=committee.rule.how,
        weights=committee.rule.weights,
        temperature=committee.rule.temperature,
        tta=committee.tta,
        tta_confidence=committee.tta_confidence,
        images=committee.images,
        data=data.name,
        recipe=folder.recipe.name,
        recipe_digest=folder.recipe.digest(),
        train_digest=data.train_digest,
        test_digest=data.test_digest,
        weights_digest=folder.weights_digest(),
        test=manifest.test if manifest else None,
        out_of_fold=manifest.out_of_fold if manifest else None,
        test_openings=manifest.test_openings if manifest else 0,
        opset=OPSET,
        committee=version,
    )


def with_record(graph: bytes, record: ExportRecord) -> bytes:
    """A graph's bytes with the record in its metadata."""
    onnx = require("onnx", extra="export", purpose="Exporting to ONNX")
    model = onnx.load_model_from_string(graph)
    del model.metadata_props[:]
    model.metadata_props.add(key=KEY, value=record.model_dump_json())
    model.producer_name, model.producer_version = "committee", record.committee
    content: bytes = model.SerializeToString(deterministic=True)
    return content
