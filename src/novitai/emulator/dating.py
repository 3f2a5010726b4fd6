# SPDX-License-Identifier: Apache-2.0
"""The `Date` header of every reply, in virtual time, like the creation times of instances."""

from __future__ import annotations

from email.utils import formatdate

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from novitai.emulator.state import Emulator


class Dated:
    """Middleware that adds `Date` (RFC 9110, section 6.6.1), unless the settings disable it."""

    def __init__(self, app: ASGIApp, emulator: Emulator) -> None:
        self._app = app
        self._emulator = emulator

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""

        async def dated(message: Message) -> None:
            offset = self._emulator.settings.date_offset_seconds
            if message["type"] == "http.response.start" and offset is not None:
                date = formatdate(self._emulator.clock.now() + offset, usegmt=True)
                message["headers"] = [*message["headers"], (b"date", date.encode())]
            await send(message)

        await self._app(scope, receive, dated)
