"""A Ray cluster: how to reach it, what its nodes are, and which of them give this machine's bits.

Ray runs the code of whoever reaches its ports, so it is only ever asked for by name. It is told to report no usage
statistics and to print nothing, since it prints on standard output, and it loses the handler that it sets for SIGTERM.
`ray.data` is never imported: before Ray 2.55 it let Parquet files run code.
"""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from types import ModuleType

from committee import kernels
from committee.errors import CommitteeError, require
from committee.folders.records import NodeRecord
from committee.kernels import binding
from committee.nn import devices
from committee.version import version

LOCAL, AUTO = "local", "auto"
PLACE = re.compile(r"(?P<host>[^\s/:]+|\[[0-9a-fA-F:.]+\]):(?P<port>\d{1,5})")
NODE = "ray.io/node-id"  # the label that every node has
REACHED_SECONDS, ANSWER_SECONDS = 5.0, 120.0
QUIET = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_DEDUP_LOGS_SKIP_REGEX": ".*"}
"""Read by Ray when it is imported: nothing is reported to its makers, and what nodes say stays in their logs."""
REFUSED = (
    "what answers at {address} does not let this process in, as a Ray cluster does with another token or version; put "
    "its token into ~/.ray/auth_token or RAY_AUTH_TOKEN, and see that ray --version is the same"
)
TOKENS, TOKEN_FILE = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"), Path("~/.ray/auth_token")


class ClusterNote(UserWarning):
    """Something about a cluster that its user should know."""


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster to train on.

    Attributes:
        address: "auto" for the cluster that this machine is a node of, HOST:PORT, or "local": one that is started on
            this machine and ends with this process. A program that is connected already stays so.
        store: where checkpoints are kept, a folder that all nodes see or a URL that fsspec knows, such as
            ``s3://bucket/checkpoints``; None sends them home, into the run folder.
        gpu_share: of a GPU, what each member gets, such as 0.25; None stacks members on whole GPUs.
    """

    address: str = AUTO
    store: str | None = None
    gpu_share: float | None = None


@dataclass(frozen=True)
class Nodes:
    """The nodes of a cluster.

    Attributes:
        device: that members are trained on: "cuda" or "cpu".
        records: of those nodes that fit.
        unfit: the identifiers of those that do not.
        units: GPUs, or CPUs, that fitting nodes have for tasks.
    """

    device: str
    records: tuple[NodeRecord, ...]
    unfit: tuple[str, ...]
    units: int

    def pick_precision(self, choice: str) -> str:
        """The precision to train in; "auto" is bfloat16 on GPUs that all have it, and on CPUs what this machine takes.

        Raises:
            CommitteeError: there is no such precision.
        """
        if choice == "auto" and self.device == "cuda":
            return "bfloat16" if all(node.has_bfloat16 for node in self.records) else "float32"
        return devices.pick_precision(choice, self.device)

    def room(self, gpu_share: float | None) -> int:
        """How many members, or stacks of members, train at a time; the share is as in `Cluster`."""
        each = gpu_share or 1.0 if self.device == "cuda" else 1.0
        return max(int(self.units / each), 1)


@dataclass(frozen=True)
class NodeReport:
    """What a node says of itself: its record, and what its bits depend on."""

    record: NodeRecord
    committee: str
    torch: str
    paths: tuple[str, ...]


def report_node() -> NodeReport:
    """Called on a node."""
    import torch

    has_gpu = torch.cuda.is_available()
    record = NodeRecord(
        name=socket.gethostname(),
        processor=devices.processor(),
        cores=devices.cores(),
        gpus=torch.cuda.device_count(),
        accelerator=devices.accelerator("cuda") if has_gpu else "",
        has_bfloat16=devices.has_bfloat16("cuda") if has_gpu else False,
    )
    return NodeReport(record, version, torch.__version__, tuple(binding.runnable_paths()))


def reason_unfit(node: NodeReport, torch: str, path: str) -> str:
    """Why a node would give other bits than a machine with this version, this torch and this path; "" where it fits."""
    if node.committee != version:
        return f"it has committee {node.committee} where this machine has {version}"
    if node.torch != torch:
        return f"it has torch {node.torch} where this machine has {torch}"
    if path not in node.paths:
        return f"it has no kernels {path}, only {', '.join(node.paths)} (COMMITTEE_CPU chooses ones that all have)"
    return ""


def ray_module() -> ModuleType:
    """Ray, imported with its reports switched off.

    Raises:
        MissingExtraError: it is not installed.
    """
    for name, value in QUIET.items():
        os.environ.setdefault(name, value)
    return require("ray", "ray", "Training on a Ray cluster")


def connect(address: str) -> ModuleType:
    """Ray, connected to a cluster (see `Cluster.address`) for as long as this process lives.

    Raises:
        CommitteeError: there is no such cluster, or it does not let this process in.
        MissingExtraError: Ray is not installed.

    Warns:
        ClusterNote: the cluster asks nobody for a token.
    """
    if address == AUTO:
        address = os.environ.get("RAY_ADDRESS") or AUTO  # as Ray does, which would try for minutes to reach it
    place = PLACE.fullmatch(address)
    if address not in (LOCAL, AUTO) and not place:
        raise CommitteeError(
            f"--address must be auto, local or the HOST:PORT of a Ray cluster that this machine is a node of; got "
            f"{address!r} (ray:// is a connection from outside, on which members cannot report: run this command on a "
            "node, for instance with ray job submit)"
        )
    if address == LOCAL and "ray" not in sys.modules:
        os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # Ray's own goes into a file that all may read
    if any(map(os.environ.get, TOKENS)) or TOKEN_FILE.expanduser().exists():
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # without which Ray does not show its token to a cluster
    ray = ray_module()
    if place:
        _reach(place["host"].strip("[]"), int(place["port"]), address)
    if ray.is_initialized():
        return ray
    options = {"num_cpus": devices.cores(), "include_dashboard": False} if address == LOCAL else {}
    with _signals_kept(), _refusals_said(address):
        ray.init(address, log_to_driver=False, logging_level="ERROR", **options)
    if address != LOCAL and os.environ.get("RAY_AUTH_MODE") != "token":
        text = "this Ray cluster asks for no token, so whoever reaches its ports runs code on it; docs/clusters.md"
        warnings.warn(f"{text} says how to start it with one", ClusterNote, stacklevel=2)
    return ray


def _reach(host: str, port: int, address: str) -> None:
    """Notice at once that nobody listens: Ray itself tries for minutes."""
    try:
        socket.create_connection((host, port), REACHED_SECONDS).close()
    except OSError as error:
        raise CommitteeError(
            f"no Ray cluster answers at {address} ({error.strerror or error}); give the address that ray start --head "
            "printed, or --address auto on a node of the cluster"
        ) from error


@contextmanager
def _signals_kept() -> Iterator[None]:
    """Keep this process's own handler for SIGTERM, which Ray replaces."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _refusals_said(address: str) -> Iterator[None]:
    """Ray's own words for a cluster that is not there, or lets nobody in, as one sentence."""
    try:
        yield
    except ConnectionError as error:
        if PLACE.fullmatch(address):
            raise CommitteeError(REFUSED.format(address=address)) from error
        raise CommitteeError(
            f"no Ray cluster is found by --address {address}; start one with ray start --head, give its HOST:PORT, or "
            "--address local to have one on this machine"
        ) from error
    except Exception as error:  # AuthenticationError and others, which cannot be named before Ray is imported
        if type(error).__module__.partition(".")[0] not in ("ray", "builtins"):
            raise
        if type(error).__name__ == "AuthenticationError":
            raise CommitteeError(REFUSED.format(address=address)) from error
        first = str(error).strip().partition("\n")[0]
        raise CommitteeError(f"Ray cannot connect to {address}: {first}") from error


@cache
def survey(address: str, choice: str) -> Nodes:
    """The nodes of a cluster, each asked once; those that would give other bits than this machine are left out.

    Args:
        address: as in `Cluster`.
        choice: the device to train on; "auto" is CUDA where a node has a GPU, else the CPU.

    Raises:
        CommitteeError: as `connect` does; or no node fits.

    Warns:
        ClusterNote: nodes are left out, or their processors are not all of one kind.
    """
    import torch

    ray = connect(address)
    alive = [node for node in ray.nodes() if node["Alive"]]
    device = _pick_device(choice, any(node["Resources"].get("GPU") for node in alive))
    resource, path = ("GPU", "torch") if device == "cuda" else ("CPU", kernels.path())
    able = [node for node in alive if node["Resources"].get(resource)]
    ask = ray.remote(num_cpus=0, num_gpus=0.001 if device == "cuda" else 0, max_retries=0)(report_node)
    asked = [ask.options(label_selector={NODE: node["NodeID"]}).remote() for node in able]
    records, unfit, reasons, units = list[NodeRecord](), list[str](), list[str](), 0.0
    for node, answer in zip(able, asked, strict=True):
        try:
            report = ray.get(answer, timeout=ANSWER_SECONDS)
            why = reason_unfit(report, torch.__version__, path)
        except Exception as error:  # whatever keeps a node from answering, it cannot train
            why = f"it does not answer ({first_line(error)})"
        if why:
            unfit.append(node["NodeID"])
            reasons.append(f"{node['NodeManagerAddress']}: {why}")
            continue
        units += node["Resources"][resource]
        records.append(report.record)
    if not records:
        told = "; ".join(reasons) or f"none offers a {resource}"
        raise CommitteeError(f"no node of the Ray cluster can train these members ({told}); add one that can")
    if reasons:
        warnings.warn(f"nodes are left out ({'; '.join(reasons)})", ClusterNote, stacklevel=2)
    kinds = {node.accelerator for node in records} if device == "cuda" else {node.processor for node in records}
    kinds |= {devices.processor()} if device == "cpu" else set()
    if len(kinds) > 1:
        text = "members have the same bits on processors of one kind, and here there are"
        warnings.warn(f"{text} {' and '.join(sorted(kinds))}", ClusterNote, stacklevel=2)
    return Nodes(device, tuple(records), tuple(unfit), int(units))


def _pick_device(choice: str, has_gpu: bool) -> str:
    """The device that members are trained on.

    Raises:
        CommitteeError: no node has it.
    """
    offered = ("cuda", "cpu") if has_gpu else ("cpu",)
    if choice not in ("auto", *offered):
        raise CommitteeError(
            f"--device must be auto or one that the cluster's nodes have ({', '.join(offered)}); got {choice!r}"
        )
    return offered[0] if choice == "auto" else choice


def first_line(error: Exception) -> str:
    """What kind of error it was, and the first line that it says; of the one that a task raised, where it is Ray's."""
    cause = getattr(error, "cause", None) or error
    text = str(cause).strip().splitlines() or [""]
    return f"{type(cause).__name__}: {text[0]}"


def not_on(unfit: Sequence[str]) -> dict[str, str]:
    """Ray's label selector for all nodes but these."""
    return {NODE: f"!in({','.join(unfit)})"} if unfit else {}
