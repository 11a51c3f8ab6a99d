"""From a study's trained members to its table: what every row reaches, and which differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, Labels
from committee.ensemble.combine import CombinationRule
from committee.ensemble.member_predictions import MemberPredictions
from committee.folders.member_folder import MemberFolder
from committee.folders.records import EpochRecord
from committee.folders.study_folder import StudyFolder
from committee.metrics.error_analysis import study_galleries
from committee.metrics.repeats import Correctness, adjust_for_multiplicity, difference, score_repeats
from committee.metrics.results import (
    Difference,
    Gallery,
    GridResult,
    LRReduction,
    RepeatScore,
    RowResult,
    StudyResults,
)
from committee.metrics.scores import confusion_matrix
from committee.nn.architectures import plan_layers
from committee.rng import numpy_generator
from committee.studies import discussion, grid
from committee.studies.plan import Model, Plan, PlannedRow

MEAN = CombinationRule()


@dataclass(frozen=True)
class RowPredictions:
    """What a row's repeats predict for one set of images.

    Attributes:
        labels: (image,).
        repeats: the members of each repeat.
    """

    labels: Labels
    repeats: tuple[MemberPredictions, ...]

    @cached_property
    def probabilities(self) -> NDArray[np.float64]:
        """(repeat, image, class), rows of NaN where no member of a repeat may predict."""
        return np.stack([repeat.combined(MEAN) for repeat in self.repeats])

    def correctness(self) -> Correctness:
        """What is right and wrong; with the members alone, where a committee was trained once."""
        members = self.repeats[0].honest
        alone = len(self.repeats) == 1 and len(members) > 1
        return Correctness(correct(self.probabilities, self.labels), correct(members, self.labels) if alone else None)

    def score(self) -> RepeatScore | None:
        """The score on the images that at least one repeat may predict; None where there are none."""
        rights = correct(self.probabilities, self.labels)
        predicted = ~np.isnan(rights).all(axis=0)
        return score_repeats(rights[:, predicted]) if predicted.any() else None

    def confusion(self) -> tuple[tuple[int, ...], ...]:
        """(true class, predicted class) of the first repeat."""
        first = self.probabilities[0]
        predicted = ~np.isnan(first[:, 0])
        counts = confusion_matrix(first[predicted].argmax(axis=1), self.labels[predicted], first.shape[1])
        return tuple(tuple(int(count) for count in row) for row in counts)


def correct(probabilities: NDArray[np.floating[Any]], labels: Labels) -> NDArray[np.float64]:
    """(row, image, class) -> (row, image): 1 where the most probable class is the label, 0 where not, NaN for NaN."""
    known = ~np.isnan(probabilities[:, :, 0])
    return np.where(known, np.nan_to_num(probabilities, nan=-1.0).argmax(axis=2) == labels, np.nan)


@dataclass(frozen=True)
class StudyEvaluation:
    """What the trained rows of a study predict.

    Attributes:
        test: the opened test images, which all members have predicted; None while they are sealed.
        on_train, on_test: by the row's name; on_test is empty while the test images are sealed.
        shown: the images that the page shows: position in the part -> place in pictures.npz.
    """

    plan: Plan
    dataset: ImageDataset
    folder: StudyFolder
    test: LabelledImages | None
    transductive: bool
    on_train: dict[str, RowPredictions]
    on_test: dict[str, RowPredictions]
    shown: dict[int, int] = field(default_factory=dict)

    @property
    def models(self) -> dict[str, Model]:
        """The study's models by name."""
        return {model.name: model for model in self.plan.models}

    @property
    def part(self) -> tuple[str, LabelledImages]:
        """The images that the page is about, and their name."""
        return ("test", self.test) if self.test else ("train", self.dataset.train)

    def members(self, model: str, members: Sequence[int]) -> list[MemberFolder]:
        """The folders of some members of a model."""
        return [self.folder.model(model).member(member) for member in members]

    def pictures(self) -> dict[str, NDArray[Any]]:
        """The images that the page shows, as stored in pictures.npz."""
        part, images = self.part
        order = sorted(self.shown, key=lambda position: self.shown[position])
        return {part: images.pixels[np.asarray(order, dtype=np.int64)]} if order else {}


def evaluate_study(
    plan: Plan,
    dataset: ImageDataset,
    folder: StudyFolder,
    test: LabelledImages | None,
    *,
    warnings: Sequence[str],
    protocol: str,
    transductive: bool,
    published_on: str,
) -> tuple[StudyResults, dict[str, NDArray[Any]]]:
    """Every figure of a study, and the pictures that its page shows.

    Args:
        plan: what was trained.
        dataset: what it was trained on.
        folder: the study's.
        test: the opened test images, which all members have predicted; None while they are sealed.
        warnings: what every output must say.
        protocol: "honest" or "published".
        transductive: whether pseudo-labels were for the test images.
        published_on: what the published figures are for, where that is not this data; else "".
    """
    evaluation = predictions_of(plan, dataset, folder, test, transductive)
    plain = [planned for planned in plan.rows if planned.cell is None]
    compared = adjust_for_multiplicity([compare(planned, evaluation) for planned in plain])
    results = StudyResults(
        name=plan.study.name,
        title=plan.study.title,
        summary=plan.study.summary,
        data=dataset.name,
        protocol=protocol,
        warnings=tuple(warnings),
        rows=tuple(row_result(planned, evaluation, d) for planned, d in zip(plain, compared, strict=True)),
        grid=evaluate_grid(evaluation),
        published_on=published_on,
        discussion=(),
        test_openings=folder.test_openings,
        seconds=round(sum(seconds_of(evaluation, model) for model in plan.models), 1),
    )
    findings = tuple(discussion.findings(results))
    return results.model_copy(update={"discussion": findings}), evaluation.pictures()


def predictions_of(
    plan: Plan, dataset: ImageDataset, folder: StudyFolder, test: LabelledImages | None, transductive: bool
) -> StudyEvaluation:
    """What every row predicts whose model is trained: out of fold, and for the test images once they are opened."""
    evaluation = StudyEvaluation(plan, dataset, folder, test, transductive, {}, {})
    for planned in plan.rows:
        if not is_trained(folder, evaluation.models[planned.model]):
            continue
        repeats = [evaluation.members(planned.model, members) for members in planned.repeats()]
        on_train = tuple(MemberPredictions.for_training_images(members) for members in repeats)
        evaluation.on_train[planned.row.name] = RowPredictions(dataset.train.labels, on_train)
        if test:
            on_test = tuple(MemberPredictions.for_test_images(members) for members in repeats)
            evaluation.on_test[planned.row.name] = RowPredictions(test.labels, on_test)
    return evaluation


def is_trained(folder: StudyFolder, model: Model) -> bool:
    """Whether all members of a model are there; they are not where an audit stopped self-training."""
    return all(folder.model(model.name).member(member).is_done for member in range(model.members))


def compare(planned: PlannedRow, evaluation: StudyEvaluation) -> Difference | None:
    """A row minus the one that it is compared with: on the test images, or on validation images while they are sealed.

    Of the validation images, those count which both may predict.
    """
    name, other = planned.row.name, planned.compare_with
    rows, on = (evaluation.on_test, "test") if evaluation.on_test else (evaluation.on_train, "validation")
    if other is None or name not in rows or other not in rows:
        return None
    this, that = rows[name].correctness(), rows[other].correctness()
    known = [each for pair in (this, that) for each in (pair.correct, pair.members) if each is not None]
    common = np.all([~np.isnan(each).any(axis=0) for each in known], axis=0)
    if common.any() and not common.all():
        this, that = (
            Correctness(each.correct[:, common], None if each.members is None else each.members[:, common])
            for each in (this, that)
        )
    return difference(this, that, against=other, on=on)


def row_result(planned: PlannedRow, evaluation: StudyEvaluation, against: Difference | None) -> RowResult:
    """One row of the table."""
    row, model, dataset = planned.row, evaluation.models[planned.model], evaluation.dataset
    height, width, channels = dataset.image_shape
    layers = plan_layers(model.recipe.network, (channels, height, width), len(dataset.class_names))
    on_train, on_test = evaluation.on_train.get(row.name), evaluation.on_test.get(row.name)
    shown = on_test or on_train
    members = evaluation.members(model.name, range(planned.members * planned.seeds)) if on_train else []
    histories = [member.history for member in members]
    audits = evaluation.folder.audits(model.name)
    return RowResult(
        name=row.name,
        change=row.change,
        model=model.name,
        members=planned.members,
        parameters=sum(layer.parameters for layer in layers),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        epochs=model.recipe.training.epochs,
        seconds=round(sum(member.record.seconds for member in members) / planned.seeds, 1),
        validation=on_train.score() if on_train else None,
        test=on_test.score() if on_test else None,
        member_test=member_accuracies(on_test) if on_test and planned.members > 1 else (),
        published=row.published,
        published_members=row.published_members,
        published_parameters=row.published_parameters,
        difference=against,
        lr_reductions=tuple(
            LRReduction(member=member, epoch=epoch.epoch, lr=epoch.lr_reduced_to)
            for member, history in enumerate(histories)
            for epoch in history
            if epoch.lr_reduced_to is not None
        ),
        audits=tuple(audit.sentence for audit in audits.rounds) if audits else (),
        stopped=on_train is None,
        transductive=evaluation.transductive and model.teacher is not None,
        remark=row.remark,
        confusion=shown.confusion() if shown else (),
        galleries=row_galleries(planned, shown, evaluation) if shown else (),
        curve=curve(histories),
    )


def row_galleries(planned: PlannedRow, shown: RowPredictions, evaluation: StudyEvaluation) -> tuple[Gallery, ...]:
    """The galleries of a row; the images that they show are added to those of the study."""
    part, images = evaluation.part
    slots = evaluation.shown
    return study_galleries(
        shown.probabilities[0],
        shown.repeats[0].honest,
        shown.labels,
        numpy_generator(0, "galleries"),
        part=part,
        names=images.names,
        every_error=planned.members > 1,
        slot_of=lambda position: slots.setdefault(position, len(slots)),
    )


def member_accuracies(on_test: RowPredictions) -> tuple[float, ...]:
    """Test accuracy of every member of every repeat."""
    members = [member for repeat in on_test.repeats for member in repeat.probabilities]
    return tuple(float(np.mean(member.argmax(axis=1) == on_test.labels)) for member in members)


def curve(histories: Sequence[Sequence[EpochRecord]]) -> tuple[tuple[float | None, float | None], ...]:
    """Training and validation accuracy after each epoch, mean over the members that were trained so long."""

    def mean(epochs: Sequence[EpochRecord], accuracy: Callable[[EpochRecord], float | None]) -> float | None:
        values = [value for epoch in epochs if (value := accuracy(epoch)) is not None]
        return math.fsum(values) / len(values) if values else None

    longest = max(map(len, histories), default=0)
    epochs = [[history[number] for history in histories if number < len(history)] for number in range(longest)]
    return tuple(
        (mean(each, lambda epoch: epoch.train_accuracy), mean(each, lambda epoch: epoch.validation_accuracy))
        for each in epochs
    )


def evaluate_grid(evaluation: StudyEvaluation) -> GridResult | None:
    """The grid of a study, if it has one.

    The recipes of its cells hold validation images out: without them nothing could be chosen, and the plan says so.
    """
    plan = evaluation.plan
    if plan.study.grid is None:
        return None
    cells = [(planned.row, planned.cell or ()) for planned in plan.rows if planned.cell is not None]
    names = [row.name for row, _ in cells]
    validation = {}
    for name in names:
        rights = evaluation.on_train[name].correctness().correct
        rights = rights[:, ~np.isnan(rights).all(axis=0)]
        validation[name] = (Correctness(rights), score_repeats(rights))
    on_test = evaluation.on_test
    return grid.choose(
        plan.study.grid,
        cells,
        validation,
        {name: score_repeats(on_test[name].correctness().correct) for name in names} if on_test else {},
        {name: (on_test or evaluation.on_train)[name].confusion() for name in names},
        "test" if on_test else "validation",
    )


def seconds_of(evaluation: StudyEvaluation, model: Model) -> float:
    """Training of all of a model's members, one after the other."""
    members = evaluation.members(model.name, range(model.members))
    return math.fsum(member.record.seconds for member in members if member.is_done)
