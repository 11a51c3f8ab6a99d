"""Does an exported committee answer as the trained one? Both are asked, for every training image and for corners.

The reference is the run's own members in float32, computed by torch. (In training and evaluation a CPU with kernels
computes in bfloat16: how far those answers lie from float32 is in the proof, too, since it is what a user would notice
who compares `committee predict` on the run with the exported file.) An export passes if every probability agrees to
`TOLERANCE`, and every label unless the two largest probabilities are closer than twice that.
"""

from __future__ import annotations

import hashlib
import os
import platform
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Pixels, spread
from committee.ensemble.classifier import Answers, Classifier
from committee.ensemble.export_record import Agreement, Proof
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.errors import RunError, counted, require
from committee.export.converted_committee import ConvertedCommittee
from committee.export.corners import corners
from committee.rng import numpy_generator

TOLERANCE = 1e-4
TOLERANCE_FAMILIAR = 0.03  # its shares have steps of 1/401, over which a rounding of the members' doubt may carry one
TOLERANCE_INT8 = 0.02  # of an 8-bit export on another machine, where a value at a limit is rounded the other way
CHUNK = 2048  # images that both answer before their answers are compared
ALONE = 100  # images that are asked by themselves
EVALUATED = 100  # and by onnx's reference evaluator

Answering = Callable[[Pixels], Answers]


@dataclass
class Comparison:
    """Sums up how far two ways of answering lie apart.

    Attributes:
        what: which images, for messages.
        tolerance: of probabilities.
        forbidden: labels that differ though the reference's margin is at least twice that.
    """

    what: str
    tolerance: float = TOLERANCE
    images: int = 0
    probabilities: float = 0.0
    members: float = 0.0
    familiar: float = 0.0
    labels: int = 0
    forbidden: int = 0

    def add(self, reference: Answers, found: Answers) -> None:
        """Compare the answers about some images."""
        self.images += len(reference.probabilities)
        self.probabilities = max(self.probabilities, _apart(reference.probabilities, found.probabilities))
        self.members = max(self.members, _apart(reference.members, found.members))
        known = ~np.isnan(reference.familiar)
        self.familiar = max(self.familiar, _apart(reference.familiar[known], found.familiar[known]))
        differ = reference.probabilities.argmax(1) != found.probabilities.argmax(1)
        largest = np.sort(reference.probabilities, axis=1)[:, -2:]
        self.labels += int(differ.sum())
        self.forbidden += int((differ & (largest[:, 1] - largest[:, 0] >= 2 * self.tolerance)).sum())

    def agreement(self) -> Agreement:
        """The figures."""
        return Agreement(
            images=self.images,
            probabilities=self.probabilities,
            members=self.members,
            familiar=self.familiar,
            labels=self.labels,
        )

    def checked(self, name: str) -> Agreement:
        """The figures, where they are within the tolerances.

        Raises:
            RunError: they are not.
        """
        faults = [
            *([f"{counted(self.forbidden, 'label')} of {self.images:,} differ"] if self.forbidden else []),
            *(
                f"{what} differ by up to {value:.2g} where {most:g} is allowed"
                for what, value, most in (
                    ("the committee's probabilities", self.probabilities, self.tolerance),
                    ("a member's probabilities", self.members, self.tolerance),
                    ("values of familiar", self.familiar, TOLERANCE_FAMILIAR),
                )
                if not value <= most
            ),
        ]
        if faults:
            raise RunError(
                f"the export of {name} should answer as the trained committee and does not, on {self.what}: "
                f"{', '.join(faults)}; nothing was written, please report this with the output of committee --version "
                "and the recipe"
            )
        return self.agreement()


def _apart(a: NDArray[np.floating], b: NDArray[np.floating]) -> float:
    """The largest difference; infinite where shapes differ or something is no number."""
    if a.shape != b.shape:
        return np.inf
    difference = float(np.abs(a.astype(np.float64) - b).max(initial=0.0))
    return np.inf if np.isnan(difference) else difference


@dataclass(frozen=True)
class Proven:
    """A proof, and the reference's answers that it rests on, to be compared with elsewhere.

    Attributes:
        corners, training_images: (image, class), the reference's probabilities.
    """

    proof: Proof
    corners: NDArray[np.float64]
    training_images: NDArray[np.float64]


def prove(
    exported: OnnxCommittee | ConvertedCommittee,
    content: bytes,
    reference: Answering,
    trained: Answering | None,
    pixels: Pixels,
    progress: Callable[[int], None] = lambda done: None,
    packages: Mapping[str, str] = MappingProxyType({}),
) -> Proven:
    """The proof of an export.

    Args:
        exported: the committee of the file.
        content: its graph, the file's bytes without metadata.
        reference: the run's members in float32.
        trained: the run's members as they were trained and evaluated; None where that is in float32, too.
        pixels: all training images (image, height, width, channel).
        progress: is told how many of them are done.
        packages: further versions that took part, by package.

    Raises:
        RunError: an answer differs by more than the tolerances.
        MissingExtraError: the package onnx is not installed.
    """
    name, record = exported.record.name, exported.record
    at_corners = Comparison("images at the corners of the input space")
    edge = corners(record.image_shape, record.pixel_range)
    edge_answers = reference(edge)
    at_corners.add(edge_answers, exported.answer(edge))
    on_corners = at_corners.checked(name)
    on_training, precision = Comparison("training images"), Comparison("training images")
    answers = [np.empty((0, len(record.class_names)))]
    for chunk in chunks(pixels):
        expected = reference(chunk)
        on_training.add(expected, exported.answer(chunk))
        answers.append(expected.probabilities)
        if trained is not None:
            precision.add(trained(chunk), expected)
        progress(on_training.images)
    some = chosen(pixels, ALONE)
    few = chosen(np.concatenate([some, edge]), EVALUATED)
    proof = Proof(
        training_images=on_training.checked(name),
        corners=on_corners,
        alone=alone(exported, some, edge).checked(name),
        reference=evaluated(content, exported, few).checked(name) if isinstance(exported, OnnxCommittee) else None,
        training_precision=precision.agreement() if trained is not None else None,
        tolerance=TOLERANCE,
        tolerance_familiar=TOLERANCE_FAMILIAR,
        margin=2 * TOLERANCE,
        graph=hashlib.sha256(content).hexdigest(),
        versions={**versions(), **packages},
    )
    return Proven(proof, edge_answers.probabilities, np.concatenate(answers))


def chunks(pixels: Pixels) -> Iterator[Pixels]:
    """Images, `CHUNK` at a time."""
    return (pixels[start : start + CHUNK] for start in range(0, len(pixels), CHUNK))


def chosen(pixels: Pixels, count: int) -> Pixels:
    """Some images, spread evenly over all."""
    return pixels.take(spread(len(pixels), count), axis=0)


def alone(exported: Classifier, some: Pixels, company: Pixels) -> Comparison:
    """Images by themselves, and among others in batches of odd sizes, against the same images in one batch."""
    comparison = Comparison("images by themselves and in other company")
    together = exported.answer(some)
    for position in range(len(some)):
        comparison.add(_rows(together, [position]), exported.answer(some[position : position + 1]))
    rng = numpy_generator("company")
    for start in range(0, len(some), 7):
        mine = some[start : start + 7]
        others = company[rng.choice(len(company), 1 + start % 5, replace=False)]
        order = rng.permutation(len(mine) + len(others))
        answers = exported.answer(np.concatenate([mine, others])[order])
        places = np.argsort(order)[: len(mine)]
        comparison.add(_rows(together, range(start, start + len(mine))), _rows(answers, places))
    return comparison


def _rows(answers: Answers, positions: object) -> Answers:
    rows = np.asarray(positions)
    return Answers(answers.probabilities[rows], answers.members[:, rows], answers.familiar[rows])


def evaluated(content: bytes, exported: Classifier, pixels: Pixels) -> Comparison:
    """onnx's reference evaluator, plain NumPy that knows no optimisation, against ONNX Runtime.

    It sees what a runtime may hide: ONNX Runtime 1.32.0 leaves out dropout that was exported in training mode.
    """
    onnx = require("onnx", extra="export", purpose="The proof of an export")
    evaluator = require("onnx.reference", extra="export", purpose="The proof of an export").ReferenceEvaluator(
        onnx.load_model_from_string(content)
    )
    probabilities, members, familiar = evaluator.run(["probabilities", "members", "familiar"], {"images": pixels})
    comparison = Comparison("images in onnx's reference evaluator")
    comparison.add(
        exported.answer(pixels),
        Answers(probabilities.astype(np.float64), members, familiar.astype(np.float64)),
    )
    return comparison


def versions() -> dict[str, str]:
    """The packages that take part in a proof, and the machine."""
    from committee.nn import devices  # needs torch, which repeating a proof does not

    packages = ("committee", "onnx", "onnxruntime", "onnxscript", "torch", "numpy")
    found = {"python": platform.python_version(), "processor": devices.processor(), "cores": str(os.cpu_count())}
    for package in packages:
        try:
            found[package] = version(package)
        except ImportError:
            continue
    return found
