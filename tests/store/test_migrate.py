# SPDX-License-Identifier: Apache-2.0
"""Migrations build the tables of the code from an empty database, each in one transaction."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path

import psycopg
import pytest
from alembic.autogenerate import compare_metadata
from alembic.command import downgrade, upgrade
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect
from sqlalchemy.exc import DBAPIError

from novitai.errors import NovitaiError, StartupError
from novitai.store import migrate
from novitai.store.engine import postgresql_server
from novitai.store.engine.sqlite_file import DatabaseFile
from novitai.store.migrate import Version
from novitai.store.queries import coordination
from novitai.store.queries.coordination import LastListing, Looked
from novitai.store.tables import metadata
from novitai.testing import ManualClock

CLOCK = ManualClock()


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """Connect without a `Database`, as migrations do."""
    if url.startswith("sqlite"):
        with migrate._embedded(url.removeprefix("sqlite:///")) as connection:
            yield connection
    else:
        with closing(postgresql_server.connect(url)) as connection:
            yield connection


@pytest.fixture(
    params=[
        pytest.param("sqlite"),
        pytest.param("postgresql", marks=pytest.mark.postgresql),
    ]
)
def empty_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each store in turn."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'empty.db'}"
    url: str = request.getfixturevalue("postgresql_url")
    return url


def test_migrations_lead_to_the_tables(empty_url: str) -> None:
    """After the last migration, the schema equals the code's tables, including defaults."""
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        context = MigrationContext.configure(
            connection,
            opts={
                "compare_type": True,
                # Only PostgreSQL has this default: `tables` has no defaults for one store.
                "compare_server_default": lambda _context, _found, wanted, *_rest: (
                    False if str(wanted) == "events.sequence" else None
                ),
                # The queue's tables are defined by PgQueuer.
                "include_name": lambda name, kind, _: (
                    kind != "table" or not str(name).startswith("pgqueuer")
                ),
            },
        )
        assert compare_metadata(context, metadata) == []


def test_steps() -> None:
    """The file names give the same migrations in the same order as Alembic reads."""
    script = ScriptDirectory(str(Path(migrate.__file__).parent / "migrations"))
    last_first = [revision.revision for revision in script.walk_revisions()]
    assert migrate.steps() == tuple(reversed(last_first))


def test_check(empty_url: str) -> None:
    """A database is older before migration, current after it, newer with an unknown migration."""
    assert migrate.check(empty_url) is Version.OLDER
    migrate.upgrade(empty_url, CLOCK)
    assert migrate.check(empty_url) is Version.CURRENT
    with connected(empty_url) as connection, connection.begin():
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
    assert migrate.check(empty_url) is Version.NEWER
    with pytest.raises(StartupError, match="newer version"):
        migrate.upgrade(empty_url, CLOCK)


def test_check_changes_nothing(tmp_path: Path) -> None:
    """Checking the version of a missing file does not create it."""
    migrate.check(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


def test_twice(empty_url: str) -> None:
    """Migrating a current database does nothing."""
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        connection.exec_driver_sql("INSERT INTO installation VALUES ('a', 'b')")
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        assert connection.exec_driver_sql("SELECT name FROM installation").all() == [("a",)]


def test_back(empty_url: str) -> None:
    """The migrations can be downgraded and upgraded again."""
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection:
        downgrade(migrate.config(connection), "base")
        with connection.begin():
            assert inspect(connection).get_table_names() == ["alembic_version"]
    migrate.upgrade(empty_url, CLOCK)
    assert migrate.check(empty_url) is Version.CURRENT


def test_what_is_known_of_the_last_listing_survives(empty_url: str) -> None:
    """Dropping the unread columns of `listings` keeps when the account was last listed."""
    if empty_url.startswith("sqlite"):
        Path(empty_url.removeprefix("sqlite:///")).touch()
    with connected(empty_url) as connection:
        upgrade(migrate.config(connection), "0006")
        with connection.begin():
            connection.exec_driver_sql(
                "INSERT INTO listings (name, began_at, complete, complete_at, instances,"
                " unmanaged, whole_at, incomplete_count)"
                " VALUES ('last', 3, false, 1, 7, 2, 2, 2)"
            )
    assert migrate.check(empty_url) is Version.OLDER
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        last = coordination.last_listing(connection)
        assert last is not None
        assert (last.began_at, last.complete, last.whole) == (3, False, False)
        assert coordination.looked(connection) == Looked(1, 2, 2)
        newer = LastListing(4, complete=True, whole=True)
        coordination.record_listing(connection, newer)
        assert coordination.last_listing(connection) == newer
        assert coordination.looked(connection) == Looked(4, 4, 0)


def test_whole_or_not_at_all(empty_url: str, tmp_path: Path) -> None:
    """A migration that fails half-way is rolled back."""
    if empty_url.startswith("sqlite"):
        (tmp_path / "empty.db").touch()
    in_the_way = {"alembic_version", "workers"}
    with connected(empty_url) as connection, connection.begin():
        for name in in_the_way:
            connection.exec_driver_sql(f"CREATE TABLE {name} (version_num VARCHAR(32) PRIMARY KEY)")
    with pytest.raises((DBAPIError, NovitaiError)):
        migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        assert set(inspect(connection).get_table_names()) == in_the_way
    assert migrate.check(empty_url) is Version.OLDER


@pytest.mark.postgresql
def test_step_by_step(postgresql_url: str) -> None:
    """A migration that succeeded is kept if the next one fails."""
    with connected(postgresql_url) as connection, connection.begin():
        connection.exec_driver_sql("CREATE TABLE pgqueuer (in_the_way_of_the_second_step int)")
    with pytest.raises(StartupError, match="already exists"):
        migrate.upgrade(postgresql_url, CLOCK)
    with connected(postgresql_url) as connection, connection.begin():
        stands = connection.exec_driver_sql("SELECT version_num FROM alembic_version").all()
    assert stands == [("0001",)]


def test_while_in_use(sqlite_database_url: str, tmp_path: Path) -> None:
    """A file that a running server uses is not migrated."""
    file = DatabaseFile.claim(tmp_path / "novitai.db", CLOCK)
    with pytest.raises(StartupError, match="in use by another process"):
        migrate.upgrade(sqlite_database_url, CLOCK)
    file.release()


def test_mode(tmp_path: Path) -> None:
    """A migration creates the file for this user alone."""
    migrate.upgrade(f"sqlite:///{tmp_path / 'new.db'}", CLOCK)
    assert (tmp_path / "new.db").stat().st_mode & 0o777 == 0o600


@pytest.mark.postgresql
def test_one_after_the_other(postgresql_url: str) -> None:
    """A migration waits, before it reads the version, until a running one has finished."""
    waiting = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
    waiting += " AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"
    with ThreadPoolExecutor(1) as pool, psycopg.connect(postgresql_url, autocommit=True) as other:
        other.execute("SELECT pg_advisory_lock(%s)", (migrate.ADVISORY_LOCK,))
        migrating = pool.submit(migrate.upgrade, postgresql_url, CLOCK)
        while not migrating.done() and other.execute(waiting).fetchone() == (0,):
            pass
        assert not migrating.done()
        assert migrate.check(postgresql_url) is Version.OLDER
        other.execute("SELECT pg_advisory_unlock(%s)", (migrate.ADVISORY_LOCK,))
        migrating.result()
    assert migrate.check(postgresql_url) is Version.CURRENT


@pytest.mark.postgresql
def test_at_once(postgresql_url: str) -> None:
    """Of several concurrent `novitai migrate`, one migrates and the others find nothing to do."""
    code = (
        "import sys; from novitai.clock import SystemClock; from novitai.store import migrate;"
        "migrate.upgrade(sys.argv[1], SystemClock())"
    )
    command = [sys.executable, "-c", code, postgresql_url]
    children = [subprocess.Popen(command, stderr=subprocess.PIPE) for _ in range(4)]
    errors = [child.communicate()[1] for child in children]
    assert [child.returncode for child in children] == [0] * 4, errors
    assert migrate.check(postgresql_url) is Version.CURRENT
