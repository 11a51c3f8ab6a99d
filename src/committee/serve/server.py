"""A server from its start to its end: sockets, loading, SIGTERM."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import time
import traceback
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import uvicorn

from committee.errors import CommitteeError
from committee.serve.app import State, make_app
from committee.serve.corrections import Corrections, writable
from committee.serve.guard import Access
from committee.serve.limits import ServeLimits
from committee.serve.page_files import page_files
from committee.serve.protocol import SWEEP, BoundedProtocol, bounded
from committee.serve.served import NOTHING_ASKED, Asked, open_served

GRACE = 0.3
"""Seconds for which a connection must have been idle to be closed once the server is to end."""

SPARE_FILES = 128
"""Files that the process may need beside its connections."""

SWITCH = 0.001
"""Seconds that the worker's Python may run before the event loop gets its turn; Python's own are 0.005."""


@dataclass(frozen=True)
class ServeOptions:
    """What a server is to be.

    Attributes:
        model: a run folder, a bundle or an .onnx file.
        host, port: where it listens; port 0 takes a free one.
        access: who may ask.
        limits: its bounds.
        corrections: the folder for corrections; None for none.
        device: where a run's committee predicts.
        verbose: whether each request is reported.
        asked: what the committee shall say instead of one class.
    """

    model: Path
    host: str
    port: int
    access: Access
    limits: ServeLimits
    corrections: Path | None
    device: str
    verbose: bool
    asked: Asked = NOTHING_ASKED


def serve(
    options: ServeOptions,
    started: Callable[[str, int], None],
    ready: Callable[[State], None],
    report: Callable[[str], None],
) -> None:
    """Serve until SIGTERM or Ctrl-C comes, which is raised as in any command once all accepted requests are answered.

    Args:
        options: what and where.
        started: is told the address and the port as soon as it listens.
        ready: is called once what answers is loaded.
        report: is told what answers come without, of exceptions that nobody expected, and with `verbose` of each
            request, line by line.

    Raises:
        CommitteeError: the address cannot be had, or what is to be served cannot be loaded.
    """
    with listening(options.host, options.port) as listener, asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_serve(options, listener, started, ready, report))


async def _serve(
    options: ServeOptions,
    listener: socket.socket,
    started: Callable[[str, int], None],
    ready: Callable[[State], None],
    report: Callable[[str], None],
) -> None:
    warnings.simplefilter("ignore")  # Pillow's remarks about odd but readable files; not per thread, so once for all
    logging.getLogger("uvicorn.error").addHandler(_Lines(report, logging.WARNING if options.verbose else logging.ERROR))
    sys.setswitchinterval(SWITCH)
    limits = options.limits
    state = State(limits)
    app = make_app(state, options.access, page_files(), report if options.verbose else None)
    protocol = bounded(limits, room_for(limits.connections))
    config = uvicorn.Config(
        app,
        http=protocol,
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        backlog=min(limits.connections, 1024),
        timeout_keep_alive=max(1, round(limits.keep_alive)),
        timeout_graceful_shutdown=max(1, round(limits.end_seconds)),
    )
    server = Server(config, protocol, state, listener)
    started(*listener.getsockname()[:2])

    async def load() -> None:
        served = await asyncio.to_thread(
            open_served,
            options.model,
            limits,
            options.asked,
            device=options.device,
            corrections=options.corrections is not None,
            report=report,
        )
        folder = options.corrections
        state.start(served, Corrections(folder, served.info, limits) if folder else None)
        ready(state)

    loading = asyncio.create_task(load())
    loading.add_done_callback(lambda task: server.stop() if not task.cancelled() and task.exception() else None)
    sweeping = asyncio.create_task(server.sweep())
    try:
        await server.serve([listener.dup()])
    finally:
        sweeping.cancel()
        if state.batcher:
            state.batcher.close()
        state.pool.shutdown(wait=False, cancel_futures=True)
        if loading.done():
            loading.result()
        loading.cancel()


def loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    """Makes the event loop: uvloop's, which is faster, where it is installed."""
    try:
        import uvloop
    except ImportError:  # Windows
        return asyncio.new_event_loop
    return uvloop.new_event_loop


class Server(uvicorn.Server):
    """Uvicorn's server, which takes what the kernel has accepted before it stops to listen."""

    def __init__(
        self, config: uvicorn.Config, protocol: type[BoundedProtocol], state: State, listener: socket.socket
    ) -> None:
        super().__init__(config)
        self.protocol, self.state, self.listener = protocol, state, listener

    def stop(self) -> None:
        """End as after a signal, without one."""
        self.should_exit = True

    async def sweep(self) -> None:
        """Close connections whose clients are too slow, for ever."""
        while True:
            await asyncio.sleep(SWEEP)
            for connection in self._connections():
                connection.sweep(time.monotonic())

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Answer what was accepted, then close everything.

        Closing a socket resets the connections that wait in the kernel for being taken: so they are taken first. Then
        each answer is its connection's last, and one that idles gets a moment for a request that is on its way.
        """
        self.state.ending = self.protocol.ending = True
        for connection in self._connections():
            connection.end()
        for server in self.servers:
            server.close()  # takes no more; `listener` is the same queue, and still open
        for each in taken_from(self.listener):
            await asyncio.get_running_loop().connect_accepted_socket(self._protocol, each)
        end = time.monotonic() + self.state.limits.end_seconds
        while (
            time.monotonic() < end
            and not self.force_exit
            and any(not each.has_idled(GRACE) for each in self._connections())
        ):
            await asyncio.sleep(GRACE / 10)
        await super().shutdown(sockets)

    def _connections(self) -> list[BoundedProtocol]:
        return [each for each in self.server_state.connections if isinstance(each, BoundedProtocol)]

    def _protocol(self) -> BoundedProtocol:
        return self.protocol(self.config, self.server_state, {})


def taken_from(listener: socket.socket) -> list[socket.socket]:
    """The connections that wait in the kernel; there will be no others, since the socket is closed at once."""
    taken = []
    listener.setblocking(False)
    with contextlib.suppress(OSError):  # BlockingIOError: there are no more
        while True:
            taken.append(listener.accept()[0])
    listener.close()
    return taken


class _Lines(logging.Handler):
    """Uvicorn's remarks, a line each, and the traceback of an exception that nobody expected."""

    def __init__(self, report: Callable[[str], None], level: int) -> None:
        super().__init__(level)
        self.report = report

    def emit(self, record: logging.LogRecord) -> None:
        """A remark."""
        lines = [record.getMessage().rstrip()]
        if record.exc_info:
            lines += "".join(traceback.format_exception(record.exc_info[1])).splitlines()
        for line in lines:
            self.report(line)


@contextlib.contextmanager
def listening(host: str, port: int):  # type: ignore[no-untyped-def]
    """A socket that is bound to an address.

    Raises:
        CommitteeError: it is taken, or no address of this machine.
    """
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[
            0
        ]
        listener = socket.socket(family, kind, socket.IPPROTO_TCP)  # asyncio sets TCP_NODELAY only where it is named
    except OSError as error:
        raise CommitteeError(
            f"--host must be an address of this machine, got {host!r} ({error.strerror}); correct it"
        ) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        yield listener
    except OSError as error:
        raise CommitteeError(
            f"{host} port {port} cannot be listened on ({error.strerror}); give another --port, or 0 for a free one"
        ) from None
    finally:
        listener.close()


def room_for(connections: int) -> int:
    """As many connections as the process may have files for, at most this; its limit is raised as far as it goes."""
    try:
        import resource
    except ImportError:  # Windows
        return min(connections, 400)
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = connections + SPARE_FILES
    if soft != resource.RLIM_INFINITY and soft < wanted:
        soft = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return connections if soft == resource.RLIM_INFINITY else max(8, min(connections, soft - SPARE_FILES))


def corrections_folder(given: Path | None, model: Path) -> tuple[Path | None, str | None]:
    """Where corrections are stored, and what must be said of it: None where the folder cannot be written."""
    folder = given or model.resolve().with_name(
        f"{model.resolve().stem if model.is_file() else model.resolve().name}-corrections"
    )
    if writable(folder):
        return folder, None
    return None, f"{folder} cannot be written, so that no corrections are stored; --corrections FOLDER names another"
