"""Is this the kind of image that a committee knows? A p-value for each image, and why it is small, in words.

Each image is measured: how bright its border and all of it are, its contrast, its detail, its colour, and the doubt of
the members about it. A measure's value is as rare as the share of training images with one at least as extreme, on
either side; an image's rarest measure is its surprise. `familiar` is the share of training images, predicted out of
fold, that surprise at least as much: spread evenly from 0 to 1 for images of the same kind, near 0 for others. Beyond
the rarest fortieth of the training images the shares are extrapolated by an exponential tail with their mean excess,
the simplest case of peaks over a threshold (Pickands, 1975).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping
from typing import Annotated, Any, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import Field, model_validator

from committee.config.record import Record
from committee.data.dataset import Pixels, spread
from committee.pages import by_blocks

Floats = NDArray[np.floating[Any]]

CALIBRATED = 10_000  # training images that are measured, at most
FEWEST = 20  # and at least
TAIL = 0.025  # of the values on each side are extrapolated
QUANTILES = 401
CHUNK = 256  # images that are measured at once
FIXED = 2.0**30  # parts of 1 that values are rounded to before they are compared

ABOVE_ONLY = ("doubt",)
"""Measures whose small values are not unusual: members may be certain."""

WORDS = {
    "border": ("with a darker border than those", "with a lighter border than those"),
    "brightness": ("darker than those", "lighter than those"),
    "contrast": ("with less contrast than those", "with more contrast than those"),
    "detail": ("with less detail than those, such as blurred or enlarged ones", "with more detail or noise than those"),
    "colour": ("with less colour than those", "with more colour than those"),
    "doubt": ("", "the members are more in doubt than they were about those"),
}
"""What is said of images whose value of a measure is too small, or too large."""

UNFAMILIAR = (0.01, 1e-4, 1e-6)
"""Below these an image is called unlike the training images, if chance would not give as many: `Familiarity.unlike`."""


class Distribution(Record):
    """How a measure is distributed over the training images.

    Attributes:
        quantiles: evenly spaced, from the smallest value to the largest.
        excess: by how much the values of the lowest and the highest `TAIL` go beyond its end, on average.
    """

    quantiles: tuple[float, ...] = Field(min_length=2)
    excess: tuple[Annotated[float, Field(gt=0)], Annotated[float, Field(gt=0)]]

    def log_share_above(self, values: Floats) -> Floats:
        """The logarithm of the share of training images with at least this value."""
        return self._log_share(values, np.array(self.quantiles), self.excess[1])

    def log_share_below(self, values: Floats) -> Floats:
        """The logarithm of the share of training images with at most this value."""
        return self._log_share(-values, -np.array(self.quantiles)[::-1], self.excess[0])

    @staticmethod
    def _log_share(values: Floats, quantiles: Floats, excess: float) -> Floats:
        values, quantiles = fixed(values), fixed(quantiles)
        body = 1 - np.searchsorted(quantiles, values, side="left") / len(quantiles)
        beyond = (values - quantiles[round((1 - TAIL) * (len(quantiles) - 1))]) / (excess * FIXED)
        tail = math.log(TAIL) - np.maximum(beyond, 0)
        return cast(Floats, np.where(beyond > 0, tail, np.log(np.maximum(body, TAIL))))


def fixed(values: Floats) -> Floats:
    """Values as multiples of 2**-30: equal ones stay equal where another machine's logarithm has another last bit.

    Many images have the same surprise, so that one bit would decide about all of them.
    """
    return np.rint(np.asarray(values, np.float64) * FIXED)


def distribution(values: Floats, least_excess: float = 0.01) -> Distribution:
    """The distribution of values (image,); an excess is at least `least_excess`."""
    quantiles = np.quantile(values, np.linspace(0, 1, QUANTILES))
    low, high = np.quantile(values, (TAIL, 1 - TAIL))
    beyond = (low - values[values < low], values[values > high] - high)
    excess = [float(side.mean()) if len(side) else 0.0 for side in beyond]
    return Distribution(
        quantiles=tuple(float(f"{each:.6g}") for each in quantiles),
        excess=(max(excess[0], least_excess), max(excess[1], least_excess)),
    )


class Familiarity(Record):
    """What training images look like to the measures of `measured`.

    Attributes:
        images: how many were measured.
        measures: each measure's distribution.
        surprise: the distribution of the images' surprise, -log of their rarest measure's share.
    """

    images: int = Field(gt=0)
    measures: dict[str, Distribution]
    surprise: Distribution

    @model_validator(mode="after")
    def _all_measures(self) -> Familiarity:
        if {*self.measures, "doubt"} != {*WORDS}:
            raise ValueError(f"the measures {', '.join(WORDS)} are expected")
        return self

    def shares(self, measures: Mapping[str, Floats]) -> dict[tuple[str, bool], Floats]:
        """For each measure, and whether its value may be too large: the logarithm of the share beyond it (image,)."""
        found = {}
        for name, known in self.measures.items():
            found[name, True] = known.log_share_above(measures[name])
            if name not in ABOVE_ONLY:
                found[name, False] = known.log_share_below(measures[name])
        return found

    def familiar(self, measures: Mapping[str, Floats]) -> Floats:
        """(image,), from 0 to 1: the share of training images that surprise at least as much."""
        surprise = -np.min(list(self.shares(measures).values()), axis=0)
        return np.exp(self.surprise.log_share_above(surprise))

    def unlike(self, familiar: Floats) -> NDArray[np.int64]:
        """Positions of the images that are unlike the training images, if there are more than chance would give.

        Of images of the same kind one in a hundred is below .01, too. So there must be twice as many below one of the
        limits `UNFAMILIAR`, the limits' own error counted in, and so many that their probability is at most .01 for
        such images; the first such limit counts.
        """
        for limit in UNFAMILIAR:
            found = np.flatnonzero(familiar < limit)
            expected = len(familiar) * (limit + 2 * math.sqrt(limit / self.images))
            if len(found) > 2 * expected and _chance(len(found), len(familiar), limit) <= 0.01 + 1e-9:
                return found
        return np.empty(0, np.int64)

    def reason(self, measures: Mapping[str, Floats]) -> str:
        """Why most of these images are unlike the training images, in words."""
        shares = self.shares(measures)
        rarest = np.argmin(list(shares.values()), axis=0)
        (place, _), *_ = Counter(rarest.tolist()).most_common(1)
        name, too_large = list(shares)[place]
        chosen = {each: float(np.median(values[rarest == place])) for each, values in measures.items()}
        known = {each: float(np.median(values.quantiles)) for each, values in self.measures.items()}
        if name in ("border", "brightness"):
            ours, theirs = _polarity(chosen), _polarity(known)
            if ours and theirs and ours != theirs:
                return f"{ours} where those were {theirs}"
        return WORDS[name][too_large]


def _polarity(measures: Mapping[str, float]) -> str:
    """What stands before what, by the brightness of the border and of the whole; "" where this cannot be said."""
    border, whole = measures["border"], measures["brightness"]
    if border < 0.35 and whole > border:
        return "light on dark"
    return "dark on light" if border > 0.55 and whole < border else ""


def fit(pixels: Pixels, doubt: Floats | None) -> Familiarity | None:
    """What training images look like.

    Args:
        pixels: (image, height, width, channel).
        doubt: (image,), of members that did not train on the image, and NaN where all did; None where it is not known.

    Returns:
        None where fewer than `FEWEST` images can be measured.
    """
    positions = np.arange(len(pixels)) if doubt is None else np.flatnonzero(~np.isnan(doubt))
    if len(positions) < FEWEST:
        return None if doubt is None else fit(pixels, None)
    positions = positions[spread(len(positions), CALIBRATED)]
    measures = measured(pixels, doubt, positions)
    nothing_known = distribution(np.zeros(1))
    first = Familiarity(
        images=len(positions),
        measures={name: distribution(values) for name, values in measures.items()},
        surprise=nothing_known,
    )
    surprise = -np.min(list(first.shares(measures).values()), axis=0)
    return first.model_copy(update={"surprise": distribution(surprise, least_excess=1.0)})


def measured(
    pixels: Pixels, doubt: Floats | None = None, positions: NDArray[np.integer] | None = None
) -> dict[str, Floats]:
    """The measures of images (image, height, width, channel), each (image,); "doubt" only where it is given.

    Args:
        pixels: the images.
        doubt: (image,), as `doubt_of` gives it.
        positions: those of the images that are measured; None measures all.
    """
    if positions is None:
        positions = np.arange(len(pixels))
    starts = range(0, max(len(positions), 1), CHUNK)
    columns = np.concatenate([_columns(pixels[positions[start : start + CHUNK]]) for start in starts])
    doubt = None if doubt is None else doubt[positions]
    found = dict(zip(("border", "brightness", "contrast", "detail", "colour"), columns.T, strict=True))
    return found if doubt is None else {**found, "doubt": doubt}


def _columns(pixels: Pixels) -> Floats:
    """(image, measure) of a few images, from 0 to 1.

    Sums of whole numbers come first, which are exact in any order, and then a division: an exported committee, which
    computes the same in another runtime (`committee.export.graph`), gets the same last bit, and so the same share.
    """
    colours = pixels[..., : 3 if pixels.shape[3] >= 3 else 1].astype(np.float64)
    grey = colours.sum(axis=3)
    count, largest = grey[0].size, float(np.iinfo(pixels.dtype).max)
    white = colours.shape[3] * largest
    border = np.concatenate([grey[:, 0], grey[:, -1], grey[:, 1:-1, 0], grey[:, 1:-1, -1]], axis=1)
    total, squares = grey.sum(axis=(1, 2)), np.square(grey).sum(axis=(1, 2))
    detail = np.zeros(len(grey))
    for axis in (1, 2):
        steps = np.abs(np.diff(grey, axis=axis))
        detail += steps.sum(axis=(1, 2)) / (max(steps[0].size, 1) * white)
    columns = (
        border.sum(axis=1) / (border.shape[1] * white),
        total / (count * white),
        np.sqrt(np.maximum(count * squares - total * total, 0)) / (count * white),
        detail,
        (colours.max(axis=3) - colours.min(axis=3)).sum(axis=(1, 2)) / (count * largest),
    )
    return np.stack(columns, axis=1)


def doubt_of(probabilities: Floats) -> Floats:
    """How much members doubt their own choices: (member, image, class) -> (image,).

    The mean over members of -log of their largest probability, in nats; rows of NaN are left out, and an image of which
    no member has any other row is NaN.
    """
    return by_blocks(lambda a, b: _doubt(probabilities[:, a:b]), probabilities.shape[1:2], np.float64)


def _doubt(probabilities: Floats) -> Floats:
    doubts = -np.log(np.maximum(probabilities.max(axis=2).astype(np.float64), 1e-12))
    known = ~np.isnan(doubts)
    count = known.sum(axis=0)
    total = np.where(known, doubts, 0).sum(axis=0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def _chance(count: int, images: int, share: float) -> float:
    """The probability that at least `count` of so many images are below a limit that a share of them is below."""
    if count > 2 * images * share + 20:
        return 0.0
    odds, none = math.log(share) - math.log1p(-share), images * math.log1p(-share)
    ways = (math.lgamma(images + 1) - math.lgamma(k + 1) - math.lgamma(images - k + 1) for k in range(count))
    return 1 - sum(math.exp(way + k * odds + none) for k, way in enumerate(ways))
