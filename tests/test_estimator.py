"""CommitteeClassifier is a scikit-learn estimator, and classifies digits."""

from __future__ import annotations

import pickle  # noqa: TID251 - scikit-learn's users do so, and it must work
import warnings
from typing import Any

import numpy as np
import pytest
from joblib.externals.loky import get_reusable_executor  # noqa: TID251 - its processes, no files
from sklearn.datasets import load_digits
from sklearn.model_selection import cross_val_predict, train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks

from committee import CommitteeClassifier
from committee.errors import DataError


def weights_are_not_repetitions(_: Any) -> dict[str, str]:
    return {
        "check_sample_weight_equivalence_on_dense_data": "a weight is a factor of the loss; an image given twice is "
        "augmented, shuffled and held out twice"
    }


@parametrize_with_checks(
    [CommitteeClassifier(members=2, epochs=10)], expected_failed_checks=weights_are_not_repetitions
)
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
    assert np.array_equal(pickle.loads(pickle.dumps(flat)).predict_proba(test), flat.predict_proba(test))  # noqa: S301
    square = CommitteeClassifier(members=2, epochs=6).fit(train.reshape(-1, 8, 8), y_train)
    assert np.array_equal(square.predict_proba(test.reshape(-1, 8, 8)), flat.predict_proba(test))


@pytest.fixture(scope="module")
def digits_split() -> tuple[Any, ...]:
    values, labels = load_digits(return_X_y=True)
    return tuple(train_test_split(values, labels, train_size=600, random_state=0, stratify=labels))


def test_standardised_features_cost_next_to_nothing(digits_split: tuple[Any, ...]) -> None:
    train, test, y_train, y_test = digits_split
    plain = CommitteeClassifier(members=2, epochs=10).fit(train, y_train).score(test, y_test)
    scaled = make_pipeline(StandardScaler(), CommitteeClassifier(members=2, epochs=10)).fit(train, y_train)
    assert scaled.score(test, y_test) > plain - 0.02  # .80 without clipping


def test_weights_of_images_count_in_the_loss_and_zero_leaves_out(digits_split: tuple[Any, ...]) -> None:
    train, test, y_train, _ = digits_split
    wrong = np.where(np.arange(len(y_train)) % 2 == 0, (y_train + 1) % 10, y_train)  # every second label
    light = np.where(wrong == y_train, 1.0, 0.01)
    model = CommitteeClassifier(members=2, epochs=10)
    assert model.fit(train, wrong, sample_weight=light).score(train, y_train) > 0.9
    left_out = CommitteeClassifier(members=2, epochs=3).fit(train, wrong, sample_weight=light > 0.5)
    kept = CommitteeClassifier(members=2, epochs=3).fit(train[light > 0.5], y_train[light > 0.5])
    assert np.array_equal(left_out.predict_proba(test), kept.predict_proba(test))
    assert np.isnan(left_out.out_of_fold_probabilities_[0]).all()


def test_members_are_validated_on_groups_that_they_have_not_seen(digits_split: tuple[Any, ...]) -> None:
    train, _, y_train, _ = digits_split
    writers = np.arange(300) % 60

    def validated(groups: Any) -> Any:
        model = CommitteeClassifier(members=2, epochs=1).fit(train[:300], y_train[:300], groups=groups)
        return ~np.isnan(model.out_of_fold_probabilities_[:, 0]).reshape(5, 60)  # (image, writer)

    whole = validated(writers)
    assert 0 < whole.sum() < 300
    assert (whole == whole[0]).all()
    assert not (validated(None) == validated(None)[0]).all()


def test_inside_a_pools_worker_members_are_trained_there(digits_split: tuple[Any, ...]) -> None:
    train, _, y_train, _ = digits_split
    model = CommitteeClassifier(members=2, epochs=1, workers=2)
    alone = cross_val_predict(model, train[:200], y_train[:200], cv=2, method="predict_proba")
    with warnings.catch_warnings():  # the warning itself is the workers'
        warnings.simplefilter("ignore")
        found = cross_val_predict(model, train[:200], y_train[:200], cv=2, method="predict_proba", n_jobs=2)
    get_reusable_executor().shutdown(wait=True)  # other tests look at this process's children
    assert np.array_equal(found, alone)


def test_an_image_shape_that_does_not_fit_is_told() -> None:
    with pytest.raises(DataError, match="an image must be"):
        CommitteeClassifier(image_shape=(5, 5)).fit(np.zeros((10, 24)), [0, 1] * 5)
