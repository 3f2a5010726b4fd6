# SPDX-License-Identifier: Apache-2.0
"""A moment changes with each commit, of whichever process, and with nothing else."""

from __future__ import annotations

import asyncio
import sqlite3
from functools import partial

import psycopg
import pytest

from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.engine.moments import Moment
from novitai.store.queries import coordination


async def moment(database: Database) -> Moment:
    """Ask in a new turn of the event loop."""
    await asyncio.sleep(0)
    at_once = database.moment_at_once()
    return await database.moment() if at_once is None else at_once


async def test_a_commit_makes_a_new_moment(database: Database) -> None:
    """Writes of this process change the moment."""
    before = await moment(database)
    await database.write(partial(coordination.set_value, name="a", text="b"))
    after = await moment(database)
    assert after != before
    assert after.session == before.session


async def test_nothing_written_is_the_same_moment(sqlite_database: Database) -> None:
    """A read, and a write that is rolled back, leave the moment as it is."""

    def fail(connection: object) -> None:
        raise ValueError("no")

    before = await moment(sqlite_database)
    await sqlite_database.read(partial(coordination.value, name="a"))
    with pytest.raises(ValueError, match="no"):
        await sqlite_database.write(fail)
    assert await moment(sqlite_database) == before


async def test_a_commit_of_another_process_makes_a_new_moment(
    database: Database, database_url: str
) -> None:
    """Other programs on the same database count too."""
    before = await moment(database)
    statement = "INSERT INTO installation VALUES ('other', 'x')"
    if database_url.startswith("sqlite"):
        other = sqlite3.connect(database_url.removeprefix("sqlite:///"), isolation_level=None)
        other.execute(statement)
        other.close()
    else:
        with psycopg.connect(database_url, autocommit=True) as server:
            server.execute(statement)
    assert await moment(database) != before


@pytest.mark.postgresql
@pytest.mark.parametrize("database_url", ["postgresql"], indirect=True)
async def test_a_lost_connection_begins_a_new_session(
    database: Database, database_url: str
) -> None:
    """Moments before and after a lost connection are never equal, and no question fails."""
    before = await moment(database)
    with psycopg.connect(database_url, autocommit=True) as admin:
        admin.execute(
            "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
    after = await moment(database)
    assert after.session == before.session + 1


async def test_a_closed_database_tells_no_moment(database: Database) -> None:
    """After the end, asking fails instead of opening the database again."""
    await moment(database)
    await database.close()
    await asyncio.sleep(0)
    with pytest.raises(StoreUnavailable):
        await database.moment()
