"""Pseudo-labels and self-training: what a committee is confident of becomes a label, and an audit says how often
rightly.

After Lee 2013, "Pseudo-label: the simple and efficient semi-supervised learning method for deep neural networks" (ICML
workshop). Audit images have labels of their own and took no part in the teacher's training. The rule that accepts
unlabelled images is applied to them, too: the fraction of the accepted ones whose pseudo-label is right estimates the
precision of the pseudo-labels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import PseudoLabels
from committee.data.dataset import LabelledImages, Labels, Pixels
from committee.folders.records import Audit
from committee.metrics.formatting import percent
from committee.metrics.intervals import wilson
from committee.metrics.results import Interval

Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class TeacherPredictions:
    """What a teacher predicts: (unlabelled image, class) and (audit image, class)."""

    unlabelled: Probabilities
    audit: Probabilities


def self_train(
    settings: PseudoLabels,
    unlabelled: Pixels,
    audit_labels: Labels,
    teacher: Callable[[], TeacherPredictions],
    train_student: Callable[[int, LabelledImages], Callable[[], TeacherPredictions]],
    on_audit: Callable[[Audit, NDArray[np.int64], TeacherPredictions], None],
) -> None:
    """Rounds of self-training: label, audit, train a student, which is the next round's teacher.

    The rounds end early where an audit says that the labels are not to be trusted.

    Args:
        settings: the rule, the number of rounds, the least precision.
        unlabelled: (image, height, width, channel).
        audit_labels: (audit image,).
        teacher: the first round's.
        train_student: trains on the labelled images and these pseudo-labelled ones in a round (the first is 1), and
            returns the student as a teacher.
        on_audit: called with each round's audit, the positions of the accepted images and the predictions behind it.
    """
    for number in range(1, settings.rounds + 1):
        predictions = teacher()
        found = audit(predictions, audit_labels, settings, number)
        chosen = accepted(predictions.unlabelled, settings)
        on_audit(found, chosen, predictions)
        if found.stopped:
            return
        teacher = train_student(number, pseudo_labelled(unlabelled, predictions.unlabelled, chosen))


def accepted(probabilities: Probabilities, settings: PseudoLabels) -> NDArray[np.int64]:
    """Positions of the images whose most probable class becomes their label.

    Args:
        probabilities: (image, class), a committee's.
        settings: the rule; `top_fraction` takes that fraction of the images of each predicted class, the most confident
            first.
    """
    labels, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    if settings.accept == "confidence":
        return np.flatnonzero(confidence >= settings.confidence)
    chosen = []
    for label in np.unique(labels):
        own = np.flatnonzero(labels == label)
        best = own[np.argsort(-confidence[own], kind="stable")]
        chosen.append(best[: max(1, round(settings.top_fraction * len(own)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def pseudo_labelled(pixels: Pixels, probabilities: Probabilities, chosen: NDArray[np.int64]) -> LabelledImages:
    """The chosen images with their most probable class as label: what joins the training.

    Args:
        pixels: (image, height, width, channel), the unlabelled images.
        probabilities: (image, class), of the same images.
        chosen: positions, from `accepted`.
    """
    return LabelledImages(pixels, probabilities.argmax(axis=1)).part(chosen)


def audit(predictions: TeacherPredictions, audit_labels: Labels, settings: PseudoLabels, number: int = 0) -> Audit:
    """Evaluate the rule on labelled images that the teacher did not train on.

    Args:
        predictions: the teacher's.
        audit_labels: (audit image,).
        settings: the rule.
        number: of the round.
    """
    chosen = accepted(predictions.audit, settings)
    right = int((predictions.audit[chosen].argmax(axis=1) == audit_labels[chosen]).sum())
    number_accepted = len(accepted(predictions.unlabelled, settings))
    precision = right / len(chosen) if len(chosen) else None
    interval = wilson(right, len(chosen)) if len(chosen) else None
    return Audit(
        round=number,
        unlabelled=len(predictions.unlabelled),
        accepted=number_accepted,
        audited=len(audit_labels),
        audit_accepted=len(chosen),
        audit_right=right,
        precision=precision,
        interval=interval,
        stopped=why_stopped(number_accepted, precision, settings.min_precision),
        sentence=sentence(number_accepted, len(predictions.unlabelled), right, len(chosen), interval),
    )


def why_stopped(number_accepted: int, precision: float | None, least: float) -> str:
    """Why the labels are not to be trusted, and what may help; "" where they are."""
    if number_accepted == 0:
        return "no image was accepted; lower pseudo_labels.confidence, or train a better committee first"
    if precision is None:
        return "no audit image was accepted, so the precision is unknown; raise pseudo_labels.audit_fraction"
    if precision < least:
        return f"the precision is below pseudo_labels.min_precision, {percent(least)}; raise pseudo_labels.confidence"
    return ""


def sentence(number_accepted: int, unlabelled: int, right: int, audited: int, interval: Interval | None) -> str:
    """An audit in words, without a full stop."""
    start = f"{number_accepted:,} of {unlabelled:,} images were accepted"
    if interval is None:
        return f"{start}; no audit image was, so the precision of their labels is unknown"
    return (
        f"{start}; of {audited:,} audit images accepted by the same rule, {right:,} were labelled correctly: precision "
        f"{percent(right / audited)} (95 % interval {percent(interval.low)} to {percent(interval.high)})"
    )
