"""What every request passes before the application: its Host, its Origin, its token; and what every answer carries.

A web page of somebody else can make a browser send requests to this machine. It cannot read the answers as long as no
CORS header allows it, unless its own name is made to resolve to this machine (DNS rebinding): then the Host header
holds that name, and the request is refused. What changes something is a POST, and a browser's POST has an Origin.
"""

from __future__ import annotations

import hmac
import ipaddress
import json
import socket
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import cache
from http import HTTPStatus
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from committee.serve.metrics import Metrics
from committee.serve.problems import RefusedError

CONTENT_SECURITY = (
    "default-src 'self'; img-src 'self' data: blob:; media-src 'self' blob:; object-src 'none'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)

SECURITY_HEADERS = (
    (b"content-security-policy", CONTENT_SECURITY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"x-frame-options", b"DENY"),
    (b"referrer-policy", b"no-referrer"),
    (b"cross-origin-opener-policy", b"same-origin"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"permissions-policy", b"camera=(self), microphone=(), geolocation=()"),
)

OPEN_PATHS = ("/", "/healthz", "/readyz", "/favicon.ico")
"""What needs no token: the page itself, which holds nothing of the committee, and what a supervisor asks."""

OPEN_FOLDER = "/page/"


@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        hosts: names in a Host header that are this server, beside addresses, localhost and the machine's own name.
        token: what `Authorization: Bearer ...` must say; None where nothing must.
    """

    hosts: Collection[str] = ()
    token: str | None = None

    def check(self, method: str, path: str, headers: Mapping[bytes, bytes]) -> None:
        """Refuse a request of somebody who may not ask.

        Raises:
            RefusedError: the Host is another server's (421), the Origin another page's (403), or the token is not right
                (401).
        """
        host = headers.get(b"host", b"").decode("latin-1")
        if not self._is_own(host):
            raise RefusedError(
                HTTPStatus.MISDIRECTED_REQUEST,
                "the Host header must be an address of this machine, localhost, or a name given with --allow-host; "
                "ask with one of these",
            )
        origin = headers.get(b"origin")
        if method not in ("GET", "HEAD") and origin is not None and urlsplit(origin.decode("latin-1")).netloc != host:
            raise RefusedError(
                HTTPStatus.FORBIDDEN, "a request of a page of another server is not answered; ask from this one"
            )
        if self.token is None or path in OPEN_PATHS or path.startswith(OPEN_FOLDER):
            return
        given = headers.get(b"authorization", b"")
        if not hmac.compare_digest(given, b"Bearer " + self.token.encode()):
            raise RefusedError(
                HTTPStatus.UNAUTHORIZED, "the header Authorization: Bearer TOKEN is needed; give the server's"
            )

    def _is_own(self, host: str) -> bool:
        try:
            name = urlsplit(f"//{host}").hostname or ""
        except ValueError:
            return False
        return name in ("localhost", *machine_names(), *self.hosts) or is_address(name)


@cache
def machine_names() -> tuple[str, str]:
    """This machine's name, and the one by which its neighbours find it."""
    name = socket.gethostname().lower()
    return name, f"{name}.local"


def is_address(name: str) -> bool:
    """Whether a host is an IP address, which no name server can make another machine's."""
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches what listens there."""
    return host == "localhost" or (is_address(host) and ipaddress.ip_address(host).is_loopback)


@dataclass(frozen=True)
class Guard:
    """An application with the checks before it and the headers after it.

    Attributes:
        app: what answers.
        access: who may ask.
        metrics: where requests are counted.
        paths: known ones; others are counted together.
        body: bytes that a body may have, by its Content-Length.
        log: is told of each request: a line.
    """

    app: ASGIApp
    access: Access
    metrics: Metrics
    paths: Collection[str]
    body: int
    log: Callable[[str], None] | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        began = time.perf_counter()
        code: int = 0

        async def send_with_headers(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
                message = {**message, "headers": [*message.get("headers", ()), *SECURITY_HEADERS]}
            await send(message)

        headers = dict(scope["headers"])
        try:
            self.access.check(scope["method"], scope["path"], headers)
            length = headers.get(b"content-length", b"0")
            if len(length) > 18 or int(length) > self.body:
                raise RefusedError(
                    HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                    f"a body of at most {self.body:,} bytes is taken; send less at once",
                )
            await self.app(scope, receive, send_with_headers)
        except RefusedError as refused:
            await send_refused(refused, send_with_headers)
        except Exception:
            code = code or HTTPStatus.INTERNAL_SERVER_ERROR  # which uvicorn sends
            raise
        finally:
            seconds = time.perf_counter() - began
            path = scope["path"] if scope["path"] in self.paths else "other"
            method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "other"
            self.metrics.requests[method, path, int(code)] += 1
            if path == "/v1/predict":
                self.metrics.seconds.observe(seconds)
            if self.log:
                client = (scope.get("client") or ("?", 0))[0]
                self.log(f"{client} {scope['method']} {scope['path']} {int(code)} {1000 * seconds:.1f} ms")


async def send_refused(refused: RefusedError, send: Send) -> None:
    """A refusal as a `Problem`."""
    content = json.dumps({"error": str(refused)}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(content)).encode())]
    if refused.retry_after is not None:
        headers.append((b"retry-after", str(refused.retry_after).encode()))
    if refused.status == HTTPStatus.UNAUTHORIZED:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": int(refused.status), "headers": headers})
    await send({"type": "http.response.body", "body": content})
