# SPDX-License-Identifier: Apache-2.0
"""Tests of the limits on connections: their time and their number."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from starlette.types import ASGIApp, Receive, Scope, Send
from structlog.testing import capture_logs

from novitai.cli.connections import MAX_CONNECTIONS, Limits, reserve, room
from tests.api.application import Api
from tests.api.wire import BODY, LIVE, Answer, Serving, Wire, create, serving

SHORT = 0.3
"""A limit in seconds, short enough for a test to wait for."""


async def whole(wire: Wire) -> Answer:
    """Send a request and read the response."""
    await wire.send(LIVE, pause=0)
    return await wire.answer()


async def dripping(wire: Wire, drop: bytes) -> None:
    """Send the same bytes repeatedly until the server closes the connection."""
    while True:
        await wire.send(drop, pause=SHORT / 10)


@asynccontextmanager
async def meanwhile(work: Awaitable[None]) -> AsyncIterator[None]:
    """Run `work` during the block, and stop it afterwards."""
    task = asyncio.ensure_future(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


@pytest.mark.parametrize("start", [b"G", LIVE[:-2], LIVE[:25]])
async def test_half_a_head_is_not_waited_for(api: Api, start: bytes) -> None:
    """An incomplete head gets 408 in the envelope, and the connection is closed."""
    async with serving(api.gateway, Limits(head=SHORT)) as server:
        wire = await server.connect()
        await wire.send(start)
        [told] = await wire.answers()
    assert (told.status, told.error["code"]) == (408, "REQUEST_TIMEOUT")
    assert told.headers["connection"] == "close"


async def test_a_head_that_comes_byte_by_byte_is_not_waited_for(api: Api) -> None:
    """The time counts from the first byte of the head, however many bytes follow."""
    async with serving(api.gateway, Limits(head=SHORT)) as server:
        wire = await server.connect()
        assert (await whole(wire)).status == 200
        await wire.send(b"GET / HTTP/1.1\r\nX: ")
        async with meanwhile(dripping(wire, b"x")):
            told = await wire.answer()
    assert told.status == 408


async def test_half_a_body_is_not_waited_for(api: Api) -> None:
    """An incomplete body gets 408, and nothing is done."""
    async with serving(api.gateway, Limits(body=SHORT)) as server:
        wire = await server.connect()
        await wire.send(create(api, f"Content-Length: {len(BODY)}"), BODY[:10])
        [told] = await wire.answers()
        assert (told.status, told.error["code"]) == (408, "REQUEST_TIMEOUT")
        dripped = await server.connect()
        await dripped.send(create(api, "Content-Length: 1000"))
        async with meanwhile(dripping(dripped, b" ")):
            assert (await dripped.answer()).status == 408
    assert api.instances.requests == []


async def test_half_a_body_that_nobody_reads_ends_the_connection(api: Api) -> None:
    """If the request was answered already, the connection is closed without a second response."""
    async with serving(api.gateway, Limits(body=SHORT)) as server:
        wire = await server.connect()
        await wire.send(b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n")
        assert (await wire.answer()).status == 404
        async with meanwhile(dripping(wire, b"x")):
            assert await wire.closed()


@pytest.mark.parametrize("drop", [b"", b"\r\n"])
async def test_an_idle_connection_is_closed(api: Api, drop: bytes) -> None:
    """This holds for new and used connections; blank lines do not count as activity."""
    async with serving(api.gateway, Limits(idle=SHORT)) as server:
        fresh, used = await server.connect(), await server.connect()
        assert (await whole(used)).status == 200
        for wire in (fresh, used):
            async with meanwhile(dripping(wire, drop)):
                assert await wire.closed()


async def test_a_connection_that_is_used_stays(api: Api) -> None:
    """Each request restarts the idle time."""
    limits = Limits(head=2 * SHORT, body=2 * SHORT, idle=2 * SHORT)
    async with serving(api.gateway, limits) as server:
        wire = await server.connect()
        for _ in range(6):
            await asyncio.sleep(SHORT)
            assert (await whole(wire)).status == 200


async def test_what_we_take_long_for_is_not_the_clients_fault(api: Api) -> None:
    """The connection limits do not end a running request or one queued behind it."""

    async def slow(scope: Scope, receive: Receive, send: Send) -> None:
        await asyncio.sleep(3 * SHORT)
        await api.gateway(scope, receive, send)

    limits = Limits(head=SHORT, body=SHORT, idle=SHORT)
    async with serving(slow, limits) as server:
        wire = await server.connect()
        await wire.send(LIVE + LIVE, pause=0)
        assert (await wire.answer()).status == 200
        assert (await wire.answer()).status == 200
        assert await wire.closed()


async def endless(_scope: Scope, _receive: Receive, send: Send) -> None:
    """Send a response far larger than any buffer."""
    size = 64 << 20
    length = str(size).encode()
    start = {"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]}
    await send(start)
    for at in range(0, size, 1 << 20):
        more = at + (1 << 20) < size
        await send({"type": "http.response.body", "body": bytes(1 << 20), "more_body": more})


async def test_an_answer_that_is_not_taken_is_given_up(api: Api) -> None:
    """A client that does not read cannot hold a task or memory for ever."""
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != "/endless":
            await api.gateway(scope, receive, send)
            return
        try:
            await endless(scope, receive, send)
        finally:
            ended.set()

    async with serving(app, Limits(answer=SHORT)) as server:
        wire = await server.connect()
        await wire.send(b"GET /endless HTTP/1.1\r\nHost: x\r\n\r\n")
        await asyncio.wait_for(ended.wait(), 10)
        assert not wire.reader.at_eof()
        wire.close()
        assert (await whole(await server.connect())).status == 200


async def test_a_last_answer_that_is_not_taken_is_given_up(api: Api) -> None:
    """Closing waits for the client to read the response, but not for ever."""
    big = 8 << 20

    async def app(_scope: Scope, _receive: Receive, send: Send) -> None:
        headers = [(b"content-length", str(big).encode()), (b"connection", b"close")]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(big)})

    async with serving(app, Limits(answer=SHORT, connections=1)) as server:
        wire = await server.connect()
        await wire.send(LIVE)
        await asyncio.sleep(4 * SHORT)
        with pytest.raises((ConnectionResetError, asyncio.IncompleteReadError)):
            await wire.reader.readexactly(big)
        wire.close()


async def filled(server: Serving, sending: list[bytes]) -> list[Wire]:
    """Open one connection for each item, and send the item."""
    wires = []
    for part in sending:
        wires.append(await server.connect())
        await wires[-1].send(part)
    return wires


async def test_whoever_waits_longest_makes_room(api: Api) -> None:
    """If idle clients hold all places, a new connection is served at once."""
    sending = [b"", b"GET", create(api, "Content-Length: 9"), b"", b"", b"", b"", b""]
    async with serving(api.gateway, Limits(connections=len(sending))) as server:
        with capture_logs() as logs:
            wires = await filled(server, sending)
            known = wires[3]
            assert (await whole(known)).status == 200
            for _ in range(4):
                assert (await whole(await server.connect())).status == 200
        for wire in [*wires[:3], wires[4]]:
            assert await wire.closed()
        assert (await whole(known)).status == 200, "connections that were used are closed last"
        assert (await whole(wires[7])).status == 200
    [line] = [line for line in logs if line["event"] == "connections_full"]
    assert (line["log_level"], line["most"]) == ("warning", len(sending))


async def test_where_all_are_at_work_a_new_one_is_refused(api: Api) -> None:
    """503 in the envelope with `Retry-After`; running requests are not dropped for it."""
    go_on = asyncio.Event()

    async with serving(holding(api.gateway, go_on.wait), Limits(connections=2)) as server:
        wires = await filled(server, [LIVE, LIVE])
        more = await server.connect()
        [told] = await more.answers()
        assert (told.status, told.error["code"]) == (503, "OVERLOADED")
        assert int(told.headers["retry-after"]) >= 1
        go_on.set()
        for wire in wires:
            assert (await wire.answer()).status == 200


def holding(app: ASGIApp, wait: Callable[[], Awaitable[object]]) -> ASGIApp:
    """Make every request to `/health/live` wait."""

    async def held(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/health/live":
            await wait()
        await app(scope, receive, send)

    return held


@pytest.mark.parametrize("files", [64, 256, 1024, 4096, 65_536, 1 << 20])
def test_connections_leave_files_for_the_rest(files: int) -> None:
    """The connection limit leaves enough file descriptors for the rest of the process."""
    assert 0 < room(files) <= min(MAX_CONNECTIONS, files - reserve(files))
    assert reserve(files) >= min(128, files // 2)
    assert room(-1) == MAX_CONNECTIONS
