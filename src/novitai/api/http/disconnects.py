# SPDX-License-Identifier: Apache-2.0
"""Notice that a client has disconnected."""

from __future__ import annotations

from starlette.types import Receive


async def disconnected(receive: Receive) -> None:
    """Return when the client has disconnected; what it still sends is discarded."""
    while (await receive())["type"] != "http.disconnect":
        pass
