"""A run folder, a bundle or an .onnx file, and its classifier -> what `/v1/model` says."""

from __future__ import annotations

import hashlib
from pathlib import Path

from committee.ensemble.classifier import Classifier, is_exported
from committee.folders.folder import kind_of
from committee.folders.run_folder import RunFolder
from committee.metrics.results import Scores
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
        corrections=corrections,
        engine="committee",
        version=version,
    )
    return common.model_copy(update=_of_onnx(path) if is_exported(path) else _of_run(path))


def _of_run(path: Path) -> dict[str, object]:
    folder = RunFolder.at(path)
    has_results = kind_of(folder.path) == "run"
    return {
        "digest": folder.contents_digest(),
        "members": len(folder.committee.members),
        "recipe": folder.recipe.name,
        "data": folder.data.name,
        "accuracy": _accuracy(folder.results.test, folder.results.out_of_fold) if has_results else None,
    }


def _accuracy(test: Scores | None, out_of_fold: Scores | None) -> Accuracy | None:
    """On the test images, where these are open; else out of fold."""
    scores = test or out_of_fold
    if scores is None:
        return None
    return Accuracy(
        of="test" if test else "out of fold",
        accuracy=scores.accuracy,
        interval=(scores.accuracy_interval.low, scores.accuracy_interval.high),
        images=scores.images,
    )


def _of_onnx(path: Path) -> dict[str, object]:
    with path.open("rb") as file:
        return {"digest": hashlib.file_digest(file, "sha256").hexdigest(), "engine": "onnx"}
