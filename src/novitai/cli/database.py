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
    from contextlib import ExitStack, closing

    from novitai.store import migrate as migration
    from novitai.store import postgresqlserver, sqlite
    from novitai.store.sqlitefile import path_of

    with ExitStack() as stack:
        if not url.startswith("sqlite"):
            connection = stack.enter_context(closing(postgresqlserver.connect(url)))
        elif path_of(url).exists():
            engine = sqlite.make_engine(path_of(url), reading=True)
            # A connection that is closed goes back to the pool, which keeps it open.
            stack.callback(engine.dispose)
            connection = stack.enter_context(closing(engine.connect()))
        else:
            return None
        return max(migration.recorded(connection), default=None)
