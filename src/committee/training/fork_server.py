"""Workers on Linux: forks of a process that has imported all that they need, and whose memory they share.

Importing PyTorch takes a process 150 MB and a second; a fork copies a page of that when one of the two writes to it.
The process that trains a committee is never forked itself, since it may have threads, which a fork would lack. Python's
own fork server would stay for as long as this process, and be the one that a program uses for other purposes.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import signal
import sys
import traceback
import warnings
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from multiprocessing.connection import Connection, Pipe
from multiprocessing.context import SpawnProcess
from multiprocessing.reduction import recv_handle, send_handle
from pathlib import Path

from committee.training.worker import work

AVAILABLE = sys.platform == "linux"  # forks of macOS's frameworks crash


# --- the trainer's side -----------------------------------------------------------------------------------------------


class ForkServer:
    """A process that starts workers, until it is closed.

    Attributes:
        process: it. A worker that it cannot start any more, because it has ended, has ended like it.
    """

    def __init__(self) -> None:
        self.control, theirs = Pipe()
        context = multiprocessing.get_context("spawn")
        self.process = context.Process(target=serve, args=(theirs,), daemon=True)
        self.process.start()
        theirs.close()

    @cached_property
    def is_safe(self) -> bool:
        """Whether its forks can be trusted: not where something that it imported has started threads."""
        try:
            return bool(self.control.recv())
        except (EOFError, OSError):
            return True  # it has ended, and `start` shows how

    def start(self) -> tuple[ForkedProcess | SpawnProcess, Connection]:
        """A worker's process and the pipe to it."""
        ours, theirs = Pipe()
        process: ForkedProcess | SpawnProcess = self.process
        assert self.process.pid is not None
        with suppress(EOFError, OSError):
            self.control.send(None)
            send_handle(self.control, theirs.fileno(), self.process.pid)
            process = ForkedProcess(self, self.control.recv())
        theirs.close()
        return process, ours

    def close(self) -> None:
        """End it at once, like a worker; the workers must have ended."""
        self.process.terminate()
        self.process.join()
        self.control.close()


@dataclass
class ForkedProcess:
    """A worker's process, with what is used of `multiprocessing.Process`."""

    server: ForkServer
    number: int
    exitcode: int | None = None

    def is_alive(self) -> bool:
        """Whether it has not been joined."""
        return self.exitcode is None

    def terminate(self) -> None:
        """End it by SIGTERM."""
        self._send(signal.SIGTERM)

    def kill(self) -> None:
        """End it by SIGKILL."""
        self._send(signal.SIGKILL)

    def _send(self, number: signal.Signals) -> None:
        if self.exitcode is None:
            with suppress(ProcessLookupError):
                os.kill(self.number, number)

    def join(self) -> None:
        """Wait for its end and learn its status; where the server has ended, too, the server's."""
        if self.exitcode is None:
            try:
                self.server.control.send(self.number)
                self.exitcode = self.server.control.recv()
            except (EOFError, OSError):
                self.server.process.join()
                self.exitcode = self.server.process.exitcode


# --- the server's side ------------------------------------------------------------------------------------------------


def serve(control: Connection) -> None:
    """Import all that workers need, say whether forks are safe, then answer requests until the trainer has ended.

    A request is None, followed by the file descriptor of a pipe, and its answer the number of the process that now
    works on that pipe; or it is such a number, and its answer the exit status of that process when it has ended. Until
    then no other process gets the number.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    import committee.training.jobs  # noqa: F401

    gc.collect()
    gc.freeze()  # else a collection in a fork would write to all objects, and so copy their pages
    is_safe = has_one_thread()
    with suppress(EOFError, OSError):  # the trainer has ended
        control.send(is_safe)
        while is_safe:
            number: int | None = control.recv()
            if number is None:
                control.send(fork(control, Connection(recv_handle(control))))
            else:
                control.send(os.waitstatus_to_exitcode(os.waitpid(number, 0)[1]))


def has_one_thread() -> bool:
    """Whether this process has a single thread, apart from NumPy's OpenBLAS, which ends its own before each fork."""
    with warnings.catch_warnings(action="ignore"):  # Python's, that there are threads
        number = os.fork()
    if number == 0:
        os._exit(0)
    os.waitpid(number, 0)
    return len(list(Path("/proc/self/task").iterdir())) == 1


def fork(control: Connection, pipe: Connection) -> int:
    """Start a worker and return its number; does not return in the worker."""
    number = os.fork()
    if number:
        pipe.close()
        return number
    status = 1
    try:
        control.close()
        work(pipe)
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)
