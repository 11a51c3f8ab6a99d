"""What to look at: errors, images about which the committee is least certain, and where its members differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Names
from committee.metrics.results import Agreement, Gallery, Picture
from committee.pages import by_blocks, rows

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


class Galleries(NamedTuple):
    """Galleries of one part, and the images that they show.

    `positions` are rows of the part, each once: store the image at `positions[slot]` as number `slot`.
    """

    galleries: tuple[Gallery, ...]
    positions: tuple[int, ...]


class ConfusedPair(NamedTuple):
    """How many images of the class `true` were classified as `predicted`, and their share of the class's images."""

    true: str
    predicted: str
    images: int
    share: float


class Choice(NamedTuple):
    """What a gallery shows: positions of images in the part, in order."""

    name: str
    title: str
    remark: str
    positions: Labels


@dataclass(frozen=True)
class PredictedPart:
    """A part of the data with what was predicted for it.

    Attributes:
        name: "test" or "train".
        probabilities: (image, class), the committee's; a row of NaN for an image that no member may predict.
        member_probabilities: (member, image, class); a row of NaN where a member may not predict an image, because it
            trained on it.
        labels: (image,).
        names: of the images, if they have any.
    """

    name: str
    probabilities: Probabilities
    member_probabilities: Probabilities
    labels: Labels
    names: Names | None

    def __post_init__(self) -> None:
        members, committee, labels = self.member_probabilities, self.probabilities, self.labels
        if members.ndim != 3 or members.shape[1:] != committee.shape:
            raise ValueError(
                f"Members' probabilities must have the shape (member, {', '.join(map(str, committee.shape))}); "
                f"got {members.shape}"
            )
        if labels.shape != committee.shape[:1] or committee.shape[1] < 2:
            raise ValueError(
                f"{len(committee)} labels and at least two classes are needed; got labels of shape {labels.shape} and "
                f"{committee.shape[1]} classes"
            )

    @cached_property
    def predicted(self) -> Labels:
        """(predicted image,): the positions of the images that were predicted."""
        return np.flatnonzero(np.isfinite(self.probabilities).all(axis=1))

    @cached_property
    def of_predicted(self) -> Probabilities:
        """(predicted image, class)."""
        return rows(self.probabilities, self.predicted.astype(np.int64, copy=False))

    @cached_property
    def confidence(self) -> NDArray[np.floating[Any]]:
        """(predicted image,): the probability of the predicted class."""
        confidence: NDArray[np.floating[Any]] = self.of_predicted.max(axis=1)
        return confidence

    @cached_property
    def is_correct(self) -> NDArray[np.bool_]:
        """(predicted image,): whether the predicted class is the label."""
        return np.asarray(self.of_predicted.argmax(axis=1) == self.labels[self.predicted])

    @cached_property
    def errors(self) -> Labels:
        """(error,): the positions of misclassified images, in the order of the data."""
        return self.predicted[~self.is_correct]

    def gallery(self, choice: Choice, slot_of: Callable[[int], int]) -> Gallery:
        """A gallery of the chosen images."""
        return Gallery(
            name=choice.name,
            title=choice.title,
            remark=choice.remark,
            part=self.name,
            pictures=tuple(self.picture(int(position), slot_of(int(position))) for position in choice.positions),
        )

    def picture(self, position: int, slot: int) -> Picture:
        """An image of a gallery: what the committee predicts, and how many members predict another class."""
        own = self.probabilities[position]
        label, prediction = int(self.labels[position]), int(own.argmax())
        members = self.member_probabilities[:, position]
        members = members[np.isfinite(members).all(axis=1)]
        return Picture(
            name=self.names[position] if self.names else None,
            position=position,
            slot=slot,
            true=label,
            predicted=prediction,
            probability_true=float(own[label]),
            probability_predicted=float(own[prediction]),
            dissenters=int((members.argmax(axis=1) != prediction).sum()) if len(members) else 0,
            members=len(members),
        )


# --- galleries of a run -----------------------------------------------------------------------------------------------


def galleries(
    probabilities: Probabilities,
    member_probabilities: Probabilities,
    labels: Labels,
    *,
    part: str,
    names: Names | None = None,
    limit: int = 50,
) -> Galleries:
    """Three galleries: the most confident errors, the first errors in the order of the data, the least certain images.

    Args:
        probabilities, member_probabilities, labels, names: see `PredictedPart`.
        part: "test" or "train".
        limit: the most images that a gallery shows.

    Raises:
        ValueError: the shapes do not fit together.
    """
    images = PredictedPart(part, probabilities, member_probabilities, labels, names)
    chosen = (confident_errors(images, limit), first_errors(images, limit), least_certain(images, limit))
    positions = list(dict.fromkeys(int(position) for choice in chosen for position in choice.positions))
    slots = {position: slot for slot, position in enumerate(positions)}
    return Galleries(tuple(images.gallery(choice, slots.__getitem__) for choice in chosen), tuple(positions))


def confident_errors(images: PredictedPart, limit: int) -> Choice:
    """The errors, the most confident first."""
    confidence = images.confidence[~images.is_correct]
    return Choice(
        "confident_errors",
        "The most confident errors",
        f"Misclassified {_where(images)}, the most confident predictions first. Wrong labels show up here, and so does "
        "what the committee has not learnt.",
        images.errors[np.argsort(-confidence, kind="stable")][:limit],
    )


def first_errors(images: PredictedPart, limit: int) -> Choice:
    """The errors in the order of the data: a fair sample of them."""
    return Choice(
        "first_errors",
        "The first errors",
        f"Misclassified {_where(images)}, in the order of the data; there are {len(images.errors):,} in all.",
        images.errors[:limit],
    )


def least_certain(images: PredictedPart, limit: int) -> Choice:
    """The images whose two most probable classes are nearly equally probable."""

    def margins(start: int, stop: int) -> Probabilities:
        top_two = np.sort(images.of_predicted[start:stop], axis=1)[:, -2:]
        return np.asarray(top_two[:, 1] - top_two[:, 0])

    margin = by_blocks(margins, images.predicted.shape, images.probabilities.dtype)
    return Choice(
        "least_certain",
        "The least certain images",
        f"Those {_where(images)} whose two most probable classes have the most similar probabilities, whether the "
        "prediction is correct or not.",
        images.predicted[np.argsort(margin, kind="stable")][:limit],
    )


def _where(images: PredictedPart) -> str:
    if images.name == "train":
        return "training images (out of fold: predicted by members that did not train on them)"
    return "test images"


# --- galleries of a study's row ---------------------------------------------------------------------------------------

CLASSES_IN_GALLERIES = 20
ERRORS_IN_GALLERY = 60
IN_SAMPLE = 10
"""Images of a random sample, and of a class."""


def study_galleries(
    probabilities: Probabilities,
    member_probabilities: Probabilities,
    labels: Labels,
    rng: np.random.Generator,
    *,
    part: str,
    names: Names | None,
    every_error: bool,
    slot_of: Callable[[int], int],
) -> tuple[Gallery, ...]:
    """Galleries of one row: random correct predictions and errors, the most confident ones of each class.

    Args:
        probabilities, member_probabilities, labels, names: see `PredictedPart`.
        rng: draws the random ones.
        part: "test" or "train".
        every_error: also show all errors in the order of the data, up to `ERRORS_IN_GALLERY`.
        slot_of: the slot of an image's picture, shared by all rows.
    """
    images = PredictedPart(part, probabilities, member_probabilities, labels, names)
    random = [random_sample(images, rng, correct=correct) for correct in (True, False)]
    confident = [most_confident_of_each_class(images, correct=correct) for correct in (True, False)]
    if every_error:
        all_errors = every_error_or_the_first(images)
        shows_all = len(images.errors) <= ERRORS_IN_GALLERY
        random = [all_errors, random[0]] if shows_all else [all_errors, *random]
    return tuple(images.gallery(choice, slot_of) for choice in (*random, *confident))


def random_sample(images: PredictedPart, rng: np.random.Generator, *, correct: bool) -> Choice:
    """A few correct predictions or errors, drawn at random."""
    drawn = np.sort(rng.permutation(images.predicted[images.is_correct == correct])[:IN_SAMPLE])
    if correct:
        return Choice("random_right", "Correct predictions, ten at most, drawn at random", "", drawn)
    return Choice("random_wrong", "Errors, ten at most, drawn at random", "", drawn)


def most_confident_of_each_class(images: PredictedPart, *, correct: bool) -> Choice:
    """For each of the first classes, its images with the most confident correct predictions or errors."""
    of = (images.is_correct == correct).nonzero()[0]
    of = of[np.argsort(-images.confidence[of], kind="stable")]
    true = images.labels[images.predicted[of]]
    classes = range(min(CLASSES_IN_GALLERIES, images.probabilities.shape[1]))
    positions = np.concatenate([images.predicted[of[true == label][:IN_SAMPLE]] for label in classes])
    if correct:
        return Choice("sure_right", "The most confident correct predictions of each class", "", positions)
    title = "The most confident errors of each true class: predicted class and its probability"
    return Choice("sure_wrong", title, "", positions)


def every_error_or_the_first(images: PredictedPart) -> Choice:
    """All errors, or as many as a gallery shows."""
    errors = images.errors
    title = (
        "All errors" if len(errors) <= ERRORS_IN_GALLERY else f"The first {ERRORS_IN_GALLERY} of {len(errors):,} errors"
    )
    return Choice("errors", title, "", errors[:ERRORS_IN_GALLERY])


# --- classes and members ----------------------------------------------------------------------------------------------


def most_confused_pairs(
    confusion: Sequence[Sequence[int]] | NDArray[np.int64], class_names: Sequence[str], limit: int = 10
) -> tuple[ConfusedPair, ...]:
    """The pairs of classes that are confused most often, most first; pairs that never occur are left out.

    Args:
        confusion: (true class, predicted class), counts.
        class_names: one name for each class.
        limit: the most pairs.
    """
    counts = np.array(confusion, dtype=np.int64)
    totals = counts.sum(axis=1)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    rows = []
    for true, predicted in zip(*np.unravel_index(order, counts.shape), strict=True):
        if count := int(counts[true, predicted]):
            rows.append(ConfusedPair(class_names[true], class_names[predicted], count, count / int(totals[true])))
    return tuple(rows)


def agreement(member_probabilities: Probabilities, *, on: str) -> Agreement | None:
    """How often members predict the same class; None where no image may be predicted by two members.

    Args:
        member_probabilities: (member, image, class); a row of NaN where a member may not predict an image.
        on: "test" or "train".
    """
    may: NDArray[np.bool_] = np.asarray(np.isfinite(member_probabilities).all(axis=2))
    shared = np.flatnonzero(may.sum(axis=0) >= 2)
    if not len(shared):
        return None
    may = may[:, shared]
    classes = np.where(may, np.nan_to_num(member_probabilities[:, shared], nan=-1.0).argmax(axis=2), -1)
    matrix = tuple(
        tuple(_share_of_agreement(classes[one], classes[other], may[one] & may[other]) for other in range(len(classes)))
        for one in range(len(classes))
    )
    pairs = [share for one, row in enumerate(matrix) for share in row[one + 1 :] if share is not None]
    highest = classes.max(axis=0)
    lowest = np.where(may, classes, member_probabilities.shape[2]).min(axis=0)
    return Agreement(
        images=len(shared),
        on=on,
        matrix=matrix,
        mean=sum(pairs) / len(pairs) if pairs else None,
        all_agree=float(np.mean(highest == lowest)),
    )


def _share_of_agreement(one: Labels, other: Labels, both: NDArray[np.bool_]) -> float | None:
    """The share of the images that both may predict on which they agree; None where there is no such image."""
    return float(np.mean(one[both] == other[both])) if both.any() else None
