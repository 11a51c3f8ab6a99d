"""What to look at: the errors, the images that the committee is least sure of, and where its members differ."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Names
from committee.metrics.results import Agreement, Gallery, Picture

Probabilities = NDArray[np.floating[Any]]
Labels = NDArray[np.integer[Any]]


class Galleries(NamedTuple):
    """Galleries of one part, and the images that they show.

    `positions` are rows of the part, each once: store the image at `positions[slot]` as number `slot`.
    """

    galleries: tuple[Gallery, ...]
    positions: tuple[int, ...]


class ConfusedPair(NamedTuple):
    """How many images of the class `true` were taken for `predicted`; `share` is their share of the class's images."""

    true: str
    predicted: str
    images: int
    share: float


def galleries(
    probabilities: Probabilities,
    member_probabilities: Probabilities,
    labels: Labels,
    *,
    part: str,
    names: Names | None = None,
    limit: int = 50,
) -> Galleries:
    """Three galleries: the most confident errors, the first errors in the data's order, the least certain images.

    Args:
        probabilities: (image, class), the committee's; a row of NaN for an image that nobody may judge is passed over.
        member_probabilities: (member, image, class); a row of NaN where a member must not be asked about an image
            because it trained on it.
        labels: (image,).
        part: "test" or "train"; goes into the galleries.
        names: of the images; go into the galleries.
        limit: the largest number of images of a gallery.

    Raises:
        ValueError: shapes that do not fit.
    """
    if member_probabilities.ndim != 3 or member_probabilities.shape[1:] != probabilities.shape:
        raise ValueError(
            f"Members' probabilities must have the shape (member, {', '.join(map(str, probabilities.shape))}). "
            f"Got {member_probabilities.shape} instead."
        )
    if labels.shape != probabilities.shape[:1] or probabilities.shape[1] < 2:
        raise ValueError(
            f"{len(probabilities)} labels and two classes or more are needed. Got {labels.shape} labels instead."
        )
    judged = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    predicted = np.full(len(labels), -1)
    predicted[judged] = probabilities[judged].argmax(axis=1)
    errors = judged[predicted[judged] != labels[judged]]
    confidence = probabilities[errors].max(axis=1) if len(errors) else np.empty(0)
    first_two = np.sort(probabilities[judged], axis=1)[:, -2:]
    margin = first_two[:, 1] - first_two[:, 0]
    whose = "out of fold, by members that did not train on the image" if part == "train" else "test images"
    chosen = (
        (
            "confident_errors",
            "The most confident errors",
            f"Wrong answers, the surest first ({whose}). Look here for wrong labels and for what was not learnt.",
            errors[np.argsort(-confidence, kind="stable")][:limit],
        ),
        (
            "first_errors",
            "The first errors",
            f"Wrong answers as they come in the order of the data, {len(errors):,} in all ({whose}).",
            errors[:limit],
        ),
        (
            "least_certain",
            "The least certain images",
            f"Smallest distance between the two most probable classes, right or wrong ({whose}).",
            judged[np.argsort(margin, kind="stable")][:limit],
        ),
    )
    positions = list(dict.fromkeys(int(position) for _, _, _, picked in chosen for position in picked))
    slots = {position: slot for slot, position in enumerate(positions)}
    return Galleries(
        tuple(
            Gallery(
                name=name,
                title=title,
                remark=remark,
                part=part,
                pictures=tuple(
                    picture(int(p), slots[int(p)], probabilities, member_probabilities, labels, names) for p in picked
                ),
            )
            for name, title, remark, picked in chosen
        ),
        tuple(positions),
    )


def picture(
    position: int,
    slot: int,
    probabilities: Probabilities,
    member_probabilities: Probabilities,
    labels: Labels,
    names: Names | None,
) -> Picture:
    """One image of a gallery, with the committee's answer and how many members would have given another."""
    guess = int(probabilities[position].argmax())
    opinions = member_probabilities[:, position]
    asked = opinions[np.isfinite(opinions).all(axis=1)]
    return Picture(
        name=names[position] if names else None,
        position=position,
        slot=slot,
        true=int(labels[position]),
        predicted=guess,
        probability_true=float(probabilities[position, labels[position]]),
        probability_predicted=float(probabilities[position, guess]),
        dissenters=int((asked.argmax(axis=1) != guess).sum()) if len(asked) else 0,
        members=len(asked),
    )


CLASSES_IN_GALLERIES = 20
ERRORS_IN_GALLERY = 60


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
    """Galleries of one row: random right and wrong answers, the surest right and wrong ones of each class.

    Args:
        probabilities: (image, class); rows of NaN are passed over.
        member_probabilities: (member, image, class), likewise.
        labels: (image,).
        rng: draws the random ones.
        part: "test" or "train".
        names: of the images.
        every_error: also all errors, in the data's order, up to `ERRORS_IN_GALLERY`.
        slot_of: the slot of an image's picture, shared by all rows.
    """
    judged = np.flatnonzero(np.isfinite(probabilities).all(axis=1))
    guesses, sure = probabilities[judged].argmax(axis=1), probabilities[judged].max(axis=1)
    is_right = guesses == labels[judged]
    surest = np.argsort(-sure, kind="stable")

    def of_class(label: int, correct: bool) -> NDArray[np.int64]:
        order = surest[(labels[judged][surest] == label) & (is_right[surest] == correct)]
        return np.asarray(judged[order[:10]])

    def some(correct: bool) -> NDArray[np.int64]:
        pool = judged[is_right == correct]
        return np.sort(rng.permutation(pool)[:10])

    shown = range(min(CLASSES_IN_GALLERIES, probabilities.shape[1]))
    each = "of each class, ten at most"
    chosen = [
        ("random_right", "Ten right answers, drawn at random", some(True)),
        ("random_wrong", "Ten wrong answers, drawn at random", some(False)),
        ("sure_right", f"The surest right answers {each}", np.concatenate([of_class(c, True) for c in shown])),
        (
            "sure_wrong",
            f"The surest wrong answers {each}: the answer and its probability",
            np.concatenate([of_class(c, False) for c in shown]),
        ),
    ]
    if every_error:
        errors = judged[~is_right]
        more = "" if len(errors) <= ERRORS_IN_GALLERY else f", the first {ERRORS_IN_GALLERY} of {len(errors):,}"
        if len(errors) <= ERRORS_IN_GALLERY:
            del chosen[1]  # they are all there
        chosen.insert(0, ("errors", f"All wrong answers{more}", errors[:ERRORS_IN_GALLERY]))
    return tuple(
        Gallery(
            name=name,
            title=title,
            remark="",
            part=part,
            pictures=tuple(
                picture(int(p), slot_of(int(p)), probabilities, member_probabilities, labels, names) for p in picked
            ),
        )
        for name, title, picked in chosen
    )


def most_confused_pairs(
    confusion: Sequence[Sequence[int]] | NDArray[np.int64], class_names: Sequence[str], limit: int = 10
) -> tuple[ConfusedPair, ...]:
    """The largest numbers of one class taken for another, most first; pairs that never occur are left out.

    Args:
        confusion: (true class, predicted class), counts.
        class_names: one name a class.
        limit: the largest number of pairs.
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
    """How often the members give the same class; None where no image was judged by two members.

    Args:
        member_probabilities: (member, image, class); a row of NaN where a member must not be asked.
        on: "test" or "train"; goes into the result.
    """
    asked: NDArray[np.bool_] = np.asarray(np.isfinite(member_probabilities).all(axis=2))
    several = np.flatnonzero(asked.sum(axis=0) >= 2)
    if not len(several):
        return None
    asked = asked[:, several]
    choices = np.where(asked, np.nan_to_num(member_probabilities[:, several], nan=-1.0).argmax(axis=2), -1)
    matrix: list[list[float | None]] = []
    pairs = []
    for one in range(len(choices)):
        row: list[float | None] = []
        for other in range(len(choices)):
            both = asked[one] & asked[other]
            share = float(np.mean(choices[one][both] == choices[other][both])) if both.any() else None
            row.append(share)
            if one < other and share is not None:
                pairs.append(share)
        matrix.append(row)
    highest = np.where(asked, choices, -1).max(axis=0)
    lowest = np.where(asked, choices, member_probabilities.shape[2]).min(axis=0)
    return Agreement(
        images=len(several),
        on=on,
        matrix=tuple(tuple(row) for row in matrix),
        mean=sum(pairs) / len(pairs) if pairs else None,
        all_agree=float(np.mean(highest == lowest)),
    )
