# SPDX-License-Identifier: Apache-2.0
"""Migrations build the tables of the code from an empty database, each in one transaction."""

from __future__ import annotations

import json
import re
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
from sqlalchemy import Connection, inspect, text
from sqlalchemy.exc import DBAPIError

from novitai.errors import NovitaiError, StartupError
from novitai.store import migrate
from novitai.store.engine import postgresql_server
from novitai.store.engine.sqlite_file import DatabaseFile
from novitai.store.migrate import SchemaFacts, Version
from novitai.store.queries import account, billing, coordination
from novitai.store.queries.account import Unmanaged
from novitai.store.queries.coordination import LastListing, Looked
from novitai.store.tables import metadata
from novitai.testing import ManualClock
from tools import schema

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


@contextmanager
def migrated_to(url: str, number: str) -> Iterator[Connection]:
    """Connect to an empty database that has the tables of an older version."""
    if url.startswith("sqlite"):
        Path(url.removeprefix("sqlite:///")).touch()
    with connected(url) as connection:
        upgrade(migrate.config(connection), number)
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


def test_an_empty_file_gets_what_the_migrations_make(tmp_path: Path) -> None:
    """A new SQLite file has the tables, indexes, triggers and version of all migrations together.

    If this fails, run `make schema`.
    """
    path = tmp_path / "new.db"
    migrate.upgrade(f"sqlite:///{path}", CLOCK)
    with connected(f"sqlite:///{path}") as connection, connection.begin():
        connection.exec_driver_sql("DELETE FROM installation WHERE name = 'schema'")
    assert schema.parts(schema.dump(path)) == schema.parts(schema.migrated())


@pytest.mark.parametrize(
    "change",
    [
        "ALTER TABLE workers ADD COLUMN more INTEGER",
        "ALTER TABLE workers DROP COLUMN seen_at",
        "DROP INDEX ix_operations_due",
        "CREATE TRIGGER one AFTER INSERT ON workers BEGIN SELECT 1; END",
        "UPDATE alembic_version SET version_num = '0001'",
    ],
)
def test_every_difference_of_two_files_is_noticed(tmp_path: Path, change: str) -> None:
    """Another column, index, trigger or version makes the schema of a file another one."""
    path = tmp_path / "new.db"
    migrate.upgrade(f"sqlite:///{path}", CLOCK)
    before = schema.parts(schema.dump(path))
    with connected(f"sqlite:///{path}") as connection, connection.begin():
        connection.exec_driver_sql(change)
    assert schema.parts(schema.dump(path)) != before


def test_an_empty_file_gets_the_migrations_that_its_schema_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If `sqlite.sql` is behind the migrations, the ones that it lacks follow."""
    with monkeypatch.context() as patched:
        behind = tmp_path / "behind.sql"
        behind.write_text(
            "CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY);\n"
            "CREATE TRIGGER one BEFORE DELETE ON alembic_version BEGIN\nSELECT 1;\nEND;\n"
        )
        patched.setattr(migrate, "_SCHEMA", behind)
        migrate.upgrade(f"sqlite:///{tmp_path / 'new.db'}", CLOCK)
    assert migrate.check(f"sqlite:///{tmp_path / 'new.db'}") is Version.CURRENT
    with connected(f"sqlite:///{tmp_path / 'new.db'}") as connection, connection.begin():
        assert "instances" in inspect(connection).get_table_names()


def test_an_empty_file_gets_all_tables_or_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If making the tables fails half-way, the file stays empty, and the next start makes them."""
    url = f"sqlite:///{tmp_path / 'new.db'}"

    with monkeypatch.context() as patched:
        broken = tmp_path / "broken.sql"
        broken.write_text(f"{schema.SCHEMA.read_text()}CREATE TABLE workers (id TEXT);\n")
        patched.setattr(migrate, "_SCHEMA", broken)
        with pytest.raises(StartupError, match="already exists"):
            migrate.upgrade(url, CLOCK)
    with connected(url) as connection, connection.begin():
        assert inspect(connection).get_table_names() == []
    migrate.upgrade(url, CLOCK)
    assert migrate.check(url) is Version.CURRENT


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
    assert migrate.check(empty_url) is Version.USABLE
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        assert connection.exec_driver_sql("SELECT version_num FROM alembic_version").all() == [
            ("9999",)
        ]
        told = json.dumps({"madeBy": "7.1.0", "worksWith": "9998"})
        coordination.set_value(connection, "schema", told)
    assert migrate.check(empty_url) is Version.NEWER
    with pytest.raises(StartupError, match=r"newer version.*Install novitai 7.1.0 or a newer one"):
        migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        connection.exec_driver_sql("DELETE FROM installation WHERE name = 'schema'")
    assert migrate.check(empty_url) is Version.NEWER


def test_check_changes_nothing(tmp_path: Path) -> None:
    """Checking the version of a missing file does not create it."""
    migrate.check(f"sqlite:///{tmp_path / 'none.db'}")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("number", "works_with", "to_do", "version"),
    [
        (None, None, ["0001", "0002", "0003", "0004"], Version.OLDER),
        ("0001", "0001", ["0002", "0003", "0004"], Version.OLDER),
        ("0003", "0001", ["0004"], Version.UNFINISHED),
        ("0004", "0004", [], Version.CURRENT),
        ("0005", "0004", [], Version.USABLE),
        ("0006", "0005", [], Version.NEWER),
        ("0006", None, [], Version.NEWER),
    ],
)
def test_a_version_that_cleans_up(
    number: str | None,
    works_with: str | None,
    to_do: list[str],
    version: Version,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A database whose clean-up waits is usable, and one with additions of a newer one."""
    for name in ("0001_make", "0002_add", "0003_add_more", "0004_after_drop_a_column"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(migrate, "_VERSIONS", tmp_path)
    facts = SchemaFacts(number, "1.0", works_with)
    assert [one.number for one in migrate.pending(facts)] == to_do
    assert migrate.compare(facts) is version
    assert [one.purpose for one in migrate.pending(facts)][-1:] in ([], ["drop a column"])


def test_a_clean_up_waits_for_a_person(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without `--finish` only what older processes can live with is run, and never past it."""
    for name in ("0001_make", "0002_after_drop", "0003_add", "0004_after_drop_more"):
        (tmp_path / f"{name}.py").touch()
    monkeypatch.setattr(migrate, "_VERSIONS", tmp_path)
    empty = migrate.pending(SchemaFacts(None))
    assert migrate._target(empty, "here", finish=False) == "0003"
    assert migrate._target(empty, "here", finish=True) == "0004"
    one_behind = migrate.pending(SchemaFacts("0002"))
    assert migrate._target(one_behind, "here", finish=False) == "0003"
    assert migrate._target(migrate.pending(SchemaFacts("0003")), "here", finish=False) is None
    with pytest.raises(StartupError, match=r"migration 0002.*migrate --finish"):
        migrate._target(migrate.pending(SchemaFacts("0001")), "here", finish=False)


def test_twice(empty_url: str) -> None:
    """Migrating a current database does nothing."""
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        connection.exec_driver_sql("INSERT INTO installation VALUES ('a', 'b')")
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        found = connection.exec_driver_sql("SELECT name FROM installation ORDER BY name").all()
    assert found == [("a",), ("schema",)]


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
    with migrated_to(empty_url, "0006") as connection, connection.begin():
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


_INSTANCE = (
    "INSERT INTO instances (id, name, status, product_name, template_id, gpu_num, rootfs_size,"
    " region, billing_mode, created_at, updated_at, launch_sealed, upstream_id, bought_at,"
    " confirmed_at, hourly_price, obs_status, obs_at, terminated_at) VALUES"
    " (%(id)s, 'box', %(status)s, 'gpu', 't', 1, 70, 'US', 'spot', 100, 100, %(sealed)s, %(id)s,"
    " %(bought)s, 200, 35000, %(word)s, %(obs)s, %(ended)s)"
)


def test_what_was_listed_counts_as_listed_now(empty_url: str) -> None:
    """No record goes early, neither of a listed instance nor of one that has its marker."""
    attempt_id = "a" * 16
    orphan = Unmanaged("orphan", "box", "running", f"install{attempt_id}", attempt_known=True)
    with migrated_to(empty_url, "0021") as connection, connection.begin():
        connection.exec_driver_sql(
            "INSERT INTO listed_instances (upstream_id, first_listed_at)"
            " VALUES ('known', 1), ('orphan', 1)"
        )
        account.replace_unmanaged(connection, [orphan])
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        found = account.listed_of(connection, ["known", "orphan"])
    assert [found[one].attempt_id for one in ("known", "orphan")] == [None, attempt_id]
    assert all((one.last_listed_at or 0) > 1_700_000_000_000 for one in found.values())


def test_the_ledger_is_filled_from_events(empty_url: str) -> None:
    """Spans of existing records lie between the events that showed them; sums are those of them."""
    lives: list[tuple[str, str, str | None, int, int | None, list[tuple[int, str]]]] = [
        ("never", "creating", None, 100, None, []),
        ("runs", "running", "running", 500, None, [(300, "pulling"), (500, "running")]),
        (
            "ended",
            "terminated",
            "removed",
            4_000,
            5_000,
            [(300, "pulling"), (500, "running"), (2_000, "stopping"), (2_500, "exited")],
        ),
    ]
    with migrated_to(empty_url, "0007") as connection, connection.begin():
        for one, status, word, seen, ended, events in lives:
            values = {"id": one, "status": status, "word": word, "obs": seen, "ended": ended}
            bought = None if word is None else 200
            query = re.sub(r"%\((\w+)\)s", r":\1", _INSTANCE)
            connection.execute(text(query), {**values, "bought": bought, "sealed": b""})
            for number, (at, upstream) in enumerate(events):
                data = json.dumps({"upstreamId": one, "upstreamStatus": upstream})
                connection.execute(
                    text(
                        "INSERT INTO events (sequence, id, instance_id, type, at, data)"
                        " VALUES (:sequence, :id, :instance, 'x', :at, :data)"
                    ),
                    {
                        "sequence": len(one) * 100 + number,
                        "id": f"{one}{number}",
                        "instance": one,
                        "at": at,
                        "data": data,
                    },
                )
        connection.exec_driver_sql(
            "INSERT INTO listings (name, began_at, complete_at) VALUES ('last', 900, 900)"
        )
    migrate.upgrade(empty_url, CLOCK)
    with connected(empty_url) as connection, connection.begin():
        assert billing.books_of(connection, ["never"]) == {}
        [runs] = billing.books_of(connection, ["runs"])["runs"]
        assert runs.state.shown_at(900) == 900
        assert runs.gpu is not None
        assert (runs.gpu.began_after, runs.gpu.began_by, runs.gpu.rate) == (100, 300, 35_000 * 24)
        assert runs.disk is not None
        assert (runs.disk.began_after, runs.disk.began_by, runs.disk.rate) == (100, 200, 5_000)
        [gone] = billing.books_of(connection, ["ended"])["ended"]
        gpu, disk = sorted(
            billing.spans_of(connection, "ended"), key=lambda one: one.kind == "disk"
        )
        assert (gpu.began_after, gpu.began_by, gpu.ended_after, gpu.ended_by) == (
            100,
            300,
            2_000,
            2_500,
        )
        assert (disk.began_after, disk.began_by, disk.ended_after, disk.ended_by) == (
            100,
            200,
            4_000,
            5_000,
        )
        assert gone.state.ended
        assert gone.state.least == 1_700 * 35_000 * 24 + 3_800 * 5_000
        assert gone.state.most == 2_400 * 35_000 * 24 + 4_900 * 5_000


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
