# SPDX-License-Identifier: Apache-2.0
"""Retention: delete old events, deliveries and operations, and remove instances that ended.

It works in small transactions with pauses between them, so that requests hardly notice it. The
ledger stays, and so does what tells our instances from those of others.
"""

from __future__ import annotations

from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.store.engine.database import Database
from novitai.store.queries import leases, retention

LISTED_WITHIN_DAYS: Final = 30
"""A record whose instance was listed within so many days is not removed."""
LEASE: Final = "retention"
PAUSE: Final = 0.05
"""Seconds between two transactions."""
_LEASE_MS: Final = 60_000
_BATCH: Final = 250
_DAY_MS: Final = 86_400_000

_log = structlog.get_logger(__name__)


class Retention:
    """Removes what is older than the settings say; one process at a time."""

    def __init__(self, database: Database, clock: Clock, *, days: int, holder: str) -> None:
        """Set the dependencies; with 0 `days` everything is kept."""
        self._database = database
        self._clock = clock
        self._days = days
        self._holder = holder

    async def once(self) -> int:
        """Remove what is too old; return how many rows were deleted or removed."""
        if self._days == 0 or not await self._database.write(self._take):
            return 0
        before = self._clock.now() - self._days * _DAY_MS
        counts = {
            "events": await self._events(before),
            "instances": await self._instances(before),
            "operations": await self._operations(before),
        }
        await self._database.write(partial(leases.release, name=LEASE, holder=self._holder))
        if any(counts.values()):
            _log.info("retention_applied", **counts)
        return sum(counts.values())

    def _take(self, connection: Connection) -> bool:
        now = self._clock.now()
        return leases.take(connection, LEASE, self._holder, now=now, until=now + _LEASE_MS)

    async def _goes_on(self) -> bool:
        """Pause, and keep the lease; False if another process has it now."""
        await self._clock.sleep(PAUSE)
        return await self._database.write(self._take)

    async def _events(self, before: int) -> int:
        deleted, after = 0, 0
        while True:
            page = await self._database.write(
                partial(retention.prune_events, before=before, after=after, limit=_BATCH)
            )
            deleted += page.deleted
            if page.last is None or not await self._goes_on():
                return deleted
            after = page.last

    async def _instances(self, before: int) -> int:
        removed = 0
        while True:
            now = self._clock.now()
            remove = partial(
                retention.remove_instances,
                before=before,
                listed_before=now - LISTED_WITHIN_DAYS * _DAY_MS,
                now=now,
                limit=_BATCH,
            )
            count = await self._database.write(remove)
            removed += count
            if count < _BATCH or not await self._goes_on():
                return removed

    async def _operations(self, before: int) -> int:
        deleted = 0
        while True:
            prune = partial(retention.prune_operations, before=before, limit=_BATCH)
            count = await self._database.write(prune)
            deleted += count
            if count < _BATCH or not await self._goes_on():
                return deleted
