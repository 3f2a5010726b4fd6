# SPDX-License-Identifier: Apache-2.0
"""Opens the database at a URL, after checking that it is usable and of this version."""

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


async def open_database(url: str, clock: Clock, *, direct_url: str | None = None) -> Database:
    """Open the database at `url` (`Settings.database`).

    With another `direct_url` of the same PostgreSQL database, `url` may lead through a pooler in
    transaction mode: nothing that needs a session of its own goes through it.

    An SQLite file is created if it is missing and migrated if it is older, because only this
    process uses it. A PostgreSQL database may have other users; only `novitai migrate` migrates it.

    Raises:
        SettingsError: the URL cannot be parsed.
        StartupError: the database cannot be used; the message says why and what to do.
    """
    if url.startswith("sqlite"):
        return await asyncio.to_thread(_open_sqlite, url, clock)
    return await asyncio.to_thread(_open_postgresql, url, clock, direct_url or url)


def _open_sqlite(url: str, clock: Clock) -> Database:
    file = DatabaseFile.claim(path_of(url), clock)
    try:
        migrate.upgrade_file(file)
        file.turn_on_wal()
        file.mark()
        with explained(file.path):
            return SqliteDatabase(file, clock)
    except BaseException:  # release the file, then re-raise
        file.release()
        raise


def _open_postgresql(url: str, clock: Clock, direct_url: str) -> Database:
    # Imported here because the driver loads slowly and a process on SQLite never needs it.
    from novitai.store.engine import postgresql_check

    postgresql_check.insist_on_server(direct_url)
    if direct_url != url:
        postgresql_check.insist_on_pooler(url, direct_url)
    # Before reading the version: a role that may not read it gets an error listing all the rights
    # it needs.
    postgresql_check.insist_on_rights(direct_url)
    facts = migrate.facts_of(direct_url)
    where = postgresql_server.describe(url)
    migrate.refuse_newer(facts, where)
    if not migrate.compare(facts).fits:
        raise StartupError(
            f"{where}: made for an older version of novitai, or empty. Run `novitai migrate`.",
            exit_code=_CONFIG,
        )
    from novitai.store.engine.postgresql import PostgresqlDatabase

    return PostgresqlDatabase(url, clock, direct_url=direct_url)
