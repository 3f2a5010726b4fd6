# SPDX-License-Identifier: Apache-2.0
"""A server that gives every request the same answer."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def answering(answer: bytes) -> Iterator[str]:
    """Answer every connection with the same bytes, and yield the URL."""
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listening.accept()
                except OSError:
                    return
                with connection:
                    _read(connection)
                    with contextlib.suppress(OSError):  # a client that gave up
                        connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        listening.shutdown(socket.SHUT_RDWR)
    thread.join(30)


def http(body: bytes, *, status: str = "200 OK", more: str = "") -> bytes:
    """Build a response."""
    head = f"HTTP/1.1 {status}\r\nContent-Length: {len(body)}\r\nConnection: close\r\n{more}\r\n"
    return head.encode() + body


def _read(connection: socket.socket) -> None:
    """Read the whole request, because closing with unread bytes resets a connection."""
    connection.settimeout(60)
    received, wanted = b"", 0
    with contextlib.suppress(OSError):
        while not wanted or len(received) < wanted:
            part = connection.recv(65536)
            if not part:
                return
            received += part
            head, end, _ = received.partition(b"\r\n\r\n")
            if end:
                length = re.search(rb"(?i)^content-length: *(\d+)", head, re.MULTILINE)
                wanted = len(head) + len(end) + (int(length[1]) if length else 0)
