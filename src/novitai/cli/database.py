# SPDX-License-Identifier: Apache-2.0
"""`novitai migrate`: migrate the database to the schema of this version."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from novitai.cli.output import say

if TYPE_CHECKING:
    from novitai.settings import Settings


def migrate(
    check: Annotated[
        bool, typer.Option("--check", help="Only say what would be done; change nothing.")
    ] = False,
    finish: Annotated[
        bool,
        typer.Option("--finish", help="Also clean up, because no older process is left."),
    ] = False,
) -> None:
    """Migrate the database to this version; on PostgreSQL, also create the first API key.

    Processes of the version before this one keep working meanwhile.
    """
    import asyncio

    from novitai.settings import load

    settings = load()
    if check:
        _tell_pending(settings.direct_database)
        return
    _migrate(settings.direct_database, finish=finish)
    # `novitai serve` creates the first key of an embedded file, because it holds the file's lock.
    if not settings.embedded and settings.secret_key is not None:
        asyncio.run(_show_first_key(settings))


def _tell_pending(url: str) -> None:
    from novitai.store import migrate as migration

    facts = migration.facts_of(url)
    where = _where(url)
    migration.refuse_newer(facts, where)
    to_do = migration.pending(facts)
    if not to_do:
        by = f", migrated by novitai {facts.made_by}" if facts.made_by else ""
        say(f"novitai: {where}: up to date ({facts.number}{by})")
        return
    say(f"novitai: {where}: at {facts.number or 'nothing'}; to do:")
    waits = not url.startswith("sqlite")
    for one in to_do:
        when = ", with --finish when no older process is left" if one.cleans_up and waits else ""
        say(f"{one.number} {one.purpose}{when}")


async def _show_first_key(settings: Settings) -> None:
    from novitai.cli.first_key import show_first_key
    from novitai.clock import SystemClock
    from novitai.ids import Ids
    from novitai.opening import make_key_ring, open_store

    clock = SystemClock()
    async with open_store(settings, clock) as store:
        await show_first_key(make_key_ring(settings, store, clock, Ids()))


def _migrate(url: str, *, finish: bool) -> None:
    from novitai.clock import SystemClock
    from novitai.store import migrate as migration

    # An up-to-date file is not opened for writing, because a running server may have it locked. A
    # PostgreSQL database is always checked, so that the command reports if novitai cannot use it.
    is_file = url.startswith("sqlite")
    before = migration.facts_of(url)
    if not (is_file and migration.compare(before) is migration.Version.CURRENT):
        migration.upgrade(url, SystemClock(), finish=finish)
    after = migration.facts_of(url)
    where = _where(url)
    if after.number == before.number:
        say(f"novitai: {where}: up to date ({after.number})")
    else:
        say(f"novitai: {where}: migrated from {before.number or 'nothing'} to {after.number}")
    waiting = migration.pending(after)
    if waiting:
        say(
            f"novitai: {where}: {len(waiting)} migrations clean up what older versions use. When "
            "no older process is left, run `novitai migrate --finish`."
        )


def _where(url: str) -> str:
    """Describe the database without secrets."""
    from novitai.store.engine import postgresql_server
    from novitai.store.engine.sqlite_file import path_of

    if url.startswith("sqlite"):
        return str(path_of(url))
    return postgresql_server.describe(url)
