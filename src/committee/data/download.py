"""Downloading files with known checksums: mirrors are tried in turn, an interrupted download is resumed."""

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
from committee.names import visible
from committee.terminal import console

TIMEOUT = 20.0
"""Seconds without a byte after which a mirror is given up."""

_BLOCK = 2**18
_MAX_FILE = 2 * 2**30
_ATTEMPTS = 3
_HTML = "it answers with an HTML page instead of the file"


class _Bar(Protocol):
    def __call__(self, done: int, total: int | None) -> None: ...


def fetch(addresses: Sequence[str], target: Path, checksum: str, *, title: str, timeout: float = TIMEOUT) -> None:
    """Download a file, unless it is there, from the first mirror that has it intact.

    Bytes go to ``target + ".part"``. What an interrupted download left there is kept, and only the rest is requested.
    The file gets its name once its checksum is right, so that `target` is never incomplete.

    Args:
        addresses: http or https addresses of the same file, tried in turn.
        target: the file to write; its folder is created.
        checksum: SHA-256 in hexadecimal, or ``"md5:..."`` where only that is published.
        title: the file's name beside the progress bar, which appears where standard error is a terminal.
        timeout: seconds without a byte after which a mirror is given up.

    Raises:
        DownloadError: no mirror had the file; the message says for each what was wrong.
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
            f"{target}: the file cannot be written ({error}); free some space or make the folder writable"
        ) from error
    raise DownloadError("; ".join(faults))


def _from_mirror(address: str, part: Path, checksum: str, timeout: float, bar: _Bar) -> str | None:
    """Complete `part` from one mirror: what went wrong, or None once its checksum is right."""
    fault: str | None = "nothing was received"
    for _attempt in range(_ATTEMPTS):
        before = part.stat().st_size if part.exists() else 0
        fault = _transfer(address, part, before, timeout, bar)
        if fault is None:
            got = file_checksum(part, checksum)
            if got == checksum:
                return None
            part.unlink()
            fault = f"wrong checksum: expected {checksum}, got {got}"
            if before:
                continue  # the earlier part may be of another file: start again
            return fault
        if (part.stat().st_size if part.exists() else 0) <= before:
            return fault
    return fault


def _transfer(address: str, part: Path, before: int, timeout: float, bar: _Bar) -> str | None:
    """Append all but the first `before` bytes to `part`: what went wrong, or None if nothing did."""
    if not address.startswith(("http://", "https://")):
        return "only http and https addresses are supported"
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
        if error.code == 416:  # the part is as long as the file or longer; its checksum decides
            return None
        return f"HTTP {error.code} {error.reason}"
    except urllib.error.URLError as error:
        return f"no answer ({error.reason})"
    except (TimeoutError, ConnectionError, http.client.HTTPException) as error:
        return f"the connection broke ({error or type(error).__name__})"


def _copy(answer: BinaryIO, part: Path, done: int, total: int | None, bar: _Bar) -> str | None:
    """Write the body of an answer behind the first `done` bytes of `part`, unless it is an HTML page."""
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
        return f"the file was cut off: expected {total:,} bytes, got {done:,}"
    return None


def file_checksum(path: Path, like: str) -> str:
    """The checksum of a file in the spelling of `like`: SHA-256, or another algorithm with its name in front."""
    algorithm, colon, _ = like.rpartition(":")
    with path.open("rb") as file:
        return f"{algorithm}{colon}" + hashlib.file_digest(file, algorithm or "sha256").hexdigest()


@contextmanager
def _progress(title: str) -> Iterator[_Bar]:
    """A progress bar on standard error if that is a terminal."""
    if not sys.stderr.isatty() or os.environ.get("TERM") == "dumb":
        yield lambda done, total: None
        return
    from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn, TransferSpeedColumn

    columns = (BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    described = TextColumn("{task.description}", markup=False)
    with Progress(described, *columns, console=console(err=True), transient=True) as progress:
        task = progress.add_task(visible(title), total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)
