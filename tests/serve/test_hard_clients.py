"""Slow clients, huge uploads, restarts and crowds: good clients get right answers, in time, and memory stays bounded.

The long forms (`make soak`) are those of the figures in docs/serve.md.
"""

from __future__ import annotations

import asyncio
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import uploads as uploads_script
from clients import SLOW_HEAD, Outcome, allow_files, ask_until, crowd, dawdle, request
from server_process import Server, serving

import committee
from committee.folders.run_folder import RunFolder

Asked = Sequence[tuple[bytes, object]]

MEGABYTES = 100
TOLERANCE = 1e-6  # of an exported committee, whose last bits depend on an image's company


def questions(path: Path, images: np.ndarray) -> Asked:
    """Requests of one to three images, and the probabilities that `predict` gives for them."""
    members = committee.load(path)
    groups = [images[start : start + 1 + start % 3] for start in range(60)]
    return [
        (request(group.tolist()), members.predict_proba(np.ascontiguousarray(group[..., None])).tolist())
        for group in groups
    ]


@pytest.fixture(scope="session")
def asked(exported: Path, images: np.ndarray) -> Asked:
    return questions(exported, images)


def report(name: str, text: str) -> None:
    """A figure for whoever runs the long forms."""
    print(f"\n{name}: {text}")


# --- slow clients -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("slow", "places", "seconds"),
    [
        (150, 100, 3.2),
        pytest.param(1000, 2000, 60.0, marks=pytest.mark.soak),
        pytest.param(1000, 500, 60.0, marks=pytest.mark.soak),
    ],
)
def test_slow_clients_keep_nobody_from_being_answered(
    slow: int, places: int, seconds: float, exported: Path, asked: Asked
) -> None:
    async def attack(port: int) -> tuple[Outcome, int]:
        end = time.monotonic() + seconds
        slow_ones = [asyncio.create_task(dawdle(port, number % 4, end)) for number in range(slow)]
        await asyncio.sleep(0.5)
        good = Outcome()
        await asyncio.gather(*(ask_until(end, port, asked, number, good, 0.02, TOLERANCE) for number in range(8)))
        return good, sum(await asyncio.gather(*slow_ones))

    allow_files()
    options = ("--read-timeout", "2s", "--max-connections", str(places), "--no-corrections")
    with serving(exported, *options) as server:
        good, closed = asyncio.run(attack(server.port))
        assert server.stop() == 143
    report("slow clients", f"{slow} of them, {places} places: {good.text()}; {closed} were closed")
    total = sum(good.counts.values())
    assert total > 20 * seconds
    assert good.counts["200"] >= 0.99 * total
    assert good.percentile(0.99) < 1.0
    assert not good.wrong[: total // 100]
    assert closed > 0.5 * slow  # those that send nothing, and those that do so slowly


def sends_for_ever(connection: socket.socket) -> int:
    """Bytes of a header that a server takes before it ends the connection."""
    for sent in range(0, 10_000_000, 1000):
        try:
            connection.sendall(b"x" * 1000)
        except OSError:
            return sent
        time.sleep(0.0005)
    return sent


def test_a_connection_ends_whose_client_does_not_go_on(server: Server) -> None:
    beginnings = {
        "nothing": b"",
        "headers": SLOW_HEAD,
        "a body": SLOW_HEAD + b"Content-Length: 100\r\n\r\n{",
        "a chunk": SLOW_HEAD + b"Transfer-Encoding: chunked\r\n\r\n5\r\n{",
    }
    sockets = {name: server.connect() for name in beginnings}
    for name, each in sockets.items():
        each.sendall(beginnings[name])
    began = time.monotonic()
    for name, each in sockets.items():
        each.settimeout(8)
        assert each.recv(100).startswith(b"HTTP/1.1 408"), name
        assert each.recv(100) == b""
        each.close()
    assert 1.5 < time.monotonic() - began < 4
    endless = server.connect()
    with endless:
        assert sends_for_ever(endless) < 1_000_000


# --- huge uploads -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("uploads", [8, pytest.param(50, marks=pytest.mark.soak)])
def test_huge_uploads_take_no_memory(uploads: int, exported: Path, asked: Asked) -> None:
    with serving(exported, "--no-corrections") as server:
        asyncio.run(crowd(server.port, 8, 0.3, asked))
        before = server.memory()
        command = [sys.executable, uploads_script.__file__, str(server.port), str(uploads)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as uploading:
            good = asyncio.run(crowd(server.port, 2, 2, asked))
            heads = json.loads(uploading.communicate()[0])
        grown = server.memory() - before
        with server.client() as client:
            metrics = client.get("/metrics").text
        assert server.stop() == 143
    report("uploads of 1 GiB", f"{uploads} of them: {grown:.0f} MB more, answered {set(heads)}; others {good.text()}")
    assert grown < MEGABYTES
    assert len(heads) == uploads
    assert set(heads) <= {"HTTP/1.1 413", "HTTP/1.1 503"}
    assert good.percentile(0.99) < 1.0
    assert set(good.counts) == {"200"}
    assert "committee_buffered_bytes 0" in metrics


# --- restarts ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("restarts", [2, pytest.param(100, marks=pytest.mark.soak)])
def test_restarts_under_load_lose_no_accepted_request(restarts: int, exported: Path, asked: Asked) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    outcome, done = Outcome(), threading.Event()

    def load() -> None:
        async def clients() -> None:
            async def one(number: int) -> None:
                while not done.is_set():
                    await ask_until(time.monotonic() + 0.5, port, asked, number, outcome, 0.0, TOLERANCE)

            await asyncio.gather(*map(one, range(16)))

        asyncio.run(clients())

    thread = threading.Thread(target=load)
    thread.start()
    try:
        for _ in range(restarts):
            with serving(exported, "--port", str(port), "--no-corrections") as server:
                time.sleep(0.5)
                assert server.stop() == 143
    finally:
        done.set()
        thread.join()
    report("restarts", f"{restarts} of them: {outcome.text()}")
    assert outcome.counts["200"] > 50 * restarts
    assert outcome.counts["lost"] == 0, outcome.wrong[:3]
    assert not outcome.wrong
    assert set(outcome.counts) <= {"200", "503", "refused", "reset"}


# --- a crowd ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("clients", "seconds"), [(100, 1.0), pytest.param(1000, 30.0, marks=pytest.mark.soak)])
def test_a_crowd_gets_right_answers_or_is_told_to_come_again(
    clients: int, seconds: float, run: RunFolder, images: np.ndarray
) -> None:
    allow_files()
    asked = questions(run.path, images)  # of this project's engine: answers are right to the last bit
    with serving(run.path, "--max-queue", str(clients), "--no-corrections") as server:
        outcome = asyncio.run(crowd(server.port, clients, seconds, asked))
        assert server.stop() == 143
    report("a crowd", f"{clients} clients for {seconds:g} s: {outcome.text()}")
    assert not outcome.wrong
    assert set(outcome.counts) <= {"200", "503"}
    assert outcome.counts["200"] > 100 * seconds
