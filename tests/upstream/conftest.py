# SPDX-License-Identifier: Apache-2.0
"""Upstreams of three kinds: the emulator, a stub in this process, and a socket that misbehaves."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from ssl import SSLContext
from typing import Any, TypeVar

import httpx2
import orjson
import pytest

from novitai.clock import Clock
from novitai.emulator.config import EmulatorConfig
from novitai.emulator.server import serve
from novitai.ids import Ids
from novitai.testing import ManualClock
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import CallOutcome
from novitai.upstream.gateway import CallObserver
from novitai.upstream.metrics import CallMetrics
from novitai.upstream.models import CreateInstance

T = TypeVar("T")

KEY = "sk-upstream-key-of-the-tests"


@dataclass(slots=True)
class Received:
    """A request as the raw server got it."""

    connection: int
    method: str
    target: str
    headers: dict[str, str]
    body: bytes


Step = Callable[[asyncio.StreamWriter], Awaitable[None]]


@dataclass(slots=True)
class RawServer:
    """Answers request after request with the next step, the last one for ever."""

    steps: list[Step] = field(default_factory=list)
    received: list[Received] = field(default_factory=list)
    connections: int = 0
    url: str = ""
    _writers: set[asyncio.StreamWriter] = field(default_factory=set)
    _connected: asyncio.Event = field(default_factory=asyncio.Event)
    _asked: asyncio.Event = field(default_factory=asyncio.Event)

    def posts(self) -> int:
        """Count the POSTs that began to arrive."""
        return sum(request.method == "POST" for request in self.received)

    def reply(
        self, status: int = 200, body: object = None, *, headers: str = "", cut: int = 0
    ) -> RawServer:
        """Answer whole, or all but the last `cut` bytes and then hang up."""
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
        """Send these bytes, one at a time with a pause between them if one is given, and stay."""

        async def step(writer: asyncio.StreamWriter) -> None:
            for piece in [data[i : i + 1] for i in range(len(data))] if pause else [data]:
                writer.write(piece)
                await writer.drain()
                await asyncio.sleep(pause)

        self.steps.append(step)
        return self

    def hang_up(self) -> RawServer:
        """Close without an answer."""

        async def step(writer: asyncio.StreamWriter) -> None:
            writer.close()

        self.steps.append(step)
        return self

    def reset(self) -> RawServer:
        """Reset the connection without an answer."""

        async def step(writer: asyncio.StreamWriter) -> None:
            writer.transport.abort()

        self.steps.append(step)
        return self

    def silence(self) -> RawServer:
        """Never answer."""
        return self.raw(b"")

    async def until_connected(self) -> None:
        """Wait until somebody is connected."""
        await self._connected.wait()

    async def until_asked(self) -> None:
        """Wait until a request has arrived."""
        await self._asked.wait()

    async def drop_idle(self) -> None:
        """Close every connection from this side and let the other side's kernel learn of it."""
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


@pytest.fixture
async def raw() -> AsyncIterator[RawServer]:
    """A server on a real socket that does what it is told."""
    raw_server = RawServer()
    server = await asyncio.start_server(raw_server.handle, "127.0.0.1", 0)
    raw_server.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    yield raw_server
    server.close()
    await raw_server.drop_idle()
    await server.wait_closed()


@pytest.fixture
def ids() -> Ids:
    """Randomness that is the same each time."""
    return Ids(random.Random(7))


@dataclass(slots=True)
class Calls:
    """What the observer was told."""

    seen: list[tuple[str, CallOutcome]] = field(default_factory=list)

    def __call__(self, endpoint: str, outcome: CallOutcome, seconds: float) -> None:
        assert seconds >= 0
        self.seen.append((endpoint, outcome))


@pytest.fixture
def calls() -> Calls:
    """An observer."""
    return Calls()


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
        """Make a client of the upstream at `url`."""
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
        """Make a client of a stub."""
        return self.at(
            "http://upstream.test",
            transport=httpx2.MockTransport(answer),
            calls_per_minute=calls_per_minute,
            observer=observer,
        )

    async def aclose(self) -> None:
        """Close all."""
        for made in self._made:
            await made.aclose()


@pytest.fixture
async def make(clock: ManualClock, ids: Ids) -> AsyncIterator[Maker]:
    """Makes clients."""
    maker = Maker(clock, ids)
    yield maker
    await maker.aclose()


@pytest.fixture
async def emulator_url() -> AsyncIterator[str]:
    """An emulator on a real socket, in a hurry."""
    async with serve(EmulatorConfig(port=0, speed=20_000, seed=1)) as url:
        yield url


@pytest.fixture
def finish(clock: ManualClock) -> Callable[[Coroutine[Any, Any, T]], Awaitable[T]]:
    """Run something to its end, moving virtual time whenever it waits."""

    async def run(work: Coroutine[Any, Any, T]) -> T:
        task = asyncio.create_task(work)
        for _ in range(10_000):
            if task.done():
                break
            await clock.advance(0.25)
            await asyncio.sleep(0.0005)
        return await task

    return run


@pytest.fixture
def wanted() -> CreateInstance:
    """A create with everything in it that is secret."""
    return CreateInstance(
        name="trainer-nv",
        product_id="4090.16c62g",
        gpu_num=1,
        rootfs_size=60,
        image_url="pytorch/pytorch:latest",
        envs=(("TOKEN", "env-secret-value"),),
    )
