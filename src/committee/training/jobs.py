"""A job is one member's training as a value; executing it yields events.

The contract of an executor (`committee.training.executors`): called with jobs, it generates their events. Every job
ends with exactly one `Finished`, `Failed` or `Died`. On machines of one kind, processes give the bits of this process;
a stack agrees with them within rounding. Closed early, an executor terminates what is still training. Where a file
cannot be written or read, it raises a `StorageError`: no member is at fault, and the same command goes on.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from committee import pages
from committee.config.recipe import Recipe
from committee.data.dataset import LabelledImages, Labels
from committee.errors import RunError, StorageError
from committee.folders.files import read_tensors
from committee.folders.member_folder import MemberFolder, Positions, TrainedMember
from committee.folders.records import EpochRecord, MemberRecord
from committee.metrics.results import PartScore
from committee.metrics.scores import accuracy, log_loss
from committee.nn.devices import single_threaded
from committee.nn.forward import inference_forward
from committee.nn.inference import member_probabilities
from committee.nn.views import Views
from committee.training.batches import image_weights
from committee.training.loop import fit
from committee.training.setting import CHECKPOINT_SECONDS
from committee.training.shared_images import ImageSource
from committee.training.state import NonFiniteLossError, StepProgress, Task, TrainedNetwork, TrainingState
from committee.training.teaching import Teaching

CHECKPOINT_COST = 0.01  # of the time, at most


@dataclass(frozen=True)
class Job:
    """One member's training.

    Attributes:
        images: the data set's training images, shared by all jobs.
        validation: positions of the images that the member is validated on instead of trained on.
        classes: their number.
        folder: where the member is stored, and goes on from its checkpoints; None keeps it in memory.
        start: a weights file to go on from, or None; first_epoch then says how many epochs it has behind it.
        excluded: positions of images that the member is neither trained nor validated on.
        pseudo: pseudo-labelled images, or None.
        teaching: the teacher that the member learns from, or None.
        run: a digest of what identifies the training that the member belongs to.
        model: the model that the member belongs to, where several are trained together; its events carry it.
        weights: (image,), what each training image counts in the loss, besides its class's weight; None for 1 each.
        checkpoint_seconds: how long after a checkpoint the next one is due, see `Checkpoints`.
    """

    recipe: Recipe
    member: int
    seed: int
    images: ImageSource
    validation: Positions
    classes: int
    device: str
    precision: str
    folder: MemberFolder | None = None
    start: Path | None = None
    first_epoch: int = 0
    excluded: Positions | None = None
    pseudo: ImageSource | None = None
    teaching: Teaching | None = None
    run: str = ""
    model: str = ""
    weights: NDArray[np.float64] | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS

    def task(self, labels: Labels) -> Task:
        """What the member is to learn from images with these labels (image,)."""
        unseen = self.validation if self.excluded is None else np.union1d(self.validation, self.excluded)
        train = np.setdiff1d(np.arange(len(labels)), unseen, assume_unique=True)
        return Task(
            recipe=self.recipe,
            member=self.member,
            seed=self.seed,
            train=train,
            validation=self.validation,
            classes=self.classes,
            device=self.device,
            precision=self.precision,
            first_epoch=self.first_epoch,
            start=read_tensors(self.start) if self.start else None,
            pseudo=self.pseudo.load() if self.pseudo else None,
            teaching=self.teaching,
            weights=image_weights(labels, train, self.recipe.training.class_weights, self.weights),
        )


@dataclass(frozen=True)
class EpochDone:
    """A member finished an epoch."""

    member: int
    record: EpochRecord
    model: str = ""


@dataclass(frozen=True)
class Finished:
    """A member is trained; `trained` is None where its job has a folder, which then holds it."""

    member: int
    record: MemberRecord
    trained: TrainedMember | None = None
    model: str = ""


@dataclass(frozen=True)
class Failed:
    """A member's loss, weights or probabilities are not finite: it cannot be used, and would fail again."""

    member: int
    why: str
    model: str = ""


@dataclass(frozen=True)
class Died:
    """A member's process died; its checkpoint stays, and another try may bring it to its end."""

    member: int
    why: str
    model: str = ""


@dataclass(frozen=True)
class Remark:
    """Something about a member that its user should know, in one sentence; its training goes on.

    Attributes:
        epochs: where it goes on from a checkpoint, those of this training that are behind it, with a part of the next.
    """

    member: int
    text: str
    model: str = ""
    epochs: float = 0.0


def with_member(why: str, member: int) -> str:
    """Why a member died, as a clause of its own: "its worker process" is named where the member was not."""
    return why.replace("its worker process", f"the worker process of member {member}", 1)


Event = StepProgress | EpochDone | Finished | Failed | Died | Remark
Executor = Callable[[Sequence[Job]], Generator[Event]]


class Checkpoints:
    """A member's checkpoints in the course of one training: which to go on from, when the next one is due.

    One is due so many seconds after the last one, at an epoch's end or in its middle, and never so soon that writing
    them takes more than CHECKPOINT_COST of the time. A job with `checkpoint_seconds` of 0 writes one after every step.
    """

    def __init__(self, job: Job) -> None:
        self.job, self.next = job, time.monotonic() + job.checkpoint_seconds
        self.latest: Path | None = None  # that was written, or gone on from

    def newest(self, task: Task) -> Generator[Remark, None, TrainingState | None]:
        """The state in the newest checkpoint that is whole, None where there is none; a remark on it, and on damage."""
        folder, state = self.job.folder, None
        damaged: list[str] = []
        if folder is None:
            return None
        for path in folder.checkpoints:
            try:
                state = TrainingState.from_tensors(*folder.read_checkpoint(path))
            except RunError as error:
                damaged.append(str(error).partition(";")[0])  # what to do is decided here
            except (KeyError, TypeError, ValueError, AssertionError):  # of version 0.6 or earlier, without a digest
                damaged.append(f"{path.name} does not hold what this version expects")
            else:
                self.latest = path
                break
        text, epochs = "", 0.0
        if state is not None:
            steps = task.steps(state.epoch + 1) if state.under_way else 1
            epochs = state.epoch - task.first_epoch + state.step / steps
            text = f"goes on after epoch {state.epoch}"
            if state.under_way:
                text = f"goes on from epoch {state.epoch + 1}, step {state.step} of {steps}"
        if damaged:
            place = f"{self.latest.name}, the one before" if self.latest else "the member's beginning"
            text = f"{' and '.join(damaged)}; training goes on from {place}"
        if text:
            yield Remark(self.job.member, text, self.job.model, epochs)
        return state

    def due(self) -> bool:
        """Whether it is time to write one."""
        return self.job.folder is not None and time.monotonic() >= self.next

    def write(self, state: TrainingState) -> None:
        """Write one; it and the one before it remain."""
        assert self.job.folder is not None
        began = time.monotonic()
        self.latest = self.job.folder.write_checkpoint(state.epoch, state.step, *state.to_tensors(), before=self.latest)
        ended = time.monotonic()
        every = self.job.checkpoint_seconds
        self.next = ended + (max(every, (ended - began) / CHECKPOINT_COST) if every else 0)


def execute(job: Job) -> Iterator[Event]:
    """Train one member in this process, from its checkpoint if there is one.

    Raises:
        StorageError: a file cannot be written or read.
    """
    with files_needed(job):
        yield from _execute(job)


def _execute(job: Job) -> Iterator[Event]:
    images = job.images.load()
    task = job.task(images.labels)
    checkpoints = Checkpoints(job)
    resume = yield from checkpoints.newest(task)
    with single_threaded():
        try:
            for event in fit(images.pixels, images.labels, task, resume=resume, due=checkpoints.due):
                if isinstance(event, TrainingState):
                    if event.under_way or checkpoints.due():
                        checkpoints.write(event)
                    if not event.under_way:
                        yield epoch_done(job, event)
                elif isinstance(event, TrainedNetwork):
                    yield finished(job, task, event, images)
                else:
                    yield replace(event, model=job.model)
        except NonFiniteLossError as error:
            yield failed(job, error)


@contextmanager
def files_needed(job: Job) -> Iterator[None]:
    """Say in a sentence that a file which a job needs cannot be written or read.

    Raises:
        StorageError: instead of an OSError.
    """
    try:
        yield
    except OSError as error:
        where = f" ({error.filename})" if error.filename else ""
        raise StorageError(
            f"member {job.member} cannot go on: {error.strerror or error}{where}; mend this and give the "
            "same command again, which keeps what is finished"
        ) from error


def epoch_done(job: Job, state: TrainingState) -> EpochDone:
    """The event of an epoch; the history in the member's folder grows by it."""
    if job.folder:
        job.folder.write_history(state.history, synced=False)  # a checkpoint holds it, too
    return EpochDone(job.member, state.history[-1], job.model)


def finished(job: Job, task: Task, network: TrainedNetwork, images: LabelledImages) -> Finished | Failed:
    """The event of a trained member: it has predicted all training images, and is stored where the job says so.

    Without validation images nothing has looked at the weights since the last step; where they are not finite, the
    member failed.
    """
    forward = inference_forward(network.network, job.device, job.precision)
    section = job.recipe.committee
    views = Views(section.tta, section.tta_confidence)
    probabilities = member_probabilities(forward, images.pixels, job.device, views)
    weights = {name: tensor.detach().cpu().contiguous() for name, tensor in network.network.state_dict().items()}
    if not (np.isfinite(probabilities).all() and all(bool(tensor.isfinite().all()) for tensor in weights.values())):
        return failed(job, NonFiniteLossError("the weights are not finite after the last step"))
    record = MemberRecord(
        member=job.member,
        status="finished",
        remark=network.remark,
        epochs=len(network.history),
        first_epoch=job.first_epoch,
        best_epoch=network.best_epoch,
        seconds=round(sum(epoch.seconds for epoch in network.history), 3),
        train=part_score(probabilities, images.labels, task.train),
        validation=part_score(probabilities, images.labels, task.validation),
    )
    trained = TrainedMember(record, network.history, weights, job.validation, probabilities)
    if job.folder:
        job.folder.write(trained)
    return Finished(job.member, record, None if job.folder else trained, job.model)


def failed(job: Job, error: NonFiniteLossError) -> Failed:
    """The event of a member that cannot go on; nothing is left to resume from."""
    if job.folder:
        job.folder.delete_checkpoints()
    return Failed(job.member, f"{error}; a lower optimiser.lr may help", job.model)


def part_score(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], positions: NDArray[np.int64] | None = None
) -> PartScore | None:
    """One member's score on a part of the images, those at the positions; None where the part is empty."""
    if positions is not None:
        probabilities, labels = pages.rows(probabilities, positions), labels[positions]
    if len(labels) == 0:
        return None
    return PartScore(images=len(labels), loss=log_loss(probabilities, labels), accuracy=accuracy(probabilities, labels))
