"""Faults of a data set: ImageDataset -> DatasetCheck, for `committee data check`; the quick ones as notes.

Nothing is trained and nothing chosen. The quick form looks at `ImageMarks`, which hold no pixels, so the test images
stay sealed. The whole check is given the test images, opened and noted by `runs.check`; their labels are used for one
thing: to say which equal images have different labels.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from committee.config.record import Record
from committee.data.class_distances import Neighbours, neighbours
from committee.data.dataset import ImageDataset, ImageMarks, LabelledImages, image_marks
from committee.data.near_duplicates import (
    CHUNK,
    Floats,
    NearPairs,
    Small,
    grey,
    near_duplicates,
    one_thread,
    reduced,
)
from committee.data.summary import leak_note

Part = Literal["train", "test"]
KindName = Literal[
    "leak",
    "conflict",
    "near leak",
    "blank",
    "polarity",
    "duplicate",
    "near duplicate",
    "small class",
    "alike",
    "outlier",
]
Order = NDArray[np.int64]

FEWEST_TESTED = 20
"""Test images of a class below which its own figures say little: with 20, an accuracy of .9 is .70 to .97."""

FEWEST_TRAINED = 25
"""Training images of a class below which a fold of five holds fewer than five of it."""


SMALLEST_SIDE = 6
"""Pixels of the shorter side below which images are too small to be nearly the same."""


TOO_ALIKE = "so many images are nearly the same that not all pairs were compared; there are more than are listed"


@dataclass(frozen=True)
class Kind:
    """A kind of finding.

    Attributes:
        one, many: what was found, after its number, for one and for several.
        advice: what to do.
    """

    one: str
    many: str
    advice: str


KINDS: dict[KindName, Kind] = {
    "leak": Kind(
        "test image is identical to a training image",
        "test images are identical to training images",
        "test figures are too favourable; remove them from one of the parts",
    ),
    "conflict": Kind(
        "image is identical to one with another label",
        "images are identical to one with another label",
        "correct the labels, or remove these images",
    ),
    "near leak": Kind(
        "pair of a test image and a training image is nearly the same",
        "pairs of a test image and a training image are nearly the same",
        "look at them, since simple shapes may be alike by chance; keep what belongs together on one side (--groups), "
        "or remove one of each pair",
    ),
    "blank": Kind(
        "image is blank (a single colour)",
        "images are blank (a single colour)",
        "find out what became of them, or remove them",
    ),
    "polarity": Kind(
        "image has its background the other way round",
        "images have their background the other way round (light where most are dark, or the reverse)",
        "invert them; a committee takes the background for a part of the class",
    ),
    "duplicate": Kind(
        "image is identical to another of its part",
        "images are identical to another of their part",
        "remove the copies; in the test part they count twice",
    ),
    "near duplicate": Kind(
        "pair of images of one part is nearly the same",
        "pairs of images of one part are nearly the same",
        "keep what belongs together on one side of every split (--groups), or remove one of each pair",
    ),
    "small class": Kind(
        "class is too small to judge",
        "classes are too small to judge",
        f"add images: {FEWEST_TESTED} test images and {FEWEST_TRAINED} training images at least",
    ),
    "alike": Kind(
        "pair of classes looks alike",
        "pairs of classes look alike",
        "expect most errors there; see whether the classes are told apart by what the images show",
    ),
    "outlier": Kind(
        "image is far from all others of its class",
        "images are far from all others of their class",
        "look at them: a wrong label, a damaged image, or a rare one",
    ),
}
"""Every kind of finding, the worst first."""


class Finding(Record):
    """Something found about an image, a pair of images, or a class.

    Attributes:
        kind: of `KINDS`.
        part: of the image; for a class "train".
        index: of the image in its part, counted from 0; None for a class.
        name: the image's file, if it has one.
        label: its class.
        other_part, other_index, other_name, other_label: the image or class that it was compared with, if any.
        distance: near duplicates: what shift, gain and offset do not explain, as a fraction of the contrast; outliers:
            how many times as far from their class as is usual; alike: the fraction of images whose nearest is in the
            other class; small class: how many images the smaller part has.
    """

    kind: KindName
    part: Part = "train"
    index: int | None = None
    name: str = ""
    label: str
    other_part: Part | None = None
    other_index: int | None = None
    other_name: str = ""
    other_label: str = ""
    distance: float | None = None

    @property
    def labels_differ(self) -> bool:
        """Whether two images were compared that have different labels."""
        return self.other_index is not None and self.label != self.other_label


class DatasetCheck(Record):
    """What was found in a data set.

    Attributes:
        data: its name.
        train_images, test_images: how many were looked at.
        notes: what was said when it was read, sizes that differed among it; and where the check was not complete.
        findings: the worst kind first, within a kind the worst first.
        near_found: the fraction of changed copies (a pixel's shift, 15 % brightness, JPEG) that the search for near
            duplicates finds, measured on copies of these images; None where it was not run.
    """

    data: str
    train_images: int
    test_images: int
    notes: tuple[str, ...]
    findings: tuple[Finding, ...]
    near_found: float | None

    def of(self, kind: KindName) -> tuple[Finding, ...]:
        """The findings of a kind."""
        return tuple(finding for finding in self.findings if finding.kind == kind)

    @property
    def lines(self) -> tuple[str, ...]:
        """A line for each kind that was found, the worst first: how many, and what to do."""
        return tuple(line(kind, found) for kind in KINDS if (found := self.of(kind)))


def line(kind: KindName, found: Sequence[Finding]) -> str:
    """How many findings of a kind there are, and what to do."""
    text, differ = KINDS[kind], sum(each.labels_differ for each in found)
    labels = f" ({differ:,} with different labels)" if differ and kind != "conflict" else ""
    named = f": {_named(found)}" if kind in ("small class", "alike") else ""
    return f"{len(found):,} {text.one if len(found) == 1 else text.many}{labels}{named}; {text.advice}"


def _named(found: Sequence[Finding]) -> str:
    """The first classes of findings."""
    names = [f"{each.label} and {each.other_label}" if each.other_label else each.label for each in found[:5]]
    return ", ".join(names) + (f" and {len(found) - 5} more" if len(found) > 5 else "")


# --- the quick form ---------------------------------------------------------------------------------------------------


def quick_notes(dataset: ImageDataset) -> tuple[str, ...]:
    """What is said before each training, of a second's work at most; the test images stay sealed.

    Identical images in both parts, blank images, classes too small to judge. Identical images with different labels are
    in the notes from reading.
    """
    found = list(leak_note(dataset.test_images_also_in_train(), len(dataset.test)))
    known = dataset.already_known
    if blank := known.blank if known else blank_images(dataset):
        text = KINDS["blank"]
        found.append(f"{blank:,} {text.one if blank == 1 else text.many}; committee data check shows them")
    small = list(_small_classes(dataset))
    if small:
        found.append(line("small class", small))
    return tuple(found)


def blank_images(dataset: ImageDataset) -> int:
    """How many images of both parts have a single colour."""
    return int(image_marks(dataset.train).constant.sum()) + int(dataset.test.marks.constant.sum())


def _small_classes(dataset: ImageDataset) -> Iterator[Finding]:
    classes = len(dataset.class_names)
    counts = zip(dataset.class_names, dataset.train.counts(classes), dataset.test.counts(classes), strict=True)
    for name, train, test in counts:
        if test < FEWEST_TESTED and len(dataset.test):
            yield Finding(kind="small class", part="test", label=name, distance=test)
        elif train < FEWEST_TRAINED:
            yield Finding(kind="small class", label=name, distance=train)


# --- the whole check --------------------------------------------------------------------------------------------------


def check_dataset(dataset: ImageDataset, test: LabelledImages) -> DatasetCheck:
    """All checks.

    Args:
        dataset: whose training images.
        test: its test images, opened.
    """
    images = _Images(dataset.train, test, dataset.class_names)
    marks = _joined(image_marks(dataset.train), image_marks(test))
    distinct = np.sort(np.unique(marks.pixels, return_index=True)[1])
    distinct = distinct[~marks.constant[distinct]]
    small = np.concatenate([reduced(dataset.train.pixels), reduced(test.pixels)])
    comparable = len(distinct) > 1 and min(small.shape[1:3]) >= SMALLEST_SIDE
    near = near_duplicates(small[distinct]) if comparable else None
    turned = _turned(small, marks.constant)
    plain = np.ones(len(small), np.bool_)
    plain[turned] = False
    plain &= ~marks.constant
    with one_thread():
        of_classes = neighbours(small[: len(dataset.train)], dataset.train.labels, len(dataset.class_names))
    found = [
        *_identical(images, marks),
        *(images.finding("blank", i) for i in np.flatnonzero(marks.constant)),
        *(images.finding("polarity", i) for i in turned),
        *(_near(images, near, distinct) if near else ()),
        *_small_classes(dataset),
        *_alike(of_classes, dataset.class_names),
        *(
            images.finding("outlier", i, distance=float(of_classes.remoteness[i]))
            for i in of_classes.outliers
            if plain[i]
        ),
    ]
    places = {kind: place for place, kind in enumerate(KINDS)}
    return DatasetCheck(
        data=dataset.name,
        train_images=len(dataset.train),
        test_images=len(test),
        notes=(*dataset.notes, *([TOO_ALIKE] if near and not near.complete else [])),
        findings=tuple(sorted(found, key=lambda each: places[each.kind])),
        near_found=near.found if near else None,
    )


@dataclass(frozen=True)
class _Images:
    """The images of both parts in one order, the training images first."""

    train: LabelledImages
    test: LabelledImages
    class_names: tuple[str, ...]

    def place(self, image: int) -> tuple[Part, int, str, str]:
        """Part, position there, name and class of an image."""
        in_train = image < len(self.train)
        part, index = (self.train, image) if in_train else (self.test, image - len(self.train))
        name = part.names[index] if part.names else ""
        return "train" if in_train else "test", index, name, self.class_names[part.labels[index]]

    def finding(
        self,
        kind: KindName,
        image: int | np.signedinteger,
        other: int | np.signedinteger | None = None,
        distance: float | None = None,
    ) -> Finding:
        """A finding about an image, or about two; a test image is named first."""
        if other is not None and image < len(self.train) <= other:
            image, other = other, image
        part, index, name, label = self.place(int(image))
        beside = {}
        if other is not None:
            keys = ("other_part", "other_index", "other_name", "other_label")
            beside = dict(zip(keys, self.place(int(other)), strict=True))
        return Finding.model_validate(
            {"kind": kind, "part": part, "index": index, "name": name, "label": label, "distance": distance, **beside}
        )


def _joined(train: ImageMarks, test: ImageMarks) -> ImageMarks:
    return ImageMarks(
        *(np.concatenate([getattr(train, name), getattr(test, name)]) for name in ("pixels", "labelled", "constant"))
    )


def _firsts(numbers: NDArray[np.uint64]) -> Order:
    """For each image the first one with the same number."""
    _, first, group = np.unique(numbers, return_index=True, return_inverse=True)
    return first[group]


def _conflicts(marks: ImageMarks) -> Order:
    """Images that are identical to an earlier one with another label; of one colour does not count."""
    first = _firsts(marks.pixels)
    return np.flatnonzero((marks.labelled != marks.labelled[first]) & ~marks.constant)


def _identical(images: _Images, marks: ImageMarks) -> Iterator[Finding]:
    """Leaks, conflicts and duplicates among images that are not of one colour."""
    first, train = _firsts(marks.pixels), len(images.train)
    for image in _conflicts(marks):
        yield images.finding("conflict", image, first[image])
    in_test = _firsts(marks.pixels[train:]) + train
    for image in np.flatnonzero(~marks.constant):
        if image >= train > first[image]:
            yield images.finding("leak", image, first[image])
        own = first[image] if image < train else in_test[image - train]
        if own != image:
            yield images.finding("duplicate", image, own)


def _near(images: _Images, near: NearPairs, distinct: Order) -> Iterator[Finding]:
    """Pairs that are nearly the same, the nearest first."""
    train = len(images.train)
    for pair in np.argsort(near.difference, kind="stable"):
        one, two = distinct[near.first[pair]], distinct[near.second[pair]]
        kind: KindName = "near leak" if one < train <= two else "near duplicate"
        yield images.finding(kind, one, two, float(near.difference[pair]))


def _alike(found: Neighbours, class_names: Sequence[str]) -> Iterator[Finding]:
    """Classes that are often each other's nearest."""
    for one, two, share in found.alike:
        yield Finding(kind="alike", label=class_names[one], other_label=class_names[two], distance=share)


def _turned(images: Small, constant: NDArray[np.bool_]) -> Order:
    """Images whose plain background is light where nearly all others' is dark, or the reverse.

    An image has a plain background if nine tenths of its frame are within an eighth of its range from the frame's
    median. Only where four fifths of all images have one, and nine tenths of these the same way round, is the rest odd.
    """
    parts = [_backgrounds(grey(images[start : start + CHUNK])) for start in range(0, len(images), CHUNK)]
    plain, light = (np.concatenate(each) for each in zip(*parts, strict=True))
    plain &= ~constant
    if plain.sum() < 0.8 * len(images):
        return np.zeros(0, np.int64)
    odd = np.flatnonzero(plain & (light if 2 * light[plain].sum() <= plain.sum() else ~light))
    return odd if len(odd) <= 0.1 * plain.sum() else odd[:0]


def _backgrounds(pixels: Floats) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Which images (image, height, width) have a plain background, and which a light one."""
    frame = np.concatenate([pixels[:, 0], pixels[:, -1], pixels[:, 1:-1, 0], pixels[:, 1:-1, -1]], axis=1)
    low, high = pixels.min((1, 2)), pixels.max((1, 2))
    median = np.median(frame, axis=1)
    plain = (np.abs(frame - median[:, None]) <= (high - low)[:, None] / 8).mean(1) >= 0.9
    return plain, median > (low + high) / 2
