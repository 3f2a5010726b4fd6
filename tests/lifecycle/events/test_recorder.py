# SPDX-License-Identifier: Apache-2.0
"""A status is derived in one place, and what changed is told in the same commit."""

from __future__ import annotations

import random
from typing import Any

import pytest
from structlog.testing import capture_logs

from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.store.engine.database import Database
from novitai.store.queries import events, instances
from novitai.testing import ManualClock, an_instance

ID = "inst_1_recorded"
MOVED = {"from": "running", "to": "exited"}


@pytest.fixture
async def recorder(sqlite_database: Database, clock: ManualClock) -> Recorder:
    """A recorder over a database with one running instance; no engine runs."""
    ids = Ids(random.Random(5))

    def write(connection: Any) -> None:
        instances.insert(connection, an_instance(id=ID), b"sealed")
        seen = {"upstream_id": "up-1", "confirmed_at": 1, "obs_status": "running", "ready_at": 1}
        instances.update_columns(connection, ID, {"status": "running", **seen})

    await sqlite_database.write(write)
    jobs = EmbeddedEngine(sqlite_database, clock, ids)
    return Recorder(clock, ids, Outbox(clock, ids, jobs))


async def change(database: Database, recorder: Recorder, **columns: object) -> Instance:
    """Change columns and derive the status in one transaction."""

    def write(connection: Any) -> Instance:
        instances.update_columns(connection, ID, columns)
        return recorder.refresh_status(connection, ID, also={"drift": MOVED})

    return await database.write(write)


async def log(database: Database) -> list[tuple[str, object, object]]:
    """List the events: type, previous status, and the fact beside the view."""
    found = await database.read(lambda connection: events.of_instance(connection, ID))
    return [
        (one.type.value, one.data.get("previousStatus"), one.data.get("drift")) for one in found
    ]


async def test_a_change_of_status_is_told_once(
    sqlite_database: Database, recorder: Recorder
) -> None:
    """The event shows the status before, and the facts given; a second look tells nothing."""
    stopped = await change(sqlite_database, recorder, obs_status="exited")
    assert stopped.status is InstanceStatus.STOPPED
    await change(sqlite_database, recorder, obs_status="exited")
    assert await log(sqlite_database) == [("instance.stopped", "running", MOVED)]


async def test_what_changes_no_status_is_not_told(
    sqlite_database: Database, recorder: Recorder
) -> None:
    """Other columns may change without an event."""
    shown = await change(sqlite_database, recorder, hourly_price=70_000)
    assert shown.status is InstanceStatus.RUNNING
    assert await log(sqlite_database) == []


async def test_the_times_of_a_status_are_those_of_its_change(
    sqlite_database: Database, recorder: Recorder, clock: ManualClock
) -> None:
    """Leaving `running` ends readiness, so that it is probed before it counts as running again."""
    await clock.advance(60)
    stopped = await change(sqlite_database, recorder, obs_status="exited")
    assert (stopped.stopped_at, stopped.ready_at) == (clock.now(), None)
    back = await change(sqlite_database, recorder, obs_status="running")
    assert back.status is InstanceStatus.STARTING
    served = await change(sqlite_database, recorder, ready_at=clock.now())
    assert (served.status, served.started_at) == (InstanceStatus.RUNNING, clock.now())


async def test_what_is_rolled_back_is_neither_stored_nor_logged(
    sqlite_database: Database, recorder: Recorder
) -> None:
    """The log line is written after the commit; it names the event and the facts."""

    def fail(connection: Any) -> None:
        instances.update_columns(connection, ID, {"obs_status": "exited"})
        recorder.refresh_status(connection, ID)
        raise LookupError

    with capture_logs() as lines, pytest.raises(LookupError):
        await sqlite_database.write(fail)
    assert lines == []
    assert await log(sqlite_database) == []
    with capture_logs() as lines:
        await change(sqlite_database, recorder, obs_status="exited")
    [line] = lines
    assert (line["event"], line["log_level"]) == ("instance_stopped", "info")
    assert (line["instance_id"], line["drift"]) == (ID, MOVED)


async def test_grave_events_are_warnings(sqlite_database: Database, recorder: Recorder) -> None:
    """Drift is one of them."""

    def append(connection: Any) -> None:
        instance = instances.lock(connection, ID)
        assert instance is not None
        recorder.append(connection, instance, None, EventType.DRIFT, also={"drift": MOVED})

    with capture_logs() as lines:
        await sqlite_database.write(append)
    assert [(line["event"], line["log_level"]) for line in lines] == [("instance_drift", "warning")]


async def test_a_terminated_record_comes_back_by_revival_alone(
    sqlite_database: Database, recorder: Recorder
) -> None:
    """No status follows `terminated`; a revival derives it from what is observed."""
    await change(sqlite_database, recorder, terminated_at=1)
    ended = await change(sqlite_database, recorder, terminated_at=None)
    assert ended.status is InstanceStatus.TERMINATED
    revived = await sqlite_database.write(lambda connection: recorder.revive(connection, ID))
    assert revived.status is InstanceStatus.STARTING
    assert await log(sqlite_database) == [
        ("instance.terminated", "running", MOVED),
        ("instance.starting", "terminated", None),
    ]
