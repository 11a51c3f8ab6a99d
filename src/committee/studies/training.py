"""Train what a study needs: every member of every model, kept as soon as it is finished, in one queue for all cores.

Below the study's folder: `models/NAME/` with recipe.toml, identity.json and members/NN/ as in a run, and beside it
NAME-audits.json where images were pseudo-labelled. A second call trains only what is missing. A model's folder is bound
to its recipe, data, seed, device and versions, not to how many members are asked for: more seeds later add members.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, open_test
from committee.data.splits import held_out_parts, stratified_part
from committee.ensemble.combine import combine
from committee.ensemble.committee import load_network
from committee.errors import TrainingError
from committee.folders import files as store
from committee.nn.forward import judge_of
from committee.rng import numpy_generator
from committee.runs import run as runs
from committee.runs.run import Setting, pick_runner
from committee.studies.plan import Model, Plan, row_named, trained_content
from committee.studies.pseudo_labels import accepted, audit, labelled
from committee.training.jobs import Event, Failed, Job, member_probabilities, one_thread, share


@dataclass(frozen=True)
class Parts:
    """Which training images a model's members do not train on.

    Attributes:
        held_out: for each member, the images that it is judged by.
        left_out: images that no member trains on or is judged by (their labels are hidden); empty for most models.
    """

    held_out: Sequence[NDArray[np.int64]]
    left_out: NDArray[np.int64]


def model_folder(out: Path, model: Model) -> Path:
    """Where a model's members are."""
    return out / "models" / model.name


def parts_of(model: Model, dataset: ImageDataset, seed: int, *, transductive: bool) -> Parts:
    """The hold-out of a model; for pseudo-labels from held-back images, only the audit part of it is judged by.

    Raises:
        DataError: a part would be empty.
    """
    labels = dataset.train.labels
    held_out = held_out_parts(labels, model.recipe.holdout, model.members, seed, dataset.class_names)
    if model.teacher is None or transductive:
        return Parts(held_out, np.empty(0, dtype=np.int64))
    hidden = held_out[0]
    audited = hidden[
        stratified_part(labels[hidden], model.recipe.pseudo_labels.audit_fraction, numpy_generator("audit"))
    ]
    return Parts([audited] * model.members, np.setdiff1d(hidden, audited))


def train(
    plan: Plan,
    dataset: ImageDataset,
    out: Path,
    setting: Setting,
    *,
    transductive: bool = False,
    on_event: Callable[[Event], None] = lambda event: None,
) -> None:
    """Train every member that the study's folder lacks; the test images stay sealed unless `transductive`.

    Args:
        plan: what to train.
        dataset: its training images are used, its test images (without labels) only for `transductive`.
        out: the study's folder.
        setting: settled: no field is "auto".
        transductive: the test images, without their labels, are the unlabelled ones.
        on_event: called with every event of the training.

    Raises:
        RunError: a folder holds another training.
        TrainingError: a member failed.
    """
    with tempfile.TemporaryDirectory(prefix="committee-", ignore_cleanup_errors=True) as folder:
        shared = Path(folder)
        share(dataset.train, shared)
        plain = [model for model in plan.models if model.teacher is None]
        execute(list(jobs_of(plain, dataset, out, setting, shared)), setting, on_event)
        for model in plan.models:
            if model.teacher is not None:
                train_rounds(model, plan, dataset, out, setting, shared, transductive, on_event)


def execute(jobs: Sequence[Job], setting: Setting, on_event: Callable[[Event], None]) -> None:
    """Run jobs to their end.

    Raises:
        TrainingError: a member failed; the others are finished first.
    """
    if not jobs:
        return
    failed = []
    for event in pick_runner(setting, len(jobs))(jobs):
        failed += [event] if isinstance(event, Failed) else []
        on_event(event)
    if failed:
        raise TrainingError(f"member {failed[0].member} of {failed[0].model} could not be trained: {failed[0].why}")


def jobs_of(
    models: Sequence[Model],
    dataset: ImageDataset,
    out: Path,
    setting: Setting,
    shared: Path,
    pseudo: LabelledImages | None = None,
    transductive: bool = False,
) -> Iterator[Job]:
    """A job for every member that is not there yet; each model's folder is begun."""
    for model in models:
        folder = model_folder(out, model)
        store.begin(folder, identity_of(model, dataset, setting, pseudo))
        store.write_text(folder / "recipe.toml", model.recipe.to_toml())
        parts = parts_of(model, dataset, setting.seed, transductive=transductive)
        files = share(pseudo, shared, f"{model.name}-") if pseudo else None
        for member in range(model.members):
            if not store.member_file(folder, member).exists():
                yield Job(
                    recipe=model.recipe,
                    member=member,
                    seed=setting.seed,
                    folder=store.member_folder(folder, member),
                    pixels=shared / "pixels.npy",
                    labels=shared / "labels.npy",
                    held_out=parts.held_out[member],
                    left_out=parts.left_out,
                    pseudo=files,
                    classes=len(dataset.class_names),
                    device=setting.device,
                    precision=setting.precision,
                    model=model.name,
                )


def identity_of(model: Model, dataset: ImageDataset, setting: Setting, pseudo: LabelledImages | None) -> dict[str, Any]:
    """What makes a model's members these ones."""
    identity = runs.identity_of(dataset, model.recipe, setting, None, pseudo)
    return identity | {"recipe": trained_content(model.recipe)}


# --- pseudo-labels ----------------------------------------------------------------------------------------------------


def train_rounds(
    model: Model,
    plan: Plan,
    dataset: ImageDataset,
    out: Path,
    setting: Setting,
    shared: Path,
    transductive: bool,
    on_event: Callable[[Event], None],
) -> None:
    """Rounds of labelling and training; each one's audit goes into the model's audits.json.

    Where an audit says that the labels are not to be trusted, nothing more is trained, and audits.json says so.
    """
    assert model.teacher is not None
    settings = model.recipe.pseudo_labels
    teacher = row_named(plan.rows, model.teacher)
    labeller, members = next(m for m in plan.models if m.name == teacher.model), list(teacher.repeats()[0])
    parts = parts_of(model, dataset, setting.seed, transductive=transductive)
    audited, rounds = parts.held_out[0], []
    for number in range(1, settings.rounds + 1):
        last = number == settings.rounds
        current = model if last else replace(model, name=f"{model.name}-round-{number}")
        answers = committee_answers(out, labeller, members)
        if transductive:
            record, purpose = out / "test_record.jsonl", f"transductive pseudo-labels, round {number}, without labels"
            unlabelled = open_test(dataset, record, purpose, members=len(members)).pixels
            given = answers_about(unlabelled, out, labeller, members, dataset, setting)
        else:
            unlabelled, given = dataset.train.part(parts.left_out).pixels, answers[parts.left_out]
        found = audit(given, answers[audited], dataset.train.labels[audited], settings)
        stopped = found.stops(settings.min_precision)
        rounds.append({"round": number, "stopped": stopped, **asdict(found), "in_words": found.in_words()})
        rounds[-1]["interval"] = found.interval and found.interval.model_dump()
        store.write_json(out / "models" / f"{model.name}-audits.json", rounds)
        if stopped:
            return
        pseudo = labelled(unlabelled, given, accepted(given, settings))
        jobs = jobs_of([current], dataset, out, setting, shared, pseudo, transductive)
        execute(list(jobs), setting, on_event)
        labeller, members = current, list(range(model.members))


def committee_answers(out: Path, model: Model, members: Sequence[int]) -> NDArray[np.float64]:
    """What the committee of these members says about all training images: (image, class)."""
    folders = [store.member_folder(model_folder(out, model), member) for member in members]
    return combine(np.stack([store.read_array(folder / "train_probabilities.npy") for folder in folders]), "mean")


def answers_about(
    pixels: Any, out: Path, model: Model, members: Sequence[int], dataset: ImageDataset, setting: Setting
) -> NDArray[np.float64]:
    """What the committee of these members says about other images: (image, class)."""
    return combine(np.stack([judged(pixels, out, model, member, dataset, setting) for member in members]), "mean")


def judged(
    pixels: Any, out: Path, model: Model, member: int, dataset: ImageDataset, setting: Setting
) -> NDArray[np.float32]:
    """One stored member's probabilities for images: (image, class)."""
    height, width, channels = dataset.image_shape
    shape, classes = (channels, height, width), len(dataset.class_names)
    network = load_network(model_folder(out, model), member, model.recipe, shape, classes, setting.device)
    with one_thread():
        judge = judge_of(network, setting.device, setting.precision)
        return member_probabilities(judge, pixels, setting.device, model.recipe.committee.tta)


# --- the test images --------------------------------------------------------------------------------------------------


def judge_test(plan: Plan, test: LabelledImages, dataset: ImageDataset, out: Path, setting: Setting) -> None:
    """Let all members that have not done so yet judge the opened test images."""
    for model in plan.models:
        for member in range(model.members):
            folder = store.member_folder(model_folder(out, model), member)
            if (folder / "member.json").exists() and not (folder / "test_probabilities.npy").exists():
                probabilities = judged(test.pixels, out, model, member, dataset, setting)
                store.write_array(folder / "test_probabilities.npy", probabilities)
