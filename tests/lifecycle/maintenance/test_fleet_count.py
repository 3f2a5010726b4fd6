# SPDX-License-Identifier: Apache-2.0
"""The figures about the installation are counted by one worker and are the same everywhere."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from zoneinfo import ZoneInfo

import pytest
from sqlalchemy import Connection, update

from novitai.domain.api_key import KeyRequest, Scope
from novitai.domain.budgets import BudgetPeriod, BudgetTerms
from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.domain.key_limits import KeyBudget, KeyLimits
from novitai.domain.operation import AttemptState, OperationKind, Outcome
from novitai.domain.product import PRICE_UNITS_PER_USD
from novitai.lifecycle.maintenance.fleet_count import LEASE_MS, PAUSE, FleetCount
from novitai.store.engine.database import Database
from novitai.store.engine.metrics import StoreMetrics
from novitai.store.queries import events, fleet
from novitai.store.tables import operations
from novitai.testing import ManualClock
from tests.lifecycle.actions import CREATE, ask, fault
from tests.lifecycle.world import World, on_both_stores


@pytest.fixture
async def running(world: World) -> str:
    """Return a running instance."""
    instance_id = await world.create()
    await world.until_status(instance_id, InstanceStatus.RUNNING, within=400)
    return instance_id


async def no_balance() -> float | None:
    """Return no balance, as a Novita that does not tell it."""
    return None


def counter(database: Database, clock: ManualClock, holder: str) -> FleetCount:
    """Return the counter of a process."""
    return FleetCount(database, clock, no_balance, holder=holder, listing_interval=30)


@on_both_stores
async def test_a_worker_counts_what_there_is(world: World, running: str) -> None:
    """Within a pause the row has the fleet, the listing, and the money."""
    terms = BudgetTerms("team", 100 * PRICE_UNITS_PER_USD, BudgetPeriod.TOTAL, ZoneInfo("UTC"))
    await world.do(world.app.budgets.create(terms))
    await world.pass_time(60 + 2 * PAUSE)
    found = await world.app.fleet_count.read()
    assert found is not None
    assert [tuple(one) for one in found.instances] == [("running", "onDemand", 1)]
    assert world.clock.now() - found.counted_at <= PAUSE * 1000
    assert found.listed_at is not None
    assert found.listing_interval == world.settings.sync_interval_seconds
    assert found.burn > 0
    assert found.money.spend["gpu"] > 0
    assert found.money.budgets["team"] > 0
    assert found.money.balance is not None
    await ask(world, OperationKind.STOP, running)
    await world.quiet()
    await world.app.fleet_count.once()
    found = await world.app.fleet_count.read()
    assert found is not None
    assert [kind for kind, _, _ in found.operations] == ["stop"]


async def test_the_spending_is_that_of_the_costs(world: World, running: str) -> None:
    """The counter has the amount that `GET /api/costs` calls certain, also after a stop."""

    async def compare() -> Mapping[str, int]:
        await world.app.fleet_count.once()
        found = await world.app.fleet_count.read()
        assert found is not None
        details = await world.app.costs.of_instance(running)
        counted = await world.app.database.read(lambda c: fleet.spend(c, found.listed_at))
        exact = sum(least for least, _ in details.by_kind.values())
        assert sum(counted.values()) == pytest.approx(exact / 86_400_000, abs=2)
        return counted

    await world.pass_time(600)
    await compare()
    await ask(world, OperationKind.STOP, running)
    await world.until_status(running, InstanceStatus.STOPPED, within=400)
    stopped = await compare()
    await world.pass_time(3_600)
    assert (await compare())["gpu"] == stopped["gpu"]


async def test_the_budget_of_a_key_is_no_metric(world: World) -> None:
    """There may be any number of keys, and labels are bounded."""
    limits = KeyLimits(budget=KeyBudget(PRICE_UNITS_PER_USD, BudgetPeriod.DAY))
    await world.app.keys.create(KeyRequest("ci", frozenset({Scope.WRITE}), limits=limits))
    terms = BudgetTerms("team", PRICE_UNITS_PER_USD, BudgetPeriod.TOTAL, ZoneInfo("UTC"))
    await world.do(world.app.budgets.create(terms))
    await world.pass_time(60 + 2 * PAUSE)
    found = await world.app.fleet_count.read()
    assert found is not None
    assert list(found.money.budgets) == ["team"]


async def test_of_budgets_with_one_name_the_fullest_is_shown(world: World, running: str) -> None:
    """A name is a label, and a label has one value."""
    for name, usd in (("team", 100), ("team", 1), ("team", 100), ("other", 100)):
        amount = usd * PRICE_UNITS_PER_USD
        terms = BudgetTerms(name, amount, BudgetPeriod.TOTAL, ZoneInfo("UTC"))
        await world.do(world.app.budgets.create(terms))
    await world.pass_time(60 + 2 * PAUSE)
    found = await world.app.fleet_count.read()
    assert found is not None
    assert found.money.budgets["team"] == pytest.approx(100 * found.money.budgets["other"])


async def test_one_process_counts_at_a_time(database: Database, clock: ManualClock) -> None:
    """Another one takes over once the first one is gone, and only then."""
    first, second = counter(database, clock, "first"), counter(database, clock, "second")
    assert await first.once()
    assert not await second.once()
    assert await second.read() == await first.read()
    await clock.advance(LEASE_MS / 1000)
    assert await second.once()
    assert not await first.once()


async def test_a_correction_does_not_lower_the_spending(
    database: Database, clock: ManualClock
) -> None:
    """For Prometheus a counter that falls was reset, and its rate would be too high."""
    mine = counter(database, clock, "mine")
    await mine.once()
    before = await mine.read()
    assert before is not None
    told = replace(before, money=replace(before.money, spend={"gpu": 500, "disk": 0}))
    await database.write(lambda connection: fleet.save(connection, told))
    await clock.advance(60)
    await mine.once()
    after = await mine.read()
    assert after is not None
    assert after.money.counted_at > told.money.counted_at
    assert after.money.spend["gpu"] == 500


async def test_an_operation_that_no_worker_takes_is_seen(world: World) -> None:
    """Its age counts from the moment at which it was due; one with a lease has a worker."""
    await world.app.stop()
    await world.open(work=False)
    await world.app.jobs.stop(0)
    database, now = world.app.database, world.clock.now()
    await world.create()

    async def due(later: int) -> int | None:
        return await database.read(lambda c: fleet.oldest_due(c, now + later))

    assert await due(-1) is None
    assert await due(600_000) == now
    leased = update(operations).values(lease_until=now + 1_000)
    await database.write(lambda connection: connection.execute(leased).rowcount)
    assert await due(999) is None
    assert await due(1_000) == now


@on_both_stores
async def test_a_create_is_counted_once(world: World) -> None:
    """The process that commits a change counts it: create, attempt, statuses, time to running."""
    metrics = world.app.database.metrics
    created = await world.create()
    await world.until_status(created, InstanceStatus.RUNNING, within=400)
    assert metrics.creates == {**dict.fromkeys(Outcome, 0), Outcome.SUCCEEDED: 1}
    assert metrics.attempts[AttemptState.BOUGHT] == 1
    assert sum(metrics.attempts.values()) == 1
    assert {status: count for status, count in metrics.status_changes.items() if count} == {
        InstanceStatus.CREATING: 1,
        InstanceStatus.STARTING: 1,
        InstanceStatus.RUNNING: 1,
    }
    assert sum(metrics.create_to_running.buckets) == 1
    assert metrics.create_to_running.seconds > 0


async def test_refused_and_failed_creates_are_counted(world: World) -> None:
    """Each refused attempt counts, and the create that fails for it."""
    await fault(world, **CREATE, status=400, reason="BALANCE_NOT_ENOUGH", message="no money")
    created = await world.create()
    await world.until_status(created, InstanceStatus.FAILED, within=2_000)
    metrics = world.app.database.metrics
    assert metrics.creates[Outcome.FAILED] == 1
    assert metrics.attempts[AttemptState.REFUSED] >= 1
    assert metrics.attempts[AttemptState.BOUGHT] == 0


async def test_what_is_rolled_back_is_not_counted(database: Database, clock: ManualClock) -> None:
    """Only a commit counts."""

    def write(connection: Connection, *, fails: bool) -> None:
        events.append(
            connection,
            event_id=f"evt_{fails}",
            instance_id=None,
            event_type=EventType.SURPLUS_DELETED,
            at=clock.now(),
            data={},
            actor=None,
        )
        if fails:
            raise ValueError("rolled back")

    with pytest.raises(ValueError, match="rolled back"):
        await database.write(lambda connection: write(connection, fails=True))
    assert database.metrics.surplus_deleted == 0
    await database.write(lambda connection: write(connection, fails=False))
    assert database.metrics.surplus_deleted == 1


async def test_transactions_are_timed(database: Database) -> None:
    """Each read and each write counts once."""

    def count(metrics: StoreMetrics, kind: str) -> int:
        return sum(metrics.durations[kind].buckets)

    before = {kind: count(database.metrics, kind) for kind in ("read", "write")}
    await database.read(fleet.load)
    await database.write(fleet.load)
    await database.write(fleet.load)
    assert count(database.metrics, "read") == before["read"] + 1
    assert count(database.metrics, "write") == before["write"] + 2
