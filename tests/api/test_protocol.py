# SPDX-License-Identifier: Apache-2.0
"""Tests of request parsing on a bare connection: what is accepted and what is refused."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from novitai.api.http.application import Rules
from novitai.cli.connections import Limits
from novitai.cli.protocol import MAX_EXCESS, MAX_HEAD, MAX_PIPELINED, AnsweringProtocol
from novitai.domain import api_key
from novitai.settings import Settings
from tests.api.application import Api, ApiFactory
from tests.api.wire import BODY, LIVE, create, sent, served, serving

LONG = LIVE[:-2] + b"X: " + b"x" * 2000 + b"\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"


def chunked(body: bytes, size: int, extension: bytes = b"") -> bytes:
    """Encode a body in chunks, without the final chunk."""
    parts = [body[at : at + size] for at in range(0, len(body), size)]
    return b"".join(b"%x%s\r\n%s\r\n" % (len(part), extension, part) for part in parts)


async def test_a_trailer_does_not_authenticate(api: Api) -> None:
    """`Authorization` in a trailer is not a header of this request or of the next one."""
    trailer = f"Authorization: {api.bearer()['Authorization']}\r\n".encode()
    head = b"POST /api/instances HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
    listed = b"GET /api/instances HTTP/1.1\r\nHost: x\r\n\r\n"
    async with served(api) as client:
        answers = await sent(client, head + b"0\r\n" + trailer + b"\r\n" + listed + LAST)
    assert [told.status for told in answers] == [401, 401, 200]


async def test_a_trailer_says_nothing_for_a_proxy(factory: ApiFactory) -> None:
    """`X-Forwarded-Proto` in a trailer does not make plain HTTP secure."""
    text = {"trusted_proxies": "127.0.0.0/8"}
    trusted = Settings.model_validate(text).trusted_proxies
    api = await factory.make(rules=Rules(insist_on_https=True, trusted_proxies=trusted))
    head = create(api, "X-Forwarded-For: 203.0.113.9", "Transfer-Encoding: chunked")
    trailer = b"X-Forwarded-Proto: https\r\nX-Forwarded-For: 127.0.0.1\r\n"
    async with served(api) as client:
        behind, _ = await sent(client, head + b"0\r\n" + trailer + b"\r\n", LAST)
        front, _ = await sent(
            client, head.replace(b"\r\n\r\n", b"\r\n" + trailer + b"\r\n") + b"0\r\n\r\n", LAST
        )
    assert (behind.status, behind.error["code"]) == (403, "HTTPS_REQUIRED")
    assert front.status == 400  # the empty body


@pytest.mark.parametrize(
    "going_on",
    [
        b"0\r\n" + b"X: y\r\n" * (MAX_EXCESS // 2),
        b"0\r\nX: " + b"y" * 4 * MAX_EXCESS,
        b"2;" + b"x" * 4 * MAX_EXCESS,
        chunked(b" " * 200, 1, b";" + b"x" * 400),
    ],
    ids=["trailers", "one trailer", "one extension", "many extensions"],
)
async def test_what_surrounds_a_body_is_bounded(api: Api, going_on: bytes) -> None:
    """Too many or too long trailers and chunk extensions are 400, and the connection is closed."""
    head = create(api, "Transfer-Encoding: chunked")
    async with served(api) as client:
        [told] = await sent(client, head, going_on)
    assert (told.status, told.error["code"]) == (400, "VALIDATION_ERROR")
    assert "trailers" in told.error["message"]
    assert told.headers["connection"] == "close"
    assert api.instances.requests == []


@pytest.mark.parametrize("size", [1, 2, 1000])
async def test_small_chunks_are_a_body_like_any_other(api: Api, size: int) -> None:
    """A body in one-byte chunks is accepted, and so is a short trailer."""
    body = BODY + b" " * 50_000
    data = chunked(body, size) + b"0\r\nX-Sum: " + b"1" * 1000 + b"\r\n\r\n"
    async with served(api) as client:
        made, live = await sent(client, create(api, "Transfer-Encoding: chunked") + data, LAST)
    assert (made.status, live.status) == (201, 200)


@pytest.mark.parametrize("upgrade", ["h2c", "websocket", "TLS/1.0, h2c"])
@pytest.mark.parametrize("framing", ["length", "chunks", "apart"])
async def test_a_wish_to_upgrade_is_passed_over(api: Api, upgrade: str, framing: str) -> None:
    """`Upgrade` is ignored: the body and the next request are read as usual."""
    lines = ["Connection: Upgrade, HTTP2-Settings", f"Upgrade: {upgrade}", "HTTP2-Settings: AAMA"]
    async with served(api) as client:
        if framing == "chunks":
            data = chunked(BODY, 7) + b"0\r\n\r\n"
            parts = [create(api, *lines, "Transfer-Encoding: chunked") + data + LAST]
        else:
            head = create(api, *lines, f"Content-Length: {len(BODY)}")
            parts = [head, BODY, LAST] if framing == "apart" else [head + BODY + LAST]
        answers = await sent(client, *parts)
    assert [told.status for told in answers] == [201, 200]
    assert len(api.instances.requests) == 1


async def test_a_body_is_never_the_next_request(api: Api) -> None:
    """The body of a request with `Upgrade` is never executed as a request."""
    inner = create(api, f"Content-Length: {len(BODY)}") + BODY
    head = (
        "POST /nowhere HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: h2c\r\n"
        f"Content-Length: {len(inner)}\r\n\r\n"
    ).encode()
    async with served(api) as client:
        answers = await sent(client, head, inner, LAST)
    assert [told.status for told in answers] == [404, 200]
    assert api.instances.requests == []


async def test_a_tunnel_is_a_wrong_method(api: Api) -> None:
    """CONNECT is refused and the connection is closed; the bytes that follow are ignored."""
    async with served(api) as client:
        [told] = await sent(client, b"CONNECT /health HTTP/1.1\r\nHost: x\r\n\r\n" + LIVE)
        [other] = await sent(client, b"CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n" + LIVE)
    assert (told.status, told.error["code"]) == (405, "METHOD_NOT_ALLOWED")
    assert other.status == 400


@pytest.mark.parametrize(
    ("sending", "word"),
    [
        (b"GET /health/live\r\n\r\n", "HTTP/1.1"),
        (b"GET /health/live HTTP/2.0\r\nHost: x\r\n\r\n", "HTTP/1.1"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "HTTP/1.1"),
        (b"GET /health/live HTTP/1.1\r\n\r\n", "Host"),
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n", "Host"),
        (b"GET /health/live HTTP/1.0\r\nHost: x\r\nHost: y\r\n\r\n", "Host"),
        (b"GET /health/live HTTP/1.1\r\nHost: x, y\r\n\r\n", "Host"),
        (b"GET /health/live HTTP/1.1\r\nHost: u@x/y\r\n\r\n", "Host"),
        (
            b"GET /health/live HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
            "transfer coding",
        ),
        (
            b"GET /health/live HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "transfer coding",
        ),
    ],
)
async def test_what_could_be_read_in_two_ways_is_refused(
    api: Api, sending: bytes, word: str
) -> None:
    """An ambiguous request is 400 with the reason, and the connection is closed."""
    async with served(api) as client:
        [told] = await sent(client, sending + LIVE)
    assert (told.status, told.error["code"]) == (400, "VALIDATION_ERROR")
    assert word in told.error["message"]


@pytest.mark.parametrize(
    "host", ["x", "x:8080", "[::1]:80", "[fe80::1%25eth0]", "127.0.0.1", "", "a_b.example"]
)
async def test_any_host_that_can_be_is_served(api: Api, host: str) -> None:
    """One valid `Host` is enough, and HTTP/1.0 needs none."""
    async with served(api) as client:
        [named] = await sent(
            client,
            f"GET /health/live HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode(),
        )
        [old] = await sent(client, b"GET /health/live HTTP/1.0\r\n\r\n")
    assert (named.status, old.status) == (200, 200)


async def test_many_requests_at_once_are_answered_in_turn(api: Api) -> None:
    """Pipelined requests are handled one at a time, and each gets its response."""
    count, held, most = 400, 0, 0

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        nonlocal held, most
        held += 1
        most = max(most, held)
        await api.gateway(scope, receive, send)
        held -= 1

    async with serving(watched) as server:
        wire = await server.connect()
        sending = asyncio.create_task(wire.send(LONG * (count - 1) + LAST, pause=0))
        answers = await wire.answers()
        await sending
        wire.close()
    assert [told.status for told in answers] == [200] * count
    assert most == 1


async def test_few_of_the_requests_sent_ahead_are_held(
    api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a few pipelined requests are read ahead."""
    count, read, answered, ahead = 5000, 0, 0, 0
    taken = AnsweringProtocol.on_headers_complete

    def on_headers_complete(protocol: AnsweringProtocol) -> None:
        nonlocal read, ahead
        read += 1
        ahead = max(ahead, read - answered)
        taken(protocol)

    async def short(_scope: Scope, _receive: Receive, send: Send) -> None:
        nonlocal answered
        answered += 1
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(AnsweringProtocol, "on_headers_complete", on_headers_complete)
    async with serving(short) as server:
        wire = await server.connect()
        sending = asyncio.create_task(wire.send(LIVE * count, pause=0))
        async with asyncio.timeout(30):
            while answered < count:
                assert await wire.reader.read(65_536)
        await sending
    assert ahead <= MAX_PIPELINED + 16_384 // len(LIVE) + 2


async def test_a_client_that_has_gone_is_noticed_whatever_it_sent_ahead(api: Api) -> None:
    """A disconnect reaches the running request, and those queued behind it are not started."""
    begun, gone = asyncio.Event(), asyncio.Event()
    count = 0

    async def waiting(_scope: Scope, receive: Receive, _send: Send) -> None:
        nonlocal count
        count += 1
        begun.set()
        while (await receive())["type"] != "http.disconnect":
            pass
        gone.set()

    async with serving(waiting) as server:
        wire = await server.connect()
        await wire.send(LIVE * 3)
        await begun.wait()
        wire.close()
        await asyncio.wait_for(gone.wait(), 10)
        await asyncio.sleep(0.1)
    assert count == 1


async def test_requests_sent_ahead_do_not_count_as_one_head(api: Api) -> None:
    """Only the incomplete request counts against the size limit of a head."""
    burst = LONG * (3 * MAX_HEAD // len(LONG))
    async with served(api, Limits(head=5)) as client:
        answers = await sent(client, burst + LIVE[:20], LIVE[20:] + LAST)
    assert {told.status for told in answers} == {200}
    assert len(answers) > 2 * MAX_PIPELINED


async def test_a_head_is_bounded_wherever_it_begins(api: Api) -> None:
    """The size limit of a head also applies behind another request."""
    async with served(api) as client:
        good, told = await sent(client, LIVE + b"GET / HTTP/1.1\r\nX: " + b"x" * 2 * MAX_HEAD)
    assert (good.status, told.status) == (200, 400)
    assert str(MAX_HEAD) in told.error["message"]


@pytest.mark.parametrize(
    "path", ["/health%0a", "/api/instances%0A", "/v1/metrics%0a", "/%00", "/docs%0d", "/x%7f"]
)
async def test_a_path_with_a_control_character_is_unknown(api: Api, path: str) -> None:
    """A trailing line feed is part of the path, and no route's path has one."""
    for method in ("GET", "POST"):
        told = await api.call(method, path, scope=api_key.Scope.ADMIN)
        assert (told.status_code, told.json()["error"]["code"]) == (404, "NOT_FOUND")
