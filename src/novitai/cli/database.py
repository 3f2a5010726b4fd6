# SPDX-License-Identifier: Apache-2.0
"""`novitai migrate`: bring the database to the tables of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai.settings import Settings


def migrate() -> None:
    """Bring the database up to date; on PostgreSQL, make the first API key too."""
    import asyncio

    from novitai.settings import load

    settings = load()
    _migrate(settings.database)
    # The embedded file's first key is made by `novitai serve`, which is about to have the file.
    if not settings.embedded and settings.secret_key is not None:
        asyncio.run(_show_first_key(settings))


async def _show_first_key(settings: Settings) -> None:
    from novitai.app import make_key_ring, open_store
    from novitai.cli.first_key import show_first_key
    from novitai.clock import SystemClock
    from novitai.ids import Ids

    clock = SystemClock()
    async with open_store(settings, clock) as store:
        await show_first_key(make_key_ring(settings, store, clock, Ids()))


def _migrate(url: str) -> None:
    from novitai.clock import SystemClock
    from novitai.store import migrate as migration

    if migration.check(url) is migration.Version.CURRENT:
        say(f"novitai: {_where(url)}: up to date ({_revision(url)})")
        return
    before = _revision(url)
    migration.upgrade(url, SystemClock())
    say(f"novitai: {_where(url)}: brought from {before or 'nothing'} to {_revision(url)}")


def _where(url: str) -> str:
    """Name the database in words that may be shown."""
    from novitai.store import postgresqlserver
    from novitai.store.sqlitefile import path_of

    if url.startswith("sqlite"):
        return str(path_of(url))
    return postgresqlserver.describe(postgresqlserver.engine_url(url))


def _revision(url: str) -> str | None:
    """Return the migration that a database stands at; None for an empty one."""
    from contextlib import closing

    from novitai.store import migrate as migration
    from novitai.store import postgresqlserver, sqlite
    from novitai.store.sqlitefile import path_of

    if not url.startswith("sqlite"):
        connection = postgresqlserver.connect(url)
    elif path_of(url).exists():
        connection = sqlite.make_engine(path_of(url), reading=True).connect()
    else:
        return None
    with closing(connection):
        return max(migration.recorded(connection), default=None)
