# SPDX-License-Identifier: Apache-2.0
"""The interface to the database: each transaction is a plain function run on a database thread.

A transaction function `fn(connection)` uses synchronous SQLAlchemy Core and has no side effects
except SQL: it may run more than once (only the last run counts), and it is rolled back if it
raises. To continue after an SQL error, run the statement inside `connection.begin_nested()`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Final, TypeVar

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.store.engine.errors import StoreError
from novitai.store.engine.metrics import READ, WRITE, StoreMetrics
from novitai.store.engine.moments import Moment
from novitai.store.engine.work import Callback, Crew, Job, Mode, job_of, job_on
from novitai.store.engine.write_check import WriteCheck, write_one_row

T = TypeVar("T")

SNAPSHOT_ISOLATION: Final = "REPEATABLE READ"
"""The PostgreSQL isolation level of a snapshot read."""


def is_snapshot(connection: Connection) -> bool:
    """Return whether a connection to PostgreSQL runs a snapshot read."""
    return connection.get_execution_options().get("isolation_level") == SNAPSHOT_ISOLATION


class Dialect(StrEnum):
    """The kind of database, by SQLAlchemy's dialect name."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Database(ABC):
    """Runs each read on a reader thread and each write on a writer thread, in one transaction."""

    dialect: Dialect
    _clock: Clock

    def __init__(self, readers: Crew, writers: Crew) -> None:
        """Take ownership of the threads; the subclass must set `_clock` first."""
        self._readers = readers
        self._writers = writers
        self.metrics = StoreMetrics()
        self._write_check = WriteCheck(self._clock, self._write_one_row)

    async def read(self, fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run `fn(connection)` on a read-only connection and return its result.

        Args:
            fn: The transaction function. Bind further arguments with `functools.partial`.
            snapshot: Whether all statements must see the same snapshot. On SQLite they always do;
                on PostgreSQL it costs two more round trips.

        Raises:
            StoreError: the database did not answer. Exceptions of `fn` are raised unchanged.
        """
        job = Job(fn, Mode.SNAPSHOT if snapshot else Mode.READ)
        begun = self._clock.monotonic()
        self._readers.put(job)
        result = await job.future
        self._took(READ, begun)
        return result

    async def write(self, fn: Callable[[Connection], T], *, deadline: int | None = None) -> T:
        """Run `fn(connection)` in a transaction, commit it, and return its result.

        If the await is cancelled, a transaction that has begun is still committed; one that has not
        begun is dropped. Pass a deadline if the write must not be committed late.

        Args:
            fn: The transaction function. Bind further arguments with `functools.partial`.
            deadline: Unix milliseconds after which the transaction is no longer committed.

        Raises:
            RequestTimeout: the deadline passed before the commit; nothing was stored.
            CommitUnknown: the connection broke during the commit.
            StoreError: the database did not store the change. Exceptions of `fn` are raised
                unchanged.
        """
        job = Job(fn, Mode.WRITE, deadline, metrics=self.metrics)
        begun = self._clock.monotonic()
        self._writers.put(job)
        try:
            result = await job.future
        except StoreError as trouble:
            self._write_check.failed(trouble)
            raise
        self._write_check.succeeded()
        self._took(WRITE, begun)
        return result

    def moment_at_once(self) -> Moment | None:
        """Return the current moment if it can be told without waiting; else None.

        Raises:
            StoreError: the database may not be read any more.
        """
        return None

    @abstractmethod
    async def moment(self) -> Moment:
        """Return the moment, which is at or after this call.

        Raises:
            StoreError: the database did not answer.
        """

    @staticmethod
    def after_commit(connection: Connection, callback: Callback) -> None:
        """Have the event loop call `callback` after the running transaction has committed.

        Call it inside a transaction function of `write`. If the transaction, or the savepoint in
        which this was called, is rolled back, the callback is discarded.

        Raises:
            RuntimeError: `connection` is not in a transaction function of `write`.
        """
        job_of(connection).after_commit(callback)

    @staticmethod
    def count(connection: Connection, count: Callable[[StoreMetrics], object]) -> None:
        """Have `count` called with the process's metrics after the running transaction commits.

        A connection of another kind belongs to no process that counts, so nothing happens.
        """
        job = job_on(connection)
        if job is not None:
            job.after_commit(partial(count, job.metrics))

    async def ping(self) -> None:
        """Check that the database answers and accepts writes; the cost does not depend on its size.

        If no write succeeded in the last two seconds, this writes one row.

        Raises:
            StoreError: the database does not answer or does not accept writes.
        """
        await self.read(self._probe)
        await self._write_check.insist()

    async def close(self) -> None:
        """Refuse new jobs, finish the queued ones and release the database. Idempotent."""
        await asyncio.to_thread(self._shut)

    def _took(self, kind: str, begun: float) -> None:
        self.metrics.durations[kind].observe(self._clock.monotonic() - begun)

    def _shut(self) -> None:
        self._writers.close()
        self._readers.close()
        self._release()

    async def _write_one_row(self) -> None:
        now = self._clock.now()
        await self.write(lambda connection: write_one_row(connection, now=now))

    @abstractmethod
    def _probe(self, connection: Connection) -> None:
        """Run a query that the database itself must answer."""

    @abstractmethod
    def _release(self) -> None:
        """Close the connections and release files and locks."""
