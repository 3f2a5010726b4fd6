# SPDX-License-Identifier: Apache-2.0
"""Tests of what applies to every request."""

from __future__ import annotations

import asyncio
import re

import pytest
from starlette.responses import Response
from starlette.types import Message
from structlog.testing import capture_logs

from novitai.api.routing.router import Route, RouteCall
from novitai.domain.api_key import Scope
from tests.api.application import CREATE, Api, ApiFactory


@pytest.mark.parametrize("given", ["abc", "A-b_c.9", "x" * 128])
async def test_a_well_formed_request_id_is_echoed(api: Api, given: str) -> None:
    """The response has the client's request ID."""
    answer = await api.call("GET", "/health", headers={"X-Request-ID": given})
    assert answer.headers["X-Request-ID"] == given


@pytest.mark.parametrize("given", ["", "x" * 129, "a b", "a/b", "é", "<script>"])
async def test_any_other_request_id_is_replaced(api: Api, given: str) -> None:
    """Any other ID is replaced by `req_<unix seconds>_<random>`, so the log stays clean."""
    sent = [(b"x-request-id", given.encode("latin-1"))]
    answer = await api.client.get("/health", headers=sent)
    assert re.fullmatch(r"req_1760000000_[a-z0-9]{10,}", answer.headers["X-Request-ID"])


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/api/instances", "/docs"])
async def test_every_answer_has_a_request_id_of_its_own(api: Api, path: str) -> None:
    """Successes and errors have distinct request IDs."""
    first, second = await api.call("GET", path), await api.call("GET", path)
    assert first.headers["X-Request-ID"] != second.headers["X-Request-ID"]


@pytest.mark.parametrize("path", ["/health", "/api/instances", "/docs", "/openapi.json"])
async def test_every_path_answers_with_the_version_in_front(api: Api, path: str) -> None:
    """Every path also works with the prefix `/v1`."""
    plain, versioned = await api.call("GET", path), await api.call("GET", "/v1" + path)
    assert plain.status_code == versioned.status_code == 200
    assert plain.headers["Content-Type"] == versioned.headers["Content-Type"]


@pytest.mark.parametrize("path", ["/health", "/nowhere", "/api/instances", "/docs", "/metrics"])
async def test_no_answer_is_sniffed(api: Api, path: str) -> None:
    """Successes and errors have `X-Content-Type-Options: nosniff`."""
    told = await api.call("GET", path)
    assert told.headers["X-Content-Type-Options"] == "nosniff"


async def test_head_is_get_without_the_body(api: Api) -> None:
    """HEAD returns the headers of GET, also on routes for which Starlette has no HEAD."""
    for path in ("/health", "/api/instances", "/api/keys"):
        got = await api.call("GET", path, scope=Scope.ADMIN)
        headed = await api.call("HEAD", path, scope=Scope.ADMIN)
        assert headed.status_code == got.status_code == 200
        assert headed.content == b""
        assert headed.headers["Content-Type"] == "application/json"


async def test_one_line_is_logged_for_each_request(api: Api) -> None:
    """The line has method, template, status and key ID; never the path, the query or the key."""
    with capture_logs() as lines:
        answer = await api.call("GET", "/v1/api/instances/inst_secret?token=hunter2")
    assert answer.status_code == 404
    (line,) = lines
    assert line["event"] == "request"
    assert (line["method"], line["route"], line["status"]) == (
        "GET",
        "/api/instances/{instanceId}",
        404,
    )
    assert line["key_id"].startswith("key_")
    assert line["client"] == "127.0.0.1"
    assert "hunter2" not in str(lines)
    assert api.keys[Scope.WRITE] not in str(lines)


async def test_requests_are_counted_by_template(api: Api) -> None:
    """Paths with and without `/v1` share one series, and unmatched paths share another."""
    for path in ("/api/instances/a", "/v1/api/instances/b", "/x", "/y", "/docs"):
        await api.call("GET", path)
    await api.call("POST", "/api/instances", body=CREATE)
    counts = {key: route.durations.count for key, route in api.services.requests.routes.items()}
    assert counts == {
        ("GET", "/api/instances/{instanceId}"): 2,
        ("GET", "(unmatched)"): 2,
        ("GET", "/docs"): 1,
        ("POST", "/api/instances"): 1,
    }


async def test_what_is_no_request_goes_through(api: Api) -> None:
    """ASGI lifespan messages reach the application."""
    sent: list[Message] = []
    incoming: list[Message] = [{"type": "lifespan.startup"}, {"type": "lifespan.shutdown"}]

    async def receive() -> Message:
        return incoming.pop(0)

    async def send(message: Message) -> None:
        sent.append(message)

    await api.gateway({"type": "lifespan", "asgi": {"version": "3.0"}}, receive, send)
    assert [message["type"] for message in sent] == [
        "lifespan.startup.complete",
        "lifespan.shutdown.complete",
    ]


async def test_a_client_that_goes_away_is_no_defect(api: Api) -> None:
    """A disconnect is neither logged nor counted as a server error."""
    messages: list[Message] = [
        {"type": "http.request", "body": b"{", "more_body": True},
        {"type": "http.disconnect"},
    ]

    async def receive() -> Message:
        return messages.pop(0)

    async def send(_message: Message) -> None:
        return

    headers = {**api.bearer(), "Content-Type": "application/json"}
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": "/api/instances",
        "query_string": b"",
        "headers": [(name.lower().encode(), value.encode()) for name, value in headers.items()],
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }
    with capture_logs() as lines:
        await api.gateway(scope, receive, send)
    assert [line["event"] for line in lines] == ["request"]
    assert lines[0]["status"] == 499
    assert api.services.requests.last_minute().error_rate == 0


def slow(path: str, method: str, started: asyncio.Event, released: asyncio.Event) -> Route:
    """Declare a route that waits until it is released."""

    async def wait(_call: RouteCall) -> Response:
        """Wait for the release."""
        started.set()
        await released.wait()
        return Response(b'{"done":true}')

    return Route(
        method=method,
        path=path,
        id="testRoute",
        handler=wait,
        scope=Scope.READ,
        tag="Health",
        summary="Wait",
        answers={200: None},
    )


async def test_a_reading_request_that_takes_too_long_is_408(
    factory: ApiFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A read that takes too long is cancelled."""
    monkeypatch.setattr("novitai.api.http.application.REQUEST_SECONDS", 0.02)
    route = slow("/api/slow", "GET", asyncio.Event(), asyncio.Event())
    api = await factory.make(extra=(route,))
    answer = await api.call("GET", "/api/slow")
    assert answer.status_code == 408
    error = answer.json()["error"]
    assert (error["code"], error["category"], error["retryable"]) == (
        "REQUEST_TIMEOUT",
        "TIMEOUT_ERROR",
        True,
    )


async def test_a_changing_request_is_never_broken_off(
    factory: ApiFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write is not cancelled at the limit; the client gets its real response, however late."""
    monkeypatch.setattr("novitai.api.http.application.REQUEST_SECONDS", 0.0)
    started, released = asyncio.Event(), asyncio.Event()
    api = await factory.make(extra=(slow("/api/slow", "POST", started, released),))
    call = asyncio.create_task(api.call("POST", "/api/slow"))
    await started.wait()
    await asyncio.sleep(0.02)
    assert not call.done()
    released.set()
    assert (await call).json() == {"done": True}


async def test_a_create_is_handed_its_deadline(api: Api) -> None:
    """The command gets the deadline, 30 s after arrival, and the transaction checks it."""
    await api.call("POST", "/api/instances", body=CREATE)
    assert api.instances.deadlines == [api.clock.now() + 30_000]


async def test_a_body_that_does_not_arrive_is_408(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client that stops sending its body gets 408, and nothing is created."""
    monkeypatch.setattr("novitai.api.http.application.REQUEST_SECONDS", 0.02)
    never = asyncio.Event()

    async def stuck() -> bytes:
        await never.wait()
        return b""

    class Stream:
        def __aiter__(self) -> Stream:
            return self

        async def __anext__(self) -> bytes:
            return await stuck()

    answer = await api.client.post(
        "/api/instances",
        content=Stream(),
        headers={**api.bearer(), "Content-Type": "application/json"},
    )
    assert answer.status_code == 408
    assert api.instances.requests == []
