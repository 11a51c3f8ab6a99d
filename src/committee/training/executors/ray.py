"""Jobs as tasks of a Ray cluster: one a member on processors, stacks of members or fractions of a GPU on GPUs.

Images go to each node's object store once. Reports come back as a stream from each task, and this process alone writes
the run folder: what a task does that was given up for lost changes nothing, since nobody listens to it any more. Ray
itself never starts a task again, because the second start of a member reports less than the first; what is lost with a
node or a worker is started again here, from its newest checkpoint.
"""

from __future__ import annotations

import math
import uuid
from collections import Counter, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch

from committee.errors import CommitteeError
from committee.folders.checkpoint_store import CheckpointStore
from committee.training.cluster import Cluster, Nodes, connect, first_line, not_on
from committee.training.executors.processes import MOST_STARTS, ORDINALS
from committee.training.executors.stacked import MOST, stacks
from committee.training.jobs import Died, Event, Failed, Job, Remark
from committee.training.remote import ABSENT, Assignment, Begun, Delivered, NodeImages, Report, Saved, work
from committee.training.shared_images import ImageSource

TOGETHER_SECONDS = 0.02  # what is reported within them is passed on together
REPORTS_A_SECOND = 200  # that this process takes with ease, from all members together
STARVED_SECONDS = 20.0  # without any report, after which it is asked whether the cluster has room at all
LOSSES = {
    "NodeDiedError": "its node {node} was lost",
    "ObjectLostError": "its node {node} was lost",
    "WorkerCrashedError": "its worker process on the node {node} died",
    "OutOfMemoryError": "its worker process was ended by Ray because the memory of the node {node} ran out (fewer "
    "--workers, or fewer CPUs in ray start, need less)",
}
"""How Ray's errors read; any other one is quoted."""

Key = tuple[str, int]


@dataclass
class Start:
    """A task under way: the jobs that it has not ended yet, and the node where it runs, once it has begun."""

    jobs: list[Job]
    stores: list[CheckpointStore | None]
    node: str = ""


@dataclass
class Tasks:
    """What becomes tasks, and what they report.

    Attributes:
        unfit: nodes where no task goes any more.
        waiting: jobs that are no task yet, those of a stack together.
        active: by Ray's generator of their reports.
        sent: by what they hold: objects that are in the cluster already.
        fruitless: how often a member was lost since its last checkpoint.
    """

    ray: Any
    cluster: Cluster
    path: str
    unfit: list[str]
    waiting: deque[list[Job]]
    seconds: float
    active: dict[Any, Start] = field(default_factory=dict)
    sent: dict[int, tuple[object, Any]] = field(default_factory=dict)
    fruitless: Counter[Key] = field(default_factory=Counter)

    def start(self, jobs: list[Job]) -> None:
        """Make a task of jobs."""
        first = jobs[0]
        stores = [self.store(job) for job in jobs]
        own = {"images": ABSENT, "pseudo": None, "teaching": None, "weights": None, "folder": None, "start": None}
        assignment = Assignment(
            jobs=tuple(replace(job, **own) for job in jobs),  # type: ignore[arg-type]
            stored=first.folder is not None,
            start=first.start.read_bytes() if first.start else None,
            checkpoints=tuple(tuple(job.folder.copies()) if job.folder else () for job in jobs),
            stores=tuple(stores),
            torch=torch.__version__,
            path=self.path,
            seconds=self.seconds,
        )
        options = {
            "name": f"committee {first.model or 'member'} {first.member:02d}",
            "num_returns": "streaming",
            "max_retries": 0,
            "num_cpus": 1 if first.device == "cpu" else 0,
            "num_gpus": 0 if first.device == "cpu" else self.cluster.gpu_share or 1,
            "label_selector": not_on(self.unfit),
        }
        shared = self.images(first.images), self.images(first.pseudo), self.put(first.teaching), self.put(first.weights)
        task = self.ray.remote(work).options(**options).remote(assignment, *shared)
        self.active[task] = Start(jobs, stores)

    def store(self, job: Job) -> CheckpointStore | None:
        """Where a start of a job keeps its checkpoints; its name is one that no other start has."""
        if not (self.cluster.store and job.folder):
            return None
        return CheckpointStore(self.cluster.store, job.run, f"{job.model}-{job.member:02d}", uuid.uuid4().hex)

    def images(self, source: ImageSource | None) -> Any:
        """Images in the cluster's object store; None stays None."""
        if source is None:
            return None
        if id(source) not in self.sent:
            self.sent[id(source)] = source, self.ray.put(NodeImages.of(source.load()))
        return self.sent[id(source)][1]

    def put(self, value: object) -> Any:
        """A value in the cluster's object store; None stays None."""
        if value is not None and id(value) not in self.sent:
            self.sent[id(value)] = value, self.ray.put(value)
        return None if value is None else self.sent[id(value)][1]

    def events(self, task: Any) -> Iterator[Event]:
        """What a task has reported, or what its end means.

        Raises:
            CommitteeError: a file cannot be written or read, there or here.
        """
        start = self.active[task]
        try:
            reports: Sequence[Report] = self.ray.get(next(task))
        except StopIteration:
            del self.active[task]
            if start.jobs:
                yield from self.lost(start, "its task ended without a result")
        except self.ray.exceptions.RayError as error:
            del self.active[task]
            cause = getattr(error, "cause", None)
            if isinstance(cause, CommitteeError):
                raise type(cause)(f"on the node {start.node}: {cause}") from cause
            if cause is not None and start.node:  # a bug, which it would meet again
                for job in start.jobs:
                    yield Died(job.member, f"its task on {start.node} failed with {first_line(error)}", job.model)
                return
            kind = next((each.__name__ for each in type(error).__mro__ if each.__name__ in LOSSES), "")
            node = start.node or "where it was to begin"
            yield from self.lost(
                start, LOSSES[kind].format(node=node) if kind else f"Ray lost it ({first_line(error)})"
            )
        else:
            for report in reports:
                yield from self.taken(report, start)

    def taken(self, report: Report, start: Start) -> Iterator[Event]:
        """The event of a report; files and checkpoints are written."""
        if isinstance(report, Begun):
            start.node = report.name
            if report.unfit:
                self.waiting.appendleft(start.jobs)
                job, start.jobs = start.jobs[0], []
                if report.node in self.unfit:
                    return
                self.unfit.append(report.node)
                yield Remark(job.member, f"the node {report.name} is left out: {report.unfit}", job.model)
            return
        if isinstance(report, Delivered | Failed):
            event: Event = report.event if isinstance(report, Delivered) else report
            place = next(place for place, job in enumerate(start.jobs) if job.member == event.member)
            job, store = start.jobs.pop(place), start.stores.pop(place)
            if job.folder and isinstance(report, Delivered):
                job.folder.receive(report.files)
            if store:
                store.clear()
            yield event
        elif isinstance(report, Saved):
            job = next(job for job in start.jobs if job.member == report.member)
            self.fruitless[job.model, job.member] = 0
            if job.folder and report.content is not None:
                job.folder.receive_checkpoint(report.name, report.content)
        else:
            yield report

    def lost(self, start: Start, why: str) -> Iterator[Event]:
        """What the loss of a task means for its jobs: they are started again, unless that has led nowhere too often."""
        again = []
        for job in start.jobs:
            key = job.model, job.member
            self.fruitless[key] += 1
            if self.fruitless[key] >= MOST_STARTS:
                text = f"{why}, {ORDINALS[MOST_STARTS]} time without a newer checkpoint"
                yield Died(job.member, text, job.model)
                continue
            again.append(job)
            kept = bool(self.cluster.store and job.folder) or bool(job.folder and job.folder.has_begun)
            where = "from its newest checkpoint" if kept else "from the beginning"
            yield Remark(job.member, f"{why}; it is started again {where}", job.model)
        if again:
            self.waiting.appendleft(again)

    def hungry(self) -> Iterator[Remark]:
        """A remark where the cluster has nothing left to train on."""
        job = next(iter(self.active.values())).jobs[0]
        kind = "CPU" if job.device == "cpu" else "GPU"
        able = {node["NodeID"] for node in self.ray.nodes() if node["Alive"] and node["Resources"].get(kind)}
        if not able.difference(self.unfit):
            text = f"waits with all others, since no node with a {kind} is left that can train it; they go on when one"
            yield Remark(job.member, f"{text} joins", job.model)


def run(jobs: Sequence[Job], cluster: Cluster, nodes: Nodes, path: str, most: int) -> Generator[Event]:
    """Execute the jobs on a cluster, in their order as far as it has room.

    Args:
        jobs: on "cpu" or "cuda".
        cluster: where.
        nodes: its nodes, as `survey` found them; those that join later are used, too.
        path: the kernels that they are trained with.
        most: tasks at once.

    Raises:
        CommitteeError: the cluster or its store cannot be reached, or a file cannot be written or read; what is
            finished, and the checkpoints, stay.
    """
    ray = connect(cluster.address)
    if cluster.store:
        CheckpointStore(cluster.store, "", "").check()
    waiting = deque(tasks_of(jobs, cluster, nodes))
    seconds = min(most, len(waiting)) / REPORTS_A_SECOND
    tasks = Tasks(ray, cluster, path, list(nodes.unfit), waiting, seconds)
    remarked = False
    try:
        while tasks.waiting or tasks.active:
            while tasks.waiting and len(tasks.active) < most:
                tasks.start(tasks.waiting.popleft())
            ready, _ = ray.wait(list(tasks.active), timeout=STARVED_SECONDS, fetch_local=False)
            if not ready and not remarked:
                for remark in tasks.hungry():
                    remarked = True
                    yield remark
            elif ready:
                remarked = False
                every = len(tasks.active)
                ready, _ = ray.wait(list(tasks.active), num_returns=every, timeout=TOGETHER_SECONDS, fetch_local=False)
            for task in ready:
                yield from tasks.events(task)
    finally:
        for task in tasks.active:
            ray.cancel(task, force=True)


def tasks_of(jobs: Sequence[Job], cluster: Cluster, nodes: Nodes) -> list[list[Job]]:
    """The jobs of each task: one on processors or on a fraction of a GPU, else as many as keep all GPUs busy."""
    if nodes.device == "cpu" or cluster.gpu_share:
        return [[job] for job in jobs]
    return list(stacks(jobs, min(MOST, math.ceil(len(jobs) / nodes.units))))
