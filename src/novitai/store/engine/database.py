# SPDX-License-Identifier: Apache-2.0
"""The one door to the database: a transaction is a plain function, run on a worker thread.

A transaction function `fn(connection)` uses synchronous SQLAlchemy Core and has no effect but SQL:
it may run more than once (only the last run counts), and what it did is undone if it raises.
To go on after an error of SQL, put the statement into `connection.begin_nested()`.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.store.engine.errors import StoreError
from novitai.store.engine.work import Callback, Crew, Job, Mode, job_of
from novitai.store.engine.write_check import WriteCheck, write_one_row

T = TypeVar("T")

SNAPSHOT_ISOLATION: Final = "REPEATABLE READ"
"""The isolation level on PostgreSQL of a read that sees one moment."""


class Dialect(StrEnum):
    """Which database it is, as SQLAlchemy names it."""

    SQLITE = "sqlite"
    POSTGRESQL = "postgresql"


class Database(ABC):
    """Reads and writes, each in one transaction on a thread of its own kind."""

    dialect: Dialect
    _clock: Clock

    def __init__(self, readers: Crew, writers: Crew) -> None:
        """Take over the threads; a subclass has set `_clock` before."""
        self._readers = readers
        self._writers = writers
        self._write_check = WriteCheck(self._clock, self._write_one_row)

    async def read(self, fn: Callable[[Connection], T], *, snapshot: bool = False) -> T:
        """Run `fn(connection)` where nothing can be written, and return its answer.

        Args:
            fn: The transaction function. Bind further arguments with `functools.partial`.
            snapshot: Whether several statements must see the same moment. SQLite always shows one
                moment; PostgreSQL shows each statement its own unless asked, which costs two more
                round trips.

        Raises:
            StoreError: the database did not answer; what `fn` raises comes through as it is.
        """
        job = Job(fn, Mode.SNAPSHOT if snapshot else Mode.READ)
        self._readers.put(job)
        return await job.future

    async def write(self, fn: Callable[[Connection], T], *, deadline: int | None = None) -> T:
        """Run `fn(connection)` in a transaction, commit it, and return its answer.

        If this await is cancelled, an `fn` that has begun is committed all the same, and one that
        has not is dropped. Who must not be late gives a deadline.

        Args:
            fn: The transaction function. Bind further arguments with `functools.partial`.
            deadline: Unix milliseconds after which the transaction is no longer committed.

        Raises:
            RequestTimeout: the deadline passed before the commit; nothing was stored.
            CommitUnknown: the connection broke during the commit.
            StoreError: the database did not do it; what `fn` raises comes through as it is.
        """
        job = Job(fn, Mode.WRITE, deadline)
        self._writers.put(job)
        try:
            result = await job.future
        except StoreError as trouble:
            self._write_check.failed(trouble)
            raise
        self._write_check.succeeded()
        return result

    @staticmethod
    def after_commit(connection: Connection, callback: Callback) -> None:
        """Have the event loop call `callback` once the running transaction has been committed.

        Call it inside a transaction function of `write`. If the transaction, or the savepoint in
        which this was called, is rolled back, the callback is forgotten.

        Raises:
            RuntimeError: `connection` is not in a transaction function of `write`.
        """
        job_of(connection).after_commit(callback)

    async def ping(self) -> None:
        """Make sure that the database answers and takes writes, at the same cost for any size.

        Where nothing was written for two seconds, this writes one row.

        Raises:
            StoreError: it does not.
        """
        await self.read(self._probe)
        await self._write_check.insist()

    async def close(self) -> None:
        """Refuse new work, finish what is queued, let go of the database. Twice is harmless."""
        await asyncio.to_thread(self._shut)

    def _shut(self) -> None:
        self._writers.close()
        self._readers.close()
        self._release()

    async def _write_one_row(self) -> None:
        now = self._clock.now()
        await self.write(lambda connection: write_one_row(connection, now=now))

    @abstractmethod
    def _probe(self, connection: Connection) -> None:
        """Ask for something that the database itself must answer."""

    @abstractmethod
    def _release(self) -> None:
        """Close the connections and whatever else was held."""
