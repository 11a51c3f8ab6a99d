"""B11, serving: requests a second and latencies, at 1, 8 and 64 clients, for committees of 1, 5 and 10 members.

    python bench/serving.py [--rounds 3] [--seconds 4] [--sizes 1,5,10] [--clients 1,8,64] [--peers PYTHON]

`committee serve` with this project's engine and with ONNX Runtime, beside LitServe and BentoML with the same .onnx file
and the same request: a PNG of 28x28 in base64, inside JSON, answered with the probabilities of all classes (ours adds
each member's vote and more). Clients keep their connections, ask again as soon as they are answered, and are one
process beside the server's, so that all share the machine's cores. Peers batch across requests as ours does; of each,
every sensible setting is first run once for each size of committee, and the best one takes part in the rounds, in which
the tools take turns.

The peers live in an environment of their own, which is made if none is given: PYTHON is its interpreter. The members
are trained for one epoch, which changes no time.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import json
import os
import re
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from PIL import Image
from side_by_side import SPREAD, spread, write

PEERS = Path(__file__).parent / "peers"
VERSIONS = ("litserve==0.2.19", "bentoml==1.4.40", "onnxruntime==1.32.0", "numpy==2.4.6", "pillow==13.0.0")
OURS, ONNX = "committee, its engine", "committee, ONNX Runtime"
GOAL = 1.5  # times the requests a second of the best peer, at the largest number of clients


@dataclass(frozen=True)
class Tool:
    """A server: its command, with {run}, {model}, {port} and {python} in it, and the path that it answers at."""

    name: str
    setting: str
    command: tuple[str, ...]
    path: str
    environment: dict[str, str] = field(default_factory=dict)


def tools() -> list[Tool]:
    ours = (sys.executable, "-m", "committee", "serve")
    found = [
        Tool(OURS, "defaults", (*ours, "{run}", "--port", "{port}", "--no-corrections"), "/v1/predict"),
        Tool(ONNX, "defaults", (*ours, "{model}", "--port", "{port}", "--no-corrections"), "/v1/predict"),
    ]
    for batch, workers, threads in ((64, 1, 2), (64, 1, 1), (64, 2, 1), (1, 2, 1)):
        setting = f"batches of {batch}, {workers} workers, {threads} threads"
        numbers = (str(batch), str(workers), str(threads))
        litserve = ("{python}", str(PEERS / "litserve_peer.py"), "{model}", "{port}", *numbers)
        found.append(Tool("LitServe", setting, litserve, "/predict"))
        bentoml = ("{python}", "-m", "bentoml", "serve", "bentoml_peer:Committee", "--host", "127.0.0.1", "--port")
        names = dict(zip(("BATCH", "WORKERS", "THREADS"), numbers, strict=True))
        environment = {**names, "MODEL": "{model}", "BENTOML_DO_NOT_TRACK": "True"}
        found.append(Tool("BentoML", setting, (*bentoml, "{port}"), "/predict", environment))
    return found


def request(path: str) -> bytes:
    """A request of one image as it goes over the wire."""
    pixels = np.zeros((28, 28), np.uint8)
    pixels[4:24, 13:16] = 255  # a 1
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, "PNG")
    body = json.dumps({"images": [base64.b64encode(content.getvalue()).decode()]}).encode()
    lines = (
        f"POST {path} HTTP/1.1",
        "Host: 127.0.0.1",
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
    )
    return "\r\n".join((*lines, "", "")).encode() + body


async def load(port: int, path: str, clients: int, seconds: float) -> dict[str, float]:
    """Requests a second, and milliseconds of the median request and of the 99th percentile."""
    asked, latencies, failed = request(path), list[float](), list[bytes]()

    counted = time.perf_counter() + min(1.0, seconds / 4)  # what is asked before it warms the server up
    end = counted + seconds

    async def client() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while (began := time.perf_counter()) < end:
            writer.write(asked)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            await reader.readexactly(int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            if began >= counted:
                latencies.append(time.perf_counter() - began)
            if not head.startswith(b"http/1.1 200"):
                failed.append(head[:15])
        writer.close()

    await asyncio.gather(*(client() for _ in range(clients)))
    took = time.perf_counter() - counted
    if failed or not latencies:
        raise RuntimeError(f"{len(failed)} requests failed beside {len(latencies)} that were counted: {failed[:1]}")
    latencies.sort()
    middle, late = latencies[len(latencies) // 2], latencies[int(0.99 * len(latencies))]
    return {"requests_per_second": len(latencies) / took, "p50_ms": 1000 * middle, "p99_ms": 1000 * late}


@contextlib.contextmanager
def running(tool: Tool, run: Path, model: Path, python: str) -> Iterator[int]:
    """The server, ready to answer; its port."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    places = {"{run}": str(run), "{model}": str(model), "{port}": str(port), "{python}": python}

    def filled(text: str) -> str:
        return re.sub(r"\{\w+\}", lambda found: places.get(found[0], found[0]), text)

    environment = {**os.environ, **{name: filled(each) for name, each in tool.environment.items()}}
    command = [filled(each) for each in tool.command]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command, stdout=said, stderr=said, env=environment, cwd=PEERS, start_new_session=True
        )
        try:
            for _ in range(240):
                try:
                    asyncio.run(asyncio.wait_for(load(port, tool.path, 1, 0.05), 5))
                    break
                except (OSError, TimeoutError, RuntimeError, asyncio.IncompleteReadError, ValueError):
                    if process.poll() is not None:
                        said.seek(0)
                        raise RuntimeError(f"{tool.name} ended: {said.read().decode()[-2000:]}") from None
                    time.sleep(0.25)
            else:
                raise RuntimeError(f"{tool.name} does not answer")
            yield port
        finally:
            os.killpg(process.pid, signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)  # of its own session alone: workers that outlive it
            process.wait()


def measure(
    tool: Tool, run: Path, model: Path, python: str, clients: Sequence[int], seconds: float
) -> dict[int, dict[str, float]]:
    """The figures at each number of clients, whose process is a fresh one."""
    figures = {}
    with running(tool, run, model, python) as port:
        for number in clients:
            command = [sys.executable, __file__, "--load", f"{port},{tool.path},{number},{seconds}"]
            figures[number] = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    return figures


def peers_python(folder: Path) -> str:
    """The interpreter of an environment with the peers, which is made."""
    print("installing LitServe and BentoML ...", flush=True)
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    python = str(folder / "bin" / "python")
    subprocess.run([python, "-m", "pip", "install", "--quiet", *VERSIONS], check=True)
    return python


def committee_of(members: int, folder: Path) -> tuple[Path, Path]:
    """A run of so many members, and its export."""
    run, model = folder / f"members-{members}", folder / f"members-{members}.onnx"
    command = [sys.executable, "-m", "committee"]
    options = ["--members", str(members), "--epochs", "1", "--keep-sealed", "--out", str(run)]
    for each in (["train", "mnist-5k", *options], ["export", str(run), str(model)]):
        subprocess.run([*command, *each], check=True, capture_output=True)
    return run, model


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--sizes", default="1,5,10")
    parser.add_argument("--clients", default="1,8,64")
    parser.add_argument("--peers", default="")
    parser.add_argument("--no-write", action="store_true", help="for trials")
    parser.add_argument("--load", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.load:
        port, path, clients, seconds = options.load.split(",")
        print(json.dumps(asyncio.run(load(int(port), path, int(clients), float(seconds)))))
        return
    sizes, clients = ([int(each) for each in text.split(",")] for text in (options.sizes, options.clients))
    most = max(clients)
    results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        python = options.peers or peers_python(folder / "peers")
        settings: dict[str, dict[str, str]] = {}
        for members in sizes:
            run, model = committee_of(members, folder)
            best = surveyed(run, model, python, most)
            found: dict[str, list[dict[int, dict[str, float]]]] = {name: [] for name in best}
            for turn in range(options.rounds):
                for name, tool in best.items():
                    found[name].append(measure(tool, run, model, python, clients, options.seconds))
                    print(f"round {turn + 1}  {members} members  {name}: {found[name][-1]}", flush=True)
            results[str(members)] = summary(members, found, clients)
            settings[str(members)] = {name: tool.setting for name, tool in best.items()}
    goal = {}
    for size, by_clients in results.items():
        at_most = {name: each["requests_per_second"] for name, each in by_clients[str(most)].items()}
        peer = max((each for name, each in at_most.items() if name not in (OURS, ONNX)), default=float("nan"))
        goal[size] = max(at_most.get(OURS, 0.0), at_most.get(ONNX, 0.0)) / peer
        print(f"{size} members, {most} clients: {goal[size]:.2f} times the best peer's requests (goal {GOAL})")
    if not options.no_write:
        about = {"benchmark": "B11", "peers": VERSIONS, "settings": settings, "seconds": options.seconds}
        write("serving", {**about, "members": results, "ours_over_best_peer": goal})


def surveyed(run: Path, model: Path, python: str, clients: int) -> dict[str, Tool]:
    """Each tool in the setting that answers most requests of so many clients."""
    best: dict[str, tuple[float, Tool]] = {}
    for tool in tools():
        try:
            speed = measure(tool, run, model, python, [clients], 2.0)[clients]["requests_per_second"]
        except (RuntimeError, subprocess.CalledProcessError) as error:
            print(f"survey  {tool.name:24} {tool.setting:36} {error}", flush=True)
            continue
        print(f"survey  {tool.name:24} {tool.setting:36} {speed:8,.0f} requests/s", flush=True)
        best[tool.name] = max(best.get(tool.name, (0.0, tool)), (speed, tool), key=lambda each: each[0])
    return {name: tool for name, (_, tool) in best.items()}


def summary(
    members: int, found: dict[str, list[dict[int, dict[str, float]]]], clients: Sequence[int]
) -> dict[str, dict[str, dict[str, float]]]:
    """Medians over the rounds: clients -> tool -> figures; printed, and as a value."""
    result: dict[str, dict[str, dict[str, float]]] = {}
    for number in clients:
        for name, rounds in found.items():
            each = [one[number] for one in rounds]
            figures = {figure: statistics.median(one[figure] for one in each) for figure in each[0]}
            figures |= {"rounds": len(each), "spread": spread([one["requests_per_second"] for one in each])}
            result.setdefault(str(number), {})[name] = figures
            print(
                f"{members:3} members {number:4} clients  {name:24} {figures['requests_per_second']:8,.0f} requests/s  "
                f"p50 {figures['p50_ms']:7.2f} ms  p99 {figures['p99_ms']:7.2f} ms  spread {figures['spread']:.0%}"
                f"{' (wide)' if figures['spread'] > SPREAD else ''}"
            )
    return result


if __name__ == "__main__":
    main()
