"""Many clients in one thread: connections that ask as fast as they are answered, and connections that are slow."""

from __future__ import annotations

import asyncio
import json
import resource
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

SLOW_HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


@dataclass
class Outcome:
    """What clients met: the number of each status, "refused" (no connection) and "lost" (no answer); seconds of each
    answer; answers that were wrong.
    """

    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def percentile(self, share: float) -> float:
        return sorted(self.seconds)[min(len(self.seconds) - 1, int(share * len(self.seconds)))]

    def text(self) -> str:
        return f"{dict(self.counts)}, p50 {self.percentile(0.5):.3f} s, p99 {self.percentile(0.99):.3f} s"


def allow_files(number: int = 4096) -> None:
    """As many open connections as the tests need."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < number:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(number, hard), hard))


def request(images: Sequence[object]) -> bytes:
    """A request for predictions as it goes over the wire."""
    body = json.dumps({"images": images}).encode()
    return SLOW_HEAD + b"Content-Length: %d\r\n\r\n" % len(body) + body


async def answer(reader: asyncio.StreamReader) -> tuple[int, bool, bytes]:
    """A response: its status, whether the connection stays, its content."""
    head = (await reader.readuntil(b"\r\n\r\n")).lower()
    length = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0])
    return int(head[9:12]), b"connection: close" not in head, await reader.readexactly(length)


async def ask_until(
    end: float,
    port: int,
    asked: Sequence[tuple[bytes, object]],
    start: int,
    outcome: Outcome,
    pause: float = 0.0,
    tolerance: float = 0.0,
) -> None:
    """One client, on one connection as long as it stays: asks until a time, and compares what it gets.

    Args:
        end: by time.monotonic.
        port: of the server.
        asked: requests and the probabilities that are right.
        start: of these the first one.
        outcome: where it is counted.
        pause: seconds between an answer and the next question.
        tolerance: of a probability.
    """
    writer: asyncio.StreamWriter | None = None
    while time.monotonic() < end:
        sent, expected = asked[start % len(asked)]
        start += 1
        began = time.monotonic()
        try:
            if writer is None:
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError as error:  # a connection that is reset before anything is sent has asked for nothing
            outcome.counts["refused" if isinstance(error, ConnectionRefusedError) else "reset"] += 1
            await asyncio.sleep(0.02)
            continue
        try:
            writer.write(sent)
            status, stays, content = await asyncio.wait_for(answer(reader), 30)
        except (OSError, asyncio.IncompleteReadError, TimeoutError) as error:
            outcome.counts["lost"] += 1
            outcome.wrong.append(repr(error))
            writer.close()
            writer = None
            continue
        outcome.counts[str(status)] += 1
        outcome.seconds.append(time.monotonic() - began)
        if status == 200:
            got = [list(each["probabilities"].values()) for each in json.loads(content)["answers"]]
            if got != expected and not (tolerance and np.abs(np.subtract(got, expected)).max() < tolerance):
                outcome.wrong.append(f"{got} is not {expected}")
        else:
            await asyncio.sleep(0.05)
        if not stays:
            writer.close()
            writer = None
        await asyncio.sleep(pause)
    if writer is not None:
        writer.close()


async def crowd(port: int, clients: int, seconds: float, asked: Sequence[tuple[bytes, object]]) -> Outcome:
    """Many clients that ask at once."""
    outcome, end = Outcome(), time.monotonic() + seconds
    await asyncio.gather(*(ask_until(end, port, asked, number, outcome) for number in range(clients)))
    return outcome


async def dawdle(port: int, kind: int, end: float) -> bool:
    """A slow client: one that sends its headers a byte at a time, one its body, one nothing, one that takes no answer.

    Returns:
        whether the server closed the connection before the end.
    """
    try:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
    except OSError:
        return True
    try:
        if kind == 1:
            writer.write(SLOW_HEAD + b"Content-Length: 100000\r\n\r\n")
        rest = {
            0: SLOW_HEAD,
            1: b"x" * 10_000,
            2: b"",
            3: b"GET /openapi.json HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n" * 50,
        }[kind]
        if kind == 3:
            writer.write(rest)
        place = 0
        while time.monotonic() < end:
            if kind in (0, 1):
                writer.write(rest[place : place + 1])
                place += 1
            await asyncio.sleep(0.25)
            if kind != 3 and reader.at_eof():
                return True
            if writer.transport.is_closing():
                return True
            if kind != 3 and len(reader._buffer):  # type: ignore[attr-defined]  # a 408
                await reader.read(4096)
    except OSError:
        return True
    finally:
        writer.transport.abort()
    return False
