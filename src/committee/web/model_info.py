"""A run folder, a bundle or an .onnx file, and its classifier -> what the page and `/v1/model` say of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from committee.config.record import Record
from committee.ensemble.classifier import Classifier
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.folders.records import ScoreSummary
from committee.metrics.conformal import NotSure
from committee.version import version


class Accuracy(Record):
    """An accuracy with its 95 % interval, and of what images it is."""

    of: Literal["test", "out of fold"]
    accuracy: float
    interval: tuple[float, float]
    images: int


class ModelInfo(Record):
    """The committee that answers.

    Attributes:
        digest: equal digests, equal files.
        image_shape: height, width, channels.
        pixel_range: 255 or 65535.
        writing: whether the training images are isolated writing, so that drawing makes sense.
        coverage: with which an answer's `set` holds the true class; None without sets.
        precision: of the answers that do not `abstain`; None where it never does.
        corrections: whether corrections are stored.
    """

    name: str
    digest: str
    classes: tuple[str, ...]
    image_shape: tuple[int, int, int]
    pixel_range: int
    members: int
    recipe: str
    data: str
    accuracy: Accuracy | None
    writing: bool
    coverage: float | None
    precision: float | None
    corrections: bool
    engine: Literal["committee", "onnx"]
    version: str


def model_info(path: Path, classifier: Classifier, unsure: NotSure | None, *, corrections: bool) -> ModelInfo:
    """What is said of a committee.

    Args:
        path: where it was loaded from.
        classifier: what was loaded.
        unsure: what it says instead of one class.
        corrections: whether corrections are stored.
    """
    sets, abstention = (unsure.sets, unsure.abstention) if unsure else (None, None)
    common = ModelInfo(
        name=path.resolve().stem if path.is_file() else path.resolve().name,
        digest="",
        classes=classifier.class_names,
        image_shape=classifier.image_shape,
        pixel_range=classifier.pixel_range,
        members=0,
        recipe="",
        data="",
        accuracy=None,
        writing=classifier.images.writing is not None,
        coverage=sets and sets.coverage,
        precision=abstention and abstention.precision,
        corrections=corrections,
        engine="committee",
        version=version,
    )
    of_its_own = _of_onnx(classifier) if isinstance(classifier, OnnxCommittee) else _of_run(path)
    return common.model_copy(update=of_its_own)


def _of_run(path: Path) -> dict[str, object]:
    from committee.folders.folder import kind_of  # these need torch, which an .onnx file does not
    from committee.folders.run_folder import RunFolder

    folder = RunFolder.at(path)
    summary = folder.manifest if kind_of(folder.path) == "run" else None  # a study's model has none of its own
    return {
        "digest": folder.contents_digest(),
        "members": len(folder.committee.members),
        "recipe": folder.recipe.name,
        "data": folder.data.name,
        "accuracy": summary and _accuracy(summary.test, summary.out_of_fold),
    }


def _of_onnx(committee: OnnxCommittee) -> dict[str, object]:
    record = committee.record
    return {
        "name": record.name,
        "digest": committee.digest,
        "members": record.members,
        "recipe": record.recipe,
        "data": record.data,
        "accuracy": _accuracy(record.test, record.out_of_fold),
        "engine": "onnx",
    }


def _accuracy(test: ScoreSummary | None, out_of_fold: ScoreSummary | None) -> Accuracy | None:
    """On the test images, where these are open; else out of fold."""
    scores = test or out_of_fold
    if scores is None:
        return None
    return Accuracy(
        of="test" if test else "out of fold",
        accuracy=scores.accuracy,
        interval=scores.interval,
        images=scores.images,
    )
