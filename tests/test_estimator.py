"""CommitteeClassifier is a scikit-learn estimator, and classifies digits."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.utils.estimator_checks import parametrize_with_checks

from committee import CommitteeClassifier
from committee.errors import DataError


@parametrize_with_checks([CommitteeClassifier(members=2, epochs=10)])
def test_scikit_learns_own_checks(estimator: Any, check: Any) -> None:
    check(estimator)


def test_rows_of_pixels_and_images_are_the_same_to_it() -> None:
    values, labels = load_digits(return_X_y=True)
    pixels = np.rint(values * (255 / 16)).astype(np.uint8)
    train, test, y_train, y_test = train_test_split(pixels, labels, test_size=0.25, random_state=0, stratify=labels)
    flat = CommitteeClassifier(members=2, epochs=6).fit(train, y_train)
    assert flat.score(test, y_test) > 0.95
    honest = flat.out_of_fold_probabilities_
    predicted = ~np.isnan(honest[:, 0])
    assert predicted.mean() == pytest.approx(0.4, abs=0.01)  # two members, five folds
    assert (honest[predicted].argmax(1) == y_train[predicted]).mean() > 0.9
    assert np.array_equal(pickle.loads(pickle.dumps(flat)).predict_proba(test), flat.predict_proba(test))
    square = CommitteeClassifier(members=2, epochs=6).fit(train.reshape(-1, 8, 8), y_train)
    assert np.array_equal(square.predict_proba(test.reshape(-1, 8, 8)), flat.predict_proba(test))


def test_an_image_shape_that_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match="an image must be"):
        CommitteeClassifier(image_shape=(5, 5)).fit(np.zeros((10, 24)), [0, 1] * 5)
