# SPDX-License-Identifier: Apache-2.0
"""A copy has every value of every table, in both directions, or it is not made."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import (
    Boolean,
    Column,
    Connection,
    Integer,
    LargeBinary,
    String,
    Table,
    func,
    insert,
    select,
)

from novitai.errors import SettingsError, StartupError
from novitai.ids import Ids
from novitai.store import copying, migrate
from novitai.store.copying import Copied
from novitai.store.engine import postgresql_server, sqlite
from novitai.store.engine.sqlite_file import path_of, url_of
from novitai.store.opening import open_database
from novitai.store.queries import account, coordination
from novitai.store.queries.coordination import EARLIER_IDS, INSTALLATION_ID
from novitai.store.tables import events, installation, instances, metadata
from novitai.testing import ManualClock

CLOCK = ManualClock()
ROWS = 3
MAKE = Callable[[], str]


def value_of(column: Column[Any], number: int) -> Any:
    """Return a value of a column that differs from row to row and refers to the same row number."""
    for key in column.foreign_keys:
        return value_of(key.column, number)
    if column.nullable and number == ROWS:
        return None
    kind = column.type
    if isinstance(kind, Boolean):
        return number % 2 == 0
    if isinstance(kind, LargeBinary):
        return bytes([number, 0, 255])
    if isinstance(kind, Integer):
        return number * 7
    # Capitals and accents: databases sort them differently.
    text = f"{'aÄZ'[number % 3]}{number}-{column.name}-\U0001f4a1"
    return text[: kind.length] if isinstance(kind, String) and kind.length else text


def fill(connection: Connection) -> None:
    """Give every table some rows."""
    for table in copying._tables():
        for number in range(1, ROWS + 1):
            row = {
                column.name: value_of(column, number)
                for column in table.columns
                if column.name != "changed_in"
            }
            connection.execute(insert(table).values(row))
    coordination.set_value(connection, INSTALLATION_ID, "abc123")


@contextmanager
def opened(url: str) -> Iterator[Connection]:
    """Open a database without a `Database`."""
    if url.startswith("sqlite"):
        engine = sqlite.make_engine(path_of(url))
        with closing(engine.connect()) as connection, connection.begin():
            yield connection
        engine.dispose()
    else:
        with closing(postgresql_server.connect(url)) as connection, connection.begin():
            yield connection


@pytest.fixture(params=["sqlite", pytest.param("postgresql", marks=pytest.mark.postgresql)])
def there(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The URL of a database without tables, on each store in turn."""
    if request.param == "sqlite":
        return url_of(tmp_path / "there.db")
    url: str = request.getfixturevalue("postgresql_url")
    return url


@pytest.fixture
def source(tmp_path: Path) -> str:
    """The URL of a file with rows in every table."""
    url = url_of(tmp_path / "source.db")
    migrate.upgrade(url, CLOCK)
    with opened(url) as connection:
        fill(connection)
    return url


def copy(source: str, target: str) -> Copied:
    """Copy with the clock of the tests."""
    return copying.copy(source, target, CLOCK, Ids())


def digests(copied: Copied) -> dict[str, tuple[int, str]]:
    """Return what was copied, without what makes each copy another installation."""
    return {one.name: (one.rows, one.digest) for one in copied.tables if one.name != "installation"}


def test_there_and_back(source: str, there: str, tmp_path: Path) -> None:
    """Every table has the same rows and digests there and after the way back."""
    first = copy(source, there)
    second = copy(there, url_of(tmp_path / "back.db"))
    assert digests(first) == digests(second)
    assert {one.rows for one in first.tables} == {ROWS, ROWS + 1}
    names = {table.name for table in metadata.sorted_tables} - {"leases", "workers"}
    assert {one.name for one in first.tables} == names


def test_a_copy_is_another_installation(source: str, there: str, tmp_path: Path) -> None:
    """It has its own ID, knows all earlier ones, is marked, and the source is as before."""
    first = copy(source, there)
    second = copy(there, url_of(tmp_path / "back.db"))
    assert first.source == "abc123"
    assert second.source == first.target
    with opened(url_of(tmp_path / "back.db")) as connection:
        known = coordination.installation_ids(connection)
        assert known == (second.target, first.target, "abc123")
        assert account.load_state(connection).restored_at == CLOCK.now()
    with opened(source) as connection:
        assert coordination.installation_ids(connection) == ("abc123",)
        assert coordination.value(connection, EARLIER_IDS) is None
        assert not account.load_state(connection).blocked


def test_numbers_go_on_after_a_copy(source: str, there: str) -> None:
    """New rows get numbers after those that were copied, and triggers number the changes."""
    copy(source, there)
    with opened(there) as connection:
        fresh = {"id": "evt_new", "type": "x", "at": 1, "data": "{}"}
        key = connection.execute(insert(events).values(fresh)).inserted_primary_key
        assert key is not None
        assert key[0] == ROWS * 7 + 1
        changed = connection.execute(select(func.min(instances.c.changed_in))).scalar_one()
        assert changed > 0


@pytest.mark.parametrize("table", copying._tables(), ids=lambda table: table.name)
def test_a_target_with_rows_is_refused(source: str, table: Table, tmp_path: Path) -> None:
    """One row in any table is enough, and it stays the only one."""
    target = url_of(tmp_path / "target.db")
    migrate.upgrade(target, CLOCK)
    with opened(target) as connection:
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        row = {column.name: value_of(column, 1) for column in table.columns}
        wanted = [one for key in table.foreign_keys for one in [key.column.table] if one != table]
        for parent in [one for one in copying._tables() if one in _with_parents(wanted)]:
            values = {column.name: value_of(column, 1) for column in parent.columns}
            connection.execute(insert(parent).values(values))
        connection.execute(insert(table).values(row))
    with pytest.raises(StartupError, match="not empty: it has rows in"):
        copy(source, target)
    with opened(target) as connection:
        assert connection.execute(select(func.count()).select_from(table)).scalar_one() in {1, 2}


def _with_parents(tables: list[Table]) -> set[Table]:
    found = set(tables)
    for table in tables:
        found |= _with_parents([key.column.table for key in table.foreign_keys])
    return found


def test_a_copy_that_differs_is_not_kept(
    source: str, there: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If a row does not arrive as it was, the target stays empty and can be used again."""
    rows = copying._rows

    def spoiled(connection: Connection, table: Table) -> Iterator[Any]:
        for row in rows(connection, table):
            from_target = connection.engine.url.database != "" and table.name == "events"
            yield (*row[:-2], "other", row[-1]) if from_target and spoiled_now() else row

    state = {"calls": 0}

    def spoiled_now() -> bool:
        state["calls"] += 1
        return state["calls"] > ROWS

    monkeypatch.setattr(copying, "_rows", spoiled)
    with pytest.raises(StartupError, match="`events` was not copied truly"):
        copy(source, there)
    monkeypatch.undo()
    with opened(there) as connection:
        assert connection.execute(select(func.count()).select_from(instances)).scalar_one() == 0
    assert len(copy(source, there).tables) > 20


async def test_a_database_in_use_is_not_copied(source: str, tmp_path: Path) -> None:
    """Neither from nor to a file that a server has open."""
    target = url_of(tmp_path / "target.db")
    for url in (source, target):
        database = await open_database(url, CLOCK)
        with pytest.raises(StartupError, match="in use by another process"):
            copy(source, target)
        await database.close()


@pytest.mark.postgresql
def test_a_server_with_workers_is_not_copied(
    source: str, postgresql_url: str, tmp_path: Path
) -> None:
    """A worker that was seen in the last 30 seconds uses the database."""
    copy(source, postgresql_url)
    target = url_of(tmp_path / "target.db")
    with opened(postgresql_url) as connection:
        now = coordination.server_time(connection)
        assert now is not None
        coordination.note_worker(connection, "w", started_at=now, now=now)
    with pytest.raises(StartupError, match="a worker uses it"):
        copy(postgresql_url, target)
    with opened(postgresql_url) as connection:
        connection.exec_driver_sql("UPDATE workers SET seen_at = seen_at - 30000")
    copy(postgresql_url, target)


def test_what_cannot_be_copied(source: str, tmp_path: Path) -> None:
    """A missing, an older and a newer source, the same database twice, and a wrong URL."""
    target = url_of(tmp_path / "target.db")
    with pytest.raises(StartupError, match="the same database"):
        copy(source, source)
    with pytest.raises(StartupError, match="there is no database"):
        copy(url_of(tmp_path / "none.db"), target)
    with pytest.raises(SettingsError):
        copy("sqlite://host/x", target)
    with opened(source) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '0007'")
    with pytest.raises(StartupError, match=r"Run `novitai migrate` on it first"):
        copy(source, target)
    with opened(source) as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '9999'")
        connection.execute(installation.delete().where(installation.c.name == "schema"))
    with pytest.raises(StartupError, match="newer version"):
        copy(source, target)
    assert not (tmp_path / "target.db").exists()
