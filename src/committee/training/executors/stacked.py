"""Jobs of one recipe in this process, as many at once as fit together; those that do not, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Sequence
from dataclasses import replace
from itertools import groupby

from committee.folders import files as store
from committee.training.jobs import EpochDone, Event, Failed, Finished, Job, execute, one_thread, opened, store_member
from committee.training.stacked_loop import fit_stacked, why_not
from committee.training.state import Fitted, Progress

MOST = 16  # members at once


def run(jobs: Sequence[Job]) -> Generator[Event]:
    """Execute the jobs here: neighbours with equal recipes and numbers of images as one stack."""
    for _, neighbours in groupby(jobs, key=lambda job: (job.model, job.recipe.digest(), len(job.held_out), job.pixels)):
        group = list(neighbours)
        for start in range(0, len(group), MOST):
            yield from run_together(group[start : start + MOST])


def run_together(jobs: Sequence[Job]) -> Iterator[Event]:
    """A stack; one after the other where these jobs make none, or one of them has begun already."""
    prepared = [opened(job) for job in jobs]
    tasks = [task for _, _, task in prepared]
    if why_not(tasks) or any(store.read_checkpoint(job.folder) for job in jobs):
        for job in jobs:
            yield from execute(job)
        return
    pixels, labels, _ = prepared[0]
    with one_thread():
        training = fit_stacked(pixels, labels, tasks)
        try:
            while True:
                event = next(training)
                if isinstance(event, Progress):
                    yield replace(event, model=jobs[0].model)
                else:
                    place, state = event
                    store.write_history(jobs[place].folder, state.history)
                    yield EpochDone(jobs[place].member, state.history[-1], jobs[place].model)
        except StopIteration as end:
            for job, task, fitted in zip(jobs, tasks, end.value, strict=True):
                if isinstance(fitted, Fitted):
                    store_member(job, task, fitted, pixels, labels)
                    yield Finished(job.member, len(fitted.history), job.model)
                else:
                    yield Failed(job.member, f"{fitted}; a lower optimiser.lr may help", job.model)
