"""Where jobs run: in this process, in worker processes, or stacked on one accelerator.

Another executor is a module here with a function that fulfils the contract of `committee.training.jobs`, and a line in
`executor_for`, the only place that chooses one.
"""

from __future__ import annotations

from functools import partial

from committee.training.executors import inline, processes, stacked
from committee.training.jobs import Executor
from committee.training.setting import Setting


def executor_for(setting: Setting, jobs: int) -> Executor:
    """What runs so many jobs: on the CPU worker processes, on CUDA stacks of members, elsewhere one job at a time.

    Args:
        setting: resolved.
        jobs: how many there are; no more workers than that are started.
    """
    if setting.device == "cuda":
        return stacked.run
    workers = min(setting.workers, jobs)
    return partial(processes.run, workers=workers) if setting.device == "cpu" and workers > 1 else inline.run
