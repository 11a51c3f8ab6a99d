"""NAME.proof.json beside an exported NAME.onnx: its proof, and what `committee verify` needs to repeat it elsewhere.

The trained committee's answers lie in the file, so that neither the run nor torch is needed: probabilities in parts of
65,535, compressed, in base64.
"""

from __future__ import annotations

import base64
import hashlib
import zlib
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from committee import disk
from committee.config.record import Record
from committee.data.dataset import ImageDataset
from committee.ensemble import onnx_committee
from committee.ensemble.classifier import Answers
from committee.ensemble.export_record import Agreement, Proof
from committee.ensemble.onnx_committee import LARGEST
from committee.errors import RunError
from committee.export.corners import COUNT, corners
from committee.export.proof import TOLERANCE, TOLERANCE_INT8, Comparison, Proven, chunks
from committee.folders import files
from committee.names import json_text

PARTS = 65535


class ProofFile(Record):
    """What the file holds.

    Attributes:
        file: SHA-256 of the .onnx file.
        classes: of a row of the answers.
        corners, training_images: the trained committee's probabilities, (image, class) row by row, packed by `packed`.
    """

    file: str
    classes: int
    proof: Proof
    corners: str
    training_images: str


def path_of(path: Path) -> Path:
    """Where the proof of an exported file lies."""
    return path.with_suffix(".proof.json")


def write_proof(path: Path, proven: Proven) -> Path:
    """Write the proof of an exported file, which is there already, and say where."""
    record = ProofFile(
        file=hashlib.sha256(files.read_bytes(path, LARGEST)).hexdigest(),
        classes=proven.corners.shape[1],
        proof=proven.proof,
        corners=packed(proven.corners),
        training_images=packed(proven.training_images),
    )
    disk.write(path_of(path), (json_text(record.model_dump(mode="json"), indent=1) + "\n").encode())
    return path_of(path)


def packed(probabilities: NDArray[np.float64]) -> str:
    """Probabilities (image, class) as text."""
    parts = np.rint(probabilities * PARTS).astype("<u2")
    return base64.b64encode(zlib.compress(parts.tobytes(), 9)).decode()


def unpacked(text: str, images: int, classes: int) -> NDArray[np.float64]:
    """Probabilities (image, class) from `packed` text.

    Raises:
        ValueError: it holds something else.
    """
    size = 2 * images * classes
    unpacking = zlib.decompressobj()
    content = unpacking.decompress(base64.b64decode(text, validate=True), size + 1)
    if len(content) != size:
        raise ValueError(f"{len(content)} bytes for {images} images of {classes} classes")
    return np.frombuffer(content, "<u2").reshape(images, classes) / PARTS


def verify(path: Path, dataset: ImageDataset) -> tuple[Agreement, Agreement]:
    """Repeat the proof of an exported file, on this machine and without the run: at corners and on training images.

    Args:
        path: the .onnx file; its proof lies beside it.
        dataset: the data of the training.

    Raises:
        RunError: the file is another one, the data are others, or an answer differs from the trained committee's.
    """
    exported = onnx_committee.load(path)
    place = path_of(path)
    try:
        stored = ProofFile.model_validate_json(files.read_bytes(place, LARGEST))
    except ValidationError as error:
        raise RunError(f"{place} is no proof of an export; export again") from error
    if stored.file != exported.digest:
        raise RunError(f"{path} is not the file that {place} proves; give the two that were written together")
    record, pixels = exported.record, dataset.train.pixels
    if dataset.part_digests()[0] != record.train_digest:
        raise RunError(
            f"{path} was proven on the {stored.proof.training_images.images:,} training images of {record.data}, and "
            f"{dataset.source} holds others; give the data of the training"
        )
    edge, classes = corners(record.image_shape, record.pixel_range), len(record.class_names)
    tolerance = (TOLERANCE_INT8 if record.quantization else TOLERANCE) + 1 / PARTS
    at_corners = Comparison("images at the corners of the input space", tolerance)
    on_training = Comparison("training images", tolerance)
    try:
        expected = [unpacked(stored.corners, COUNT, classes), unpacked(stored.training_images, len(pixels), classes)]
    except (ValueError, zlib.error) as error:
        raise RunError(f"{place} is damaged ({str(error)[:80]}); export again") from error
    at_corners.add(*_both(expected[0], exported.answer(edge)))
    start = 0
    for chunk in chunks(pixels):
        rows = expected[1][start : start + len(chunk)]
        on_training.add(*_both(rows, exported.answer(chunk)))
        start += len(chunk)
    return at_corners.checked(record.name), on_training.checked(record.name)


def _both(expected: NDArray[np.float64], found: Answers) -> tuple[Answers, Answers]:
    """Stored probabilities and an answer; members and familiar are not stored."""
    return Answers(expected, found.members, found.familiar), found
