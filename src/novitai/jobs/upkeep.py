# SPDX-License-Identifier: Apache-2.0
"""What a worker on PostgreSQL does on the side: shows that it lives, prunes PgQueuer's log."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Final, Protocol

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs import queue_sql
from novitai.jobs.consumer import Consumer
from novitai.jobs.port import Transactions
from novitai.jobs.waiting import cancel

PRESENCE_SECONDS: Final = 5.0
_LOG_BATCH: Final = 5_000
_LOG_BATCHES: Final = 20

_log: Final = structlog.stdlib.get_logger(__name__)


class Presence(Protocol):
    """Where workers leave word that they live; the statements are the caller's."""

    def beat(self, connection: Connection, worker: str, now: int, /) -> None:
        """Note that the worker lives at `now` (Unix milliseconds)."""
        ...

    def last_seen(self, connection: Connection, /) -> int | None:
        """Return when any worker was last seen, in Unix milliseconds."""
        ...


class Upkeep:
    """A loop of small duties; what fails is tried again in the next round."""

    def __init__(
        self,
        database: Transactions,
        consumer: Consumer,
        presence: Presence,
        clock: Clock,
        ids: Ids,
        *,
        interval: float = PRESENCE_SECONDS,
    ) -> None:
        """Prepare the loop; `interval` is the seconds between two rounds."""
        self._database = database
        self._consumer = consumer
        self._presence = presence
        self._clock = clock
        self._ids = ids
        self._interval = interval
        self._worker = ids.prefixed("worker")
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin."""
        self._task = asyncio.create_task(self._run(), name="jobs-upkeep")

    async def stop(self) -> None:
        """End the loop and wait for its end."""
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
                self._failing = False
            except Exception:
                # Whatever the database raises: nothing here is worth ending a worker for.
                if not self._failing:
                    _log.exception("upkeep_failed")
                self._failing = True
            await self._clock.sleep(self._ids.jitter(self._interval))

    async def _round(self) -> None:
        if await self._consumer.ping():
            beat = partial(self._beat, now=self._clock.now())
            await self._database.write(beat)
        for _ in range(_LOG_BATCHES):
            if await self._database.write(self._prune) < _LOG_BATCH:
                break

    def _beat(self, connection: Connection, now: int) -> None:
        self._presence.beat(connection, self._worker, now)

    @staticmethod
    def _prune(connection: Connection) -> int:
        if not queue_sql.try_lock(connection, "prune"):
            return 0
        return queue_sql.prune_log(connection, _LOG_BATCH)
