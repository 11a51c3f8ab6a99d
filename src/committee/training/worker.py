"""What a worker process does: jobs in, events out, until its parent ends it or has ended.

Nothing heavy is imported at the top: PyTorch takes seconds, in which the parent may end, too.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait

from committee.errors import CommitteeError


@dataclass(frozen=True)
class Stop:
    """Sent instead of an event: no worker can go on, and why."""

    error: CommitteeError


def work(pipe: Connection) -> None:
    """Execute the jobs that come through the pipe and send their events back."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    from committee.training.jobs import execute

    try:
        while True:
            job = pipe.recv()
            try:
                for event in execute(job):
                    pipe.send(event)
            except CommitteeError as error:
                pipe.send(Stop(error))
    except (EOFError, ConnectionError):  # the parent is gone
        return


def _end_with_parent() -> None:
    """End this process as soon as its parent has ended, whatever way that was, and whatever is under way here."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
