# SPDX-License-Identifier: Apache-2.0
"""The job engine for a single process on SQLite: a dispatcher and a sweep, without a queue."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs.dispatcher import QUEUE_CAPACITY, Dispatcher
from novitai.jobs.metrics import JobMetrics
from novitai.jobs.port import Due, Handler, JobType, Transactions
from novitai.jobs.supervision import Loop
from novitai.jobs.sweeper import Sweeper

SWEEP_SECONDS: Final = 1.0
_PAGE: Final = 1_000


class EmbeddedEngine:
    """A `JobEngine` in memory; after a stop or a crash, the next sweep finds all due rows."""

    def __init__(
        self,
        database: Transactions,
        clock: Clock,
        ids: Ids,
        *,
        sweep_interval: float = SWEEP_SECONDS,
        capacity: int = QUEUE_CAPACITY,
    ) -> None:
        """Prepare the engine; `start` starts it.

        Args:
            database: The database with the due rows.
            clock: The clock of sweeps, pauses and hints.
            ids: The source of jitter.
            sweep_interval: Seconds between two sweeps.
            capacity: How many keys of one name may wait; further keys are left to the sweep.
        """
        self.metrics = JobMetrics(clock)
        self._database = database
        self._clock = clock
        self._sweeper = Sweeper(clock, ids, self._sweep, interval=sweep_interval)
        self._dispatcher = Dispatcher(
            clock, ids, self.metrics, capacity=capacity, on_room=self._sweeper.soon
        )

    def register(self, name: str, handler: Handler, *, due: Due, concurrency: int) -> None:
        """Bind `name` to its handler; see `JobEngine.register`."""
        self._dispatcher.register(JobType(name, handler, due, concurrency))

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        """Offer the key after the transaction has committed; see `JobEngine.nudge`."""
        self._database.after_commit(connection, partial(self._dispatcher.offer, name, key))

    def offer(self, name: str, key: str) -> None:
        """Run the key's handler soon; see `JobEngine.offer`."""
        self._dispatcher.offer(name, key)

    @property
    def is_only(self) -> bool:
        """True: the rows are in a file that one process has locked."""
        return True

    async def start(self, *, consume: bool = True) -> Sequence[Loop]:
        """Start; the first sweep finds the rows that are already due. See `JobEngine.start`."""
        del consume
        return (self._dispatcher.start(), self._sweeper.start(self._dispatcher.jobs))

    async def stop(self, grace: float) -> None:
        """Take no new keys, give running handlers `grace` seconds, then cancel them."""
        await self._sweeper.stop()
        await self._dispatcher.stop(grace)

    async def last_seen(self) -> int:
        """Return when a sweep last succeeded, or the start, in Unix milliseconds."""
        return self._sweeper.last_complete

    async def queue_sizes(self) -> dict[str, int]:
        """Count the waiting keys, by name."""
        return {name: stats.queued for name, stats in self.metrics.snapshot().items()}

    async def _sweep(self, jobs: Sequence[JobType]) -> None:
        now = self._clock.now()
        limits = [self._dispatcher.page(job.name, _PAGE) for job in jobs]

        def find(connection: Connection) -> list[Sequence[str]]:
            return [
                job.due(connection, now, limit) for job, limit in zip(jobs, limits, strict=True)
            ]

        found = await self._database.read(find)
        for job, limit, keys in zip(jobs, limits, found, strict=True):
            for key in keys:
                self._dispatcher.offer(job.name, key, swept=True)
            if len(keys) >= limit:
                self._dispatcher.left_behind(job.name)
