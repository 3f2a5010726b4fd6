# SPDX-License-Identifier: Apache-2.0
"""Housekeeping: delete expired idempotency keys in batches, and check the clock."""

from __future__ import annotations

import asyncio
from typing import Final

import structlog

from novitai.clock import Clock
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.lifecycle.commands.idempotency import KEPT_FOR
from novitai.lifecycle.maintenance import clock_check
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import idempotency_keys

PAUSE: Final = 600.0
_BATCH: Final = 1000

_log = structlog.get_logger(__name__)


class Housekeeping:
    """Deletes expired idempotency keys with their stored answers."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Start to run every ten minutes; return the loop."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await cancel(self._task)

    async def once(self) -> int:
        """Delete the expired keys; return how many rows were deleted."""
        before = self._clock.now() - KEPT_FOR
        deleted = 0
        while True:
            count = await self._database.write(
                lambda connection: idempotency_keys.prune(connection, before=before, limit=_BATCH)
            )
            deleted += count
            if count < _BATCH:
                return deleted

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
                await clock_check.warn(self._database, self._clock)
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            await self._clock.sleep(PAUSE)
