# SPDX-License-Identifier: Apache-2.0
"""The webhook receiver of the demonstration: it verifies messages and keeps their types.

It listens on the loopback and answers one request per connection; it is not a general HTTP server.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from typing import Final

from standardwebhooks import Webhook, WebhookVerificationError

_MOST_BYTES: Final = 1 << 20
_WITHIN: Final = 5.0
"""Seconds for one request."""


class Receiver:
    """Receives messages signed with one secret."""

    def __init__(self, secret: str) -> None:
        self.secret = secret
        self.url = ""
        self.types: list[str] = []
        """The types of the valid messages, in the order of their arrival."""
        self._webhook = Webhook(secret)
        self._arrived = asyncio.Condition()

    async def wait_for(self, event_type: str, within: float) -> bool:
        """Wait until a message of a type has arrived; False if none does in `within` seconds."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within), self._arrived:
                await self._arrived.wait_for(lambda: event_type in self.types)
        return event_type in self.types

    @contextlib.asynccontextmanager
    async def listening(self, host: str) -> AsyncIterator[None]:
        """Listen on a free port, and set `url`."""
        server = await asyncio.start_server(self._answer, host, 0)
        self.url = f"http://{host}:{server.sockets[0].getsockname()[1]}/"
        try:
            yield
        finally:
            server.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(TimeoutError, OSError, asyncio.IncompleteReadError, ValueError):
            async with asyncio.timeout(_WITHIN):
                headers, body = await _read(reader)
                accepted = await self._accept(headers, body)
                status = "204 No Content" if accepted else "400 Bad Request"
                writer.write(f"HTTP/1.1 {status}\r\nConnection: close\r\n\r\n".encode())
                await writer.drain()
        writer.close()

    async def _accept(self, headers: Mapping[str, str], body: bytes) -> bool:
        try:
            message = self._webhook.verify(body, dict(headers))
        except (WebhookVerificationError, ValueError):
            return False
        async with self._arrived:
            self.types.append(str(message["type"]))
            self._arrived.notify_all()
        return True


async def _read(reader: asyncio.StreamReader) -> tuple[dict[str, str], bytes]:
    """Read the headers and the body of a request that has a Content-Length."""
    head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
    pairs = (line.partition(":") for line in head[1:] if line)
    headers = {name.strip().lower(): value.strip() for name, _, value in pairs}
    length = int(headers.get("content-length", "0"))
    if length > _MOST_BYTES:
        raise ValueError("the message is too long")
    return headers, await reader.readexactly(length)
