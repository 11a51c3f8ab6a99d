"""A finished run -> the limits of its prediction sets and its threshold to abstain, from out-of-fold images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import spread
from committee.ensemble.classifier import Classifier
from committee.ensemble.onnx_committee import OnnxCommittee
from committee.ensemble.temperature import temper
from committee.errors import CommitteeError
from committee.metrics.conformal import NotSure, fit_abstention, fit_sets
from committee.metrics.results import SizeTemperature

if TYPE_CHECKING:
    from committee.folders.run_folder import RunFolder


MOST_CALIBRATED = 200_000
"""Out-of-fold images that calibrate, spread evenly over all."""


def not_sure(
    folder: RunFolder, coverage: float | None = None, precision: float | None = None, *, by_class: bool = False
) -> NotSure:
    """What the committee of a run may say instead of one class.

    Args:
        folder: of the run.
        coverage: the share of prediction sets that shall hold the true class; None makes no sets.
        precision: the share of answers that shall be right; None never abstains.
        by_class: whether the coverage is promised for the images of every class.

    Raises:
        CommitteeError: no image is out of fold, or the precision cannot be promised.
    """
    if coverage is None and precision is None:
        return NotSure()
    probabilities, labels = calibration(folder)
    return NotSure(
        sets=None if coverage is None else fit_sets(probabilities, labels, coverage, by_class=by_class),
        abstention=None if precision is None else fit_abstention(probabilities, labels, precision),
    )


def calibration(folder: RunFolder) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Out-of-fold images, `MOST_CALIBRATED` at most: the committee's probabilities (image, class), the labels (image,).

    An image is predicted by the members that did not train on it, tempered by `like_new`. The whole committee, whose
    new answers are judged by these, has more members: it errs less, and its probabilities of the true class are higher,
    as a rule (docs/protocol.md says how far that goes).

    Raises:
        CommitteeError: every member trained on every image.
    """
    probabilities, labels = folder.out_of_fold_probabilities, folder.train_labels
    known = ~np.isnan(probabilities[:, 0])
    if not known.any():
        raise CommitteeError(
            f"the members of {folder} trained on all images, so that nothing tells how often they are right on others; "
            "train with folds (--set holdout.kind=folds)"
        )
    sizes = np.zeros(len(labels), np.int64)
    for member in folder.committee.members:
        sizes[folder.member(member).validation] += 1
    rule, images = folder.committee, np.flatnonzero(known)
    images = images[spread(len(images), MOST_CALIBRATED)]
    tempered = like_new(
        probabilities[images].astype(np.float64), sizes[images], rule.temperature_by_size, rule.temperature
    )
    return tempered, labels[images]


def like_new(
    probabilities: NDArray[np.float64],
    sizes: NDArray[np.int64],
    by_size: Sequence[SizeTemperature],
    temperature: float | None,
) -> NDArray[np.float64]:
    """Out-of-fold probabilities (image, class) with the temperature that makes them comparable with new answers.

    That is the one fitted for as many members as predict the image, or for the number next to that. Where it
    was fitted for one size alone, `temperature.extrapolate` takes it over to the whole committee only if it sharpens:
    out of fold softened and new answers not, the limits would be too strict. So both have the committee's then.

    Args:
        probabilities: (image, class), as members give them together.
        sizes: (image,), how many members predict each image.
        by_size: the temperatures of committees of several sizes.
        temperature: the whole committee's; None where there is none.
    """
    tempered = probabilities.copy()
    if not by_size or temperature is None:
        return tempered
    for members in np.unique(sizes):
        nearest = min(by_size, key=lambda each: abs(each.members - int(members)))
        fitted = temperature if len(by_size) == 1 else nearest.temperature
        chosen = sizes == members
        tempered[chosen] = temper(probabilities[chosen], fitted)
    return tempered


def not_sure_of(
    run: Path, committee: Classifier, coverage: float | None, precision: float | None, *, by_class: bool
) -> NotSure | None:
    """What a loaded committee may say instead of one class; an exported one what it was exported with.

    Args:
        run: where it was loaded from.
        committee: what was loaded.
        coverage, precision, by_class: as in `not_sure`; where None, an exported committee keeps its own.

    Raises:
        CommitteeError: an exported committee was exported with something else.
    """
    if isinstance(committee, OnnxCommittee):
        held = committee.record.not_sure
        sets, abstention = (held.sets, held.abstention) if held else (None, None)
        there = (sets.coverage if sets else None, abstention.precision if abstention else None)
        asked = (coverage or there[0], precision or there[1])
        if there != asked or (by_class and sets and not sets.by_class):
            raise CommitteeError(
                f"{run} was exported with {_words(*there)} and was asked for {_words(*asked)}"
                f"{' for every class' if by_class else ''}; ask for the former, or export again with these options"
            )
        return held
    if coverage is None and precision is None:
        return None
    from committee.folders.run_folder import RunFolder  # which needs torch

    return not_sure(RunFolder.finished(run, or_model=True), coverage, precision, by_class=by_class)


def _words(coverage: float | None, precision: float | None) -> str:
    parts = [
        *([f"a coverage of {coverage:g}"] if coverage else []),
        *([f"a precision of {precision:g}"] if precision else []),
    ]
    return " and ".join(parts) or "neither coverage nor precision"
