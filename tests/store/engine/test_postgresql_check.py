# SPDX-License-Identifier: Apache-2.0
"""A PostgreSQL server that does not meet the requirements is refused at start with a message."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg import sql

from novitai.errors import StartupError
from novitai.store import migrate
from novitai.store.engine import postgresql_check
from novitai.store.opening import open_database
from novitai.testing import ManualClock
from tests.pooler import pgbouncer
from tests.services import PostgresqlServer
from tests.store.transactions import names, put, put_and_fail

pytestmark = pytest.mark.postgresql

CLOCK = ManualClock()


async def refusal(url: str) -> str:
    """Open the database, which must fail, and return the message."""
    with pytest.raises(StartupError) as caught:
        await open_database(url, CLOCK)
    assert caught.value.exit_code in {75, 78}
    return str(caught.value)


def at(url: str, **parts: str) -> str:
    """Change parts of a URL."""
    return urlsplit(url)._replace(**parts).geturl()


@pytest.fixture
def role(postgresql_server: PostgresqlServer) -> Iterator[str]:
    """A role without rights."""
    name = f"novitai_test_{secrets.token_hex(8)}"
    with psycopg.connect(postgresql_server.url, autocommit=True) as admin:
        admin.execute(sql.SQL("CREATE ROLE {} LOGIN").format(sql.Identifier(name)))
        yield name
        admin.execute(sql.SQL("DROP ROLE {}").format(sql.Identifier(name)))


def as_role(url: str, role: str) -> str:
    """Name another user in a URL."""
    parts = urlsplit(url)
    return at(url, netloc=f"{role}@{parts.netloc.rpartition('@')[2]}")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
async def test_a_pooler_that_shares_sessions(postgresql_database_url: str, mode: str) -> None:
    """PgBouncer is refused, by name, in transaction and statement mode."""
    with pgbouncer(postgresql_database_url, mode) as url:
        message = await refusal(url)
        assert "a connection pooler in transaction or statement mode, such as PgBouncer" in message
        with pytest.raises(StartupError, match="such as PgBouncer"):
            migrate.upgrade(url, CLOCK)


async def test_a_pooler_with_a_direct_way(postgresql_database_url: str) -> None:
    """In transaction mode all works if there is a direct way, and no session keeps a setting."""
    direct = postgresql_database_url
    with pgbouncer(direct, "transaction") as url:
        database = await open_database(url, CLOCK, direct_url=direct)
        wanted = [f"name-{number}" for number in range(60)]
        await asyncio.gather(*(database.write(put(one)) for one in wanted))
        for _ in range(10):
            found = await asyncio.gather(*(database.read(names) for _ in range(8)))
            assert found == [sorted(wanted)] * 8
        assert await database.read(names, snapshot=True) == sorted(wanted)
        with pytest.raises(LookupError):
            await database.write(put_and_fail("never"))
        await database.ping()
        before = await database.moment()
        await database.write(put("z"))
        assert await database.moment() != before
        with psycopg.connect(url, autocommit=True, prepare_threshold=None) as other:
            for setting in ("lock_timeout", "default_transaction_read_only"):
                assert other.execute(f"SHOW {setting}").fetchone() in {("0",), ("off",)}
            assert other.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
        await database.close()


async def test_a_direct_way_to_another_database(
    postgresql_database_url: str,
    postgresql_server: PostgresqlServer,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The two addresses must lead to one database."""
    monkeypatch.setattr(postgresql_check, "NOTIFICATION_SECONDS", 0.5)
    with (
        pgbouncer(postgresql_server.url, "transaction") as url,
        pytest.raises(StartupError, match="lead to two databases"),
    ):
        await open_database(url, CLOCK, direct_url=postgresql_database_url)


async def test_a_pooler_with_sessions_of_their_own(postgresql_database_url: str) -> None:
    """PgBouncer is accepted in session mode."""
    with pgbouncer(postgresql_database_url, "session") as url:
        database = await open_database(url, CLOCK)
        await database.write(put("a"))
        assert await database.read(names) == ["a"]
        await database.close()


async def test_a_notification_that_does_not_arrive(
    postgresql_database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A server that loses notifications is refused, because jobs would wait for the sweep."""
    monkeypatch.setattr(postgresql_check, "NOTIFICATION_SECONDS", 0.01)
    monkeypatch.setattr(psycopg.Connection, "notifies", lambda *_, **__: iter(()))
    message = await refusal(postgresql_database_url)
    assert "a notification (NOTIFY) did not reach the connection that listens" in message


async def test_another_encoding(postgresql_server: PostgresqlServer) -> None:
    """A database with another encoding than UTF-8 is refused, by `migrate` too."""
    name = f"novitai_test_{secrets.token_hex(8)}"
    with psycopg.connect(postgresql_server.url, autocommit=True) as admin:
        identifier = sql.Identifier(name)
        make = "CREATE DATABASE {} TEMPLATE template0 ENCODING LATIN1 LC_COLLATE 'C' LC_CTYPE 'C'"
        admin.execute(sql.SQL(make).format(identifier))
        try:
            url = at(postgresql_server.url, path=f"/{name}")
            assert "its encoding is LATIN1" in await refusal(url)
            with pytest.raises(StartupError, match="its encoding is LATIN1"):
                migrate.upgrade(url, CLOCK)
        finally:
            admin.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(identifier))


async def test_a_database_that_takes_no_writes(postgresql_database_url: str) -> None:
    """A read-only database is refused, by `migrate` too, with the name of the setting."""
    with psycopg.connect(postgresql_database_url, autocommit=True) as admin:
        name = sql.Identifier(urlsplit(postgresql_database_url).path[1:])
        turn = sql.SQL("ALTER DATABASE {} SET default_transaction_read_only = on")
        admin.execute(turn.format(name))
    assert "default_transaction_read_only is on" in await refusal(postgresql_database_url)
    with pytest.raises(StartupError, match="default_transaction_read_only is on"):
        migrate.upgrade(postgresql_database_url, CLOCK)


def test_a_role_that_may_make_no_tables(postgresql_url: str, role: str) -> None:
    """`migrate` names the missing right and the GRANT for it."""
    with psycopg.connect(postgresql_url) as admin:
        admin.execute("REVOKE CREATE ON SCHEMA public FROM PUBLIC")
    with pytest.raises(StartupError) as caught:
        migrate.upgrade(as_role(postgresql_url, role), CLOCK)
    assert "permission denied for schema public" in str(caught.value)
    assert f'GRANT CREATE ON SCHEMA public TO "{role}"' in str(caught.value)
    assert "SELECT" not in str(caught.value)


@pytest.mark.parametrize(
    ("granted", "missing"),
    [
        ((), "may not use alembic_version"),
        (("SELECT ON ALL TABLES",), "may not use api_keys"),
        (("ALL ON ALL TABLES",), "may not use billing_spans_id_seq"),
    ],
)
async def test_a_role_that_may_not_use_the_tables(
    postgresql_database_url: str, role: str, granted: tuple[str, ...], missing: str
) -> None:
    """If the role lacks a right on a table or sequence, the message names it and the GRANTs."""
    identifier = sql.Identifier(role)
    with psycopg.connect(postgresql_database_url) as admin:
        for right in granted:
            admin.execute(
                sql.SQL("GRANT {} IN SCHEMA public TO {}").format(sql.SQL(right), identifier)
            )
    try:
        message = await refusal(as_role(postgresql_database_url, role))
        assert missing in message
        assert (
            f'SELECT, INSERT, UPDATE, DELETE ON ALL TABLES IN SCHEMA public TO "{role}"' in message
        )
        assert "GRANT CREATE" not in message
    finally:
        with psycopg.connect(postgresql_database_url) as admin:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(identifier))


async def test_a_role_with_the_rights_it_needs(postgresql_database_url: str, role: str) -> None:
    """A role with rights on the tables and sequences needs to be neither superuser nor owner."""
    identifier = sql.Identifier(role)
    with psycopg.connect(postgresql_database_url) as admin:
        for right in ("SELECT, INSERT, UPDATE, DELETE ON ALL TABLES", "USAGE ON ALL SEQUENCES"):
            admin.execute(
                sql.SQL("GRANT {} IN SCHEMA public TO {}").format(sql.SQL(right), identifier)
            )
    database = await open_database(as_role(postgresql_database_url, role), CLOCK)
    try:
        await database.write(put("a"))
    finally:
        await database.close()
        with psycopg.connect(postgresql_database_url) as admin:
            admin.execute(sql.SQL("DROP OWNED BY {}").format(identifier))


def test_nothing_is_left_behind(postgresql_database_url: str, tmp_path: Path) -> None:
    """The checks leave no LISTEN, setting or prepared statement in a session."""
    with pgbouncer(postgresql_database_url, "session") as url:
        postgresql_check.insist_on_server(url)
        with psycopg.connect(url, autocommit=True) as after:
            assert after.execute("SELECT pg_listening_channels()").fetchall() == []
            assert after.execute("SELECT name FROM pg_prepared_statements").fetchall() == []
