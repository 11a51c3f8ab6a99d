"""What a server takes, and how long it waits: every bound in one place, each an option of `committee serve`."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class ServeLimits:
    """The bounds of a server.

    Attributes:
        body: bytes of a request's body.
        memory: bytes of all bodies that are being received or wait, together.
        pixels: of an image, before it is prepared.
        images: of a request.
        queue: images that wait for the committee, those of all requests together.
        batch: images that the committee answers at once.
        wait: seconds that a batch waits for company while there are many requests; a request alone never waits.
        seconds: from a whole request to its answer.
        header_seconds: from a connection, or its first byte after a pause, to the end of the headers.
        body_seconds: that a body may take beside what `body_rate` allows it.
        body_rate: bytes a second that a body must come with.
        keep_alive: seconds that a connection may be idle after an answer.
        connections: open ones; when there are more, those that have asked for nothing for longest are closed.
        end_seconds: that requests may still take once the server is to end.
    """

    body: int = 16 * 2**20
    memory: int = 32 * 2**20
    pixels: int = 16_000_000
    images: int = 64
    queue: int = 1024
    batch: int = 128
    wait: float = 0.002
    seconds: float = 30.0
    header_seconds: float = 10.0
    body_seconds: float = 10.0
    body_rate: int = 10_000
    keep_alive: float = 30.0
    connections: int = 2000
    end_seconds: float = 20.0
