# SPDX-License-Identifier: Apache-2.0
"""The real stores without their threads: each transaction runs on the event loop, at once.

The order of transactions is then that of the virtual time and a seed, and thousands of lives a
minute are possible. The threads have tests of their own.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, cast
from urllib.parse import urlsplit

from sqlalchemy import Connection, text

from novitai.clock import Clock
from novitai.store import tables
from novitai.store.engine.database import Database
from novitai.store.engine.postgresql import PostgresqlDatabase
from novitai.store.engine.sqlite import SqliteDatabase, _Line
from novitai.store.engine.work import AnyJob, Crew, Job, settle
from novitai.store.opening import open_database
from novitai.store.vault import Vault

T = TypeVar("T")

_KEPT: Final = frozenset({"alembic_version"})


class _AtOnce(Crew):
    """Runs each job in the thread that hands it over."""

    def __init__(self, work: Callable[[AnyJob], None], drop: Callable[[], None]) -> None:
        self._work = work
        self._drop = drop

    def put(self, job: Job[Any]) -> None:
        self._work(cast("AnyJob", job))

    def close(self) -> None:
        self._drop()


class InlineStore:
    """A store that many runs use, one after the other."""

    def __init__(self, url: str, database: Database) -> None:
        self.url = url
        self.database = database
        self.vault = Vault(b"a secret of at least thirty-two bytes")
        self.installation_id = "chaos0"

    @classmethod
    async def open(cls, url: str, clock: Clock) -> InlineStore:
        """Open a migrated database, and end its threads."""
        database = await open_database(url, clock)
        database._writers.close()
        database._readers.close()
        if isinstance(database, SqliteDatabase):
            _without_threads(database)
        else:
            _postgresql_without_threads(cast("PostgresqlDatabase", database))
        return cls(url, database)

    @property
    def name(self) -> str:
        """The kind of the store."""
        return urlsplit(self.url).scheme

    def reset(self, clock: Clock) -> None:
        """Empty every table, and use another clock."""
        self.database._clock = clock
        engine = cast("SqliteDatabase | PostgresqlDatabase", self.database)._write_engine
        with engine.begin() as connection:
            self._empty(connection)

    def query(self, fn: Callable[[Connection], T]) -> T:
        """Run a read at once, outside of any simulated process."""
        engine = cast("SqliteDatabase | PostgresqlDatabase", self.database)._read_engine
        with engine.connect() as connection:
            return fn(connection)

    def _empty(self, connection: Connection) -> None:
        names = [name for name in tables.metadata.tables if name not in _KEPT]
        if connection.dialect.name == "postgresql":
            connection.execute(text(f"TRUNCATE {', '.join(names)} CASCADE"))
            return
        connection.exec_driver_sql("PRAGMA defer_foreign_keys = ON")
        for name in names:
            connection.exec_driver_sql(f"DELETE FROM {name}")  # noqa: S608 - a table of ours

    async def close(self) -> None:
        """Close the database."""
        await self.database.close()


def _without_threads(database: SqliteDatabase) -> None:
    writer = _Line(database._write_engine, database._keeper)
    reader = _Line(database._read_engine, database._keeper)

    def write(job: AnyJob) -> None:
        jobs = [job]
        while jobs:
            jobs = database._write_group(writer, jobs)

    def read(job: AnyJob) -> None:
        database._read_one(reader, job)
        settle([job])

    database._writers = _AtOnce(write, writer.drop)
    database._readers = _AtOnce(read, reader.drop)


def _postgresql_without_threads(database: PostgresqlDatabase) -> None:
    def write(job: AnyJob) -> None:
        database._write_one(job)
        settle([job])

    def read(job: AnyJob) -> None:
        database._read_one(job)
        settle([job])

    database._writers = _AtOnce(write, lambda: None)
    database._readers = _AtOnce(read, lambda: None)
