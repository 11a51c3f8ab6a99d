"""From a finished run to its student: one network that learns from the committee's answers, and what that cost.

The student is a run of one member like any other. Its identity names the teacher's weights, so that another teacher
is another training.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, Pixels
from committee.ensemble.committee import Committee, committee_of
from committee.ensemble.teacher import OutOfFoldTeacher, calibration_of, held_out_of
from committee.errors import RecipeError, RunError
from committee.folders.records import DistilledFrom
from committee.folders.run_folder import RunFolder
from committee.metrics.paired import compare
from committee.metrics.results import Classified, Contender, Distillation, Results
from committee.nn.devices import single_threaded, usable
from committee.nn.inference import member_probabilities
from committee.nn.summary import layer_table, totals
from committee.rng import numpy_generator
from committee.runs.evaluation import write_report
from committee.runs.run import train_plan
from committee.training.jobs import Event
from committee.training.pipeline import ignore
from committee.training.plan import TrainingPlan, plan_training
from committee.training.setting import Setting
from committee.training.teaching import Teaching

TEMPERATURE: Final = 2.0
WEIGHT: Final = 0.5
EPOCHS: Final = 2  # times the teacher's
SPEED_IMAGES: Final = 1_024
LATENCY_TURNS, RATE_TURNS = 50, 3

Who = Literal["committee", "best member", "student"]


def student_changes(teacher: Recipe) -> tuple[str, ...]:
    """What a student's recipe has otherwise than its teacher's: one member, all images, each of them whole, the
    weights of the last epoch.

    The student holds nothing out: the members that judge its training images have trained on whatever it held out, so
    that a choice by those images would not be free of them.
    """
    changes = (
        *("committee.members=1", "committee.calibration=none", "committee.combination=mean", "holdout.kind=none"),
        *("training.checkpoint=last", "training.patience=0", "training.loss=cross_entropy"),
        "augmentation.cutmix=0",
        f"training.epochs={EPOCHS * teacher.training.epochs}",
    )
    return (*changes, "schedule.name=cosine") if teacher.schedule.name == "plateau" else changes


def plan_distillation(
    teacher: RunFolder,
    dataset: ImageDataset,
    recipe: Recipe,
    setting: Setting,
    *,
    temperature: float = TEMPERATURE,
    weight: float = WEIGHT,
) -> TrainingPlan:
    """The training of a student, checked before anything is written.

    Args:
        teacher: a finished run.
        dataset: what it was trained on.
        recipe: the student's, of one member.
        setting: where and how it trains.
        temperature: that softens both the teacher's and the student's probabilities in the loss.
        weight: of the teacher's answers in the loss, from 0 to 1; the labels have the rest.

    Raises:
        RunError: the teacher was trained on other images, or none of its members held any of them out.
        RecipeError: the student has several members, another loss than cross-entropy or mixed images, or does not fit
            the images.
    """
    identity = teacher.identity
    train_digest, _ = dataset.part_digests()
    if train_digest != identity.train_images:
        raise RunError(
            f"{teacher} was trained on other images than {dataset.name} has now; give the data set of the training"
        )
    if recipe.committee.members != 1 or recipe.training.loss != "cross_entropy":
        raise RecipeError(
            "a student is expected to be one member trained with cross_entropy, got committee.members="
            f"{recipe.committee.members} and training.loss={recipe.training.loss}; leave both as they are"
        )
    if recipe.augmentation.cutmix:
        raise RecipeError(
            "a student is expected to see whole images, since who may judge one depends on where it is from, got "
            f"augmentation.cutmix={recipe.augmentation.cutmix:g}; leave it at 0"
        )
    members = teacher.committee.members
    held_out = held_out_of([teacher.member(member).validation for member in members], len(dataset.train))
    if not held_out.any():
        raise RunError(
            f"every member of {teacher} trained on every image, so that none may judge them for a student; train the "
            "teacher with holdout.kind=folds"
        )
    plan = plan_training(dataset, recipe, setting)
    committee = committee_of(teacher, members, plan.setting.device)
    calibration = calibration_of(teacher.committee, held_out)
    return replace(
        plan,
        teaching=Teaching(OutOfFoldTeacher(committee, held_out, calibration), temperature, weight),
        distilled=DistilledFrom(
            teacher=teacher.weights_digest(), temperature=temperature, weight=weight, calibration=calibration
        ),
    )


def distil(
    teacher: RunFolder,
    plan: TrainingPlan,
    folder: RunFolder,
    *,
    keep_sealed: bool = False,
    on_event: Callable[[Event], None] = ignore,
) -> Results:
    """Train a planned student into a folder and compare it with its teacher; one that is there is only compared.

    Args:
        teacher: a finished run.
        plan: from `plan_distillation`.
        folder: the student's.
        keep_sealed: leave the student's test images sealed; they stay so anyway while the teacher's are.
        on_event: called with every event of the training.

    Raises:
        RunError: the folder holds another training.
        TrainingError: the student could not be trained.
    """
    train_plan(plan, folder, keep_sealed=keep_sealed or teacher.is_sealed, on_event=on_event)
    student = RunFolder.finished(folder.path, to_write=True)
    known = student.results.distillation
    if known is not None and known.on == compared_on(teacher, student):
        return student.results
    results = student.results.model_copy(update={"distillation": compared(teacher, student, plan)})
    with student.locked():
        student.reopen()
        student.write_results(results)
        write_report(student, page_only=False)
    return results


def compared_on(teacher: RunFolder, student: RunFolder) -> str:
    """Which images the two are compared on: the opened test images, else those that both predict out of fold."""
    same = teacher.identity.test_images == student.identity.test_images
    if same and not (teacher.is_sealed or student.is_sealed):
        return "test"
    return "out of fold" if student.results.out_of_fold else ""


def compared(teacher: RunFolder, student: RunFolder, plan: TrainingPlan) -> Distillation:
    """The student beside its teacher and the teacher's best member, chosen out of fold."""
    best, on = best_member(teacher.results), compared_on(teacher, student)
    folders: dict[Who, tuple[RunFolder, tuple[int, ...]]] = {
        "committee": (teacher, teacher.committee.members),
        "best member": (teacher, (best,)),
        "student": (student, student.committee.members),
    }
    committees = {
        who: committee_of(run, members, usable(plan.setting.device)) for who, (run, members) in folders.items()
    }
    speeds = measured_speeds(list(committees.values()), plan.dataset.train.pixels[:SPEED_IMAGES])
    rows = []
    for (who, (run, members)), speed in zip(folders.items(), speeds, strict=True):
        score = None
        if on:
            score = classified(teacher, probabilities_of(run, members, on), on, is_teacher=who == "committee")
        rows.append(
            Contender(
                who=who,
                members=len(members),
                score=score,
                bytes=sum(run.member(member).weights_file.stat().st_size for member in members),
                multiply_adds=sum(
                    totals(
                        layer_table(run.recipe.network.of_member(member), run.data.shape, len(run.data.class_names))
                    )[1]
                    for member in members
                ),
                milliseconds=round(speed.milliseconds, 4),
                images_per_second=round(speed.images_per_second, 1),
            )
        )
    distilled = student.identity.distilled
    assert distilled is not None  # the plan has it, and its identity is the folder's
    return Distillation(
        teacher=distilled.teacher,
        temperature=distilled.temperature,
        weight=distilled.weight,
        best_member=best,
        on=on,
        rows=tuple(rows),
    )


def best_member(results: Results) -> int:
    """The member of the highest accuracy on its own validation images; of equals the one with the lowest loss."""
    scored = [
        (-each.validation.accuracy, each.validation.loss, each.member) for each in results.members if each.validation
    ]
    return min(scored)[2]


def probabilities_of(run: RunFolder, members: Sequence[int], on: str) -> NDArray[np.floating[Any]]:
    """(image, class) of a run's whole committee, or of one of its members; NaN where it may not predict."""
    if tuple(members) == run.committee.members:
        return run.test_probabilities if on == "test" else run.out_of_fold_probabilities
    member = run.member(members[0])
    if on == "test":
        return member.test_probabilities
    honest = np.full_like(member.train_probabilities, np.nan)
    honest[member.validation] = member.train_probabilities[member.validation]
    return honest


def classified(
    teacher: RunFolder, probabilities: NDArray[np.floating[Any]], on: str, *, is_teacher: bool
) -> Classified | None:
    """The score of probabilities (image, class) beside the teacher's; None where they share no image."""
    labels = teacher.test_labels if on == "test" else teacher.train_labels
    of_teacher = probabilities_of(teacher, teacher.committee.members, on)
    both = ~(np.isnan(of_teacher[:, 0]) | np.isnan(probabilities[:, 0]))
    if not both.any():
        return None
    found = compare(of_teacher[both], probabilities[both], labels[both], numpy_generator(0, "compare"))
    return Classified(
        images=found.images,
        accuracy=found.accuracy_b,
        interval=found.accuracy_interval_b,
        log_loss=found.log_loss_b,
        difference=None if is_teacher else found.accuracy_difference,
        difference_interval=None if is_teacher else found.accuracy_difference_interval,
    )


class Speed(NamedTuple):
    """How fast a committee answers: for one image alone, and for many on one core."""

    milliseconds: float
    images_per_second: float


def measured_speeds(committees: Sequence[Committee], pixels: Pixels) -> list[Speed]:
    """The speed of committees side by side, in turns, so that what disturbs the machine disturbs all of them.

    Args:
        committees: all of one device.
        pixels: (image, height, width, channel).
    """
    latencies: list[list[float]] = [[] for _ in committees]
    rates: list[list[float]] = [[] for _ in committees]
    for turn in range(1 + LATENCY_TURNS):  # the first prepares the weights
        for committee, found in zip(committees, latencies, strict=True):
            began = time.perf_counter()
            committee.member_probabilities(pixels[turn % len(pixels)][None])
            found.append(time.perf_counter() - began)
    with single_threaded():
        for _ in range(RATE_TURNS):
            for committee, found in zip(committees, rates, strict=True):
                began = time.perf_counter()
                for forward in committee.forwards:
                    member_probabilities(forward, pixels, committee.device, committee.views)
                found.append(len(pixels) / (time.perf_counter() - began))
    return [Speed(float(np.median(each[1:])) * 1000, max(rate)) for each, rate in zip(latencies, rates, strict=True)]
