"""Self-training on any data: train, pseudo-label, audit, train again; each round is a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages, Pixels, open_test
from committee.data.splits import stratified_part
from committee.ensemble.committee import load
from committee.errors import DataError, RunError, TrainingError
from committee.folders.records import Audit, RoundResult, SelfTrainingResults
from committee.folders.run_folder import RunFolder
from committee.folders.study_folder import SelfTrainingFolder
from committee.nn.devices import usable
from committee.rng import numpy_generator
from committee.runs.comparison import compare_runs
from committee.runs.run import evaluate, train
from committee.studies.pseudo_labels import TeacherPredictions, self_train
from committee.training.jobs import Event
from committee.training.setting import Setting

TRANSDUCTIVE = (
    "TRANSDUCTIVE: pseudo-labels were given to the test images, so this committee has seen them, without their labels"
)


@dataclass(frozen=True)
class Source:
    """Where the images without labels come from; exactly one of the three.

    Attributes:
        unlabelled: (image, height, width, channel) in the data set's form; names: one for each of them.
        held_back: the fraction of the training images whose labels are hidden.
        transductive: the test images.
    """

    unlabelled: Pixels | None = None
    names: Sequence[str] | None = None
    held_back: float | None = None
    transductive: bool = False

    def checked(self) -> Source:
        """Itself.

        Raises:
            DataError: none of the three is given, or more than one.
        """
        given = [self.unlabelled is not None, self.held_back is not None, self.transductive]
        if sum(given) != 1:
            raise DataError("give exactly one of --unlabelled, --held-back and --transductive")
        return self


@dataclass(frozen=True)
class Parts:
    """The labelled images to train on, the audit images, and the unlabelled ones."""

    labelled: ImageDataset
    audit: LabelledImages
    unlabelled: Pixels


@dataclass
class Rounds:
    """The rounds so far, and how another is trained.

    `monitor` gives for a round what shows its events.
    """

    parts: Parts
    recipe: Recipe
    folder: SelfTrainingFolder
    setting: Setting
    source: Source
    monitor: Callable[[int], AbstractContextManager[Callable[[Event], None]]]
    results: list[RoundResult] = field(default_factory=list)

    def train(self, number: int, pseudo: LabelledImages | None) -> Callable[[], TeacherPredictions]:
        """Train a round, and return its committee as the next round's teacher."""
        labelled, run = self.parts.labelled, self.folder.round(number)
        if pseudo is not None:
            note = f"{len(pseudo):,} pseudo-labelled images make up {self.recipe.pseudo_labels.batch_fraction:.0%} of "
            note += f"every batch; {self.results[-1].audit}"
            warnings = (TRANSDUCTIVE,) * self.source.transductive
            labelled = replace(labelled, notes=(*labelled.notes, note), warnings=warnings)
        with self.monitor(number) as on_event:
            results = train(
                labelled, self.recipe, run.path, self.setting, keep_sealed=True, pseudo=pseudo, on_event=on_event
            )
        for member in results.members:
            if member.status == "died":  # without it, the teacher, and so the next round, would be another one
                raise TrainingError(
                    f"round {number} lacks member {member.member} ({member.remark}); the same command trains it and "
                    "goes on with the next round"
                )
        self.results.append(RoundResult(round=number, folder=run.path.name))
        return lambda: self.predictions(run)

    def predictions(self, run: RunFolder) -> TeacherPredictions:
        """What the committee of a round predicts, without its temperature.

        Where few images fitted it, the temperature sharpens without bounds.
        """
        committee = load(run.path, device=usable(self.setting.device))
        unlabelled, audit = (
            committee.rule.combine(committee.member_probabilities(pixels))
            for pixels in (self.parts.unlabelled, self.parts.audit.pixels)
        )
        return TeacherPredictions(unlabelled, audit)

    def keep(self, audit: Audit, chosen: NDArray[np.int64], predictions: TeacherPredictions) -> None:
        """Note an audit with the round that gave the labels, and the accepted images in a table."""
        last, names = self.results[-1], self.source.names
        self.results[-1] = last.model_copy(update={"audit": audit.sentence, "stopped": audit.stopped})
        if audit.stopped:
            return
        labels = predictions.unlabelled.argmax(axis=1)
        class_names = self.parts.labelled.class_names
        self.folder.write_accepted(
            last.round,
            (
                (
                    names[position] if names else str(position),
                    class_names[labels[position]],
                    float(predictions.unlabelled[position].max()),
                )
                for position in chosen
            ),
        )


def train_rounds(
    dataset: ImageDataset,
    recipe: Recipe,
    out: str | Path,
    setting: Setting,
    source: Source,
    *,
    keep_sealed: bool = False,
    monitor: Callable[[int], AbstractContextManager[Callable[[Event], None]]],
) -> SelfTrainingResults:
    """Train round 0 on labelled images alone, then as many rounds with pseudo-labels as the recipe says.

    The same call again goes on where it stopped. The test images are opened after the last round, for all rounds.

    Args:
        dataset: labelled images.
        recipe: what to train; its section pseudo_labels says what is accepted.
        out: the folder of all rounds: `round-0/`, `round-1/`, ... (runs), `accepted-after-round-N.csv`, `rounds.json`.
        setting: seed, device, precision, workers.
        source: the images without labels.
        keep_sealed: leave the test images sealed and compare the rounds out of fold.
        monitor: gives for a round what is called with its events.

    Raises:
        DataError: the source is not one, or a part would be empty.
        RunError: a folder holds another training, or the test images are to be labelled and stay sealed.
        TrainingError: the process of a member died; the same call goes on.
    """
    if keep_sealed and source.transductive:
        raise RunError("the test images cannot be labelled and stay sealed; leave --keep-sealed out")
    folder = SelfTrainingFolder(out)
    folder.check_free()
    with folder.locked():
        return _train_rounds(dataset, recipe, folder, setting, source, keep_sealed, monitor)


def _train_rounds(
    dataset: ImageDataset,
    recipe: Recipe,
    folder: SelfTrainingFolder,
    setting: Setting,
    source: Source,
    keep_sealed: bool,
    monitor: Callable[[int], AbstractContextManager[Callable[[Event], None]]],
) -> SelfTrainingResults:
    parts = split(dataset, recipe, folder, setting.seed, source.checked())
    rounds = Rounds(parts, recipe, folder, setting, source, monitor)
    teacher = rounds.train(0, None)
    self_train(recipe.pseudo_labels, parts.unlabelled, parts.audit.labels, teacher, rounds.train, rounds.keep)
    results = SelfTrainingResults(
        rounds=tuple(scored(each, folder, parts.labelled, keep_sealed) for each in rounds.results),
        verdict="",
        warnings=(TRANSDUCTIVE,) if source.transductive and len(rounds.results) > 1 else (),
    )
    results = results.model_copy(update={"verdict": verdict(results.rounds, folder)})
    folder.write_results(results)
    return results


def scored(result: RoundResult, folder: SelfTrainingFolder, labelled: ImageDataset, keep_sealed: bool) -> RoundResult:
    """A round with its scores; its test images are opened first, unless they stay sealed."""
    run = folder.round(result.round)
    if not keep_sealed and run.is_sealed:
        evaluate(run.path, labelled)
    return result.model_copy(update={"test": run.manifest.test, "out_of_fold": run.manifest.out_of_fold})


def verdict(rounds: Sequence[RoundResult], folder: SelfTrainingFolder) -> str:
    """The last round against the first, in words; "" where they cannot be compared."""
    on = "test" if all(each.test for each in rounds) else "out-of-fold"
    if len(rounds) < 2 or not all(each.test if on == "test" else each.out_of_fold for each in rounds):
        return ""
    compared = compare_runs(folder.round(0).path, folder.round(rounds[-1].round).path, on)
    return f"A is the first round, B the last. {compared.verdict}"


def split(dataset: ImageDataset, recipe: Recipe, folder: SelfTrainingFolder, seed: int, source: Source) -> Parts:
    """The labelled images to train on, the audit images, and the unlabelled ones.

    Raises:
        DataError: too few images remain.
    """
    train, fraction = dataset.train, recipe.pseudo_labels.audit_fraction
    labels = train.labels
    aside = stratified_part(labels, fraction, numpy_generator(seed, "audit"), train.groups)
    rest = np.setdiff1d(np.arange(len(labels)), aside)
    hidden = np.empty(0, dtype=np.int64)
    if source.held_back is not None:
        others = train.part(rest)
        hidden = rest[
            stratified_part(others.labels, source.held_back, numpy_generator(seed, "held back"), others.groups)
        ]
        rest = np.setdiff1d(rest, hidden)
    if not len(aside) or not len(rest):
        raise DataError(
            f"{len(labels):,} training images are too few for an audit on {fraction:.0%} of them; add images, or "
            "change pseudo_labels.audit_fraction"
        )
    note = f"{len(aside):,} training images were set aside to audit pseudo-labels"
    note += f", and the labels of {len(hidden):,} were hidden" if len(hidden) else ""
    labelled = replace(dataset, train=dataset.train.part(rest), notes=(*dataset.notes, note))
    if source.transductive:
        purpose = "transductive pseudo-labels, without labels"
        unlabelled = open_test(dataset, folder.test_record, purpose).pixels
    elif source.unlabelled is not None:
        unlabelled = source.unlabelled
    else:
        unlabelled = dataset.train.part(hidden).pixels
    return Parts(labelled, dataset.train.part(aside), unlabelled)
