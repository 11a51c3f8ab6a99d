"""A finished run -> the limits of its prediction sets and its threshold to abstain, from out-of-fold images."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from committee.ensemble.temperature import temper
from committee.errors import CommitteeError
from committee.folders.run_folder import RunFolder
from committee.metrics.conformal import NotSure, fit_abstention, fit_sets


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
    """Out-of-fold images: the committee's probabilities (image, class) and the labels (image,).

    An image is predicted by the members that did not train on it, with the temperature of a committee of so many. The
    whole committee, whose new answers are judged by these, has more members: it errs less, and its probabilities of
    the true class are higher. So the promised rates are kept with something to spare (docs/protocol.md has figures).

    Raises:
        CommitteeError: every member trained on every image.
    """
    probabilities, labels = folder.out_of_fold_probabilities.astype(np.float64), folder.train_labels
    known = ~np.isnan(probabilities[:, 0])
    if not known.any():
        raise CommitteeError(
            f"the members of {folder} trained on all images, so that nothing tells how often they are right on others; "
            "train with folds (--set holdout.kind=folds)"
        )
    sizes = np.zeros(len(labels), np.int64)
    for member in folder.committee.members:
        sizes[folder.member(member).validation] += 1
    for fitted in folder.committee.temperature_by_size:
        chosen = known & (sizes == fitted.members)
        if chosen.any() and fitted.temperature != 1.0:
            probabilities[chosen] = temper(probabilities[chosen], fitted.temperature)
    return probabilities[known], labels[known]
