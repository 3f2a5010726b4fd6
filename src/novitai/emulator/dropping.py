# SPDX-License-Identifier: Apache-2.0
"""Closing a connection without an answer, as a broken network does."""

from __future__ import annotations

import asyncio
from typing import cast

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "novitai.emulator.transport"


class ConnectionDropped(ConnectionResetError):
    """The connection was dropped on purpose, where there is no socket that could be closed."""


class DroppableProtocol(H11Protocol):
    """HTTP/1.1 that lets the application reach the connection it is called on."""

    def connection_made(  # type: ignore[override]  # uvicorn's takes this kind of transport too
        self, transport: asyncio.Transport
    ) -> None:
        """Show the transport to the application, in the request's state."""
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        super().connection_made(transport)


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Abort the connection and wait until it is gone, so that nobody tries to answer on it.

    Raises:
        ConnectionDropped: The application is called inside the process, without a socket.
    """
    transport = scope.get("state", {}).get(_TRANSPORT)
    if transport is None:
        raise ConnectionDropped("the emulator dropped the connection, as it was told to")
    cast("asyncio.Transport", transport).abort()
    while (await receive())["type"] != "http.disconnect":
        continue
