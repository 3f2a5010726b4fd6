# SPDX-License-Identifier: Apache-2.0
"""Retention: delete old events, deliveries and operations, and remove instances that ended.

It works in small transactions with pauses between them, so that requests hardly notice it. The
sums of the ledger stay, and so does what tells our instances from those of others.
"""

from __future__ import annotations

from functools import partial
from typing import Final
from zoneinfo import ZoneInfo

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.billing_periods import Bucket, begin_of, periods
from novitai.store.engine.database import Database
from novitai.store.queries import billing, leases, retention

LISTED_WITHIN_DAYS: Final = 31
"""A record whose instance was noted as listed within so many days is not removed.

The listing notes that once a day, so the record stays for 30 days after it was last listed.
"""
FOLD_AFTER_DAYS: Final = 400
"""Whole months of the ledger that are older become one row per record, rate, key and tags."""
LEASE: Final = "retention"
PAUSE: Final = 0.05
"""Seconds between two transactions."""
_LEASE_MS: Final = 60_000
_BATCH: Final = 250
_DAY_MS: Final = 86_400_000
_UTC: Final = ZoneInfo("UTC")

_log = structlog.get_logger(__name__)


class Retention:
    """Removes what is older than the settings say; one process at a time."""

    def __init__(self, database: Database, clock: Clock, *, days: int, holder: str) -> None:
        """Set the dependencies; with 0 `days`, only the ledger is folded."""
        self._database = database
        self._clock = clock
        self._days = days
        self._holder = holder
        self._folded = 0

    async def once(self) -> int:
        """Remove what is too old; return how many rows were deleted or removed."""
        if not await self._database.write(self._take):
            return 0
        counts = dict.fromkeys(("events", "instances", "operations"), 0)
        if self._days:
            before = self._clock.now() - self._days * _DAY_MS
            counts = {
                "events": await self._events(before),
                "instances": await self._instances(before),
                "operations": await self._operations(before),
            }
        counts["ledger_rows"] = await self._ledger()
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

    async def _ledger(self) -> int:
        """Fold the months that no report of 400 days shows any more."""
        until = begin_of(Bucket.MONTH, self._clock.now() - FOLD_AFTER_DAYS * _DAY_MS, _UTC)
        first = await self._database.read(billing.oldest_end)
        # Nothing ends in a month of the past, so each is looked at once by a process.
        if first is None or until == self._folded:
            return 0
        dropped = 0
        for begin, end in periods(Bucket.MONTH, begin_of(Bucket.MONTH, first, _UTC), until, _UTC):
            after: str | None = ""
            while after is not None:
                fold = partial(billing.fold, since=begin, until=end, after=after, limit=_BATCH)
                page = await self._database.write(fold)
                dropped += page.dropped
                after = page.last
                if not await self._goes_on():
                    return dropped
        self._folded = until
        return dropped
