"""Jobs of one recipe in this process, as many at once as fit together; those that do not, one after the other.

A stack writes no checkpoints, since its members share one optimiser: where it is interrupted, they begin again.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from committee.nn.devices import single_threaded
from committee.training.jobs import Event, Job, epoch_done, execute, failed, files_needed, finished
from committee.training.stacked_loop import fit_stacked, reason_not_to_stack
from committee.training.state import NonFiniteLossError, TrainedNetwork, TrainingState

MOST = 16  # members at once


def run(jobs: Sequence[Job]) -> Generator[Event]:
    """Execute the jobs here, one stack after the other."""
    for stack in stacks(jobs):
        yield from run_together(stack)


def stacks(jobs: Sequence[Job], most: int = MOST) -> Iterator[list[Job]]:
    """Neighbours with equal recipes and numbers of images, so many together at most."""

    def alike(job: Job) -> tuple[object, ...]:
        return job.model, job.recipe.digest(), len(job.validation), job.images

    for _, neighbours in groupby(jobs, key=alike):
        group = list(neighbours)
        for start in range(0, len(group), most):
            yield group[start : start + most]


def run_together(jobs: Sequence[Job]) -> Iterator[Event]:
    """Execute jobs as a stack, or one after the other where they make none or one of them has begun already.

    Raises:
        StorageError: a file cannot be written or read.
    """
    with files_needed(jobs[0]):
        yield from _run_together(jobs)


def _run_together(jobs: Sequence[Job]) -> Iterator[Event]:
    images = jobs[0].images.load()
    tasks = [job.task(images.labels) for job in jobs]
    if reason_not_to_stack(tasks) or any(job.folder and job.folder.has_begun for job in jobs):
        for job in jobs:
            yield from execute(job)
        return
    with single_threaded():
        for place, event in fit_stacked(images.pixels, images.labels, tasks):
            job = jobs[place]
            if isinstance(event, TrainingState):
                yield epoch_done(job, event)
            elif isinstance(event, TrainedNetwork):
                yield finished(job, tasks[place], event, images)
            elif isinstance(event, NonFiniteLossError):
                yield failed(job, event)
            else:
                yield replace(event, model=job.model)
