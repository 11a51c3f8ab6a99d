"""NAME.proof.json beside an exported file: its proof, and what `committee verify` needs to repeat it elsewhere.

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
from committee.ensemble.classifier import ONNX
from committee.ensemble.export_record import ExportRecord, Proof
from committee.ensemble.onnx_committee import LARGEST
from committee.errors import RunError
from committee.export.converted_committee import WEIGHTS, Format
from committee.export.proof import Proven
from committee.folders import files
from committee.names import json_text

PARTS = 65535


class ProofFile(Record):
    """What the file holds.

    Attributes:
        file: SHA-256 of the exported file.
        classes: of a row of the answers.
        corners, training_images: the trained committee's probabilities, (image, class) row by row, packed by `packed`.
        runtime: that answers.
        lost: what an .onnx file has and this has not, a sentence each.
        weights: SHA-256 of the .bin file of an .xml file.
        committee: what an .onnx file says of itself, for files that cannot.
    """

    file: str
    classes: int
    proof: Proof
    corners: str
    training_images: str
    runtime: str = "ONNX Runtime"
    lost: tuple[str, ...] = ()
    weights: str | None = None
    committee: ExportRecord | None = None


def path_of(path: Path) -> Path:
    """Where the proof of an exported file lies: NAME.proof.json for NAME.onnx, NAME.pte.proof.json for NAME.pte."""
    return path.with_suffix(".proof.json") if path.suffix == ONNX else path.with_name(f"{path.name}.proof.json")


def write_proof(path: Path, proven: Proven, form: Format | None = None, committee: ExportRecord | None = None) -> Path:
    """Write the proof of an exported file, which is there already, and say where.

    Args:
        path: of the file.
        proven: the proof.
        form: the format beside ONNX; None for that.
        committee: what the file would say of itself, if its format had room for it.
    """
    record = ProofFile(
        file=digest_of(path),
        classes=proven.corners.shape[1],
        proof=proven.proof,
        corners=packed(proven.corners),
        training_images=packed(proven.training_images),
        committee=committee,
    )
    if form:
        weights = digest_of(path.with_suffix(WEIGHTS)) if form.weights else None
        record = record.model_copy(update={"runtime": form.name, "lost": form.lost, "weights": weights})
    disk.write(path_of(path), (json_text(record.model_dump(mode="json"), indent=1) + "\n").encode())
    return path_of(path)


def read_proof(path: Path) -> ProofFile:
    """The proof of an exported file, which is the very file that was proven.

    Raises:
        RunError: it is missing, damaged, or another file's.
    """
    place = path_of(path)
    try:
        stored = ProofFile.model_validate_json(files.read_bytes(place, LARGEST))
    except ValidationError as error:
        raise RunError(f"{place} is no proof of an export; export again") from error
    proven = {path: stored.file} | ({path.with_suffix(WEIGHTS): stored.weights} if stored.weights else {})
    for file, digest in proven.items():
        if digest_of(file) != digest:
            raise RunError(f"{file} is not the file that {place} proves; give those that were written together")
    return stored


def digest_of(path: Path) -> str:
    """SHA-256 of a file."""
    return hashlib.sha256(files.read_bytes(path, LARGEST)).hexdigest()


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
