"""The proof of an exported file, repeated elsewhere: with its .proof.json and the training images, without torch."""

from __future__ import annotations

import contextlib
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset
from committee.ensemble import onnx_committee
from committee.ensemble.classifier import Answers
from committee.ensemble.export_record import Agreement, ExportRecord
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.errors import RunError
from committee.export.converted_committee import ConvertedCommittee, opened
from committee.export.corners import COUNT, corners
from committee.export.proof import TOLERANCE, TOLERANCE_INT8, Comparison, chunks
from committee.export.proof_file import PARTS, path_of, read_proof, unpacked


def verify(path: Path, dataset: ImageDataset, python: Path | None = None) -> tuple[Agreement, Agreement]:
    """Compare an exported file with the trained committee's stored answers: at corners and on the training images.

    Args:
        path: the file; its proof lies beside it.
        dataset: the data of the training.
        python: the Python that has its runtime, for formats beside ONNX; None takes this one.

    Raises:
        RunError: the file is another one, the data are others, or an answer differs from the trained committee's.
    """
    stored = read_proof(path)
    with _asked(path, stored.committee, python) as exported:
        record, pixels = exported.record, dataset.train.pixels
        if dataset.part_digests()[0] != record.train_digest:
            raise RunError(
                f"{path} was proven on the {stored.proof.training_images.images:,} training images of {record.data}, "
                f"and {dataset.source} holds others; give the data of the training"
            )
        edge, classes = corners(record.image_shape, record.pixel_range), len(record.class_names)
        tolerance = (TOLERANCE_INT8 if record.quantization else TOLERANCE) + 1 / PARTS
        at_corners = Comparison("images at the corners of the input space", tolerance)
        on_training = Comparison("training images", tolerance)
        try:
            on_edge = unpacked(stored.corners, COUNT, classes)
            expected = unpacked(stored.training_images, len(pixels), classes)
        except (ValueError, zlib.error) as error:
            raise RunError(f"{path_of(path)} is damaged ({str(error)[:80]}); export again") from error
        at_corners.add(*_both(on_edge, exported.answer(edge)))
        start = 0
        for chunk in chunks(pixels):
            rows = expected[start : start + len(chunk)]
            on_training.add(*_both(rows, exported.answer(chunk)))
            start += len(chunk)
    return at_corners.checked(record.name), on_training.checked(record.name)


@contextlib.contextmanager
def _asked(
    path: Path, committee: ExportRecord | None, python: Path | None
) -> Iterator[OnnxCommittee | ConvertedCommittee]:
    if committee is None:
        yield onnx_committee.load(path)
    else:
        with opened(path, committee, python) as exported:
            yield exported


def _both(expected: NDArray[np.float64], found: Answers) -> tuple[Answers, Answers]:
    """Stored probabilities and an answer; members and familiar are not stored."""
    return Answers(expected, found.members, found.familiar), found
