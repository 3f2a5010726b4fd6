# SPDX-License-Identifier: Apache-2.0
"""`GET /api/events/stream`: what is sent, and when the server closes it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import cast

import orjson
import pytest
from sqlalchemy import Connection

from novitai.api.http import application
from novitai.api.http.application import REQUEST_SECONDS
from novitai.cli.connections import Limits
from novitai.domain.api_key import Scope
from novitai.domain.event import EventType
from novitai.lifecycle.queries.event_streams import MAX_BEHIND, MAX_PER_KEY, Ended
from novitai.store.queries import events
from tests.api.client import ApiProcess
from tests.api.wire import WITHIN, Serving, Wire, serving
from tests.lifecycle.world import on_both_stores

pytestmark = on_both_stores
STREAM = "/api/events/stream"


async def write(api_process: ApiProcess, *names: str, size: int = 0) -> None:
    """Commit events about the account, with data of a size."""

    def act(connection: Connection) -> None:
        for name in names:
            events.append(
                connection,
                event_id=name,
                instance_id=None,
                event_type=EventType.ACCOUNT_CHANGED,
                at=1_760_000_000_000,
                data={"text": "x" * size},
                actor=None,
            )

    await api_process.app.database.write(act)


class Client:
    """A client that reads a stream over a bare connection."""

    def __init__(self, wire: Wire, head: str) -> None:
        self.wire = wire
        self.head = head.lower()
        self.place = ""

    async def message(self) -> dict[str, str]:
        """Read one message: its fields by name, a comment under an empty one."""
        size = int((await self.wire.reader.readuntil(b"\r\n")).strip(), 16)
        chunk = (await self.wire.reader.readexactly(size + 2)).decode()
        assert chunk.endswith("\n\n\r\n"), "one message in a chunk"
        lines = chunk.strip("\r\n").split("\n")
        fields = (line.partition(":") for line in lines)
        return {name: value.strip() for name, _, value in fields}

    async def end(self) -> None:
        """Read the last chunk."""
        async with asyncio.timeout(WITHIN):
            assert await self.wire.reader.readuntil(b"\r\n\r\n") == b"0\r\n\r\n"


async def opened(
    api_process: ApiProcess, server: Serving, query: str = "", headers: Mapping[str, str] = {}
) -> Client:
    """Open a stream and read its head."""
    wire = await server.connect()
    sent = {"Host": "x", "Authorization": f"Bearer {api_process.keys[Scope.READ]}", **headers}
    lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items())
    await wire.send(f"GET {STREAM}{query} HTTP/1.1\r\n{lines}\r\n".encode())
    head = (await wire.reader.readuntil(b"\r\n\r\n")).decode()
    return Client(wire, head)


@asynccontextmanager
async def streaming(
    api_process: ApiProcess, query: str = "", headers: Mapping[str, str] = {}
) -> AsyncIterator[tuple[Serving, Client]]:
    """Serve the application and open a stream, whose first message sets the time to reconnect."""
    async with serving(api_process.gateway, Limits(drain=0.2, cut=0.2)) as server:
        client = await opened(api_process, server, query, headers)
        assert client.head.startswith("http/1.1 200 ")
        assert await client.message() == {"retry": "2000"}
        if "since" not in query and "Last-Event-ID" not in headers:
            place = await client.message()
            assert list(place) == ["id"]
            client.place = place["id"]
        yield server, client


async def test_an_event_is_sent_as_it_is_listed(api_process: ApiProcess) -> None:
    """A message has ID, type and the JSON of `GET /api/events`; later comes a comment."""
    async with streaming(api_process) as (_, client):
        assert "content-type: text/event-stream\r\n" in client.head
        assert "cache-control: no-store\r\n" in client.head
        await write(api_process, "evt_1")
        message = await api_process.through(client.message(), within=1)
        listed = (await api_process.call("GET", "/api/events")).json()["events"]
        assert (message["id"], message["event"]) == ("evt_1", "account.changed")
        assert [orjson.loads(message["data"])] == listed
        assert await api_process.through(client.message(), within=15.5) == {"": ""}


async def test_a_client_resumes_before_its_first_event(api_process: ApiProcess) -> None:
    """A stream without a place begins with an ID, after which nothing is lost."""
    await write(api_process, "evt_1")
    async with streaming(api_process) as (server, client):
        client.wire.close()
        await write(api_process, "evt_2")
        resumed = await opened(api_process, server, headers={"Last-Event-ID": client.place})
        assert await resumed.message() == {"retry": "2000"}
        assert (await api_process.through(resumed.message(), within=1))["id"] == "evt_2"


async def test_a_client_resumes(api_process: ApiProcess) -> None:
    """`Last-Event-ID` goes before `since`, and an unknown one gets the gap and the oldest event."""
    await write(api_process, "evt_1")
    await write(api_process, "evt_2")
    async with streaming(api_process, "?since=cur_0", {"Last-Event-ID": "evt_1"}) as (_, client):
        message = await api_process.through(client.message(), within=1)
        assert message["id"] == "evt_2"
    async with streaming(api_process, headers={"Last-Event-ID": "n\xf6"}) as (_, client):
        assert await client.message() == {"event": "gap", "data": '{"oldest":"evt_1"}'}


async def test_the_list_of_instances_has_a_cursor(api_process: ApiProcess) -> None:
    """`since` takes `Event-Cursor`, which an empty log has too."""
    cursor = (await api_process.call("GET", "/api/instances")).headers["Event-Cursor"]
    await write(api_process, "evt_1")
    async with streaming(api_process, f"?since={cursor}") as (_, client):
        assert (await api_process.through(client.message(), within=1))["id"] == "evt_1"


@pytest.mark.parametrize("query", ["?type=nothing", "?since=", "?since=a%20b", "?instanceId=a-b"])
async def test_a_wrong_query_is_refused(api_process: ApiProcess, query: str) -> None:
    """A filter that nothing can meet is 400 with the field, before the stream begins."""
    answer = await api_process.call("GET", STREAM + query)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["field"] == query[1:].partition("=")[0]


async def test_the_eleventh_stream_of_a_key_is_refused(api_process: ApiProcess) -> None:
    """It is 429 with `Retry-After`; a client that leaves makes room; metrics count open streams."""
    async with streaming(api_process) as (server, client):
        for _ in range(MAX_PER_KEY - 1):
            await opened(api_process, server)
        refused = await api_process.call("GET", STREAM, scope=Scope.READ)
        assert (refused.status_code, refused.headers["Retry-After"]) == (429, "5")
        accept = {"Accept": "text/plain"}
        metrics = (await api_process.call("GET", "/metrics", headers=accept)).text
        assert "\nnovitai_event_streams 10.0\n" in metrics
        client.wire.writer.transport.abort()
        async with asyncio.timeout(WITHIN):
            while api_process.app.event_streams.count == MAX_PER_KEY:  # noqa: ASYNC110 - the server has no event for it
                await asyncio.sleep(0)
        assert "200" in (await opened(api_process, server)).head.partition("\r\n")[0]


async def test_a_stream_outlives_the_time_limit_of_requests(api_process: ApiProcess) -> None:
    """A quiet stream gets a comment every 15 seconds, and lives for more than 30 seconds."""
    async with streaming(api_process) as (_, client):
        times = [api_process.clock.monotonic()]
        while times[-1] - times[0] <= 2 * REQUEST_SECONDS:
            assert await api_process.through(client.message(), within=16) == {"": ""}
            times.append(api_process.clock.monotonic())
        pauses = [after - before for before, after in itertools.pairwise(times)]
        assert pauses == pytest.approx([15] * len(pauses), abs=0.5)
        await write(api_process, "evt_1")
        assert (await api_process.through(client.message(), within=1))["id"] == "evt_1"


async def test_a_stream_is_exempt_from_the_deadline(
    api_process: ApiProcess, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If no time is left for requests, a list is 408, and a stream begins all the same."""
    monkeypatch.setattr(application, "REQUEST_SECONDS", 0)
    assert (await api_process.call("GET", "/api/events")).status_code == 408
    async with streaming(api_process) as (_, client):
        monkeypatch.undo()
        await write(api_process, "evt_1")
        assert (await api_process.through(client.message(), within=1))["id"] == "evt_1"


async def test_a_revoked_key_ends_the_stream(api_process: ApiProcess) -> None:
    """The stream ends in good order within 2 seconds after the revocation."""
    async with streaming(api_process) as (_, client):
        keys = (await api_process.call("GET", "/api/keys", scope=Scope.ADMIN)).json()["keys"]
        key_id = next(key["id"] for key in keys if key["scopes"] == ["read"])
        await api_process.call("DELETE", f"/api/keys/{key_id}", scope=Scope.ADMIN)
        await api_process.through(client.end(), within=2)


async def test_shutdown_ends_the_stream(api_process: ApiProcess) -> None:
    """The stream ends in good order at once when shutdown begins."""
    async with streaming(api_process) as (server, client):
        server.end.set()
        await client.end()


async def test_a_client_that_does_not_read_is_cut_off(api_process: ApiProcess) -> None:
    """Its connection is closed once 1,000 events wait beside what is in the buffers."""
    async with streaming(api_process) as (_, client):
        cast("asyncio.Transport", client.wire.writer.transport).pause_reading()
        await write(api_process, "evt_first")
        while api_process.app.event_streams.count:
            number = api_process.clock.monotonic()
            names = [f"evt_{number}_{one}" for one in range(MAX_BEHIND // 2)]
            await write(api_process, *names, size=20_000)
            await api_process.through(api_process.clock.sleep(0.5), within=1)
            async with asyncio.timeout(1):
                await asyncio.sleep(0)
        assert api_process.app.event_streams.closed[Ended.SLOW] == 1


async def test_a_head_request_ends_at_once(api_process: ApiProcess) -> None:
    """HEAD gets the headers and leaves no stream open."""
    answer = await api_process.call("HEAD", STREAM)
    assert (answer.status_code, answer.content) == (200, b"")
    assert api_process.app.event_streams.count == 0
