# SPDX-License-Identifier: Apache-2.0
"""The PostgreSQL store through psycopg, with four reader threads and four writer threads.

Reads run in autocommit on read-only connections, snapshots in a transaction. A write is retried if
the connection breaks before COMMIT was sent, or if the server reports a serialization failure or a
deadlock.

A connection can become read-only: after a failover it may lead to a standby, and a change of
`default_transaction_read_only` applies only to new connections. So when a write is refused as
read-only, all connections are replaced.
"""

from __future__ import annotations

import random
import threading
import time
from typing import Final, cast

import psycopg
from psycopg.pq import TransactionStatus
from sqlalchemy import Connection, Engine, event
from sqlalchemy.engine import ExceptionContext
from sqlalchemy.engine.interfaces import DBAPIConnection
from sqlalchemy.exc import DBAPIError, DisconnectionError
from sqlalchemy.pool import ConnectionPoolEntry, PoolProxiedConnection

from novitai.clock import Clock
from novitai.store.engine import postgresql_server
from novitai.store.engine.database import SNAPSHOT_ISOLATION, Database, Dialect, is_snapshot
from novitai.store.engine.errors import (
    CommitUnknown,
    StorageFull,
    StoreBusy,
    StoreError,
    StoreUnavailable,
)
from novitai.store.engine.moments import Moment, PostgresqlMoments
from novitai.store.engine.work import AnyJob, Crew, Mode, guard_transactions

THREADS: Final = 4
"""Reader threads, and also writer threads."""
TRIES: Final = 3
"""How often a write is tried, as long as its COMMIT was not sent."""
LOCK_TIMEOUT_MS: Final = 10_000
RENEW_SECONDS: Final = 1.0
"""Minimum time between two replacements of all connections after a read-only error."""
_IDLE_IN_TRANSACTION_TIMEOUT_MS: Final = 4_000
"""When the server ends the transaction of a process that stands still, whose locks would keep the
others waiting. It is shorter than the lease of a step. A process that goes on begins again."""
_IDLE_WHILE_READING_TIMEOUT_MS: Final = 60_000
"""The same for a snapshot, which keeps no others waiting: a long report adds up between batches."""
_TIMEOUTS: Final = (
    f"lock_timeout = {LOCK_TIMEOUT_MS}",
    f"idle_in_transaction_session_timeout = {_IDLE_IN_TRANSACTION_TIMEOUT_MS}",
)
_READ_TIMEOUTS: Final = (
    f"lock_timeout = {LOCK_TIMEOUT_MS}",
    f"idle_in_transaction_session_timeout = {_IDLE_WHILE_READING_TIMEOUT_MS}",
)

# https://www.postgresql.org/docs/current/errcodes-appendix.html
_LONGEST_PAUSE: Final = 0.1
"""Seconds before a transaction that may begin again does."""
_TRY_AGAIN: Final = {"40001", "40P01"}  # serialization failure, deadlock
_STOOD_STILL: Final = "25P03"  # idle-in-transaction session timeout
_READ_ONLY: Final = "25006"
_GENERATION: Final = "novitai.generation"


class PostgresqlDatabase(Database):
    """A PostgreSQL database, which several processes may share."""

    dialect = Dialect.POSTGRESQL

    def __init__(self, url: str, clock: Clock, *, direct_url: str | None = None) -> None:
        """Start the threads. They connect on first use; see `postgresql_check.insist_on_server`.

        If `direct_url` is another URL, transactions at `url` may each run in another session.
        """
        self._clock = clock
        generation = Generation(clock)
        pooled = direct_url is not None and direct_url != url
        self._write_engine = _make_engine(url, generation, pooled=pooled)
        self._read_engine = _make_engine(url, generation, pooled=pooled, reading=True)
        self._snapshot_engine = self._read_engine.execution_options(
            isolation_level=SNAPSHOT_ISOLATION
        )
        self._moments = PostgresqlMoments.at(direct_url or url)
        guard_transactions(self._write_engine)
        guard_transactions(self._read_engine)
        super().__init__(
            readers=Crew("novitai-read", THREADS, self._serve_reads),
            writers=Crew("novitai-write", THREADS, self._serve_writes),
        )

    async def moment(self) -> Moment:
        """Ask the server, together with all others who ask now."""
        return await self._moments.ask()

    async def close(self) -> None:
        """Close the database; see `Database.close`."""
        self._moments.close()  # its connection belongs to the event loop
        await super().close()

    def _probe(self, connection: Connection) -> None:
        connection.exec_driver_sql("SELECT 1").scalar_one()

    def _release(self) -> None:
        self._read_engine.dispose()
        self._write_engine.dispose()

    def _serve_reads(self, crew: Crew) -> None:
        crew.serve_each(self._read_one)

    def _read_one(self, job: AnyJob) -> None:
        engine = self._snapshot_engine if job.mode is Mode.SNAPSHOT else self._read_engine
        try:
            with engine.connect() as connection, connection.begin():
                job.run(connection)
        except BaseException as error:  # raised to the caller; the thread must survive
            job.error = _explain(error, job.mode)

    def _serve_writes(self, crew: Crew) -> None:
        crew.serve_each(self._write_one)

    def _write_one(self, job: AnyJob) -> None:
        for left in reversed(range(TRIES)):
            try:
                self._write_once(job)
            except BaseException as error:  # raised to the caller; the thread must survive
                if left and _may_begin_again(error):
                    # The server may abort both sides of a deadlock. Without a pause of random
                    # length they would meet again.
                    time.sleep(random.uniform(0, _LONGEST_PAUSE))  # noqa: S311 - not a secret
                    continue
                job.error = _explain(error, Mode.WRITE)
            return

    def _write_once(self, job: AnyJob) -> None:
        job.check_deadline(self._clock)
        with self._write_engine.connect() as connection:
            transaction = connection.begin()
            job.run(connection)
            driver = cast("psycopg.Connection", connection.connection.driver_connection)
            if driver.info.transaction_status is TransactionStatus.INERROR:
                # The server would answer COMMIT with ROLLBACK and no error.
                raise RuntimeError("a transaction function continued after an SQL error")
            job.check_deadline(self._clock)
            try:
                transaction.commit()
            except DBAPIError as error:
                if _refused(error):
                    raise
                raise CommitUnknown(
                    "The connection to the database broke while the change was being stored. "
                    "Check whether it was stored before you send it again."
                ) from error


class Generation:
    """Invalidates all existing connections after a write was refused as read-only."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._number = 0
        self._ended_at: float | None = None

    def end(self) -> None:
        """Invalidate all connections made so far, at most once in `RENEW_SECONDS`."""
        now = self._clock.monotonic()
        with self._lock:
            if self._ended_at is None or now - self._ended_at >= RENEW_SECONDS:
                self._ended_at = now
                self._number += 1

    def watch(self, engine: Engine) -> None:
        """Replace each invalidated connection of `engine` when it is next checked out."""

        def made(_connection: DBAPIConnection, entry: ConnectionPoolEntry) -> None:
            entry.info[_GENERATION] = self._number

        def taken(
            _connection: DBAPIConnection, entry: ConnectionPoolEntry, _proxy: PoolProxiedConnection
        ) -> None:
            if entry.info[_GENERATION] != self._number:
                raise DisconnectionError("this connection was invalidated")

        event.listen(engine, "connect", made)
        event.listen(engine, "checkout", taken)


def _make_engine(
    url: str, generation: Generation, *, pooled: bool = False, reading: bool = False
) -> Engine:
    engine = postgresql_server.make_engine(
        url,
        pooled=pooled,
        pool_size=THREADS,
        max_overflow=0,
        pool_pre_ping=True,  # without it, one read in twenty fails after a server restart
        isolation_level="AUTOCOMMIT" if reading else "READ COMMITTED",
    )
    timeouts = _READ_TIMEOUTS if reading else _TIMEOUTS
    settings = [f"SET {one}" for one in timeouts]
    # For writers the read-only default of the server, the database or the role applies.
    settings += ["SET default_transaction_read_only = on"] if reading else []

    def set_up(connection: DBAPIConnection, _entry: ConnectionPoolEntry) -> None:
        driver = cast("psycopg.Connection", connection)
        before = driver.autocommit
        driver.autocommit = True
        driver.execute("; ".join(settings))
        driver.autocommit = before

    def fail(context: ExceptionContext) -> None:
        if getattr(context.original_exception, "sqlstate", None) == _READ_ONLY:
            generation.end()
            context.is_disconnect = True

    def set_up_transaction(connection: Connection) -> None:
        if not reading or is_snapshot(connection):
            connection.exec_driver_sql("; ".join(f"SET LOCAL {one}" for one in timeouts))

    if not pooled:
        event.listen(engine, "connect", set_up)
    else:
        # A setting of the session would stay in it for other clients of the pooler. Reads outside
        # of transactions wait for no locks.
        event.listen(engine, "begin", set_up_transaction)
    generation.watch(engine)
    if not reading:
        event.listen(engine, "handle_error", fail)
    return engine


def _refused(error: DBAPIError) -> bool:
    """Whether the server refused COMMIT, so that nothing was stored.

    A FATAL error proves nothing: the server may send it after it has stored the commit. The end of
    an idle transaction is an exception, because it had not received COMMIT.
    """
    if getattr(error.orig, "sqlstate", None) == _STOOD_STILL:
        return True
    if error.connection_invalidated or not isinstance(error.orig, psycopg.Error):
        return False
    return error.orig.diag.severity_nonlocalized == "ERROR"


def _may_begin_again(error: BaseException) -> bool:
    """Whether nothing was stored and an immediate retry may succeed."""
    if not isinstance(error, DBAPIError):
        return False
    return error.connection_invalidated or getattr(error.orig, "sqlstate", None) in _TRY_AGAIN


def _explain(error: BaseException, mode: Mode) -> BaseException:
    """Convert errors of the server into `StoreError`; return other errors unchanged."""
    if not isinstance(error, DBAPIError):
        return error
    trouble = _trouble(error, mode)
    if trouble is None:
        return error
    trouble.__cause__ = error
    return trouble


def _trouble(error: DBAPIError, mode: Mode) -> StoreError | None:
    state = getattr(error.orig, "sqlstate", None) or ""
    if state == "53100":  # disk full
        return StorageFull("No space is left for the database: nothing was stored.", retry_after=30)
    if state == "55P03" or state in _TRY_AGAIN:  # lock not available
        return StoreBusy("The database is busy: nothing was stored.", retry_after=1)
    if state == _READ_ONLY and mode is Mode.WRITE:
        return StoreUnavailable("The database server accepts no writes.", retry_after=5)
    # 53: insufficient resources, 57P: shutdown, 08: connection; no state: no answer.
    unreachable = isinstance(error.orig, psycopg.OperationalError) and not state
    if error.connection_invalidated or unreachable or state.startswith(("53", "57P", "08")):
        return StoreUnavailable("The database server does not answer.", retry_after=1)
    return None
