# SPDX-License-Identifier: Apache-2.0
"""Receivers on real sockets that answer, hang, break off or send invalid data."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

Script = Callable[["Request", asyncio.StreamWriter], Awaitable[None]]


@dataclass
class Request:
    """A request that a receiver got."""

    line: str
    headers: dict[str, str]
    body: bytes


@dataclass
class Receiver:
    """A listening receiver and the requests it got."""

    port: int
    got: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        """The URL of the receiver."""
        return f"http://127.0.0.1:{self.port}/hook?a=%20b"


@asynccontextmanager
async def listening(
    script: Script, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[Receiver]:
    """Run a receiver that answers with a script."""
    receiver = Receiver(0)
    tasks: set[asyncio.Task[None]] = set()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode()
            line, *rows = head.strip().split("\r\n")
            headers = {row.split(": ", 1)[0].lower(): row.split(": ", 1)[1] for row in rows}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(line, headers, body)
            receiver.got.append(request)
            await script(request, writer)
            writer.close()
        except (OSError, asyncio.IncompleteReadError):
            return
        finally:
            writer.transport.abort()
            tasks.discard(task)

    server = await asyncio.start_server(handle, "127.0.0.1", 0, ssl=tls)
    receiver.port = server.sockets[0].getsockname()[1]
    try:
        yield receiver
    finally:
        server.close()
        for task in list(tasks):
            task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await task


def answer(status: int, body: bytes = b"", **headers: str) -> Script:
    """Send a normal response."""

    async def script(_request: Request, writer: asyncio.StreamWriter) -> None:
        rows = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        head = f"HTTP/1.1 {status} X\r\nContent-Length: {len(body)}\r\n{rows}\r\n"
        writer.write(head.encode() + body)
        await writer.drain()

    return script


async def hang(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """Never answer."""
    await asyncio.Event().wait()


async def drip(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Begin a response and never end its head, one byte a second."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"x" * 1000:
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


async def drip_body(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Send 200 at once, and never end the body."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nso far")
    await writer.drain()
    await asyncio.Event().wait()


async def hang_up(_request: Request, _writer: asyncio.StreamWriter) -> None:
    """Close without a response."""


async def hang_up_early(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Close in the middle of the body."""
    writer.write(b"HTTP/1.1 500 X\r\nContent-Length: 1000\r\n\r\nbroken o")
    await writer.drain()


async def gibberish(_request: Request, writer: asyncio.StreamWriter) -> None:
    """Speak another protocol."""
    writer.write(b"220 mail.example.com ESMTP\r\n")
    await writer.drain()


def megabytes(sent: list[int]) -> Script:
    """Send a very large body; `sent` gets a number for each 100 KB that was sent."""

    async def script(_request: Request, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n")
        for number in range(1000):
            writer.write(b"x" * 100_000)
            await writer.drain()
            sent.append(number)

    return script
