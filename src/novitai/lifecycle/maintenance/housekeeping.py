# SPDX-License-Identifier: Apache-2.0
"""Housekeeping: delete what has expired in batches, check the clock, and run rarer tasks.

What expires: idempotency keys, quotes, sessions of browsers and their one-time codes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.lifecycle.commands.idempotency import KEPT_FOR
from novitai.lifecycle.maintenance import clock_check
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreError
from novitai.store.queries import idempotency_keys, quotes, sessions

PAUSE: Final = 600.0
QUOTES_KEPT_FOR: Final = 3600 * 1000
"""How long a quote is kept after it expired, in milliseconds.

It is longer than a request takes, so a create never loses the quote that it was checked against.
"""
_BATCH: Final = 1000

_log = structlog.get_logger(__name__)


Task = Callable[[], Awaitable[object]]


class Prune(Protocol):
    """Deletes up to `limit` rows that are older than a time; returns how many."""

    def __call__(self, connection: Connection, *, before: int, limit: int) -> int:
        """Delete them."""
        ...


class Housekeeping:
    """Deletes expired idempotency keys with their stored answers, quotes, sessions and codes."""

    def __init__(self, database: Database, clock: Clock, *more: Task) -> None:
        """Set the dependencies; `more` are tasks that run in each round after the own ones."""
        self._database = database
        self._clock = clock
        self._more = more
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Start to run every ten minutes; return the loop."""
        self._task = asyncio.create_task(self._run(), name="housekeeping")
        return self._task

    async def stop(self) -> None:
        """Stop."""
        await cancel(self._task)

    async def once(self) -> int:
        """Delete what has expired; return how many rows were deleted."""
        now = self._clock.now()
        return (
            await self._prune(idempotency_keys.prune, now - KEPT_FOR)
            + await self._prune(quotes.prune, now - QUOTES_KEPT_FOR)
            + await self._prune(sessions.prune, now)
            + await self._prune(sessions.prune_codes, now)
        )

    async def _prune(self, prune: Prune, before: int) -> int:
        deleted = 0
        while True:
            count = await self._database.write(partial(prune, before=before, limit=_BATCH))
            deleted += count
            if count < _BATCH:
                return deleted

    async def _run(self) -> None:
        while True:
            try:
                await self.once()
                for task in self._more:
                    await task()
                await clock_check.warn(self._database, self._clock)
            except StoreError as error:
                _log.warning("database_in_trouble", error=str(error))
            await self._clock.sleep(PAUSE)
