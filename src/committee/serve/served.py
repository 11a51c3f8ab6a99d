"""What is served: a classifier, what is said of it, and questions of many requests -> their answers as JSON."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np

from committee.data.convert import png
from committee.data.dataset import Pixels
from committee.ensemble.classifier import Answers, Classifier, is_exported, load
from committee.ensemble.not_sure import not_sure_of
from committee.errors import CommitteeError, DataError
from committee.metrics.conformal import NotSure
from committee.metrics.familiarity import UNFAMILIAR, doubt_of, measured
from committee.serve.limits import ServeLimits
from committee.serve.messages import Near
from committee.serve.problems import RefusedError, unusable
from committee.serve.questions import Question, ReadQuestion, Seen, read_together
from committee.web.model_info import ModelInfo, model_info


@dataclass(frozen=True)
class Asked:
    """The share of prediction sets with the true class, and of answers that are right, that are asked for."""

    coverage: float | None = None
    precision: float | None = None
    by_class: bool = False


NOTHING_ASKED = Asked()


@dataclass(frozen=True)
class Served:
    """What a server needs to know of a committee.

    Attributes:
        classifier: what answers.
        info: what `/v1/model` says.
        limits: of a request.
        run: what `/v1/run` says, as JSON, made when it is first asked for; None where only an .onnx file is served.
        unsure: what it says instead of one class.
        nearest: an image (height, width, channel) -> the training images most like it; None where they are not there.
    """

    classifier: Classifier
    info: ModelInfo
    limits: ServeLimits
    unsure: NotSure | None = None
    run: Callable[[], bytes] | None = None
    nearest: Callable[[Pixels], Sequence[Near]] | None = None

    def work(self, questions: Sequence[Question | ReadQuestion]) -> list[bytes | Exception]:
        """The answers to several requests, each as the JSON of a `PredictResponse`, or why there is none.

        All images go through the committee together, and none of its answers depends on its company.
        """
        known = self._read(questions)
        seen = [
            image.pixels
            for each in known
            if isinstance(each, ReadQuestion)
            for image in each.images
            if isinstance(image, Seen)
        ]
        answers = self.classifier.answer(cast(Pixels, np.stack(seen))) if seen else None
        results: list[bytes | Exception] = []
        start = 0
        for each in known:
            if isinstance(each, Exception) or answers is None:
                results.append(each if isinstance(each, Exception) else _unreadable(each))
                continue
            end = start + sum(isinstance(image, Seen) for image in each.images)
            results.append(self._answered(each, _part(answers, start, end)) if end > start else _unreadable(each))
            start = end
        return results

    def _read(self, questions: Sequence[Question | ReadQuestion]) -> list[ReadQuestion | RefusedError]:
        """The questions with their images, read together where they are not read yet."""
        unread = [each for each in questions if isinstance(each, Question)]
        read = iter(read_together(unread, self.classifier, self.limits))
        return [next(read) if isinstance(each, Question) else each for each in questions]

    def _answered(self, read: ReadQuestion, answers: Answers) -> bytes:
        rows = iter(range(len(answers.probabilities)))
        said = [
            self._said(given.name, image, answers, next(rows), read.question.details)
            if isinstance(image, Seen)
            else {"image": given.name, "error": str(image)}
            for given, image in zip(read.question.images, read.images, strict=True)
        ]
        return json.dumps({"model": self.info.digest, "answers": said}).encode()

    def _said(
        self, name: str | None, image: Seen, answers: Answers, row: int, details: frozenset[str]
    ) -> dict[str, object]:
        """An `Answer` of plain types: pydantic would take longer to check it than the committee to give it."""
        names, probabilities = self.classifier.class_names, answers.probabilities[row].tolist()
        members = answers.members[:, row]
        choices = members.argmax(axis=1).tolist()
        choice = int(answers.probabilities[row].argmax())
        familiar = float(answers.familiar[row])
        why = self._why_unlike(image.pixels, answers, row)
        sets, abstention = (self.unsure.sets, self.unsure.abstention) if self.unsure else (None, None)
        row_only = answers.probabilities[row : row + 1]
        in_set = sets.sets(row_only)[0] if sets else None
        said: dict[str, object] = {
            "image": name,
            "label": names[choice],
            "probability": probabilities[choice],
            "probabilities": dict(zip(names, probabilities, strict=True)),
            "members": [
                {"label": names[each], "probability": float(member[each])}
                for each, member in zip(choices, members, strict=True)
            ],
            "disagreement": float(np.mean([each != choice for each in choices])) if len(choices) > 1 else None,
            "familiar": None if np.isnan(familiar) else familiar,
            "unlike": why is not None,
            "why": why or "",
            "abstain": bool(abstention.abstains(row_only)[0]) if abstention else False,
            "set": None if in_set is None else [names[c] for c in np.argsort(-row_only[0]) if in_set[c]],
            "prepared": image.prepared,
        }
        if "pixels" in details:
            said["pixels"] = data_uri(image.pixels)
        if "nearest" in details:
            nearest = self.nearest(image.pixels) if self.nearest else ()
            said["nearest"] = [each.model_dump(mode="json") for each in nearest]
        return said

    def _why_unlike(self, pixels: Pixels, answers: Answers, row: int) -> str | None:
        """Why an image is unlike the training images, judged by itself; None where it is not."""
        known, familiar = self.classifier.images.familiarity, answers.familiar[row : row + 1]
        if known is None or not familiar[0] < UNFAMILIAR[0] or not len(known.unlike(familiar)):
            return None
        return known.reason(measured(pixels[None], doubt_of(answers.members[:, row : row + 1])))


def _part(answers: Answers, start: int, end: int) -> Answers:
    return Answers(answers.probabilities[start:end], answers.members[:, start:end], answers.familiar[start:end])


def _unreadable(question: ReadQuestion) -> RefusedError:
    sentences = [str(each) for each in question.images if isinstance(each, DataError)]
    more = f" (and {len(sentences) - 1} more images likewise)" if len(sentences) > 1 else ""
    return unusable(f"{sentences[0]}{more}")


def data_uri(pixels: Pixels) -> str:
    """Pixels (height, width, channel) as a PNG in a `data:` address."""
    return f"data:image/png;base64,{base64.b64encode(png(pixels)).decode()}"


def open_served(
    path: Path,
    limits: ServeLimits,
    asked: Asked = NOTHING_ASKED,
    *,
    device: str,
    corrections: bool,
    report: Callable[[str], None],
) -> Served:
    """Load what is to be served.

    Args:
        path: a run folder, a bundle, or an .onnx file.
        limits: of its requests.
        asked: what it shall say instead of one class.
        device: where a run's committee predicts.
        corrections: whether corrections are stored.
        report: is told what answers come without.

    Raises:
        RunError: it is missing, unfinished or damaged.
        MissingExtraError: what computes is not installed.
    """
    classifier = load(path, device=device)
    unsure = not_sure_of(path, classifier, asked.coverage, asked.precision, by_class=asked.by_class)
    info = model_info(path, classifier, unsure, corrections=corrections)
    served = Served(classifier, info, limits, unsure, *(() if is_exported(path) else _of_run(path, report)))
    blank = np.zeros((1, *classifier.image_shape), np.uint8 if classifier.pixel_range == 255 else np.uint16)
    for count in (1, limits.batch):  # what is compiled or prepared at the first call is there before the first request
        classifier.answer(np.repeat(blank, count, axis=0))
    return served


def _of_run(
    path: Path, report: Callable[[str], None]
) -> tuple[Callable[[], bytes] | None, Callable[[Pixels], Sequence[Near]] | None]:
    """What a run's folder has beside its committee: the page's record of it, and the nearest of its training images.

    Neither is there for a study's model. The training images may be gone, or be others by now; none are downloaded.
    """
    from committee.folders.folder import kind_of  # these need torch, which an .onnx file does not
    from committee.folders.run_folder import RunFolder
    from committee.runs.reloading import dataset_of
    from committee.web.nearest import nearest_of
    from committee.web.run_data import run_record

    folder = RunFolder.at(path)
    if kind_of(folder.path) != "run":
        return None, None
    record = run_record(folder)
    content = record.model_dump_json().encode() if record else b"null"
    try:
        dataset = dataset_of(folder, download=False)
    except CommitteeError as error:
        report(f"Note: answers come without the most similar training images: {error}")
        return lambda: content, None
    find = nearest_of(dataset.train.pixels, dataset.train.labels, dataset.class_names)

    def near(pixels: Pixels) -> list[Near]:
        return [Near(image=each.image, label=each.label, position=each.position) for each in find(pixels)]

    return lambda: content, near
