"""A run folder, a bundle or an .onnx file, and its classifier -> what `/v1/model` says."""

from __future__ import annotations

from pathlib import Path

from committee.ensemble.classifier import Classifier
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.folders.records import ScoreSummary
from committee.serve.messages import Accuracy, ModelInfo
from committee.version import version


def model_info(path: Path, classifier: Classifier, *, corrections: bool) -> ModelInfo:
    """What is said of a committee.

    Args:
        path: where it was loaded from.
        classifier: what was loaded.
        corrections: whether corrections are stored.
    """
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
        coverage=None,
        precision=None,
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
