"""Students: who may judge which image, the same bits however cut, and what their folder says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from torch.nn import functional

import committee
from committee.cli.main import main
from committee.config import recipe_parsing as recipes
from committee.data.dataset import ImageDataset
from committee.ensemble.committee import committee_of
from committee.ensemble.teacher import OutOfFoldTeacher, held_out_of
from committee.errors import RecipeError, RunError
from committee.folders.run_folder import RunFolder
from committee.metrics.results import Results
from committee.nn.images import as_float
from committee.report.tables import summary_rows
from committee.runs.distillation import distil, plan_distillation, student_changes
from committee.training.jobs import EpochDone, Event
from committee.training.plan import TrainingPlan
from committee.training.teaching import Lesson

SMALL = ["training.epochs=2", "committee.members=3", "holdout.folds=3", "network.widths=[8,8,8]"]


@pytest.fixture(scope="module")
def teacher(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    """Three members of three folds, their test images sealed."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    setting = committee.Setting(workers=1)
    committee.train(digits, recipes.load("standard", SMALL), folder, setting, keep_sealed=True)
    return RunFolder.finished(folder)


def plan_of(teacher: RunFolder, digits: ImageDataset, *changes: str, weight: float = 0.5) -> TrainingPlan:
    own = (*student_changes(teacher.recipe), "training.epochs=2", *changes)
    recipe = recipes.load(str(teacher.recipe_file), own, note=False)
    setting = committee.Setting(workers=1, checkpoint_seconds=0)
    return plan_distillation(teacher, digits, recipe, setting, weight=weight)


def test_an_image_and_its_changed_copies_are_judged_only_by_members_that_held_it_out(
    teacher: RunFolder, digits: ImageDataset
) -> None:
    members = committee_of(teacher, teacher.committee.members, "cpu")
    validation = [teacher.member(member).validation for member in range(3)]
    judge = OutOfFoldTeacher(members, held_out_of(validation, len(digits.train)))
    positions = np.asarray([0, 5, 9, 100, 200, 300])
    changed = digits.train.pixels[positions][:, ::-1].copy()
    answers = judge(as_float(torch.from_numpy(changed)), torch.from_numpy(positions)).numpy()
    by_all = members.member_probabilities(changed)
    for row, position in enumerate(positions):
        (owner,) = [member for member in range(3) if position in validation[member]]
        np.testing.assert_allclose(answers[row], by_all[owner, row], atol=1e-6)


def test_a_lesson_mixes_the_teachers_answers_with_the_labels_and_leaves_unjudged_images_to_the_labels() -> None:
    logits = torch.tensor([[2.0, 0.0, -1.0], [0.5, 0.1, 0.0]])
    soft, targets = torch.tensor([[0.7, 0.2, 0.1], [0.0, 0.0, 0.0]]), torch.tensor([0, 2])
    training = recipes.load("fast").training.model_copy(update={"label_smoothing": 0.0})
    loss = Lesson(soft, temperature=2.0, weight=0.25).loss(logits, targets, training)
    by_label = functional.cross_entropy(logits, targets, reduction="none")
    by_teacher = -(soft[0] * (logits[0] / 2).log_softmax(0)).sum() * 4
    expected = (0.25 * by_teacher + 0.75 * by_label[0] + by_label[1]) / 2
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)


def test_a_student_that_was_interrupted_ends_with_the_same_bits_and_its_folder_names_its_teacher(
    teacher: RunFolder, digits: ImageDataset, tmp_path: Path
) -> None:
    class StoppedError(Exception):
        pass

    def stop(event: Event) -> None:
        if isinstance(event, EpochDone):
            raise StoppedError

    plan = plan_of(teacher, digits)
    whole, cut = RunFolder(tmp_path / "whole"), RunFolder(tmp_path / "cut")
    results = distil(teacher, plan, whole)
    with pytest.raises(StoppedError):
        distil(teacher, plan, cut, on_event=stop)
    distil(teacher, plan_of(teacher, digits), cut)
    digests = [RunFolder.finished(each.path).weights_digest() for each in (whole, cut)]
    assert digests[0] == digests[1]
    of_teacher = teacher.weights_digest()
    assert whole.identity.distilled is not None
    assert whole.identity.distilled.teacher == of_teacher
    assert whole.is_sealed  # as its teacher is
    compared = results.distillation
    assert compared is not None
    assert (compared.teacher, compared.on) == (of_teacher, "")
    costs = {row.who: row for row in compared.rows}
    assert costs["committee"].multiply_adds == 3 * costs["student"].multiply_adds
    assert costs["student"].bytes == pytest.approx(costs["committee"].bytes / 3, rel=0.01)
    assert "The student and its teacher" in whole.report.read_text()
    with pytest.raises(RunError, match="another training"):
        distil(teacher, plan_of(teacher, digits, weight=0.9), whole)


def test_labels_alone_give_other_weights_than_the_teachers_answers(
    teacher: RunFolder, digits: ImageDataset, tmp_path: Path
) -> None:
    taught, untaught = plan_of(teacher, digits), replace(plan_of(teacher, digits), teaching=None)
    found = []
    for name, plan in (("taught", taught), ("untaught", untaught)):
        distil(teacher, plan, RunFolder(tmp_path / name))
        found.append(RunFolder.finished(tmp_path / name).weights_digest())
    assert found[0] != found[1]


def test_a_teacher_that_held_nothing_out_is_refused(digits: ImageDataset, tmp_path: Path) -> None:
    recipe = recipes.load("standard", [*SMALL, "committee.members=1", "training.epochs=1", "holdout.kind=none"])
    committee.train(digits, recipe, tmp_path / "run", committee.Setting(workers=1), keep_sealed=True)
    own = RunFolder.finished(tmp_path / "run")
    with pytest.raises(RunError, match="trained on every image, so that none may judge"):
        plan_of(own, digits)
    with pytest.raises(RecipeError, match=r"expected to see whole images.* got augmentation.cutmix=0.5; leave it at 0"):
        plan_of(own, digits, "augmentation.cutmix=0.5")


def test_the_command_compares_on_test_images_that_the_teacher_has_opened_and_other_commands_take_the_student(
    tmp_path: Path,
) -> None:
    def call(*arguments: str | Path) -> str:
        result = CliRunner().invoke(main, [str(argument) for argument in arguments], catch_exceptions=False)
        assert result.exit_code == 0, result.output
        return result.stdout

    settings = [word for change in SMALL for word in ("--set", change)]
    call("train", "digits", *settings, "--workers", "1", "--out", tmp_path / "teacher")
    out = tmp_path / "student"
    given = ["distil", tmp_path / "teacher", "--epochs", "2", "--out", out]
    shown = call(*given)
    assert "Student minus committee" in shown
    stored = RunFolder.finished(out).results
    found = json.loads(call(*given, "--json"))  # from the folder: nothing is trained, measured or opened again
    assert found["distillation"] == json.loads(Results.model_validate(stored).model_dump_json())["distillation"]
    assert [row["who"] for row in found["distillation"]["rows"]] == ["committee", "best member", "student"]
    assert found["distillation"]["on"] == "test"
    assert all(row["score"]["images"] == stored.test.images for row in found["distillation"]["rows"] if stored.test)
    assert len(stored.test_openings) == 1
    call("verify", out)
    call("compare", tmp_path / "teacher", out)
    call("bundle", out, tmp_path / "student.committee")
    assert "Student, test images" in shown
    assert "Committee, test images" not in shown
    call("evaluate", out, "--again")
    again = RunFolder.finished(out).results
    assert again.distillation == stored.distillation  # the comparison with its teacher is kept
    assert len(again.test_openings) == 2
    assert summary_rows(again)[-1].label == "student"
