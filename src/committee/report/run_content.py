"""What the report of a run is made of: the folder's records, read once, and the figures drawn from them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Self

from matplotlib.figure import Figure

from committee.config.recipe import Recipe
from committee.ensemble.not_sure import calibration
from committee.folders.records import Environment, EpochRecord, RunData
from committee.folders.run_folder import RunFolder
from committee.metrics.conformal import answered_accuracy
from committee.metrics.results import MemberResult, Results, Scores, SizePoint
from committee.report import image_plots, plots, tables
from committee.report.page import Plot
from committee.report.page_images import ImageUris, Pictures
from committee.training.optim import lr_curves

FEWEST_IN_MATRIX = 4
"""Members from which on a matrix of their agreement says more than a sentence."""


@dataclass(frozen=True)
class Run:
    """A run as its report needs it.

    Attributes:
        histories: for each of `results.members` its epochs.
        pictures: what `pictures.npz` holds.
        plots: the figures inside the page by name; those without anything to show are missing.
        uris: the images inside the page.
        contents: the digest of what the folder holds; "" where it is not known.
        calibration: probabilities and labels of the out-of-fold images, `not_sure.calibration`; None without any.
        test: the same of the test images; None while they are sealed.
    """

    results: Results
    recipe: Recipe
    data: RunData
    environment: Environment
    seed: int
    command: str
    histories: tuple[tuple[EpochRecord, ...], ...]
    pictures: Pictures
    plots: dict[str, Plot] = field(default_factory=dict)
    uris: ImageUris = field(default_factory=lambda: ImageUris((), (), {}))
    contents: str = ""
    calibration: tables.Predicted | None = None
    test: tables.Predicted | None = None

    @classmethod
    def read(cls, folder: RunFolder, contents: str = "") -> Self:
        """The records of a run's folder; figures and images are still missing."""
        results = folder.results
        return cls(
            results=results,
            recipe=folder.recipe,
            data=folder.data,
            environment=folder.environment,
            seed=folder.identity.seed,
            command=folder.command,
            histories=tuple(folder.member(row.member).history for row in results.members),
            pictures=folder.pictures,
            contents=contents,
            calibration=calibration(folder) if results.out_of_fold and folder.has_out_of_fold else None,
            test=None if folder.is_sealed else (folder.test_probabilities, folder.test_labels),
        )

    @property
    def headline(self) -> tuple[str, Scores] | None:
        """The scores that the headline shows and the images that they are on; see `tables.headline_scores`."""
        return tables.headline_scores(self.results)

    @property
    def finished(self) -> tuple[MemberResult, ...]:
        """The members of the committee."""
        return tuple(member for member in self.results.members if member.status == "finished")

    @property
    def failed(self) -> tuple[MemberResult, ...]:
        """The members that failed."""
        return tuple(member for member in self.results.members if member.status == "failed")

    @property
    def member_accuracies(self) -> list[float]:
        """The members' accuracies on test images or, while they are sealed, on their validation images."""
        return [score.accuracy for member in self.finished if (score := member.test or member.validation)]


def page_figures(run: Run) -> dict[str, Figure]:
    """The figures inside the page, by name."""
    return {
        **learning_figures(run.results, run.histories),
        **learning_rate_figure(run),
        **size_figures(run.results),
        **(score_figures(run, *run.headline) if run.headline else {}),
        **agreement_figure(run.results),
        **answered_figure(run),
    }


def answered_figure(run: Run) -> dict[str, Figure]:
    """Accuracy against the share of images that are answered, the most certain ones."""
    parts = {"test": run.test, "out of fold": run.calibration}
    curves = {name: answered_accuracy(*part) for name, part in parts.items() if part is not None and len(part[1])}
    drawn = {name: curve for name, curve in curves.items() if len(curve) > 1}
    return {"answered": plots.answered(drawn)} if drawn else {}


def learning_figures(results: Results, histories: Sequence[Sequence[EpochRecord]]) -> dict[str, Figure]:
    """Losses and validation accuracies against epochs."""
    found: dict[str, Figure] = {}
    best = [member.best_epoch if member.status == "finished" else None for member in results.members]
    if any(histories):
        found["learning_loss"] = plots.loss_curves(histories, best)
    if any(epoch.validation_accuracy is not None for history in histories for epoch in history):
        out_of_fold = results.out_of_fold.accuracy if results.out_of_fold else None
        found["learning_accuracy"] = plots.accuracy_curves(histories, best, out_of_fold, validation_images(results))
    return found


def validation_images(results: Results) -> int:
    """The most images that a validation or out-of-fold accuracy rests on."""
    images = [member.validation.images for member in results.members if member.validation]
    return max([*images, results.out_of_fold.images if results.out_of_fold else 0]) or 5_000


def learning_rate_figure(run: Run) -> dict[str, Figure]:
    """The learning rate against epochs, where it changes."""
    histories = {f"member {row.member}": each for row, each in zip(run.results.members, run.histories, strict=True)}
    curves = lr_curves(run.recipe, histories)
    changes = any(len({lr for _, lr in curve}) > 1 for curve in curves.values())
    return {"learning_rate": plots.learning_rates(curves)} if changes else {}


def size_figures(results: Results) -> dict[str, Figure]:
    """Accuracy and log-loss by the size of the committee."""
    curves = size_curves(results)
    return {"size_accuracy": plots.size_accuracy(curves), "size_loss": plots.size_loss(curves)} if curves else {}


def size_curves(results: Results) -> dict[str, tuple[SizePoint, ...]]:
    """The curves by size of the committee that are shown: those of at least two sizes."""
    parts = {"test": results.size_curve_test, "out of fold": results.size_curve_out_of_fold}
    return {name: points for name, points in parts.items() if len(points) > 1}


def score_figures(run: Run, part: str, scores: Scores) -> dict[str, Figure]:
    """What the headline's scores look like: members and committee, errors, classes, calibration."""
    title = "Accuracy on the test images" if part == "test" else "Accuracy on training images, out of fold"
    names = run.data.class_names
    return {
        "headline": plots.member_accuracies(run.member_accuracies, scores.accuracy, scores.accuracy_interval, title),
        "confusion": plots.confusion(scores.confusion, names),
        "confused_pairs": plots.pairs(tables.confused_pairs(scores, names)),
        "classes": plots.classes(scores.classes),
        "reliability": plots.reliability(tables.reliability_rows(scores)),
    }


def agreement_figure(results: Results) -> dict[str, Figure]:
    """How often two members differ, where there are enough members."""
    if not results.agreement or len(results.agreement.matrix) < FEWEST_IN_MATRIX:
        return {}
    return {"agreement": plots.agreement(results.agreement.matrix, tables.agreement_labels(results))}


def image_figures(run: Run) -> dict[str, Figure]:
    """The figures of images, which the page shows in a form of its own."""
    found: dict[str, Figure] = {}
    names, pictures = run.data.class_names, run.pictures
    if "samples" in pictures and "class_means" in pictures:
        found["samples"] = image_plots.samples_and_means(pictures["samples"], pictures["class_means"], names)
        found["class_means"] = image_plots.class_means(pictures["class_means"], names)
    for gallery in run.results.galleries:
        if gallery.pictures:
            found[f"{gallery.part}_{gallery.name}"] = image_plots.gallery(gallery, pictures[gallery.part], names)
    return found
