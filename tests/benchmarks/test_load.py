# SPDX-License-Identifier: Apache-2.0
"""The load generator: what it counts, and what ends a measurement."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager

import pytest

from benchmarks.load import Load, get, send, updating
from benchmarks.machine import BenchmarkFailed

Answer = Callable[[bytes, asyncio.StreamWriter], None]


@asynccontextmanager
async def answering(answer: Answer) -> AsyncIterator[str]:
    """Serve requests with a function that writes the response; yield the URL."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                answer(await reader.readuntil(b"\r\n\r\n"), writer)
                await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            return
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    finally:
        server.close()


def in_order() -> Iterator[bytes]:
    """Return requests with rising numbers."""
    return (get(f"/{number}") for number in itertools.count())


async def test_it_sends_exactly_the_requests_that_are_wanted() -> None:
    """With `least` and `most` equal, that many requests are sent, each once, over all servers."""
    seen: list[bytes] = []

    def answer(head: bytes, writer: asyncio.StreamWriter) -> None:
        seen.append(head.split(b" ")[1])
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")

    async with (
        answering(answer) as first,
        answering(answer) as second,
        Load([first, second], connections=4) as load,
    ):
        counted = await load.run(in_order, least=50, most=50)
    assert counted.responses == 50
    assert sorted(seen, key=lambda path: int(path[1:])) == [b"/%d" % n for n in range(50)]


async def test_a_response_may_arrive_in_pieces() -> None:
    """A head and a body that arrive in several packets are one response."""
    pieces = [b"HTTP/1.1 200 OK\r\ncontent-le", b"ngth: 6\r\n\r\nab", b"cd", b"ef"]
    tasks = []

    def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        async def write() -> None:
            for piece in pieces:
                writer.write(piece)
                await writer.drain()
                for _ in range(5):
                    await asyncio.sleep(0)

        tasks.append(asyncio.create_task(write()))

    async with answering(answer) as url, Load([url], connections=1) as load:
        counted = await load.run(in_order, least=3, most=3)
    assert counted.responses == 3
    assert len(tasks) == 3


async def test_a_response_without_a_body_is_a_response() -> None:
    """A 304 has no `Content-Length`."""

    def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 304 Not Modified\r\nETag: x\r\n\r\n")

    async with answering(answer) as url, Load([url], connections=2) as load:
        assert (await load.run(in_order, status=304, least=9, most=9)).responses == 9


async def test_another_status_ends_the_measurement() -> None:
    """An error is never counted as a response; the message has its status and its body."""

    def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 503 X\r\nContent-Length: 4\r\n\r\nfull")

    async with answering(answer) as url, Load([url], connections=2) as load:
        with pytest.raises(BenchmarkFailed, match=r"503.*full"):
            await load.run(in_order, least=9)


async def test_a_lost_connection_ends_the_measurement() -> None:
    """A server that closes a connection did not answer."""
    closing = answering(lambda _head, writer: writer.close())
    async with closing as url, Load([url], connections=1) as load:
        with pytest.raises(BenchmarkFailed, match="closed a connection"):
            await load.run(in_order, least=9)


async def test_a_silent_server_ends_the_measurement() -> None:
    """The wait for responses has a deadline."""
    silent = answering(lambda _head, _writer: None)
    async with silent as url, Load([url], connections=1) as load:
        with pytest.raises(BenchmarkFailed, match=r"within 0\.05 s"):
            await load.run(in_order, least=1, within=0.05)


async def test_updates_go_on_while_the_block_runs() -> None:
    """Updates are sent at their rate until the block ends."""
    enough = asyncio.Event()
    count = itertools.count(1)

    def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}")
        if next(count) == 20:
            enough.set()

    updates = itertools.repeat(send("PUT", "/x", b""))
    async with answering(answer) as url, updating(url, lambda: updates, 1_000):
        await asyncio.wait_for(enough.wait(), 30)


async def test_a_failed_update_fails_the_measurement() -> None:
    """An update that is not answered 200 is an error of the benchmark."""
    enough = asyncio.Event()

    def answer(_head: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 404 X\r\nContent-Length: 0\r\n\r\n")
        enough.set()

    async with answering(answer) as url:
        with pytest.raises(BenchmarkFailed, match="404"):
            async with updating(url, lambda: itertools.repeat(send("PUT", "/x", b"")), 100):
                await asyncio.wait_for(enough.wait(), 30)
