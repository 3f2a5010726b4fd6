# SPDX-License-Identifier: Apache-2.0
"""The HTTP application: everything that applies to every request, around its endpoint.

It is plain ASGI and calls the endpoint itself, because the layers of a framework would take more
time than the answer. Requests and responses are Starlette's.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.types import Receive, Send
from starlette.types import Scope as AsgiScope

from novitai.api.http.body import MAX_BODY, MAX_DRAINED, too_large
from novitai.api.http.context import (
    ABORT,
    CLOSING,
    REFUSAL,
    REPLY,
    Closing,
    RequestContext,
    attach,
)
from novitai.api.http.disconnects import disconnected
from novitai.api.http.endpoints import Endpoints
from novitai.api.http.errors import internal_error, not_found, render, shutting_down
from novitai.api.http.proxies import Peer, Proxies
from novitai.api.http.streaming import StreamingAnswer
from novitai.api.http.versioning import without_version
from novitai.clock import Clock
from novitai.errors import ApiError, HttpsRequired
from novitai.ids import Ids
from novitai.settings import IpNetwork
from novitai.telemetry import logs
from novitai.telemetry.requests import UNMATCHED, RequestMetrics

REQUEST_SECONDS: Final = 30.0
_CLIENT_GONE: Final = 499
_LAST_CHUNK_SECONDS: Final = 0.5
"""Seconds for a client to read on, so that the last chunk of a stream can be sent."""

_REQUEST_ID: Final = re.compile(r"[A-Za-z0-9._-]{1,128}")
_CORRELATION_ID: Final = re.compile(r"[!-~]{1,256}")
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f]")

_log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Rules:
    """Settings that apply to every request."""

    insist_on_https: bool = False
    trusted_proxies: Sequence[IpNetwork] = ()


class HttpApplication:
    """Identifies, checks, counts and logs each request."""

    def __init__(
        self,
        endpoints: Endpoints,
        *,
        clock: Clock,
        ids: Ids,
        metrics: RequestMetrics,
        rules: Rules,
    ) -> None:
        self.endpoints = endpoints
        self._clock = clock
        self._ids = ids
        self._metrics = metrics
        self._rules = rules
        self._proxies = Proxies(rules.trusted_proxies)

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """Handle one request; lifespan messages are acknowledged."""
        if scope["type"] != "http":
            await _live(receive, send)
            return
        given = dict(reversed(scope["headers"]))  # of several with the same name, the first
        peer = self._proxies.peer(scope)
        context = self._context(given, peer, scope.get(CLOSING))
        exchange = _RequestExchange(scope, receive, send, context)
        attach(exchange.scope, context)
        with logs.bind(request_id=context.request_id):
            try:
                await self._answer(exchange, given, peer)
            finally:
                self._account(exchange)

    def _context(
        self, given: Mapping[bytes, bytes], peer: Peer, closing: Closing | None
    ) -> RequestContext:
        now = self._clock.now()
        return RequestContext(
            request_id=_matching(_REQUEST_ID, given, b"x-request-id") or self._ids.request(now),
            correlation_id=_matching(_CORRELATION_ID, given, b"x-correlation-id"),
            client=peer.address,
            accept=_text(given, b"accept"),
            deadline=now + int(REQUEST_SECONDS * 1000),
            began=self._clock.monotonic(),
            closing=closing or Closing(),
            secure=peer.secure,
        )

    async def _answer(
        self, exchange: _RequestExchange, given: Mapping[bytes, bytes], peer: Peer
    ) -> None:
        try:
            refusal = self._refuse(exchange, given, peer)
            if refusal is not None:
                await exchange.drain(given)
                await self._tell(exchange, refusal)
                return
            await exchange.answer(await self._respond(exchange))
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

    async def _respond(self, exchange: _RequestExchange) -> Response:
        """Call the endpoint; an error that it raises becomes the response."""
        scope = exchange.scope
        try:
            endpoint, scope["path_params"] = self.endpoints.find(scope["path"], scope["method"])
            return await endpoint(Request(scope, exchange.receive))
        except ApiError as error:
            return render(error, exchange.context, self._clock.now())

    def _refuse(
        self, exchange: _RequestExchange, given: Mapping[bytes, bytes], peer: Peer
    ) -> ApiError | None:
        scope = exchange.scope
        if REFUSAL in scope:
            refusal: ApiError = scope[REFUSAL]
            return refusal
        if exchange.context.closing.over:
            return shutting_down()
        path = scope["path"]
        if self._rules.insist_on_https and not (peer.secure or peer.loopback or _is_health(path)):
            return HttpsRequired("HTTPS is required")
        length = _text(given, b"content-length")
        if length.isdigit() and int(length) > MAX_BODY:
            return too_large()
        if _CONTROL.search(path):
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
        await exchange.answer(render(error, exchange.context, self._clock.now()))

    def _account(self, exchange: _RequestExchange) -> None:
        context = exchange.context
        seconds = self._clock.monotonic() - context.began
        status = exchange.status or 500
        route = context.route or UNMATCHED
        self._metrics.observe(exchange.method, route, status, None if context.held else seconds)
        facts = {
            "method": exchange.method,
            "route": route,
            "status": status,
            "duration_ms": round(seconds * 1000, 2),
            "client": context.client,
            "key_id": context.key_id,
        }
        if context.instance_id is not None:
            facts["instance_id"] = context.instance_id
        logs.write("request", facts)


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

    async def answer(self, response: Response) -> None:
        """Send a response with the headers that every response has."""
        context = self.context
        headers = response.raw_headers
        headers.append((b"x-request-id", context.request_id.encode()))
        headers.append((b"x-content-type-options", b"nosniff"))
        if context.correlation_id is not None:
            headers.append((b"x-correlation-id", context.correlation_id.encode()))
        headers += context.headers
        if isinstance(response, StreamingAnswer):
            await self._stream(response)
            return
        status = response.status_code
        body = b"" if self.method == "HEAD" else bytes(response.body)
        reply = self.scope.get(REPLY)
        if reply is None or not reply(status, headers, body):
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            self.status = status
            await self._send({"type": "http.response.body", "body": body})
        self.status = status

    async def _stream(self, response: StreamingAnswer) -> None:
        """Send the parts of a stream until it ends, the client disconnects or shutdown begins."""
        self.status = status = response.status_code
        headers = response.raw_headers
        try:
            await self._send({"type": "http.response.start", "status": status, "headers": headers})
            if self.method != "HEAD" and not await self._send_parts(response):
                return
        finally:
            response.close()
        try:
            async with asyncio.timeout(_LAST_CHUNK_SECONDS):
                await self._send({"type": "http.response.body", "body": b""})
        except TimeoutError:  # the client does not read
            if ABORT in self.scope:
                self.scope[ABORT]()
                await disconnected(self.receive)

    async def _send_parts(self, response: StreamingAnswer) -> bool:
        """Send the parts; return False if the client disconnected."""
        sending = asyncio.ensure_future(self._send_each(response))
        leaving = asyncio.ensure_future(disconnected(self.receive))
        ended = asyncio.ensure_future(response.ended.wait())
        closing = asyncio.ensure_future(self.context.closing.asked.wait())
        tasks = (sending, leaving, ended, closing)
        try:
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            if sending.done():
                sending.result()
            return not leaving.done()
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_each(self, response: StreamingAnswer) -> None:
        async for part in response.parts:
            await self._send({"type": "http.response.body", "body": part, "more_body": True})

    async def drain(self, given: Mapping[bytes, bytes]) -> None:
        """Read and discard the body of a refused request, unless the client sent `Expect`."""
        length = _text(given, b"content-length")
        if b"expect" in given or (length.isdigit() and int(length) > MAX_DRAINED):
            return
        more, left = True, MAX_DRAINED
        while more and left > 0:
            message = await self.receive()
            more = message["type"] == "http.request" and message.get("more_body", False)
            left -= len(message.get("body", b""))


def _matching(form: re.Pattern[str], given: Mapping[bytes, bytes], name: bytes) -> str | None:
    """Return the value of a header; None if it is absent or has not that form."""
    if name not in given:
        return None
    text = _text(given, name)
    return text if form.fullmatch(text) else None


def _text(given: Mapping[bytes, bytes], name: bytes) -> str:
    """Return the value of a header; empty if it is absent."""
    return given[name].decode("latin-1") if name in given else ""


def _is_health(path: str) -> bool:
    return path == "/health" or path.startswith("/health/")


async def _live(receive: Receive, send: Send) -> None:
    """Acknowledge the messages of a lifespan; there is nothing to do."""
    while (await receive())["type"] == "lifespan.startup":
        await send({"type": "lifespan.startup.complete"})
    await send({"type": "lifespan.shutdown.complete"})
