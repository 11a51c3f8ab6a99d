"""From a study's trained members to its table: what every row reaches, and which differences are more than chance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from committee.data.dataset import ImageDataset, LabelledImages, Labels
from committee.ensemble.combine import combine, out_of_fold
from committee.folders import files as store
from committee.metrics.error_analysis import study_galleries
from committee.metrics.repeats import Judged, adjusted, difference, score
from committee.metrics.results import (
    Difference,
    Gallery,
    GridResult,
    RateReduction,
    RepeatScore,
    RowResult,
    StudyResults,
)
from committee.nn.architectures import plan as plan_network
from committee.rng import numpy_generator
from committee.runs.evaluation import test_openings
from committee.studies import discussion, grid
from committee.studies.plan import Model, Plan, PlannedRow


@dataclass(frozen=True)
class Answers:
    """What a row's repeats say about one set of images.

    Attributes:
        labels: (image,).
        repeats: (repeat, image, class), rows of NaN where a repeat may not be asked.
        first: (member, image, class), the members of the first repeat.
    """

    labels: Labels
    repeats: NDArray[np.float64]
    first: NDArray[np.float32]

    def judged(self) -> Judged:
        """Right or wrong; the members of a committee that was trained once are there, too."""
        alone = self.first if len(self.repeats) == 1 and len(self.first) > 1 else None
        return Judged(right(self.repeats, self.labels), None if alone is None else right(alone, self.labels))


def right(probabilities: NDArray[Any], labels: Labels) -> NDArray[np.float64]:
    """(row, image, class) -> (row, image): 1 where the class is the label, 0 where not, NaN where not asked."""
    known = ~np.isnan(probabilities[:, :, 0])
    return np.where(known, np.nan_to_num(probabilities, nan=-1.0).argmax(axis=2) == labels, np.nan)


def judge(
    plan: Plan,
    dataset: ImageDataset,
    out: Path,
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
        out: the study's folder.
        test: the opened test images, which all members have judged; None while they are sealed.
        warnings: what every output must say.
        protocol: "honest" or "published".
        transductive: whether pseudo-labels were for the test images.
        published_on: what the published figures are for, where that is not this data; else "".
    """
    models = {model.name: model for model in plan.models}
    trained = [planned for planned in plan.rows if is_trained(out, models[planned.model])]
    on_train = {p.row.name: train_answers(p, models[p.model], dataset, out) for p in trained}
    on_test = {p.row.name: test_answers(p, models[p.model], test, out) for p in trained} if test else {}
    shown_on = on_test or on_train
    part, images = ("test", test) if test else ("train", dataset.train)
    pictures: dict[int, int] = {}  # position in the part -> slot
    compared = adjusted([compare(planned, on_test, on_train) for planned in plan.rows if planned.cell is None])
    rows = []
    plain = [planned for planned in plan.rows if planned.cell is None]
    for planned, against in zip(plain, compared, strict=True):
        name = planned.row.name
        answers = shown_on.get(name)
        galleries: tuple[Gallery, ...] = ()
        if answers:
            galleries = study_galleries(
                answers.repeats[0],
                answers.first,
                answers.labels,
                numpy_generator(0, "galleries"),
                part=part,
                names=images.names,
                every_error=planned.members > 1,
                slot_of=lambda position: pictures.setdefault(position, len(pictures)),
            )
        rows.append(
            row(planned, models[planned.model], dataset, out, on_train.get(name), on_test.get(name), against, galleries,
                transductive)
        )  # fmt: skip
    order = sorted(pictures, key=lambda position: pictures[position])
    results = StudyResults(
        name=plan.study.name,
        title=plan.study.title,
        summary=plan.study.summary,
        data=dataset.name,
        protocol=protocol,
        warnings=tuple(warnings),
        rows=tuple(rows),
        grid=judge_grid(plan, on_train, on_test),
        published_on=published_on,
        discussion=(),
        test_openings=test_openings(out),
        seconds=round(sum(seconds_of(out, model) for model in plan.models), 1),
    )
    results = results.model_copy(update={"discussion": tuple(discussion.findings(results))})
    return results, {part: images.pixels[np.asarray(order, dtype=np.int64)]} if order else {}


def is_trained(out: Path, model: Model) -> bool:
    """Whether all members of a model are there; they are not where an audit stopped pseudo-labelling."""
    return all((folder / "member.json").exists() for folder in member_folders(out, model, range(model.members)))


def member_folders(out: Path, model: Model, members: Sequence[int]) -> list[Path]:
    """Where these members are."""
    return [store.member_folder(out / "models" / model.name, member) for member in members]


def train_answers(planned: PlannedRow, model: Model, dataset: ImageDataset, out: Path) -> Answers:
    """What a row's repeats say about the images that their members held out."""
    repeats, first = [], None
    for members in planned.repeats():
        folders = member_folders(out, model, members)
        trained = np.stack([store.read_array(folder / "train_probabilities.npy") for folder in folders])
        honest = out_of_fold(trained, [store.read_array(folder / "held_out.npy") for folder in folders])
        first = honest if first is None else first
        repeats.append(combine(honest, "mean"))
    assert first is not None
    return Answers(dataset.train.labels, np.stack(repeats), first)


def test_answers(planned: PlannedRow, model: Model, test: LabelledImages, out: Path) -> Answers:
    """What a row's repeats say about the test images."""
    repeats, first = [], None
    for members in planned.repeats():
        folders = member_folders(out, model, members)
        said = np.stack([store.read_array(folder / "test_probabilities.npy") for folder in folders])
        first = said if first is None else first
        repeats.append(combine(said, "mean"))
    assert first is not None
    return Answers(test.labels, np.stack(repeats), first)


def compare(planned: PlannedRow, on_test: dict[str, Answers], on_train: dict[str, Answers]) -> Difference | None:
    """A row less the one that it is compared with: on the test images, or while they are sealed on validation images.

    On validation images, those are looked at that both may judge.
    """
    name, other = planned.row.name, planned.compare_with
    answers, on = (on_test, "test") if on_test else (on_train, "validation")
    if other is None or name not in answers or other not in answers:
        return None
    this, that = answers[name].judged(), answers[other].judged()
    rows = [rows for each in (this, that) for rows in (each.right, each.members) if rows is not None]
    common = np.all([~np.isnan(r).any(axis=0) for r in rows], axis=0)
    if common.any() and not common.all():
        this, that = (
            Judged(each.right[:, common], None if each.members is None else each.members[:, common])
            for each in (this, that)
        )
    return difference(this, that, against=other, on=on)


def scored(answers: Answers | None) -> RepeatScore | None:
    """The score of the images that at least one repeat may judge."""
    if answers is None:
        return None
    rights = right(answers.repeats, answers.labels)
    asked = ~np.isnan(rights).all(axis=0)
    return score(rights[:, asked]) if asked.any() else None


def row(
    planned: PlannedRow,
    model: Model,
    dataset: ImageDataset,
    out: Path,
    on_train: Answers | None,
    on_test: Answers | None,
    against: Difference | None,
    galleries: tuple[Gallery, ...],
    transductive: bool,
) -> RowResult:
    """One row of the table."""
    height, width, channels = dataset.image_shape
    layers = plan_network(model.recipe.network, (channels, height, width), len(dataset.class_names))
    trained = on_train is not None
    folders = member_folders(out, model, range(planned.members * planned.seeds)) if trained else []
    histories = [store.read_history(folder) for folder in folders]
    facts = [store.read_json(folder / "member.json") for folder in folders]
    audits = out / "models" / f"{model.name}-audits.json"
    shown = on_test or on_train
    row = planned.row
    return RowResult(
        name=row.name,
        change=row.change,
        model=model.name,
        members=planned.members,
        parameters=sum(layer.parameters for layer in layers),
        multiply_adds=sum(layer.multiply_adds for layer in layers),
        epochs=model.recipe.training.epochs,
        seconds=round(sum(fact["seconds"] for fact in facts) / planned.seeds, 1),
        validation=scored(on_train),
        test=scored(on_test),
        member_test=member_accuracies(planned, model, on_test, out) if on_test and planned.members > 1 else (),
        published=row.published,
        published_members=row.published_members,
        published_parameters=row.published_parameters,
        difference=against,
        rate_reductions=tuple(
            RateReduction(member=member, epoch=line["epoch"], rate=line["rate_reduced_to"])
            for member, history in enumerate(histories)
            for line in history
            if "rate_reduced_to" in line
        ),
        audits=tuple(audit["in_words"] for audit in store.read_json(audits)) if audits.exists() else (),
        stopped=not trained,
        transductive=transductive and model.teacher is not None,
        remark=row.remark,
        confusion=confusion(shown) if shown else (),
        galleries=galleries,
        curve=curve(histories),
    )


def member_accuracies(planned: PlannedRow, model: Model, on_test: Answers, out: Path) -> tuple[float, ...]:
    """Test accuracy of every member of every repeat."""
    folders = member_folders(out, model, range(planned.members * planned.seeds))
    said = (store.read_array(folder / "test_probabilities.npy") for folder in folders)
    return tuple(float(np.mean(one.argmax(axis=1) == on_test.labels)) for one in said)


def confusion(answers: Answers) -> tuple[tuple[int, ...], ...]:
    """(true class, predicted class) of the first repeat."""
    said, classes = answers.repeats[0], answers.repeats.shape[2]
    asked = ~np.isnan(said[:, 0])
    pairs = answers.labels[asked] * classes + said[asked].argmax(axis=1)
    counts = np.bincount(pairs, minlength=classes**2).reshape(classes, classes)
    return tuple(tuple(int(count) for count in line) for line in counts)


def curve(histories: Sequence[Sequence[dict[str, Any]]]) -> tuple[tuple[float | None, float | None], ...]:
    """Training and validation accuracy an epoch, mean over the members that got so far."""

    def mean(lines: Sequence[dict[str, Any]], field: str) -> float | None:
        values = [line[field] for line in lines if line[field] is not None]
        return math.fsum(values) / len(values) if values else None

    longest = max(map(len, histories), default=0)
    epochs = [[history[number] for history in histories if number < len(history)] for number in range(longest)]
    return tuple((mean(lines, "train_accuracy"), mean(lines, "validation_accuracy")) for lines in epochs)


def judge_grid(plan: Plan, on_train: dict[str, Answers], on_test: dict[str, Answers]) -> GridResult | None:
    """The grid of a study, if it has one.

    Its cells' recipes hold validation images out: without them nothing could be chosen, and the plan says so.
    """
    if plan.study.grid is None:
        return None
    cells = [(planned.row, planned.cell or ()) for planned in plan.rows if planned.cell is not None]
    names = [row.name for row, _ in cells]
    validation = {}
    for name in names:
        rights = on_train[name].judged().right
        rights = rights[:, ~np.isnan(rights).all(axis=0)]
        validation[name] = (Judged(rights), score(rights))
    shown = on_test or on_train
    return grid.conclude(
        plan.study.grid,
        cells,
        validation,
        {name: score(on_test[name].judged().right) for name in names} if on_test else {},
        {name: confusion(shown[name]) for name in names},
        "test" if on_test else "validation",
    )


def seconds_of(out: Path, model: Model) -> float:
    """Training of all of a model's members, one after the other."""
    files = [folder / "member.json" for folder in member_folders(out, model, range(model.members))]
    return math.fsum(store.read_json(file)["seconds"] for file in files if file.exists())
