"""What members predict for one set of images, and everything that follows from it: used by runs and studies alike."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import CommitteeSection
from committee.data.dataset import Labels, spread
from committee.ensemble.combine import CombinationRule
from committee.ensemble.temperature import extrapolate, temperatures_by_size
from committee.ensemble.weights import fit_weights
from committee.folders.member_folder import MemberFolder, Positions, TrainedMember
from committee.metrics.results import Scores, SizeTemperature
from committee.metrics.scores import score
from committee.pages import drop_pages, room, rows
from committee.rng import numpy_generator


@dataclass(frozen=True)
class MemberPredictions:
    """Members' probabilities for one set of images.

    Attributes:
        probabilities: (member, image, class) float32, of all members and images.
        validation: for each member, the positions of the images that it did not train on; None where no member trained
            on any of them, as with test images.
    """

    probabilities: NDArray[np.float32]
    validation: tuple[Positions, ...] | None = None

    @classmethod
    def for_training_images(cls, members: Sequence[TrainedMember | MemberFolder]) -> MemberPredictions:
        """What trained members predict for the training images."""
        probabilities = stacked([member.train_probabilities for member in members])
        return cls(probabilities, tuple(member.validation for member in members))

    @classmethod
    def for_test_images(cls, members: Sequence[MemberFolder]) -> MemberPredictions:
        """What members have predicted for the opened test images."""
        return cls(stacked([member.test_probabilities for member in members]))

    def of(self, members: Sequence[int]) -> MemberPredictions:
        """Those of some of the members."""
        validation = None if self.validation is None else tuple(self.validation[member] for member in members)
        return MemberPredictions(self.probabilities[list(members)], validation)

    @cached_property
    def honest(self) -> NDArray[np.float32]:
        """(member, image, class) with rows of NaN where a member trained on the image."""
        if self.validation is None:
            return self.probabilities
        honest = room(self.probabilities.shape, self.probabilities.dtype)
        honest.fill(np.nan)
        for member, positions in enumerate(self.validation):
            honest[member, positions] = self.probabilities[member, positions]
        return honest

    @cached_property
    def members_per_image(self) -> NDArray[np.int64]:
        """(image,): how many members may predict it."""
        return np.asarray((~np.isnan(self.honest[:, :, 0])).sum(axis=0))

    @property
    def predictable(self) -> Positions:
        """Positions of the images that at least one member may predict."""
        return np.flatnonzero(self.members_per_image)

    def combined(self, rule: CombinationRule) -> NDArray[np.float64]:
        """The committee's probabilities (image, class), of training images out of fold.

        Rows of NaN where no member may predict the image. Out of fold there is no temperature: it was fitted on these
        very probabilities, and it is the whole committee's, not that of the few members which may predict an image.
        """
        return rule.predict(self.honest) if self.validation is None else rule.combine(self.honest)

    def scores(self, labels: Labels, class_names: Sequence[str], rule: CombinationRule) -> Scores | None:
        """The committee's scores on the images that may be predicted; None where there are none."""
        images = self.predictable
        return score(rows(self.combined(rule), images), labels[images], class_names) if len(images) else None

    def some(self, most: int) -> tuple[MemberPredictions, Positions]:
        """Those for so many of the images that may be predicted, spread evenly, and their positions; for all images
        where these are no more: enough for what is fitted or drawn.
        """
        images = self.predictable
        if len(images) <= most:
            return self, np.arange(self.probabilities.shape[1])
        chosen = images[spread(len(images), most)]
        return MemberPredictions(self.honest[:, chosen]), chosen

    def fit_rule(
        self, labels: Labels, section: CommitteeSection
    ) -> tuple[CombinationRule, tuple[SizeTemperature, ...]]:
        """How these members become one: weights and temperature from their out-of-fold probabilities.

        Args:
            labels: (image,), of the training images.
            section: the recipe's.

        Returns:
            The rule, and the temperatures of smaller committees that its own was extrapolated from.
        """
        weights = fit_weights(self.honest, labels) if section.combination == "weighted" else None
        rule = CombinationRule(section.combination, None if weights is None else tuple(map(float, weights)))
        if section.calibration == "none":
            return rule, ()
        members = len(self.probabilities)
        by_size = temperatures_by_size(self.honest, labels, rule.combine, numpy_generator("temperature", members))
        temperature = extrapolate(by_size, members) if by_size else 1.0
        return CombinationRule(rule.how, rule.weights, temperature), by_size


def stacked(members: Sequence[NDArray[np.float32]]) -> NDArray[np.float32]:
    """(member, image, class) of members' probabilities (image, class); of one member without a copy."""
    if len(members) == 1:
        return members[0][None]
    result = room((len(members), *members[0].shape), members[0].dtype)
    for place, probabilities in enumerate(members):
        result[place] = probabilities
        drop_pages()
    return result
