"""Every figure of a run or a study, as one typed value: stored as `results.json`, read by the reports.

Accuracies are fractions, losses are in nats, lists over classes follow `class_names`. A member's validation images are
the training images that it did not train on; "out of fold" the committee predicts each training image only with the
members that did not train on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from pydantic import ConfigDict

from committee.config.record import Record


class Interval(Record):
    """A 95 % interval."""

    low: float
    high: float


class ClassRow(Record):
    """One class: precision and recall are None where there is nothing to divide by."""

    name: str
    images: int
    precision: float | None
    recall: float | None
    f1: float | None


class ReliabilityBin(Record):
    """Predictions whose confidence lies in [low, high): how many, their mean confidence, their accuracy."""

    low: float
    high: float
    images: int
    confidence: float
    accuracy: float


class BalancedScores(Record):
    """Figures in which every class counts alike; see `committee.metrics.balanced`."""

    accuracy: float  # balanced accuracy: the mean of the classes' recalls
    accuracy_interval: Interval  # of Wilson intervals, by Zou & Donner 2008
    macro_f1: float  # the mean of the classes' F1
    macro_f1_interval: Interval  # bootstrap over images
    auc: float | None  # area under the ROC curve, one class against the rest, mean over classes
    auc_interval: Interval | None  # DeLong et al. 1988; None where it has no width


class Scores(Record):
    """Probabilities compared with labels on one set of images."""

    images: int
    errors: int
    accuracy: float
    accuracy_interval: Interval  # Wilson 1927
    log_loss: float
    brier: float  # Brier 1950: squared difference summed over classes, mean over images
    calibration_error: float  # expected calibration error (Guo et al. 2017), 15 bins of equal width
    classes: tuple[ClassRow, ...]
    confusion: tuple[tuple[int, ...], ...]  # (true class, predicted class)
    reliability: tuple[ReliabilityBin, ...]
    balanced: BalancedScores | None = None  # None in results of versions before 0.6

    @property
    def balanced_guess(self) -> float:
        """The balanced accuracy of any guess that ignores the image: 1 / classes that have images."""
        return 1 / sum(row.images > 0 for row in self.classes)

    @property
    def is_imbalanced(self) -> bool:
        """Whether the largest class has more than twice as many images as the smallest one that has any."""
        counts = [row.images for row in self.classes if row.images]
        return max(counts) > 2 * min(counts)


class PartScore(Record):
    """One member on one part of the data."""

    images: int
    loss: float
    accuracy: float


class MemberResult(Record):
    """One member of the committee; all losses and accuracies are of the weights of its best epoch, which were kept."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {"kept_epoch": "best_epoch", "held_out": "validation"}

    member: int
    status: str  # "finished", "failed" or "died"
    remark: str  # why it stopped, failed or died
    epochs: int  # epochs trained
    best_epoch: int  # the epoch whose weights were kept, counted from 1
    seconds: float
    train: PartScore | None
    validation: PartScore | None  # None without validation images
    test: PartScore | None  # None while the test images are sealed


class SizePoint(Record):
    """Committees of one size drawn from the members: the mean, lowest and highest over the subsets evaluated."""

    members: int
    subsets: int
    accuracy: float
    accuracy_low: float
    accuracy_high: float
    log_loss: float


class Agreement(Record):
    """How often the members give the same class on one set of images."""

    images: int
    on: str  # "test" or "train" (there only members that did not train on an image are compared)
    matrix: tuple[tuple[float | None, ...], ...]  # share of images on which two members give the same class
    mean: float | None  # over pairs
    all_agree: float  # share of images on which all members that may predict it agree


class SizeTemperature(Record):
    """The temperature of committees of one size, fitted to images that at least so many members did not train on."""

    members: int
    images: int
    temperature: float


class Calibration(Record):
    """The committee's temperature, what it is derived from and what it changes; test images play no part in it."""

    temperature: float
    by_size: tuple[SizeTemperature, ...]  # fitted out of fold; the whole committee's is extrapolated from these
    test_log_loss: tuple[float, float] | None
    test_calibration_error: tuple[float, float] | None


class Picture(Record):
    """One image of a gallery; `position` is its row in the part, `slot` its row in pictures.npz."""

    name: str | None = None  # the image's file, or its place in one
    position: int
    slot: int
    true: int
    predicted: int
    probability_true: float
    probability_predicted: float
    dissenters: int  # members that predict another class than the committee
    members: int  # members that may predict the image


class Gallery(Record):
    """Images worth looking at, in order."""

    name: str  # key, such as "confident_errors"; see `committee.metrics.error_analysis`
    title: str
    remark: str
    part: str  # "test" or "train" (out of fold)
    pictures: tuple[Picture, ...]

    @property
    def is_by_class(self) -> bool:
        """Whether its images belong together class by class."""
        return self.name in ("sure_right", "sure_wrong")


class TestOpening(Record):
    """One line of the test record."""

    model_config = ConfigDict(frozen=True, extra="allow")

    opened: str
    purpose: str
    images: int


class Classified(Record):
    """How well one classifier does on images that the teacher predicts, too.

    Attributes:
        images: that both predict.
        difference: of the accuracies, the classifier's minus the committee's on the same images, with Tango's paired
            interval; None for the committee itself.
        log_loss: in nats.
    """

    images: int
    accuracy: float
    interval: Interval
    log_loss: float
    difference: float | None = None
    difference_interval: Interval | None = None


class Contender(Record):
    """A row of a student's table: what a classifier reaches and what it costs.

    Attributes:
        who: such as "committee".
        score: None where there is no image that it may be scored on.
        bytes: of the members' weights on disk.
        multiply_adds: of all members for one image.
        milliseconds: to answer for one image alone, the median; the members as they are computed together.
        images_per_second: of many images on one core, the fastest of the rounds.
    """

    who: Literal["committee", "best member", "student"]
    members: int
    score: Classified | None
    bytes: int
    multiply_adds: int
    milliseconds: float
    images_per_second: float


class Distillation(Record):
    """What a student was distilled from, and how it compares.

    Attributes:
        teacher: digest of the teacher's weights.
        temperature, weight: of its soft answers in the loss.
        best_member: the teacher's member of the highest validation accuracy.
        on: the images of the scores: "test" or "out of fold"; "" where there are none.
    """

    teacher: str
    temperature: float
    weight: float
    best_member: int
    on: str
    rows: tuple[Contender, ...]


class Results(Record):
    """Every figure of a run."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {
        "sizes_out_of_fold": "size_curve_out_of_fold",
        "sizes_test": "size_curve_test",
    }

    members: tuple[MemberResult, ...]
    left_out: int = 0  # members that were planned but not ready when the time budget ran out
    committee_train: Scores  # all members on all training images, most of which they trained on
    out_of_fold: Scores | None  # None without validation images
    out_of_fold_members: float | None  # members that predict an image, mean over images
    out_of_fold_remark: str
    test: Scores | None  # None while the test images are sealed
    calibration: Calibration | None
    size_curve_out_of_fold: tuple[SizePoint, ...]
    size_curve_test: tuple[SizePoint, ...]
    agreement: Agreement | None
    galleries: tuple[Gallery, ...]
    test_openings: tuple[TestOpening, ...]
    seconds_training: float  # wall time from the first member's start to the last one's end
    seconds_total: float
    distillation: Distillation | None = None  # of a student

    @property
    def planned(self) -> int:
        """The members that the run was to have: those that finished, failed or died, and those left out."""
        return len(self.members) + self.left_out

    @property
    def whole(self) -> str:
        """What all members together are called: "committee", or "student", which is one network."""
        return "student" if self.distillation else "committee"


# --- studies ----------------------------------------------------------------------------------------------------------


class RepeatScore(Record):
    """The accuracy of a row on one set of images, over its repeats."""

    repeats: int
    images: int  # that each repeat is scored on
    accuracies: tuple[float, ...]  # one a repeat
    mean: float
    spread: float | None  # sample standard deviation over repeats; None for one repeat
    interval: Interval
    over: str  # what the interval covers: "images", or "seeds and images"


class Difference(Record):
    """A row minus the row that it is compared with, on the same images."""

    against: str
    on: str  # "test" or "validation"
    points: float  # difference of mean accuracies, as a fraction
    interval: Interval
    p: float  # probability of a difference at least this large if both were equally accurate
    p_adjusted: float  # the same for all comparisons of the study together (Holm 1979)
    method: str  # "exact McNemar" for one single training each, else "seeds and images"
    mcnemar_p: float | None  # of the two trainings or committees, where there is one of each
    only_this_right: int | None  # images, likewise
    only_other_right: int | None
    verdict: str  # "better", "worse", "not distinguishable"; one single training each: "these two trainings differ"


class LRReduction(Record):
    """A reduction of the learning rate by the plateau schedule."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {"rate": "lr"}

    member: int
    epoch: int
    lr: float


class RowResult(Record):
    """One row of a study's table."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {"rate_reductions": "lr_reductions"}

    name: str
    change: str
    model: str
    members: int  # of each repeat
    parameters: int  # trainable
    multiply_adds: int
    epochs: int
    seconds: float  # training of one repeat, all its members one after the other on one core
    validation: RepeatScore | None
    test: RepeatScore | None
    member_test: tuple[float, ...]  # test accuracy of every member of every repeat, for committees
    published: float | None
    published_members: tuple[float, float] | None
    published_parameters: int | None
    difference: Difference | None
    lr_reductions: tuple[LRReduction, ...]
    audits: tuple[str, ...]  # of pseudo-labels, a sentence a round
    stopped: bool  # an audit stopped it before it was trained: no figures
    transductive: bool  # it saw the test images, without their labels
    remark: str
    confusion: tuple[tuple[int, ...], ...]  # of the first repeat: (true class, predicted class)
    galleries: tuple[Gallery, ...]
    curve: tuple[tuple[float | None, float | None], ...]  # (training, validation) accuracy an epoch, mean over members


class GridCell(Record):
    """One combination of a grid's values."""

    values: tuple[str, ...]
    validation: RepeatScore
    test: RepeatScore | None
    published: float | None
    within_noise: bool  # not distinguishable from the best on validation images


class GridResult(Record):
    """A grid: the best cell was chosen by validation accuracy."""

    axes: tuple[str, ...]
    cells: tuple[GridCell, ...]
    best: int  # position in cells
    choice: str  # how it was chosen and how certain that is, in words
    confusion: tuple[tuple[int, ...], ...]  # of the best cell's first repeat
    confusion_on: str  # "test" or "validation"


class Finding(Record):
    """One sentence of a study's discussion."""

    kind: str  # "overall", "difference", "stopped", "undecided", "committee", "published", "remark", "grid" or "method"
    text: str


class StudyResults(Record):
    """Every figure of a study."""

    names_of_0_4: ClassVar[Mapping[str, str]] = {"rungs": "rows", "marks": "warnings"}

    name: str
    title: str
    summary: str
    data: str
    protocol: str  # "honest", or "published" where the test images served as validation images
    warnings: tuple[str, ...]  # what every output must say: published protocol, transductive, quick
    rows: tuple[RowResult, ...]
    grid: GridResult | None
    published_on: str  # what the published figures are for, where that is not this data; "" where it is
    discussion: tuple[Finding, ...]
    test_openings: tuple[TestOpening, ...]
    seconds: float  # training of all members, in seconds of one core
