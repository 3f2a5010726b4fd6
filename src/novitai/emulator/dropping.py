# SPDX-License-Identifier: Apache-2.0
"""Closes a connection without a response, like a broken network."""

from __future__ import annotations

import asyncio
from typing import cast

from starlette.types import Receive, Scope
from uvicorn.protocols.http.h11_impl import H11Protocol

_TRANSPORT = "novitai.emulator.transport"


class ConnectionDropped(ConnectionResetError):
    """Raised instead of dropping the connection if the application runs without a socket."""


class DroppableProtocol(H11Protocol):
    """HTTP/1.1 protocol that gives the application access to its connection."""

    def connection_made(  # type: ignore[override]  # uvicorn accepts this kind of transport
        self, transport: asyncio.Transport
    ) -> None:
        """Store the transport in the request's state."""
        self.app_state = {**self.app_state, _TRANSPORT: transport}
        super().connection_made(transport)


async def drop_connection(scope: Scope, receive: Receive) -> None:
    """Abort the connection and wait until it is closed, so that no response is attempted.

    Raises:
        ConnectionDropped: The application runs in-process, without a socket.
    """
    transport = scope.get("state", {}).get(_TRANSPORT)
    if transport is None:
        raise ConnectionDropped("the emulator dropped the connection because of a fault")
    cast("asyncio.Transport", transport).abort()
    while (await receive())["type"] != "http.disconnect":
        continue
