# SPDX-License-Identifier: Apache-2.0
"""A worker's connection to PgQueuer, which is replaced when it is lost.

PgQueuer picks jobs and this module offers their keys to the dispatcher; a job ends when the run of
its key ends. The dispatcher runs the handlers, so losing the connection does not interrupt them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import KW_ONLY, dataclass
from datetime import timedelta
from typing import Final

import asyncpg
import structlog
from pgqueuer.adapters.drivers.asyncpg import AsyncpgDriver
from pgqueuer.adapters.persistence.qb import (
    QueryBuilderEnvironment,
    QueryQueueBuilder,
    QuerySchedulerBuilder,
)
from pgqueuer.adapters.persistence.queries import Queries
from pgqueuer.core.qm import QueueManager
from pgqueuer.domain.models import Job
from pgqueuer.domain.settings import DBSettings
from pgqueuer.domain.types import Channel, QueueEntrypoint
from pgqueuer.ports.driver import NotifyCallback

from novitai.clock import Clock
from novitai.ids import Ids
from novitai.jobs.dispatcher import Dispatcher
from novitai.jobs.supervision import Loop
from novitai.jobs.waiting import cancel
from novitai.postgresql_url import resolve
from novitai.settings import ArgumentsOnly

BATCH: Final = 25
_DEQUEUE_TIMEOUT: Final = timedelta(seconds=1)
_HEARTBEAT_TIMEOUT: Final = timedelta(seconds=5)
_APPLICATION: Final = "novitai worker"
_CLOSE_SECONDS: Final = 2.0
_LOOK_AT_CONNECTION_SECONDS: Final = 1.0
_FIRST_PAUSE_SECONDS: Final = 0.05
_LONGEST_PAUSE_SECONDS: Final = 0.5
_LONG_LIFE_SECONDS: Final = 5.0

_log: Final = structlog.get_logger(__name__)


class _Names(ArgumentsOnly, DBSettings):
    """PgQueuer's default names; it would otherwise read environment variables such as CHANNEL."""


NAMES: Final[DBSettings] = _Names()


@dataclass
class _Manager(QueueManager):
    """Picks only jobs of types that have room, so that a busy type does not block the others."""

    _: KW_ONLY
    has_room: Callable[[str], bool]

    def entrypoints_below_capacity_limits(self) -> set[QueueEntrypoint]:
        return {name for name in self.entrypoint_registry if self.has_room(name)}


class _Driver(AsyncpgDriver):
    """Notes a statement that fails. PgQueuer then ends, but only after all running jobs."""

    def __init__(self, connection: asyncpg.Connection, failed: asyncio.Event) -> None:
        super().__init__(connection)
        self._failed = failed

    async def fetch(self, query: str, *args: object) -> list[dict[str, object]]:
        """Run a query and return its rows."""
        with self._noting():
            return await super().fetch(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        """Run a statement."""
        with self._noting():
            return await super().execute(query, *args)

    async def add_listener(self, channel: str, callback: NotifyCallback) -> None:
        """Listen on a channel."""
        with self._noting():
            await super().add_listener(channel, callback)

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except Exception:  # PgQueuer ends by any error
            self._failed.set()
            raise


class Consumer:
    """Offers PgQueuer's jobs to the dispatcher from `start` until `stop`."""

    def __init__(
        self,
        url: str,
        dispatcher: Dispatcher,
        clock: Clock,
        ids: Ids,
        *,
        command_timeout: float,
    ) -> None:
        """Prepare the consumer.

        Args:
            url: The database, as `postgresql://...`.
            dispatcher: Runs the picked keys.
            clock: The clock of the pauses between two connections.
            ids: The source of jitter for these pauses.
            command_timeout: Seconds without an answer after which a connection is replaced.

        Raises:
            UrlError: the URL cannot be used.
        """
        self._where = resolve(url).for_asyncpg(_APPLICATION)
        self._command_timeout = command_timeout
        self._dispatcher = dispatcher
        self._clock = clock
        self._ids = ids
        self._stopping = asyncio.Event()
        self._manager: _Manager | None = None
        self._driver: AsyncpgDriver | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> Loop:
        """Connect, and reconnect after each loss; return the task that runs until `stop`."""
        self._stopping.clear()
        self._task = asyncio.create_task(self._supervise(), name="jobs-consumer")
        return self._task

    def close_intake(self) -> None:
        """Pick no more jobs; picked jobs end with their runs."""
        self._stopping.set()
        if self._manager is not None:
            self._manager.shutdown.set()

    async def stop(self) -> None:
        """Close the connection; call it after the dispatcher has stopped."""
        self.close_intake()
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=_CLOSE_SECONDS)
        await cancel(self._task)

    async def ping(self) -> bool:
        """Whether the server answers on the connection that jobs are picked over."""
        driver = self._driver
        if driver is None:
            return False
        try:
            async with asyncio.timeout(self._command_timeout):
                await driver.fetch("SELECT 1")
        except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            return False
        return True

    async def _supervise(self) -> None:
        pause = _FIRST_PAUSE_SECONDS
        down = False
        while not self._stopping.is_set():
            began = self._clock.monotonic()
            try:
                await self._live()
            except Exception:  # any error of the network or PgQueuer; reconnect
                if not down:
                    _log.warning("queue_lost", exc_info=True)
                down = True
            if self._clock.monotonic() - began > _LONG_LIFE_SECONDS:
                down, pause = False, _FIRST_PAUSE_SECONDS
            if not self._stopping.is_set():
                await self._clock.sleep(self._ids.jitter(pause))
            pause = min(_LONGEST_PAUSE_SECONDS, 2 * pause)

    async def _live(self) -> None:
        """Consume over one connection until the consumer stops.

        Raises:
            Exception: the exception of asyncpg or PgQueuer, if connecting failed or the connection
                was lost.
        """
        connection = await asyncpg.connect(**self._where, command_timeout=self._command_timeout)
        broken = asyncio.Event()  # of this connection alone: tasks of the one before may still fail
        connection.add_termination_listener(lambda _: broken.set())
        self._driver = _Driver(connection, broken)
        self._manager = self._build(self._driver)
        run = asyncio.create_task(self._consume(self._manager), name="jobs-pgqueuer")
        lost = asyncio.create_task(self._until_lost(connection, self._manager, broken))
        try:
            await asyncio.wait({run, lost}, return_when=asyncio.FIRST_COMPLETED)
            if not run.done():
                raise ConnectionError("the queue was lost")
            await run
        finally:
            self._driver = None
            await cancel(lost)
            await self._end(run, connection)

    async def _until_lost(
        self, connection: asyncpg.Connection, manager: _Manager, broken: asyncio.Event
    ) -> None:
        """Wait until the connection is closed, a statement failed, or PgQueuer gives up.

        asyncpg does not call its listeners if the connection ended by an error of the protocol, for
        example if the server closed it in the middle of a message.
        """
        while not (connection.is_closed() or broken.is_set() or self._gave_up(manager)):
            with suppress(TimeoutError):
                async with asyncio.timeout(_LOOK_AT_CONNECTION_SECONDS):
                    await broken.wait()

    def _gave_up(self, manager: _Manager) -> bool:
        """Whether PgQueuer ends by itself, because it no longer hears notifications."""
        return manager.shutdown.is_set() and not self._stopping.is_set()

    async def _consume(self, manager: _Manager) -> None:
        if self._stopping.is_set():
            return
        jobs = self._dispatcher.jobs
        await manager.run(
            dequeue_timeout=_DEQUEUE_TIMEOUT,
            batch_size=BATCH,
            max_concurrent_tasks=sum(job.concurrency + 3 * BATCH for job in jobs),
            shutdown_on_listener_failure=True,
            heartbeat_timeout=_HEARTBEAT_TIMEOUT,
            log_aggregation_interval=timedelta(0),
        )

    async def _end(self, run: asyncio.Task[None], connection: asyncpg.Connection) -> None:
        """End PgQueuer's task and close the connection, even if it is broken."""
        if not run.done():
            connection.terminate()
        with suppress(TimeoutError):
            async with asyncio.timeout(_CLOSE_SECONDS):
                # Cancel repeatedly: PgQueuer waits for its jobs when it ends, and they wait for
                # runs that continue in the dispatcher.
                while not run.done():
                    run.cancel()
                    await asyncio.wait({run}, timeout=0.05)
        with suppress(OSError, asyncpg.PostgresError, asyncpg.InterfaceError, TimeoutError):
            await connection.close(timeout=_CLOSE_SECONDS)

    def _build(self, driver: AsyncpgDriver) -> _Manager:
        queries = Queries(
            driver,
            QueryBuilderEnvironment(NAMES),
            QueryQueueBuilder(NAMES),
            QuerySchedulerBuilder(NAMES),
        )
        manager = _Manager(queries, Channel(NAMES.channel), has_room=self._has_room)
        for job in self._dispatcher.jobs:
            manager.entrypoint(job.name, accepts_context=False)(self._relay)
        return manager

    async def _relay(self, job: Job) -> None:
        name, key = str(job.entrypoint), (job.payload or b"").decode()
        self._dispatcher.offer(name, key, swept=job.headers is not None)
        await self._dispatcher.ended(name, key)

    def _has_room(self, name: str) -> bool:
        # One batch may wait in the dispatcher, so that a new run starts as soon as one ends.
        return self._dispatcher.load(name) < self._dispatcher.concurrency(name) + BATCH
