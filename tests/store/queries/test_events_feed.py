# SPDX-License-Identifier: Apache-2.0
"""The feed of events on PostgreSQL: complete, in order, and held back only by writers of events.

TEST_FEED_EVENTS=100000 runs the long form.
"""

from __future__ import annotations

import os
import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor, wait
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.command import downgrade
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, Engine, column, insert, table

from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.store import migrate
from novitai.store.engine import postgresql_server
from novitai.store.engine.database import Database
from novitai.store.opening import open_database
from novitai.store.queries import events, instances
from novitai.testing import ManualClock, an_instance
from tests.services import PostgresqlServer

pytestmark = pytest.mark.postgresql

EVENTS = int(os.environ.get("TEST_FEED_EVENTS", "4000"))
WRITERS = 8
INSTANCE = "inst_1_feed"


def instance(connection: Connection) -> None:
    """Insert the instance that all events are about."""
    instances.insert(
        connection, an_instance(InstanceStatus.CREATING, id=INSTANCE, name="feed"), b"sealed"
    )


def append(connection: Connection, name: str, at: int = 0) -> None:
    """Append one event."""
    events.append(
        connection,
        event_id=name,
        instance_id=INSTANCE,
        event_type=EventType.CREATED,
        at=at,
        data={},
        actor=None,
    )


def given(connection: Connection, after: int = 0) -> list[str]:
    """List the IDs that the feed returns."""
    return [event.id for event in events.since(connection, after=after)]


@contextmanager
def writing_elsewhere(server: PostgresqlServer) -> Iterator[None]:
    """Keep open a transaction that has written in another database of the same server."""
    with server.database() as url, psycopg.connect(url) as other:
        other.execute("CREATE TABLE theirs AS SELECT 1 AS number")
        assert other.execute("SELECT pg_current_xact_id_if_assigned()").fetchone() != (None,)
        yield
        other.rollback()


@pytest.fixture
def engine(postgresql_database_url: str) -> Iterator[Engine]:
    """An engine without a pool limit on a migrated database with one instance."""
    made = postgresql_server.make_engine(postgresql_database_url, pool_size=2 * WRITERS)
    with made.begin() as connection:
        instance(connection)
    yield made
    made.dispose()


@pytest.fixture
def reader(engine: Engine) -> Iterator[Connection]:
    """A connection on which every statement has its own snapshot."""
    with engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        yield connection


def test_another_database_holds_nothing_back(
    engine: Engine, reader: Connection, postgresql_server: PostgresqlServer
) -> None:
    """A write transaction in another database of the server does not hold back events."""
    with writing_elsewhere(postgresql_server):
        with engine.begin() as connection:
            append(connection, "evt_1")
        assert given(reader) == ["evt_1"]
        assert events.held_back_since(reader) is None


def test_a_writer_without_events_holds_nothing_back(engine: Engine, reader: Connection) -> None:
    """A transaction that writes no events does not hold back events."""
    with engine.begin() as busy:
        busy.exec_driver_sql("INSERT INTO installation VALUES ('a', 'b')")
        with engine.begin() as connection:
            append(connection, "evt_1")
        assert given(reader) == ["evt_1"]


def test_a_lower_number_is_waited_for(engine: Engine, reader: Connection) -> None:
    """Events are held back while the transaction of a lower number is open, then all appear."""
    with engine.begin() as slow:
        append(slow, "evt_1", at=1)
        with engine.begin() as connection:
            append(connection, "evt_2", at=2)
        assert given(reader) == []
        assert events.latest(reader) == []
        assert events.held_back_since(reader) == 2
    assert given(reader) == ["evt_1", "evt_2"]
    assert [event.id for event in events.latest(reader)] == ["evt_2", "evt_1"]
    assert events.held_back_since(reader) is None


def test_a_younger_transaction_may_have_the_lower_number(
    engine: Engine, reader: Connection
) -> None:
    """A transaction that began to write last but drew the lower number also holds back events."""
    with engine.connect() as older, engine.connect() as younger:
        older.exec_driver_sql("INSERT INTO installation VALUES ('a', 'b')")
        younger.exec_driver_sql("INSERT INTO installation VALUES ('c', 'd')")
        append(younger, "evt_1")
        append(older, "evt_2")
        older.commit()
        assert given(reader) == []
        younger.commit()
    assert given(reader) == ["evt_1", "evt_2"]


@pytest.mark.parametrize("end", ["rollback", "close"])
def test_an_event_that_never_came_is_not_waited_for(
    engine: Engine, reader: Connection, end: str
) -> None:
    """A transaction that was rolled back, or whose connection closed, does not hold back events."""
    with engine.connect() as connection:
        append(connection, "evt_1")
        getattr(connection, end)()
    with engine.begin() as connection:
        append(connection, "evt_2")
    assert given(reader) == ["evt_2"]


def test_after_a_savepoint_was_undone(engine: Engine, reader: Connection) -> None:
    """After a savepoint with an event is rolled back, the next event takes the lock again."""
    with engine.begin() as connection:
        with connection.begin_nested() as savepoint:
            append(connection, "evt_undone")
            savepoint.rollback()
        append(connection, "evt_1")
        with engine.begin() as other:
            append(other, "evt_2")
        assert given(reader) == []
    assert given(reader) == ["evt_1", "evt_2"]


def test_many_events_are_one_lock(engine: Engine, reader: Connection) -> None:
    """A transaction takes one lock for all its events, because the server's locks are limited."""
    with engine.begin() as connection:
        for number in range(100):
            append(connection, f"evt_{number}")
        count = reader.exec_driver_sql(
            "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND database ="
            " (SELECT oid FROM pg_database WHERE datname = current_database())"
        ).scalar_one()
        assert count == 1


async def test_a_snapshot_is_refused(postgresql_database_url: str, clock: ManualClock) -> None:
    """The feed refuses a snapshot read, which would miss events."""
    database = await open_database(postgresql_database_url, clock)
    try:
        assert await database.read(given) == []
        with pytest.raises(RuntimeError, match="snapshot"):
            await database.read(given, snapshot=True)
    finally:
        await database.close()


async def test_the_embedded_store_holds_nothing_back(sqlite_database: Database) -> None:
    """On SQLite, which has one writer, all events appear at once."""

    def write(connection: Connection) -> None:
        instance(connection)
        append(connection, "evt_1")

    await sqlite_database.write(write)
    assert await sqlite_database.read(given, snapshot=True) == ["evt_1"]
    assert await sqlite_database.read(events.held_back_since) is None


def test_events_from_before_the_lock_are_kept(postgresql_url: str) -> None:
    """A database of the previous version keeps its events, and numbering continues after them."""
    script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    before = script.get_revision("0005").down_revision
    migrate.upgrade(postgresql_url, ManualClock())
    with closing(postgresql_server.connect(postgresql_url)) as connection:
        with connection.begin():
            instance(connection)
        downgrade(migrate.config(connection), str(before))
        with connection.begin():
            # With the columns of that version, as its code did.
            of_then = ("id", "instance_id", "type", "at", "data")
            values = ("evt_1", INSTANCE, EventType.CREATED.value, 0, "{}")
            event = dict(zip(of_then, values, strict=True))
            connection.execute(insert(table("events", *map(column, of_then))), event)
    migrate.upgrade(postgresql_url, ManualClock())
    with closing(postgresql_server.connect(postgresql_url)) as connection:
        with connection.begin():
            append(connection, "evt_2")
        assert given(connection) == ["evt_1", "evt_2"]


@pytest.mark.timeout(60 + EVENTS // 50)
def test_nothing_is_passed_over_and_nothing_comes_twice(
    engine: Engine, reader: Connection, postgresql_server: PostgresqlServer
) -> None:
    """A reader that continues from its last event misses none and sees none twice.

    Eight writers run large and small transactions and rollbacks, while other transactions are open.
    """
    share = EVENTS // WRITERS
    seen: list[str] = []
    with writing_elsewhere(postgresql_server), ThreadPoolExecutor(WRITERS) as pool:
        writing = [pool.submit(write, engine, writer, share) for writer in range(WRITERS)]
        after = 0
        while True:
            over = not wait(writing, timeout=0).not_done
            found = events.since(reader, after=after)
            if found:
                seen += [event.id for event in found]
                after = events.sequence_of(reader, found[-1].id) or 0
            elif over:
                break
        for one in writing:
            one.result()
    wanted = {f"evt_{writer}_{number}" for writer in range(WRITERS) for number in range(share)}
    assert len(seen) == len(set(seen))
    assert set(seen) == wanted


def write(engine: Engine, writer: int, share: int) -> None:
    """Write `share` events in transactions of several sizes, and roll some of them back."""
    draw = random.Random(writer)
    done = 0
    while done < share:
        size = min(draw.choice([1, 1, 2, 5, 40]), share - done)
        undo = draw.random() < 0.1
        with engine.connect() as connection:
            if draw.random() < 0.5:  # some get a transaction ID before they draw a number
                connection.exec_driver_sql("SELECT pg_current_xact_id()")
            for number in range(done, done + size):
                append(connection, f"evt_{writer}_{number}")
            end: Callable[[], None] = connection.rollback if undo else connection.commit
            end()
        done += 0 if undo else size
