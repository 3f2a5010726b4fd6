# SPDX-License-Identifier: Apache-2.0
"""One message over real HTTP, to receivers of all kinds."""

from __future__ import annotations

import asyncio
import base64
import re
import ssl
import time
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import httpx2
import pytest
import structlog
from hypothesis import given, settings
from hypothesis import strategies as st
from standardwebhooks import Webhook as Verifier

from novitai.clock import SystemClock
from novitai.domain.addresses import Address
from novitai.domain.webhook import host_of
from novitai.domain.webhook_url import webhook_url
from novitai.egress.guard import AddressGuard
from novitai.egress.sending import Message, ReceiverAnswer, Sender
from novitai.egress.signing import secret_of
from novitai.testing import ManualClock
from tests.egress.certificates import certificate_for
from tests.egress.receivers import (
    Script,
    answer,
    drip,
    drip_body,
    gibberish,
    hang,
    hang_up,
    hang_up_early,
    listening,
    megabytes,
)

SECRET = secret_of("0123456789abcdefghijklmnopqrstuvwxyzABCDEFGH")
BODY = '{"type":"instance.running","data":{"name":"Zürich"}}'.encode()


def message(url: str) -> Message:
    """Make a message."""
    return Message("msg_1", url, BODY, [SECRET])


def sender(*, deadline: float = 60.0) -> Sender:
    """Make a sender that may send to this machine."""
    return Sender(AddressGuard(allow_private=True), SystemClock(), deadline=deadline)


async def send_to(script: Script, *, deadline: float = 60.0) -> ReceiverAnswer:
    """Send a message to a receiver that runs the script."""
    async with listening(script) as receiver:
        return await sender(deadline=deadline).send(message(receiver.url))


async def test_what_arrives() -> None:
    """The receiver gets a POST with the exact bytes that were signed and the unchanged path."""
    async with listening(answer(200, b"thanks")) as receiver:
        result = await sender().send(message(receiver.url))
    (got,) = receiver.got
    assert got.line == "POST /hook?a=%20b HTTP/1.1"
    assert got.headers["host"] == f"127.0.0.1:{receiver.port}"
    assert got.headers["content-type"] == "application/json"
    assert got.headers["user-agent"].startswith("novitai/")
    Verifier(SECRET).verify(got.body, got.headers)
    assert (result.delivered, result.status, result.error) == (True, 200, None)
    assert result.response == "thanks"
    assert 0 <= result.duration_ms < 5000


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
async def test_any_2xx_is_delivered(status: int) -> None:
    """Every 2xx status means delivered."""
    assert (await send_to(answer(status))).delivered


@pytest.mark.parametrize("status", [300, 400, 401, 404, 409, 429, 500, 503])
async def test_nothing_else_is(status: int) -> None:
    """Redirects, 4xx and 5xx are failures."""
    result = await send_to(answer(status, b"no"))
    assert not result.delivered
    assert (result.status, result.error) == (status, f"The receiver answered {status}")
    assert result.response == "no"


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_redirects_are_not_followed(status: int) -> None:
    """A redirect is not followed, even to an allowed address."""
    async with listening(answer(200)) as trap, listening(answer(status, Location=trap.url)) as it:
        result = await sender().send(message(it.url))
    assert (result.delivered, result.status) == (False, status)
    assert not trap.got


async def test_gone_is_told_apart() -> None:
    """410 means that the receiver wants no more messages."""
    assert (await send_to(answer(410))).gone
    assert not (await send_to(answer(404))).gone


@pytest.mark.parametrize("script", [hang, drip], ids=["hangs", "drips a byte a second"])
async def test_a_try_has_a_deadline(script: Script) -> None:
    """An attempt ends at its deadline, however the receiver delays it."""
    began = time.monotonic()
    result = await send_to(script, deadline=0.6)
    assert time.monotonic() - began < 30
    assert (result.delivered, result.error) == (False, "No answer within 0.6 s")


async def test_the_head_decides() -> None:
    """A message is delivered once the receiver sends 200, even if the body never ends."""
    result = await send_to(drip_body, deadline=0.6)
    assert (result.delivered, result.response, result.error) == (True, "so far", None)


async def test_an_answer_is_not_read_to_its_end() -> None:
    """At most 64 KiB of a response are read, and 2 KiB kept."""
    sent: list[int] = []
    result = await send_to(megabytes(sent))
    assert result.delivered
    # The buffers of the sockets are filled too, with a few megabytes at most.
    assert len(sent) < 150
    assert result.response == "x" * 2048


@pytest.mark.parametrize(
    ("script", "error"),
    [
        (hang_up, "The receiver closed the connection or did not send valid HTTP"),
        (gibberish, "The receiver closed the connection or did not send valid HTTP"),
        (hang_up_early, "The receiver answered 500"),
    ],
    ids=["closes", "speaks SMTP", "closes early"],
)
async def test_broken_answers_are_failures(script: Script, error: str) -> None:
    """The error says how the response was broken."""
    result = await send_to(script)
    assert (result.delivered, result.error) == (False, error)


async def test_nobody_there() -> None:
    """A refused connection is a failure."""
    async with listening(hang) as receiver:
        url = receiver.url
    result = await sender().send(message(url))
    assert (result.status, result.error) == (None, "The connection could not be made")


async def test_what_cannot_be_stored_is_not_kept() -> None:
    """Any response body becomes text without NUL."""
    result = await send_to(answer(500, b"\x00\xff\x00ok"))
    assert result.response == "\ufffd\ufffd\ufffdok"


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("120", 120.0),
        ("9" * 400, 9_999_999_999.0),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 99999999999999999999 00:00:00 GMT", None),
        ("Mon, 01 Jan 0000 00:00:00 GMT", 0.0),
        ("Mon, 01 Jan 0001 00:00:00 +2359", 0.0),
        ("Mon, 01 Jan 0001 00:00:00", 0.0),
        ("Mon, 01 Jan 2030 00:00:00 +99999999999999999999", None),
        ("Mon, 01 Jan 2030 99:99:99 GMT", None),
        ("soon", None),
        ("-1", None),
        ("\u0661\u0662", None),
    ],
)
@pytest.mark.parametrize("status", [200, 503])
async def test_any_retry_after_is_lived_with(
    status: int, value: str, seconds: float | None
) -> None:
    """An invalid `Retry-After` is ignored and does not change the result."""
    result = await send_to(answer(status, Retry_After=value))
    assert (result.status, result.delivered) == (status, status == 200)
    assert result.retry_after == seconds


async def test_a_date_without_a_zone_is_in_utc() -> None:
    """A date without a zone is read as UTC, as RFC 9110 requires."""
    soon = datetime.now(UTC) + timedelta(hours=1)
    result = await send_to(answer(503, Retry_After=f"{soon:%a, %d %b %Y %H:%M:%S}"))
    assert result.retry_after is not None
    assert 3590 < result.retry_after <= 3600


class Broken(httpx2.AsyncBaseTransport):
    """A transport with a bug."""

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        raise KeyError(str(request.url), BODY, SECRET)


class Seen(httpx2.AsyncBaseTransport):
    """A transport that accepts every request and records its URL."""

    def __init__(self) -> None:
        self.urls: list[httpx2.URL] = []

    async def handle_async_request(self, request: httpx2.Request) -> httpx2.Response:
        self.urls.append(request.url)
        return httpx2.Response(200, stream=httpx2.ByteStream(b""))


async def test_a_defect_of_ours_is_a_failed_try() -> None:
    """A bug is logged by its type, without the contents of the message."""
    made = Sender(AddressGuard(allow_private=True), SystemClock(), transport=Broken())
    with structlog.testing.capture_logs() as lines:
        result = await made.send(message("http://127.0.0.1/secret-path"))
    assert (result.status, result.delivered) == (None, False)
    assert result.error == "The message could not be sent (KeyError)"
    (line,) = lines
    assert (line["event"], line["delivery"], line["type"]) == (
        "sending_failed",
        "msg_1",
        "KeyError",
    )
    assert not {"secret-path", "running", SECRET} & set(re.findall(r"[\w-]+", str(line)))


async def test_a_message_without_a_secret_never_leaves() -> None:
    """An unsigned message is not sent, because receivers could not verify it."""
    async with listening(answer(200)) as receiver:
        result = await sender().send(Message("msg_1", receiver.url, BODY, []))
    assert result.error == "Refused: no secret to sign the message with"
    assert not receiver.got


async def test_an_address_that_swallows_everything_is_given_up_in_time() -> None:
    """Connecting ends after a third of the deadline, and the error has the time."""
    # The receiver accepts the connection and never begins TLS.
    async with listening(hang) as receiver:
        result = await sender(deadline=1.5).send(message(f"https://127.0.0.1:{receiver.port}/"))
    assert result.error is not None
    said = re.fullmatch(r"No connection within (\d+\.\d) s", result.error)
    assert said is not None
    assert float(said[1]) >= 0.5


@pytest.mark.parametrize(
    ("host", "name"),
    [
        ("\U0001f4a9.la", "xn--ls8h.la"),
        ("\u2603.net", "xn--n3h.net"),
        ("bü_cher.example", "xn--b_cher-3ya.example"),
        ("stra\u00dfe.example", "strasse.example"),
        ("xn--zzzzzzzzzzz.example", "xn--zzzzzzzzzzz.example"),
        ("\uff41.example", "a.example"),
    ],
)
async def test_every_name_that_is_accepted_can_be_sent_to(host: str, name: str) -> None:
    """Any accepted host name works, because the HTTP client gets only the checked address."""

    async def resolve(asked: str, _port: int) -> Sequence[Address]:
        assert asked == name
        return [ip_address("127.0.0.1")]

    made = Sender(AddressGuard(allow_private=True, resolve=resolve), SystemClock())
    async with listening(answer(200)) as receiver:
        url = f"http://me:pass@{host}:{receiver.port}/hook?a=%20b#c"
        assert webhook_url(url, allow_private=False) == url
        result = await made.send(message(url))
    assert result.error is None
    (got,) = receiver.got
    assert got.line == "POST /hook?a=%20b HTTP/1.1"
    assert got.headers["host"] == f"{name}:{receiver.port}"


TLS = ssl.create_default_context()
HOSTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(categories=["L", "N", "So", "Mn", "Cf"]), max_size=20),
    st.text("aZ09._-xn\u00df\u3002\uff0e\u2603", max_size=20),
    st.ip_addresses(v=4).map(str),
    st.ip_addresses(v=6).map(lambda address: f"[{address}]"),
    st.sampled_from(["a.example", "[fe80::1%25eth0]", "[fe80::1%eth0]", "[::ffff:1.2.3.4]"]),
)


@settings(max_examples=500, deadline=None)
@given(
    scheme=st.sampled_from(["http", "HTTPS"]),
    user=st.one_of(st.just(""), st.text(max_size=10).map("{}@".format)),
    host=HOSTS,
    port=st.sampled_from(["", ":", ":0080", ":8080", ":65535"]),
    rest=st.one_of(st.just(""), st.text(max_size=20), st.text(max_size=20).map("/{}".format)),
)
def test_every_url_that_is_accepted_makes_a_request(
    scheme: str, user: str, host: str, port: str, rest: str
) -> None:
    """Any accepted URL leads to a request to the checked address."""
    url = f"{scheme}://{user}{host}{port}{rest}"
    try:
        webhook_url(url, allow_private=True)
    except ValueError:
        return

    async def resolve(_name: str, _port: int) -> Sequence[Address]:
        return [ip_address("93.184.215.14")]

    seen = Seen()
    made = Sender(
        AddressGuard(allow_private=True, resolve=resolve), ManualClock(), transport=seen, tls=TLS
    )
    result = asyncio.run(made.send(message(url)))
    assert result.error is None, url
    (sent,) = seen.urls
    assert str(ip_address(sent.host)) == sent.host
    assert len(host_of(url)) <= 300


async def test_user_info_becomes_basic_authorization() -> None:
    """User and password are sent as basic authorization and removed from the URL."""
    async with listening(answer(200)) as receiver:
        await sender().send(message(f"http://me:s%40cret@127.0.0.1:{receiver.port}/"))
    (got,) = receiver.got
    pair = base64.b64decode(got.headers["authorization"].removeprefix("Basic "))
    assert pair == b"me:s@cret"
    assert "@" not in got.headers["host"]


async def test_no_proxy_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Proxy settings of the environment are not used for webhooks."""
    async with listening(answer(200)) as proxy, listening(answer(200)) as receiver:
        for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.port}")
        for name in ("NO_PROXY", "no_proxy"):
            monkeypatch.delenv(name, raising=False)
        assert (await sender().send(message(receiver.url))).delivered
    assert not proxy.got


async def test_a_name_is_resolved_once_and_the_next_address_is_tried() -> None:
    """The checked addresses are tried in turn; `Host` keeps the name."""
    asked: list[str] = []

    async def resolve(name: str, _port: int) -> Sequence[Address]:
        asked.append(name)
        # No server listens on the first address.
        return [ip_address("127.0.0.99"), ip_address("127.0.0.1")]

    made = Sender(AddressGuard(allow_private=True, resolve=resolve), SystemClock())
    async with listening(answer(200)) as receiver:
        url = f"http://hooks.example.com:{receiver.port}/"
        assert (await made.send(message(url))).delivered
    assert asked == ["hooks.example.com"]
    assert receiver.got[0].headers["host"] == f"hooks.example.com:{receiver.port}"
    assert len(receiver.got) == 1


@pytest.mark.parametrize(
    ("name", "delivered"), [("hooks.example.com", True), ("other.example.com", False)]
)
async def test_the_certificate_is_checked_against_the_name(
    tmp_path: Path, name: str, delivered: bool
) -> None:
    """TLS verifies the name in the URL, although the connection goes to an address."""
    authority, server_side = certificate_for("hooks.example.com", tmp_path)

    async def resolve(_name: str, _port: int) -> Sequence[Address]:
        return [ip_address("127.0.0.1")]

    trusted = ssl.create_default_context(cafile=str(authority))
    made = Sender(AddressGuard(allow_private=True, resolve=resolve), SystemClock(), tls=trusted)
    async with listening(answer(200), tls=server_side) as receiver:
        result = await made.send(message(f"https://{name}:{receiver.port}/"))
    assert result.delivered is delivered
    assert bool(receiver.got) is delivered
