"""A real server in a process of its own, and raw connections to it."""

from __future__ import annotations

import os
import queue
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx

ROOT = Path(__file__).parents[2]


@dataclass
class Server:
    """A running server: its process, its port, and what it printed."""

    process: subprocess.Popen[str]
    lines: list[str] = field(default_factory=list)
    port: int = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def client(self, **options: object) -> httpx.Client:
        return httpx.Client(base_url=self.url, timeout=30, **options)  # type: ignore[arg-type]

    def connect(self, seconds: float = 10) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), seconds)

    def memory(self) -> float:
        """Its highest memory so far, in MB."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) / 1000

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Ask it to end; its exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)


@contextmanager
def serving(model: Path, *options: str, ready: bool = True, env: dict[str, str] | None = None) -> Iterator[Server]:
    """`committee serve` of a model on a free port, ready to answer."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # as a shell's background jobs do, and theirs after them
        signal.signal(signal.SIGINT, signal.default_int_handler)
    command = [sys.executable, "-m", "committee", "serve", str(model), "--port", "0", *options]
    path = os.pathsep.join([str(ROOT / "src"), *filter(None, [os.environ.get("PYTHONPATH")])])
    process = subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONPATH": path, **(env or {})},
    )
    server, said = Server(process), queue.Queue[str]()

    def listen() -> None:
        assert process.stdout is not None
        for line in process.stdout:
            server.lines.append(line.rstrip())
            said.put(line)
        said.put("")

    reader = threading.Thread(target=listen, daemon=True)
    reader.start()
    try:
        deadline = time.monotonic() + 60
        while line := said.get(timeout=max(0.1, deadline - time.monotonic())):
            if line.startswith("Listening on"):
                server.port = int(line.partition(";")[0].rpartition(":")[2])
                if not ready:
                    break
            if line.startswith("Ready"):
                break
        else:
            raise AssertionError("\n".join(server.lines))
        yield server
    finally:
        if process.poll() is None:
            process.kill()
        process.wait()
        reader.join(5)
        if process.stdout is not None:
            process.stdout.close()
