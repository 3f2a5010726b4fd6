# SPDX-License-Identifier: Apache-2.0
"""A create is sent once, and its result says whether it may have taken effect."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from typing import TYPE_CHECKING

import httpx2
import orjson
import pytest

from novitai.clock import SystemClock
from novitai.testing import ManualClock
from novitai.upstream.client import NovitaClient
from novitai.upstream.errors import (
    Ambiguous,
    BreakerOpen,
    InsufficientResource,
    KeyRefused,
    NotSent,
    RateLimited,
    Refused,
    UpstreamError,
)
from novitai.upstream.models import CreateInstance, UpstreamPort, UpstreamTool
from novitai.upstream.writing import create_body
from tests.windows import window_until

if TYPE_CHECKING:
    from tests.upstream.servers import Maker, RawServer


async def create(client: NovitaClient, request: CreateInstance, *, send_by: int = 2**62) -> str:
    """Take a permit and send a create."""
    permit = await client.permit_create()
    return await client.create(request, permit=permit, window=window_until(send_by))


async def test_the_new_id_comes_back(raw: RawServer, make: Maker, wanted: CreateInstance) -> None:
    """The create returns the new ID after one POST with the whole request."""
    raw.reply(200, {"id": "3560b7fec915bbf9"})
    assert await create(make.at(raw.url), wanted) == "3560b7fec915bbf9"

    [request] = raw.received
    assert (request.method, request.target) == (
        "POST",
        "/gpu-instance/openapi/v1/gpu/instance/create",
    )
    assert request.headers["authorization"] == "Bearer sk-upstream-key-of-the-tests"
    assert request.headers["content-type"] == "application/json"
    assert orjson.loads(request.body) == {
        "name": "trainer-nv",
        "productId": "4090.16c62g",
        "gpuNum": 1,
        "rootfsSize": 60,
        "imageUrl": "pytorch/pytorch:latest",
        "kind": "gpu",
        "billingMode": "onDemand",
        "envs": [{"key": "TOKEN", "value": "env-secret-value"}],
    }


def test_the_body_says_everything_in_upstreams_words() -> None:
    """Ports are one string, and a tool's port is text."""
    body = create_body(
        CreateInstance(
            name="n",
            product_id="p",
            gpu_num=2,
            rootfs_size=10,
            image_url="i",
            billing_mode="spot",
            cluster_id="us-ca-6",
            image_auth_id="7",
            ports=(UpstreamPort(80, "http"), UpstreamPort(3306, "tcp")),
            tools=(UpstreamTool("Jupyter", 8888, "http"),),
            command="run",
            entrypoint="/bin/sh",
            min_cuda_version="12.4",
        )
    )
    assert body["ports"] == "80/http, 3306/tcp"
    assert body["tools"] == [{"name": "Jupyter", "port": "8888", "type": "http"}]
    assert (body["billingMode"], body["clusterId"], body["imageAuthId"]) == ("spot", "us-ca-6", "7")
    assert "envs" not in body


@pytest.mark.parametrize(
    ("status", "reason", "kind"),
    [
        (400, "INSUFFICIENT_RESOURCE", InsufficientResource),
        (400, "RESOURCE_NOT_FOUND", Refused),
        (400, "BALANCE_NOT_ENOUGH", Refused),
        (404, "", Refused),
        (401, "UNAUTHORIZED", KeyRefused),
        (403, "FORBIDDEN", KeyRefused),
        (429, "RATE_LIMIT_EXCEEDED", RateLimited),
        (408, "", Ambiguous),
        (500, "UNKNOWN", Ambiguous),
        (502, "", Ambiguous),
        (504, "", Ambiguous),
        (307, "", Ambiguous),
    ],
)
async def test_each_answer_says_whether_anything_was_made(
    raw: RawServer,
    make: Maker,
    wanted: CreateInstance,
    status: int,
    reason: str,
    kind: type[UpstreamError],
) -> None:
    """After a 4xx nothing was created; after a 5xx, 408 or redirect it is ambiguous. No retry."""
    raw.reply(
        status,
        {"code": status, "reason": reason, "message": "no"},
        headers=f"Location: {raw.url}/elsewhere\r\n",
    )
    with pytest.raises(UpstreamError) as caught:
        await create(make.at(raw.url), wanted)
    assert type(caught.value) is kind
    assert (caught.value.http_status, caught.value.reason) == (
        status,
        "" if status == 307 else reason,
    )
    assert len(raw.received) == 1


async def test_a_429_keeps_what_upstream_said_of_waiting(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """The error has the seconds to wait, and all calls pause."""
    client = make.at(raw.reply(429, headers="Retry-After: 17\r\n").url)
    with pytest.raises(RateLimited) as caught:
        await create(client, wanted)
    assert caught.value.retry_after == 17
    assert client._gateway._limiter.paused_for >= 17


Misbehaviour = Callable[["RawServer"], object]


@pytest.mark.parametrize(
    "misbehave",
    [
        pytest.param(lambda raw: raw.hang_up(), id="closed without an answer"),
        pytest.param(lambda raw: raw.reset(), id="reset without an answer"),
        pytest.param(lambda raw: raw.silence(), id="no answer at all"),
        pytest.param(lambda raw: raw.reply(200, {"id": "abc"}, cut=3), id="cut in the body"),
        pytest.param(lambda raw: raw.raw(b"HTTP/1.1 200 OK\r\nContent-"), id="half a head"),
        pytest.param(lambda raw: raw.raw(b"SSH-2.0-OpenSSH\r\n\r\n"), id="not HTTP"),
        pytest.param(
            lambda raw: raw.raw(
                b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n" + b" " * 90, pause=0.05
            ),
            id="a slow drip",
        ),
        pytest.param(lambda raw: raw.reply(200, b""), id="success without a body"),
        pytest.param(lambda raw: raw.reply(200, b"{"), id="success that is not JSON"),
        pytest.param(lambda raw: raw.reply(200, {}), id="success without an id"),
        pytest.param(lambda raw: raw.reply(200, {"id": ""}), id="success with an empty id"),
        pytest.param(lambda raw: raw.reply(200, ["x"]), id="success of the wrong shape"),
        pytest.param(
            lambda raw: raw.reply(200, b"\x1f\x8bxx", headers="Content-Encoding: gzip\r\n"),
            id="broken compression",
        ),
    ],
)
async def test_an_ending_that_tells_nothing_is_ambiguous(
    raw: RawServer, make: Maker, wanted: CreateInstance, misbehave: Misbehaviour
) -> None:
    """A request that was sent and got no valid response is ambiguous and is not sent again."""
    misbehave(raw)
    with pytest.raises(Ambiguous):
        await create(make.at(raw.url, timeout=1.0), wanted)
    await asyncio.sleep(0)
    assert raw.posts() == 1


async def test_a_refusal_whose_body_breaks_off_is_a_refusal(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """A refusal whose body breaks off is still a refusal, because the status arrived."""
    raw.reply(400, {"reason": "INSUFFICIENT_RESOURCE"}, cut=5)
    with pytest.raises(Refused):
        await create(make.at(raw.url), wanted)


async def test_no_connection_is_certainly_not_sent(make: Maker, wanted: CreateInstance) -> None:
    """If the connection is refused, nothing was sent."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"
        with pytest.raises(NotSent) as caught:
            await create(make.at(url), wanted)
    assert caught.value.reason == "NO_CONNECTION"


async def test_a_handshake_that_fails_is_certainly_not_sent(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """If the TLS handshake fails or never finishes, nothing was sent."""
    plain = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    mute = await asyncio.start_server(_stay, "127.0.0.1", 0)
    for server in (plain, mute):
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(NotSent):
            await create(make.at(url, timeout=0.3), wanted)
        server.close()


async def _stay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await reader.read()
    writer.close()


@pytest.mark.parametrize("repeat", range(3))
async def test_a_connection_the_server_dropped_is_not_used_for_a_post(
    raw: RawServer, make: Maker, wanted: CreateInstance, repeat: int
) -> None:
    """The pool replaces a closed connection; the POST arrives once and is answered."""
    del repeat
    raw.reply(200, {"data": []}).reply(200, {"id": "abc"})
    client = make.at(raw.url)
    await client.clusters()
    await raw.drop_idle()

    assert await create(client, wanted) == "abc"
    assert raw.posts() == 1
    assert raw.connections == 2


async def test_a_connection_that_dies_under_a_post_does_not_get_it_repeated(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """A POST on a reused connection that breaks is not sent again on a new one."""
    raw.reply(200, {"data": []}).reset().reply(200, {"id": "abc"})
    client = make.at(raw.url)
    await client.clusters()

    with pytest.raises(Ambiguous):
        await create(client, wanted)
    await asyncio.sleep(0.05)
    assert raw.connections == 1
    assert raw.posts() == 1


async def test_nothing_is_sent_after_its_time(
    raw: RawServer, make: Maker, wanted: CreateInstance, clock: ManualClock
) -> None:
    """A create is not sent after the end of its window; exactly at the end it is."""
    raw.reply(200, {"id": "abc"})
    client = make.at(raw.url)
    send_by = clock.now()
    assert await create(client, wanted, send_by=send_by) == "abc"

    permit = await client.permit_create()
    await clock.advance(0.01)
    with pytest.raises(NotSent) as caught:
        await client.create(wanted, permit=permit, window=window_until(send_by))
    assert caught.value.reason == "CLAIM_ENDED"
    assert raw.posts() == 1


async def test_the_time_is_checked_after_connecting(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """The window is checked after connecting, just before the first byte."""

    class Passing(SystemClock):
        """A clock that jumps forward once a connection is open."""

        def now(self) -> int:
            return 2000 if raw.connections else 1000

    class Slowly(httpx2.AsyncHTTPTransport):
        """A transport that connects, and waits for the server to accept before the request."""

        async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
            inner = request.extensions["trace"]

            async def trace(event: str, info: object) -> None:
                if event.endswith("connect_tcp.complete"):
                    await raw.until_connected()
                await inner(event, info)

            request.extensions["trace"] = trace
            return await super().handle_async_request(request)

    raw.reply(200, {"id": "abc"})
    client = make.at(raw.url, clock=Passing(), transport=Slowly(trust_env=False))
    with pytest.raises(NotSent) as caught:
        await create(client, wanted, send_by=1500)
    assert caught.value.reason == "CLAIM_ENDED"
    await asyncio.sleep(0.02)
    assert raw.connections == 1
    assert raw.received == []


async def test_a_permit_is_good_for_one_create(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """A permit can be used once, even if the create failed."""
    raw.reply(500)
    client = make.at(raw.url)
    permit = await client.permit_create()
    with pytest.raises(Ambiguous):
        await client.create(wanted, permit=permit, window=window_until())
    with pytest.raises(NotSent):
        await client.create(wanted, permit=permit, window=window_until())
    assert raw.posts() == 1


async def test_a_permit_given_back_serves_the_next(make: Maker, clock: ManualClock) -> None:
    """With one call a minute, a released permit serves the next create at once."""
    client = make.of(lambda _: httpx2.Response(200, json={"data": []}), calls_per_minute=1)
    permit = await client.permit_create()
    permit.release()
    permit.release()
    assert await client.clusters() == []
    with pytest.raises(NotSent):
        await client.create(
            CreateInstance("n", "p", 1, 10, "i"), permit=permit, window=window_until(clock.now())
        )


async def test_creates_that_keep_failing_are_not_sent_for_a_while(
    raw: RawServer, make: Maker, wanted: CreateInstance, clock: ManualClock
) -> None:
    """The breaker refuses permits before an attempt is recorded; then it admits one probe."""
    raw.reply(500)
    client = make.at(raw.url)
    for _ in range(5):
        with pytest.raises(Ambiguous):
            await create(client, wanted)
    with pytest.raises(BreakerOpen) as caught:
        await client.permit_create()
    assert 0 < caught.value.retry_after <= 10
    assert raw.posts() == 5

    await clock.advance(10)
    probe = await client.permit_create()
    with pytest.raises(BreakerOpen):
        await client.permit_create()
    probe.release()
    raw.reply(200, {"id": "abc"})
    assert await create(client, wanted) == "abc"


async def test_refusals_do_not_open_the_breaker(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """Missing stock does not count as a fault."""
    raw.reply(400, {"reason": "INSUFFICIENT_RESOURCE"})
    client = make.at(raw.url)
    for _ in range(12):
        with pytest.raises(InsufficientResource):
            await create(client, wanted)
    assert not client.health().down


async def test_a_create_that_is_cancelled_is_not_repeated(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """A cancelled create is not sent again and does not count as a fault."""
    client = make.at(raw.silence().url)
    task = asyncio.create_task(create(client, wanted))
    await raw.until_asked()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert raw.posts() == 1
    assert client.health().faults_in_a_row == 0


async def test_no_error_shows_what_was_sent_in_confidence(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """No error and no repr shows the secrets of a request, even if upstream repeats them."""
    raw.reply(
        400,
        {
            "reason": "VALIDATOR_PARAM",
            "message": "env env-secret-value, key sk-upstream-key-of-the-tests",
        },
    )
    with pytest.raises(Refused) as caught:
        await create(make.at(raw.url), wanted)
    shown = repr(caught.value) + str(caught.value) + repr(wanted)
    for secret in ("env-secret", "sk-upstream"):
        assert secret not in shown


async def test_metrics_that_fail_do_not_cost_the_id(
    raw: RawServer, make: Maker, wanted: CreateInstance
) -> None:
    """An observer that raises does not lose the ID of the new instance."""

    def defective(endpoint: str, outcome: object, seconds: float) -> None:
        raise RuntimeError(endpoint)

    raw.reply(200, {"id": "abc"})
    assert await create(make.at(raw.url, observer=defective), wanted) == "abc"
