# SPDX-License-Identifier: Apache-2.0
"""A server on a raw socket that misbehaves as scripted, and clients for it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import TypeVar

import httpx2
import orjson

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import CallOutcome
from novitai.upstream.gateway import CallObserver
from novitai.upstream.metrics import CallMetrics

T = TypeVar("T")


KEY = "sk-upstream-key-of-the-tests"


@dataclass(slots=True)
class Received:
    """A request that the raw server got."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class RawServer:
    """Answers each request with the next step; the last step is repeated."""

    steps: list[Step] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _connected: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def posts(self) -> int:
        """Count the POSTs of which at least a part arrived."""
        return sum(request.method == "POST" for request in self.received)

    def reply(
        self, status: int = 200, body: object = None, *, headers: str = "", cut: int = 0
    ) -> RawServer:
        """Send a response; with `cut`, omit its last bytes and close the connection."""
        content = body if isinstance(body, bytes) else orjson.dumps({} if body is None else body)
        head = (
            f"HTTP/1.1 {status} X\r\nContent-Type: application/json\r\n{headers}"
            f"Content-Length: {len(content)}\r\n\r\n"
        ).encode()
        whole = head + content

        async def step(writer: asyncio.StreamWriter) -> None:
            writer.write(whole[: len(whole) - cut])
            await writer.drain()
            if cut:
                writer.close()

        self.steps.append(step)
        return self

    def raw(self, data: bytes, *, pause: float = 0.0) -> RawServer:
        """Send these bytes, with `pause` one at a time, and keep the connection open."""

        async def step(writer: asyncio.StreamWriter) -> None:
            for piece in [data[i : i + 1] for i in range(len(data))] if pause else [data]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

        self.steps.append(step)
        return self

    def hang_up(self) -> RawServer:
        """Close without a response."""

        async def step(writer: asyncio.StreamWriter) -> None:
            writer.close()

        self.steps.append(step)
        return self

    def reset(self) -> RawServer:
        """Reset the connection without a response."""

        async def step(writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        self.steps.append(step)
        return self

    def silence(self) -> RawServer:
        """Never answer."""
        return self.raw(b"")

    async def until_connected(self) -> None:
        """Wait until a client is connected."""
        await self._connected.wait()

    async def until_asked(self) -> None:
        """Wait until a request has arrived."""
        await self._asked.wait()

    async def drop_idle(self) -> None:
        """Close every connection, and wait until the client's kernel has seen it."""
        for writer in list(self._writers):
            writer.close()
        await asyncio.sleep(0.02)

    async def handle(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Serve one connection."""
        self.connections += 1
        number = self.connections
        self._writers.add(writer)
        self._connected.set()
        try:
            while not writer.is_closing():
                request = await self._read(reader, number)
                self.received.append(request)
                self._asked.set()
                step = self.steps[min(len(self.received), len(self.steps)) - 1]
                await step(writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    @staticmethod
    async def _read(reader: asyncio.StreamReader, number: int) -> Received:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
        method, target, _ = head[0].split(" ", 2)
        pairs = (line.split(": ", 1) for line in head[1:] if line)
        headers = {name.lower(): value for name, value in pairs}
        body = await reader.readexactly(int(headers.get("content-length", "0")))
        return Received(number, method, target, headers, body)


@dataclass(slots=True)
class Calls:
    """An observer that records its calls."""

    seen: list[tuple[str, CallOutcome]] = field(default_factory=list)

    def __call__(self, endpoint: str, outcome: CallOutcome, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((endpoint, outcome))


class Maker:
    """Makes clients and closes them."""

    def __init__(self, clock: Clock, ids: Ids) -> None:
        self._clock = clock
        self._ids = ids
        self._made: list[NovitaClient] = []

    def at(
        self,
        url: str,
        *,
        timeout: float = 60.0,
        calls_per_minute: int = 100_000,
        observer: CallObserver | None = None,
        api_key: str = KEY,
        clock: Clock | None = None,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: SSLContext | None = None,
        proxy: str | None = None,
    ) -> NovitaClient:
        """Make a client for the upstream at `url`."""
        made = NovitaClient.build(
            base_url=url,
            api_key=api_key,
            calls_per_minute=calls_per_minute,
            timeout=timeout,
            clock=clock or self._clock,
            ids=self._ids,
            observer=observer or CallMetrics(),
            transport=transport,
            tls=tls,
            proxy=proxy,
        )
        self._made.append(made)
        return made

    def of(
        self,
        answer: Callable[[httpx2.Request], httpx2.Response],
        *,
        calls_per_minute: int = 100_000,
        observer: CallObserver | None = None,
    ) -> NovitaClient:
        """Make a client for a stub."""
        return self.at(
            "http://upstream.test",
            transport=httpx2.MockTransport(answer),
            calls_per_minute=calls_per_minute,
            observer=observer or CallMetrics(),
        )

    async def aclose(self) -> None:
        """Close all clients."""
        for made in self._made:
            await made.aclose()
