# SPDX-License-Identifier: Apache-2.0
"""Opens the store that a URL names, once it is known to be sound and of this version."""

from __future__ import annotations

import asyncio

from novitai.clock import Clock
from novitai.errors import StartupError
from novitai.store import migrate
from novitai.store.engine import postgresql_server
from novitai.store.engine.database import Database
from novitai.store.engine.sqlite import SqliteDatabase
from novitai.store.engine.sqlite_file import DatabaseFile, explained, path_of

_CONFIG = 78  # EX_CONFIG of sysexits(3)


async def open_database(url: str, clock: Clock) -> Database:
    """Open the database at `url` (`Settings.database`).

    The embedded file is made if it is missing and migrated if it is older: nobody else uses it.
    A server's database is used by several processes and is migrated by `novitai migrate` alone.

    Raises:
        SettingsError: the URL cannot be understood.
        StartupError: the database cannot be used; the message says why and what to do.
    """
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_open_sqlite, url, clock)
    return await asyncio.to_thread(_open_postgresql, url, clock)


def _open_sqlite(url: str, clock: Clock) -> Database:
    file = DatabaseFile.claim(path_of(url), clock)
    try:
        migrate.upgrade_file(file)
        file.turn_on_wal()
        file.mark()
        with explained(file.path):
            return SqliteDatabase(file, clock)
    except BaseException:  # the file is let go, then it is raised on
        file.release()
        raise


def _open_postgresql(url: str, clock: Clock) -> Database:
    # Its driver takes long to load, and a process on the embedded file never needs it.
    from novitai.store.engine import postgresql_check

    postgresql_check.insist_on_server(url)
    # Before the version is read: a role that may not do that is told all the rights it needs.
    postgresql_check.insist_on_rights(url)
    version = migrate.check(url)
    where = postgresql_server.describe(url)
    migrate.refuse_newer(version, where)
    if version is migrate.Version.OLDER:
        raise StartupError(
            f"{where}: made for an older version of novitai, or empty. Run `novitai migrate`.",
            exit_code=_CONFIG,
        )
    from novitai.store.engine.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(url, clock)
