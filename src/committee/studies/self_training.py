"""Rounds of pseudo-labels for any data: train, label what is sure, audit, train again; each round is a run."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from committee.config.recipe import Recipe
from committee.data.dataset import ImageDataset, LabelledImages, Pixels, open_test
from committee.data.splits import stratified_part
from committee.ensemble.committee import load
from committee.errors import DataError, RunError
from committee.folders import files as store
from committee.rng import numpy_generator
from committee.runs import run as runs
from committee.runs.comparison import compare_runs
from committee.studies.pseudo_labels import accepted, audit
from committee.studies.pseudo_labels import labelled as pseudo_labelled
from committee.training.jobs import Event

TRANSDUCTIVE = (
    "TRANSDUCTIVE: pseudo-labels were given to the test images, so this committee has seen them without labels"
)


@dataclass(frozen=True)
class Source:
    """Where the images without labels come from; exactly one of the three.

    Attributes:
        unlabelled: (image, height, width, channel) in the data set's form; names: one for each of them.
        held_back: the share of the training images whose labels are hidden.
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


def train(
    dataset: ImageDataset,
    recipe: Recipe,
    out: Path,
    setting: runs.Setting,
    source: Source,
    *,
    keep_sealed: bool = False,
    watch: Callable[[int], AbstractContextManager[Callable[[Event], None]]],
) -> dict[str, Any]:
    """Train round 0 on labelled images alone, then as many rounds with pseudo-labels as the recipe says.

    The same call again goes on where it stopped. The test images are opened after the last round, for all rounds.

    Args:
        dataset: labelled images.
        recipe: what to train; its section pseudo_labels says what is accepted.
        out: gets `round-0/`, `round-1/`, ... (runs), `accepted-after-round-N.csv`, `rounds.json`.
        setting: seed, device, precision, workers.
        source: the images without labels.
        keep_sealed: leave the test images sealed and compare the rounds out of fold.
        watch: gives a watcher of the events of a round.

    Returns:
        ``rounds`` (round, folder, test, out_of_fold, audit, stopped), ``verdict`` (the last against the first, in
        words), ``warnings``.

    Raises:
        DataError: the source is not one, or a part would be empty.
        RunError: a folder holds another training, or the test images are to be labelled and stay sealed.
    """
    if keep_sealed and source.transductive:
        raise RunError("the test images cannot be labelled and stay sealed; leave --keep-sealed out")
    source, settings = source.checked(), recipe.pseudo_labels
    labelled, audited, unlabelled = parts(dataset, recipe, out, setting.seed, source)
    pseudo: LabelledImages | None = None
    told: list[dict[str, Any]] = []
    for number in range(settings.rounds + 1):
        folder = out / f"round-{number}"
        noted = labelled
        if pseudo is not None:
            note = f"{len(pseudo):,} pseudo-labelled images make up {settings.batch_fraction:.0%} of every batch; "
            note += str(told[-1]["audit"])
            noted = replace(labelled, notes=(*labelled.notes, note), warnings=(TRANSDUCTIVE,) * source.transductive)
        with watch(number) as watcher:
            runs.train(noted, recipe, folder, setting, keep_sealed=True, pseudo=pseudo, on_event=watcher)
        told.append({"round": number, "folder": folder.name, "audit": None, "stopped": ""})
        if number == settings.rounds:
            break
        committee = load(folder, device=setting.device)
        given, known = (  # without temperature, which sharpens without bounds where few images fitted it
            committee.combine(committee.member_probabilities(pixels)) for pixels in (unlabelled, audited.pixels)
        )
        found = audit(given, known, audited.labels, settings)
        told[-1] |= {"audit": found.in_words(), "stopped": found.why_stopped(settings.min_precision)}
        if told[-1]["stopped"]:
            break
        chosen = accepted(given, settings)
        write_accepted(out / f"accepted-after-round-{number}.csv", chosen, given, source.names, dataset.class_names)
        pseudo = pseudo_labelled(unlabelled, given, chosen)
    for each in told:
        folder = out / each["folder"]
        if not keep_sealed and not store.read_manifest(folder)["test_openings"]:
            runs.evaluate(folder, labelled)
        each |= {part: store.read_manifest(folder)[part] for part in ("test", "out_of_fold")}
    verdict = ""
    on = "test" if all(each["test"] for each in told) else "out-of-fold"
    if len(told) > 1 and all(each[on.replace("-", "_")] for each in told):
        compared = compare_runs(out / "round-0", out / told[-1]["folder"], on)
        verdict = f"A is the first round, B the last. {compared.verdict}"
    warnings = [TRANSDUCTIVE] if source.transductive and len(told) > 1 else []
    result = {"rounds": told, "verdict": verdict, "warnings": warnings}
    store.write_json(out / "rounds.json", result)
    return result


def write_accepted(
    path: Path, chosen: Any, given: Any, names: Sequence[str] | None, class_names: Sequence[str]
) -> None:
    """A table of the accepted images: name (or position among the unlabelled ones), label, probability."""
    lines = ["image,label,probability"]
    for position in chosen:
        label = int(given[position].argmax())
        name, text = (names[position] if names else str(position)), class_names[label]
        quoted = ('"' + each.replace('"', '""') + '"' for each in (name, text))
        lines.append(f"{','.join(quoted)},{given[position, label]:.6f}")
    store.write_text(path, "\n".join(lines) + "\n")


def parts(
    dataset: ImageDataset, recipe: Recipe, out: Path, seed: int, source: Source
) -> tuple[ImageDataset, LabelledImages, Pixels]:
    """The labelled images to train on, the audit images, and the unlabelled ones.

    Raises:
        RunError: the folder exists and is none of these rounds.
        DataError: too few images remain.
    """
    if out.exists() and any(out.iterdir()) and not (out / "round-0").exists():
        raise RunError(f"{out} exists and holds no rounds of pseudo-labels; give another --out")
    labels = dataset.train.labels
    aside = stratified_part(labels, recipe.pseudo_labels.audit_fraction, numpy_generator(seed, "audit"))
    rest = np.setdiff1d(np.arange(len(labels)), aside)
    hidden = np.empty(0, dtype=np.int64)
    if source.held_back is not None:
        hidden = rest[stratified_part(labels[rest], source.held_back, numpy_generator(seed, "held back"))]
        rest = np.setdiff1d(rest, hidden)
    if not len(aside) or not len(rest):
        raise DataError(
            f"{len(labels):,} training images are too few for an audit on {recipe.pseudo_labels.audit_fraction:.0%} of "
            "them; add images, or change pseudo_labels.audit_fraction"
        )
    note = f"{len(aside):,} training images were set aside to audit pseudo-labels"
    note += f", and the labels of {len(hidden):,} hidden" if len(hidden) else ""
    labelled = replace(dataset, train=dataset.train.part(rest), notes=(*dataset.notes, note))
    if source.transductive:
        out.mkdir(parents=True, exist_ok=True)
        purpose = "transductive pseudo-labels, without labels"
        unlabelled = open_test(dataset, out / "test_record.jsonl", purpose).pixels
    elif source.unlabelled is not None:
        unlabelled = source.unlabelled
    else:
        unlabelled = dataset.train.part(hidden).pixels
    return labelled, dataset.train.part(aside), unlabelled
