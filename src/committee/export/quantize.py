"""The 8-bit form of an exported graph, and what it costs and saves.

Weights and values between layers become whole numbers of 8 bits (7 for weights: on processors without VNNI the sums of
two 8-bit products do not fit 16 bits, so that answers would depend on the machine). The ranges are fixed beforehand, by
training images. Where they are taken from the batch at hand instead ("dynamic"), an image's answer depends on its
company.
"""

from __future__ import annotations

import contextlib
import io
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import LabelledImages, Pixels
from committee.ensemble.export_record import Quantization
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.errors import require
from committee.export.proof import chosen, chunks
from committee.metrics.intervals import paired_difference
from committee.temporary import temporary_folder

CALIBRATED_ON = 512  # training images
OPERATIONS = ["Conv", "Gemm", "MatMul", "MaxPool", "Relu"]
SECONDS = 1.0  # a form's speed is measured for this long, five times in turn
BATCH = 64


@dataclass
class Batches:
    """Images for ONNX Runtime's calibration, a batch at a time."""

    batches: Iterator[Pixels]

    def get_next(self) -> dict[str, Pixels] | None:
        """The next batch; None after the last."""
        batch = next(self.batches, None)
        return None if batch is None else {"images": batch}


def quantized(graph: bytes, pixels: Pixels) -> bytes:
    """A graph in 8 bits.

    Args:
        graph: in float32, as `committee.export.graph.onnx_bytes` gives it.
        pixels: training images; some of them set the ranges.

    Raises:
        MissingExtraError: the packages onnx and onnxruntime are not installed.
    """
    purpose = "Quantizing an export"
    quantization = require("onnxruntime.quantization", extra="export", purpose=purpose)
    preparation = require("onnxruntime.quantization.shape_inference", extra="export", purpose=purpose)
    some = chosen(pixels, CALIBRATED_ON)
    batches = (some[start : start + BATCH] for start in range(0, len(some), BATCH))
    with (
        temporary_folder(4 * len(graph), "an export and its 8-bit form") as folder,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        logging.getLogger().setLevel(logging.ERROR)  # it recommends what was done
        first, prepared, result = (folder / f"{name}.onnx" for name in ("float", "prepared", "int8"))
        first.write_bytes(graph)
        preparation.quant_pre_process(first, prepared, skip_symbolic_shape=True)
        quantization.quantize_static(
            prepared,
            result,
            Batches(batches),
            quant_format=quantization.QuantFormat.QDQ,
            op_types_to_quantize=OPERATIONS,
            per_channel=True,
            reduce_range=True,
            activation_type=quantization.QuantType.QUInt8,
            weight_type=quantization.QuantType.QInt8,
            calibrate_method=quantization.CalibrationMethod.MinMax,
        )
        return result.read_bytes()


@contextlib.contextmanager
def _without_advice() -> Iterator[None]:
    """ONNX Runtime's quantization recommends, by the root logger, what was done."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(before)


def cost(
    small: OnnxCommittee,
    large: OnnxCommittee,
    sizes: tuple[int, int],
    train: LabelledImages,
    answers: NDArray[np.float64],
) -> Quantization:
    """What 8 bits cost and save, on all training images.

    Members trained on most of these images, so that the accuracies are no estimates for new ones; their difference
    tells how much answers change. The test images stay sealed.

    Args:
        small, large: in 8 bits, and in float32.
        sizes: of their files, in bytes.
        train: the training images.
        answers: (image, class), the probabilities of `small` for them.
    """
    labels, mine = train.labels, answers.argmax(1)
    theirs = np.concatenate([large.answer(chunk).probabilities.argmax(1) for chunk in chunks(train.pixels)])
    right, right_float = mine == labels, theirs == labels
    only_mine, only_theirs = int((right & ~right_float).sum()), int((right_float & ~right).sum())
    difference = (only_mine - only_theirs) / len(labels)
    speeds = speeds_in_turn(small, large, chosen(train.pixels, BATCH))
    return Quantization(
        on="the training images",
        images=len(labels),
        accuracy=float(right.mean()),
        accuracy_float=float(right_float.mean()),
        difference=difference,
        difference_interval=paired_difference(only_theirs, only_mine, len(labels)),
        labels_changed=int((mine != theirs).sum()),
        bytes=sizes[0],
        bytes_float=sizes[1],
        speed=float(np.median(speeds[0]) / np.median(speeds[1])),
        calibrated_on=min(CALIBRATED_ON, len(labels)),
    )


def speeds_in_turn(small: OnnxCommittee, large: OnnxCommittee, pixels: Pixels) -> tuple[NDArray[np.float64], ...]:
    """Images a second of both, five times in turn."""
    found: tuple[list[float], list[float]] = ([], [])
    for _ in range(5):
        for speeds, committee in zip(found, (small, large), strict=True):
            began, images = time.perf_counter(), 0
            while time.perf_counter() - began < SECONDS / 5:
                committee.answer(pixels)
                images += len(pixels)
            speeds.append(images / (time.perf_counter() - began))
    return tuple(map(np.array, found))
