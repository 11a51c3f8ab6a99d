"""Uploads of 1 GiB, each as much as the server takes: python uploads.py PORT COUNT; prints what each was answered."""

from __future__ import annotations

import json
import socket
import sys
import threading

SIZE = 2**30
HEAD = b"POST /v1/predict HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n"


def upload(port: int, chunked: bool, answers: list[str]) -> None:
    """One upload: chunked, or with its Content-Length."""
    block = b"x" * 2**20
    with socket.create_connection(("127.0.0.1", port), 10) as connection:
        try:
            if chunked:
                connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
                block = b"%x\r\n%b\r\n" % (len(block), block)
            else:
                connection.sendall(HEAD + b"Content-Length: %d\r\n\r\n" % SIZE)
            for _ in range(SIZE // 2**20):
                connection.sendall(block)
        except OSError:
            pass  # the answer was sent before the end of the body, and may still be read
        try:
            answers.append(connection.recv(12).decode())
        except OSError as error:
            answers.append(repr(error))


if __name__ == "__main__":
    port, count, answers = int(sys.argv[1]), int(sys.argv[2]), list[str]()
    threads = [threading.Thread(target=upload, args=(port, number % 2 == 0, answers)) for number in range(count)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    print(json.dumps(answers))
