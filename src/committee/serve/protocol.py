"""HTTP/1.1 with bounds on time: a connection of uvicorn that is closed when its client is too slow.

Uvicorn waits for headers and bodies for ever, and takes any number of connections. Here one sweep, several times a
second, looks at all connections, and a new one beyond the limit takes the place of the one that has idled longest.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from committee.serve.limits import ServeLimits

SWEEP = 0.25
"""Seconds between two looks at all connections."""

LINGER = 2.0
"""Seconds in which a client may still send what nobody reads, or has to take what it was sent, before it is cut off."""

TOO_SLOW = b"HTTP/1.1 408 Request Timeout\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"


class BoundedProtocol(H11Protocol):
    """A connection that knows for how long it has waited for its client.

    Attributes:
        limits: how long it may; set by `bounded`.
        since: when the wait for what the client has to do next began.
        received: bytes of the body since then.
        ending: whether the server is to end, so that the next answer is the last.
    """

    limits: ServeLimits
    ending = False
    since, received, waits_for = 0.0, 0, "headers"

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """A client has come; where there are too many, another one has to go."""
        super().connection_made(transport)
        self.since = time.monotonic()
        if len(self.connections) > self.limits.connections:
            waiting = [each for each in self.connections if isinstance(each, BoundedProtocol) and not each.is_served]
            min(waiting, key=lambda each: each.since, default=self).transport.abort()

    @property
    def is_served(self) -> bool:
        """Whether a whole request is being answered."""
        return self.waits_for == "answer"

    def data_received(self, data: bytes) -> None:
        """Bytes of the client."""
        self.received += len(data)
        if self.waits_for == "idle":
            self._wait("headers")
        super().data_received(data)
        self._look()

    def on_response_complete(self) -> None:
        """An answer is given."""
        super().on_response_complete()
        self._look()

    def handle_events(self) -> None:
        """What has come so far; once the server is to end, an answer is the connection's last."""
        super().handle_events()
        if self.ending:
            self.end()

    def end(self) -> None:
        """The server is to end: the answer under way is the last one."""
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.keep_alive = False

    def _wait(self, what: str) -> None:
        if what != self.waits_for:
            self.waits_for, self.since, self.received = what, time.monotonic(), 0

    def _look(self) -> None:
        """What the connection waits for now."""
        ours, theirs = self.conn.our_state, self.conn.their_state
        if self.transport.is_closing():
            self._wait("end")
        elif theirs is h11.SEND_BODY:
            self._wait("rest" if ours in (h11.DONE, h11.MUST_CLOSE) else "body")
        elif theirs is h11.IDLE:
            if self.waits_for != "headers":
                self._wait("headers" if self.conn.trailing_data[0] else "idle")
        else:
            self._wait("answer")

    def sweep(self, now: float) -> None:
        """Close the connection if its client has been too slow."""
        waited, limits = now - self.since, self.limits
        if self.transport.is_closing() or self.waits_for in ("end", "rest"):
            self._wait("end" if self.transport.is_closing() else self.waits_for)
            if waited > LINGER:
                self.transport.abort()
        elif (self.waits_for == "headers" and waited > limits.header_seconds) or (
            self.waits_for == "body" and waited > limits.body_seconds + self.received / limits.body_rate
        ):
            self._give_up()
        elif self.transport.get_write_buffer_size() and waited > limits.body_seconds:
            self.transport.abort()  # it does not take its answer

    def _give_up(self) -> None:
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE) and not self.transport.get_write_buffer_size():
            self.transport.write(TOO_SLOW)
        self.transport.close()
        self._wait("end")


def bounded(limits: ServeLimits, connections: int) -> type[BoundedProtocol]:
    """The protocol with these limits, and with as many connections as there are files for."""
    return type("Bounded", (BoundedProtocol,), {"limits": replace(limits, connections=connections)})
