# SPDX-License-Identifier: Apache-2.0
"""The live stream, read from a small server that speaks its format and cuts connections."""

from __future__ import annotations

import asyncio
import itertools
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, Final

import httpx2
import pytest

from novitai.cli.listening import answer, bind, url_of
from novitai_client import AsyncNovitai, ConnectionFailed, Event, Gap, Novitai
from novitai_client.errors import RateLimited, Unauthorized
from novitai_client.streaming import EventStreamParser, Message
from tests.client.scripted import AT, Parts, Script, refusal

COUNT: Final = 60
CUT_AFTER: Final = 7


def event(number: int) -> bytes:
    """Write an event as the server does."""
    shown = {"id": f"1.{number}", "type": "instance.running", "at": AT, "data": {"n": number}}
    return f"id: 1.{number}\nevent: instance.running\ndata: {json.dumps(shown)}\n\n".encode()


class Feed:
    """An ASGI application with a log of events that ends each connection after a few of them.

    It breaks off in the middle of an event, and resumes after `Last-Event-ID`, or `since`.
    """

    def __init__(self) -> None:
        self.resumed: list[str | None] = []

    async def __call__(
        self,
        scope: Any,
        receive: Callable[[], Awaitable[Any]],
        send: Callable[[Any], Awaitable[None]],
    ) -> None:
        """Answer one request."""
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        assert headers["accept"] == "text/event-stream"
        resumed = headers.get("last-event-id")
        self.resumed.append(resumed)
        since = "1.0" if b"since=1.0" in scope["query_string"] else None
        after = int((resumed or since or "1.0").partition(".")[2])
        kind = (b"content-type", b"text/event-stream; charset=utf-8")
        await send({"type": "http.response.start", "status": 200, "headers": [kind]})
        await self.write(send, b"retry: 1\n\n: keep-alive\n\n")
        for number in range(after + 1, min(after + CUT_AFTER, COUNT) + 1):
            await self.write(send, event(number)[:9])
            await self.write(send, event(number)[9:])
        await self.write(send, event(after + CUT_AFTER + 1)[:40])
        await send({"type": "http.response.body", "body": b"", "more_body": False})

    async def write(self, send: Callable[[Any], Awaitable[None]], part: bytes) -> None:
        """Send a part of the response."""
        await send({"type": "http.response.body", "body": part, "more_body": True})


@pytest.fixture
def feed() -> Iterator[tuple[Feed, str]]:
    """A running server with the feed, and its URL."""
    app, listening = Feed(), bind("127.0.0.1", 0)
    loop, ready, end = asyncio.new_event_loop(), threading.Event(), asyncio.Event()

    def serve() -> None:
        loop.run_until_complete(answer(app, listening, end, ready=ready.set))
        loop.close()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    assert ready.wait(60)
    yield app, url_of("127.0.0.1", listening)
    loop.call_soon_threadsafe(end.set)
    thread.join(30)


def test_a_cut_stream_goes_on_where_it_was(feed: tuple[Feed, str]) -> None:
    """Connections that end inside an event are resumed: each event comes once, in order."""
    app, url = feed
    with Novitai(url, "nvt_x") as client:
        events = client.events.stream(since="1.0")
        numbers = [one.data["n"] for one in itertools.islice(events, COUNT) if one.type != "gap"]
    assert numbers == list(range(1, COUNT + 1))
    assert app.resumed[:3] == [None, "1.7", "1.14"]


async def test_both_surfaces_stream(feed: tuple[Feed, str]) -> None:
    """The asynchronous client reads the same."""
    app, url = feed
    numbers: list[int] = []
    async with AsyncNovitai(url, "nvt_x") as client:
        async for one in client.events.stream(since="1.0"):
            assert isinstance(one, Event)
            numbers.append(one.data["n"])
            if len(numbers) == COUNT:
                break
    assert numbers == list(range(1, COUNT + 1))
    assert len(app.resumed) > COUNT / CUT_AFTER


def stream(*parts: bytes | Exception) -> Callable[[httpx2.Request], httpx2.Response]:
    """Answer with a stream."""
    kind = {"Content-Type": "text/event-stream"}
    return lambda _: httpx2.Response(200, headers=kind, stream=Parts(*parts))


def test_a_gap_is_told() -> None:
    """A gap stands in its place among the events, with the oldest ID there is."""
    gap = b'event: gap\ndata: {"oldest": "1.5"}\n\n'
    script = Script([stream(gap + event(5))])
    with script.client() as client:
        first, second = itertools.islice(client.events.stream(since="1.1"), 2)
    assert isinstance(first, Gap)
    assert (first.type, first.oldest) == ("gap", "1.5")
    assert isinstance(second, Event)
    assert dict(script.requests[0].url.params) == {"since": "1.1"}


def test_the_filters_and_the_place_are_sent_again() -> None:
    """Each connection has the filters; after the first event the place is `Last-Event-ID`."""
    script = Script([stream(event(1), httpx2.ReadError("reset")), stream(event(2))])
    with script.client() as client:
        wanted = client.events.stream(since="1.0", type="instance.running", instance_id="inst_1")
        assert len(list(itertools.islice(wanted, 2))) == 2
    first, second = script.requests
    assert dict(first.url.params)["since"] == "1.0"
    assert dict(second.url.params) == {"type": "instance.running", "instanceId": "inst_1"}
    assert second.headers["Last-Event-ID"] == "1.1"


def test_the_place_is_known_before_the_first_event() -> None:
    """An ID without data, which a server may send first, is resumed after."""
    script = Script([stream(b"id: 1.0\n\n", httpx2.ReadError("reset")), stream(event(1))])
    with script.client() as client:
        next(client.events.stream())
    assert script.requests[1].headers["Last-Event-ID"] == "1.0"


def test_the_server_sets_the_pause() -> None:
    """A stream that ends is opened again after `retry`, a refused one after `Retry-After`."""
    script = Script(
        [stream(b"retry: 3000\n\n"), refusal(429, "RATE_LIMIT_EXCEEDED", after=9), stream(event(1))]
    )
    with script.client() as client:
        next(client.events.stream())
    assert script.paused == [3, 9]


def test_a_server_that_stays_away_ends_the_stream() -> None:
    """Without a connection for the timeout the error is raised; a refused key raises at once."""
    script = Script([stream(event(1)), httpx2.ConnectError("refused")])
    with script.client(timeout=60) as client:
        events = client.events.stream()
        next(events)
        with pytest.raises(ConnectionFailed):
            next(events)
    assert 40 < script.now < 70
    for status, code, kind in (
        (401, "UNAUTHORIZED", Unauthorized),
        (429, "RATE_LIMIT_EXCEEDED", RateLimited),
    ):
        script = Script([refusal(status, code)])
        with script.client() as client, pytest.raises(kind):
            next(client.events.stream())


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("size", [1, 2, 3, 1000])
def test_the_parser_takes_any_parts(end: bytes, size: int) -> None:
    """Lines end as the standard allows, a part may end anywhere, also within a character."""
    text = "\ufeff: comment\nid: 1\nevent: a\ndata: é\u2028x\ndata:y\nnoise\n\nid: 2\nretry: 5\n\n"
    whole = text.encode().replace(b"\n", end) + b"data: cut off"
    parser = EventStreamParser()
    found = [
        message
        for start in range(0, len(whole), size)
        for message in parser.feed(whole[start : start + size])
    ]
    assert found == [Message("a", "é\u2028x\ny")]
    assert (parser.last_id, parser.retry) == ("2", 5)
