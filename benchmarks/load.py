# SPDX-License-Identifier: Apache-2.0
"""A load generator: keep-alive connections that send the next request after each response.

It reads bodies by their `Content-Length`, checks every status, and does nothing else, so that one
core of it can keep a bare server on another core busy.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, cast
from urllib.parse import urlsplit

from benchmarks.machine import BenchmarkFailed
from benchmarks.processes import headers

Requests = Callable[[], Iterator[bytes]]
"""Returns the endless series of requests to send."""

LONGEST: Final = 120.0
"""Seconds after which a measurement fails."""
_LENGTH: Final = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
_END: Final = b"\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Counted:
    """The responses of one measurement, and its seconds."""

    responses: int
    seconds: float


def get(path: str, **more: str) -> bytes:
    """Return the bytes of a GET request."""
    return _request("GET", path, b"", more)


def send(method: str, path: str, body: bytes) -> bytes:
    """Return the bytes of a request with a JSON body."""
    return _request(method, path, body, {"Content-Type": "application/json"})


def _request(method: str, path: str, body: bytes, more: dict[str, str]) -> bytes:
    fields = {"Host": "127.0.0.1", **headers(), **more}
    if body or method != "GET":
        fields["Content-Length"] = str(len(body))
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join(lines).encode() + _END + body


class Load:
    """Connections to one or more servers, in turn."""

    def __init__(self, urls: Sequence[str], connections: int) -> None:
        self._urls = urls
        self._connections = connections
        self._open: list[_Connection] = []
        self._requests: Iterator[bytes] = iter(())
        self._until = 0.0
        self._least = 0
        self._most = 0
        self._sent = 0
        self._busy = 0
        self._done: asyncio.Future[None] | None = None

    async def __aenter__(self) -> Load:
        """Open the connections."""
        loop = asyncio.get_running_loop()
        for number in range(self._connections):
            parts = urlsplit(self._urls[number % len(self._urls)])
            _, made = await loop.create_connection(
                lambda: _Connection(self), parts.hostname or "", parts.port or 80
            )
            self._open.append(made)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Close the connections."""
        for connection in self._open:
            connection.close()

    async def run(
        self,
        requests: Requests,
        *,
        status: int = 200,
        seconds: float = 0.0,
        least: int = 1,
        most: int | None = None,
        within: float = LONGEST,
    ) -> Counted:
        """Send requests for `seconds` and until `least` were sent, but at most `most`.

        Returns when every response has been read.

        Raises:
            BenchmarkFailed: a response has another status, a connection was lost, or the responses
                did not arrive within `within` seconds.
        """
        self._requests = requests()
        self._least, self._most, self._sent = least, most or 2**62, 0
        self._done = asyncio.get_running_loop().create_future()
        began = time.perf_counter()
        self._until = began + seconds
        self._busy = len(self._open)
        for connection in self._open:
            connection.begin(b"%d" % status)
        try:
            await asyncio.wait_for(self._done, within)
        except TimeoutError:
            raise BenchmarkFailed(f"no response within {within:g} s") from None
        return Counted(self._sent, time.perf_counter() - began)

    def next(self) -> bytes | None:
        """Return the next request to send; None at the end."""
        if self._sent >= self._most or (
            self._sent >= self._least and time.perf_counter() >= self._until
        ):
            self._busy -= 1
            if not self._busy and self._done is not None and not self._done.done():
                self._done.set_result(None)
            return None
        self._sent += 1
        return next(self._requests)

    def fail(self, why: str) -> None:
        """End the measurement with an error."""
        if self._done is not None and not self._done.done():
            self._done.set_exception(BenchmarkFailed(why))


class _Connection(asyncio.Protocol):
    def __init__(self, load: Load) -> None:
        self._load = load
        self._transport: asyncio.Transport | None = None
        self._status = b"200"
        self._head = b""
        self._left = 0
        self._closing = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closing:
            self._load.fail(f"the server closed a connection ({exc or 'end of file'})")

    def begin(self, status: bytes) -> None:
        self._status = status
        self._go_on()

    def close(self) -> None:
        self._closing = True
        if self._transport is not None:
            self._transport.close()

    def data_received(self, data: bytes) -> None:
        if self._left:
            self._left -= len(data)
        else:
            head = self._head + data if self._head else data
            end = head.find(_END)
            if end < 0:
                self._head = head
                return
            self._head = b""
            if head[9:12] != self._status:
                self._load.fail(f"a response was {head[9:12].decode()}: {head[end + 4 :][:200]!r}")
                return
            length = _LENGTH.search(head, 0, end)
            self._left = (int(length[1]) if length else 0) - (len(head) - end - 4)
        if not self._left:
            self._go_on()

    def _go_on(self) -> None:
        request = self._load.next()
        if request is not None and self._transport is not None:
            self._transport.write(request)


@asynccontextmanager
async def updating(url: str, requests: Requests, per_second: int) -> AsyncIterator[None]:
    """Send requests at a fixed rate while the block runs; each must be answered 200.

    A request is sent on time even if earlier ones are not answered yet.

    Raises:
        BenchmarkFailed: a response has another status.
    """
    parts = urlsplit(url)
    free: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []
    opened: list[asyncio.StreamWriter] = []
    series = requests()

    async def one() -> None:
        if free:
            reader, writer = free.pop()
        else:
            reader, writer = await asyncio.open_connection(parts.hostname, parts.port)
            opened.append(writer)
        writer.write(next(series))
        head = await reader.readuntil(_END)
        length = _LENGTH.search(head)
        await reader.readexactly(int(length[1]) if length else 0)
        if head[9:12] != b"200":
            raise BenchmarkFailed(f"an update was answered {head[9:12].decode()}")
        free.append((reader, writer))

    async def pace() -> None:
        began = time.perf_counter()
        for number in range(2**62):
            await asyncio.sleep(max(0.0, began + number / per_second - time.perf_counter()))
            sent.append(asyncio.create_task(one()))

    sent: list[asyncio.Task[None]] = []
    pacing = asyncio.create_task(pace())
    try:
        yield
    finally:
        pacing.cancel()
        ended = await asyncio.wait_for(asyncio.gather(*sent, return_exceptions=True), LONGEST)
        for writer in opened:
            writer.close()
    for error in ended:
        if error is not None:
            raise BenchmarkFailed(f"an update failed: {error}")
