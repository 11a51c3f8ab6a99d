"""A finished run and its data set -> suspected label errors, their table and page; decisions -> corrected labels.

Nothing is trained, and the test images stay sealed: each training image is judged by the members that did not train on
it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.config.record import Record
from committee.data.corrected_labels import (
    CorrectedLabels,
    corrected_text,
    decided,
    is_corrected,
    pixel_digests,
    read_corrected,
)
from committee.data.dataset import ImageDataset, LabelledImages, Labels
from committee.ensemble.member_predictions import MemberPredictions
from committee.errors import DataError, MissingExtraError, RunError, counted, require
from committee.folders.audit_folder import AuditFolder
from committee.folders.run_folder import RunFolder
from committee.metrics.label_errors import LabelErrors, find_label_errors, votes
from committee.report.audit_page import AuditPage, Neighbours, Suggestion, audit_page

COLUMNS = (
    *("rank", "image", "file", "given", "suggested", "suspected", "score", "probability_wrong"),
    *("probability_given", "probability_suggested", "votes_given", "votes_suggested", "members", "cleanlab_rank"),
    "pixels",
)
FEWEST, TIMES, SHARE = 100, 2, 0.04
"""The table has twice as many images as are suspected, at least 4 % of those judged, and at least a hundred."""

MOST_SHOWN = 2_000
"""Images on a page."""

NEIGHBOURS = 4
"""Images of a class that are shown beside each suspect."""

_SIDE = 32


class Audit(Record):
    """What an audit found.

    Attributes:
        run, data: the run's folder and its data set's name.
        train_digest: of the training images with the labels that were audited.
        images: training images; `judged` of them by a member that did not train on them.
        suspected: labels that are more probably wrong than right.
        expected: how many are wrong in all, by the sum of the probabilities.
        listed: rows of the table; `shown` of them are on the page.
        temperature: of the committee's probabilities, fitted together with `transitions`.
        transitions: (class, class): row k has the probabilities of labels of images whose true class is k.
        cleanlab: the version of cleanlab whose ranks the table has; None where it is not installed.
        notes: remarks for people.
    """

    run: str
    data: str
    class_names: tuple[str, ...]
    train_digest: str
    images: int
    judged: int
    suspected: int
    expected: float
    listed: int
    shown: int
    temperature: float
    transitions: tuple[tuple[float, ...], ...]
    cleanlab: str | None
    notes: tuple[str, ...]


def audit(run: str | Path, dataset: ImageDataset, out: str | Path | None = None) -> tuple[Audit, AuditFolder]:
    """Rank the training images by how probably their label is wrong, and write what was found.

    Args:
        run: a finished run, or a bundle of one; nothing is written into it.
        dataset: what it was trained on.
        out: a folder; None for one beside the run's.

    Raises:
        RunError: no finished run, or one that was trained on other images, or without held-out images.
        DataError: the folder holds something else.
    """
    source = RunFolder.finished(run)
    _check_same(source, dataset)
    path = Path(run)
    folder = AuditFolder(out or path.with_name(f"{path.resolve().name.removesuffix('.committee')}-audit"))
    probabilities, labels = source.out_of_fold_probabilities, source.train_labels
    errors = find_label_errors(probabilities, labels)
    ranking = errors.ranking
    ranks, version, notes = _cleanlab(probabilities, labels)
    if (left := len(labels) - len(ranking)) > 0:
        notes.append(
            f"{counted(left, 'training image')} cannot be judged, since every member trained on them; train with folds "
            "(--set holdout.kind=folds --set holdout.folds=5, five members) to judge all"
        )
    listed = ranking[: max(FEWEST, TIMES * errors.suspected, round(SHARE * len(ranking)))]
    shown = listed[:MOST_SHOWN]
    if len(shown) < len(listed):
        notes.append(
            f"the page shows the first {len(shown):,} of {len(listed):,} images; train again with what was corrected, "
            "and audit that run"
        )
    members = [source.member(number) for number in source.committee.members]
    suggestions = list(
        _suggestions(errors, MemberPredictions.for_training_images(members), dataset, probabilities, listed)
    )
    record = Audit(
        run=str(run),
        data=dataset.name,
        class_names=dataset.class_names,
        train_digest=source.identity.train_images,
        images=len(labels),
        judged=len(ranking),
        suspected=errors.suspected,
        expected=round(float(np.nansum(errors.wrong)), 1),
        listed=len(listed),
        shown=len(shown),
        temperature=errors.temperature,
        transitions=tuple(tuple(map(float, row)) for row in errors.transitions.round(6)),
        cleanlab=version,
        notes=tuple(notes),
    )
    folder.begin()
    folder.write_table(*_table(suggestions, dataset, ranks))
    folder.write_record(record)
    page: AuditPage = audit_page(
        record.run,
        dataset,
        suggestions[: len(shown)],
        neighbours(dataset.train, shown, errors.suggested[shown], avoid=ranking[: errors.suspected]),
        digest=record.train_digest,
        summary=(record.images, record.judged, record.suspected),
        notes=record.notes,
    )
    folder.write_page(page.render())
    return record, folder


def apply_decisions(
    run: str | Path, dataset: ImageDataset, decisions: Path, original: ImageDataset, labels: Path | None, out: Path
) -> tuple[int, int]:
    """Write a table of corrected labels; the data set's own files stay as they are.

    Args:
        run: the run that was audited.
        dataset: what it was trained on.
        decisions: what somebody decided; see `committee.data.corrected_labels`.
        original: the data set as it is in its files: another one where the run was trained with corrected labels.
        labels: the table of labels that the run was trained with; None for the data set's own.
        out: the table to write; it may take the place of an earlier one, and of nothing else.

    Returns:
        How many labels differ from the data set's own, and how many of its images are left out.

    Raises:
        DataError: the decisions belong to other images or labels, or `out` is another file.
        RunError: the run was trained on other images.
    """
    _check_same(RunFolder.finished(run), dataset)
    if out.exists() and (not out.is_file() or not is_corrected(out)):
        raise DataError(
            f"{out}: a new file is expected, and it is another one than corrected labels; give another --out"
        )
    now = decided(dataset, decisions)
    before = read_corrected(original, labels) if labels else None
    positions = now.positions if before is None else before.positions[now.positions]
    corrected = CorrectedLabels(positions, now.labels)
    disk.make_folder(out.parent)
    disk.write(out, corrected_text(corrected, original).encode())
    changed = int((original.train.labels[positions] != now.labels).sum())
    return changed, len(original.train) - len(positions)


def neighbours(images: LabelledImages, shown: Labels, suggested: Labels, avoid: Labels) -> Neighbours:
    """The training images of the given and of the suggested class that look most like each of some images.

    By the squared distance of their pixels, at most 32 to a side; images whose labels are suspected are no examples.

    Args:
        images: the training images.
        shown: (image,), positions of the images to be compared.
        suggested: (image,), a class for each of them.
        avoid: positions of the images whose labels are suspected.

    Returns:
        (image, 2, `NEIGHBOURS`): positions, of the given class first; -1 where there are no more.
    """
    found = np.full((len(shown), 2, NEIGHBOURS), -1, np.int64)
    step = max(1, math.ceil(max(images.pixels.shape[1:3]) / _SIDE))
    trusted = np.ones(len(images), np.bool_)
    trusted[avoid] = False
    classes = np.stack([images.labels[shown], suggested], axis=1)
    for each in np.unique(classes):
        examples = np.flatnonzero(trusted & (images.labels == each))
        if not len(examples):
            continue
        looks = _rows(images, examples, step)
        squares = np.einsum("ij,ij->i", looks, looks)
        for side in (0, 1):
            rows = np.flatnonzero(classes[:, side] == each)
            distances = squares - 2 * _rows(images, shown[rows], step) @ looks.T
            distances[shown[rows][:, None] == examples] = np.inf
            nearest = np.argsort(distances, axis=1, kind="stable")[:, :NEIGHBOURS]
            far = np.isinf(np.take_along_axis(distances, nearest, axis=1))
            found[rows, side, : nearest.shape[1]] = np.where(far, -1, examples[nearest])
    return found


def _rows(images: LabelledImages, positions: Labels, step: int) -> NDArray[np.float32]:
    """Pixels as numbers from 0 to 1: (image, number)."""
    pixels = images.pixels[positions][:, ::step, ::step]
    return pixels.reshape(len(positions), math.prod(pixels.shape[1:])).astype(np.float32) / np.float32(
        np.iinfo(pixels.dtype).max
    )


def _check_same(run: RunFolder, dataset: ImageDataset) -> None:
    """Refuse a data set that is not the run's."""
    if dataset.part_digests()[0] != run.identity.train_images or not np.array_equal(
        dataset.train.labels, run.train_labels
    ):
        raise RunError(
            f"{run} was trained on other images or labels than {dataset.name} has now; give the training's data set"
        )
    if np.isnan(run.out_of_fold_probabilities[:, 0]).all():
        raise RunError(
            f"{run} has no held-out images, so that no member can judge a label; train with folds (--set "
            "holdout.kind=folds --set holdout.folds=5)"
        )


def _suggestions(
    errors: LabelErrors,
    members: MemberPredictions,
    dataset: ImageDataset,
    probabilities: NDArray[np.float64],
    listed: Labels,
) -> Iterator[Suggestion]:
    """What the table and the page say of each image, in the order of the ranking."""
    honest = members.honest[:, listed]
    given, suggested = dataset.train.labels[listed], errors.suggested[listed]
    for_given, for_suggested = votes(honest, given), votes(honest, suggested)
    digests = pixel_digests(dataset.train, listed)
    for row, image in enumerate(map(int, listed)):
        yield Suggestion(
            image=image,
            file=dataset.train.names[image] if dataset.train.names else "",
            given=int(given[row]),
            suggested=int(suggested[row]),
            suspected=row < errors.suspected,
            score=float(errors.log_odds[image]),
            wrong=float(errors.wrong[image]),
            probabilities=probabilities[image],
            votes_given=int(for_given[row]),
            votes_suggested=int(for_suggested[row]),
            members=int(members.members_per_image[image]),
            pixels=digests[row],
        )


def _table(
    suggestions: list[Suggestion], dataset: ImageDataset, ranks: Labels | None
) -> tuple[tuple[str, ...], Iterator[tuple[object, ...]]]:
    """The table of suggestions: its columns and rows."""
    columns = tuple(name for name in COLUMNS if ranks is not None or name != "cleanlab_rank")
    rows = (
        (
            *(number + 1, each.image, each.file, dataset.class_names[each.given], dataset.class_names[each.suggested]),
            *("yes" if each.suspected else "no", f"{each.score:.4f}", f"{each.wrong:.6f}"),
            *(f"{each.probabilities[label]:.6f}" for label in (each.given, each.suggested)),
            *(each.votes_given, each.votes_suggested, each.members),
            *(() if ranks is None else (int(ranks[each.image]),)),
            each.pixels,
        )
        for number, each in enumerate(suggestions)
    )
    return columns, rows


def _cleanlab(probabilities: NDArray[np.float64], labels: Labels) -> tuple[Labels | None, str | None, list[str]]:
    """Each image's rank by cleanlab's default score, from 1 (0 where it is not judged), its version, notes."""
    try:
        package = require("cleanlab", extra="audit", purpose="The column cleanlab_rank")
        rank = require("cleanlab.rank", extra="audit", purpose="The column cleanlab_rank")
    except MissingExtraError as error:
        return None, None, [f"{error}; it is left out"]
    judged = np.flatnonzero(~np.isnan(probabilities[:, 0]))
    quality = rank.get_label_quality_scores(labels[judged], probabilities[judged])
    ranks = np.zeros(len(labels), np.int64)
    ranks[judged[np.argsort(quality, kind="stable")]] = np.arange(1, len(judged) + 1)
    return ranks, str(package.__version__), []
