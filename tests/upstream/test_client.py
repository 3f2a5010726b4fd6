# SPDX-License-Identifier: Apache-2.0
"""Reads, writes, and the common behaviour of all calls."""

from __future__ import annotations

import asyncio
import gzip
import time
from collections.abc import Awaitable, Callable, Coroutine
from typing import TYPE_CHECKING, Any

import httpx2
import orjson
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from novitai.ids import Ids
from novitai.testing import ManualClock
from novitai.upstream import gateway, transport
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import (
    BreakerOpen,
    CallOutcome,
    ConnectionFailed,
    Gone,
    InvalidResponse,
    KeyRefused,
    RateLimited,
    Refused,
    ServerError,
    Timeout,
    UpstreamError,
)
from novitai.upstream.metrics import CallMetrics
from novitai.upstream.paging import PAGE_SIZES
from tests.upstream.strategies import ANYTHING
from tests.windows import window_until

if TYPE_CHECKING:
    from tests.upstream.servers import Calls, Maker, RawServer

Finish = Callable[[Coroutine[Any, Any, Any]], Awaitable[Any]]
Answer = Callable[[httpx2.Request], httpx2.Response]

EMPTY = httpx2.Response(200, json={"data": []})


def script(*answers: httpx2.Response | Exception) -> tuple[Answer, list[httpx2.Request]]:
    """Give one answer after the other, the last one for ever; remember the requests."""
    asked: list[httpx2.Request] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request)
        found = answers[min(len(asked), len(answers)) - 1]
        if isinstance(found, Exception):
            raise found
        return httpx2.Response(found.status_code, headers=found.headers, content=found.content)

    return answer, asked


# The request.


async def test_a_call_carries_the_key_and_our_name(raw: RawServer, make: Maker) -> None:
    """A call has the API key, novitai's user agent and `Accept: application/json`."""
    await make.at(raw.reply(200, {"data": []}).url).clusters()
    headers = raw.received[0].headers
    assert headers["authorization"] == "Bearer sk-upstream-key-of-the-tests"
    assert headers["accept"] == "application/json"
    assert headers["user-agent"].startswith("novitai/")


async def test_without_a_key_none_is_sent(raw: RawServer, make: Maker) -> None:
    """Without a key no header is sent, and upstream's refusal appears in health."""
    client = make.at(raw.reply(401, {"reason": "UNAUTHORIZED"}).url, api_key="")
    with pytest.raises(KeyRefused):
        await client.clusters()
    assert "authorization" not in raw.received[0].headers
    assert client.health().key_refused
    assert client.health().down


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "schlüssel"])
async def test_a_key_that_cannot_travel_is_refused_unseen(make: Maker, key: str) -> None:
    """A key that is not allowed in a header is refused at once, without being shown."""
    with pytest.raises(ValueError, match="visible ASCII") as caught:
        make.at("http://upstream.test", api_key=key)
    assert key not in str(caught.value)


async def test_the_environment_has_no_say(
    raw: RawServer, make: Maker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Proxies and netrc of the environment are not used."""
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    await make.at(raw.reply(200, {"data": []}).url).clusters()
    assert len(raw.received) == 1


async def test_no_redirect_is_followed(raw: RawServer, make: Maker) -> None:
    """Redirects are not followed, because the key would be sent along."""
    raw.reply(302, headers=f"Location: {raw.url}/elsewhere\r\n")
    with pytest.raises(InvalidResponse):
        await make.at(raw.url).delete("abc", window=window_until())
    assert len(raw.received) == 1


async def test_no_cookie_comes_back(raw: RawServer, make: Maker) -> None:
    """Cookies of upstream are not sent back."""
    raw.reply(200, {"data": []}, headers="Set-Cookie: session=1; Path=/\r\n")
    client = make.at(raw.url)
    await client.clusters()
    await client.clusters()
    assert "cookie" not in raw.received[1].headers


async def test_a_query_says_only_what_was_asked(make: Maker) -> None:
    """Absent filters are not sent."""
    answer, asked = script(EMPTY)
    client = make.of(answer)
    await client.products(billing_method="spot")
    await client.products("us-ca-6", "RTX 4090 24GB", billing_method="onDemand", gpu_num=2)
    assert dict(asked[0].url.params) == {"billingMethod": "spot"}
    assert dict(asked[1].url.params) == {
        "clusterId": "us-ca-6",
        "productName": "RTX 4090 24GB",
        "billingMethod": "onDemand",
        "gpuNum": "2",
    }


# Retries of reads.


@pytest.mark.parametrize(
    ("failure", "kind", "outcome"),
    [
        (httpx2.Response(500), ServerError, CallOutcome.SERVER_ERROR),
        (httpx2.Response(408), Timeout, CallOutcome.TIMEOUT),
        (httpx2.Response(200, content=b"{"), InvalidResponse, CallOutcome.INVALID_RESPONSE),
        (
            httpx2.Response(200, json={"message": "maintenance"}),
            InvalidResponse,
            CallOutcome.INVALID_RESPONSE,
        ),
        (httpx2.ReadTimeout("x"), Timeout, CallOutcome.TIMEOUT),
        (httpx2.ConnectError("x"), ConnectionFailed, CallOutcome.CONNECTION_FAILED),
        (httpx2.RemoteProtocolError("x"), ConnectionFailed, CallOutcome.CONNECTION_FAILED),
        (httpx2.Response(429), RateLimited, CallOutcome.RATE_LIMITED),
    ],
)
async def test_a_read_is_tried_three_times(
    make: Maker,
    finish: Finish,
    calls: Calls,
    failure: httpx2.Response | Exception,
    kind: type[UpstreamError],
    outcome: CallOutcome,
) -> None:
    """A read is retried after a fault or a 429 until it succeeds, at most twice."""
    answer, asked = script(failure)
    with pytest.raises(kind):
        await finish(make.of(answer, observer=calls).clusters())
    assert len(asked) == 3
    assert calls.seen == [("clusters", outcome)] * 3

    answer, asked = script(failure, failure, EMPTY)
    assert await finish(make.of(answer).clusters()) == []
    assert len(asked) == 3


async def test_a_read_that_is_tried_again_is_logged_by_its_name_alone(
    make: Maker, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A retry is logged only at debug level and only by its operation."""
    # A new logger, because another test may have redirected the existing one.
    monkeypatch.setattr(gateway, "_log", structlog.get_logger())
    answer, _ = script(httpx2.Response(500), httpx2.Response(500), EMPTY)
    with capture_logs() as lines:
        await finish(make.of(answer).clusters())
    assert lines == [
        {
            "event": "reading_again",
            "log_level": "debug",
            "operation": "clusters",
            "number": number,
        }
        for number in (2, 3)
    ]


@pytest.mark.parametrize("status", [400, 401, 403, 404])
async def test_a_refused_read_is_not_tried_again(make: Maker, status: int) -> None:
    """A refused read is not retried."""
    answer, asked = script(httpx2.Response(status))
    with pytest.raises(UpstreamError):
        await make.of(answer).instance("abc")
    assert len(asked) == 1


async def test_a_read_waits_before_it_is_tried_again(make: Maker, clock: ManualClock) -> None:
    """The waits are on the given clock, grow, and have jitter."""
    times: list[float] = []

    def answer(_: httpx2.Request) -> httpx2.Response:
        times.append(clock.monotonic())
        return httpx2.Response(500)

    task = asyncio.create_task(make.of(answer).clusters())
    while not task.done():
        await clock.advance(0.01)
    assert isinstance(task.exception(), ServerError)
    assert 0.25 <= times[1] - times[0] <= 0.77
    assert 0.5 <= times[2] - times[1] <= 1.52


async def test_a_read_that_was_told_to_wait_waits(make: Maker, clock: ManualClock) -> None:
    """Each attempt takes a permit, and none is granted during a pause."""
    answer, asked = script(httpx2.Response(429, headers={"Retry-After": "20"}), EMPTY)
    client = make.of(answer)
    task = asyncio.create_task(client.clusters())
    for _ in range(100):
        await asyncio.sleep(0)
    assert client._gateway._limiter.paused_for >= 20
    await clock.advance(19.9)
    assert len(asked) == 1
    while not task.done():
        await clock.advance(1)
    assert len(asked) == 2
    assert clock.monotonic() < 30


async def test_a_read_that_is_cancelled_ends(make: Maker, raw: RawServer) -> None:
    """A cancelled read ends at once and is not retried."""
    client = make.at(raw.silence().url)
    task = asyncio.create_task(client.clusters())
    await raw.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await asyncio.sleep(0.01)
    assert len(raw.received) == 1


async def test_an_open_breaker_stops_reads_of_its_class_alone(make: Maker, finish: Finish) -> None:
    """An open breaker of the catalogue does not stop reads of instances."""

    def answer(request: httpx2.Request) -> httpx2.Response:
        if request.url.path.endswith("/clusters"):
            return httpx2.Response(500)
        return httpx2.Response(200, json={"instances": [], "total": 0})

    client = make.of(answer)
    for _ in range(2):
        with pytest.raises(UpstreamError):
            await finish(client.clusters())
    with pytest.raises(BreakerOpen):
        await client.products(billing_method="spot")
    assert client.health().open_breakers == ("catalogue",)
    assert client.health().down
    assert (await client.list_instances()).complete


# Checks of the response.


async def test_another_instance_than_was_asked_for_is_nonsense(make: Maker, finish: Finish) -> None:
    """An instance with another ID is an error: its status would go to the wrong row."""
    answer, _ = script(httpx2.Response(200, json={"id": "other", "status": "running"}))
    with pytest.raises(InvalidResponse):
        await finish(make.of(answer).instance("abc"))


async def test_both_ways_to_say_gone_are_understood(make: Maker) -> None:
    """400 RESOURCE_NOT_FOUND and 404 mean gone, for reads and for deletes."""
    for gone in (
        httpx2.Response(400, json={"code": 400, "reason": "RESOURCE_NOT_FOUND"}),
        httpx2.Response(404),
    ):
        client = make.of(script(gone)[0])
        deleting = client.delete("abc", window=window_until())
        for asking in (client.instance("abc"), deleting, client.template("1")):
            with pytest.raises(Gone):
                await asking


async def test_an_empty_list_may_come_as_null_but_not_as_something_else(
    make: Maker, finish: Finish
) -> None:
    """An account does not look empty because a gateway answered."""
    good = ({"instances": [], "total": 0}, {"instances": None, "total": "0"}, {"total": 0})
    for body in good:
        listing = await make.of(script(httpx2.Response(200, json=body))[0]).list_instances()
        assert (listing.complete, listing.instances, listing.total) == (True, (), 0)

    bodies: list[object] = [{}, {"ok": True}, {"instances": "none", "total": 0}, []]
    for bad in bodies:
        with pytest.raises(InvalidResponse):
            await finish(make.of(script(httpx2.Response(200, json=bad))[0]).list_instances())


async def test_a_listing_knows_when_it_was_asked_for(make: Maker, clock: ManualClock) -> None:
    """`began_at` is when the successful request was sent, not when it queued or failed before."""
    body = {"instances": [{"id": "a"}], "total": 1}
    answer, _ = script(
        httpx2.Response(429, headers={"Retry-After": "30"}), httpx2.Response(200, json=body)
    )
    began = clock.now()
    task = asyncio.create_task(make.of(answer).list_instances())
    for _ in range(100):
        await clock.advance(0.5)
    listing = await task
    assert began + 30_000 <= listing.began_at <= clock.now()


async def test_a_row_that_has_not_changed_is_not_read_again(make: Maker) -> None:
    """Any change of any field is seen; what was not in the listing before is forgotten."""
    one: dict[str, object] = {"id": "a", "connectComponentSSH": {"password": "x"}}
    two: dict[str, object] = {"id": "b", "status": "running"}
    changed = {**one, "connectComponentSSH": {"password": "y"}}
    bodies: list[list[dict[str, object]]]
    bodies = [[one, two], [two, one], [changed, two], [two], [changed, two]]
    client = make.of(
        script(
            *(httpx2.Response(200, json={"instances": rows, "total": len(rows)}) for rows in bodies)
        )[0]
    )
    listings = [(await client.list_instances()).instances for _ in bodies]
    found = [{row.id: row for row in rows} for rows in listings]
    assert found[0]["a"] is found[1]["a"]
    assert all(each["b"] is found[0]["b"] for each in found)
    assert found[2]["a"].ssh_password == "y"
    assert found[4]["a"] == found[2]["a"]
    assert found[4]["a"] is not found[2]["a"]


async def test_an_upstream_that_refuses_large_pages_is_asked_for_smaller_ones(
    make: Maker,
) -> None:
    """After a refusal smaller pages are requested, also by the next listing."""
    sizes: list[int] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        size, number = (int(request.url.params[name]) for name in ("pageSize", "pageNum"))
        sizes.append(size)
        if size > 100:
            return httpx2.Response(400, json={"reason": "VALIDATOR_PARAM"})
        rows = [{"id": str(row)} for row in range(150)][(number - 1) * size : number * size]
        return httpx2.Response(200, json={"instances": rows, "total": "150"})

    client = make.of(answer)
    for expected in ([1000, 200, 100, 100], [100, 100]):
        sizes.clear()
        listing = await client.list_instances()
        assert listing.complete
        assert len(listing.instances) == 150
        assert sizes == expected


async def test_an_upstream_that_refuses_every_page_refuses(make: Maker) -> None:
    """If every page size is refused, the refusal is raised after one attempt for each."""
    answer, asked = script(httpx2.Response(400))
    with pytest.raises(Refused):
        await make.of(answer).list_instances()
    assert len(asked) == len(PAGE_SIZES)


@given(body=ANYTHING, instances=st.lists(ANYTHING, max_size=4), total=ANYTHING)
async def test_any_json_is_a_listing_or_one_of_our_errors(
    body: object, instances: list[object], total: object
) -> None:
    """Any JSON is a listing or an `UpstreamError`, and a complete listing adds up."""
    clock = ManualClock()
    for content in (body, {"instances": instances, "total": total}):
        try:
            raw_content = orjson.dumps(content, option=orjson.OPT_NON_STR_KEYS)
        except TypeError:
            continue
        client = NovitaClient.build(
            base_url="http://upstream.test",
            api_key="k",
            calls_per_minute=100_000,
            timeout=60,
            observer=CallMetrics(),
            clock=clock,
            ids=Ids(),
            transport=httpx2.MockTransport(
                lambda _, found=raw_content: httpx2.Response(200, content=found)
            ),
        )
        task = asyncio.create_task(client.list_instances())
        while not task.done():
            await clock.advance(1)
        try:
            listing = task.result()
        except UpstreamError:
            continue
        assert not listing.complete or len(listing.instances) == listing.total
        await client.aclose()


# Limits on size and time.


async def test_an_answer_without_end_is_cut_off(
    raw: RawServer, make: Maker, finish: Finish, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading ends at a size limit, whether the response is compressed or not."""
    defaults = dict(transport.Transport.__init__.__kwdefaults__ or {}, max_body=10_000)
    monkeypatch.setattr(transport.Transport.__init__, "__kwdefaults__", defaults)
    bomb = gzip.compress(b" " * 5_000_000)
    raw.reply(200, bomb, headers="Content-Encoding: gzip\r\n")
    with pytest.raises(InvalidResponse, match="larger than 10000 bytes"):
        await finish(make.at(raw.url).clusters())


async def test_a_whole_exchange_has_one_deadline(raw: RawServer, make: Maker) -> None:
    """A server that sends a byte now and then does not extend the deadline."""
    raw.raw(b"HTTP/1.1 200 OK\r\nX-Pad: " + b"x" * 500, pause=0.06)
    began = time.monotonic()
    with pytest.raises(Timeout):
        await make.at(raw.url, timeout=0.3).start("abc", window=window_until())
    # Reading to the end would take half a minute.
    assert time.monotonic() - began < 15


# Lifecycle writes.


@pytest.mark.parametrize("body", [b"", b"{}", b"not json", b'{"instanceId":"a","state":"x"}'])
async def test_the_body_of_a_lifecycle_answer_is_never_read(
    raw: RawServer, make: Maker, body: bytes
) -> None:
    """A lifecycle call succeeds by its status, with any body."""
    client = make.at(raw.reply(200, body).url)
    for act in (client.start, client.stop, client.restart, client.delete):
        await act("abc", window=window_until())
    names = ("start", "stop", "restart", "delete")
    assert [request.target for request in raw.received] == [
        f"/gpu-instance/openapi/v1/gpu/instance/{name}" for name in names
    ]
    assert {request.body for request in raw.received} == {b'{"instanceId":"abc"}'}
    assert raw.connections == 1


async def test_a_lifecycle_answer_whose_body_breaks_off_is_a_success(
    raw: RawServer, make: Maker
) -> None:
    """A body that breaks off does not matter once the status has arrived."""
    await make.at(raw.reply(200, b"{}" * 20, cut=7).url).stop("abc", window=window_until())
    raw.steps.clear()
    await make.at(raw.raw(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{").url, timeout=1.0).stop(
        "abc", window=window_until()
    )


@pytest.mark.parametrize("failure", [httpx2.Response(500), httpx2.ReadTimeout("x")])
async def test_a_lifecycle_write_is_tried_once(
    make: Maker, failure: httpx2.Response | Exception
) -> None:
    """A lifecycle write is not retried; the caller decides."""
    answer, asked = script(failure)
    with pytest.raises(UpstreamError):
        await make.of(answer).stop("abc", window=window_until())
    assert len(asked) == 1


async def test_a_delete_gets_out_while_the_breaker_is_open(make: Maker, clock: ManualClock) -> None:
    """A delete is sent after at most ten seconds, even if other calls keep failing."""
    answer, asked = script(httpx2.Response(500))
    client = make.of(answer)
    for _ in range(5):
        with pytest.raises(ServerError):
            await client.start("abc", window=window_until())
    with pytest.raises(BreakerOpen) as caught:
        await client.delete("abc", window=window_until())
    assert caught.value.retry_after <= 10

    out = len(asked)
    for _ in range(60):
        await clock.advance(1)
        for act in (client.start, client.delete):
            with pytest.raises(UpstreamError):
                await act("abc", window=window_until())
    deletes = [request for request in asked[out:] if request.url.path.endswith("delete")]
    assert len(deletes) >= 4


async def test_a_permit_is_given_back_if_the_breaker_opened_meanwhile(
    make: Maker, clock: ManualClock
) -> None:
    """If the breaker opens while a call waits, its permit goes to the next call."""
    released = asyncio.Event()
    asked: list[str] = []

    async def answer(request: httpx2.Request) -> httpx2.Response:
        asked.append(request.url.path.rsplit("/", 1)[1])
        if asked[-1] == "clusters":
            return httpx2.Response(200, json={"data": []})
        if len(asked) == 5:
            await released.wait()
        return httpx2.Response(500)

    # One call every ten seconds.
    client = make.at(
        "http://upstream.test", transport=httpx2.MockTransport(answer), calls_per_minute=6
    )
    for _ in range(4):
        with pytest.raises(ServerError):
            await client.start("abc", window=window_until())
        await clock.advance(10)
    fifth = asyncio.create_task(client.start("abc", window=window_until()))
    await clock.advance(1)
    sixth = asyncio.create_task(client.start("abc", window=window_until()))
    await clock.advance(7)
    released.set()
    with pytest.raises(ServerError):
        await fifth
    await clock.advance(3)
    with pytest.raises(BreakerOpen):
        await sixth
    assert await client.clusters() == []
    assert asked == ["start"] * 5 + ["clusters"]


async def test_writes_overtake_reads_that_wait(make: Maker, clock: ManualClock) -> None:
    """A delete does not queue behind reads."""
    order: list[str] = []

    def answer(request: httpx2.Request) -> httpx2.Response:
        order.append(request.url.path.rsplit("/", 1)[1])
        return httpx2.Response(200, json={"data": []})

    client = make.of(answer, calls_per_minute=5)
    await client.clusters()
    waiting: list[asyncio.Task[Any]] = [asyncio.create_task(client.clusters()) for _ in range(3)]
    await asyncio.sleep(0.01)
    waiting.append(asyncio.create_task(client.delete("abc", window=window_until())))
    await asyncio.sleep(0.01)
    while not all(task.done() for task in waiting):
        await clock.advance(1)
    assert order == ["clusters", "delete", "clusters", "clusters", "clusters"]


async def test_every_exchange_is_told_to_the_observer(make: Maker, calls: Calls) -> None:
    """The observer gets the operation and the outcome of every exchange."""
    answer, _ = script(
        EMPTY,
        httpx2.Response(404),
        httpx2.Response(400, json={"reason": "INSUFFICIENT_RESOURCE"}),
        httpx2.Response(400, json={"message": "invalid state change"}),
    )
    client = make.of(answer, observer=calls)
    await client.clusters()
    window = window_until()
    writes = (client.delete, client.start, client.stop)
    for act in [write("a", window=window) for write in writes]:
        with pytest.raises(UpstreamError):
            await act
    assert calls.seen == [
        ("clusters", CallOutcome.OK),
        ("delete", CallOutcome.GONE),
        ("start", CallOutcome.NO_CAPACITY),
        ("stop", CallOutcome.INVALID_STATE),
    ]
