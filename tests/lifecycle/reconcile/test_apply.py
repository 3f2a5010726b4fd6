# SPDX-License-Identifier: Apache-2.0
"""How what a listing showed is written: late results of older listings change nothing."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
from structlog.testing import capture_logs

from novitai.domain.billing_edges import Look
from novitai.domain.instance import GONE, Instance, InstanceStatus
from novitai.ids import Ids
from novitai.jobs.embedded import EmbeddedEngine
from novitai.lifecycle.core import Core
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.events.recorder import Recorder
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import ledger
from novitai.lifecycle.operations.follow_ups import FollowUps
from novitai.lifecycle.operations.late_calls import LateCalls
from novitai.lifecycle.reconcile.apply import PAGE, Applier
from novitai.lifecycle.reconcile.diff import Changed, Missing
from novitai.settings import FailedInstancePolicy
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.queries import events, instances
from novitai.store.vault import Vault
from novitai.testing import ManualClock, an_instance
from novitai.upstream import reading
from novitai.upstream.models import UpstreamInstance

SINCE = 1_000_000
"""When absence began, in Unix milliseconds."""


@pytest.fixture
def applier(database: Database, clock: ManualClock) -> Applier:
    """What writes listings, on each store in turn; no engine runs."""
    ids = Ids(random.Random(3))
    jobs = EmbeddedEngine(database, clock, ids)
    recorder = Recorder(clock, ids, Outbox(clock, ids, jobs))
    vault = Vault(b"a secret of at least thirty-two bytes")
    core = Core(database, vault, clock, ids, jobs, recorder)
    follow_ups = FollowUps(core, FailedInstancePolicy.STOP)
    return Applier(
        core, follow_ups, LateCalls(core), LimitReviews(core, follow_ups), call_timeout=15
    )


def at(began_at: int) -> Look:
    """A listing that took no time."""
    return Look(began_at, began_at)


async def have(database: Database, number: int = 0, **columns: Any) -> Instance:
    """Have an instance that runs and was seen running."""
    made = replace(an_instance(), id=f"inst_1_{number:012}")
    seen = {"status": "running", "upstream_id": f"up-{number}", "confirmed_at": 1, "ready_at": 1}

    def write(connection: Any) -> None:
        instances.insert(connection, made, b"sealed")
        instances.update_columns(connection, made.id, {**seen, "obs_status": "running", **columns})

    await database.write(write)
    return await load(database, made.id)


async def load(database: Database, instance_id: str) -> Instance:
    """Load an instance."""
    found = await database.read(lambda connection: instances.load(connection, instance_id))
    assert found is not None
    return found


def missing(instance: Instance, count: int, since: int = SINCE) -> Missing:
    """The absence of an instance from so many complete listings."""
    return Missing(instance.id, instance.upstream_id or "", since, count, since, count)


def row(instance: Instance, status: str) -> UpstreamInstance:
    """A row of a listing."""
    read = reading.instance({"id": instance.upstream_id, "name": "box", "status": status})
    assert read is not None
    return read


async def absence(database: Database, instance: Instance) -> tuple[int | None, int, int]:
    """Tell since when and how often an instance was missing, and how often it was not listed."""
    seen = (await load(database, instance.id)).observed
    return seen.missing_since, seen.missing_count, seen.unlisted_count


async def test_an_older_listing_does_not_lower_a_count(
    applier: Applier, database: Database
) -> None:
    """Two passes overlap: the one that counted less is written last, and is left out."""
    instance = await have(database)
    await applier.missing([missing(instance, 3)], at(SINCE + 3))
    await applier.missing([missing(instance, 2)], at(SINCE + 2))
    assert await absence(database, instance) == (SINCE, 3, 3)
    await applier.missing([missing(instance, 4)], at(SINCE + 4))
    assert await absence(database, instance) == (SINCE, 4, 4)


async def test_an_absence_that_began_later_replaces_an_older_one(
    applier: Applier, database: Database
) -> None:
    """It was seen, or acted upon, in between: the count begins with one."""
    instance = await have(database)
    await applier.missing([missing(instance, 3)], at(SINCE + 3))
    await applier.missing([missing(instance, 1, since=SINCE + 9)], at(SINCE + 9))
    assert await absence(database, instance) == (SINCE + 9, 1, 1)


@pytest.mark.parametrize("column", ["obs_at", "acted_at"])
async def test_a_listing_from_before_what_is_known_changes_nothing(
    applier: Applier, database: Database, column: str
) -> None:
    """Neither what it showed, nor what it lacked, nor that something is gone is written."""
    instance = await have(database, **{column: SINCE + 5})
    await applier.changed([Changed(instance.id, row(instance, "exited"), "digest")], at(SINCE + 5))
    await applier.missing([missing(instance, 9)], at(SINCE + 5))
    await applier.gone(instance.id, SINCE + 5)
    assert await load(database, instance.id) == instance
    await applier.changed([Changed(instance.id, row(instance, "exited"), "digest")], at(SINCE + 6))
    assert (await load(database, instance.id)).status is InstanceStatus.STOPPED


async def test_what_is_gone_is_terminated_and_told(applier: Applier, database: Database) -> None:
    """The record ends with the reason, and its log says so once."""
    instance = await have(database)
    await applier.gone(instance.id, SINCE)
    ended = await load(database, instance.id)
    assert ended.status is InstanceStatus.TERMINATED
    assert ended.error is not None
    assert ended.error.code == GONE
    log = await database.read(lambda c: events.of_instance(c, instance.id))
    assert [event.type.value for event in log] == ["instance.terminated"]


async def test_more_rows_than_a_page_are_all_written(applier: Applier, database: Database) -> None:
    """One transaction takes two hundred rows; the others follow in the next."""
    made = [await have(database, number) for number in range(PAGE + 1)]
    await applier.missing([missing(one, 1) for one in made], at(SINCE))
    tracked = await database.read(instances.tracked)
    assert [one.missing_count for one in tracked] == [1] * (PAGE + 1)


async def test_a_record_that_cannot_be_written_keeps_no_other_back(
    applier: Applier, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other rows of its page are stored, and the next listing tries it again."""
    first, broken, last = [await have(database, number) for number in range(3)]
    observed = applier._limits.observed

    def fail(connection: Any, before: Instance, seen: Any) -> None:
        if before.id == broken.id:
            # An error of the database, which ends a transaction on PostgreSQL.
            instances.insert(connection, before, b"sealed")
        observed(connection, before, seen)

    def changes() -> list[Changed]:
        return [Changed(one.id, row(one, "exited"), "digest") for one in (first, broken, last)]

    monkeypatch.setattr(applier._limits, "observed", fail)
    with capture_logs() as lines:
        await applier.changed(changes(), at(SINCE))
    failed = [line["instance_id"] for line in lines if line["event"] == "observation_failed"]
    assert failed == [broken.id]
    statuses = [(await load(database, one.id)).status for one in (first, broken, last)]
    assert statuses == ["stopped", "running", "stopped"]
    monkeypatch.undo()
    await applier.changed(changes(), at(SINCE + 1))
    assert (await load(database, broken.id)).status is InstanceStatus.STOPPED


async def test_an_absence_that_cannot_be_written_keeps_no_other_back(
    applier: Applier, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other absences of its page are counted; it is counted from the next listing on."""
    first, broken, last = [await have(database, number) for number in range(3)]
    absent = ledger.absent

    def fail(connection: Any, missing: Any, at: int) -> None:
        if broken.id in missing:
            raise ValueError("a defect")
        absent(connection, missing, at)

    monkeypatch.setattr(ledger, "absent", fail)
    with capture_logs() as lines:
        await applier.missing([missing(one, 1) for one in (first, broken, last)], at(SINCE))
    failed = [line["instance_id"] for line in lines if line["event"] == "observation_failed"]
    assert failed == [broken.id]
    counts = [(await absence(database, one))[1] for one in (first, broken, last)]
    assert counts == [1, 0, 1]


async def test_a_record_whose_end_cannot_be_written_is_told(
    applier: Applier, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The pass goes on to the others."""
    broken, other = [await have(database, number) for number in range(2)]
    write = applier._write_gone

    def fail(connection: Any, instance_id: str, began_at: int) -> None:
        if instance_id == broken.id:
            raise ValueError("a defect")
        write(connection, instance_id, began_at)

    monkeypatch.setattr(applier, "_write_gone", fail)
    with capture_logs() as lines:
        await applier.gone(broken.id, SINCE)
        await applier.gone(other.id, SINCE)
    assert [line["instance_id"] for line in lines if "exc_info" in line] == [broken.id]
    assert (await load(database, other.id)).status is InstanceStatus.TERMINATED


async def test_a_store_in_trouble_ends_the_pass(
    applier: Applier, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It concerns all records, and the caller tells it."""
    one = await have(database)

    def fail(*_: Any, **__: Any) -> None:
        raise StoreUnavailable("no server")

    monkeypatch.setattr(applier, "_write_gone", fail)
    monkeypatch.setattr(applier, "_write_missing", fail)
    with pytest.raises(StoreUnavailable):
        await applier.gone(one.id, SINCE)
    with pytest.raises(StoreUnavailable):
        await applier.missing([missing(one, 1)], at(SINCE))
