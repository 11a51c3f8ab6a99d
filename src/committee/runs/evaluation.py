"""From trained members to results and report: what a run's probabilities say about it.

Reads the members' files, evaluates them out of fold, opens the test images if asked to, and writes committee.json,
results.json, pictures, tables, figures, report.html and, last, the manifest. Nothing is trained here, and nothing that
the test images show flows back into the committee.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages, Labels, open_test
from committee.data.prepare import measure
from committee.data.summary import sample_pictures
from committee.ensemble.combine import CombinationRule
from committee.ensemble.committee import committee_of
from committee.ensemble.member_predictions import MemberPredictions
from committee.ensemble.size_curve import size_curve
from committee.errors import TrainingError
from committee.folders.manifest import contents_digest
from committee.folders.records import CommitteeRecord, ImagesRecord, MemberRecord, RunSummary, ScoreSummary
from committee.folders.run_folder import RunFolder
from committee.metrics.error_analysis import agreement, galleries
from committee.metrics.familiarity import doubt_of, fit
from committee.metrics.results import Calibration, Distillation, Gallery, MemberResult, PartScore, Results, Scores
from committee.metrics.scores import expected_calibration_error, log_loss, score
from committee.nn.devices import usable
from committee.pages import rows
from committee.rng import numpy_generator
from committee.training.jobs import part_score, with_member

MOST_FITTED = 200_000
"""Out-of-fold images, spread evenly over all, on which weights and temperature are fitted and which show how members
agree and how committees of fewer do; scores are always of all.
"""


@dataclass(frozen=True)
class EvaluatedPart:
    """The training images (out of fold) or the opened test images, with what was predicted for them.

    Attributes:
        name: "train" or "test".
        probabilities: (image, class), the committee's; rows of NaN where no member may predict.
    """

    name: str
    images: LabelledImages
    predictions: MemberPredictions
    probabilities: NDArray[np.float64]

    @property
    def labels(self) -> Labels:
        """(image,)."""
        return self.images.labels

    def scores(self, class_names: Sequence[str]) -> Scores | None:
        """The committee's scores on the images that may be predicted; None where there are none."""
        images = self.predictions.predictable
        return score(rows(self.probabilities, images), self.labels[images], class_names) if len(images) else None


def evaluate_run(
    folder: RunFolder, dataset: ImageDataset, *, open_for: str | None, distillation: Distillation | None = None
) -> Results:
    """Evaluate the members of a run and write everything that follows from them.

    Args:
        folder: the run's; its members are trained, its command and training seconds are written.
        dataset: what it was trained on.
        open_for: why the test images are opened, for the record; None keeps them sealed.
        distillation: how a student compares with its teacher, where that is known.

    Raises:
        TrainingError: no member finished.
    """
    began = time.monotonic()
    recipe = folder.recipe
    records = [folder.member(number).record for number in range(recipe.committee.members)]
    records = [record for record in records if record.status != "late"]
    used = [record.member for record in records if record.status == "finished"]
    if not used:
        died = [record for record in records if record.status == "died"]
        first = (died or records)[0]
        remedy = "give the same command again" if died else "change the recipe and give another folder (--out)"
        raise TrainingError(f"no member could be trained: {with_member(first.remark, first.member)}; {remedy}")
    predictions = MemberPredictions.for_training_images([folder.member(member) for member in used])
    rule = write_rule(folder, recipe, used, predictions, dataset.train.labels)
    train = EvaluatedPart("train", dataset.train, predictions, predictions.combined(rule))
    folder.write_out_of_fold_probabilities(train.probabilities)
    folder.write_images(training_images(dataset, predictions))
    test = None if open_for is None else evaluated_test(folder, dataset, used, open_for)
    names = dataset.class_names
    parts = [train] if test is None else [train, test]
    rng = numpy_generator("size curve", len(used))
    out_of_fold = train.scores(names)
    some, chosen = predictions.some(MOST_FITTED)
    seconds = folder.seconds_training
    results = Results(
        members=tuple(member_result(record, used, test) for record in records),
        left_out=recipe.committee.members - len(records),
        committee_train=score(rule.predict(predictions.probabilities), train.labels, names),
        out_of_fold=out_of_fold,
        out_of_fold_members=mean_members(predictions) if out_of_fold else None,
        out_of_fold_remark=out_of_fold_remark(recipe, predictions),
        test=test.scores(names) if test else None,
        calibration=calibration(folder, rule, test),
        size_curve_out_of_fold=size_curve(some.honest, train.labels[chosen], rule.combine, rng),
        size_curve_test=size_curve(test.predictions.honest, test.labels, rule.predict, rng) if test else (),
        agreement=agreement((test.predictions if test else some).honest, on=(test or train).name),
        galleries=write_pictures(folder, dataset, parts),
        test_openings=folder.test_openings,
        seconds_training=seconds,
        seconds_total=round(seconds + time.monotonic() - began, 3),
        distillation=distillation,
    )
    folder.write_results(results)
    for part in parts:
        write_misclassified(folder, part, names)
    write_report(folder, page_only=False)
    return results


def training_images(dataset: ImageDataset, predictions: MemberPredictions) -> ImagesRecord:
    """What the training images look like, to people's eyes and to members that did not train on them."""
    doubt = doubt_of(predictions.honest)
    pixels = dataset.train.pixels
    return ImagesRecord(writing=measure(pixels), familiarity=fit(pixels, None if np.isnan(doubt).all() else doubt))


def write_rule(
    folder: RunFolder, recipe: Recipe, used: Sequence[int], predictions: MemberPredictions, labels: Labels
) -> CombinationRule:
    """Decide out of fold how the members that finished become one, and write it down."""
    some, chosen = predictions.some(MOST_FITTED)
    rule, by_size = some.fit_rule(labels[chosen], recipe.committee)
    record = CommitteeRecord(
        members=tuple(used),
        combination=rule.how,
        weights=rule.weights,
        temperature=rule.temperature if by_size else None,
        temperature_by_size=by_size,
    )
    folder.write_committee(record)
    return rule


def evaluated_test(folder: RunFolder, dataset: ImageDataset, used: Sequence[int], open_for: str) -> EvaluatedPart:
    """Open the test images, let every member predict them, and store what it predicted."""
    committee = committee_of(folder, used, usable(folder.identity.device))
    images = open_test(dataset, folder.test_record, open_for, members=len(used))
    predictions = MemberPredictions(committee.member_probabilities(images.pixels))
    for member, probabilities in zip(used, predictions.probabilities, strict=True):
        folder.member(member).write_test_probabilities(probabilities)
    combined = predictions.combined(committee.rule)
    folder.write_test(images.labels, combined)
    return EvaluatedPart("test", images, predictions, combined)


def mean_members(predictions: MemberPredictions) -> float:
    """How many members predict an image that any may predict, on average."""
    return float(predictions.members_per_image[predictions.predictable].mean())


def calibration(folder: RunFolder, rule: CombinationRule, test: EvaluatedPart | None) -> Calibration | None:
    """Where the temperature comes from, and what it changes on the test images once they are opened."""
    if folder.committee.temperature is None:
        return None
    changes: list[tuple[float, float]] = []
    if test:
        before, after = rule.combine(test.predictions.honest), test.probabilities
        changes = [
            (measure(before, test.labels), measure(after, test.labels))
            for measure in (log_loss, expected_calibration_error)
        ]
    return Calibration(
        temperature=rule.temperature,
        by_size=folder.committee.temperature_by_size,
        test_log_loss=changes[0] if changes else None,
        test_calibration_error=changes[1] if changes else None,
    )


def member_result(record: MemberRecord, used: Sequence[int], test: EvaluatedPart | None) -> MemberResult:
    """A member's row of the training summary: its record and, once they are opened, its score on the test images."""
    on_test: PartScore | None = None
    if test and record.status == "finished":
        on_test = part_score(test.predictions.probabilities[used.index(record.member)], test.labels)
    return MemberResult(**record.model_dump(exclude={"first_epoch"}), test=on_test)


def out_of_fold_remark(recipe: Recipe, predictions: MemberPredictions) -> str:
    """What the out-of-fold figures rest on, as a phrase."""
    predicted, images = len(predictions.predictable), predictions.probabilities.shape[1]
    if not predicted:
        return "no images were held out, so there are no figures without the test images"
    remarks = [f"each of {predicted:,} training images is predicted only by members that did not train on it"]
    if predicted < images:
        remarks.append(f"{images - predicted:,} images were never held out and are not counted")
    if recipe.training.checkpoint != "last" or recipe.training.patience or recipe.schedule.name == "plateau":
        remarks.append(
            "epochs or learning rates were chosen on the same images, so the figures are slightly optimistic"
        )
    return "; ".join(remarks)


def write_pictures(folder: RunFolder, dataset: ImageDataset, parts: Sequence[EvaluatedPart]) -> tuple[Gallery, ...]:
    """Store the images that the report shows, and return the galleries that name them."""
    samples, means = sample_pictures(dataset)
    pictures: dict[str, NDArray[np.integer]] = {"samples": samples, "class_means": means}
    shown: list[Gallery] = []
    for part in reversed(parts):
        if len(part.predictions.predictable):
            found = galleries(
                part.probabilities, part.predictions.honest, part.labels, part=part.name, names=part.images.names
            )
            shown += found.galleries
            pictures[part.name] = part.images.pixels[np.asarray(found.positions, dtype=np.int64)]
    folder.write_pictures(pictures)
    return tuple(shown)


def write_misclassified(folder: RunFolder, part: EvaluatedPart, class_names: Sequence[str]) -> None:
    """Every misclassified image of a part, the most confident first, with the image's file."""
    images = part.predictions.predictable
    choices = rows(part.probabilities, images).argmax(axis=1)
    wrong = np.flatnonzero(choices != part.labels[images])
    most_confident_first = wrong[np.argsort(-part.probabilities[images[wrong]].max(axis=1), kind="stable")]
    names, table = part.images.names, []
    for position, choice in zip(images[most_confident_first], choices[most_confident_first], strict=True):
        own, label = part.probabilities[position], part.labels[position]
        file = names[position] if names else ""
        table.append((int(position), class_names[label], class_names[choice], own[label], own[choice], file))
    folder.write_misclassified(part.name, table)


def write_report(folder: RunFolder, *, page_only: bool) -> None:
    """Tables, figures and report.html from the files of the run folder alone, then the manifest.

    Args:
        folder: the run's.
        page_only: whether this is all that the command does, and all other files are those of an earlier manifest.

    Raises:
        RunError: a file of the run is missing or damaged.
    """
    contents = folder.contents(summary(folder), page_only=page_only)
    write_run_page(folder, contents_digest(contents))
    folder.finish(contents)


def write_run_page(folder: RunFolder, contents: str) -> None:
    """The page as `committee.report.run_page` writes it, imported when it is wanted: matplotlib takes 30 MB."""
    from committee.report import run_page

    run_page.write_run_page(folder, contents)


def summary(folder: RunFolder) -> RunSummary:
    """The run in short, as its manifest has it."""
    results, recipe = folder.results, folder.recipe
    return RunSummary(
        data=folder.data.name,
        recipe=recipe.name,
        recipe_digest=recipe.digest(),
        seed=folder.identity.seed,
        members=sum(row.status == "finished" for row in results.members),
        failed_members=tuple(row.member for row in results.members if row.status == "failed"),
        died_members=tuple(row.member for row in results.members if row.status == "died"),
        left_out=results.left_out,
        test=short(results.test),
        out_of_fold=short(results.out_of_fold),
        test_openings=len(results.test_openings),
        warnings=folder.data.warnings,
        seconds_training=results.seconds_training,
        seconds_total=results.seconds_total,
    )


def short(scores: Scores | None) -> ScoreSummary | None:
    """Scores in short."""
    if scores is None:
        return None
    return ScoreSummary(
        accuracy=scores.accuracy,
        interval=(scores.accuracy_interval.low, scores.accuracy_interval.high),
        images=scores.images,
        errors=scores.errors,
        log_loss=scores.log_loss,
    )
