# SPDX-License-Identifier: Apache-2.0
"""One HTTP exchange with upstream: sent once, limited in time and size, redirects not followed.

No request is retried here or in the layers below: httpx2 runs without retries, and its pool changes
to another connection only before it writes the first byte of a request. The pool's trace reports
whether a failed request had begun to be sent; it is not guessed from the exception.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import version
from ssl import SSLContext
from typing import Any, Final

import anyio
import httpx2
import orjson
from socksio import ProtocolError

from novitai.upstream.errors import ConnectionFailed, InvalidResponse, NotSent, Timeout
from novitai.upstream.wire import Object

BASE_PATH: Final = "/gpu-instance/openapi/v1"
FIGURES_PATH: Final = "/openapi/v1"
"""The base path of metrics, balance and bills (upstream.md §14)."""
MAX_BODY: Final = 64 * 1024 * 1024
# Maximum bytes that are read of a body that is not needed, such as that of an error.
MAX_UNREAD_BODY: Final = 256 * 1024
# Seconds. Common servers close an idle connection after 5 s; a request that may be sent only once
# must not use a connection that is about to be closed.
_KEEPALIVE: Final = 4.0
_MAX_CONNECTIONS: Final = 100
_CONNECT_SHARE: Final = 0.5
_CONNECTED: Final = "connect_tcp.complete"
_REQUEST_BEGINS: Final = "send_request_headers.started"
_REQUEST_SENT: Final = "send_request_body.complete"
_BEFORE_SENDING: Final = (
    httpx2.ConnectError,
    httpx2.ConnectTimeout,
    httpx2.PoolTimeout,
    httpx2.UnsupportedProtocol,
)


@dataclass(frozen=True, slots=True)
class Answer:
    """A response of upstream. The body may be empty if it was not needed and could not be read."""

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class UpstreamCall:
    """A request.

    Attributes:
        method: GET or POST.
        path: The path below `base_path`.
        query: The query parameters.
        body: The JSON body of a POST.
        reads_body: Whether the body of a success is needed; if not, the status is enough.
        may_begin: Called just before the first byte is sent; returns the refusal, or None.
        base_path: Where the path begins; some endpoints are not below `BASE_PATH`.
    """

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Object | None = field(default=None, repr=False)
    reads_body: bool = True
    may_begin: Callable[[], NotSent | None] | None = None
    base_path: str = BASE_PATH


class _Trace:
    """Traces the connection pool, and can refuse a request just before it is sent.

    It also records the connection that this exchange opens, until its request begins: if the
    deadline passes during a handshake, the pool does not close the connection.
    """

    def __init__(
        self, may_begin: Callable[[], NotSent | None] | None, sent: Callable[[], None]
    ) -> None:
        self.has_begun = False
        self._may_begin = may_begin
        self._sent = sent
        self._half_open: list[Any] = []

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        if event.endswith(_CONNECTED):
            self._half_open.append(info["return_value"])
        elif event.endswith(_REQUEST_BEGINS) and not self.has_begun and not _is_tunnel(info):
            self.ask()
            self.has_begun = True
            self._half_open.clear()
        elif event.endswith(_REQUEST_SENT) and not _is_tunnel(info):
            self._sent()

    async def aclose(self) -> None:
        """Close connections that were opened but not used, without waiting for the peer."""
        for stream in self._half_open:
            with contextlib.suppress(Exception):  # it was never used, and is given up
                await stream.aclose()
        self._half_open.clear()

    def ask(self) -> None:
        """Check whether the request may begin now.

        Raises:
            NotSent: it may not.
        """
        if self._may_begin is not None and (refusal := self._may_begin()) is not None:
            raise refusal


class Transport:
    """The connection pool for upstream."""

    def __init__(
        self,
        base_url: str,
        api_key: str,
        *,
        timeout: float,
        transport: httpx2.AsyncBaseTransport | None = None,
        tls: SSLContext | None = None,
        max_body: int = MAX_BODY,
        proxy: str | None = None,
    ) -> None:
        """Make the pool; it connects only for a request.

        Args:
            base_url: Such as `https://api.novita.ai`.
            api_key: Sent as a bearer token, unless empty.
            timeout: Seconds for one whole exchange, including connecting and reading.
            transport: A transport to use instead of the network, for tests.
            tls: The TLS context; by default, one with the certificates that this machine trusts.
            max_body: Maximum size of a response, in bytes after decompression.
            proxy: An `http://`, `https://`, `socks5://` or `socks5h://` URL to connect through;
                proxy settings of the environment are not used.

        Raises:
            ValueError: the key has characters that are not allowed in a header. The message does
                not contain the key.
        """
        if not (api_key.isascii() and api_key.isprintable()) or " " in api_key:
            raise ValueError("the Novita API key must be visible ASCII characters")
        self._timeout = timeout
        self._max_body = max_body
        limits = httpx2.Limits(
            max_connections=_MAX_CONNECTIONS,
            max_keepalive_connections=_MAX_CONNECTIONS,
            keepalive_expiry=_KEEPALIVE,
        )
        sender = transport or httpx2.AsyncHTTPTransport(
            verify=tls or True,
            retries=0,
            http2=False,
            trust_env=False,
            limits=limits,
            proxy=proxy,
        )
        self._is_proxied = proxy is not None
        # Only httpx2's own pool reports a trace; for other transports, the exception type decides.
        self._is_traced = isinstance(sender, httpx2.AsyncHTTPTransport)
        headers = {"Accept": "application/json", "User-Agent": f"novitai/{version('novitai')}"}
        if api_key:
            headers["Authorization"] = f"Bearer {api_key}"
        self._client = httpx2.AsyncClient(
            base_url=base_url.rstrip("/"),
            headers=headers,
            # Half for the TCP connection and half for the TLS handshake.
            timeout=httpx2.Timeout(timeout, connect=timeout * _CONNECT_SHARE),
            follow_redirects=False,
            trust_env=False,
            cookies=CookieJar(policy=DefaultCookiePolicy(allowed_domains=[])),
            transport=sender,
        )

    async def aclose(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def send(self, call: UpstreamCall, *, sent: Callable[[], None] = lambda: None) -> Answer:
        """Send a request once and read the response.

        Args:
            call: The request.
            sent: Called after its last byte was sent, before the response is read.

        Raises:
            NotSent: `may_begin` refused.
            Timeout: no complete response in time; `sent` says whether sending had begun.
            ConnectionFailed: the connection was refused or broke; `sent` as above.
            InvalidResponse: the response is too large or its compression is broken.
        """
        trace = _Trace(call.may_begin, sent)
        if not self._is_traced:
            trace.ask()
        request = self._request(call, trace)
        head: httpx2.Response | None = None
        try:
            async with asyncio.timeout(self._timeout):
                try:
                    head = await self._client.send(request, stream=True)
                finally:
                    await trace.aclose()
                try:
                    body = await self._read(call, head)
                finally:
                    await head.aclose()
        except (TimeoutError, httpx2.TimeoutException) as error:
            if head is not None and not _needs_body(call, head.status_code):
                return Answer(head.status_code, head.headers, b"")
            raise Timeout(
                f"no response within {self._timeout:g} s", sent=self._may_have_left(trace, error)
            ) from error
        except httpx2.DecodingError as error:
            if head is not None and not _needs_body(call, head.status_code):
                return Answer(head.status_code, head.headers, b"")
            raise InvalidResponse(
                "the response's encoding is broken", http_status=_code(head)
            ) from error
        except (
            httpx2.HTTPError,
            OSError,
            anyio.BrokenResourceError,
            anyio.ClosedResourceError,
            anyio.EndOfStream,
        ) as error:
            if head is not None and not _needs_body(call, head.status_code):
                return Answer(head.status_code, head.headers, b"")
            raise ConnectionFailed(
                f"{self._blame(error)} ({type(error).__name__})",
                sent=self._may_have_left(trace, error),
            ) from error
        except (AssertionError, LookupError, ProtocolError) as error:
            # httpx2 and socksio raise these if a SOCKS proxy uses another protocol or disconnects.
            if not self._is_proxied or trace.has_begun:
                raise
            raise ConnectionFailed("the proxy does not speak SOCKS5", sent=False) from error
        if self._is_proxied and head.status_code == HTTPStatus.PROXY_AUTHENTICATION_REQUIRED:
            # Only a proxy sends this status, and it has not forwarded the request.
            raise ConnectionFailed("the proxy requires credentials", sent=False)
        return Answer(head.status_code, head.headers, body)

    def _request(self, call: UpstreamCall, trace: _Trace) -> httpx2.Request:
        headers, content = {}, None
        if call.body is not None:
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(call.body)
        return self._client.build_request(
            call.method,
            call.base_path + call.path,
            params=call.query or None,
            headers=headers,
            content=content,
            extensions={"trace": trace.__call__},
        )

    async def _read(self, call: UpstreamCall, head: httpx2.Response) -> bytes:
        needed = _needs_body(call, head.status_code)
        limit = self._max_body if needed else min(MAX_UNREAD_BODY, self._max_body)
        body = bytearray()
        async for chunk in head.aiter_bytes():
            body += chunk
            if len(body) > limit:
                if needed:
                    raise InvalidResponse(
                        f"the response is larger than {limit} bytes", http_status=head.status_code
                    )
                return b""
        return bytes(body)

    def _blame(self, error: BaseException) -> str:
        if isinstance(error, httpx2.ProxyError):
            return "the proxy refused the connection"
        if self._is_proxied and isinstance(error, httpx2.ConnectError):
            return "no connection through the proxy"
        return "the connection failed"

    def _may_have_left(self, trace: _Trace, error: BaseException) -> bool:
        if self._is_traced:
            return trace.has_begun
        return not isinstance(error, _BEFORE_SENDING)


def _needs_body(call: UpstreamCall, status: int) -> bool:
    """Whether the body is needed: only if the call reads the body and succeeded."""
    return call.reads_body and 200 <= status < 300


def _is_tunnel(info: Mapping[str, Any]) -> bool:
    """Whether a request is the CONNECT to a proxy that precedes the actual request."""
    request = info.get("request")
    return getattr(request, "method", None) == b"CONNECT"


def _code(head: httpx2.Response | None) -> int | None:
    return None if head is None else head.status_code
