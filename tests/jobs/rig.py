# SPDX-License-Identifier: Apache-2.0
"""A table of rows that become due, and both engines on it behind one interface."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import sqlalchemy as sa

from novitai.clock import Clock, SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.port import Due, Handler
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.jobs.upkeep import Presence
from novitai.store.queries import coordination
from novitai.testing import ManualClock

T = TypeVar("T")


metadata = sa.MetaData()


rows = sa.Table(
    "rows",
    metadata,
    sa.Column("name", sa.String, primary_key=True),
    sa.Column("key", sa.String, primary_key=True),
    sa.Column("next_step_at", sa.BigInteger),
)


class Transactions:
    """The engine's `Transactions`: run inline for SQLite, on threads for PostgreSQL."""

    def __init__(self, engine: sa.Engine, *, threads: bool) -> None:
        self.engine = engine
        self.broken = False
        self._threads = ThreadPoolExecutor(8) if threads else None

    def close(self) -> None:
        """Wait for running threads and close the connections."""
        if self._threads is not None:
            self._threads.shutdown()
        self.engine.dispose()

    async def read(self, fn: Callable[[sa.Connection], T]) -> T:
        return await self.write(fn)

    async def write(self, fn: Callable[[sa.Connection], T]) -> T:
        if self.broken:
            raise ConnectionError("the database is away")
        callbacks: list[Callable[[], None]] = []
        if self._threads is None:
            result = self._transact(fn, callbacks)
        else:
            loop = asyncio.get_running_loop()
            result = await loop.run_in_executor(self._threads, self._transact, fn, callbacks)
        for callback in callbacks:
            callback()
        return result

    def after_commit(self, connection: sa.Connection, callback: Callable[[], None]) -> None:
        connection.info["callbacks"].append(callback)

    def _transact(self, fn: Callable[[sa.Connection], T], callbacks: list[Callable[[], None]]) -> T:
        with self.engine.begin() as connection:
            connection.info["callbacks"] = callbacks
            return fn(connection)


Engine = EmbeddedEngine | PostgresqlEngine


class Rig:
    """An engine with its rows, and helpers that wait for its runs."""

    def __init__(
        self, database: Transactions, clock: Clock, build: Callable[[float], Engine]
    ) -> None:
        self.database = database
        self.clock = clock
        self.engine = build(0.2)
        self.runs: list[tuple[str, str]] = []
        self.url = ""
        self._build = build
        self._started: list[Engine] = []

    def replace(self, engine: Engine) -> None:
        """Use this engine instead of the previous one."""
        self.engine = engine

    def rebuild(self, sweep_interval: float = 0.2) -> Engine:
        """Create a new engine and use it instead of the previous one."""
        self.engine = self._build(sweep_interval)
        return self.engine

    def register(self, name: str, handler: Handler | None = None, *, concurrency: int = 4) -> None:
        """Register a handler; the default one records the run and makes the row done."""

        async def settle(key: str) -> None:
            self.runs.append((name, key))
            await self.done(name, key)

        self.engine.register(
            name, handler or settle, due=self.due_of(name), concurrency=concurrency
        )

    @staticmethod
    async def never(key: str) -> None:
        """Fail, because this handler is not to be called."""
        raise AssertionError(key)

    @staticmethod
    def due_of(name: str) -> Due:
        """Return the query for the due rows of one name."""

        def due(connection: sa.Connection, now: int, limit: int) -> Sequence[str]:
            query = (
                sa.select(rows.c.key)
                .where(rows.c.name == name, rows.c.next_step_at <= now)
                .order_by(rows.c.next_step_at)
                .limit(limit)
            )
            return connection.execute(query).scalars().all()

        return due

    async def start(self) -> None:
        """Start the engine; the end of the test stops it."""
        self._started.append(self.engine)
        await self.engine.start()

    async def nudge(self, name: str, *keys: str) -> None:
        """Nudge keys in one committed transaction."""

        def fn(connection: sa.Connection) -> None:
            for key in keys:
                self.engine.nudge(connection, name, key)

        await self.database.write(fn)

    async def due(self, name: str, *keys: str) -> None:
        """Add rows that have been due for a second."""
        at = self.clock.now() - 1000
        values = [{"name": name, "key": key, "next_step_at": at} for key in keys]
        await self.database.write(lambda connection: connection.execute(rows.insert(), values))

    async def done(self, name: str, key: str) -> None:
        """Delete a due row."""
        statement = rows.delete().where(rows.c.name == name, rows.c.key == key)
        await self.database.write(lambda connection: connection.execute(statement))

    async def execute(self, statement: str) -> None:
        """Run a statement in its own transaction."""
        await self.database.write(lambda connection: connection.execute(sa.text(statement)))

    async def scalar(self, query: str) -> object:
        """Return the single value of a query."""
        return await self.database.read(lambda connection: connection.scalar(sa.text(query)))

    async def advance(self, seconds: float) -> None:
        """Advance virtual time in small steps, letting all tasks settle after each step."""
        assert isinstance(self.clock, ManualClock)
        await self.clock.advance(0)
        end = self.clock.monotonic() + seconds
        while (left := end - self.clock.monotonic()) > 1e-9:
            await self.clock.advance(min(0.05, left))

    async def beat(self, worker: str, now: int) -> None:
        """Record that a worker was seen at `now`."""

        def fn(connection: sa.Connection) -> None:
            coordination.note_worker(connection, worker, started_at=now, now=now)

        await self.database.write(fn)

    async def until(self, predicate: Callable[[], bool | Awaitable[bool]]) -> None:
        """Let the engine work until the predicate holds: virtual time, or real with a deadline."""
        deadline = time.monotonic() + 60
        while True:
            holds = predicate()
            if not isinstance(holds, bool):
                holds = await holds
            if holds:
                return
            assert time.monotonic() < deadline, "the predicate did not hold in time"
            if isinstance(self.clock, ManualClock):
                await self.clock.advance(0.01)
            else:
                await asyncio.sleep(0.01)

    async def close(self) -> None:
        """Stop the started engines."""
        for engine in self._started:
            await engine.stop(0)


def psycopg_url(url: str) -> str:
    """Add the driver of these tests to a URL."""
    return url.replace("postgresql://", "postgresql+psycopg://")


def build_postgresql_engine(
    database: Transactions, url: str, interval: float = 0.2, command_timeout: float = 10
) -> PostgresqlEngine:
    """Build an engine that records its presence in the `workers` table of these tests."""
    return PostgresqlEngine(
        database,
        url,
        SystemClock(),
        Ids(),
        presence=Presence(coordination.note_worker, coordination.worker_seen_at),
        sweep_interval=interval,
        presence_interval=0.1,
        command_timeout=command_timeout,
    )


EngineFactory = Callable[..., PostgresqlEngine]
