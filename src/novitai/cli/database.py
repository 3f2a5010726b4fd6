# SPDX-License-Identifier: Apache-2.0
"""`novitai migrate`: bring the database to the tables of this version."""

from __future__ import annotations

from novitai.cli.output import say


def migrate() -> None:
    """Bring the database up to date; where it is, do nothing."""
    from novitai.clock import SystemClock
    from novitai.settings import load
    from novitai.store import migrate as migration

    url = load().database
    before = _revision(url)
    # A file that is up to date is left alone, for a server may hold it. A server's database is
    # looked at all the same: whether novitai can use it is what the reader wants to know.
    if not url.startswith("sqlite") or migration.check(url) is not migration.Version.CURRENT:
        migration.upgrade(url, SystemClock())
    after = _revision(url)
    if after == before:
        say(f"novitai: {_where(url)}: up to date ({after})")
    else:
        say(f"novitai: {_where(url)}: brought from {before or 'nothing'} to {after}")


def _where(url: str) -> str:
    """Name the database in words that may be shown."""
    from novitai.store import postgresqlserver
    from novitai.store.sqlitefile import path_of

    if url.startswith("sqlite"):
        return str(path_of(url))
    return postgresqlserver.describe(url)


def _revision(url: str) -> str | None:
    """Return the migration that a database stands at; None for an empty one."""
    from contextlib import closing

    from novitai.store import migrate as migration
    from novitai.store import postgresqlserver, sqlite
    from novitai.store.sqlitefile import path_of

    if not url.startswith("sqlite"):
        with closing(postgresqlserver.connect(url)) as connection, postgresqlserver.explained(url):
            return max(migration.recorded(connection), default=None)
    if not path_of(url).exists():
        return None
    with closing(sqlite.make_engine(path_of(url), reading=True).connect()) as connection:
        return max(migration.recorded(connection), default=None)
