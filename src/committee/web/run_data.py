"""A run's folder -> what the page shows of it, the record of `GET /v1/run`; the one-file page embeds the same."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice

from committee.config.record import Record
from committee.folders.run_folder import RunFolder
from committee.metrics.results import MemberResult, Picture
from committee.names import visible
from committee.report.page_images import Pictures
from committee.report.pictures import Screen, data_uris, displayable
from committee.report.tables import headline_scores

BUDGET = 3_000_000
"""Characters that all images of a run take together."""

CLASSES, SAMPLES = 40, 12
"""Classes whose samples are shown, and how many of each."""

SHEET_FILLED = 0.7
"""The share of the drawing sheet that people fill with what they write."""


class Error(Record):
    """A misclassified image, its `data:` address, true and predicted class, and the probability of the latter."""

    image: str
    where: str
    true: str
    predicted: str
    probability: float


class Sample(Record):
    """A class's first training images, as `data:` addresses."""

    label: str
    images: tuple[str, ...]


class Member(Record):
    """A member's accuracy on its own, on test images or, while these are sealed, on its validation images."""

    member: int
    accuracy: float


class RunRecord(Record):
    """What the page shows of a run.

    Attributes:
        accuracy, interval, images: the committee's, its 95 % interval, and on how many images.
        of: "test" or "out-of-fold".
        confusion: (true class, predicted class), on the same images.
        errors: those of which the folder holds pictures, the most confident first.
        brush: the pen's width as a share of the drawing sheet; None where training images are no writing.
        facts: of data and recipe, by name.
    """

    classes: tuple[str, ...]
    of: str
    accuracy: float
    interval: tuple[float, float]
    images: int
    confusion: tuple[tuple[int, ...], ...]
    errors: tuple[Error, ...]
    samples: tuple[Sample, ...]
    members: tuple[Member, ...]
    brush: float | None
    facts: dict[str, str]


def run_record(folder: RunFolder) -> RunRecord | None:
    """The record of a finished run's folder; None where nothing says how good the committee is."""
    results, data, pictures = folder.results, folder.data, folder.pictures
    headline = headline_scores(results)
    if headline is None:
        return None
    of, scores = headline
    part = "test" if of == "test" else "train"
    wrong = _errors((p for g in results.galleries if g.part == part for p in g.pictures), part, pictures)
    some = list(displayable(pictures["samples"][:CLASSES, :SAMPLES])) if "samples" in pictures else []
    screens: list[Screen] = [displayable(pictures[part][picture.slot]) for picture in wrong]
    screens += [image for images in some for image in images]
    uris = iter(data_uris(screens, BUDGET))
    names = tuple(data.class_names)
    errors = tuple(_error(each, names, part, next(uris)) for each in wrong)
    samples = tuple(
        Sample(label=name, images=tuple(islice(uris, len(images)))) for name, images in zip(names, some, strict=False)
    )
    writing = folder.images.writing if folder.has_images else None
    return RunRecord(
        classes=names,
        of=of,
        accuracy=scores.accuracy,
        interval=(scores.accuracy_interval.low, scores.accuracy_interval.high),
        images=scores.images,
        confusion=scores.confusion,
        errors=errors,
        samples=samples,
        members=tuple(_members(results.members)),
        brush=SHEET_FILLED * writing.stroke / writing.longer_side if writing else None,
        facts={
            "data": visible(data.name),
            "learnt from": f"{data.train_images:,} images of {'x'.join(map(str, data.shape[:2]))} pixels",
            "judged on": f"{scores.images:,} {'test images' if of == 'test' else 'training images, out of fold'}",
            "recipe": folder.recipe.name,
            "source": visible(data.source),
        },
    )


def _errors(shown: Iterable[Picture], part: str, pictures: Pictures) -> list[Picture]:
    """The misclassified images among those of galleries, each once, the most confident first."""
    if part not in pictures:
        return []
    found = {each.position: each for each in shown if each.true != each.predicted}
    return sorted(found.values(), key=lambda each: -each.probability_predicted)


def _error(picture: Picture, names: tuple[str, ...], part: str, uri: str) -> Error:
    return Error(
        image=uri,
        where=f"{'test' if part == 'test' else 'training'} image {picture.position:,}",
        true=names[picture.true],
        predicted=names[picture.predicted],
        probability=picture.probability_predicted,
    )


def _members(members: Iterable[MemberResult]) -> Iterable[Member]:
    for each in members:
        if each.status == "finished" and (score := each.test or each.validation):
            yield Member(member=each.member, accuracy=score.accuracy)
