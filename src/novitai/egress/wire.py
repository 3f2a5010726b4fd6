# SPDX-License-Identifier: Apache-2.0
"""One HTTP exchange with an address that was checked, over a connection of its own.

No shared pool: it would use one host's TLS connection for another host on the same address, and
its limit would let slow peers hold up the others. Deadlines are the callers'.
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
"""What an exchange raises when the network or the peer is at fault."""
_CONNECTED: Final = "connect_tcp.complete"


class Opened:
    """Listens to an exchange and keeps the connections it made, so that they can be closed.

    httpcore2 leaves a connection to the collector when it is cancelled during the TLS handshake.
    """

    def __init__(self) -> None:
        self._streams: list[Any] = []

    async def __call__(self, event: str, info: Mapping[str, Any]) -> None:
        """Take note of a connection; the `trace` extension of httpx2."""
        if event.endswith(_CONNECTED):
            self._streams.append(info["return_value"])

    async def aclose(self) -> None:
        """Close them; does not wait for the peer, and closing twice does nothing."""
        for stream in self._streams:
            with contextlib.suppress(Exception):
                await stream.aclose()
        self._streams.clear()


class Wire:
    """Makes exchanges, each over a connection of its own."""

    def __init__(
        self, tls: SSLContext | None = None, transport: httpx2.AsyncBaseTransport | None = None
    ) -> None:
        """Prepare it; connects to nothing yet.

        Args:
            tls: Whom to trust; by default, whom this machine does.
            transport: Another way to send what was checked, for tests.
        """
        # One for all: making it reads the certificates of this machine.
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
        """Send one request and give the head of the answer.

        It goes to the first of the target's addresses that takes the connection: until then,
        nothing has been sent.

        Args:
            method: The HTTP method.
            url: Its path and query are sent; its host is the target's.
            target: What the guard said of the URL.
            headers: Beside `Host`, `User-Agent` and `Connection`.
            content: The body.
            wait: Seconds for each wait of the exchange; the caller keeps the deadline of the whole.
            connect: Seconds for the connection to one address.

        Raises:
            httpx2.HTTPError: no answer came.
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
