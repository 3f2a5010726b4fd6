# SPDX-License-Identifier: Apache-2.0
"""The engine of many processes: nudges travel through PgQueuer's tables on PostgreSQL."""

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
    """A `JobEngine` shared by processes: a nudge is an INSERT in the caller's own transaction.

    Of a job, PgQueuer knows the name and the key. It neither retries nor delays nor fences: what
    is lost or runs twice on the way is made good by the sweep and by the rows' own leases.
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
        """Prepare the engine; nothing runs before `start`.

        Args:
            database: Where the due rows and the queue's tables are.
            url: The same database as `postgresql://...`, for the worker's own connection.
            clock: The time that sweeps, pauses and hints run on; the queue itself is in real time.
            ids: The randomness of pauses, and the worker's name.
            presence: Where workers leave word that they live.
            sweep_interval: Seconds between two sweeps of this process.
            presence_interval: Seconds between two signs of life.
            command_timeout: After how many seconds without an answer the worker's own connection
                is given up and made anew.
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
        """Queue the key in the connection's transaction; works in a process without workers too."""
        queue_sql.nudge(connection, name, key)

    def offer(self, name: str, key: str) -> None:
        """Look at the key soon; see `JobEngine.offer`."""
        self._dispatcher.offer(name, key)

    @property
    def is_only(self) -> bool:
        """False: any number of processes share the rows."""
        return False

    async def start(self, *, consume: bool = True) -> Sequence[Loop]:
        """Begin to work, or only to nudge; see `JobEngine.start`."""
        self._started_at = self._clock.now()
        if not consume:
            return ()
        # PgQueuer takes long to load, and a process that only nudges never needs it.
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
        """Take no new work, wait `grace` seconds for running handlers, then cancel them."""
        if self._consumer is None or self._upkeep is None:
            return
        self._consumer.close_intake()
        await self._sweeper.stop()
        await self._upkeep.stop()
        await self._dispatcher.stop(grace)
        await self._consumer.stop()

    async def last_seen(self) -> int:
        """Return when any process's worker was last seen, or this start, in Unix milliseconds.

        Raises:
            Exception: the database cannot be reached; whatever it raised.
        """
        seen = await self._database.read(self._presence.seen_at)
        return max(seen or 0, self._started_at)

    async def queue_sizes(self) -> dict[str, int]:
        """Count the jobs that wait in the queue, by name, whichever process they came from."""
        sizes = await self._database.read(queue_sql.queue_sizes)
        return {**dict.fromkeys((job.name for job in self._dispatcher.jobs), 0), **sizes}

    async def _sweep(self, job: JobType) -> None:
        held = self._dispatcher.held(job.name)
        await self._database.write(partial(self._enqueue, job, held, self._clock.now()))

    @staticmethod
    def _enqueue(job: JobType, held: frozenset[str], now: int, connection: Connection) -> None:
        """Queue what is due and not queued, unless another process is doing just that."""
        if not queue_sql.try_lock(connection, job.name):
            return
        keys = job.due(connection, now, _PAGE + len(held))
        wanted = [key for key in keys if key not in held]
        if wanted:
            queue_sql.enqueue_due(connection, job.name, wanted)
