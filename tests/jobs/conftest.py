# SPDX-License-Identifier: Apache-2.0
"""Fixtures for both job engines on a table of rows that become due."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, MutableMapping
from typing import TYPE_CHECKING, Any

import pytest
import sqlalchemy as sa
import structlog.testing
from sqlalchemy.pool import StaticPool

from novitai.clock import SystemClock
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.store import migrate
from novitai.testing import ManualClock
from tests.jobs.rig import (
    EngineFactory,
    Rig,
    Transactions,
    build_postgresql_engine,
    metadata,
    psycopg_url,
)

if TYPE_CHECKING:
    from tests.services import PostgresqlServer


@pytest.fixture(autouse=True)
def logged() -> Iterator[list[MutableMapping[str, Any]]]:
    """The captured log, so that tracebacks are not printed."""
    with structlog.testing.capture_logs() as lines:
        yield lines


@pytest.fixture(scope="session")
def _jobs_database(_postgresql_server_or_reason: PostgresqlServer | str) -> Iterator[str]:
    """The URL of a database for these tests; empty if there is no server."""
    if isinstance(_postgresql_server_or_reason, str):
        yield ""
        return
    with _postgresql_server_or_reason.database() as url:
        engine = sa.create_engine(psycopg_url(url))
        migrate.upgrade(url, ManualClock())
        metadata.create_all(engine)
        engine.dispose()
        yield url


@pytest.fixture
def jobs_url(postgresql_server: PostgresqlServer, _jobs_database: str) -> str:
    """The URL of a database with the tables of the queue and of workers, all empty."""
    engine = sa.create_engine(psycopg_url(_jobs_database))
    with engine.begin() as connection:
        connection.exec_driver_sql("TRUNCATE pgqueuer, pgqueuer_log, rows, workers")
    engine.dispose()
    return _jobs_database


@pytest.fixture
async def embedded() -> AsyncIterator[Rig]:
    """The embedded engine in virtual time."""
    engine = sa.create_engine("sqlite://", poolclass=StaticPool)
    metadata.create_all(engine)
    database = Transactions(engine, threads=False)
    clock = ManualClock()
    rig = Rig(
        database,
        clock,
        lambda interval: EmbeddedEngine(database, clock, Ids(), sweep_interval=interval),
    )
    yield rig
    await rig.close()
    database.close()


@pytest.fixture
async def postgresql(jobs_url: str) -> AsyncIterator[Rig]:
    """The engine on PostgreSQL in real time."""
    engine = sa.create_engine(psycopg_url(jobs_url), pool_pre_ping=True)
    database = Transactions(engine, threads=True)
    clock = SystemClock()
    rig = Rig(
        database, clock, lambda interval: build_postgresql_engine(database, jobs_url, interval)
    )
    rig.url = jobs_url
    yield rig
    await rig.close()
    database.close()


@pytest.fixture
def postgresql_engine() -> EngineFactory:
    """Return a function that builds further engines on PostgreSQL."""
    return build_postgresql_engine


@pytest.fixture(params=["embedded", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def rig(request: pytest.FixtureRequest) -> Rig:
    """Each engine in turn."""
    found: Rig = request.getfixturevalue(request.param)
    return found
