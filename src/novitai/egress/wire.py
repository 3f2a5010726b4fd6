# SPDX-License-Identifier: Apache-2.0
"""One HTTP exchange with a checked address, over its own connection.

There is no shared connection pool: it would reuse the TLS connection of one host for another host
at the same address, and slow peers could exhaust its limit. Callers set the deadline.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from importlib.metadata import version
from ssl import SSLContext
from typing import Any, Final

import anyio
import httpx2

from novitai.domain.addresses import Address
from novitai.egress.guard import AddressTarget, url_at

USER_AGENT: Final = f"novitai/{version('novitai')}"
BROKEN: Final = (
    httpx2.HTTPError,
    OSError,
    anyio.BrokenResourceError,
    anyio.ClosedResourceError,
    anyio.EndOfStream,
)
"""The exceptions of an exchange for which the network or the peer is at fault."""
_CONNECTED: Final = "connect_tcp.complete"


class Opened:
    """Traces an exchange and records the connections it opened, so that they can be closed.

    If httpcore2 is cancelled during the TLS handshake, it does not close the connection.
    """

    def __init__(self) -> None:
        self._streams: list[Any] = []

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Record a connection; called by the `trace` extension of httpx2."""
        if event.endswith(_CONNECTED):
            self._streams.append(info["return_value"])

    async def aclose(self) -> None:
        """Close the connections without waiting for the peer; a second call does nothing."""
        for stream in self._streams:
            with contextlib.suppress(Exception):  # it is given up, and the answer is known
                await stream.aclose()
        self._streams.clear()


class Wire:
    """Makes exchanges, each over its own connection."""

    def __init__(
        self, tls: SSLContext | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Create the client; it connects only for an exchange.

        Args:
            tls: The TLS context; by default, one with the certificates that this machine trusts.
            transport: A transport to use instead of the network, for tests.
        """
        # Created once, because this reads the certificates of the machine.
        self._tls = tls or httpx2.create_ssl_context(trust_env=False)
        self._transport = transport

    @contextlib.asynccontextmanager
    async def exchange(
        self,
        method: str,
        url: str,
        target: AddressTarget,
        *,
        headers: Mapping[str, str],
        content: bytes | None = None,
        wait: float,
        connect: float,
    ) -> AsyncIterator[httpx2.Response]:
        """Send one request and yield the response once its head has arrived.

        The request goes to the first address of the target that accepts a connection; to the other
        addresses, nothing is sent.

        Args:
            method: The HTTP method.
            url: The URL whose path and query are sent; the host is that of the target.
            target: The result of the guard for this URL.
            headers: Headers besides `Host`, `User-Agent` and `Connection`.
            content: The body.
            wait: Seconds for each read or write; the caller sets the deadline of the exchange.
            connect: Seconds for the connection to one address.

        Raises:
            httpx2.HTTPError: no response arrived.
        """
        waits = httpx2.Timeout(wait, connect=connect)
        *others, last = target.addresses
        async with contextlib.AsyncExitStack() as stack:
            for address in (*others, last):
                try:
                    response = await stack.enter_async_context(
                        self._exchange_at(address, method, url, target, headers, content, waits)
                    )
                except (httpx2.ConnectError, httpx2.ConnectTimeout):
                    if address == last:
                        raise
                else:
                    yield response
                    return

    @contextlib.asynccontextmanager
    async def _exchange_at(
        self,
        address: Address,
        method: str,
        url: str,
        target: AddressTarget,
        headers: Mapping[str, str],
        content: bytes | None,
        waits: httpx2.Timeout,
    ) -> AsyncIterator[httpx2.Response]:
        opened = Opened()
        extensions: dict[str, object] = {"timeout": waits.as_dict(), "trace": opened.__call__}
        if target.tls_name is not None:
            extensions["sni_hostname"] = target.tls_name
        request = httpx2.Request(
            method,
            url_at(address, url),
            headers={
                "Host": target.host,
                "User-Agent": USER_AGENT,
                "Accept-Encoding": "identity",
                "Connection": "close",
                **headers,
            },
            content=content,
            extensions=extensions,
        )
        transport = self._transport or httpx2.AsyncHTTPTransport(
            verify=self._tls, trust_env=False, http2=False, retries=0
        )
        try:
            response = await transport.handle_async_request(request)
            try:
                yield response
            finally:
                await response.aclose()
        finally:
            await opened.aclose()
            if self._transport is None:
                await transport.aclose()
