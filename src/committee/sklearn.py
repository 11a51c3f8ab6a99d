"""CommitteeClassifier: the committee as a scikit-learn estimator. Needs the extra `sklearn`."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from committee.config import recipe_parsing as recipes
from committee.config.recipe import Augmentation, Recipe
from committee.config.renames import Table
from committee.data.dataset import ImageDataset, LabelledImages, Pixels, SealedTest
from committee.ensemble.committee import Committee, form_committee
from committee.ensemble.member_predictions import MemberPredictions
from committee.errors import DataError, require
from committee.training.executors import executor_for
from committee.training.pipeline import train_members
from committee.training.plan import plan_training
from committee.training.setting import Setting
from committee.training.shared_images import shared

_base = require("sklearn.base", extra="sklearn", purpose="CommitteeClassifier")
_validation = require("sklearn.utils.validation", extra="sklearn", purpose="CommitteeClassifier")
_multiclass = require("sklearn.utils.multiclass", extra="sklearn", purpose="CommitteeClassifier")

SMALLEST_SIDE = 8  # rows of fewer than 8 * 8 numbers are taken for a table, not an image

WIDEST = 4.0
"""Numbers that are no pixels are clipped at so many standard deviations from their mean.

A feature that is rarely different from its mean is dozens of standard deviations away after a StandardScaler; such
values would leave next to nothing of the range for all others, and dominate a convolution's sums.
"""

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class _Images:
    """How rows of X become images: their shape, and the range that 16 bits cover (None where X has 8 or 16 bits)."""

    shape: tuple[int, int, int]
    low: float | None
    high: float | None

    def pixels(self, values: NDArray[Any]) -> Pixels:
        """X as (image, height, width, channel), uint8 or uint16."""
        values = values.reshape(len(values), *self.shape)
        if self.low is None or self.high is None:
            return np.ascontiguousarray(values)
        scaled = (values.astype(np.float64) - self.low) / (self.high - self.low) * 65535
        return np.rint(np.clip(scaled, 0, 65535)).astype(np.uint16)


class CommitteeClassifier(_base.ClassifierMixin, _base.BaseEstimator):  # type: ignore[misc, name-defined]
    """A committee of small convolutional networks.

    Args:
        recipe: a shipped recipe's name, the path of a TOML file, or a `committee.Recipe`.
        members, epochs: instead of the recipe's.
        mirror: whether the images may be mirrored; see `committee.config.recipe_parsing.mirrored`.
        image_shape: (height, width) or (height, width, channels) of a row of X; None takes X's own shape where it has
            three or four axes, a square for rows of at least 64 numbers that form one, and else a strip one pixel high
            (a table; without augmentation).
        workers: processes on the CPU; 1 trains in this process. More need an ``if __name__ == "__main__":`` guard in a
            script. The number changes no result.
        device, precision: "auto", or one of `committee.nn.devices`.
        random_state: an int, the root of all randomness; None draws one; a numpy RandomState gives one.

    Attributes:
        classes_: (class,), the labels.
        committee_: the trained `committee.Committee`.
        out_of_fold_probabilities_: (image, class), of the training images, each predicted only by members that did
            not train on it; rows of NaN without a hold-out, and for images of weight 0. With a class of a single image
            there is no hold-out.
    """

    def __init__(
        self,
        recipe: str | Recipe = "standard",
        *,
        members: int | None = None,
        epochs: int | None = None,
        mirror: bool = False,
        image_shape: tuple[int, ...] | None = None,
        workers: int = 1,
        device: str = "auto",
        precision: str = "auto",
        random_state: int | np.random.RandomState | None = 0,
    ) -> None:
        self.recipe = recipe
        self.members = members
        self.epochs = epochs
        self.mirror = mirror
        self.image_shape = image_shape
        self.workers = workers
        self.device = device
        self.precision = precision
        self.random_state = random_state

    def fit(
        self,
        X: ArrayLike,  # noqa: N803
        y: ArrayLike,
        sample_weight: ArrayLike | None = None,
        groups: ArrayLike | None = None,
    ) -> Self:
        """Train the committee.

        Args:
            X: (image, feature), (image, height, width) or (image, height, width, channel). 8- and 16-bit integers are
                pixels as they are; other numbers are mapped linearly onto 16 bits: their range in X plus half of it on
                either side, but at most four standard deviations from their mean; values beyond that are clipped.
            y: (image,), labels of any kind.
            sample_weight: (image,), what each image counts in the loss, relative to the others; images of weight 0 are
                neither trained nor validated on. Balanced classes are the recipe's `training.class_weights`.
            groups: (image,), which images belong together, such as those of one patient or writer: a member is never
                validated on an image of a group that it was trained on.

        Raises:
            ValueError: X or y is not usable.
            TrainingError: no member could be trained.
        """
        values, y = _validation.validate_data(self, X, y, allow_nd=True, dtype="numeric", ensure_min_samples=2)
        _multiclass.check_classification_targets(y)
        weights, used = self._weights(sample_weight, values)
        values = values[used]
        self.classes_, labels = np.unique(np.asarray(y)[used], return_inverse=True)
        if len(self.classes_) < 2:
            raise DataError(f"y must have at least two classes; got 1 class, {self.classes_[0]!r}")
        self._images = self._image_form(values)
        recipe = self._recipe(np.bincount(labels))
        seed = self._seed()
        pixels = self._images.pixels(values)
        names = tuple(map(str, range(len(self.classes_))))
        nothing = LabelledImages(pixels[:0], np.empty(0, dtype=np.int64))
        together = None
        if groups is not None:
            _validation.check_consistent_length(X, groups)
            together = np.unique(np.asarray(groups)[used], return_inverse=True)[1].astype(np.int64)
        images = LabelledImages(pixels, labels.astype(np.int64), groups=together)
        dataset = ImageDataset("X", images, SealedTest(nothing), names, "fit")
        self.committee_, out_of_fold = self._train(dataset, recipe, seed, weights)
        self.out_of_fold_probabilities_ = np.full((len(used), len(names)), np.nan)
        self.out_of_fold_probabilities_[used] = out_of_fold
        return self

    def predict_proba(self, X: ArrayLike) -> NDArray[np.float64]:  # noqa: N803
        """The committee's probabilities, (image, class), in the order of `classes_`; X as in `fit`.

        Raises:
            NotFittedError: before `fit`.
            ValueError: X does not have the shape of the training images.
        """
        _validation.check_is_fitted(self)
        values = _validation.validate_data(self, X, allow_nd=True, dtype="numeric", reset=False)
        if math.prod(values.shape[1:]) != math.prod(self._images.shape):
            raise DataError(f"X must have images of shape {self._images.shape}, as in fit; got {values.shape[1:]}")
        probabilities: NDArray[np.float64] = self.committee_.predict_proba(self._images.pixels(values))
        return probabilities

    def predict(self, X: ArrayLike) -> NDArray[Any]:  # noqa: N803
        """The most probable label of each image; X as in `fit`.

        Raises:
            NotFittedError: before `fit`.
            ValueError: X does not have the shape of the training images.
        """
        probabilities = self.predict_proba(X)
        return np.asarray(self.classes_[probabilities.argmax(axis=1)])

    def _seed(self) -> int:
        """The root seed; a random state that is not an int gives one."""
        if isinstance(self.random_state, (int, np.integer)):
            return int(self.random_state)
        return int(_validation.check_random_state(self.random_state).randint(2**31))

    def _image_form(self, values: NDArray[Any]) -> _Images:
        """The shape of an image, and the range of numbers that are not pixels."""
        if self.image_shape is not None:
            shape = tuple(self.image_shape)
        elif values.ndim > 2:
            shape = values.shape[1:]
        else:
            side = math.isqrt(values.shape[1])
            shape = (side, side) if side**2 == values.shape[1] and side >= SMALLEST_SIDE else (1, values.shape[1])
        shape = (*shape, 1) if len(shape) == 2 else shape
        if len(shape) != 3 or math.prod(shape) != math.prod(values.shape[1:]) or not 1 <= shape[2] <= 4:
            raise DataError(
                f"an image must be (height, width) or (height, width, 1 to 4 channels); got image_shape "
                f"{self.image_shape} for X of shape {values.shape}"
            )
        if values.dtype in (np.uint8, np.uint16):
            return _Images(shape, None, None)
        low, high = float(values.min()), float(values.max())
        margin, centre, widest = (high - low) / 2 or 1.0, float(values.mean()), WIDEST * float(values.std())
        if not widest:
            return _Images(shape, low - margin, high + margin)
        return _Images(shape, max(low - margin, centre - widest), min(high + margin, centre + widest))

    def _weights(self, given: ArrayLike | None, values: NDArray[Any]) -> tuple[NDArray[np.float64] | None, Mask]:
        """The weights of the images that are used, None where all are equal; and which images these are."""
        if given is None:
            return None, np.ones(len(values), dtype=bool)
        weights = _validation._check_sample_weight(given, values, dtype=np.float64, ensure_non_negative=True)
        used = weights > 0
        if not used.any():
            raise DataError("sample_weight must be above 0 for some images; got 0 for all of them")
        kept = weights[used]
        return (None if (kept == kept[0]).all() else kept), used

    def _recipe(self, counts: NDArray[np.int64]) -> Recipe:
        """The recipe with this estimator's changes; folds no more than the smallest class allows."""
        recipe = self.recipe if isinstance(self.recipe, Recipe) else recipes.load(self.recipe)
        parts: dict[str, Table] = {
            "committee": {"members": self.members} if self.members is not None else {},
            "training": {"epochs": self.epochs} if self.epochs is not None else {},
        }
        smallest = int(counts.min())
        if recipe.holdout.kind == "folds" and smallest < recipe.holdout.folds:
            parts["holdout"] = {"folds": smallest} if smallest >= 2 else {"kind": "none"}
        content: Table = recipe.model_dump(mode="json", exclude_none=True)
        if self.mirror:
            content = recipes.mirrored(content)
        if self.image_shape is None and self._images.shape[0] == 1:
            content["augmentation"] = Augmentation().model_dump(mode="json")
        for section, fields in parts.items():
            stated = content.get(section, {})
            content[section] = {**(stated if isinstance(stated, Mapping) else {}), **fields}
        return recipes.parse(content, "the recipe of CommitteeClassifier")

    def _train(
        self, dataset: ImageDataset, recipe: Recipe, seed: int, weights: NDArray[np.float64] | None
    ) -> tuple[Committee, NDArray[np.float64]]:
        """Train in memory: the committee, and the out-of-fold probabilities (image, class)."""
        setting = Setting(seed, self.device, self.precision, self.workers)
        plan = replace(plan_training(dataset, recipe, setting), weights=weights)
        setting = plan.setting
        with shared(dataset.train) as (images,):
            assert images is not None
            outcomes = train_members(
                plan.jobs(images, None, None), executor_for(setting, len(plan.validation)), "leave_out"
            )
        members = {outcome.record.member: outcome.trained for outcome in outcomes if outcome.trained}
        for record in (outcome.record for outcome in outcomes if not outcome.trained):
            warnings.warn(
                f"a committee of {len(outcomes)} members is expected, but member {record.member} is not part of it: "
                f"{record.remark}",
                stacklevel=3,
            )
        predictions = MemberPredictions.for_training_images(list(members.values()))
        rule, _ = predictions.fit_rule(dataset.train.labels, recipe.committee)
        committee = form_committee(
            {number: member.weights for number, member in members.items()},
            recipe,
            rule,
            class_names=dataset.class_names,
            image_shape=dataset.image_shape,
            pixel_range=dataset.pixel_range,
            device=setting.device,
            precision=setting.precision,
        )
        return committee, predictions.combined(rule)
