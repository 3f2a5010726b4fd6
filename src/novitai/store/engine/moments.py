# SPDX-License-Identifier: Apache-2.0
"""Moments: whether anything was committed since the last look, without reading any data.

If two moments are equal, so is all committed data. A moment is read before the data it labels, so
that data is never labelled newer than it is.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple

from novitai.store.engine.errors import StoreUnavailable
from novitai.store.engine.shared import Shared
from novitai.store.engine.sqlite_file import quoted

if TYPE_CHECKING:
    from pathlib import Path

    import asyncpg

ANSWER_SECONDS: Final = 5.0
"""Seconds for PostgreSQL to tell the moment, including a new connection."""
_APPLICATION: Final = "novitai"


class Moment(NamedTuple):
    """A state of the database.

    Attributes:
        session: The connection that told it. Moments of different sessions have nothing to do with
            each other: in between, a standby may have taken over and lost commits.
        state: The answer of the database.
    """

    session: int
    state: int | str


class SqliteMoments:
    """Asks SQLite, which takes microseconds, on a connection of its own.

    `PRAGMA data_version` changes with every commit of another connection, and this one commits
    nothing. Requests that are handled in one turn of the event loop arrived before it, so the first
    of them asks for all.
    """

    def __init__(self, path: Path, check: Callable[[], None]) -> None:
        """Prepare; `check` raises if the file may not be opened."""
        self._path = path
        self._check = check
        self._session = 0
        self._connection: sqlite3.Connection | None = None
        self._closed = False
        self._told: Moment | None = None

    def now(self) -> Moment | None:
        """Return the moment of this turn of the event loop; None if the file cannot be asked."""
        if self._told is None:
            self._told = self._ask()
            asyncio.get_running_loop().call_soon(self._forget)
        return self._told

    def _forget(self) -> None:
        self._told = None

    def _ask(self) -> Moment | None:
        try:
            if self._connection is None:
                if self._closed:
                    return None
                self._connection = self._open()
            row = self._connection.execute("PRAGMA data_version").fetchone()
        except sqlite3.Error:
            self._drop()
            return None
        return Moment(self._session, row[0])

    def close(self) -> None:
        """Close the connection; later calls return None."""
        self._closed = True
        self._drop()

    def _open(self) -> sqlite3.Connection:
        self._check()
        opened = sqlite3.connect(
            f"file:{quoted(self._path)}?mode=rw",
            uri=True,
            timeout=0,
            isolation_level=None,
            # Closed by the thread that closes the database.
            check_same_thread=False,
        )
        self._session += 1
        return opened

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.close()
            self._connection = None


class PostgresqlMoments:
    """Asks PostgreSQL, with one query at a time for all who want to know."""

    def __init__(self, where: dict[str, object]) -> None:
        """Prepare; the first question connects. `where` is from `Target.for_asyncpg`."""
        self._where = where
        self._session = 0
        self._connection: asyncpg.Connection | None = None
        self._closed = False
        self._shared = Shared(self._ask, "moment")

    @classmethod
    def at(cls, url: str) -> PostgresqlMoments:
        """Prepare for the server at a URL."""
        from novitai.store.engine.postgresql_server import target

        return cls(target(url).for_asyncpg(_APPLICATION))

    async def ask(self) -> Moment:
        """Return the moment, by a query that began after this call.

        Raises:
            StoreUnavailable: the server does not answer.
        """
        return await self._shared.ask()

    def close(self) -> None:
        """Close the connection without waiting for the server; later calls are refused."""
        self._closed = True
        self._drop()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None

    async def _ask(self) -> Moment:
        import asyncpg

        broken = (
            OSError,
            asyncpg.PostgresError,
            asyncpg.InterfaceError,
            asyncpg.InternalClientError,
        )
        try:
            async with asyncio.timeout(ANSWER_SECONDS):
                try:
                    return await self._query()
                except broken:
                    if self._connection is None:
                        raise
                    # The connection broke while it was idle, as when the server restarted.
                    self._drop()
                    return await self._query()
        except broken as error:
            self._drop()
            raise StoreUnavailable("The database server does not answer.", retry_after=1) from error
        except BaseException:  # the connection may still be waiting for the query; re-raise
            self._drop()
            raise

    async def _query(self) -> Moment:
        import asyncpg

        if self._closed:
            raise StoreUnavailable("The database is closed: the server is shutting down.")
        if self._connection is None:
            self._connection = await asyncpg.connect(**self._where)
            self._session += 1
        state = await self._connection.fetchval("SELECT pg_current_snapshot()::text")
        return Moment(self._session, state)
