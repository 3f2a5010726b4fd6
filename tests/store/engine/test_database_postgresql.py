# SPDX-License-Identifier: Apache-2.0
"""Promises of the PostgreSQL store alone: lost connections, deadlocks, unknown commits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql
from sqlalchemy import Connection, select, update
from sqlalchemy.exc import DBAPIError, IntegrityError

from novitai.store.engine import postgresql
from novitai.store.engine.database import Database
from novitai.store.engine.errors import CommitUnknown, StoreBusy, StoreUnavailable
from novitai.store.opening import open_database
from novitai.store.tables import installation
from novitai.testing import ManualClock
from tests.services import PostgresqlServer
from tests.store.transactions import Gate, names, put

pytestmark = pytest.mark.postgresql


@pytest.fixture
async def shared(postgresql_database_url: str, clock: ManualClock) -> AsyncIterator[Database]:
    """A migrated, empty database on PostgreSQL."""
    opened = await open_database(postgresql_database_url, clock)
    yield opened
    await opened.close()


@pytest.fixture
def break_connections(
    postgresql_server: PostgresqlServer, postgresql_database_url: str
) -> Callable[[], None]:
    """Return a function that ends every connection to the database, as a server restart does."""
    name = urlsplit(postgresql_database_url).path[1:]

    def fn() -> None:
        with psycopg.connect(postgresql_server.url, autocommit=True) as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s",
                (name,),
            )

    return fn


def statements(*lines: str) -> Callable[[Connection], None]:
    """Run statements."""

    def fn(connection: Connection) -> None:
        for line in lines:
            connection.exec_driver_sql(line)

    return fn


async def test_broken_between(shared: Database, break_connections: Callable[[], None]) -> None:
    """After a server restart, the next calls succeed on all pooled connections."""
    await asyncio.gather(*(shared.write(put(str(n))) for n in range(10)))
    await asyncio.gather(*(shared.read(names) for _ in range(10)))
    break_connections()
    await asyncio.gather(*(shared.read(names) for _ in range(10)))
    await asyncio.gather(*(shared.write(put(str(n))) for n in range(10, 20)))
    assert len(await shared.read(names)) == 20


async def test_broken_during(shared: Database, break_connections: Callable[[], None]) -> None:
    """A write whose connection breaks before COMMIT is retried and stored once."""
    tries: list[str] = []
    heard: list[str] = []

    def fn(connection: Connection) -> None:
        put("a")(connection)
        shared.after_commit(connection, lambda: heard.append("once"))
        tries.append("try")
        if len(tries) == 1:
            break_connections()
        put("b")(connection)

    await shared.write(fn)
    assert len(tries) == 2
    assert await shared.read(names) == ["a", "b"]
    assert heard == ["once"]


async def test_broken_again_and_again(
    shared: Database, break_connections: Callable[[], None]
) -> None:
    """A write whose connection breaks on every try fails with `StoreUnavailable`."""

    def fn(connection: Connection) -> None:
        put("a")(connection)
        break_connections()
        put("b")(connection)

    with pytest.raises(StoreUnavailable):
        await shared.write(fn)
    assert await shared.read(names) == []


async def test_broken_read(shared: Database, break_connections: Callable[[], None]) -> None:
    """A read whose connection breaks fails with `StoreUnavailable`; the next one succeeds."""

    def fn(connection: Connection) -> list[str]:
        break_connections()
        return names(connection)

    with pytest.raises(StoreUnavailable):
        await shared.read(fn)
    assert await shared.read(names) == []


async def test_unknown_commit(shared: Database) -> None:
    """A write whose connection breaks during COMMIT fails as unknown and is not retried."""
    await shared.write(
        statements(
            "CREATE FUNCTION hang_up() RETURNS trigger LANGUAGE plpgsql AS"
            " $$ BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END $$",
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON installation"
            " DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION hang_up()",
        )
    )
    tries: list[str] = []

    def fn(connection: Connection) -> None:
        tries.append("try")
        put("a")(connection)

    with pytest.raises(CommitUnknown):
        await shared.write(fn)
    assert tries == ["try"]
    await shared.write(statements("DROP TRIGGER at_commit ON installation"))
    await shared.write(put("b"))


async def test_refused_commit(shared: Database) -> None:
    """If the server refuses COMMIT, the write fails with the server's error and stores nothing."""
    await shared.write(
        statements(
            "CREATE TABLE parent (id int PRIMARY KEY)",
            "CREATE TABLE child (id int REFERENCES parent (id) DEFERRABLE INITIALLY DEFERRED)",
        )
    )

    def fn(connection: Connection) -> None:
        put("a")(connection)
        connection.exec_driver_sql("INSERT INTO child VALUES (1)")

    with pytest.raises(IntegrityError):
        await shared.write(fn)
    assert await shared.read(names) == []


async def test_deadlock(shared: Database) -> None:
    """Two writes that deadlock both succeed in the end."""
    await shared.write(put("a"))
    await shared.write(put("b"))
    first, second = Gate(), Gate()

    def locking(gate: Gate, *order: str) -> Callable[[Connection], None]:
        def fn(connection: Connection) -> None:
            for name in order:
                connection.execute(
                    update(installation)
                    .where(installation.c.name == name)
                    .values(value=installation.c.value + "x")
                )
                if name == order[0]:
                    gate(connection)

        return fn

    both = asyncio.gather(
        shared.write(locking(first, "a", "b")), shared.write(locking(second, "b", "a"))
    )
    await asyncio.to_thread(first.entered.wait)
    await asyncio.to_thread(second.entered.wait)
    first.open()
    second.open()
    await both
    values = await shared.read(
        lambda connection: connection.scalars(
            select(installation.c.value).where(installation.c.name.in_(["a", "b"]))
        ).all()
    )
    assert values == ["xx", "xx"]


async def test_swallowed_error(shared: Database) -> None:
    """A function that continues after an SQL error fails: COMMIT would silently store nothing."""

    def fn(connection: Connection) -> None:
        put("a")(connection)
        with contextlib.suppress(DBAPIError):
            connection.exec_driver_sql("SELECT nonsense")

    with pytest.raises(RuntimeError, match="continued after an SQL error"):
        await shared.write(fn)
    assert await shared.read(names) == []


async def test_locked(
    postgresql_database_url: str,
    clock: ManualClock,
    gate: Gate,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A write that waits too long for a lock fails with `StoreBusy`."""
    monkeypatch.setattr(postgresql, "_TIMEOUTS", ("lock_timeout = 10",))
    database = await open_database(postgresql_database_url, clock)

    def holds(connection: Connection) -> None:
        put("a")(connection)
        gate(connection)

    try:
        holding = asyncio.create_task(database.write(holds))
        await asyncio.to_thread(gate.entered.wait)
        with pytest.raises(StoreBusy):
            await database.write(put("a"))
        gate.open()
        await holding
    finally:
        gate.open()
        await database.close()


async def test_server_away(
    shared: Database,
    postgresql_server: PostgresqlServer,
    postgresql_database_url: str,
    break_connections: Callable[[], None],
) -> None:
    """While the server refuses connections, every call fails; afterwards calls succeed."""
    name = sql.Identifier(urlsplit(postgresql_database_url).path[1:])
    allow = sql.SQL("ALTER DATABASE {} WITH ALLOW_CONNECTIONS {}")
    with psycopg.connect(postgresql_server.url, autocommit=True) as admin:
        admin.execute(allow.format(name, sql.SQL("false")))
        break_connections()
        with pytest.raises(StoreUnavailable) as caught:
            await shared.write(put("a"))
        assert caught.value.retryable
        with pytest.raises(StoreUnavailable):
            await shared.ping()
        admin.execute(allow.format(name, sql.SQL("true")))
    await shared.ping()
    await shared.write(put("b"))
    assert await shared.read(names) == ["b"]


async def test_read_only_and_back(
    shared: Database,
    postgresql_server: PostgresqlServer,
    postgresql_database_url: str,
    break_connections: Callable[[], None],
) -> None:
    """Writes fail while the database is read-only, and succeed as soon as it is writable."""
    name = sql.Identifier(urlsplit(postgresql_database_url).path[1:])
    await shared.write(put("a"))
    with psycopg.connect(postgresql_server.url, autocommit=True) as admin:
        change = sql.SQL("ALTER DATABASE {} {} default_transaction_read_only{}")
        admin.execute(change.format(name, sql.SQL("SET"), sql.SQL(" = on")))
        break_connections()
        for _ in range(2 * postgresql.THREADS):
            with pytest.raises(StoreUnavailable, match="accepts no writes"):
                await shared.write(put("b"))
        assert await shared.read(names) == ["a"]
        admin.execute(change.format(name, sql.SQL("RESET"), sql.SQL("")))
    await asyncio.gather(*(shared.write(put(f"c{number}")) for number in range(10)))


async def test_turned_read_only(shared: Database, clock: ManualClock) -> None:
    """All connections are replaced when one has become read-only, as after a failover.

    Read connections too: they lead to the same server, which lags behind the new primary.
    """

    def turn(connection: Connection) -> None:
        connection.exec_driver_sql("SET default_transaction_read_only = on")

    def process(connection: Connection) -> int:
        return int(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())

    before = {await shared.read(process) for _ in range(20)}
    for round_number in range(2):
        await asyncio.gather(*(shared.write(turn) for _ in range(20)))
        await asyncio.gather(*(shared.write(put(f"{round_number}.{n}")) for n in range(20)))
        after = {await shared.read(process) for _ in range(20)}
        assert not before & after
        before = after
        await clock.advance(postgresql.RENEW_SECONDS)
    assert len(await shared.read(names)) == 40


async def test_settings(shared: Database) -> None:
    """Writes are READ COMMITTED, reads are read-only, and an idle transaction ends.

    That of a write ends soon, because it may hold locks; a long report pauses between its rows.
    """

    def settings(connection: Connection) -> list[str]:
        return [
            str(connection.exec_driver_sql(f"SHOW {name}").scalar_one())
            for name in (
                "transaction_isolation",
                "default_transaction_read_only",
                "idle_in_transaction_session_timeout",
                "lock_timeout",
                "application_name",
            )
        ]

    assert await shared.write(settings) == ["read committed", "off", "4s", "10s", "novitai"]
    rest = ["1min", "10s", "novitai"]
    assert await shared.read(settings) == ["read committed", "on", *rest]
    assert await shared.read(settings, snapshot=True) == ["repeatable read", "on", *rest]


async def test_a_pooled_transaction_has_its_deadlines(
    postgresql_database_url: str, clock: ManualClock
) -> None:
    """Behind a pooler each transaction sets them for itself."""

    def idle(connection: Connection) -> str:
        shown = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout")
        return str(shown.scalar_one())

    direct = f"{postgresql_database_url}?connect_timeout=9"
    pooled = postgresql.PostgresqlDatabase(postgresql_database_url, clock, direct_url=direct)
    try:
        assert await pooled.write(idle) == "4s"
        assert await pooled.read(idle, snapshot=True) == "1min"
        assert await pooled.read(idle) not in {"4s", "1min"}
    finally:
        await pooled.close()


async def test_a_transaction_that_stands_still_keeps_no_lock(
    shared: Database,
    postgresql_database_url: str,
    clock: ManualClock,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """What waits for the locks of a frozen process goes on; once thawed, it writes again."""
    monkeypatch.setattr(postgresql, "_TIMEOUTS", ("idle_in_transaction_session_timeout = 100",))
    await shared.write(put("row", "0"))
    gate, tries = Gate(), []

    def freeze(connection: Connection) -> None:
        tries.append("frozen")
        add(connection)
        if len(tries) == 1:
            gate(connection)

    def add(connection: Connection) -> None:
        column = installation.c.value
        connection.execute(update(installation).values(value=column + "1").where(column != ""))

    frozen_database = await open_database(postgresql_database_url, clock)
    try:
        frozen = asyncio.create_task(frozen_database.write(freeze))
        await asyncio.to_thread(gate.entered.wait, 30)
        await shared.write(add)
        assert not frozen.done()
        gate.open()
        await frozen
    finally:
        gate.open()
        await frozen_database.close()
    assert len(tries) == 2
    found = await shared.read(
        lambda c: (
            c.execute(select(installation.c.value).where(installation.c.name == "row"))
            .scalars()
            .one()
        )
    )
    assert found == "011"
