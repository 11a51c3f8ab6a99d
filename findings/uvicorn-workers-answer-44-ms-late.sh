#!/usr/bin/env bash
# uvicorn with --workers 2 answers each request on a kept connection 40 ms later than with one: it binds its own socket by
# socket.socket(family=...), whose protocol number is 0, and asyncio sets TCP_NODELAY only on sockets that name IPPROTO_TCP. So
# Nagle's algorithm holds the body of a response, which is written after its headers, until the client's delayed ACK. With one
# worker asyncio makes the socket and names the protocol. --reload binds likewise; uvloop sets TCP_NODELAY by itself.
# Seen with uvicorn 0.54.0 (h11 0.16.0, asyncio of Python 3.11), Linux:
#   one worker: 0.2 ms a request      two workers: 44.4 ms a request
# Fails if that changes.
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
python3 -m venv "$folder/venv"
"$folder/venv/bin/pip" install --quiet --disable-pip-version-check uvicorn==0.54.0 h11==0.16.0
cat > "$folder/app.py" <<'PYTHON'
async def app(scope, receive, send):
    if scope["type"] == "http":
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
        await send({"type": "http.response.body", "body": b"ok"})
PYTHON
cd "$folder"
"$folder/venv/bin/python" - <<'PYTHON'
import http.client
import socket
import statistics
import subprocess
import sys
import time


def milliseconds(*options: str) -> float:
    """The median of 30 requests on one connection."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "app:app", "--port", str(port), "--log-level", "error", *options]
    server = subprocess.Popen(command)
    try:
        for _ in range(100):
            try:
                socket.create_connection(("127.0.0.1", port)).close()
                break
            except OSError:
                time.sleep(0.1)
        time.sleep(0.5)
        connection, found = http.client.HTTPConnection("127.0.0.1", port), []
        for _ in range(30):
            began = time.perf_counter()
            connection.request("GET", "/")
            connection.getresponse().read()
            found.append(1000 * (time.perf_counter() - began))
        return statistics.median(found)
    finally:
        server.terminate()
        server.wait()


one, two = milliseconds(), milliseconds("--workers", "2")
print(f"one worker: {one:.1f} ms a request, two workers: {two:.1f} ms")
assert one < 20 and two > 35, "otherwise than described"
PYTHON
echo "as described"
