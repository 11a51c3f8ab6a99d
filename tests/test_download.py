"""Downloads from a real HTTP server on this machine that misbehaves as mirrors do."""

from __future__ import annotations

import hashlib
import http.server
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from committee.data.download import fetch
from committee.errors import DownloadError

CONTENT = bytes(range(256)) * 2000
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Mirror(http.server.BaseHTTPRequestHandler):
    """Answers by path: /good with ranges, /wrong, /html, /sniffed, /cut (half of what it promises), /norange."""

    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        wanted = self.headers.get("Range")
        self.asked.append((self.path, wanted))
        content = {"/wrong": CONTENT[::-1], "/html": b"<p>moved</p>", "/sniffed": b"<!DOCTYPE html>moved"}.get(
            self.path, CONTENT
        )
        start = int(wanted.removeprefix("bytes=").rstrip("-")) if wanted and self.path != "/norange" else 0
        if self.path == "/none":
            self.send_error(404)
            return
        if start >= len(content):
            self.send_error(416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Type", "text/html" if self.path == "/html" else "application/x-gzip")
        self.send_header("Content-Length", str(len(content) - start))
        self.end_headers()
        end = len(content) // 2 if self.path == "/cut" else len(content)
        self.wfile.write(content[start:end])

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("no_proxy", "*")
    Mirror.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def dead() -> str:
    """An address where nothing answers."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{taken.getsockname()[1]}/good"


def test_a_file_is_fetched_once_and_checked(server: str, tmp_path: Path) -> None:
    target = tmp_path / "cache" / "file.gz"
    for _ in range(2):
        fetch([f"{server}/good"], target, SHA256, title="file")
    assert target.read_bytes() == CONTENT
    assert len(Mirror.asked) == 1
    fetch([f"{server}/good"], tmp_path / "other", f"md5:{hashlib.md5(CONTENT).hexdigest()}", title="file")


@pytest.mark.parametrize("first", ["/wrong", "/html", "/sniffed", "/cut", "/none", "dead"])
def test_the_next_mirror_is_tried(first: str, server: str, dead: str, tmp_path: Path) -> None:
    address = dead if first == "dead" else server + first
    fetch([address, f"{server}/good"], tmp_path / "file.gz", SHA256, title="file")
    assert (tmp_path / "file.gz").read_bytes() == CONTENT
    assert list(tmp_path.iterdir()) == [tmp_path / "file.gz"]


@pytest.mark.parametrize(
    ("path", "fault"),
    [
        ("/wrong", f"wrong checksum: expected {SHA256}, got {hashlib.sha256(CONTENT[::-1]).hexdigest()}"),
        ("/html", "it answers with an HTML page instead of the file"),
        ("/sniffed", "it answers with an HTML page instead of the file"),
        ("/cut", "expected 512,000 bytes, got 256,000"),
        ("/none", "HTTP 404"),
        ("dead", "no answer"),
    ],
)
def test_what_was_wrong_is_said_and_nothing_wrong_is_kept(
    path: str, fault: str, server: str, dead: str, tmp_path: Path
) -> None:
    address = dead if path == "dead" else server + path
    with pytest.raises(DownloadError) as caught:
        fetch([address], tmp_path / "file.gz", SHA256, title="file")
    assert f"{address}: " in str(caught.value)
    assert fault in str(caught.value)
    assert not (tmp_path / "file.gz").exists()
    assert (tmp_path / "file.gz.part").exists() == (path == "/cut")


@pytest.mark.parametrize("path", ["/good", "/norange"])
def test_a_part_is_resumed(path: str, server: str, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(CONTENT[:100_000])
    fetch([server + path], tmp_path / "file.gz", SHA256, title="file")
    assert Mirror.asked == [(path, "bytes=100000-")]
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


@pytest.mark.parametrize("length", [100, len(CONTENT), len(CONTENT) + 7])
def test_a_part_of_another_file_is_thrown_away(length: int, server: str, tmp_path: Path) -> None:
    (tmp_path / "file.gz.part").write_bytes(b"x" * length)
    fetch([f"{server}/good"], tmp_path / "file.gz", SHA256, title="file")
    assert (tmp_path / "file.gz").read_bytes() == CONTENT


def test_only_http_is_read(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(CONTENT)
    with pytest.raises(DownloadError, match="only http and https"):
        fetch([(tmp_path / "secret").as_uri()], tmp_path / "file.gz", SHA256, title="file")
