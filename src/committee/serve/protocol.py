"""HTTP/1.1 with bounds on time and on connections: uvicorn's protocol on httptools, whose clients must not be too slow.

Uvicorn waits for headers and bodies for ever, and takes headers of any length and any number of connections. Here one
sweep, several times a second, looks at all connections, and a new one beyond the limit takes the place of the one that
has asked for nothing for longest.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from typing import Literal, cast

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from committee.serve.limits import ServeLimits

SWEEP = 0.25
"""Seconds between two looks at all connections."""

LINGER = 2.0
"""Seconds in which a client may still send what nobody reads, or has to take what it was sent, before it is cut off."""

REST_BYTES = 2**20
"""The most of a body that is read only to be thrown away, so that a client that is nearly done hears why."""

HEADER_BYTES = 2**16
"""The most bytes of a request's line and headers, as far as they do not come at once."""

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
TOO_LONG = b"HTTP/1.1 431 Request Header Fields Too Large\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"

Awaited = Literal["nothing", "headers", "body", "rest", "answer"]
"""What comes next on a connection: the client's next request or nothing, the rest of one, a rest that nobody reads; or
it is the server's turn."""


class JoinedWrites:
    """A transport that hands on together what is written in one turn of the event loop: headers and body of an answer.

    A system call takes as long as a good part of the rest.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport, self._loop, self._parts = transport, loop, list[bytes]()

    def write(self, data: bytes) -> None:
        """Send something, in this turn of the event loop."""
        if not self._parts:
            self._loop.call_soon(self.flush)
        self._parts.append(data)

    def flush(self) -> None:
        """Send what was written."""
        parts, self._parts = self._parts, []
        if parts and not self._transport.is_closing():
            self._transport.write(b"".join(parts))

    def close(self) -> None:
        """Close the connection when all is sent."""
        self.flush()
        self._transport.close()

    def __getattr__(self, name: str) -> object:
        return getattr(self._transport, name)


class BoundedProtocol(HttpToolsProtocol):
    """A connection that knows for how long it has waited for its client.

    Attributes:
        limits: how long it may; set by `bounded`.
        ending: whether the server is to end, so that the next answer is the last.
        awaited: what comes next.
        since: since when.
        received: bytes of it.
    """

    limits: ServeLimits
    ending = False
    awaited: Awaited = "headers"
    since, received = 0.0, 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; where there are too many, another one has to go."""
        super().connection_made(cast(asyncio.Transport, JoinedWrites(transport, self.loop)))
        self.since = time.monotonic()
        if len(self.connections) > self.limits.connections:
            others = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each.is_busy]
            min(others, key=lambda each: each.since, default=self).transport.abort()

    @property
    def is_busy(self) -> bool:
        """Whether a whole request is being answered."""
        return self.awaited == "answer"

    def has_idled(self, seconds: float) -> bool:
        """Whether nothing is under way, and nothing has come for so long."""
        return self.awaited != "answer" and time.monotonic() - self.since > seconds

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        if self.awaited == "nothing":
            self._await("headers")
        self.received += len(data)
        super().data_received(data)
        if self.awaited == "headers" and self.received > HEADER_BYTES:
            self._end(TOO_LONG)
        elif self.awaited == "rest" and self.received > REST_BYTES:
            self.flow.pause_reading()

    def on_message_begin(self) -> None:
        """The first bytes of a request."""
        super().on_message_begin()
        self._await("headers")

    def on_headers_complete(self) -> None:
        """The headers of a request."""
        super().on_headers_complete()
        self._await("body")
        if self.ending:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        """The end of a request; one that was refused before its end is over now."""
        answered = self.cycle.response_complete
        super().on_message_complete()
        self._await("nothing" if answered else "answer")

    def on_response_complete(self) -> None:
        """An answer is given."""
        super().on_response_complete()
        self._await("rest" if self.awaited == "body" else "answer" if self.pipeline else "nothing")

    def end(self) -> None:
        """The server is to end: the answer under way is the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _await(self, what: Awaited) -> None:
        if what != self.awaited:
            self.awaited, self.since, self.received = what, time.monotonic(), 0

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been too slow."""
        waited, limits = now - self.since, self.limits
        if self.transport.is_closing() or self.awaited == "rest":
            if waited > LINGER:
                self.transport.abort()
        elif (self.awaited == "headers" and waited > limits.header_seconds) or (
            self.awaited == "body" and waited > limits.body_seconds + self.received / limits.body_rate
        ):
            self._end(TOO_SLOW)
        elif self.transport.get_write_buffer_size() and waited > limits.body_seconds:
            self.transport.abort()  # it does not take its answer

    def _end(self, answer: bytes) -> None:
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            self.transport.write(answer)
        self.transport.close()
        self.awaited, self.since = "nothing", time.monotonic()


def bounded(limits: ServeLimits, connections: int) -> type[BoundedProtocol]:
    """The protocol with these limits, and with as many connections as there are files for."""
    return type("Bounded", (BoundedProtocol,), {"limits": replace(limits, connections=connections)})
