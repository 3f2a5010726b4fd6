# SPDX-License-Identifier: Apache-2.0
"""Sends one message: signed, to a checked address, with limits on time and size."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC
from email.utils import parsedate_to_datetime
from ssl import SSLContext
from typing import Final
from urllib.parse import unquote, urlsplit

import httpx2
import structlog

from novitai.clock import Clock
from novitai.egress import signing
from novitai.egress.guard import MAX_ADDRESSES, AddressGuard, AddressRefused, AddressTarget
from novitai.egress.signing import NoSecret
from novitai.egress.wire import BROKEN, Wire

DEADLINE: Final = 15.0
"""Seconds for one attempt: resolving, connecting, sending and reading.

Each address has a third of it to connect, and another third for the TLS handshake.
"""
MAX_READ: Final = 64 * 1024
KEPT: Final = 2 * 1024
_GONE: Final = 410

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Message:
    """A message to send; `id` and `body` are the same in every attempt."""

    id: str
    url: str = field(repr=False)
    body: bytes = field(repr=False)
    secrets: Sequence[str] = field(repr=False)


@dataclass(frozen=True, slots=True)
class ReceiverAnswer:
    """The result of an attempt.

    Attributes:
        at: When the attempt began, in Unix milliseconds.
        duration_ms: Its duration in milliseconds.
        status: The HTTP status; None if no response arrived.
        error: Why the attempt failed, in a few words; None if it succeeded.
        response: The first 2 KiB of the response body, as text.
        retry_after: Seconds that the receiver asked to wait.
    """

    at: int
    duration_ms: int
    status: int | None = None
    error: str | None = None
    response: str | None = field(default=None, repr=False)
    retry_after: float | None = None

    @property
    def delivered(self) -> bool:
        """Whether the status is 2xx; the response body does not matter, even if it is cut off."""
        return self.status is not None and 200 <= self.status < 300

    @property
    def gone(self) -> bool:
        """Whether the status is 410: the receiver wants no more messages."""
        return self.status == _GONE


class Sender:
    """Sends messages, each over a connection of its own."""

    def __init__(
        self,
        guard: AddressGuard,
        clock: Clock,
        *,
        deadline: float = DEADLINE,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: SSLContext | None = None,
    ) -> None:
        """Create a sender; it connects only when it sends.

        Args:
            guard: Decides where messages may be sent.
            clock: The time for signatures.
            deadline: Seconds for one attempt.
            transport: A transport to use instead of the network, for tests.
            tls: The TLS context; by default, one with the certificates that this machine trusts.
        """
        self._guard = guard
        self._clock = clock
        self._deadline = deadline
        self._wire = Wire(tls, transport)

    async def send(self, message: Message) -> ReceiverAnswer:
        """Make one attempt; any failure is in the `error` of the result."""
        at, began = self._clock.now(), self._clock.monotonic()
        exchange = _Sending()
        error: str | None = None
        try:
            async with asyncio.timeout(self._deadline):
                target = await self._guard.target(message.url)
                await self._post(message, target, exchange, at)
        except httpx2.ConnectTimeout:
            waited = round(self._clock.monotonic() - began, 1)
            error = f"No connection within {waited:g} s"
        except (TimeoutError, httpx2.TimeoutException):
            error = f"No answer within {self._deadline:g} s"
        except (AddressRefused, NoSecret) as refusal:
            error = f"Refused: {refusal}"
        except BROKEN as broken:
            error = _explain(broken)
        except Exception as defect:  # a bug: count the attempt as failed, so that retries end
            kind = type(defect).__name__
            # The exception's text and traceback are not logged: they could show a secret.
            _log.error("sending_failed", delivery=message.id, type=kind)
            error = f"The message could not be sent ({kind})"
        if exchange.status is not None:
            # Once the status has arrived, it decides; a broken body does not matter.
            ok = 200 <= exchange.status < 300
            error = None if ok else f"The receiver answered {exchange.status}"
        return ReceiverAnswer(
            at=at,
            duration_ms=round((self._clock.monotonic() - began) * 1000),
            status=exchange.status,
            error=error,
            response=_text(bytes(exchange.body)) if exchange.status is not None else None,
            retry_after=exchange.retry_after,
        )

    async def _post(
        self, message: Message, target: AddressTarget, exchange: _Sending, at: int
    ) -> None:
        headers = {
            "Content-Type": "application/json",
            "Accept": "*/*",
            **_authorization(message.url),
            **signing.headers(message.id, message.body, at, message.secrets),
        }
        async with self._wire.exchange(
            "POST",
            message.url,
            target,
            headers=headers,
            content=message.body,
            wait=self._deadline,
            connect=self._deadline / MAX_ADDRESSES,
        ) as response:
            exchange.status = response.status_code
            exchange.retry_after = _retry_after(response.headers, at)
            await exchange.read(response)


class _Sending:
    """The part of the response received so far; still available if the deadline passes."""

    def __init__(self) -> None:
        self.status: int | None = None
        self.retry_after: float | None = None
        self.body = bytearray()

    async def read(self, response: httpx2.Response) -> None:
        """Read at most 64 KiB of raw body and keep the first 2 KiB."""
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
    # PostgreSQL cannot store NUL in text.
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
        # Read a date without a zone as UTC, not as local time.
        seconds = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError, TypeError):
        return None
    return max(0.0, seconds - now / 1000)


def _explain(error: BaseException) -> str:
    if isinstance(error, httpx2.ConnectError):
        return "The connection could not be made"
    if isinstance(error, httpx2.RemoteProtocolError):
        return "The receiver closed the connection or did not send valid HTTP"
    if isinstance(error, httpx2.HTTPError):
        return f"The connection broke ({type(error).__name__})"
    return (
        "The name could not be resolved" if isinstance(error, OSError) else "The connection broke"
    )
