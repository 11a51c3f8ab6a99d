"""An exported committee in ONNX Runtime: an .onnx file -> a Classifier. Needs neither torch nor the run."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from pydantic import ValidationError

from committee.data.dataset import Pixels
from committee.data.read_options import ValueRange
from committee.ensemble.classifier import Answers, Classifier
from committee.ensemble.export_record import KEY, ExportRecord
from committee.errors import RunError, require
from committee.folders import files
from committee.folders.records import ImagesRecord

if TYPE_CHECKING:
    from onnxruntime import InferenceSession

BATCH = 64  # images at once; what they share is memory, not answers
LARGEST = 2**31 - 1  # bytes, of protobuf
RESTORE = "export it again"


@dataclass(frozen=True, repr=False)
class OnnxCommittee(Classifier):
    """An exported committee.

    Attributes:
        session: ONNX Runtime's.
        record: what the file says of itself.
        digest: SHA-256 of the file.
    """

    session: InferenceSession
    record: ExportRecord
    digest: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    value_range: ValueRange | None
    images: ImagesRecord
    device: str = field(default="cpu")

    def __repr__(self) -> str:
        size = "x".join(map(str, self.image_shape))
        return f"<OnnxCommittee of {self.record.members}: {size} images in {len(self.class_names)} classes>"

    def answer(self, pixels: Pixels) -> Answers:
        """What it says about images (image, height, width, channel).

        Raises:
            DataError: images of another shape or bit depth than the members were trained on.
            RunError: answers that are not finite numbers.
        """
        self.check_form(pixels)
        members, classes = self.record.members, len(self.class_names)
        if len(pixels) == 0:
            return Answers(np.empty((0, classes)), np.empty((members, 0, classes), np.float32), np.empty(0))
        outputs = ("probabilities", "members", "familiar")
        batches = [
            self.session.run(outputs, {"images": np.ascontiguousarray(pixels[start : start + BATCH])})
            for start in range(0, len(pixels), BATCH)
        ]
        probabilities, votes, familiar = (
            np.concatenate(parts, axis=axis) for parts, axis in zip(zip(*batches, strict=True), (0, 1, 0), strict=True)
        )
        if not np.isfinite(probabilities).all():
            raise RunError(
                f"the answers of the exported committee {self.record.name} are expected to be finite numbers and are "
                f"not, so that the file is damaged; {RESTORE}"
            )
        return Answers(probabilities.astype(np.float64), votes, familiar.astype(np.float64))


def load(path: str | Path) -> OnnxCommittee:
    """The committee of an .onnx file that `committee export` wrote.

    Raises:
        MissingExtraError: ONNX Runtime is not installed.
        RunError: the file is missing, damaged, or no exported committee.
    """
    return from_bytes(files.read_bytes(Path(path), LARGEST), str(path))


def from_bytes(content: bytes, place: str, *, threads: int = 0) -> OnnxCommittee:
    """The committee of an .onnx file's bytes.

    Args:
        content: the file's.
        place: where it is, for messages.
        threads: of ONNX Runtime; 0 takes all cores. Answers do not depend on it.

    Raises:
        As `load`.
    """
    runtime = require("onnxruntime", extra="onnx", purpose="Answering with an exported committee")
    options = runtime.SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # it takes cores from whoever else works
    try:
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # ONNX Runtime's own kinds, which it exports from a private module
        raise RunError(f"{place} is no ONNX file that ONNX Runtime can read ({_short(error)}); {RESTORE}") from error
    text = session.get_modelmeta().custom_metadata_map.get(KEY)
    if text is None:
        raise RunError(f"{place} is an ONNX file of another program; give one that committee export wrote")
    try:
        record = ExportRecord.model_validate_json(text)
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        field = ".".join(map(str, first["loc"]))[:80]
        raise RunError(
            f"{place} says of itself what this version of committee does not know ({field}: "
            f"{first['msg'].lower()[:200]}); read it with the version that wrote it, or {RESTORE}"
        ) from error
    _check(session, record, place)
    return OnnxCommittee(
        session,
        record,
        hashlib.sha256(content).hexdigest(),
        record.class_names,
        record.image_shape,
        record.pixel_range,
        record.value_range,
        record.images,
    )


def _check(session: InferenceSession, record: ExportRecord, place: str) -> None:
    """The graph takes and gives what the record says."""
    inputs = {each.name: (each.type, list(each.shape[1:])) for each in session.get_inputs()}
    outputs = {each.name: list(each.shape) for each in session.get_outputs()}
    kind = "tensor(uint8)" if record.pixel_range == 255 else "tensor(uint16)"
    classes = len(record.class_names)
    fits = (
        inputs == {"images": (kind, list(record.image_shape))}
        and outputs.get("probabilities", [])[1:] == [classes]
        and outputs.get("members", [])[::2] == [record.members, classes]
        and len(outputs.get("familiar", [])) == 1
    )
    if not fits:
        raise RunError(f"{place}: its graph does not fit what it says of itself, so that it was changed; {RESTORE}")


def _short(error: Exception) -> str:
    return " ".join(str(error).split())[:150]
