"""The one way in which members are trained: by runs, studies, grids, budgets, self-training and the estimator."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import Literal

from committee.errors import TrainingError
from committee.folders.member_folder import TrainedMember
from committee.folders.records import MemberRecord
from committee.training.jobs import Event, Executor, Failed, Finished, Job

OnFailure = Literal["leave_out", "raise"]


@dataclass(frozen=True)
class Outcome:
    """What became of a job; `trained` is the member where the job has no folder and it finished."""

    record: MemberRecord
    trained: TrainedMember | None = None


def ignore(event: Event) -> None:
    """Show nothing of a training."""


def train_members(
    jobs: Sequence[Job],
    executor: Executor,
    on_failure: OnFailure = "leave_out",
    *,
    deadline: float = math.inf,
    keep_at_least: int = 1,
    on_event: Callable[[Event], None] = ignore,
) -> list[Outcome]:
    """Train the members that their folders do not hold yet, in folders or in memory.

    The one policy for a member that fails: all others are trained to their end first, and kept where they have folders.
    Then "leave_out" records the failure and leaves the member out, unless no member of the jobs is left; "raise" does
    not go on without it. Where a TrainingError is raised, no failure is recorded, so that the same command tries again.

    Args:
        jobs: one a member; those whose folder says that they are done are not trained again.
        executor: where they run.
        on_failure: the policy.
        deadline: the `time.monotonic()` from which members that still train are given up.
        keep_at_least: members that are finished first, whatever the deadline.
        on_event: called with every event.

    Returns:
        An outcome for each job, in their order.

    Raises:
        TrainingError: a member failed that cannot be left out.
    """
    missing = [job for job in jobs if not (job.folder and job.folder.is_done)]
    ended: dict[tuple[str, int], Finished | Failed] = {}
    if missing:
        done = len(jobs) - len(missing)
        with closing(executor(missing)) as events:
            for event in events:
                on_event(event)
                if isinstance(event, Finished | Failed):
                    ended[event.model, event.member] = event
                    done += isinstance(event, Finished)
                if time.monotonic() > deadline and done >= keep_at_least:
                    break
    failures = [event for event in ended.values() if isinstance(event, Failed)]
    if failures and (on_failure == "raise" or len(failures) == len(jobs)):
        raise TrainingError(_refusal(failures, len(jobs)))
    return [_outcome(job, ended.get((job.model, job.member))) for job in jobs]


def _outcome(job: Job, event: Finished | Failed | None) -> Outcome:
    """What became of a job; a failed or late member's folder says so from now on."""
    if isinstance(event, Finished):
        return Outcome(event.record, event.trained)
    if event is None and job.folder and job.folder.is_done:
        return Outcome(job.folder.record)
    if isinstance(event, Failed):
        record = MemberRecord(member=job.member, status="failed", remark=event.why)
    else:
        record = MemberRecord(member=job.member, status="late", remark="it was not ready when the budget was over")
    if job.folder:
        job.folder.write_record(record)
    return Outcome(record)


def _refusal(failures: Sequence[Failed], jobs: int) -> str:
    first = failures[0]
    whole = f"member {first.member} of {first.model}" if first.model else f"member {first.member}"
    return (
        f"no member could be trained: {first.why}"
        if len(failures) == jobs
        else (f"{whole} could not be trained: {first.why}")
    )
