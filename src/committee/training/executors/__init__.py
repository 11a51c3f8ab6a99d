"""Where jobs run: in this process, in worker processes, stacked on one accelerator, or on a Ray cluster.

Another executor is a module here with a function that fulfils the contract of `committee.training.jobs`, and a line in
`executor_for`, the only place that chooses one.
"""

from __future__ import annotations

import multiprocessing
import warnings
from functools import partial

from committee.training.cluster import survey
from committee.training.executors import inline, processes, stacked
from committee.training.jobs import Executor
from committee.training.setting import Setting


def executor_for(setting: Setting, jobs: int) -> Executor:
    """What runs so many jobs: a cluster where the setting names one; else on the CPU worker processes, on CUDA stacks
    of members, elsewhere one job at a time.

    Args:
        setting: resolved.
        jobs: how many there are; no more workers than that are started.

    Warns:
        UserWarning: this process is a worker of something that trains several committees at once, such as
            scikit-learn's ``n_jobs``, and cannot have workers of its own; the jobs run in it, with the same result.
    """
    if setting.cluster is not None:
        from committee.training.executors import ray  # which rests on others of this package, as its nodes do

        nodes = survey(setting.cluster.address, setting.device)
        limited = setting.workers < nodes.room(setting.cluster.gpu_share)  # else nodes that join later are used, too
        return partial(
            ray.run,
            cluster=setting.cluster,
            nodes=nodes,
            path=setting.kernels(),
            most=max(setting.workers if limited else jobs, 1),
        )
    if setting.device == "cuda":
        return stacked.run
    workers = min(setting.workers, jobs)
    if setting.device == "cpu" and workers > 1 and _is_worker():
        warnings.warn(
            "worker processes are expected to be started by a main process, and this one is itself a worker (of n_jobs "
            "or a pool); its members are trained one after the other, so give workers=1 or n_jobs=1",
            stacklevel=2,
        )
        workers = 1
    return partial(processes.run, workers=workers) if setting.device == "cpu" and workers > 1 else inline.run


def _is_worker() -> bool:
    """Whether this process belongs to a pool: such are daemons, or joblib's, whose start method is not Python's."""
    method = multiprocessing.get_start_method(allow_none=True)
    known = method is None or method in multiprocessing.get_all_start_methods()
    return multiprocessing.current_process().daemon or not known
