# SPDX-License-Identifier: Apache-2.0
"""Events as they are read, and waiting for a status."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.errors import NotFound, ValidationFailed
from novitai.lifecycle.queries.history import History
from novitai.lifecycle.queries.instances import Shown
from novitai.lifecycle.queries.status_watch import LOOK_EVERY
from novitai.store.engine.database import Database
from novitai.store.queries import events, instances
from novitai.testing import ManualClock, an_instance
from tests.lifecycle.world import REQUEST, AtWork, World, on_both_stores


@on_both_stores
async def test_the_global_log_misses_nothing(world: World) -> None:
    """Reading on from the last event seen gives every event once, in order."""
    ids = [await world.create(replace(REQUEST, name=f"box-{number}")) for number in range(4)]
    seen: list[str] = []
    for _ in range(40):
        await world.pass_time(8)
        page = await world.app.history.since(seen[-1] if seen else None, limit=3)
        seen += [event.id for event in page.events]
    assert len(seen) == len(set(seen)) == 3 * len(ids)


class Shows:
    """Reads the one instance of these tests."""

    def __init__(self) -> None:
        self.status = InstanceStatus.STARTING

    async def get(self, instance_id: str) -> Shown:
        """Show it."""
        shown: Any = {"id": instance_id, "status": self.status.value}
        return Shown(shown, None)


@pytest.fixture
async def history(sqlite_database: Database, clock: ManualClock) -> History:
    """The history of an instance with five events."""

    def write(connection: Any) -> None:
        instances.insert(connection, an_instance(id="inst_1"), b"sealed")
        for number in range(5):
            events.append(
                connection,
                event_id=f"evt_{number}",
                instance_id="inst_1",
                event_type=EventType.DRIFT,
                at=clock.now(),
                data={},
                actor=None,
            )

    await sqlite_database.write(write)
    return History(sqlite_database, clock, Shows())


async def test_events_are_read_page_by_page(history: History) -> None:
    """Each page goes on where the last ended; the last one has no cursor."""
    seen: list[str] = []
    cursor = None
    for length in (2, 2, 1):
        page = await history.of_instance("inst_1", cursor=cursor, limit=2)
        seen += [event.id for event in page.events]
        cursor = page.next_cursor
        assert len(page.events) == length
    assert seen == [f"evt_{number}" for number in range(5)]
    assert cursor is None
    whole = await history.since(limit=5)
    assert (len(whole.events), whole.next_cursor) == (5, None)


async def test_what_is_not_there_is_named(history: History) -> None:
    """An unknown instance or operation is not found; an unknown cursor is a wrong field."""
    with pytest.raises(NotFound) as missing:
        await history.of_instance("inst_2")
    assert missing.value.code == "INSTANCE_NOT_FOUND"
    with pytest.raises(NotFound) as unknown:
        await history.operation("op_1")
    assert unknown.value.code == "OPERATION_NOT_FOUND"
    with pytest.raises(ValidationFailed) as wrong:
        await history.since("evt_9")
    assert "since" in str(wrong.value.details)


@pytest.mark.parametrize(
    ("status", "reached", "out_of_reach"),
    [
        (InstanceStatus.RUNNING, True, False),
        (InstanceStatus.FAILED, False, True),
        (InstanceStatus.TERMINATED, False, True),
        (InstanceStatus.RELEASED, False, True),
    ],
)
async def test_waiting_ends_when_nothing_can_change_any_more(
    sqlite_database: Database,
    clock: ManualClock,
    status: InstanceStatus,
    *,
    reached: bool,
    out_of_reach: bool,
) -> None:
    """At once, without a look, where the status is reached or out of reach."""
    shows = Shows()
    shows.status = status
    waited = await History(sqlite_database, clock, shows).wait("inst_1", InstanceStatus.RUNNING, 60)
    assert (waited.reached, waited.out_of_reach) == (reached, out_of_reach)


async def test_waiting_ends_when_the_time_is_up(
    sqlite_database: Database, clock: ManualClock
) -> None:
    """It does not end earlier, and at most one look later."""
    make = an_instance(InstanceStatus.STARTING, id="inst_1")
    await sqlite_database.write(lambda connection: instances.insert(connection, make, b"sealed"))
    at_work = AtWork()
    at_work.watch(sqlite_database)
    waiting = asyncio.create_task(
        History(sqlite_database, clock, Shows()).wait("inst_1", InstanceStatus.RUNNING, 3)
    )
    await clock.advance(0)  # the wait begins
    began, step = clock.monotonic(), 0.05
    while not waiting.done():
        assert clock.monotonic() - began <= 3 + LOOK_EVERY + step
        await clock.advance(step)
        await at_work.rest()  # a look that is under way comes first
    assert clock.monotonic() - began >= 3
    waited = await waiting
    assert not waited.reached
    assert not waited.out_of_reach
