"""Every figure of a run, as one typed value that is stored as `results.json` and read by the report.

Accuracies are fractions, losses are in nats, lists over classes follow `class_names`. "Held out" are the training
images that one member did not train on; "out-of-fold" is the committee's judgement of the training images, where each
image is judged only by members that did not train on it.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class _Value(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(_Value):
    """A 95 % interval."""

    low: float
    high: float


class ClassRow(_Value):
    """One class: precision and recall are None where there is nothing to divide by."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


class ReliabilityBin(_Value):
    """Predictions whose confidence lies in [low, high): how many, their mean confidence, the share that is right."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class Judgement(_Value):
    """Probabilities compared with labels on one set of images."""

    images: int
    errors: int
    accuracy: float
    accuracy_interval: Interval  # Wilson
    log_loss: float
    brier: float  # of the committee's probabilities: sum over classes of the squared difference, mean over images
    calibration_error: float  # expected calibration error, 15 equal-width bins
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]  # (true class, predicted class)
    reliability: tuple[ReliabilityBin, ...]


class PartScore(_Value):
    """One member on one part of the data."""

    images: int
    loss: float
    accuracy: float


class MemberRow(_Value):
    """One member of the committee; losses and accuracies are of the kept epoch's weights, all three parts alike."""

    member: int
    status: str  # "finished" or "failed"
    remark: str  # why it stopped, or why it failed
    epochs: int  # epochs trained
    kept_epoch: int  # the epoch whose weights were kept, counted from 1
    seconds: float
    train: PartScore | None
    held_out: PartScore | None  # None without a hold-out
    test: PartScore | None  # None while the test images are sealed


class SizePoint(_Value):
    """Committees of one size drawn from the members: mean, and the lowest and highest, over the subsets looked at."""

    members: int
    subsets: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float


class Agreement(_Value):
    """How alike the members are on one set of images."""

    images: int
    on: str  # "test" or "train" (then only members that did not train on an image are compared)
    matrix: tuple[tuple[float | None, ...], ...]  # share of images on which two members give the same class
    mean: float | None  # over pairs
    all_agree: float  # share of images on which all members asked give the same class


class SizeTemperature(_Value):
    """The best temperature of committees of one size, fitted on images that at least so many members held out."""

    members: int
    images: int
    temperature: float


class Calibration(_Value):
    """The whole committee's temperature, where it comes from and what it changes; test images have no part in it."""

    temperature: float
    by_size: tuple[SizeTemperature, ...]  # fitted out of fold; the whole committee's is extrapolated from these
    test_log_loss: tuple[float, float] | None
    test_calibration_error: tuple[float, float] | None


class Picture(_Value):
    """One image of a gallery; `position` is its row in the part, `slot` its row in pictures.npz."""

    position: int
    slot: int
    true: int
    predicted: int
    probability_true: float
    probability_predicted: float
    dissenters: int  # members whose own first choice differs from the committee's
    members: int  # members asked


class Gallery(_Value):
    """Images worth looking at, in the order of looking."""

    name: str  # key: "confident_errors", "first_errors", "least_certain"
    title: str
    remark: str
    part: str  # "test" or "train" (out-of-fold)
    pictures: tuple[Picture, ...]


class TestOpening(_Value):
    """One line of the test record."""

    model_config = ConfigDict(frozen=True, extra="allow")

    opened: str
    purpose: str
    images: int


class Results(_Value):
    """Every figure of a run."""

    members: tuple[MemberRow, ...]
    committee_train: Judgement  # all members on all training images, most of which they trained on
    out_of_fold: Judgement | None  # None without a hold-out
    out_of_fold_members: float | None  # how many members judged an image, mean
    out_of_fold_remark: str
    test: Judgement | None  # None while the test images are sealed
    calibration: Calibration | None
    sizes_out_of_fold: tuple[SizePoint, ...]
    sizes_test: tuple[SizePoint, ...]
    agreement: Agreement | None
    galleries: tuple[Gallery, ...]
    test_openings: tuple[TestOpening, ...]
    seconds_training: float  # wall time from the first member's start to the last one's end
    seconds_total: float
