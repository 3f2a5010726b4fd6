# SPDX-License-Identifier: Apache-2.0
"""A receiver of webhooks that only notes the IDs of messages."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Receiver:
    """Accepts every message.

    Attributes:
        url: Where it listens.
        got: The message IDs, in the order of arrival.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self.got: list[str] = []

    @classmethod
    @contextmanager
    def listening(cls) -> Iterator[Receiver]:
        """Listen until the block ends."""
        receiver = cls("")

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                receiver.got.append(self.headers["webhook-id"])
                self.send_response(200)
                self.end_headers()

            def log_message(self, *_: Any, **__: Any) -> None: ...

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        receiver.url = f"http://127.0.0.1:{server.server_port}/hook"
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield receiver
        finally:
            server.shutdown()
            server.server_close()
            thread.join()
