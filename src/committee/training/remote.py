"""What a task does on a node of a cluster: jobs in, reports out. The engine is that of every other executor.

Members are stored in a temporary folder of the node, and their files sent to the process that trains the committee,
which alone writes the run folder; so are their checkpoints, unless they have a store that all nodes reach.
"""

from __future__ import annotations

import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from typing import cast

import numpy as np
from numpy.typing import NDArray

from committee import disk
from committee.data.dataset import LabelledImages, Labels, Pixels
from committee.folders.checkpoint_store import CheckpointStore
from committee.folders.member_folder import MemberFolder
from committee.kernels import binding
from committee.temporary import temporary_folder
from committee.training.cluster import reason_unfit, report_node
from committee.training.executors import inline, stacked
from committee.training.jobs import Event, Failed, Finished, Job
from committee.training.shared_images import ImageSource
from committee.training.state import StepProgress
from committee.training.teaching import Teaching

SHARED_SECONDS = 0.2  # reports are sent together that come within so many seconds
CONTENT, START = "the files of members in training", "start"


@dataclass(frozen=True, eq=False)
class NodeImages:
    """Images and labels in a node's object store, which all tasks of the node read."""

    pixels: Pixels
    labels: Labels

    @classmethod
    def of(cls, images: LabelledImages) -> NodeImages:
        """Images to be put into the object store; those of a mapped file, too."""
        return cls(cast(Pixels, np.asarray(images.pixels)), images.labels)

    def load(self) -> LabelledImages:
        """The images, in shared memory and never written to."""
        return LabelledImages(self.pixels, self.labels)


ABSENT = NodeImages(np.empty((0, 1, 1, 1), np.uint8), np.empty(0, np.int64))
"""In the place of a job's images on their way: they travel apart, once to a node."""


@dataclass(frozen=True)
class Assignment:
    """What one task is to do.

    Attributes:
        jobs: one, or a stack; without what travels apart, without folder and weights to start from.
        stored: whether the members have folders.
        start: the file of weights to go on from, or None.
        checkpoints: for each job, names and contents of those that are at home.
        stores: for each job, where its checkpoints are kept; None where they are sent home.
        torch, path: the version and the kernels that the members are to be trained with.
        seconds: how often a member's progress is reported, at most.
    """

    jobs: tuple[Job, ...]
    stored: bool
    start: bytes | None
    checkpoints: tuple[tuple[tuple[str, bytes], ...], ...]
    stores: tuple[CheckpointStore | None, ...]
    torch: str
    path: str
    seconds: float


@dataclass(frozen=True)
class Begun:
    """A task has begun on a node; `unfit` says why it cannot go on there, "" where it can."""

    node: str
    name: str
    unfit: str = ""


@dataclass(frozen=True)
class Saved:
    """A member has a newer checkpoint; `content` is None where a store has it."""

    member: int
    name: str
    content: bytes | None


@dataclass(frozen=True)
class Delivered:
    """A member is trained: its event, and its files where it is stored."""

    event: Finished
    files: dict[str, bytes] = field(repr=False)


Report = Event | Begun | Saved | Delivered


def work(
    assignment: Assignment,
    images: ImageSource,
    pseudo: ImageSource | None,
    teaching: Teaching | None,
    weights: NDArray[np.float64] | None,
) -> Iterator[tuple[Report, ...]]:
    """Execute an assignment on this node.

    Args:
        assignment: the jobs.
        images, pseudo, teaching, weights: of them all, as in `Job`; from the node's object store.

    Yields:
        Reports, those of a moment together. The first one is `Begun`; each job ends with `Delivered` or `Failed`.

    Raises:
        StorageError: a file cannot be written or read.
    """
    import ray

    unfit = reason_unfit(report_node(), assignment.torch, assignment.path)
    yield (Begun(ray.get_runtime_context().get_node_id(), socket.gethostname(), unfit),)
    if unfit:
        return
    warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # nobody writes to images
    with binding.use(assignment.path), ExitStack() as stack:
        place = stack.enter_context(temporary_folder(0, CONTENT)) if assignment.stored else None
        start = None
        if assignment.start is not None:
            start = stack.enter_context(temporary_folder(0, CONTENT)) / START
            disk.write(start, assignment.start, synced=False)
        jobs = [
            replace(
                job,
                images=images,
                pseudo=pseudo,
                teaching=teaching,
                weights=weights,
                start=start,
                folder=MemberFolder(place / "members" / f"{job.member:02d}") if place else None,
            )
            for job in assignment.jobs
        ]
        yield from together(reports(jobs, assignment))


def reports(jobs: Sequence[Job], assignment: Assignment) -> Iterator[Report]:
    """The events of jobs that are executed in this process, their newest checkpoints and their files."""
    kept = dict[int, set[str]]()  # names of the checkpoints that are known elsewhere
    stores = dict(zip((job.member for job in jobs), assignment.stores, strict=True))
    folders = {job.member: job.folder for job in jobs if job.folder}
    for job, at_home, store in zip(jobs, assignment.checkpoints, assignment.stores, strict=True):
        found = [*at_home, *(store.newest() if store else ())]
        kept[job.member] = {name for name, _ in found}
        for name, content in found:
            folders[job.member].receive_checkpoint(name, content)
    last_progress = dict.fromkeys(kept, 0.0)
    run = stacked.run if jobs[0].device == "cuda" else inline.run
    for event in run(jobs):
        if isinstance(event, StepProgress):
            if (now := time.monotonic()) - last_progress[event.member] < assignment.seconds:
                continue
            last_progress[event.member] = now
        folder = folders.get(event.member)
        if isinstance(event, Finished):
            yield Delivered(event, folder.contents() if folder else {})
            continue
        yield event
        for name, content in folder.copies(but=kept[event.member]) if folder else ():
            kept[event.member].add(name)
            if store := stores[event.member]:
                store.write(name, content)
            yield Saved(event.member, name, None if store else content)


def together(found: Iterator[Report]) -> Iterator[tuple[Report, ...]]:
    """Reports in groups: those that come within `SHARED_SECONDS` of the first one, and all up to a member's end."""
    group, began = list[Report](), 0.0
    for report in found:
        began = began if group else time.monotonic()
        group.append(report)
        if isinstance(report, Delivered | Failed) or time.monotonic() - began >= SHARED_SECONDS:
            yield tuple(group)
            group = []
    if group:
        yield tuple(group)
