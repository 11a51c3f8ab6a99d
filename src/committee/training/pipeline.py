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
from committee.folders.records import MemberRecord, Status
from committee.training.jobs import Died, Event, Executor, Failed, Finished, Job, with_member

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

    The one policy for a member that fails (its loss is not finite) or dies (its process does, three times where a
    signal killed it): all others are trained to their end first, and kept where they have folders. Then "leave_out"
    records it and leaves the member out, unless no member of the jobs is left: one that failed for good, one that died
    until these jobs are given again. "raise" does not go on without it. Where an error is raised, nothing is recorded,
    so that the same command tries again.

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
        TrainingError: a member failed or died that cannot be left out.
        StorageError: a file cannot be written or read; what is finished, and the checkpoints, stay.
    """
    missing = [job for job in jobs if not (job.folder and job.folder.is_done)]
    ended: dict[tuple[str, int], Finished | Failed | Died] = {}
    if missing:
        done = len(jobs) - len(missing)
        with closing(executor(missing)) as events:
            for event in events:
                on_event(event)
                if isinstance(event, Finished | Failed | Died):
                    ended[event.model, event.member] = event
                    done += isinstance(event, Finished)
                if time.monotonic() > deadline and done >= keep_at_least:
                    break
    failures = [event for event in ended.values() if isinstance(event, Failed | Died)]
    if failures and (on_failure == "raise" or len(failures) == len(jobs)):
        raise TrainingError(_refusal(failures, len(jobs)))
    return [_outcome(job, ended.get((job.model, job.member))) for job in jobs]


def _outcome(job: Job, event: Finished | Failed | Died | None) -> Outcome:
    """What became of a job; the folder of a failed, dead or late member says so from now on."""
    if isinstance(event, Finished):
        return Outcome(event.record, event.trained)
    if event is None and job.folder and job.folder.is_done:
        return Outcome(job.folder.record)
    if event is not None:
        status: Status = "died" if isinstance(event, Died) else "failed"
        record = MemberRecord(member=job.member, status=status, remark=event.why)
    else:
        record = MemberRecord(member=job.member, status="late", remark="it was not ready when the budget was over")
    if job.folder:
        job.folder.write_record(record)
    return Outcome(record)


def _refusal(failures: Sequence[Failed | Died], jobs: int) -> str:
    first = failures[0]
    whole = f"member {first.member} of {first.model}" if first.model else f"member {first.member}"
    if len(failures) == jobs:
        what, why = "no member could be", with_member(first.why, first.member)
    else:
        what, why = f"{whole} could not be", first.why
    remedy = "; the same command goes on where it stopped" if isinstance(first, Died) else ""
    return f"{what} trained: {why}{remedy}"
