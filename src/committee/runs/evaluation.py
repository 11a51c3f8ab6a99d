"""From trained members to results and report: what a run's probabilities say about it.

Reads the members' files, judges them out of fold, opens the test images if asked to, and writes committee.json,
results.json, pictures, tables, figures, report.html and, last, the manifest. Nothing is trained here, and nothing that
the test images show flows back into the committee.
"""

from __future__ import annotations

import csv
import io
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from committee.config import recipe_parsing as recipes
from committee.rng import numpy_generator
from committee.data.dataset import ImageDataset, LabelledImages, Labels, open_test
from committee.data.summary import sample_pictures
from committee.ensemble.calibrate import extrapolate, temperatures_by_size
from committee.ensemble.combine import combine, out_of_fold
from committee.ensemble.committee import Committee, load_network
from committee.ensemble.select import fit_weights, size_curve
from committee.errors import RunError, TrainingError
from committee.metrics.scores import expected_calibration_error, judge, log_loss
from committee.metrics.error_analysis import agreement, galleries
from committee.metrics.results import (
    Calibration,
    Gallery,
    MemberRow,
    PartScore,
    Results,
    SizeTemperature,
    TestOpening,
)
from committee.config.recipe import Recipe
from committee.report import run_page
from committee.folders import files as store
from committee.training.jobs import part_score
from committee.training.optim import rate_lines


@dataclass(frozen=True)
class Evidence:
    """What the members say about one part of the images.

    Attributes:
        part: "train" (out of fold) or "test".
        images: the part's.
        members: (member, image, class), rows of NaN where a member trained on the image.
        committee: (image, class), rows of NaN where no member may judge.
    """

    part: str
    images: LabelledImages
    members: NDArray[np.float32]
    committee: NDArray[np.float64]

    @property
    def labels(self) -> Labels:
        """(image,)."""
        return self.images.labels

    @property
    def judged(self) -> NDArray[np.int64]:
        """Positions of the images that at least one member may judge."""
        return np.flatnonzero(~np.isnan(self.committee[:, 0]))


def conclude(
    run: Path, dataset: ImageDataset, *, open_for: str | None, seconds_training: float, command: str
) -> Results:
    """Judge the members of a run and write everything that follows from them.

    Args:
        run: the run folder, its members trained.
        dataset: what it was trained on.
        open_for: why the test images are opened, for the record; None keeps them sealed.
        seconds_training: wall time of the training.
        command: how the run was started.

    Raises:
        TrainingError: no member finished.
    """
    began = time.monotonic()
    recipe = recipes.load(str(run / "recipe.toml"))
    facts, used, trained, honest = trained_members(run, recipe.committee.members)
    committee = form_committee(run, recipe, dataset, used, honest)
    evidence = [Evidence("train", dataset.train, honest, committee.combine(honest))]
    store.write_array(run / "out_of_fold_probabilities.npy", evidence[0].committee)
    if open_for is not None:
        evidence.append(test_evidence(run, dataset, committee, used, open_for))
    results = Results(
        **judgements(run, evidence, committee, dataset.class_names, numpy_generator("size curve", len(used))),
        members=tuple(member_row(fact, evidence, used) for fact in facts),
        committee_train=judge(committee.answer(trained), dataset.train.labels, dataset.class_names),
        out_of_fold_remark=out_of_fold_remark(recipe, evidence[0]),
        galleries=write_pictures(run, dataset, evidence),
        left_out=recipe.committee.members - len(facts),
        test_openings=test_openings(run),
        seconds_training=round(seconds_training, 3),
        seconds_total=round(seconds_training + time.monotonic() - began, 3),
    )
    store.write_json(run / "results.json", results.model_dump(mode="json"))
    store.write_text(run / "command.txt", command + "\n")
    for part in evidence:
        write_misclassified(run, part, dataset.class_names)
    write_report(run)
    return results


def trained_members(
    run: Path, members: int
) -> tuple[list[dict[str, Any]], list[int], NDArray[np.float32], NDArray[np.float32]]:
    """What the members of a run left: each member.json, and of those that finished their numbers and probabilities.

    Returns:
        The facts of all members but those that a budget's end left out; the finished ones' numbers; their probabilities
        of the training images (member, image, class); and the same out of fold, with rows of NaN where a member trained
        on the image.

    Raises:
        TrainingError: no member finished.
    """
    facts = [store.read_json(store.member_file(run, member)) for member in range(members)]
    facts = [fact for fact in facts if fact["status"] != "late"]
    used = [fact["member"] for fact in facts if fact["status"] == "finished"]
    if not used:
        raise TrainingError(
            f"no member could be trained: {facts[0]['remark']}; change the recipe and give another --out"
        )
    folders = [store.member_folder(run, member) for member in used]
    trained = np.stack([store.read_array(folder / "train_probabilities.npy") for folder in folders])
    return facts, used, trained, out_of_fold(trained, [store.read_array(folder / "held_out.npy") for folder in folders])


def form_committee(
    run: Path, recipe: Recipe, dataset: ImageDataset, used: Sequence[int], honest: NDArray[np.float32]
) -> Committee:
    """The committee of the members that finished: weights and temperature from their out-of-fold probabilities."""
    labels = dataset.train.labels
    combination = recipe.committee.combination
    weights = fit_weights(honest, labels) if combination == "weighted" else None
    by_size: tuple[SizeTemperature, ...] = ()
    if recipe.committee.calibration == "temperature":
        together = partial(combine, how=combination, weights=weights)
        by_size = temperatures_by_size(honest, labels, together, numpy_generator("temperature", len(used)))
    temperature = extrapolate(by_size, len(used)) if by_size else None
    store.write_json(
        run / "committee.json",
        {
            "members": list(used),
            "combination": combination,
            "weights": None if weights is None else [float(weight) for weight in weights],
            "temperature": temperature,
            "temperature_by_size": [point.model_dump() for point in by_size],
        },
    )
    height, width, channels = dataset.image_shape
    identity = store.read_json(run / "identity.json")
    shape, classes, device = (channels, height, width), len(dataset.class_names), identity["device"]
    return Committee(
        networks=tuple(load_network(run, member, recipe, shape, classes, device) for member in used),
        class_names=dataset.class_names,
        image_shape=dataset.image_shape,
        pixel_range=dataset.pixel_range,
        combination=combination,
        weights=weights,
        temperature=temperature or 1.0,
        device=device,
        precision=identity["precision"],
        tta=recipe.committee.tta,
    )


def test_evidence(
    run: Path, dataset: ImageDataset, committee: Committee, used: Sequence[int], open_for: str
) -> Evidence:
    """Open the test images, let every member judge them, and store what it said."""
    images = open_test(dataset, run / "test_record.jsonl", open_for, members=len(used))
    members = committee.member_probabilities(images.pixels)
    for member, probabilities in zip(used, members, strict=True):
        store.write_array(store.member_folder(run, member) / "test_probabilities.npy", probabilities)
    combined = committee.answer(members)
    store.write_array(run / "test_labels.npy", images.labels)
    store.write_array(run / "test_probabilities.npy", combined)
    return Evidence("test", images, members, combined)


def judgements(
    run: Path, evidence: Sequence[Evidence], committee: Committee, class_names: Sequence[str], rng: np.random.Generator
) -> dict[str, Any]:
    """The fields of Results that come from probabilities and labels."""
    own, test = evidence[0], evidence[1] if len(evidence) > 1 else None
    judged = own.judged
    asked = ~np.isnan(own.members[:, judged, 0])
    return {
        "out_of_fold": judge(own.committee[judged], own.labels[judged], class_names) if len(judged) else None,
        "out_of_fold_members": float(asked.sum(axis=0).mean()) if len(judged) else None,
        "test": judge(test.committee, test.labels, class_names) if test else None,
        "calibration": calibration_of(run, test, committee),
        "sizes_out_of_fold": size_curve(own.members, own.labels, committee.combine, rng),
        "sizes_test": size_curve(test.members, test.labels, committee.answer, rng) if test else (),
        "agreement": agreement((test or own).members, on=(test or own).part),
    }


def calibration_of(run: Path, test: Evidence | None, committee: Committee) -> Calibration | None:
    """Where the temperature comes from, and what it changes on the test images once they are opened."""
    facts = store.read_json(run / "committee.json")
    if facts["temperature"] is None:
        return None

    def before_after(measure: Callable[[NDArray[np.float64], Labels], float]) -> tuple[float, float] | None:
        if test is None:
            return None
        return measure(committee.combine(test.members), test.labels), measure(test.committee, test.labels)

    return Calibration(
        temperature=committee.temperature,
        by_size=facts["temperature_by_size"],
        test_log_loss=before_after(log_loss),
        test_calibration_error=before_after(expected_calibration_error),
    )


def member_row(fact: dict[str, Any], evidence: Sequence[Evidence], used: Sequence[int]) -> MemberRow:
    """A member's row of the training summary, from its member.json and, once opened, the test images."""
    if fact["status"] != "finished":
        nothing = {"epochs": 0, "kept_epoch": 0, "seconds": 0.0, "train": None, "held_out": None, "test": None}
        return MemberRow(**fact, **nothing)
    names = ("member", "status", "remark", "epochs", "kept_epoch", "seconds", "train", "held_out")
    test = evidence[1] if len(evidence) > 1 else None
    score = part_score(test.members[used.index(fact["member"])], test.labels) if test else None
    return MemberRow(**{name: fact[name] for name in names}, test=PartScore(**score) if score else None)


def out_of_fold_remark(recipe: Recipe, own: Evidence) -> str:
    """What the out-of-fold figures rest on, in words."""
    judged, images = len(own.judged), len(own.labels)
    if not judged:
        return "no images were held out, so nothing can be judged without the test images"
    remarks = [f"each of {judged:,} training images is judged only by members that did not train on it"]
    if judged < images:
        remarks.append(f"{images - judged:,} images were never held out and are left out")
    if recipe.training.checkpoint != "last" or recipe.training.patience or recipe.schedule.name == "plateau":
        remarks.append(
            "the members' epochs or rates were chosen on the same held-out images, so the figures flatter slightly"
        )
    return "; ".join(remarks)


def write_pictures(run: Path, dataset: ImageDataset, evidence: Sequence[Evidence]) -> tuple[Gallery, ...]:
    """pictures.npz: the images that the report shows; returns the galleries that name them."""
    samples, means = sample_pictures(dataset)
    pictures: dict[str, NDArray[Any]] = {"samples": samples, "class_means": means}
    shown: list[Gallery] = []
    for part in reversed(evidence):
        if len(part.judged):
            seen = galleries(part.committee, part.members, part.labels, part=part.part, names=part.images.names)
            shown += seen.galleries
            pictures[part.part] = part.images.pixels[np.asarray(seen.positions, dtype=np.int64)]
    store.write_arrays(run / "pictures.npz", pictures)
    return tuple(shown)


def write_misclassified(run: Path, evidence: Evidence, class_names: Sequence[str]) -> None:
    """tables/misclassified_PART.csv: every wrong answer, the surest first, and the image's file."""
    judged = evidence.judged
    choices = evidence.committee[judged].argmax(axis=1)
    wrong = np.flatnonzero(choices != evidence.labels[judged])
    surest_first = wrong[np.argsort(-evidence.committee[judged[wrong]].max(axis=1), kind="stable")]
    names = evidence.images.names
    columns = ("image", "true", "predicted", "probability_true", "probability_predicted", "file")
    file = io.StringIO()
    writer = csv.writer(file, lineterminator="\n")
    writer.writerow(columns)
    for position, choice in zip(judged[surest_first], choices[surest_first], strict=True):
        own, label = evidence.committee[position], evidence.labels[position]
        row = [position, class_names[label], class_names[choice], f"{own[label]:.6f}", f"{own[choice]:.6f}"]
        writer.writerow([*row, names[position] if names else ""])
    store.write_text(run / "tables" / f"misclassified_{evidence.part}.csv", file.getvalue())


def test_openings(run: Path) -> tuple[TestOpening, ...]:
    """The lines of the run's test record."""
    path = run / "test_record.jsonl"
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return tuple(TestOpening.model_validate_json(line) for line in lines)


def read_results(run: Path) -> Results:
    """The figures of a finished run.

    Raises:
        RunError: the folder is missing, unfinished or damaged, or another version wrote it.
    """
    store.read_manifest(run)
    return stored_results(run)


def stored_results(run: Path) -> Results:
    """results.json, whether or not the manifest is written yet.

    Raises:
        RunError: it is missing, or another version wrote it.
    """
    try:
        return Results.model_validate(store.read_json(run / "results.json"))
    except ValidationError as error:
        raise RunError(
            f"{run / 'results.json'} was written by another version of committee; judge the run anew with committee "
            "evaluate, or train again"
        ) from error


def write_report(run: Path) -> Path:
    """Tables, figures and report.html from the files of the run folder alone, then the manifest.

    Raises:
        RunError: a file of the run is missing or damaged.
    """
    results = stored_results(run)
    data, identity = store.read_json(run / "data.json"), store.read_json(run / "identity.json")
    environment = store.read_json(run / "environment.json")
    recipe = recipes.load(str(run / "recipe.toml"))
    command = (run / "command.txt").read_text(encoding="utf-8").strip()
    members = recipe.committee.members - results.left_out
    whole = f"a committee of {members}" if members > 1 else "one network"
    histories = [store.read_history(store.member_folder(run, row.member)) for row in results.members]
    page = run_page.write_report(
        run,
        results=results,
        facts={
            "title": f"{data['name']}: {whole} by the recipe {recipe.name}",
            "dataset": data,
            "recipe": recipe.model_dump(mode="json", exclude_none=True),
            "recipe_toml": recipe.to_toml(),
            "recipe_digest": recipe.digest(),
            "environment": environment,
            "seed": identity["seed"],
            "command": command,
            "version": environment["committee"],
            "rate_reductions": rate_reductions(histories),
        },
        class_names=data["class_names"],
        histories=histories,
        pictures=store.read_arrays(run / "pictures.npz"),
        rates=rate_lines(
            recipe, {f"member {row.member}": h for row, h in zip(results.members, histories, strict=True)}
        ),
    )
    store.write_manifest(run, summary(results, data, identity, recipe))
    return page


def rate_reductions(histories: Sequence[Sequence[dict[str, Any]]]) -> list[tuple[int, str]]:
    """For each member whose rate plateaus have reduced, the epochs and the rates in words."""
    found = []
    for member, history in enumerate(histories):
        lines = [line for line in history if "rate_reduced_to" in line]
        words = [f"to {line['rate_reduced_to']:.3g} after epoch {line['epoch']}" for line in lines]
        found += [(member, ", ".join(words))] if words else []
    return found


def summary(results: Results, data: dict[str, Any], identity: dict[str, Any], recipe: Recipe) -> dict[str, Any]:
    """The run in short, as the manifest and `--json` give it."""

    def short(judgement: Any) -> dict[str, Any] | None:
        if judgement is None:
            return None
        interval = [judgement.accuracy_interval.low, judgement.accuracy_interval.high]
        return {
            "accuracy": judgement.accuracy,
            "interval": interval,
            "images": judgement.images,
            "errors": judgement.errors,
            "log_loss": judgement.log_loss,
        }

    return {
        "data": data["name"],
        "recipe": recipe.name,
        "recipe_digest": recipe.digest(),
        "seed": identity["seed"],
        "members": sum(row.status == "finished" for row in results.members),
        "failed_members": [row.member for row in results.members if row.status != "finished"],
        "left_out": results.left_out,
        "test": short(results.test),
        "out_of_fold": short(results.out_of_fold),
        "test_openings": len(results.test_openings),
        "warnings": data.get("warnings", []),
        "seconds_training": results.seconds_training,
        "seconds_total": results.seconds_total,
    }
