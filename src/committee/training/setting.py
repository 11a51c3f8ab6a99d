"""Where and how a training runs, besides its recipe and its data."""

from __future__ import annotations

import platform
from dataclasses import dataclass, replace

import numpy as np
import torch

from committee import kernels
from committee.data.summary import DataSource
from committee.folders.records import Environment
from committee.nn import devices
from committee.training.cluster import Cluster, survey
from committee.version import version

CHECKPOINT_SECONDS = 30.0


@dataclass(frozen=True)
class Setting:
    """Everything besides recipe and data that decides where and how members are trained.

    Attributes:
        seed: the root of all randomness.
        device, precision: "auto", or one of `committee.nn.devices`.
        workers: processes on the CPU, 0 for one on each core; changes no result.
        command: how the training was started, for its record.
        reload: how the data set is loaded again, for `committee evaluate`.
        checkpoint_seconds: how much of a member's training an interruption may cost; changes no result. See
            `committee.training.jobs.Checkpoints`.
        cluster: the Ray cluster that members are trained on; None for this machine. Changes no result where the nodes
            are of this machine's kind.
    """

    seed: int = 0
    device: str = "auto"
    precision: str = "auto"
    workers: int = 0
    command: str = "committee.train(...), in Python"
    reload: DataSource | None = None
    checkpoint_seconds: float = CHECKPOINT_SECONDS
    cluster: Cluster | None = None

    def resolved(self, members: int) -> Setting:
        """The setting with every "auto" decided for this machine or cluster; no more workers than members to train.

        Raises:
            CommitteeError: a device or precision that there is not, or a cluster that cannot be reached.
        """
        if self.cluster is not None:
            nodes = survey(self.cluster.address, self.device)
            device, precision = nodes.device, nodes.pick_precision(self.precision)
            workers = self.workers or nodes.room(self.cluster.gpu_share)
        else:
            device = devices.pick_device(self.device)
            precision = devices.pick_precision(self.precision, device)
            workers = self.workers or (devices.cores() if device == "cpu" else 1)
        return replace(self, device=device, precision=precision, workers=min(workers, members))

    def kernels(self) -> str:
        """The path that a resolved setting's trainings take: `committee.kernels.path` on the CPU, elsewhere "torch"."""
        return kernels.path() if self.device == "cpu" else "torch"

    def environment(self) -> Environment:
        """What a resolved setting stands for on this machine: versions, processor, device, workers."""
        nodes = survey(self.cluster.address, self.device).records if self.cluster else ()
        device = self.device
        if device != "cpu":
            found = {node.accelerator for node in nodes} if self.cluster else {devices.accelerator(device)}
            device = f"{device} ({', '.join(sorted(found))})"
        return Environment(
            committee=version,
            python=platform.python_version(),
            torch=torch.__version__,
            numpy=np.__version__,
            system=f"{platform.system()} {platform.machine()}",
            processor=devices.processor(),
            cores=devices.cores(),
            device=device,
            precision=self.precision,
            kernels=self.kernels(),
            workers=self.workers,
            nodes=nodes,
        )
