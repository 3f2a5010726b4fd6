# SPDX-License-Identifier: Apache-2.0
"""Tests that need a real server on a real socket."""

from __future__ import annotations

from collections.abc import AsyncIterator

import orjson
import pytest
from starlette.responses import Response
from structlog.testing import capture_logs

from novitai.api.http.body import MAX_BODY
from novitai.api.routing.router import Route, RouteCall
from novitai.cli.protocol import MAX_HEAD
from novitai.telemetry.requests import OTHER_METHOD, UNMATCHED
from tests.api.application import CREATE, Api, ApiFactory
from tests.api.wire import sent, served


@pytest.mark.parametrize("size", [MAX_BODY + 1, 5 * MAX_BODY])
async def test_a_client_that_sends_too_much_is_told_so(api: Api, size: int) -> None:
    """A client that is still sending gets 413 and not a reset, with or without Content-Length."""

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(0, size, 65_536):
            yield b"x" * 65_536

    headers = {**api.bearer(), "Content-Type": "application/json"}
    async with served(api) as client:
        declared = await client.post("/api/instances", content=b"x" * size, headers=headers)
        streamed = await client.post("/api/instances", content=stream(), headers=headers)
        assert (declared.status_code, streamed.status_code) == (413, 413)
        after = await client.post("/api/instances", json=CREATE, headers=headers)
        assert after.status_code == 201


async def test_head_and_304_keep_the_connection_in_step(api: Api) -> None:
    """A response without a body does not disturb the next one on the same connection."""
    api.instances.views["inst_1"] = {"id": "inst_1"}
    async with served(api) as client:
        for _ in range(2):
            headed = await client.head("/api/instances/inst_1", headers=api.bearer())
            assert (headed.status_code, headed.content) == (200, b"")
            tag = {"If-None-Match": headed.headers["ETag"]}
            fresh = await client.get("/api/instances/inst_1", headers={**api.bearer(), **tag})
            assert (fresh.status_code, fresh.content) == (304, b"")
            whole = await client.get("/api/instances/inst_1", headers=api.bearer())
            assert whole.json() == {"id": "inst_1"}


async def test_a_header_with_a_line_break_is_not_sent(factory: ApiFactory) -> None:
    """A response that would be split is a defect: the client gets the internal error."""

    async def split(_call: RouteCall) -> Response:
        return Response(b"", 200, {"X-One": "1\r\nX-Two: 2"})

    broken = Route(
        method="GET",
        path="/split",
        id="testRoute",
        handler=split,
        scope=None,
        tag="Health",
        summary="Break",
        answers={200: None},
    )
    async with served(await factory.make(extra=(broken,))) as client:
        told = await client.get("/split")
        assert (told.status_code, told.json()["error"]["code"]) == (500, "INTERNAL_SERVER_ERROR")
        assert "X-Two" not in told.headers
        assert (await client.get("/health")).status_code == 200


@pytest.mark.parametrize(
    "sending",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"hello\r\n\r\n",
        b"GET /health HTTP/9.9\r\n\r\n",
        b"GET http://[ HTTP/1.1\r\n\r\n",
        b"GET /health HTTP/1.1\r\nno header\r\n\r\n",
        b"POST /api/instances HTTP/1.1\r\nContent-Length: many\r\n\r\n",
        b"POST /api/instances HTTP/1.1\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /health HTTP/1.1\r\nX: " + b"x" * MAX_HEAD,
    ],
)
async def test_what_is_no_http_is_told_so(api: Api, sending: bytes) -> None:
    """Malformed HTTP gets 400 in the envelope, is counted and logged, and ends the connection."""
    async with served(api) as client:
        with capture_logs() as logs:
            [told] = await sent(client, sending)
    assert (told.status, told.error["code"]) == (400, "VALIDATION_ERROR")
    assert told.headers["connection"] == "close"
    assert api.services.requests.routes[OTHER_METHOD, UNMATCHED].statuses == {400: 1}
    [line] = [line for line in logs if line["event"] == "request"]
    assert (line["status"], line["client"]) == (400, "127.0.0.1")


async def test_what_was_understood_of_no_http_counts(api: Api) -> None:
    """A request ID and `Accept` that precede the error are used in the response."""
    head = (
        b"POST / HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\nAccept: application/problem+json\r\n"
    )
    async with served(api) as client:
        [told] = await sent(client, head + b"Content-Length: -1\r\n\r\n")
    assert (told.status, told.headers["x-request-id"]) == (400, "mine")
    assert told.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize("method", ["FOO", "get", "BASELINE-CONTROL"])
async def test_a_method_that_nobody_knows_is_a_wrong_method(api: Api, method: str) -> None:
    """405 with `Allow` on a known path, else 404; the connection remains usable."""
    head = "HTTP/1.1\r\nHost: x\r\nX-Request-ID: mine\r\n"
    async with served(api) as client:
        known, health = await sent(
            client,
            f"{method} /v1/api/instances?x {head}Content-Length: 2\r\n\r\n{{}}".encode(),
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        )
        [unknown] = await sent(
            client, f"{method} /nowhere {head}Connection: close\r\n\r\n".encode()
        )
    assert (known.status, known.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert known.headers["allow"] == "get, head, post"
    assert known.headers["x-request-id"] == "mine"
    assert health.status == 200
    assert (unknown.status, unknown.error["code"]) == (404, "NOT_FOUND")
    assert api.services.requests.routes[OTHER_METHOD, UNMATCHED].statuses == {405: 1, 404: 1}


async def test_a_body_that_is_no_http_is_told_so(api: Api) -> None:
    """A malformed body is 400, and its request has no effect."""
    bearer = api.bearer()["Authorization"]
    head = (
        f"POST /api/instances HTTP/1.1\r\nHost: x\r\nAuthorization: {bearer}\r\n"
        "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n"
    ).encode()
    health = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(api) as client:
        for before, chunks in (
            ([], [head + b"zz\r\n"]),
            ([], [head, b"2\r\n{}\r\n", b"zz\r\n"]),
            ([200], [health + head + b"zz\r\n"]),
        ):
            *good, told = await sent(client, *chunks)
            assert [answered.status for answered in good] == before
            assert (told.status, told.error["code"]) == (400, "VALIDATION_ERROR")
    assert api.instances.requests == []


async def test_what_was_answered_before_its_body_went_wrong_has_one_answer(api: Api) -> None:
    """The connection is closed, because a second response would look like the next request's."""
    async with served(api) as client:
        [told] = await sent(
            client,
            b"POST /nowhere HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
            b"zz\r\n",
        )
    assert told.status == 404


async def test_what_came_before_no_http_is_answered_first(api: Api) -> None:
    """Each request on a connection gets its own response, in order."""
    body = orjson.dumps(CREATE)
    create = (
        "POST /api/instances HTTP/1.1\r\nHost: x\r\n"
        f"Authorization: {api.bearer()['Authorization']}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    async with served(api) as client:
        answers = await sent(client, create + create + b"\x00FOO /health HTTP/1.1\r\n\r\n")
    assert [told.status for told in answers] == [201, 201, 400]
    assert len(api.instances.requests) == 2
