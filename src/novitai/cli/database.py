# SPDX-License-Identifier: Apache-2.0
"""`novitai migrate`: migrate the database to the schema of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING

from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai.settings import Settings


def migrate() -> None:
    """Migrate the database to this version; on PostgreSQL, also create the first API key."""
    import asyncio

    from novitai.settings import load

    settings = load()
    _migrate(settings.database)
    # `novitai serve` creates the first key of an embedded file, because it holds the file's lock.
    if not settings.embedded and settings.secret_key is not None:
        asyncio.run(_show_first_key(settings))


async def _show_first_key(settings: Settings) -> None:
    from novitai.cli.first_key import show_first_key
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.opening import make_key_ring, open_store

    clock = SystemClock()
    async with open_store(settings, clock) as store:
        await show_first_key(make_key_ring(settings, store, clock, Ids()))


def _migrate(url: str) -> None:
    from novitai.clock import SystemClock
    from novitai.store import migrate as migration

    # An up-to-date file is not opened for writing, because a running server may have it locked. A
    # PostgreSQL database is always checked, so that the command reports if novitai cannot use it.
    is_file = url.startswith("sqlite")
    current = is_file and migration.check(url) is migration.Version.CURRENT
    before = _revision(url)
    if not current:
        migration.upgrade(url, SystemClock())
    after = _revision(url)
    if after == before:
        say(f"novitai: {_where(url)}: up to date ({after})")
    else:
        say(f"novitai: {_where(url)}: migrated from {before or 'nothing'} to {after}")


def _where(url: str) -> str:
    """Describe the database without secrets."""
    from novitai.store.engine import postgresql_server
    from novitai.store.engine.sqlite_file import path_of

    if url.startswith("sqlite"):
        return str(path_of(url))
    return postgresql_server.describe(url)


def _revision(url: str) -> str | None:
    """Return the last migration applied to a database; None if it is empty."""
    from contextlib import ExitStack, closing

    from novitai.store import migrate as migration
    from novitai.store.engine import postgresql_server, sqlite
    from novitai.store.engine.sqlite_file import path_of

    with ExitStack() as stack:
        if not url.startswith("sqlite"):
            connection = stack.enter_context(closing(postgresql_server.connect(url)))
            stack.enter_context(postgresql_server.explained(url))
        elif path_of(url).exists():
            engine = sqlite.make_engine(path_of(url), reading=True)
            # Closing a connection only returns it to the pool, so the pool must be disposed of.
            stack.callback(engine.dispose)
            connection = stack.enter_context(closing(engine.connect()))
        else:
            return None
        return max(migration.recorded(connection), default=None)
