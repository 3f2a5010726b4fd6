# SPDX-License-Identifier: Apache-2.0
"""Periodic tasks of a worker on PostgreSQL: record its presence, and prune PgQueuer's log."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, Protocol

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs import queue_sql
from novitai.jobs.port import Transactions
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel

if TYPE_CHECKING:
    from novitai.jobs.consumer import Consumer

PRESENCE_SECONDS: Final = 5.0
_LOG_BATCH: Final = 5_000
_LOG_BATCHES: Final = 20

_log: Final = structlog.get_logger(__name__)


class NoteWorker(Protocol):
    """Records that a worker is alive."""

    def __call__(
        self, connection: Connection, worker_id: str, /, *, started_at: int, now: int
    ) -> None:
        """Record that a worker is alive at `now`; both times are in Unix milliseconds."""
        ...


@dataclass(frozen=True, slots=True)
class Presence:
    """The statements that record and read the presence of workers."""

    note: NoteWorker
    seen_at: Callable[[Connection], int | None]
    """Returns when any worker was last seen, in Unix milliseconds; `None` if none was."""


class Upkeep:
    """Runs the tasks in a loop; a failed task is retried in the next round."""

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
        self._started_at = clock.now()
        self._failing = False
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Start the loop; return the task that runs until `stop`."""
        self._started_at = self._clock.now()
        self._task = asyncio.create_task(self._run(), name="jobs-upkeep")
        return self._task

    async def stop(self) -> None:
        """Cancel the loop and wait for its end."""
        await cancel(self._task)

    async def _run(self) -> None:
        while True:
            try:
                await self._round()
                self._failing = False
            except Exception:  # a failed task must not end the worker
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
        self._presence.note(connection, self._worker, started_at=self._started_at, now=now)

    @staticmethod
    def _prune(connection: Connection) -> int:
        if not queue_sql.try_lock(connection, "prune"):
            return 0
        return queue_sql.prune_log(connection, _LOG_BATCH)
