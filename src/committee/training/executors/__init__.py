"""Where jobs run: in this process, in worker processes, or stacked on one accelerator; the members are the same.

Another executor is a module here with a function that keeps the contract of `committee.training.jobs`, and a line in
`executor_for`.
"""

from __future__ import annotations

from functools import partial

from committee.training.executors import inline, processes, stacked
from committee.training.jobs import Executor


def executor_for(device: str, workers: int) -> Executor:
    """On the CPU processes, where more than one can work; on CUDA all members at once; else one after the other."""
    if device == "cuda":
        return stacked.run
    return partial(processes.run, workers=workers) if device == "cpu" and workers > 1 else inline.run
