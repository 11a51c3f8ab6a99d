"""From a declared study to its page: prepare, train, judge, write; the order of the stages.

The folder of a study: study.toml, identity.json, plan.json, data.json, environment.json, command.txt,
test_record.jsonl, models/NAME/ (each can be used like a run: `committee predict STUDY/models/NAME ...`), results.json,
pictures.npz, tables/study.csv, tables/study.md, figures/*.png, study.html and, last, the manifest run.json.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import tomli_w
from pydantic import ValidationError

from committee.config import recipe_parsing as recipes
from committee.config.renames import Table
from committee.config.study import Study
from committee.data.dataset import ImageDataset, checked_images, open_test
from committee.data.splits import stratified_part
from committee.data.summary import describe, sample_pictures
from committee.errors import RecipeError, RunError
from committee.folders import files as store
from committee.metrics.results import StudyResults
from committee.nn import devices
from committee.nn.architectures import plan as plan_network
from committee.nn.summary import layer_table, spell
from committee.report import study_page
from committee.rng import numpy_generator
from committee.runs.run import Setting, settled
from committee.studies.evaluation import is_trained, judge
from committee.studies.plan import Model, Plan, plan
from committee.studies.training import identity_of as model_identity
from committee.studies.training import judge_test, model_folder, train
from committee.training.jobs import Event
from committee.training.optim import rate_lines


@dataclass(frozen=True)
class Form:
    """In which form a study is run.

    Attributes:
        seeds: repeats of every row, instead of what the study says.
        quick: at most so many images, repeats and members as the study's quick form says.
        protocol: "honest", or "published" (the test images serve as validation images where the write-up did so).
        transductive: pseudo-labels are given to the test images.
        keep_sealed: the test images stay sealed.
    """

    seeds: int | None = None
    quick: bool = False
    protocol: Literal["honest", "published"] = "honest"
    transductive: bool = False
    keep_sealed: bool = False


@dataclass(frozen=True)
class Prepared:
    """A study with its data, ready to be trained in its folder."""

    plan: Plan
    dataset: ImageDataset
    described: ImageDataset  # as people know it: without test images among the training images
    out: Path
    setting: Setting
    form: Form
    warnings: tuple[str, ...]


def folder_name(study: Study, dataset: ImageDataset, form: Form, seed: int) -> str:
    """The name of a study's folder under runs/."""
    forms = "-quick" * form.quick + "-published" * (form.protocol == "published") + "-transductive" * form.transductive
    return f"{dataset.name}-study-{study.name}{forms}-seed{seed}"


def prepare(study: Study, dataset: ImageDataset, out: Path, setting: Setting, form: Form) -> Prepared:
    """Enter the study's folder and plan its models.

    Raises:
        RunError: the folder holds something else, or transductive is asked for while the test stays sealed.
        RecipeError: a row's recipe has faults, or does not fit the images.
    """
    by_test = form.protocol == "published" and study.published_protocol == "test_as_validation"
    if form.protocol == "published" and not study.published_protocol:
        raise RecipeError(f"study {study.name} names no published_protocol; leave --protocol out")
    if form.keep_sealed and (by_test or form.transductive):
        raise RunError(
            "the test images cannot stay sealed in a transductive or published form; leave --keep-sealed out"
        )
    chosen = settled(setting, 10**6)
    train_digest, test_digest = dataset.part_digests()
    identity = {
        "study": study.name,
        "quick": form.quick,
        "protocol": form.protocol,
        "seed": setting.seed,
        "training images": train_digest,
        "test images": test_digest,
        "device": chosen.device,
        "precision": chosen.precision,
    }
    if form.quick:
        dataset = fewer(dataset, study.quick.images, setting.seed)
    declared = study
    holdout: Table | None = None
    if by_test:
        holdout = {"kind": "last", "fraction": len(dataset.test) / (len(dataset.train) + len(dataset.test))}
        if not form.transductive:  # the held-out images to label would be the test images
            study = without_pseudo_labels(study)
    planned = plan(study, seeds=form.seeds, quick=form.quick, holdout=holdout, transductive=form.transductive)
    height, width, channels = dataset.image_shape
    for model in planned.models:
        try:
            plan_network(model.recipe.network, (channels, height, width), len(dataset.class_names))
        except RecipeError as error:
            raise RecipeError(f"row {model.name}: {error}") from None
    store.check_free(out, identity)
    for model in planned.models:
        if model.teacher is None and not by_test:  # pseudo-labels, and the joined images, are not there yet
            store.check_free(model_folder(out, model), model_identity(model, dataset, chosen, None))
    store.begin(out, identity)
    described = dataset
    if by_test:
        dataset = with_test_held_out(dataset, out / "test_record.jsonl")
    return Prepared(planned, dataset, described, out, chosen, form, warnings_of(declared, form))


def warnings_of(study: Study, form: Form) -> tuple[str, ...]:
    """What every output of this form of a study, as it was declared, must say."""
    warnings = []
    left_out = [row.name for row in study.rows if row.teacher is not None]
    if form.protocol == "published" and study.published_protocol == "test_as_validation":
        warnings.append(
            "PUBLISHED PROTOCOL: the test images served as validation images, as in the write-up, so these figures "
            "flatter"
        )
        if left_out and not form.transductive:
            warnings.append(
                f"LEFT OUT: {', '.join(left_out)}, since the images to label would be the test images (give "
                "--transductive to train them)"
            )
    elif form.protocol == "published":
        warnings.append(
            "PUBLISHED PROTOCOL: the write-up held out a part of the training images, as the honest form does"
        )
    if form.transductive:
        warnings.append(
            "TRANSDUCTIVE: pseudo-labels were given to the test images, so rows trained with them have seen these "
            "without labels"
        )
    if form.quick:
        warnings.append(
            f"QUICK FORM: at most {study.quick.images:,} training images, {study.quick.seeds} repeats and "
            f"{study.quick.members} members a committee; published figures are for more"
        )
    return tuple(warnings)


def fewer(dataset: ImageDataset, images: int, seed: int) -> ImageDataset:
    """The data set with a stratified part of its training images, where it has more than so many."""
    count = len(dataset.train)
    if count <= images:
        return dataset
    chosen = stratified_part(dataset.train.labels, images / count, numpy_generator(seed, "quick"))
    note = f"{len(chosen):,} of the {count:,} training images, every class in its share, for the quick form"
    return replace(dataset, train=dataset.train.part(chosen), notes=(*dataset.notes, note))


def without_pseudo_labels(study: Study) -> Study:
    """The study without the rows that label held-out images."""
    return study.model_copy(update={"rows": tuple(row for row in study.rows if row.teacher is None)})


def with_test_held_out(dataset: ImageDataset, record: Path) -> ImageDataset:
    """The data set with the test images at the end of the training images, to be held out there; opens the seal."""
    test = open_test(dataset, record, "published protocol: the test images serve as validation images")
    pixels = np.concatenate([dataset.train.pixels, test.pixels])
    labels = np.concatenate([dataset.train.labels, test.labels])
    return replace(dataset, train=checked_images(pixels, labels, dataset.class_names, dataset.name))


def work(prepared: Prepared) -> dict[tuple[str, int], tuple[int, float]]:
    """For every member still to train its epochs and what an epoch costs: multiply-adds, and a little for each step."""
    height, width, channels = prepared.dataset.image_shape
    shape, found = (height, width, channels), {}
    for model in prepared.plan.models:
        layers = layer_table(model.recipe.network, shape, len(prepared.dataset.class_names))
        cost = sum(layer.multiply_adds for layer in layers) + 2e7 / model.recipe.training.batch_size + 5e5
        for member in range(model.members):
            if not store.member_file(model_folder(prepared.out, model), member).exists():
                found[model.name, member] = (model.recipe.training.epochs, cost)
    return found


def conduct(
    prepared: Prepared, *, command: str, on_event: Callable[[Event], None] = lambda event: None
) -> StudyResults:
    """Train what is missing, judge everything, write the page.

    Raises:
        RunError: a folder holds another training.
        TrainingError: a member failed.
    """
    out, form, dataset, setting = prepared.out, prepared.form, prepared.dataset, prepared.setting
    content = prepared.plan.study.model_dump(mode="json", exclude_none=True)
    store.write_text(out / "study.toml", tomli_w.dumps(content))
    data = describe(prepared.described)
    store.write_json(out / "data.json", data)
    store.write_text(out / "command.txt", command + "\n")
    train(prepared.plan, dataset, out, setting, transductive=form.transductive, on_event=on_event)
    asked = asked_for(prepared)
    if (stored := finished(out, asked)) is not None:
        return stored
    (out / store.MANIFEST).unlink(missing_ok=True)
    store.write_json(out / "environment.json", devices.describe(setting.device, setting.precision, setting.workers))
    test = None
    if not form.keep_sealed:
        test = open_test(dataset, out / "test_record.jsonl", f'the end of the study "{prepared.plan.study.name}"')
        judge_test(prepared.plan, test, dataset, out, setting)
    results, pictures = judge(
        prepared.plan,
        dataset,
        out,
        test,
        warnings=prepared.warnings,
        protocol=form.protocol,
        transductive=form.transductive,
        published_on=published_on(prepared),
    )
    samples, means = sample_pictures(prepared.described)
    store.write_arrays(out / "pictures.npz", {"samples": samples, "class_means": means, **pictures})
    store.write_json(out / "results.json", results.model_dump(mode="json"))
    for model in prepared.plan.models:
        if is_trained(out, model):
            make_usable(model, prepared, data)
    store.write_json(out / "plan.json", asked)
    write_page(out)
    return results


def run_study(
    study: Study,
    dataset: ImageDataset,
    out: str | Path,
    setting: Setting | None = None,
    form: Form | None = None,
    on_event: Callable[[Event], None] = lambda event: None,
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
    setting = setting or Setting()
    prepared = prepare(study, dataset, Path(out), setting, form or Form())
    return conduct(prepared, command=setting.command, on_event=on_event)


def asked_for(prepared: Prepared) -> dict[str, Any]:
    """What results rest on: with the same answer, stored results are still right."""
    return {
        "rows": [
            [row.row.model_dump(mode="json"), row.model, row.members, row.seeds, row.compare_with]
            for row in prepared.plan.rows
        ],
        "models": [[model.name, model.recipe.digest(), model.members] for model in prepared.plan.models],
        "keep_sealed": prepared.form.keep_sealed,
        "transductive": prepared.form.transductive,
    }


def finished(out: Path, asked: dict[str, Any]) -> StudyResults | None:
    """The stored results, if they answer what is asked."""
    if not (out / store.MANIFEST).exists() or store.read_json(out / "plan.json") != asked:
        return None
    try:
        return StudyResults.model_validate(store.read_json(out / "results.json"))
    except (ValidationError, RunError):
        return None


def published_on(prepared: Prepared) -> str:
    """What the published figures are for, where they are not for what was trained here; else ""."""
    study = prepared.plan.study
    figures = [row.published for row in study.rows] + list(study.grid.published.values() if study.grid else ())
    if not any(figures) or (study.published_data in ("", prepared.dataset.name) and not prepared.form.quick):
        return ""
    return f"{study.published_data or prepared.dataset.name}, all of it"


def make_usable(model: Model, prepared: Prepared, data: dict[str, Any]) -> None:
    """The files that let a model's folder be used like a run: its members together are a committee."""
    folder = model_folder(prepared.out, model)
    store.write_json(folder / "data.json", data)
    plain: dict[str, Any] = {"combination": "mean", "weights": None, "temperature": None, "temperature_by_size": []}
    store.write_json(folder / "committee.json", {"members": list(range(model.members)), **plain})
    store.write_manifest(folder, {"study": prepared.plan.study.name, "model": model.name, "test_openings": 0})


def write_page(out: Path) -> Path:
    """Tables, figures and study.html from the files of the study's folder alone, then the manifest."""
    try:
        results = StudyResults.model_validate(store.read_json(out / "results.json"))
    except ValidationError as error:
        raise RunError(
            f"{out / 'results.json'} was written by another version; give the committee study command again"
        ) from error
    data, environment = store.read_json(out / "data.json"), store.read_json(out / "environment.json")
    height, width, channels = data["shape"]
    layers, rates = {}, {}
    for row in results.rows:
        recipe_file = out / "models" / row.model / "recipe.toml"
        if recipe_file.exists():
            recipe = recipes.load(str(recipe_file))
            table = layer_table(recipe.network, (height, width, channels), len(data["class_names"]))
            layers[row.name] = [(layer.name, spell(layer.output), layer.parameters) for layer in table]
            history = store.read_history(store.member_folder(out / "models" / row.model, 0))
            if history and row.members == 1:
                rates[row.name] = next(iter(rate_lines(recipe, {row.name: history}).values()))
    page = study_page.write_study_page(
        out,
        results=results,
        facts={
            "dataset": data,
            "environment": environment,
            "version": environment["committee"],
            "command": (out / "command.txt").read_text(encoding="utf-8").strip(),
            "study_toml": (out / "study.toml").read_text(encoding="utf-8"),
        },
        class_names=data["class_names"],
        layers=layers,
        rates=rates,
        pictures=store.read_arrays(out / "pictures.npz"),
    )
    store.write_manifest(out, {"study": results.name, "data": results.data, "warnings": list(results.warnings)})
    return page
