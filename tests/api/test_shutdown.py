# SPDX-License-Identifier: Apache-2.0
"""Tests of running requests while the server shuts down."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from typing import TypeVar

import orjson
import pytest
from sqlalchemy import Connection, text
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as ASGIScope
from structlog.testing import capture_logs

from novitai.api.http.answers import answer
from novitai.api.routing.router import Route, RouteCall
from novitai.cli.connections import Limits
from novitai.domain.api_key import Scope
from novitai.lifecycle.commands.idempotency import outcome
from tests.api.application import Api, ApiFactory
from tests.api.wire import BODY, LIVE, Answer, create, serving

T = TypeVar("T")

QUICK = Limits(drain=0.2, cut=0.2)


def route(handler: Callable[[RouteCall], Awaitable[Response]], method: str = "POST") -> Route:
    """Declare the route of a test."""
    return Route(
        method=method,
        path="/api/slow",
        id="testRoute",
        handler=handler,
        scope=Scope.READ,
        tag="Health",
        summary="Take long",
        answers={200: None},
    )


def request(api: Api, target: str = "POST /api/slow") -> bytes:
    """Build a request without a body."""
    bearer = api.bearer()["Authorization"]
    return f"{target} HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n\r\n".encode()


def assert_shutting_down(told: Answer) -> None:
    """Assert 503 in the envelope, with a request ID and `Retry-After`."""
    assert (told.status, told.error["code"]) == (503, "SHUTTING_DOWN")
    assert (told.error["category"], told.error["retryable"]) == ("SERVER_ERROR", True)
    assert int(told.headers["retry-after"]) >= 1
    assert told.headers["connection"] == "close"


async def test_a_long_poll_is_answered_at_once(api: Api) -> None:
    """202 with the instance at once, before any request is cancelled."""
    api.instances.views["inst_1"] = {"id": "inst_1", "status": "creating"}
    async with serving(api.gateway, Limits(drain=60)) as server:
        wire = await server.connect()
        await wire.send(request(api, "GET /api/instances/inst_1/wait?timeout=300"))
        server.end.set()
        told = await wire.answer()
        await asyncio.wait_for(server.ended, 10)
    assert (told.status, told.body) == (202, b'{"id":"inst_1","status":"creating"}')


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_what_cannot_be_finished_is_told_so(factory: ApiFactory, method: str) -> None:
    """503 `SHUTTING_DOWN`, counted and logged; the work is cancelled."""
    begun, broken = asyncio.Event(), asyncio.Event()

    async def slow(_call: RouteCall) -> Response:
        begun.set()
        try:
            await asyncio.sleep(60)
        finally:
            broken.set()
        return answer(orjson.dumps({}))

    api = await factory.make(extra=(route(slow, method),))
    async with serving(api.gateway, QUICK) as server:
        wire = await server.connect()
        await wire.send(request(api, f"{method} /api/slow"))
        await begun.wait()
        with capture_logs() as logs:
            server.end.set()
            [told] = await wire.answers()
            await server.ended
    assert_shutting_down(told)
    assert broken.is_set()
    [line] = [line for line in logs if line["event"] == "request"]
    assert (line["status"], line["route"]) == (503, "/api/slow")
    assert api.services.requests.routes[method, "/api/slow"].statuses == {503: 1}


async def test_half_a_body_is_told_so(api: Api) -> None:
    """A request whose body is incomplete is 503 too."""
    async with serving(api.gateway, QUICK) as server:
        wire = await server.connect()
        await wire.send(create(api, f"Content-Length: {len(BODY)}"), BODY[:10])
        server.end.set()
        [told] = await wire.answers()
    assert_shutting_down(told)
    assert api.instances.requests == []


async def test_what_waits_for_its_turn_is_told_so(factory: ApiFactory) -> None:
    """Each request on a connection gets its own response, in order."""
    begun = asyncio.Event()

    async def slow(_call: RouteCall) -> Response:
        begun.set()
        await asyncio.sleep(60)
        return answer(orjson.dumps({}))

    api = await factory.make(extra=(route(slow),))
    async with serving(api.gateway, QUICK) as server:
        wire = await server.connect()
        await wire.send(request(api) + create(api, f"Content-Length: {len(BODY)}") + BODY)
        await begun.wait()
        server.end.set()
        answers = await wire.answers()
    assert len(answers) == 2
    for told in answers:
        assert (told.status, told.error["code"]) == (503, "SHUTTING_DOWN")
    assert api.instances.requests == []


async def test_what_was_committed_is_answered_as_it_is(factory: ApiFactory) -> None:
    """The server waits for a commit that outlasts the time for requests."""
    writing, go_on = threading.Event(), threading.Event()

    def write(connection: Connection) -> int:
        connection.execute(text("create table told (at integer)"))
        writing.set()
        assert go_on.wait(10)
        return 7

    async def slow(_call: RouteCall) -> Response:
        return answer(orjson.dumps({"made": await outcome(api.app.database.write(write))}))

    api = await factory.make(extra=(route(slow),))
    async with serving(api.gateway, Limits(drain=0.1, cut=10)) as server:
        wire = await server.connect()
        await wire.send(request(api))
        await asyncio.to_thread(writing.wait, 10)
        server.end.set()
        await asyncio.sleep(0.5)  # past the time after which requests are cancelled
        go_on.set()
        [told] = await wire.answers()
    assert (told.status, told.body) == (200, b'{"made":7}')


async def test_a_database_that_is_stuck_does_not_hold_the_end(factory: ApiFactory) -> None:
    """503 says that the outcome is unknown and how to find out."""
    writing, go_on = threading.Event(), threading.Event()

    def write(_connection: Connection) -> int:
        writing.set()
        assert go_on.wait(10)
        return 7

    async def slow(_call: RouteCall) -> Response:
        return answer(orjson.dumps({"made": await outcome(api.app.database.write(write))}))

    api = await factory.make(extra=(route(slow),))
    async with serving(api.gateway, QUICK) as server:
        wire = await server.connect()
        await wire.send(request(api))
        await asyncio.to_thread(writing.wait, 10)
        server.end.set()
        [told] = await wire.answers()
        await asyncio.wait_for(server.ended, 10)
        go_on.set()
    assert_shutting_down(told)
    assert "Idempotency-Key" in told.error["message"]


async def test_a_client_that_does_not_read_does_not_hold_the_end(api: Api) -> None:
    """Data that the client does not read in time is dropped with the connection."""

    async def app(_scope: ASGIScope, _receive: Receive, send: Send) -> None:
        size = 32 << 20
        headers = [(b"content-length", str(size).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": bytes(size)})

    async with serving(app, QUICK) as server:
        wire = await server.connect()
        await wire.send(LIVE)
        server.end.set()
        await asyncio.wait_for(server.ended, 5)


async def test_requests_are_answered_until_the_end(api: Api) -> None:
    """A create whose body arrives during shutdown is executed."""
    async with serving(api.gateway, Limits(drain=10)) as server:
        wire = await server.connect()
        await wire.send(create(api, f"Content-Length: {len(BODY)}"), BODY[:10])
        server.end.set()
        await wire.send(BODY[10:])
        [told] = await wire.answers()
    assert told.status == 201
    assert len(api.instances.requests) == 1


async def test_something_that_was_cancelled_within_is_a_defect(factory: ApiFactory) -> None:
    """A request that awaits a cancelled future gets the envelope as well."""

    async def waits(_call: RouteCall) -> Response:
        gone: asyncio.Future[Response] = asyncio.get_running_loop().create_future()
        gone.cancel()
        return await gone

    api = await factory.make(extra=(route(waits),))
    told = await api.call("POST", "/api/slow")
    assert (told.status_code, told.json()["error"]["code"]) == (500, "INTERNAL_SERVER_ERROR")
