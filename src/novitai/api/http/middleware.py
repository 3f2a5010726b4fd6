# SPDX-License-Identifier: Apache-2.0
"""The middleware around the whole application: everything that applies to every request.

It wraps Starlette's own error handling, so the response to an unhandled exception also has the
request ID. It is plain ASGI because one `BaseHTTPMiddleware` costs more time than all of it.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Send
from starlette.types import Scope as AsgiScope

from novitai.api.http.body import MAX_BODY, MAX_DRAINED, too_large
from novitai.api.http.context import CLOSING, REFUSAL, Closing, RequestContext, attach
from novitai.api.http.errors import internal_error, not_found, render, shutting_down
from novitai.api.http.proxies import Peer, find_peer
from novitai.api.http.versioning import without_version
from novitai.clock import Clock
from novitai.errors import ApiError, HttpsRequired
from novitai.ids import Ids
from novitai.settings import IpNetwork
from novitai.telemetry.logs import bind
from novitai.telemetry.requests import UNMATCHED, RequestMetrics

REQUEST_SECONDS: Final = 30.0
_CLIENT_GONE: Final = 499

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CORRELATION_ID: Final = re.compile(r"[!-~]{1,256}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings that apply to every request."""

    insist_on_https: bool = False
    trusted_proxies: Sequence[IpNetwork] = ()


class RequestMiddleware:
    """Identifies, checks, counts and logs each request."""

    def __init__(
        self, app: ASGIApp, *, clock: Clock, ids: Ids, metrics: RequestMetrics, rules: Rules
    ) -> None:
        self.app = app
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._rules = rules

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request; scopes other than HTTP pass through unchanged."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        peer = find_peer(scope, headers, self._rules.trusted_proxies)
        context = self._context(headers, peer, scope.get(CLOSING))
        exchange = _RequestExchange(scope, receive, send, context)
        attach(exchange.scope, context)
        with bind(request_id=context.request_id):
            try:
                await self._answer(exchange, headers, peer)
            finally:
                self._account(exchange)

    def _context(self, headers: Headers, peer: Peer, closing: Closing | None) -> RequestContext:
        now = self._clock.now()
        request_id = headers.get("x-request-id", "")
        if not _REQUEST_ID.fullmatch(request_id):
            request_id = self._ids.request(now)
        correlation_id = headers.get("x-correlation-id", "")
        return RequestContext(
            request_id=request_id,
            correlation_id=correlation_id if _CORRELATION_ID.fullmatch(correlation_id) else None,
            client=peer.address,
            accept=headers.get("accept", ""),
            deadline=now + int(REQUEST_SECONDS * 1000),
            began=self._clock.monotonic(),
            closing=closing or Closing(),
        )

    async def _answer(self, exchange: _RequestExchange, headers: Headers, peer: Peer) -> None:
        try:
            refusal = self._refuse(exchange, headers, peer)
            if refusal is not None:
                await exchange.drain(headers)
                await self._tell(exchange, refusal)
                return
            await self.app(exchange.scope, exchange.receive, exchange.send)
        except ClientDisconnect:
            exchange.status = _CLIENT_GONE
        except asyncio.CancelledError:
            if exchange.context.closing.over:
                # The server cancels requests that it cannot finish before the process ends.
                await self._tell_unless_told(exchange, shutting_down())
                return
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
            await self._fail(exchange)  # the route awaited a task that was cancelled
        except Exception:  # the client gets the envelope for any exception
            await self._fail(exchange)

    def _refuse(self, exchange: _RequestExchange, headers: Headers, peer: Peer) -> ApiError | None:
        scope = exchange.scope
        if REFUSAL in scope:
            refusal: ApiError = scope[REFUSAL]
            return refusal
        if exchange.context.closing.over:
            return shutting_down()
        health = scope["path"] == "/health" or scope["path"].startswith("/health/")
        exempt = peer.secure or peer.loopback or health
        if self._rules.insist_on_https and not exempt:
            return HttpsRequired("HTTPS is required")
        length = headers.get("content-length", "")
        if length.isdigit() and int(length) > MAX_BODY:
            return too_large()
        if _CONTROL.search(scope["path"]):
            # The `$` in a route's pattern also matches before a trailing line feed.
            return not_found()
        return None

    async def _fail(self, exchange: _RequestExchange) -> None:
        """Log the exception being handled, and send the internal error."""
        _log.exception("unhandled_error")
        await self._tell_unless_told(exchange, internal_error())

    async def _tell_unless_told(self, exchange: _RequestExchange, error: ApiError) -> None:
        if not exchange.status:
            await self._tell(exchange, error)

    async def _tell(self, exchange: _RequestExchange, error: ApiError) -> None:
        response = render(error, exchange.context, self._clock.now())
        await response(exchange.scope, exchange.receive, exchange.send)

    def _account(self, exchange: _RequestExchange) -> None:
        context = exchange.context
        seconds = self._clock.monotonic() - context.began
        status = exchange.status or 500
        route = context.route or UNMATCHED
        self._metrics.observe(exchange.method, route, status, None if context.held else seconds)
        _log.info(
            "request",
            method=exchange.method,
            route=route,
            status=status,
            duration_ms=round(seconds * 1000, 2),
            client=context.client,
            key_id=context.key_id,
            **({} if context.instance_id is None else {"instance_id": context.instance_id}),
        )


class _RequestExchange:
    """One request and its response."""

    def __init__(
        self, scope: AsgiScope, receive: Receive, send: Send, context: RequestContext
    ) -> None:
        path = without_version(scope["path"])
        self.method: str = scope["method"]
        # Every GET route also handles HEAD: the same response without the body.
        method = "GET" if self.method == "HEAD" else self.method
        self.scope: AsgiScope = {**scope, "path": path, "method": method}
        self.scope.pop("raw_path", None)
        self.context = context
        self.status = 0
        self.receive = receive
        self._send = send

    async def send(self, message: Message) -> None:
        """Forward a message with the headers that every response has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message.setdefault("headers", [])
            headers = MutableHeaders(scope=message)
            headers["X-Request-ID"] = self.context.request_id
            headers["X-Content-Type-Options"] = "nosniff"
            if self.context.correlation_id is not None:
                headers["X-Correlation-ID"] = self.context.correlation_id
            for name, value in self.context.headers:
                headers.append(name, value)
        elif self.method == "HEAD" and message["type"] == "http.response.body":
            message = {**message, "body": b""}
        await self._send(message)

    async def drain(self, headers: Headers) -> None:
        """Read and discard the body of a refused request, unless the client sent `Expect`."""
        length = headers.get("content-length", "")
        if "expect" in headers or (length.isdigit() and int(length) > MAX_DRAINED):
            return
        more, left = True, MAX_DRAINED
        while more and left > 0:
            message = await self.receive()
            more = message["type"] == "http.request" and message.get("more_body", False)
            left -= len(message.get("body", b""))
