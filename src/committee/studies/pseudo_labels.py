"""Pseudo-labels: what a committee is sure of becomes a label (Lee 2013), and an audit says how often it is right.

The audit images have labels of their own and took no part in the committee's training. The rule that accepts unlabelled
images is applied to them, too: the share of those accepted whose given label is right estimates the precision of the
pseudo-labels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import PseudoLabels
from committee.data.dataset import LabelledImages, Labels, Pixels
from committee.metrics.intervals import wilson
from committee.metrics.results import Interval

Probabilities = NDArray[np.floating[Any]]


@dataclass(frozen=True)
class Audit:
    """What one round of labelling is worth.

    Attributes:
        unlabelled, accepted: images without labels, and how many of them got one.
        audited, audit_accepted, audit_right: audit images, those that the rule accepts, and those of them whose given
            label is right.
        precision: audit_right / audit_accepted with its Wilson interval; None where none was accepted.
    """

    unlabelled: int
    accepted: int
    audited: int
    audit_accepted: int
    audit_right: int
    precision: float | None
    interval: Interval | None

    def stops(self, limit: float) -> bool:
        """Whether the labels are not to be trusted: nothing to go by, or a precision below the limit."""
        return bool(self.why_stopped(limit))

    def why_stopped(self, limit: float) -> str:
        """Why the labels are not to be trusted, and what may help; "" where they are."""
        if self.accepted == 0:
            return "no image was accepted; lower pseudo_labels.confidence, or train a better committee first"
        if self.precision is None:
            return (
                "no audit image was accepted, so nothing is known about the labels; raise pseudo_labels.audit_fraction"
            )
        if self.precision < limit:
            return f"the precision is below pseudo_labels.min_precision, {100 * limit:.2f} %; raise the confidence"
        return ""

    def in_words(self) -> str:
        """One sentence."""
        start = f"{self.accepted:,} of {self.unlabelled:,} images were accepted"
        if self.precision is None or self.interval is None:
            return f"{start}; no audit image was, so nothing is known about their labels"
        share = f"{100 * self.interval.low:.2f} % to {100 * self.interval.high:.2f} %"
        return (
            f"{start}; of {self.audit_accepted:,} audit images accepted by the same rule {self.audit_right:,} were "
            f"right: precision {100 * self.precision:.2f} % (95 % interval {share})"
        )


def accepted(probabilities: Probabilities, settings: PseudoLabels) -> NDArray[np.int64]:
    """Positions of the images whose most probable class becomes their label.

    Args:
        probabilities: (image, class), a committee's.
        settings: the rule; `top_fraction` takes that share of the images of each predicted class, the surest first.
    """
    given, sure = probabilities.argmax(axis=1), probabilities.max(axis=1)
    if settings.accept == "confidence":
        return np.flatnonzero(sure >= settings.confidence)
    chosen = []
    for label in np.unique(given):
        own = np.flatnonzero(given == label)
        best = own[np.argsort(-sure[own], kind="stable")]
        chosen.append(best[: max(1, round(settings.top_fraction * len(own)))])
    return np.sort(np.concatenate(chosen)) if chosen else np.empty(0, dtype=np.int64)


def labelled(pixels: Pixels, probabilities: Probabilities, chosen: NDArray[np.int64]) -> LabelledImages:
    """The chosen images with their most probable class as label: what joins the training.

    Args:
        pixels: (image, height, width, channel), the unlabelled images.
        probabilities: (image, class), of the same images.
        chosen: positions, from `accepted`.
    """
    return LabelledImages(pixels, probabilities.argmax(axis=1)).part(chosen)


def audit(
    probabilities: Probabilities, audit_probabilities: Probabilities, audit_labels: Labels, settings: PseudoLabels
) -> Audit:
    """Judge a rule on labelled images that the committee did not train on.

    Args:
        probabilities: (image, class), of the unlabelled images.
        audit_probabilities: (audit image, class).
        audit_labels: (audit image,).
        settings: the rule.
    """
    chosen = accepted(audit_probabilities, settings)
    right = int((audit_probabilities[chosen].argmax(axis=1) == audit_labels[chosen]).sum())
    known = len(chosen) > 0
    return Audit(
        unlabelled=len(probabilities),
        accepted=len(accepted(probabilities, settings)),
        audited=len(audit_labels),
        audit_accepted=len(chosen),
        audit_right=right,
        precision=right / len(chosen) if known else None,
        interval=wilson(right, len(chosen)) if known else None,
    )
