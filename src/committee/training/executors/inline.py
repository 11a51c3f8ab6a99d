"""Jobs in this process, one after the other."""

from __future__ import annotations

from collections.abc import Generator, Sequence

from committee.training.jobs import Event, Job, execute


def run(jobs: Sequence[Job]) -> Generator[Event]:
    """Execute the jobs here, in their order."""
    for job in jobs:
        yield from execute(job)
