"""From a declared study to its page: prepare, train, evaluate, write; the order of the stages."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from committee.config.renames import Table
from committee.config.study import Study
from committee.data.dataset import ImageDataset, checked_images, open_test
from committee.data.splits import stratified_part
from committee.data.summary import describe, sample_pictures
from committee.errors import RecipeError, RunError
from committee.folders.manifest import contents_digest
from committee.folders.records import AnsweredPlan, CommitteeRecord, RunData, StudyIdentity
from committee.folders.study_folder import StudyFolder
from committee.metrics.results import StudyResults
from committee.names import file_name
from committee.nn.summary import layer_table
from committee.report.study_page import write_study_page
from committee.rng import numpy_generator
from committee.studies.evaluation import evaluate_study, is_trained
from committee.studies.plan import Plan, plan
from committee.studies.training import StudyTraining, predict_test, train_study
from committee.training.executors.processes import refuse_to_train_while_imported
from committee.training.jobs import Event
from committee.training.pipeline import ignore
from committee.training.plan import check_network
from committee.training.setting import Setting


@dataclass(frozen=True)
class Form:
    """In which form a study is run.

    Attributes:
        seeds: repeats of every row, instead of what the study says.
        quick: at most as many images, repeats and members as the study's quick form says.
        protocol: "honest", or "published" (the test images serve as validation images where the write-up did so).
        transductive: pseudo-labels are given to the test images.
        keep_sealed: the test images stay sealed.
    """

    seeds: int | None = None
    quick: bool = False
    protocol: Literal["honest", "published"] = "honest"
    transductive: bool = False
    keep_sealed: bool = False

    def tests_while_training(self, study: Study) -> bool:
        """Whether the test images serve as validation images."""
        return self.protocol == "published" and study.published_protocol == "test_as_validation"


@dataclass(frozen=True)
class Prepared:
    """A study with its data, ready to be trained in its folder."""

    training: StudyTraining
    form: Form
    described: ImageDataset  # without test images among the training images
    warnings: tuple[str, ...]

    @property
    def plan(self) -> Plan:
        """The models and rows."""
        return self.training.plan


def folder_name(study: Study, dataset: ImageDataset, form: Form, seed: int) -> str:
    """The name of a study's folder under runs/."""
    forms = "-quick" * form.quick + "-published" * (form.protocol == "published") + "-transductive" * form.transductive
    return f"{file_name(dataset.name)}-study-{file_name(study.name)}{forms}-seed{seed}"


def prepare(
    study: Study,
    dataset: ImageDataset,
    out: str | Path,
    setting: Setting,
    form: Form,
    on_event: Callable[[Event], None] = ignore,
) -> Prepared:
    """Enter the study's folder and plan its models.

    Raises:
        RunError: the folder holds something else, or transductive is asked for while the test images stay sealed.
        RecipeError: a row's recipe has faults, or does not fit the images.
    """
    refuse_to_train_while_imported()
    by_test = form.tests_while_training(study)
    if form.protocol == "published" and not study.published_protocol:
        raise RecipeError(f"study {study.name} names no published_protocol; leave --protocol out")
    if form.keep_sealed and (by_test or form.transductive):
        raise RunError(
            "the test images cannot stay sealed in a transductive or published form; leave --keep-sealed out"
        )
    resolved, folder = setting.resolved(10**6), StudyFolder(out)
    identity = identity_of(study, dataset, resolved, form)
    if form.quick:
        dataset = fewer(dataset, study.quick.images, setting.seed)
    planned = plan_in_form(study, dataset, form)
    for model in planned.models:
        try:
            check_network(dataset, model.recipe)
        except RecipeError as error:
            raise RecipeError(f"row {model.name}: {error}") from None
    data = RunData(**describe(dataset).model_dump())
    training = StudyTraining(planned, dataset, data, folder, resolved, form.transductive, on_event)
    folder.check_free(identity)
    for model in planned.models:
        if model.teacher is None and not by_test:  # pseudo-labels, and the joined images, are not there yet
            folder.model(model.name).check_free(training.of(model).identity)
    with folder.locked():
        folder.begin(identity)
        folder.write_declaration(planned.study)
        folder.write_data(data)
        folder.write_command(setting.command)
        if by_test:
            training = replace(training, dataset=with_test_as_validation(dataset, folder.test_record))
    return Prepared(training, form, dataset, warnings_of(study, form))


def identity_of(study: Study, dataset: ImageDataset, setting: Setting, form: Form) -> StudyIdentity:
    """What makes a study's folder that of this study."""
    train_digest, test_digest = dataset.part_digests()
    return StudyIdentity(
        study=study.name,
        quick=form.quick,
        protocol=form.protocol,
        seed=setting.seed,
        train_images=train_digest,
        test_images=test_digest,
        device=setting.device,
        precision=setting.precision,
        groups=dataset.train.groups_digest() or None,
    )


def plan_in_form(study: Study, dataset: ImageDataset, form: Form) -> Plan:
    """The models and rows of a study in the form that is asked for."""
    holdout: Table | None = None
    if form.tests_while_training(study):
        holdout = {"kind": "last", "fraction": len(dataset.test) / (len(dataset.train) + len(dataset.test))}
        if not form.transductive:  # the validation images to label would be the test images
            study = study.model_copy(update={"rows": tuple(row for row in study.rows if row.teacher is None)})
    return plan(study, seeds=form.seeds, quick=form.quick, holdout=holdout, transductive=form.transductive)


def warnings_of(study: Study, form: Form) -> tuple[str, ...]:
    """What every output of this form of a study, as it was declared, must say."""
    warnings = []
    left_out = [row.name for row in study.rows if row.teacher is not None]
    if form.tests_while_training(study):
        warnings.append(
            "PUBLISHED PROTOCOL: the test images served as validation images, as in the write-up, so these figures are "
            "optimistic"
        )
        if left_out and not form.transductive:
            warnings.append(
                f"LEFT OUT: {', '.join(left_out)}, since the images to label would be the test images (give "
                "--transductive to train them)"
            )
    elif form.protocol == "published":
        warnings.append("PUBLISHED PROTOCOL: the write-up held out some training images, as the honest protocol does")
    if form.transductive:
        warnings.append(
            "TRANSDUCTIVE: pseudo-labels were given to the test images, so rows trained with them have seen these "
            "images, without their labels"
        )
    if form.quick:
        warnings.append(
            f"QUICK FORM: at most {study.quick.images:,} training images, {study.quick.seeds} repeats and "
            f"{study.quick.members} members of a committee; the published figures come from larger trainings"
        )
    return tuple(warnings)


def fewer(dataset: ImageDataset, images: int, seed: int) -> ImageDataset:
    """The data set with a stratified part of its training images, where it has more than so many."""
    count = len(dataset.train)
    if count <= images:
        return dataset
    chosen = stratified_part(dataset.train.labels, images / count, numpy_generator(seed, "quick"))
    note = f"{len(chosen):,} of the {count:,} training images, drawn in proportion from every class, for the quick form"
    return replace(dataset, train=dataset.train.part(chosen), notes=(*dataset.notes, note))


def with_test_as_validation(dataset: ImageDataset, record: Path) -> ImageDataset:
    """The data set with the test images at the end of the training images, to be held out there; opens the seal."""
    test = open_test(dataset, record, "published protocol: the test images serve as validation images")
    pixels = np.concatenate([dataset.train.pixels, test.pixels])
    labels = np.concatenate([dataset.train.labels, test.labels])
    return replace(dataset, train=checked_images(pixels, labels, dataset.class_names, dataset.name))


def work(prepared: Prepared) -> dict[tuple[str, int], tuple[int, float]]:
    """For every member still to train its epochs and what an epoch costs: multiply-adds, and a little for each step."""
    training, found = prepared.training, {}
    shape, classes = training.dataset.image_shape, len(training.dataset.class_names)
    for model in prepared.plan.models:
        layers = layer_table(model.recipe.network, shape, classes)
        cost = sum(layer.multiply_adds for layer in layers) + 2e7 / model.recipe.training.batch_size + 5e5
        folder = training.folder.model(model.name)
        for member in range(model.members):
            if not folder.member(member).is_done:
                found[model.name, member] = (model.recipe.training.epochs, cost)
    return found


def run_prepared(prepared: Prepared, on_event: Callable[[Event], None] = ignore) -> StudyResults:
    """Train what is missing, evaluate everything, write the page.

    Raises:
        RunError: a folder holds another training.
        TrainingError: a member failed.
    """
    with prepared.training.folder.locked():
        return _train_and_evaluate(prepared, on_event)


def _train_and_evaluate(prepared: Prepared, on_event: Callable[[Event], None]) -> StudyResults:
    training = replace(prepared.training, on_event=on_event)
    folder, form, dataset, plan = training.folder, prepared.form, training.dataset, prepared.plan
    train_study(training)
    answered = answered_plan(prepared)
    if folder.answers(answered):
        return folder.results
    folder.reopen()
    folder.write_environment(training.setting.environment())
    test = None
    if not form.keep_sealed:
        test = open_test(dataset, folder.test_record, f'the end of the study "{plan.study.name}"')
        predict_test(training, test)
    results, pictures = evaluate_study(
        plan,
        dataset,
        folder,
        test,
        warnings=prepared.warnings,
        protocol=form.protocol,
        transductive=form.transductive,
        published_on=published_on(prepared),
    )
    samples, means = sample_pictures(prepared.described)
    folder.write_pictures({"samples": samples, "class_means": means, **pictures})
    make_models_usable(prepared)
    folder.write_results(results, answered)
    write_page(folder)
    return results


def run_study(
    study: Study,
    dataset: ImageDataset,
    out: str | Path,
    setting: Setting | None = None,
    form: Form | None = None,
    on_event: Callable[[Event], None] = ignore,
) -> StudyResults:
    """Train a study's rows into a folder and compare them; what is trained already is kept.

    Args:
        study: from `load_study`.
        dataset: what to train on.
        out: the study's folder: a new one, or one that the same study began or finished.
        setting: seed, device, precision, workers; None takes the defaults.
        form: repeats, quick form, protocol; None takes the study's own repeats and the honest protocol.
        on_event: called with every event of the training.

    Raises:
        RunError: the folder holds something else.
        RecipeError: a row's recipe has faults, or does not fit the images.
        TrainingError: a member failed.
    """
    return run_prepared(prepare(study, dataset, out, setting or Setting(), form or Form()), on_event)


def answered_plan(prepared: Prepared) -> AnsweredPlan:
    """What the results answer: for the same plan, stored results are still right."""
    return AnsweredPlan(
        rows=tuple(
            (row.row.model_dump(mode="json"), row.model, row.members, row.seeds, row.compare_with)
            for row in prepared.plan.rows
        ),
        models=tuple((model.name, model.recipe.digest(), model.members) for model in prepared.plan.models),
        keep_sealed=prepared.form.keep_sealed,
        transductive=prepared.form.transductive,
    )


def published_on(prepared: Prepared) -> str:
    """What the published figures are for, where they are not for what was trained here; else ""."""
    study, name = prepared.plan.study, prepared.described.name
    figures = [row.published for row in study.rows] + list(study.grid.published.values() if study.grid else ())
    if not any(figures) or (study.published_data in ("", name) and not prepared.form.quick):
        return ""
    return f"{study.published_data or name}, all of it"


def make_models_usable(prepared: Prepared) -> None:
    """Let the folder of each trained model be used like a run: its members together are a committee."""
    for model in prepared.plan.models:
        if is_trained(prepared.training.folder, model):
            folder = prepared.training.folder.model(model.name)
            folder.write_committee(CommitteeRecord(members=tuple(range(model.members)), combination="mean"))
            folder.finish_as_model(prepared.plan.study.name, model.name)


def write_page(folder: StudyFolder) -> None:
    """Tables, figures and study.html from the files of the study's folder alone, then the manifest."""
    contents = folder.contents()
    write_study_page(folder, contents_digest(contents))
    folder.finish(contents)
