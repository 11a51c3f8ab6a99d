"""Members on a real Ray cluster of three simulated nodes: the bytes of processes, whatever is lost on the way.

One cluster serves all tests of a process: starting one takes Ray five seconds.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sys
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

import committee
from committee.cli.main import main
from committee.data.dataset import ImageDataset
from committee.folders.checkpoint_store import CheckpointStore
from committee.folders.member_folder import MemberFolder
from committee.folders.records import NodeRecord
from committee.runs import evaluation
from committee.studies import run as studies
from committee.training import cluster as clusters
from committee.training.cluster import Cluster, NodeReport, Nodes, reason_unfit, survey
from committee.training.executors.processes import MOST_STARTS
from committee.training.executors.ray import Start, Tasks, tasks_of
from committee.training.jobs import Died, EpochDone, Event, Finished, Job, Remark
from committee.training.remote import ABSENT, Saved
from committee.version import version

pytestmark = pytest.mark.timeout(400)
MEMBERS, EPOCHS = 4, 6
CHANGES = [f"committee.members={MEMBERS}", f"training.epochs={EPOCHS}", f"holdout.folds={MEMBERS}"]
RECIPE = committee.load_recipe("standard", [*CHANGES, "network.widths=[16,16,16]"])
TOKEN = f"a-token-that-only-the-tests-of-process-{os.getpid()}-know"
SETTINGS = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": TOKEN, "RAY_ADDRESS": "", **clusters.QUIET}
STORE = 80 * 2**20  # bytes, the least that Ray takes
PROMPT = {  # so that the loss of a node is noticed within a second
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 200,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}


@dataclass
class Machines:
    """A head that computes nothing, and nodes with one CPU each, which can be killed and joined."""

    cluster: Any
    nodes: list[Any] = field(default_factory=list)

    def join(self) -> None:
        self.nodes.append(self.cluster.add_node(num_cpus=1, object_store_memory=STORE, wait=False))

    def kill(self) -> None:
        """SIGKILL for everything of the oldest node."""
        self.cluster.remove_node(self.nodes.pop(0), allow_graceful=False)


@pytest.fixture(scope="module")
def machines() -> Iterator[Machines]:
    """Three nodes; processes that are started meanwhile find them by the address "auto", and know the token."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in SETTINGS.items():
            patch.setenv(name, value)
        ray = pytest.importorskip("ray", reason="the extra ray is not installed")
        from ray.cluster_utils import Cluster as Simulated

        head = {"num_cpus": 0, "object_store_memory": STORE, "include_dashboard": False, "_system_config": PROMPT}
        found = Machines(Simulated(initialize_head=True, head_node_args=head))
        found.join()
        found.join()
        found.cluster.wait_for_nodes()
        patch.setenv("RAY_ADDRESS", found.cluster.address)
        own, reach = found.cluster.address.partition(":")[0], clusters._reach
        patch.setattr(  # this machine's own address, which the guard against the network takes for another one's
            clusters, "_reach", lambda host, port, given: None if host == own else reach(host, port, given)
        )
        yield found
        ray.shutdown()
        found.cluster.shutdown()
        survey.cache_clear()


def arrays(run: Path) -> dict[str, bytes]:
    """The weights and probabilities of all members, and the committee's."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.suffix in (".npy", ".safetensors")
    }


@pytest.fixture(scope="module")
def by_processes(digits: ImageDataset, tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What worker processes make of the recipe."""
    run = tmp_path_factory.mktemp("processes") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluation, "write_run_page", lambda *given: None)
        committee.train(digits, RECIPE, run, committee.Setting(workers=2))
    return arrays(run)


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "write_run_page", lambda *given: None)


SETTING = committee.Setting(cluster=Cluster(), checkpoint_seconds=0)


def received_by_nodes() -> dict[str, int]:
    """Bytes of objects that the store of each living node has been given so far."""
    import ray
    from ray._private.internal_api import node_stats

    return {
        node["NodeID"]: node_stats(
            node["NodeManagerAddress"], node["NodeManagerPort"]
        ).store_stats.cumulative_created_bytes
        for node in ray.nodes()
        if node["Alive"]
    }


def processes_of(member: int) -> list[int]:
    """The numbers of this cluster's processes that train a member: Ray gives them the name of their task."""
    found, name = [], f"ray::committee member {member:02d}".encode()
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            is_named = (folder / "cmdline").read_bytes().startswith(name)
            if is_named and TOKEN.encode() in (folder / "environ").read_bytes():
                found.append(int(folder.name))
    return found


@contextmanager
def killing(member: int, times: int) -> Iterator[list[int]]:
    """As soon as a process trains a member, it is killed, so many times; their numbers."""
    killed = list[int]()
    stopped = threading.Event()

    def kill() -> None:
        while len(killed) < times and not stopped.wait(0.005):
            for process in processes_of(member):
                if process not in killed:
                    os.kill(process, signal.SIGKILL)
                    killed.append(process)

    thread = threading.Thread(target=kill)
    thread.start()
    yield killed
    stopped.set()
    thread.join()


def test_a_committee_that_loses_a_worker_and_a_node_has_the_bytes_of_processes(
    machines: Machines,
    digits: ImageDataset,
    by_processes: dict[str, bytes],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    import ray

    handler = signal.getsignal(signal.SIGTERM)
    remarks, reached, finished, killed = list[Remark](), dict[int, int](), list[int](), False

    def watch(event: Event) -> None:
        nonlocal killed
        if isinstance(event, EpochDone):
            reached[event.member] = event.record.epoch
            if len(reached) == 2 and min(reached.values()) >= 2 and not killed:  # both nodes train a member
                killed = True
                machines.kill()
        if isinstance(event, Remark):
            remarks.append(event)
        if isinstance(event, Finished):
            finished.append(event.member)

    with killing(3, times=1):
        committee.train(digits, RECIPE, tmp_path / "run", SETTING, on_event=watch)
    assert arrays(tmp_path / "run") == by_processes
    assert sorted(finished) == list(range(MEMBERS))
    worker = "its worker process on the node .* died; it is started again from"
    assert [remark.member for remark in remarks if re.search(worker, remark.text)] == [3]
    lost = [remark for remark in remarks if re.search("its node .* was lost; it is started again from", remark.text)]
    assert lost
    assert any(remark.epochs for remark in remarks if remark.member == lost[0].member)  # it went on, and did not begin
    assert signal.getsignal(signal.SIGTERM) == handler  # which Ray replaces
    assert capsys.readouterr().out == ""  # where Ray prints what its nodes report
    environment = json.loads((tmp_path / "run" / "environment.json").read_text())
    assert [node["processor"] for node in environment["nodes"]] == [environment["processor"]] * 2
    assert not [name for name in sys.modules if name.startswith("ray.data")]
    on_node = ray.remote(num_cpus=1)(lambda: [name for name in sys.modules if name.startswith("ray.data")])
    assert ray.get(on_node.remote()) == []


def test_commands_train_on_the_cluster_and_print_what_they_print_on_one_machine(
    machines: Machines, digits: ImageDataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = list[list[str]]()
    clear = CheckpointStore.clear

    def look_and_clear(store: CheckpointStore) -> None:
        kept.append([name for name, _ in store.newest()])
        clear(store)

    monkeypatch.setattr(CheckpointStore, "clear", look_and_clear)
    monkeypatch.setattr(studies, "write_study_page", lambda *given: None)
    store, small = tmp_path / "store", ["--set", "network.widths=[8,8,8]", "--set", "training.epochs=3"]
    cluster = ["--executor", "ray", "--checkpoint-store", f"file://{store}", "--checkpoint-every", "0"]
    axes = ["--vary", "optimiser.lr=0.001,0.003", "--seeds", "1", *small]
    grid = CliRunner().invoke(main, ["grid", "digits", *axes, *cluster, "--out", str(tmp_path / "grid")])
    assert grid.exit_code == 0, grid.output
    assert [len(names) for names in kept] == [2, 2]  # the newest two of each member, in the store
    assert not [path for path in store.rglob("*") if path.is_file()]  # and no more once it is trained
    before, larger = received_by_nodes(), digits.train.pixels.repeat(6, axis=1).repeat(6, axis=2)  # 3 MB
    np.savez(tmp_path / "larger.npz", images=larger, labels=digits.train.labels)
    few = ["--members", "3", "--set", "holdout.folds=3", *small, "--epochs", "1"]
    run = [*few, *cluster[:2], "--json", "--out", str(tmp_path / "run")]
    trained = CliRunner().invoke(main, ["train", str(tmp_path / "larger.npz"), *run])
    assert trained.exit_code == 0, trained.output
    assert json.loads(trained.stdout)
    assert re.search(r"at a time on \d nodes? of a Ray cluster", trained.stderr)
    training_part = larger.nbytes * 0.8
    for node, received in received_by_nodes().items():  # the images came once, whatever number of members trains there
        assert received - before[node] < 1.9 * training_part


# --- without a cluster ------------------------------------------------------------------------------------------------


def checkpoint(epoch: int, content: bytes) -> tuple[str, bytes]:
    """One with a name as `MemberFolder` gives it."""
    return f"checkpoint-{epoch:05d}-000000-{sha256(content).hexdigest()[:16]}.safetensors", content


def test_a_start_that_was_given_up_for_lost_changes_nothing(tmp_path: Path) -> None:
    pytest.importorskip("fsspec")
    lost, second = (CheckpointStore(str(tmp_path), "run", "-00", start) for start in ("a", "b"))
    one, two, three, four = (checkpoint(epoch, bytes([epoch])) for epoch in range(4))
    lost.write(*one)
    lost.write(*two)
    assert second.newest() == [two, one]
    second.write(*three)
    second.write(*four)
    for epoch in (5, 6, 7):  # the lost one gets further, and dies while it writes
        lost.write(checkpoint(epoch, b"whole")[0], b"cut off")
    assert second.newest() == [four, three]
    other = CheckpointStore(str(tmp_path), "run", "-01", "c")
    other.write(*one)
    second.clear()
    assert second.newest() == []
    assert other.newest() == [one]


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--address", "local"], "--address is for a cluster; give --executor ray, too"),
        (["--gpu-share", ".5"], "--gpu-share is for a cluster"),
        (["--executor", "ray", "--address", "ray://head:10001"], "run this command on a node"),
        (["--executor", "ray", "--address", "127.0.0.1:1"], "no Ray cluster answers at 127.0.0.1:1"),
    ],
)
def test_a_cluster_that_cannot_be_had_is_refused_in_a_sentence(options: list[str], said: str, tmp_path: Path) -> None:
    pytest.importorskip("ray")
    done = CliRunner().invoke(main, ["train", "digits", *options, "--out", str(tmp_path / "run")])
    assert done.exit_code == 2
    assert said in done.stderr
    assert not (tmp_path / "run").exists()


def test_a_member_that_is_lost_again_and_again_is_given_up_unless_it_gets_further(tmp_path: Path) -> None:
    nothing = np.empty(0, np.int64)
    job = Job(RECIPE, 1, 0, ABSENT, nothing, 10, "cpu", "float32", folder=MemberFolder(tmp_path / "members" / "01"))
    tasks = Tasks(None, Cluster(), "torch", [], deque(), 0.0)
    start = Start([job], [None], "a")
    for _ in range(3):
        for _ in range(MOST_STARTS - 1):
            (remark,) = tasks.lost(start, "its node a was lost")
            assert isinstance(remark, Remark)
        assert list(tasks.taken(Saved(1, "checkpoint", None), start)) == []
    found = [*(each for _ in range(MOST_STARTS) for each in tasks.lost(start, "its node a was lost"))]
    assert [type(each) for each in found] == [Remark, Remark, Died]
    assert found[-1] == Died(1, "its node a was lost, the third time without a newer checkpoint")
    assert len(tasks.waiting) == 4 * (MOST_STARTS - 1)


def test_nodes_that_would_give_other_bits_are_left_out() -> None:
    node = NodeReport(NodeRecord(name="a", processor="b", cores=2), version, "2.13.0", ("avx512", "avx2", "torch"))
    assert reason_unfit(node, "2.13.0", "avx2") == ""
    assert "no kernels avx512bf16, only avx512, avx2, torch" in reason_unfit(node, "2.13.0", "avx512bf16")
    assert "torch 2.13.0 where this machine has 2.14.0" in reason_unfit(node, "2.14.0", "avx2")
    assert "committee 0.1" in reason_unfit(replace(node, committee="0.1"), "2.13.0", "avx2")


@pytest.mark.parametrize(
    ("gpus", "share", "expected"), [(1, None, [16, 4]), (8, None, [3, 3, 3, 3, 3, 3, 2]), (2, 0.25, [1] * 20)]
)
def test_gpus_are_shared_by_stacks_or_by_fractions(gpus: int, share: float | None, expected: list[int]) -> None:
    nodes = Nodes("cuda", (NodeRecord(name="a", processor="b", cores=2, gpus=gpus),), (), gpus)
    nothing = np.empty(0, np.int64)
    jobs = [Job(RECIPE, member, 0, ABSENT, nothing, 10, "cuda", "bfloat16") for member in range(20)]
    assert [len(each) for each in tasks_of(jobs, Cluster(gpu_share=share), nodes)] == expected
    assert nodes.room(share) == (8 if share else gpus)


# --- the long form ----------------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_a_member_whose_process_dies_again_and_again_is_left_out_and_trained_by_the_same_call(
    machines: Machines, digits: ImageDataset, by_processes: dict[str, bytes], tmp_path: Path
) -> None:
    events = list[Event]()
    with killing(1, times=MOST_STARTS) as killed:
        results = committee.train(digits, RECIPE, tmp_path / "run", SETTING, on_event=events.append)
    assert len(killed) == MOST_STARTS
    assert [row.status for row in results.members] == ["finished", "died", "finished", "finished"]
    (death,) = (event for event in events if isinstance(event, Died))
    assert re.fullmatch("its worker process on the node .* died, the third time without a newer checkpoint", death.why)
    assert results.test is None  # sealed until the committee is whole
    committee.train(digits, RECIPE, tmp_path / "run", SETTING)
    assert arrays(tmp_path / "run") == by_processes


@pytest.mark.soak
def test_fifty_nodes_are_killed_and_no_byte_is_another(
    machines: Machines, digits: ImageDataset, tmp_path: Path
) -> None:
    recipe = committee.load_recipe("standard", [*CHANGES, "network.widths=[16,16,16]", "training.epochs=40"])
    committee.train(digits, recipe, tmp_path / "processes", committee.Setting(workers=2))
    expected, kills, runs, lost, resumed = arrays(tmp_path / "processes"), 0, 0, 0, 0
    while len(machines.nodes) < 2:
        machines.join()
    while kills < 50:
        further = set[int]()  # members that got further since the last kill

        def watch(event: Event, further: set[int] = further) -> None:
            nonlocal kills, lost, resumed
            if isinstance(event, Remark):
                lost += "was lost" in event.text
                resumed += bool(event.epochs)
            if isinstance(event, EpochDone):
                further.add(event.member)
            if isinstance(event, Finished):
                further.discard(event.member)
            if len(further) == 2 and kills < 50:
                kills += 1
                further.clear()
                machines.kill()
                machines.join()

        run = tmp_path / str(runs)
        results = committee.train(digits, recipe, run, SETTING, on_event=watch)
        assert [row.status for row in results.members] == ["finished"] * MEMBERS
        assert arrays(run) == expected
        shutil.rmtree(run)
        runs += 1
    print(f"{kills} nodes killed in {runs} runs; {lost} members lost their node, {resumed} went on from a checkpoint")
    assert lost >= 40
    assert resumed >= 40
