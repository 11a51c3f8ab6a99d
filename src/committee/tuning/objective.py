"""What is tuned for: an objective gives every image a value, and a recipe's score is their mean.

With a value for each image two recipes can be compared on the images that both have answered, pair by pair: this is how
a trial is stopped early, and how the winner is compared with the starting recipe. Higher is better throughout, so that
log-loss counts with its sign turned.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.ensemble.temperature import fit_temperature, temper
from committee.metrics.scores import log_losses
from committee.metrics.tuning import ObjectiveName

Probabilities = NDArray[np.float32] | NDArray[np.float64]
ImageValues = NDArray[np.float64]
"""(image,), NaN where an image has no out-of-fold answer yet."""


Objective = Callable[[Probabilities, Labels], ImageValues]
"""Probabilities (image, class) and labels (image,) -> (image,), whose mean is the score."""


def right(probabilities: Probabilities, labels: Labels) -> ImageValues:
    """1 where the most probable class is the label, else 0: their mean is the accuracy."""
    return np.asarray(probabilities.argmax(axis=1) == labels, dtype=np.float64)


def balanced_right(probabilities: Probabilities, labels: Labels) -> ImageValues:
    """`right`, weighted so that every class counts alike: the mean is the balanced accuracy."""
    return right(probabilities, labels) * _class_weights(labels)


def minus_log_loss(probabilities: Probabilities, labels: Labels) -> ImageValues:
    """Minus the log-loss in nats, after the one temperature that fits these answers best.

    A committee is calibrated before it is used, so a recipe is not to be judged by a temperature that it will not have.
    """
    return -log_losses(temper(probabilities, fit_temperature(probabilities, labels)), labels)


def placements(probabilities: Probabilities, labels: Labels) -> ImageValues:
    """For each image, the share of the images of other classes that have a lower probability of its class.

    Every class counts alike; the mean is the area under the ROC curve of each class against the rest, averaged. The
    shares are the placement values of DeLong, DeLong & Clarke-Pearson (Biometrics 44, 1988).
    """
    found = np.zeros(len(labels))
    for each in np.unique(labels):
        inside = labels == each
        others = np.sort(probabilities[~inside, each])
        own = probabilities[inside, each]
        if len(others):
            found[inside] = (others.searchsorted(own, "left") + others.searchsorted(own, "right")) / (2 * len(others))
    return found * _class_weights(labels)


def _class_weights(labels: Labels) -> ImageValues:
    """(image,): weights with a mean of 1 that are inversely proportional to the number of images of the class."""
    classes, positions, counts = np.unique(labels, return_inverse=True, return_counts=True)
    return np.asarray(len(labels) / (len(classes) * counts))[positions]


OBJECTIVES: dict[ObjectiveName, Objective] = {
    "accuracy": right,
    "balanced-accuracy": balanced_right,
    "auc": placements,
    "log-loss": minus_log_loss,
}


def image_values(objective: Objective, probabilities: Probabilities, labels: Labels) -> ImageValues:
    """(image,): the objective's values of the images that have an answer, NaN for the others.

    Args:
        objective: which.
        probabilities: (image, class), rows of NaN where no member may answer yet.
        labels: (image,).
    """
    answered = ~np.isnan(probabilities[:, 0])
    found = np.full(len(labels), np.nan)
    if answered.any():
        found[answered] = objective(probabilities[answered], labels[answered])
    return found


def is_worse(values: ImageValues, best: ImageValues, level: float) -> bool:
    """Whether a recipe is worse than another on the images that both have answered, by more than chance explains.

    A one-sided test of the mean difference of pairs, normal by the number of images. Racing candidates against the best
    on shared instances, and dropping those that lose, goes back to Maron & Moore 1994 ("Hoeffding races", NIPS 6) and
    Birattari et al. 2002 ("A racing algorithm for configuring metaheuristics", GECCO).

    Args:
        values, best: (image,), NaN where there is no answer.
        level: the probability of dropping one that is just as good.
    """
    differences = (values - best)[~np.isnan(values - best)]
    if len(differences) < 2:
        return False
    error = float(differences.std(ddof=1)) / math.sqrt(len(differences))
    if error == 0:
        return False
    return math.erfc(-float(differences.mean()) / error / math.sqrt(2)) / 2 < level
