"""The options that say on what cluster members are trained -> Cluster."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from committee.errors import CommitteeError

if TYPE_CHECKING:
    from committee.training.cluster import Cluster


def cluster_options() -> list[Callable[[Callable[..., Any]], Callable[..., Any]]]:
    """The options that say on what cluster members are trained."""
    return [
        click.option(
            "--executor",
            type=click.Choice(["local", "ray"]),
            default="local",
            show_default=True,
            help="Where members are trained: on this machine, or on the nodes of a Ray cluster (docs/clusters.md). "
            "Changes no result where their processors are of one kind.",
        ),
        click.option(
            "--address",
            metavar="HOST:PORT",
            help="The Ray cluster: auto for the one that this machine is a node of, or local for one that is started "
            "here and ends with the command.  [default: auto]",
        ),
        click.option(
            "--checkpoint-store",
            metavar="URL",
            help="Where a cluster's nodes keep checkpoints: a folder that all of them see, or a URL such as "
            "s3://bucket/folder.  [default: they are sent home, into the run folder]",
        ),
        click.option(
            "--gpu-share",
            type=click.FloatRange(0, 1, min_open=True),
            metavar="SHARE",
            help="Of a node's GPU, what each member gets, such as .25.  [default: members are stacked on whole GPUs]",
        ),
    ]


def cluster_of(executor: str, address: str | None, store: str | None, gpu_share: float | None) -> Cluster | None:
    """The cluster that the options name; None for this machine.

    Raises:
        CommitteeError: one of them is given without --executor ray.
    """
    from committee.training.cluster import AUTO, Cluster

    if executor == "ray":
        if store is not None and "://" not in store:
            store = str(Path(store).resolve())  # nodes have working folders of their own
        return Cluster(address or AUTO, store, gpu_share)
    for option, value in {"--address": address, "--checkpoint-store": store, "--gpu-share": gpu_share}.items():
        if value is not None:
            raise CommitteeError(f"{option} is for a cluster; give --executor ray, too, or leave it away")
    return None
