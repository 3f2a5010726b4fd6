# SPDX-License-Identifier: Apache-2.0
"""Processes that stall between the claim of a step and its call, as by SIGSTOP."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from novitai.app import Application
from novitai.clock import Clock
from novitai.lifecycle.operations.steps import LEASE_MS
from novitai.upstream.errors import UpstreamError
from novitai.upstream.operations import Endpoint
from novitai.upstream.window import SendWindow


class Stall:
    """Stops a process at its next write call of a kind, until it is released.

    In the meantime it makes no upstream call and no database query, so it renews no lease. `slips`
    lets the call through when it continues, as if it had stalled after the check of its window and
    before its first byte.
    """

    def __init__(self, app: Application, call: Endpoint, *, slips: bool = False) -> None:
        self._clock: Clock = app.clock
        self._call = call
        self._slips = slips
        self._go_on = asyncio.Event()
        self._go_on.set()
        self.began = asyncio.Event()
        self.ended = asyncio.Event()
        self.error: UpstreamError | None = None
        self._act = app.client._act
        database = app.database
        for owner, name, instead in (
            (app.client, "_act", self._held_back),
            (database, "read", self._waiting(database.read)),
            (database, "write", self._waiting(database.write)),
        ):
            setattr(owner, name, instead)

    def go_on(self) -> None:
        """Let the process continue with its call."""
        self._go_on.set()

    def _waiting(self, act: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
        async def waiting(*arguments: Any, **options: Any) -> Any:
            await self._go_on.wait()
            return await act(*arguments, **options)

        return waiting

    async def _held_back(self, call: Endpoint, instance_id: str, window: SendWindow) -> None:
        if call is not self._call or self.began.is_set():
            return await self._act(call, instance_id, window)
        self.began.set()
        self._go_on.clear()
        await self._go_on.wait()
        used = SendWindow.lasting(self._clock, LEASE_MS) if self._slips else window
        try:
            await self._act(call, instance_id, used)
        except UpstreamError as error:
            self.error = error
            raise
        finally:
            window.sent = used.sent
            self.ended.set()
