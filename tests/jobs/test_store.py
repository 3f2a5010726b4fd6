# SPDX-License-Identifier: Apache-2.0
"""The engines with the real store's transactions and callbacks."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

import pytest
from sqlalchemy import Connection

from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.jobs.postgresql import PostgresqlEngine
from novitai.jobs.upkeep import Presence
from novitai.store.opening import open_database
from novitai.store.queries import coordination
from novitai.testing import ManualClock

if TYPE_CHECKING:
    from collections.abc import Callable

    from novitai.jobs.port import JobEngine
    from novitai.store.engine.database import Database


def nothing(connection: Connection, now: int, limit: int) -> Sequence[str]:
    """Return no due rows, so that only a nudge can cause a run."""
    return []


def nudging(engine: JobEngine, key: str) -> Callable[[Connection], None]:
    """Return a transaction function that nudges a key."""

    def fn(connection: Connection) -> None:
        engine.nudge(connection, "create_instance", key)

    return fn


def failing(engine: JobEngine, key: str) -> Callable[[Connection], None]:
    """Return a transaction function that nudges a key and then raises."""

    def fn(connection: Connection) -> None:
        engine.nudge(connection, "create_instance", key)
        raise ArithmeticError

    return fn


async def committed_nudges_alone_run(engine: JobEngine, database: Database) -> None:
    """Check that a nudge runs its key only if its transaction commits."""
    ran: asyncio.Queue[str] = asyncio.Queue()

    async def handler(key: str) -> None:
        await ran.put(key)

    engine.register("create_instance", handler, due=nothing, concurrency=2)
    await engine.start()
    try:
        with pytest.raises(ArithmeticError):
            await database.write(failing(engine, "op_1"))
        await database.write(nudging(engine, "op_2"))
        assert await asyncio.wait_for(ran.get(), 60) == "op_2"
        assert ran.empty()
    finally:
        await engine.stop(1)


async def test_the_embedded_engine_runs_over_the_store(
    database: Database, clock: ManualClock
) -> None:
    """A nudge inside the store's transaction runs its key if and only if that commits."""
    await committed_nudges_alone_run(EmbeddedEngine(database, clock, Ids()), database)


@pytest.mark.postgresql
async def test_the_engine_on_postgresql_runs_over_the_store(postgresql_database_url: str) -> None:
    """The queue uses the store's transactions, and the store records the engine's worker."""
    clock = SystemClock()
    database = await open_database(postgresql_database_url, clock)
    try:
        presence = Presence(coordination.note_worker, coordination.worker_seen_at)
        engine = PostgresqlEngine(
            database, postgresql_database_url, clock, Ids(), presence=presence
        )
        await committed_nudges_alone_run(engine, database)
        assert clock.now() - await engine.last_seen() < 30_000
    finally:
        await database.close()
