"""Downloads that can be interrupted, from mirrors that may be dead, of files whose checksum is known."""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, Protocol

from committee.errors import DownloadError

TIMEOUT = 20.0
"""Seconds without a byte after which a mirror counts as dead."""

_BLOCK = 2**18
_MAX_FILE = 2 * 2**30
_ATTEMPTS = 3
_HTML = "it answers with an HTML page instead of the file"


class _Bar(Protocol):
    def __call__(self, done: int, total: int | None) -> None: ...


def fetch(addresses: Sequence[str], target: Path, checksum: str, *, title: str, timeout: float = TIMEOUT) -> None:
    """Download a file unless it is there, from the first mirror that has it right.

    Bytes go to ``target + ".part"``; what an earlier, interrupted download left there is kept and only the rest asked
    for. The file gets its name when its checksum agrees, so that a file under `target` is always whole.

    Args:
        addresses: http or https addresses of the same file, tried in turn.
        target: the file to write; its folder is made.
        checksum: SHA-256 in hexadecimal, or ``"md5:..."`` where only that is published.
        title: what the progress bar calls it (shown where standard error is a terminal).
        timeout: seconds without a byte after which a mirror counts as dead.

    Raises:
        DownloadError: no mirror gave the file; the message says for each what was wrong.
    """
    if target.exists():
        return
    faults = []
    part = target.with_name(target.name + ".part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with _progress(title) as bar:
            for address in addresses:
                fault = _from_mirror(address, part, checksum, timeout, bar)
                if fault is None:
                    part.replace(target)
                    return
                faults.append(f"{address}: {fault}")
    except OSError as error:
        raise DownloadError(
            f"{target}: cannot be written ({error}); free some space or choose another cache folder"
        ) from error
    raise DownloadError("; ".join(faults))


def _from_mirror(address: str, part: Path, checksum: str, timeout: float, bar: _Bar) -> str | None:
    """Complete `part` from one mirror; the fault in words, or None where its checksum agrees."""
    fault: str | None = "nothing was received"
    for _attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        fault = _transfer(address, part, before, timeout, bar)
        if fault is None:
            got = file_checksum(part, checksum)
            if got == checksum:
                return None
            part.unlink()
            fault = f"wrong checksum: {checksum} was expected, {got} was got"
            if before:
                continue  # the earlier part may have been another file's: once more from the start
            return fault
        if (part.stat().st_size if part.exists() else 0) <= before:
            return fault
    return fault


def _transfer(address: str, part: Path, before: int, timeout: float, bar: _Bar) -> str | None:
    """Append what follows the first `before` bytes to `part`; the fault in words, or None where all of it came."""
    if not address.startswith(("http://", "https://")):
        return "only http and https addresses are read"
    request = urllib.request.Request(address, headers={"User-Agent": "committee", "Accept-Encoding": "identity"})
    if before:
        request.add_header("Range", f"bytes={before}-")
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            if answer.headers.get_content_type() == "text/html":
                return _HTML
            if answer.status != 206:
                before = 0
            length = answer.headers.get("Content-Length")
            total = before + int(length) if length and length.isdigit() else None
            return _copy(answer, part, before, total, bar)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # the part is already as long as the file, or longer: its checksum decides
            return None
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return f"no answer ({error.reason})"
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return f"the connection broke ({error or type(error).__name__})"


def _copy(answer: BinaryIO, part: Path, done: int, total: int | None, bar: _Bar) -> str | None:
    """Write an answer's body behind the first `done` bytes of `part`; what an error page says is never written."""
    block = answer.read(_BLOCK)
    if done == 0 and block[:256].lstrip().lower().startswith((b"<!doctype html", b"<html")):
        return _HTML
    if not block and not total:
        return "the answer is empty"
    with part.open("ab" if done else "wb") as file:
        while block:
            file.write(block)
            done += len(block)
            bar(done, total)
            if done > _MAX_FILE:
                return f"it sends more than {_MAX_FILE:,} bytes"
            block = answer.read(_BLOCK)
    if total is not None and done < total:
        return f"the file was cut off: {total:,} bytes were expected, {done:,} were received"
    return None


def file_checksum(path: Path, like: str) -> str:
    """The checksum of a file, spelled as `like` is: plain SHA-256, or with the algorithm's name in front."""
    algorithm, colon, _ = like.rpartition(":")
    with path.open("rb") as file:
        return f"{algorithm}{colon}" + hashlib.file_digest(file, algorithm or "sha256").hexdigest()


@contextmanager
def _progress(title: str) -> Iterator[_Bar]:
    """A progress bar on standard error where that is a terminal, nothing elsewhere."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Progress(TextColumn("{task.description}"), *columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task(title, total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
