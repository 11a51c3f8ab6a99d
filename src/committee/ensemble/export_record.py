"""What an exported committee says of itself: the JSON that stands in its file's metadata under the key "committee"."""

from __future__ import annotations

from pydantic import Field

from committee.config.record import Record
from committee.data.read_options import ValueRange
from committee.folders.records import Combination, ImagesRecord, ScoreSummary
from committee.metrics.conformal import NotSure
from committee.metrics.results import Interval

KEY = "committee"

PREPARATION = (
    "Images of another size are resized to height x width (Pillow: bilinear, or the mean where they shrink), colour "
    "becomes grey or grey colour as the channels say; nothing else: pixels stay integers from 0 to pixel_range. "
    "Photographs of writing are first brought to the size, place and brightness of the training images, where "
    "`images.writing` gives these."
)


class Agreement(Record):
    """How far answers lie apart on some images.

    Attributes:
        images: that were answered twice.
        probabilities: the largest difference of a probability of the whole committee.
        members: of a single member.
        familiar: of `familiar`.
        labels: images whose label differs.
    """

    images: int
    probabilities: float
    members: float
    familiar: float
    labels: int


class Proof(Record):
    """That an exported committee answers as the trained one; see `committee.export.proof`.

    Attributes:
        training_images: the file in its runtime, which is ONNX Runtime for an .onnx file, against the run's members in
            float32, on all training images.
        corners: the same on images at the corners of the input space.
        alone: the file on images by themselves, and in other company, against the same images in large batches.
        reference: the file in onnx's reference evaluator against ONNX Runtime; None for other formats.
        training_precision: the run's members in the precision in which they were trained and evaluated against float32.
        tolerance: of probabilities; labels may differ only where the two largest are closer than `margin`.
        tolerance_familiar: of `familiar`, which moves in steps of one quantile.
        graph: SHA-256 of the file, without its metadata where it has some.
        versions: of the packages that took part, and the processor.
    """

    training_images: Agreement
    corners: Agreement
    alone: Agreement
    reference: Agreement | None
    training_precision: Agreement | None
    tolerance: float
    tolerance_familiar: float
    margin: float
    graph: str
    versions: dict[str, str]


class Quantization(Record):
    """What the 8-bit form of an export costs and saves.

    Attributes:
        on: which images the accuracies are of, in words.
        images: how many.
        accuracy, accuracy_float: of this file, and of the float32 form.
        difference: accuracy - accuracy_float, with its paired 95 % interval (Tango 1998).
        labels_changed: images that get another label.
        bytes, bytes_float: of the files.
        speed: images a second of this file by those of the float32 form, measured in turn on one thread.
        calibrated_on: training images that set the ranges.
    """

    on: str
    images: int
    accuracy: float
    accuracy_float: float
    difference: float
    difference_interval: Interval
    labels_changed: int
    bytes: int
    bytes_float: int
    speed: float
    calibrated_on: int


class ExportRecord(Record):
    """An exported committee.

    Attributes:
        format: of this record, 1.
        name: of the run.
        members, combination, weights, temperature, tta, tta_confidence: how members became one; all of it is inside the
            graph.
        images: what the training images look like.
        recipe_digest, train_digest, test_digest, weights_digest: what it was made of.
        test, out_of_fold: the committee's accuracy with its 95 % interval; None where it is not known.
        test_openings: how often the test images were opened.
        preparation: what happens to an image before it comes in.
        opset: of ONNX.
        not_sure: what it says instead of one class, by the outputs `in_set` and `abstain`.
        committee: the version that exported it.
    """

    format: int = Field(default=1, ge=1, le=1)
    name: str
    class_names: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    value_range: ValueRange | None = None
    members: int
    combination: Combination
    weights: tuple[float, ...] | None = None
    temperature: float
    tta: str
    tta_confidence: float = 1.0
    images: ImagesRecord
    data: str
    recipe: str
    recipe_digest: str
    train_digest: str
    test_digest: str
    weights_digest: str
    test: ScoreSummary | None = None
    out_of_fold: ScoreSummary | None = None
    test_openings: int = 0
    preparation: str = PREPARATION
    opset: int
    committee: str
    not_sure: NotSure | None = None
    quantization: Quantization | None = None
    proof: Proof | None = None
