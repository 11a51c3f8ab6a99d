"""Train what a study needs: every member of every model, kept as soon as it is finished, in one queue for all cores.

A second call trains only what is missing. A model's folder is bound to its recipe, data, seed, device and versions, not
to how many members are asked for: more seeds later add members.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from committee.data.dataset import ImageDataset, LabelledImages, open_test
from committee.data.splits import stratified_part, validation_positions
from committee.ensemble.combine import CombinationRule
from committee.ensemble.committee import committee_of
from committee.ensemble.member_predictions import MemberPredictions
from committee.folders.member_folder import Positions
from committee.folders.records import Audit, Audits, RunData
from committee.folders.run_folder import RunFolder
from committee.folders.study_folder import StudyFolder
from committee.nn.devices import usable
from committee.rng import numpy_generator
from committee.studies.plan import Model, Plan, row_named
from committee.studies.pseudo_labels import TeacherPredictions, self_train
from committee.training.executors import executor_for
from committee.training.jobs import Event
from committee.training.pipeline import ignore, train_members
from committee.training.plan import TrainingPlan
from committee.training.setting import Setting
from committee.training.shared_images import SharedImages, shared

MEAN = CombinationRule()


@dataclass(frozen=True)
class StudyTraining:
    """What all models of a study are trained on and with.

    Attributes:
        dataset: its training images are used, its test images (without labels) only for `transductive`.
        data: the data set as people know it, for the models' folders.
        setting: resolved: no field is "auto".
        transductive: the test images, without their labels, are the unlabelled ones.
    """

    plan: Plan
    dataset: ImageDataset
    data: RunData
    folder: StudyFolder
    setting: Setting
    transductive: bool = False
    on_event: Callable[[Event], None] = ignore

    def of(self, model: Model, pseudo: LabelledImages | None = None) -> TrainingPlan:
        """The training of one model.

        Raises:
            DataError: a validation part would be empty.
        """
        validation, excluded = validation_and_excluded(model, self.dataset, self.setting.seed, self.transductive)
        return TrainingPlan(
            self.dataset, model.recipe, self.setting, validation, excluded=excluded, pseudo=pseudo, model=model.name
        )


def validation_and_excluded(
    model: Model, dataset: ImageDataset, seed: int, transductive: bool
) -> tuple[Sequence[Positions], Positions]:
    """Which training images a model's members are validated on, and which they never see.

    The images whose labels a model's teacher replaces are excluded: only their audit part is left to validate on. Most
    models exclude nothing.

    Raises:
        DataError: a part would be empty.
    """
    labels, groups = dataset.train.labels, dataset.train.groups
    validation = validation_positions(labels, model.recipe.holdout, model.members, seed, dataset.class_names, groups)
    if model.teacher is None or transductive:
        return validation, np.empty(0, dtype=np.int64)
    hidden = validation[0]
    fraction = model.recipe.pseudo_labels.audit_fraction
    hidden_groups = None if groups is None else groups[hidden]
    audited = hidden[stratified_part(labels[hidden], fraction, numpy_generator("audit"), hidden_groups)]
    return [audited] * model.members, np.setdiff1d(hidden, audited)


def train_study(training: StudyTraining) -> None:
    """Train every member that the study's folder lacks; the test images stay sealed unless it is transductive.

    Raises:
        RunError: a folder holds another training.
        TrainingError: a member failed.
    """
    with shared(training.dataset.train) as (images,):
        assert images is not None
        train_models(training, [model for model in training.plan.models if model.teacher is None], images)
        for model in training.plan.models:
            if model.teacher is not None:
                train_with_teacher(training, model, model.teacher, images)


def train_models(
    training: StudyTraining, models: Sequence[Model], images: SharedImages, pseudo: LabelledImages | None = None
) -> None:
    """Train every member of some models that is not there yet; each model's folder is begun."""
    with shared(pseudo) as (pseudo_files,):
        jobs = []
        for model in models:
            plan, folder = training.of(model, pseudo), training.folder.model(model.name)
            folder.begin(plan.identity)
            folder.write_recipe(model.recipe)
            folder.write_data(training.data)
            jobs += plan.jobs(images, pseudo_files, folder)
        missing = sum(not (job.folder and job.folder.is_done) for job in jobs)
        setting = training.setting
        executor = executor_for(setting, missing)
        train_members(jobs, executor, "raise", on_event=training.on_event)


def train_with_teacher(training: StudyTraining, model: Model, teacher_row: str, images: SharedImages) -> None:
    """Self-training: rounds of pseudo-labels, each with an audit; where an audit fails, nothing more is trained."""
    folder, dataset = training.folder, training.dataset
    if all(folder.model(model.name).member(member).is_done for member in range(model.members)):
        return
    validation, hidden = validation_and_excluded(model, dataset, training.setting.seed, training.transductive)
    audited, audits = validation[0], list[Audit]()
    if training.transductive:
        unlabelled = open_test(dataset, folder.test_record, "transductive pseudo-labels, without labels").pixels
    else:
        unlabelled = dataset.train.part(hidden).pixels

    def predictions(teacher: RunFolder, members: Sequence[int]) -> TeacherPredictions:
        stored = MemberPredictions.for_training_images([teacher.member(member) for member in members])
        known = MEAN.combine(stored.probabilities)
        if not training.transductive:
            return TeacherPredictions(known[hidden], known[audited])
        committee = committee_of(teacher, members, usable(training.setting.device))
        return TeacherPredictions(MEAN.combine(committee.member_probabilities(unlabelled)), known[audited])

    def train_student(number: int, pseudo: LabelledImages) -> Callable[[], TeacherPredictions]:
        last = number == model.recipe.pseudo_labels.rounds
        student = model if last else replace(model, name=f"{model.name}-round-{number}")
        train_models(training, [student], images, pseudo)
        return lambda: predictions(folder.model(student.name), range(student.members))

    def keep(audit: Audit, chosen: Positions, behind: TeacherPredictions) -> None:
        audits.append(audit)
        folder.write_audits(model.name, Audits(rounds=tuple(audits)))

    row = row_named(training.plan.rows, teacher_row)
    teacher, members = folder.model(row.model), list(row.repeats()[0])
    settings, labels = model.recipe.pseudo_labels, dataset.train.labels[audited]
    self_train(settings, unlabelled, labels, lambda: predictions(teacher, members), train_student, keep)


def predict_test(training: StudyTraining, test: LabelledImages) -> None:
    """Let all members that have not done so yet predict the opened test images."""
    for model in training.plan.models:
        folder = training.folder.model(model.name)
        waiting = [
            member
            for member in range(model.members)
            if folder.member(member).is_done and not folder.member(member).has_test_probabilities
        ]
        if waiting:
            committee = committee_of(folder, waiting, usable(training.setting.device))
            found = committee.member_probabilities(test.pixels)
            for member, probabilities in zip(waiting, found, strict=True):
                folder.member(member).write_test_probabilities(probabilities)
