"""Out-of-fold probabilities and labels -> how probably each label is wrong, and the class that is probably right.

The labels are taken for a noisy copy of the true classes: an image of the class k has the label j with the probability
T[k, j], whatever it shows. A committee's probabilities, sharpened or softened by a temperature, say how probable each
true class is. Temperature and T maximise the likelihood of the labels, by EM; what follows for a label is Bayes' rule:

    P(true = k | image, label = j)  is proportional to  p(k | image)^(1/temperature) * T[k, j]

The model is that of Dawid & Skene (1979, "Maximum Likelihood Estimation of Observer Error-Rates Using the EM
Algorithm") with one observer, the label, and a classifier as the prior of each image. It is no near-twin of confident
learning (Northcutt, Jiang & Chuang 2021, arXiv 1911.00068), which counts images over thresholds to estimate T and then
ranks by the probability of the label alone, without T: a label that is a usual mistake counts the same there as one
that nobody makes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import Labels
from committee.rng import numpy_generator

Floats = NDArray[np.floating[Any]]

TEMPERATURES = (0.15, 4.0)
"""Between which the temperature is sought."""

SHARED = 1.0
"""How many images are added to the counts of T for each image of a class, spread as all mistakes are on average.
Without them, a mistake that happened to a class only once would be taken for impossible the next time, and classes that
the committee confuses, such as shirts and T-shirts, for labels that people confuse."""

FITTED_ON = 20_000
"""Images, drawn at random, from which temperature and T are estimated where there are more."""

_TINY = 1e-12
_STEPS = 12
_SEARCHES = 12
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class LabelErrors:
    """What out-of-fold probabilities say about labels.

    Attributes:
        log_odds: (image,) float64: the logarithm of how much more probable another class is than the label's; NaN where
            no member may predict the image. The ranking's score.
        suggested: (image,) int64: the most probable class other than the label's.
        true_class: (image, class) float64: the probability that the image is of each class, given its label, too.
        transitions: (class, class): row k holds the probabilities of labels of images whose true class is k.
        temperature: of the committee's probabilities.
    """

    log_odds: NDArray[np.float64]
    suggested: Labels
    true_class: NDArray[np.float64]
    transitions: NDArray[np.float64]
    temperature: float

    @property
    def wrong(self) -> NDArray[np.float64]:
        """(image,): the probability that the label is wrong; NaN where no member may predict the image."""
        return np.asarray(1 / (1 + np.exp(-self.log_odds)))

    @property
    def ranking(self) -> Labels:
        """Positions of the images that could be judged, the most suspect first."""
        judged = np.flatnonzero(~np.isnan(self.log_odds))
        return np.asarray(judged[np.argsort(-self.log_odds[judged], kind="stable")])

    @property
    def suspected(self) -> int:
        """How many labels are more probably wrong than right: the first ones of the ranking."""
        return int((self.log_odds > 0).sum())


def find_label_errors(probabilities: Floats, labels: Labels) -> LabelErrors:
    """How probably each label is wrong.

    Args:
        probabilities: (image, class), out of fold; rows of NaN where no member may predict the image.
        labels: (image,), as given.
    """
    classes = probabilities.shape[1]
    judged = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    drawn = judged
    if len(judged) > FITTED_ON:
        drawn = np.sort(numpy_generator("label errors").choice(judged, FITTED_ON, replace=False))
    temperature, transitions = fit_noise(probabilities[drawn], labels[drawn])
    joint = _sharpened(_logs(probabilities), temperature) * transitions[:, labels].T
    rows = np.arange(len(labels))
    own = joint[rows, labels]
    others = joint.copy()
    others[rows, labels] = 0
    with np.errstate(invalid="ignore"):
        log_odds = np.log(np.maximum(others.sum(axis=1), 1e-300)) - np.log(np.maximum(own, 1e-300))
        true_class = joint / np.maximum(joint.sum(axis=1, keepdims=True), 1e-300)
    others[rows, labels] = -1
    assert others.shape == (len(labels), classes)
    return LabelErrors(log_odds, np.nan_to_num(others, nan=0).argmax(axis=1), true_class, transitions, temperature)


def fit_noise(probabilities: Floats, labels: Labels) -> tuple[float, NDArray[np.float64]]:
    """The temperature and the transitions (class, class) under which the labels are most probable.

    Golden-section search over the logarithm of the temperature; for each, the transitions by EM.

    Args:
        probabilities: (image, class), without NaN.
        labels: (image,).
    """
    logs, given = _logs(probabilities), np.eye(probabilities.shape[1])[labels]
    low, high = np.log(TEMPERATURES)
    fitted: dict[float, tuple[float, NDArray[np.float64]]] = {}

    def likelihood(place: float) -> float:
        if place not in fitted:
            fitted[place] = _fit_transitions(_sharpened(logs, float(np.exp(place))), labels, given)
        return fitted[place][0]

    for _ in range(_SEARCHES):
        left, right = high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)
        low, high = (low, right) if likelihood(left) >= likelihood(right) else (left, high)
    best = max(fitted, key=likelihood)
    return float(np.exp(best)), fitted[best][1]


def _fit_transitions(
    prior: NDArray[np.float64], labels: Labels, given: NDArray[np.float64]
) -> tuple[float, NDArray[np.float64]]:
    """The labels' mean log-likelihood and the transitions, by EM with `SHARED`.

    Args:
        prior: (image, class), the probability of each true class without the label.
        labels: (image,); `given` are the same, one-hot (image, class).
    """
    classes = prior.shape[1]
    wrong = 0.05
    transitions = _spread(wrong, classes)
    likelihood = np.ones(len(labels))
    for _ in range(_STEPS):
        joint = prior * transitions[:, labels].T
        likelihood = np.maximum(joint.sum(axis=1), 1e-300)
        counts = (joint / likelihood[:, None]).T @ given
        wrong = 1 - np.trace(counts) / max(counts.sum(), 1.0)
        counts += SHARED * counts.sum(axis=1, keepdims=True) * _spread(float(wrong), classes)
        transitions = (counts + _TINY) / (counts + _TINY).sum(axis=1, keepdims=True)  # of a class without images, too
    return float(np.log(likelihood).mean()), transitions


def _spread(wrong: float, classes: int) -> NDArray[np.float64]:
    """Transitions (class, class) where each class's labels are wrong as often, towards all others alike."""
    matrix = np.full((classes, classes), wrong / max(classes - 1, 1))
    np.fill_diagonal(matrix, 1 - wrong)
    return matrix


def _logs(probabilities: Floats) -> NDArray[np.float64]:
    return np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY))


def _sharpened(logs: NDArray[np.float64], temperature: float) -> NDArray[np.float64]:
    """Probabilities at a temperature, from logarithms (image, class)."""
    powers = np.exp((logs - logs.max(axis=1, keepdims=True)) / temperature)
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def votes(probabilities: Floats, labels: Labels) -> Labels:
    """How many members choose the class of `labels`, of those that may predict the image.

    Args:
        probabilities: (member, image, class), with rows of NaN where a member trained on the image.
        labels: (image,).
    """
    may = ~np.isnan(probabilities[:, :, 0])
    choices = np.where(may, np.nan_to_num(probabilities).argmax(axis=2), -1)
    return np.asarray((choices == labels).sum(axis=0))
