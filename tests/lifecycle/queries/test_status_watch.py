# SPDX-License-Identifier: Apache-2.0
"""Clients that wait for a status share their looks at the records."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from novitai.domain.instance import InstanceStatus
from novitai.lifecycle.queries.status_watch import LOOK_EVERY, StatusWatch
from novitai.store.engine.database import Database
from novitai.store.queries import instances
from novitai.testing import ManualClock, an_instance

IDS = ("inst_1_a", "inst_1_b")


class Reads:
    """A database's reads, counted."""

    def __init__(self, database: Database) -> None:
        self.count = 0
        self._read = database.read

    async def __call__(self, fn: Callable[[Any], Any]) -> Any:
        self.count += 1
        return await self._read(fn)


@pytest.fixture
async def reads(sqlite_database: Database, monkeypatch: pytest.MonkeyPatch) -> Reads:
    """The reads of a database with two instances, of which one is stopped."""

    def write(connection: Any) -> None:
        for instance_id in IDS:
            instances.insert(connection, an_instance(id=instance_id), b"sealed")
        instances.update_columns(connection, IDS[1], {"status": "stopped"})

    await sqlite_database.write(write)
    counted = Reads(sqlite_database)
    monkeypatch.setattr(sqlite_database, "read", counted)
    return counted


async def waiting(
    clock: ManualClock, watch: StatusWatch, *ids: str
) -> list[asyncio.Task[InstanceStatus | None]]:
    """Have clients wait for the next look."""
    tasks = [asyncio.create_task(watch.at_next_look(instance_id)) for instance_id in ids]
    await clock.advance(0)  # the look to come sleeps by now
    return tasks


async def test_many_that_wait_cost_one_read(
    sqlite_database: Database, clock: ManualClock, reads: Reads
) -> None:
    """Each is told the status of its own instance, or that there is none."""
    watch = StatusWatch(sqlite_database, clock)
    tasks = await waiting(clock, watch, *IDS * 50, "inst_1_c")
    await clock.advance(LOOK_EVERY)
    found = await asyncio.gather(*tasks)
    assert found == [InstanceStatus.RUNNING, InstanceStatus.STOPPED] * 50 + [None]
    assert reads.count == 1


async def test_who_comes_during_a_look_waits_for_the_next(
    sqlite_database: Database, clock: ManualClock, reads: Reads
) -> None:
    """A status that was read before the client came is not told to it."""
    watch = StatusWatch(sqlite_database, clock)
    early = await waiting(clock, watch, IDS[0])
    await clock.advance(LOOK_EVERY)
    await asyncio.gather(*early)
    late = await waiting(clock, watch, IDS[1])
    assert reads.count == 1
    assert not late[0].done()
    await clock.advance(LOOK_EVERY)
    assert await late[0] is InstanceStatus.STOPPED
    assert reads.count == 2


async def test_nobody_waits_and_nothing_is_read(
    sqlite_database: Database, clock: ManualClock, reads: Reads
) -> None:
    """A look goes on while one client waits for it, and is cancelled with the last."""
    watch = StatusWatch(sqlite_database, clock)
    first, second = await waiting(clock, watch, *IDS)
    first.cancel()
    await clock.advance(LOOK_EVERY)
    assert await second is InstanceStatus.STOPPED
    assert reads.count == 1
    [alone] = await waiting(clock, watch, IDS[0])
    alone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await alone
    await clock.advance(4 * LOOK_EVERY)
    assert reads.count == 1
