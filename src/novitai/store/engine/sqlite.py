# SPDX-License-Identifier: Apache-2.0
"""The SQLite store: one file, two reader threads and one writer thread.

The writer commits in groups: it takes all waiting jobs, runs each in its own savepoint, and commits
them with one fsync. There are only two readers because readers compete with the writer for the
interpreter (with four busy readers it managed 90 to 180 writes a second).
"""

from __future__ import annotations

import sqlite3
from functools import partial
from pathlib import Path
from typing import Final, cast

from sqlalchemy import URL, Connection, Engine, create_engine, event
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import ConnectionPoolEntry

from novitai.clock import Clock
from novitai.store.engine.database import Database, Dialect
from novitai.store.engine.errors import (
    StorageFull,
    StoreBusy,
    StoreCorrupt,
    StoreError,
    StoreUnavailable,
)
from novitai.store.engine.file_watch import Finding
from novitai.store.engine.moments import Moment, SqliteMoments
from novitai.store.engine.sqlite_file import DatabaseFile, quoted
from novitai.store.engine.sqlite_keeper import Keeper, is_damage
from novitai.store.engine.work import AnyJob, Crew, Mode, guard_transactions, late, settle

READERS: Final = 2
_CACHE_KIB: Final = 1_000
"""The page cache of each connection, half of SQLite's default; the system caches the file too."""
GROUP: Final = 128
"""Maximum number of jobs in one commit; the first waits for the last."""
BUSY_TIMEOUT_MS: Final = 5000
_WAL_KEPT_BYTES: Final = 64 * 1024 * 1024


class SqliteDatabase(Database):
    """A database in one file that only this process uses."""

    dialect = Dialect.SQLITE

    def __init__(self, file: DatabaseFile, clock: Clock) -> None:
        """Start the threads on a claimed file; `close` releases the claim."""
        self._file = file
        self._clock = clock
        self._keeper = Keeper(file)
        self._moments = SqliteMoments(file.path, self._keeper.insist)
        self._write_engine = make_engine(file.path)
        self._read_engine = make_engine(file.path, reading=True)
        guard_transactions(self._write_engine)
        guard_transactions(self._read_engine)
        super().__init__(
            readers=Crew("novitai-read", READERS, self._serve_reads),
            writers=Crew("novitai-write", 1, self._serve_writes),
        )
        self._keeper.start()

    def moment_at_once(self) -> Moment | None:
        """Ask SQLite, which takes microseconds; None if the file cannot be asked."""
        self._keeper.refuse_if_lost()
        return self._moments.now()

    async def moment(self) -> Moment:
        """Ask SQLite; if that fails, find out why."""
        for _ in range(2):
            told = self.moment_at_once()
            if told is not None:
                return told
            await self.read(self._probe)
        raise StoreUnavailable("The database file cannot be read.", retry_after=1)

    def _probe(self, connection: Connection) -> None:
        # Not `SELECT 1`, which does not read the file.
        connection.exec_driver_sql("PRAGMA schema_version").scalar_one()
        self._keeper.insist()
        self._keeper.insist_on_room()

    def _release(self) -> None:
        self._moments.close()
        self._read_engine.dispose()
        self._write_engine.dispose()
        self._keeper.close()
        self._file.release()

    def _serve_reads(self, crew: Crew) -> None:
        line = _Line(self._read_engine, self._keeper)
        crew.serve_each(partial(self._read_one, line))
        line.drop()

    def _read_one(self, line: _Line, job: AnyJob) -> None:
        try:
            self._keeper.refuse_if_lost()
            transaction = line.connection().begin()
            try:
                job.run(transaction.connection)
            finally:
                transaction.rollback()
        except BaseException as error:  # raised to the caller; the thread must survive
            job.error = self._judge(error, job.mode)
            if isinstance(error, DBAPIError):
                line.drop()

    def _serve_writes(self, crew: Crew) -> None:
        line = _Line(self._write_engine, self._keeper)
        crew.serve(partial(self._write_all, line), GROUP)
        line.drop()

    def _write_all(self, line: _Line, jobs: list[AnyJob]) -> None:
        while jobs:
            jobs = self._write_group(line, jobs)

    def _write_group(self, line: _Line, jobs: list[AnyJob]) -> list[AnyJob]:
        """Run and commit the jobs together; return those that must run again."""
        try:
            self._keeper.refuse_if_lost()
            again = _Group(line, jobs, self._clock).commit()
            _refuse_damage(jobs)
            self._keeper.committed()
        except BaseException as error:  # no job may be acknowledged after any error
            line.drop()
            trouble = self._judge(error, Mode.WRITE)
            for job in jobs:
                job.error = job.error or trouble
            again = []
        settle(job for job in jobs if job not in again)
        return again

    def _judge(self, error: BaseException, mode: Mode) -> BaseException:
        """Find an error's cause in the files and the disk; mark the store lost if it is damage."""
        explained = _explain(error, mode)
        if isinstance(explained, StoreUnavailable):
            try:
                self._keeper.insist()
                self._keeper.insist_on_room()
            except StoreError as trouble:
                explained = trouble
        if isinstance(explained, StoreCorrupt):
            self._keeper.lose(_finding(explained, self._file.path))
        return explained


class _Line:
    """A thread's own connection, opened on demand and reopened after an error."""

    def __init__(self, engine: Engine, keeper: Keeper) -> None:
        self._engine = engine
        self._keeper = keeper
        self._connection: Connection | None = None

    def connection(self) -> Connection:
        if self._connection is None:
            # If another file is at the path by now, SQLite would remove that file's log.
            self._keeper.insist()
            self._connection = self._engine.connect()
        return self._connection

    def drop(self) -> None:
        """Close the connection; uncommitted changes are rolled back."""
        if self._connection is not None:
            self._connection.invalidate()
            self._connection.close()
            self._connection = None


class _Group:
    """Jobs that share one transaction, each in its own savepoint."""

    def __init__(self, line: _Line, jobs: list[AnyJob], clock: Clock) -> None:
        self._line = line
        self._jobs = jobs
        self._clock = clock

    def commit(self) -> list[AnyJob]:
        """Run the jobs and commit; set `error` on each job that failed.

        Returns the jobs that were rolled back because another job failed. They must run again.

        Raises:
            DBAPIError: BEGIN or COMMIT failed.
        """
        connection = self._line.connection()
        transaction = connection.begin()
        driver = cast("sqlite3.Connection", connection.connection.driver_connection)
        for job in self._jobs:
            self._run(connection, driver, job)
            if not (transaction.is_active and driver.in_transaction):
                # A full or failing disk ends the whole transaction, not only the savepoint.
                self._line.drop()
                return self._others(job)
        expired = [job for job in self._jobs if job.error is None and job.expired(self._clock)]
        if expired:
            for job in expired:
                job.error = late()
            transaction.rollback()
            return [job for job in self._jobs if job.error is None]
        transaction.commit()
        return []

    def _run(self, connection: Connection, driver: sqlite3.Connection, job: AnyJob) -> None:
        # Calls the driver directly because `begin_nested` costs a third more.
        driver.execute("SAVEPOINT job")
        try:
            job.check_deadline(self._clock)
            job.run(connection)
        except BaseException as error:  # raised to the caller; the thread must survive
            job.error = _explain(error, Mode.WRITE)
            if not driver.in_transaction:
                return
            driver.execute("ROLLBACK TO job")
        if driver.in_transaction:
            driver.execute("RELEASE job")

    def _others(self, guilty: AnyJob) -> list[AnyJob]:
        if guilty.error is None:
            guilty.error = StoreUnavailable("The database rolled back the transaction.")
        return [job for job in self._jobs if job.error is None]


def make_engine(path: Path, *, reading: bool = False) -> Engine:
    """Create an engine that emits SQLite's BEGIN itself, for reading or for writing.

    A read transaction that turns into a write may fail with "database is locked" without waiting
    for the timeout. So writers begin with BEGIN IMMEDIATE, and readers cannot write.
    """
    engine = create_engine(
        # Mode rw does not create the file: one that was removed must not reappear empty.
        URL.create(
            "sqlite+pysqlite", database=f"file:{quoted(path)}", query={"mode": "rw", "uri": "true"}
        ),
        pool_size=READERS,
        max_overflow=1,
        hide_parameters=True,
        connect_args={"timeout": BUSY_TIMEOUT_MS / 1000, "cached_statements": 512},
    )

    def set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        driver = cast("sqlite3.Connection", connection)
        driver.isolation_level = None
        for pragma in (
            "synchronous = FULL",
            "foreign_keys = ON",
            f"cache_size = -{_CACHE_KIB}",
            f"journal_size_limit = {_WAL_KEPT_BYTES}",
            f"query_only = {'ON' if reading else 'OFF'}",
        ):
            try:
                driver.execute(f"PRAGMA {pragma}").close()
            except BaseException:  # the pool drops a connection that failed here without closing it
                driver.close()
                raise

    def begin(connection: Connection) -> None:
        connection.exec_driver_sql("BEGIN" if reading else "BEGIN IMMEDIATE")

    event.listen(engine, "connect", set_up)
    event.listen(engine, "begin", begin)
    return engine


def _refuse_damage(jobs: list[AnyJob]) -> None:
    """Raise the error of the first job that found the file damaged."""
    for job in jobs:
        if isinstance(job.error, StoreCorrupt):
            raise job.error


def _finding(error: StoreCorrupt, path: Path) -> Finding:
    """Return what SQLite found, for the log."""
    cause = error.__cause__
    reason = cause.orig if isinstance(cause, DBAPIError) else error
    return Finding(f"{path} is damaged ({reason})")


def _explain(error: BaseException, mode: Mode) -> BaseException:
    """Convert errors of SQLite into `StoreError`; return other errors unchanged."""
    if not isinstance(error, DBAPIError) or not isinstance(error.orig, sqlite3.Error):
        return error
    trouble = _trouble(error.orig, mode)
    if trouble is None:
        return error
    trouble.__cause__ = error
    return trouble


def _trouble(error: sqlite3.Error, mode: Mode) -> StoreError | None:
    if is_damage(error):
        return StoreCorrupt("The database file is damaged.")
    # The low byte is the primary result code: https://www.sqlite.org/rescode.html
    match getattr(error, "sqlite_errorcode", 0) & 0xFF:
        case sqlite3.SQLITE_FULL:
            return StorageFull(
                "No space is left for the database: nothing was stored.", retry_after=30
            )
        case sqlite3.SQLITE_BUSY | sqlite3.SQLITE_LOCKED:
            return StoreBusy(
                "Another program has locked the database: nothing was stored.", retry_after=1
            )
        case sqlite3.SQLITE_READONLY if mode is not Mode.WRITE:
            return None  # a transaction function of `read` tried to write, which is a bug
        case sqlite3.SQLITE_IOERR | sqlite3.SQLITE_CANTOPEN | sqlite3.SQLITE_READONLY:
            return StoreUnavailable("The database file cannot be read or written.", retry_after=5)
    return None
