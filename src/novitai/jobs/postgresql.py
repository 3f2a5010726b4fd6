# SPDX-License-Identifier: Apache-2.0
"""The job engine for several processes: nudges are jobs in PgQueuer's tables on PostgreSQL."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs import queue_sql
from novitai.jobs.dispatcher import Dispatcher
from novitai.jobs.metrics import JobMetrics
from novitai.jobs.port import Due, Handler, JobType, Transactions
from novitai.jobs.supervision import Loop
from novitai.jobs.sweeper import Sweeper
from novitai.jobs.upkeep import PRESENCE_SECONDS, Presence, Upkeep

if TYPE_CHECKING:
    from novitai.jobs.consumer import Consumer

SWEEP_SECONDS: Final = 1.0
COMMAND_SECONDS: Final = 10.0
_SWEEP_SPREAD: Final = 0.2
_PAGE: Final = 5_000


class PostgresqlEngine:
    """A `JobEngine` shared by processes: a nudge is an INSERT in the caller's transaction.

    A job in PgQueuer has only a name and a key. PgQueuer does not retry, delay or fence jobs: the
    sweep finds the rows of lost jobs, and the leases of rows protect against duplicate jobs.
    """

    def __init__(
        self,
        database: Transactions,
        url: str,
        clock: Clock,
        ids: Ids,
        *,
        presence: Presence,
        sweep_interval: float = SWEEP_SECONDS,
        presence_interval: float = PRESENCE_SECONDS,
        command_timeout: float = COMMAND_SECONDS,
    ) -> None:
        """Prepare the engine; `start` starts it.

        Args:
            database: The database with the due rows and the queue's tables.
            url: The same database as `postgresql://...`, for the worker's own connection.
            clock: The clock of sweeps, pauses and hints; the queue itself uses real time.
            ids: The source of jitter and of the worker's ID.
            presence: The statements that record and read the presence of workers.
            sweep_interval: Seconds between two sweeps of this process.
            presence_interval: Seconds between two records of this worker's presence.
            command_timeout: Seconds without an answer after which the worker's own connection is
                replaced.
        """
        self.metrics = JobMetrics(clock)
        self._database = database
        self._url = url
        self._clock = clock
        self._ids = ids
        self._presence = presence
        self._presence_interval = presence_interval
        self._command_timeout = command_timeout
        self._started_at = clock.now()
        self._dispatcher = Dispatcher(clock, ids, self.metrics)
        self._sweeper = Sweeper(
            clock, ids, self._sweep, interval=sweep_interval, spread=_SWEEP_SPREAD
        )
        self._consumer: Consumer | None = None
        self._upkeep: Upkeep | None = None

    def register(self, name: str, handler: Handler, *, due: Due, concurrency: int) -> None:
        """Bind `name` to its handler; see `JobEngine.register`."""
        self._dispatcher.register(JobType(name, handler, due, concurrency))

    def nudge(self, connection: Connection, name: str, key: str) -> None:
        """Queue the key in the connection's transaction; it works in an API process too."""
        queue_sql.nudge(connection, name, key)

    def offer(self, name: str, key: str) -> None:
        """Run the key's handler soon; see `JobEngine.offer`."""
        self._dispatcher.offer(name, key)

    @property
    def is_only(self) -> bool:
        """False: any number of processes share the rows."""
        return False

    async def start(self, *, consume: bool = True) -> Sequence[Loop]:
        """Start to run handlers, or only to nudge; see `JobEngine.start`."""
        self._started_at = self._clock.now()
        if not consume:
            return ()
        # Imported here because PgQueuer loads slowly and a process that only nudges never uses it.
        from novitai.jobs.consumer import Consumer

        self._consumer = Consumer(
            self._url,
            self._dispatcher,
            self._clock,
            self._ids,
            command_timeout=self._command_timeout,
        )
        self._upkeep = Upkeep(
            self._database,
            self._consumer,
            self._presence,
            self._clock,
            self._ids,
            interval=self._presence_interval,
        )
        return (
            self._dispatcher.start(),
            self._consumer.start(),
            self._sweeper.start(self._dispatcher.jobs),
            self._upkeep.start(),
        )

    async def stop(self, grace: float) -> None:
        """Take no new keys, give running handlers `grace` seconds, then cancel them."""
        if self._consumer is None or self._upkeep is None:
            return
        self._consumer.close_intake()
        await self._sweeper.stop()
        await self._upkeep.stop()
        await self._dispatcher.stop(grace)
        await self._consumer.stop()

    async def last_seen(self) -> int:
        """Return when a worker of any process was last seen, or this start, in Unix milliseconds.

        Raises:
            Exception: the exception of the database, if it cannot be reached.
        """
        seen = await self._database.read(self._presence.seen_at)
        return max(seen or 0, self._started_at)

    async def queue_sizes(self) -> dict[str, int]:
        """Count the waiting jobs of all processes, by name."""
        sizes = await self._database.read(queue_sql.queue_sizes)
        return {**dict.fromkeys((job.name for job in self._dispatcher.jobs), 0), **sizes}

    async def _sweep(self, jobs: Sequence[JobType]) -> None:
        """Look for due keys of all names in one read, as mostly there are none, then queue them."""
        now = self._clock.now()
        held = {job.name: self._dispatcher.held(job.name) for job in jobs}

        def look(connection: Connection) -> list[JobType]:
            return [job for job in jobs if _due(connection, job, held[job.name], now, most=1)]

        for job in await self._database.read(look):
            await self._database.write(partial(self._enqueue, job, held[job.name], now))

    @staticmethod
    def _enqueue(job: JobType, held: frozenset[str], now: int, connection: Connection) -> None:
        """Queue the due keys that are not queued, unless another process is doing the same."""
        if not queue_sql.try_lock(connection, job.name):
            return
        wanted = _due(connection, job, held, now, most=_PAGE)
        if wanted:
            queue_sql.enqueue_due(connection, job.name, wanted)


def _due(
    connection: Connection, job: JobType, held: frozenset[str], now: int, *, most: int
) -> list[str]:
    """Find the due keys of a name that are not backing off: at most `most`, and as many held."""
    return [key for key in job.due(connection, now, most + len(held)) if key not in held]
