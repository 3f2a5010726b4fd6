# SPDX-License-Identifier: Apache-2.0
"""Answers to idempotency keys and quotes are deleted once their retention time is over."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection, func, select

from novitai.domain.instance import BillingMode, InstanceStatus
from novitai.domain.quote import Quote, QuotedTerms
from novitai.lifecycle.commands.idempotency import KEPT_FOR
from novitai.lifecycle.maintenance import housekeeping
from novitai.lifecycle.maintenance.housekeeping import PAUSE, QUOTES_KEPT_FOR, Housekeeping
from novitai.store.engine.database import Database
from novitai.store.queries import idempotency_keys, instances, quotes
from novitai.store.queries.idempotency_keys import Remembered
from novitai.store.tables import idempotency_keys as table
from novitai.testing import ManualClock, an_instance
from tests.lifecycle.world import AtWork

ANSWER = Remembered("digest", 202, {}, b"{}")


async def remember(database: Database, at: int, *keys: str) -> None:
    """Store answers that were given at a time."""

    def write(connection: Connection) -> None:
        for key in keys:
            assert idempotency_keys.remember(
                connection, api_key_id="k", route="r", key=key, answer=ANSWER, now=at, since=0
            )

    await database.write(write)


async def count(database: Database) -> int:
    """Return the number of stored answers."""
    query = select(func.count()).select_from(table)
    found: int = await database.read(lambda connection: connection.execute(query).scalar_one())
    return found


async def test_answers_are_kept_as_long_as_they_may_be_asked_for(
    database: Database, clock: ManualClock
) -> None:
    """An answer that is a day old is kept; one a millisecond older is deleted."""
    await remember(database, clock.now() - KEPT_FOR, "kept")
    await remember(database, clock.now() - KEPT_FOR - 1, "old")
    assert await Housekeeping(database, clock).once() == 1
    assert await count(database) == 1


async def test_one_pass_deletes_everything_that_is_old(
    sqlite_database: Database, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One pass deletes all old answers, in several transactions of bounded size."""
    monkeypatch.setattr(housekeeping, "_BATCH", 2)
    await remember(sqlite_database, 0, "a", "b", "c", "d", "e")
    assert await Housekeeping(sqlite_database, clock).once() == 5
    assert await count(sqlite_database) == 0


async def test_it_goes_on_every_ten_minutes_until_it_is_stopped(
    sqlite_database: Database, clock: ManualClock
) -> None:
    """A later pass deletes answers that have expired since, and none runs after `stop`."""
    await remember(sqlite_database, clock.now() - KEPT_FOR + 1000, "soon")
    at_work = AtWork()
    at_work.watch(sqlite_database)
    keeping = Housekeeping(sqlite_database, clock)
    keeping.start()
    await clock.advance(0)
    await at_work.rest()
    began = clock.monotonic()
    while await count(sqlite_database):
        assert clock.monotonic() - began < 2 * PAUSE
        await clock.advance(PAUSE / 20)
        await at_work.rest()
    assert clock.monotonic() - began >= PAUSE
    await keeping.stop()
    await remember(sqlite_database, 0, "later")
    for _ in range(40):
        await clock.advance(PAUSE / 20)
        await at_work.rest()
        assert await count(sqlite_database) == 1


async def test_a_quote_is_kept_while_a_create_may_need_it(
    database: Database, clock: ManualClock
) -> None:
    """A quote goes an hour after it expired, but not while an instance that it binds is created."""
    old = clock.now() - QUOTES_KEPT_FOR - 1
    terms = QuotedTerms("gpu-basic", "tmpl-12345", 2, 80, "any", BillingMode.ON_DEMAND, False)

    def write(connection: Connection) -> None:
        for name, expired_at in (("late", old + 1), ("old", old), ("used", old), ("free", old)):
            quotes.insert(connection, Quote(name, 0, expired_at, terms, ()))
        for number, name in enumerate(("used", "free")):
            instance = an_instance(InstanceStatus.CREATING, id=f"inst_{number}", quote_id=name)
            instances.insert(connection, instance, b"sealed")
        instances.update_columns(connection, "inst_1", {"status": InstanceStatus.RUNNING.value})

    await database.write(write)
    assert await Housekeeping(database, clock).once() == 2

    def kept(connection: Connection) -> list[bool]:
        names = ("late", "old", "used", "free")
        return [quotes.load(connection, name) is not None for name in names]

    assert await database.read(kept) == [True, False, True, False]
