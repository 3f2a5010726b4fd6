# SPDX-License-Identifier: Apache-2.0
"""The sending of one message: signed, to a checked address, bounded in time and size."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from importlib.metadata import version
from ssl import SSLContext
from typing import Final
from urllib.parse import unquote, urlsplit

import anyio
import httpx2

from novitai.clock import Clock
from novitai.domain.addresses import Address
from novitai.webhooks import signing
from novitai.webhooks.guard import Guard, Refused, Target

DEADLINE: Final = 15.0
"""Seconds for one try: resolving, connecting, sending and reading."""
MAX_READ: Final = 64 * 1024
KEPT: Final = 2 * 1024
_MOST_ADDRESSES: Final = 3
_GONE: Final = 410
_BROKEN: Final = (
    httpx2.HTTPError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)


@dataclass(frozen=True, slots=True)
class Message:
    """What is to be sent; `id` and `body` are the same for every try."""

    id: str
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    secrets: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Answer:
    """What came of a try.

    Attributes:
        at: When it began, in Unix milliseconds.
        status: The HTTP status; None if none came.
        error: Why it is no success, in a few words; None if it is.
        response: The first 2 KiB of the answer's body, as text.
        retry_after: Seconds that the receiver asked to be left alone.
    """

    at: int
    duration_ms: int
    status: int | None = None
    error: str | None = None
    response: str | None = field(default=None, repr=False)
    retry_after: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the receiver has taken it: any 2xx, whatever became of the answer's body."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the receiver says that it is gone for good."""
        return self.status == _GONE


class Sender:
    """Sends messages, each over a connection of its own.

    A shared pool would use one host's TLS connection for another host on the same address.
    """

    def __init__(
        self,
        guard: Guard,
        clock: Clock,
        *,
        deadline: float = DEADLINE,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        """Make a sender; connects to nothing yet.

        Args:
            guard: Decides where messages may go.
            clock: The time that goes into signatures.
            deadline: Seconds for one try.
            transport: Another way to send what the guard let through, for tests.
            tls: Whom to trust; by default, whom this machine does.
        """
        self._guard = guard
        self._clock = clock
        self._deadline = deadline
        self._transport = transport
        # One for all: making it reads the certificates of this machine.
        self._tls = tls or httpx2.create_ssl_context(trust_env=False)

    async def send(self, message: Message) -> Answer:
        """Try once; whatever goes wrong is in the answer."""
        at, began = self._clock.now(), self._clock.monotonic()
        exchange = _Exchange()
        error: str | None = None
        try:
            async with asyncio.timeout(self._deadline):
                target = await self._guard.target(message.url)
                await self._post(message, target, exchange, at)
        except (TimeoutError, httpx2.TimeoutException):
            error = f"No answer within {self._deadline:g} s"
        except Refused as refusal:
            error = f"Refused: {refusal}"
        except httpx2.InvalidURL:
            error = "Refused: the URL cannot be understood"
        except _BROKEN as broken:
            error = _explain(broken)
        if exchange.status is not None:
            # Once the head is there, the rest of the answer decides nothing.
            ok = 200 <= exchange.status < 300
            error = None if ok else f"The receiver answered {exchange.status}"
        return Answer(
            at=at,
            duration_ms=round((self._clock.monotonic() - began) * 1000),
            status=exchange.status,
            error=error,
            response=_text(bytes(exchange.body)) if exchange.status is not None else None,
            retry_after=_retry_after(exchange.headers, at),
        )

    async def _post(self, message: Message, target: Target, exchange: _Exchange, at: int) -> None:
        addresses = target.addresses[:_MOST_ADDRESSES]
        for address in addresses:
            try:
                await self._post_to(address, message, target, exchange, at)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                # Nothing was sent, so another of the checked addresses may be tried.
                if address == addresses[-1]:
                    raise
            else:
                return

    async def _post_to(
        self, address: Address, message: Message, target: Target, exchange: _Exchange, at: int
    ) -> None:
        transport = self._transport or httpx2.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, http2=False, retries=0
        )
        request = self._request(address, message, target, at)
        try:
            response = await transport.handle_async_request(request)
            exchange.status, exchange.headers = response.status_code, response.headers
            try:
                await exchange.read(response)
            finally:
                await response.aclose()
        finally:
            if self._transport is None:
                await transport.aclose()

    def _request(
        self, address: Address, message: Message, target: Target, at: int
    ) -> httpx2.Request:
        share = self._deadline / _MOST_ADDRESSES
        timeout = httpx2.Timeout(self._deadline, connect=share).as_dict()
        extensions: dict[str, object] = {"timeout": timeout}
        if target.tls_name is not None:
            extensions["sni_hostname"] = target.tls_name
        url = httpx2.URL(message.url).copy_with(host=str(address), userinfo=b"", fragment=None)
        headers = {
            "Host": target.host,
            "User-Agent": f"novitai/{version('novitai')}",
            "Content-Type": "application/json",
            "Accept": "*/*",
            "Accept-Encoding": "identity",
            "Connection": "close",
            **_authorization(message.url),
            **signing.headers(message.id, message.body, at, message.secrets),
        }
        return httpx2.Request(
            "POST", url, headers=headers, content=message.body, extensions=extensions
        )


class _Exchange:
    """What has come so far; kept outside of the exchange, since the deadline may cut it off."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.headers: Mapping[str, str] = {}
        self.body = bytearray()

    async def read(self, response: httpx2.Response) -> None:
        """Read the body's raw bytes: no more than 64 KiB, of which 2 KiB are kept."""
        count = 0
        async for chunk in response.aiter_raw():
            count += len(chunk)
            self.body += chunk[: KEPT - len(self.body)]
            if count >= MAX_READ:
                return


def _authorization(url: str) -> dict[str, str]:
    parts = urlsplit(url)
    if parts.username is None and parts.password is None:
        return {}
    pair = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _text(body: bytes) -> str:
    # PostgreSQL stores no NUL in a text.
    return body.decode("utf-8", "replace").replace("\x00", "\ufffd")


def _retry_after(headers: Mapping[str, str], now: int) -> float | None:
    """Read `Retry-After`: seconds, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after", "").strip()
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:10])
    try:
        moment = parsedate_to_datetime(value)
    except ValueError:
        return None
    return max(0.0, moment.timestamp() - now / 1000)


def _explain(error: BaseException) -> str:
    if isinstance(error, httpx2.ConnectError):
        return "The connection could not be made"
    if isinstance(error, httpx2.RemoteProtocolError):
        return "The receiver closed the connection, or spoke no HTTP"
    if isinstance(error, httpx2.HTTPError):
        return f"The connection broke ({type(error).__name__})"
    return (
        "The name could not be resolved" if isinstance(error, OSError) else "The connection broke"
    )
