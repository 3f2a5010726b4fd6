# SPDX-License-Identifier: Apache-2.0
"""Promises of the SQLite store alone: group commits, and errors of the file."""

from __future__ import annotations

import asyncio
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest
from sqlalchemy import Connection, event
from sqlalchemy.exc import IntegrityError

from novitai.errors import RequestTimeout
from novitai.store.engine import sqlite
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StorageFull, StoreBusy, StoreCorrupt, StoreUnavailable
from novitai.store.engine.sqlite import SqliteDatabase
from novitai.store.opening import open_database
from novitai.testing import ManualClock
from tests.store.transactions import Gate, names, other_program, put, put_and_fail


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of `sqlite_database`."""
    return tmp_path / "novitai.db"


async def together(
    database: Database,
    gate: Gate,
    *fns: Callable[[Connection], object],
    deadline: int | None = None,
) -> list[object]:
    """Run the functions in one commit, by queueing them while the gate holds the writer."""
    holding = asyncio.create_task(database.write(gate))
    await asyncio.to_thread(gate.entered.wait)
    writes = [asyncio.create_task(database.write(fn)) for fn in fns]
    await asyncio.sleep(0)
    gate.open()
    await holding
    return await asyncio.gather(*writes, return_exceptions=True)


def statement(sql: str) -> Callable[[Connection], None]:
    """Run one statement."""

    def fn(connection: Connection) -> None:
        connection.exec_driver_sql(sql)

    return fn


def commits(database: Database) -> list[int]:
    """Count the commits in a list of one."""
    assert isinstance(database, SqliteDatabase)
    counted = [0]

    def count(_: Connection) -> None:
        counted[0] += 1

    event.listen(database._write_engine, "commit", count)
    return counted


class TestGroup:
    async def test_one_commit(self, sqlite_database: Database, gate: Gate) -> None:
        """Writes that wait together share a commit, and a failed one does not affect the others."""
        counted = commits(sqlite_database)
        outcomes = await together(
            sqlite_database, gate, put("a"), put_and_fail("b"), put("c"), put("c"), put("d")
        )
        assert [str(each) for each in outcomes[:3]] == ["a", "b", "c"]
        assert isinstance(outcomes[3], IntegrityError)
        assert outcomes[4] == "d"
        assert await sqlite_database.read(names) == ["a", "c", "d"]
        assert counted == [2]  # the gate's and theirs

    async def test_commit_fails(self, sqlite_database: Database, gate: Gate) -> None:
        """If COMMIT fails, the whole group fails, nothing is stored, and the next write works."""
        await sqlite_database.write(statement("CREATE TABLE parent (id INTEGER PRIMARY KEY)"))
        await sqlite_database.write(
            statement(
                "CREATE TABLE child (id INTEGER REFERENCES parent (id)"
                " DEFERRABLE INITIALLY DEFERRED)"
            )
        )
        heard: list[str] = []

        def innocent(connection: Connection) -> None:
            put("a")(connection)
            sqlite_database.after_commit(connection, lambda: heard.append("never"))

        outcomes = await together(
            sqlite_database,
            gate,
            innocent,
            statement("INSERT INTO child VALUES (1)"),
            put_and_fail("b"),
        )
        assert [type(each) for each in outcomes] == [IntegrityError, IntegrityError, LookupError]
        assert await sqlite_database.write(put("after")) == "after"
        assert await sqlite_database.read(names) == ["after"]
        assert heard == []

    async def test_late_one(
        self, sqlite_database: Database, gate: Gate, clock: ManualClock
    ) -> None:
        """A write that is late before the group's commit is rolled back; the others are stored."""
        second = Gate()

        def slow(connection: Connection) -> str:
            second(connection)
            return put("slow")(connection)

        holding = asyncio.create_task(sqlite_database.write(gate))
        await asyncio.to_thread(gate.entered.wait)
        hurried = asyncio.create_task(
            sqlite_database.write(put("hurried"), deadline=clock.now() + 500)
        )
        patient = asyncio.create_task(sqlite_database.write(slow))
        await asyncio.sleep(0)
        gate.open()
        await asyncio.to_thread(second.entered.wait)
        await clock.advance(1)
        second.open()
        with pytest.raises(RequestTimeout):
            await hurried
        assert await patient == "slow"
        await holding
        assert await sqlite_database.read(names) == ["slow"]

    async def test_lost_transaction(self, sqlite_database: Database, gate: Gate) -> None:
        """A function that ends the whole transaction fails alone; the others run again."""

        def loses(connection: Connection) -> None:
            driver = connection.connection.driver_connection
            assert isinstance(driver, sqlite3.Connection)
            driver.execute("ROLLBACK")

        outcomes = await together(sqlite_database, gate, put("a"), loses, put("b"))
        assert outcomes[0] == "a"
        assert isinstance(outcomes[1], StoreUnavailable)
        assert outcomes[2] == "b"
        assert await sqlite_database.read(names) == ["a", "b"]


class TestTrouble:
    async def test_full(self, sqlite_database: Database, gate: Gate) -> None:
        """A write that does not fit on the disk fails as such; smaller ones with it are stored."""

        def limit(connection: Connection) -> None:
            pages = connection.exec_driver_sql("PRAGMA page_count").scalar_one()
            connection.exec_driver_sql(f"PRAGMA max_page_count = {pages + 4}")

        await sqlite_database.write(limit)
        outcomes = await together(
            sqlite_database, gate, put("a"), put("large", "x" * 1_000_000), put("b")
        )
        assert outcomes[0] == "a"
        assert isinstance(outcomes[1], StorageFull)
        assert outcomes[1].retryable
        assert outcomes[2] == "b"
        assert await sqlite_database.read(names) == ["a", "b"]

    async def test_locked(
        self,
        sqlite_database_url: str,
        clock: ManualClock,
        path: Path,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A write fails as busy while another program has the lock, and succeeds afterwards."""
        monkeypatch.setattr(sqlite, "BUSY_TIMEOUT_MS", 1)
        database = await open_database(sqlite_database_url, clock)
        try:
            with other_program(path) as other:
                other.execute("BEGIN IMMEDIATE")
                with pytest.raises(StoreBusy):
                    await database.write(put("a"))
                assert await database.read(names) == []
            await database.write(put("b"))
        finally:
            await database.close()

    async def test_writes_from_the_first_moment(
        self, sqlite_database: Database, path: Path
    ) -> None:
        """A write locks the file before its first statement, even if that is a read."""

        def fn(connection: Connection) -> list[str]:
            before = names(connection)
            with other_program(path) as other:
                other.execute("PRAGMA busy_timeout = 0").close()
                with pytest.raises(sqlite3.OperationalError, match="locked"):
                    other.execute("INSERT INTO installation VALUES ('theirs', '')")
            put("ours")(connection)
            return before

        assert await sqlite_database.write(fn) == []
        assert await sqlite_database.read(names) == ["ours"]

    async def test_damaged_while_running(
        self, sqlite_database: Database, path: Path, tmp_path: Path
    ) -> None:
        """Damage to an open file is reported as damage, by reads and by a ping."""
        await sqlite_database.write(put("a", "x" * 100_000))
        with other_program(path) as other:
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
        damaged = bytes(4096) * 20
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(damaged)
        with pytest.raises(StoreCorrupt):
            await sqlite_database.read(names)
        with pytest.raises(StoreCorrupt):
            await sqlite_database.write(put("b"))


async def test_settings(sqlite_database: Database, path: Path) -> None:
    """Commits are synced to disk, and foreign keys are checked."""

    def pragmas(connection: Connection) -> list[object]:
        return [
            connection.exec_driver_sql(f"PRAGMA {name}").scalar_one()
            for name in ("journal_mode", "synchronous", "foreign_keys", "query_only")
        ]

    assert await sqlite_database.write(pragmas) == ["wal", 2, 1, 0]
    assert await sqlite_database.read(pragmas) == ["wal", 2, 1, 1]


async def test_closed_file_is_whole(sqlite_database: Database, path: Path, tmp_path: Path) -> None:
    """After closing, the database file alone holds all data and can be copied."""
    await sqlite_database.write(put("a"))
    await sqlite_database.close()
    copy = tmp_path / "copy.db"
    shutil.copyfile(path, copy)
    with other_program(copy) as other:
        found = other.execute("SELECT name FROM installation").fetchall()
        assert set(found) == {("a",), ("schema",)}
