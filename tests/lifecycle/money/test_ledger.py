# SPDX-License-Identifier: Apache-2.0
"""The ledger of a whole control plane, against the bills of the emulator."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final

import pytest
from sqlalchemy import Connection, update

from novitai.domain.billing import DAY_MS, UNIT, LedgerSpan, SpanKind
from novitai.domain.billing_book import Book, Labels
from novitai.domain.billing_edges import Bounds, Look
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.requests import InstanceChange
from novitai.lifecycle.money import ledger
from novitai.lifecycle.money.costs import CostDetails, CostsWanted, GroupBy
from novitai.store.queries import billing, budgets, future_times
from novitai.store.tables import billing_spans
from tests.domain.making import TESTER
from tests.lifecycle.actions import adopt, ask, directly, fault
from tests.lifecycle.world import REQUEST, World, on_both_stores


async def billed(world: World, instance_id: str) -> int:
    """Return what the emulator bills for an instance by now, in exact units."""
    upstream_id = (await world.view(instance_id))["upstreamId"]
    sums = await world.emulator.call("GET", f"instances/{upstream_id}/billing")
    exact: int = sums["gpuExact"] + sums["storageExact"]
    return exact


async def cost(world: World, instance_id: str) -> CostDetails:
    """Return what a record costs; the amounts by kind always add up to the whole."""
    found = await world.app.costs.of_instance(instance_id)
    assert sum(least for least, _ in found.by_kind.values()) == found.cost.least
    assert sum(most for _, most in found.by_kind.values()) == found.cost.most
    return found


async def running(world: World) -> str:
    """Have an instance that runs."""
    one = await world.create()
    await world.until_status(one, InstanceStatus.RUNNING, within=400)
    return one


@on_both_stores
async def test_a_whole_life_is_billed(world: World) -> None:
    """The bill of a life lies between its bounds, which are seconds apart."""
    one = await running(world)
    await world.pass_time(1_200, step=20)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    stopped = await cost(world, one)
    await world.pass_time(600, step=20)
    resting = await cost(world, one)
    await ask(world, OperationKind.DELETE, one)
    await world.until_status(one, InstanceStatus.TERMINATED, within=900)
    ended, bill = await cost(world, one), await billed(world, one)

    assert ended.cost.least <= bill <= ended.cost.most
    assert ended.cost.most < 1.05 * ended.cost.least
    assert resting.by_kind[SpanKind.GPU] == stopped.by_kind[SpanKind.GPU]
    assert resting.by_kind[SpanKind.DISK] > stopped.by_kind[SpanKind.DISK]
    assert all(span.ended_by is not None for span in ended.spans)


async def test_a_changed_price_begins_another_span(world: World) -> None:
    """If the price of a running instance changes, an event tells it and the bounds hold."""
    one = await running(world)
    before = await world.view(one)
    await world.pass_time(120, step=20)
    await world.emulator.call(
        "PATCH",
        f"products/{before['productId']}",
        json={"price": 99_000, "instancesFollow": True},
    )
    await world.pass_time(180, step=20)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    found, after = await cost(world, one), await world.view(one)

    assert (await world.events(one)).count("instance.price_changed") == 1
    assert after["hourlyPrice"] == 1.98 != before["hourlyPrice"]
    rates = [span.rate for span in found.spans if span.kind is SpanKind.GPU]
    assert rates == [before["hourlyPrice"] * 100_000 * 24, 198_000 * 24]


async def test_an_adopted_instance_costs_from_its_adoption(world: World) -> None:
    """The bill from before the adoption is not counted."""
    seeded = await world.emulator.call("POST", "seed", json={"count": 1, "namePrefix": "theirs"})
    upstream_id = seeded["ids"][0]
    await world.pass_time(600, step=20)
    one = await adopt(world, upstream_id)
    before = await billed(world, one)
    await world.pass_time(300, step=20)
    shown = (await cost(world, one)).cost
    bill = await billed(world, one) - before

    assert shown.since is not None
    assert 0 < shown.least <= shown.most <= bill
    assert shown.least > 0.5 * bill


async def test_a_released_record_costs_no_more(world: World) -> None:
    """The ledger of a record ends with its release, though its instance runs on."""
    one = await running(world)
    await world.pass_time(120, step=20)
    await world.do(world.app.ownership.release(one, actor=TESTER))
    bill, released = await billed(world, one), (await cost(world, one)).cost
    await world.pass_time(300, step=20)

    assert (await cost(world, one)).cost == released
    assert released.least <= bill <= released.most


async def test_a_record_that_bought_nothing_costs_nothing(world: World) -> None:
    """Before the purchase the costs are 0."""
    one = await world.create()
    found = await cost(world, one)
    assert (found.cost.least, found.cost.most, found.spans) == (0, 0, [])


async def test_nothing_rests_on_memory(world: World) -> None:
    """A process that is killed and started again goes on with the same spans."""
    one = await running(world)
    await world.pass_listing()
    world.at_work.crash()
    await world.end()
    await world.pass_time(600, step=60)
    await world.open()
    await world.pass_listing()
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    await ask(world, OperationKind.DELETE, one)
    await world.until_status(one, InstanceStatus.TERMINATED, within=900)
    ended = (await cost(world, one)).cost
    assert ended.least <= await billed(world, one) <= ended.most
    assert ended.most < 1.1 * ended.least


async def test_costs_go_to_the_key_and_the_tags_of_their_time(world: World) -> None:
    """A change of tags moves only what is spent after it; the groups add up to the total."""
    began = world.clock.now()
    one = await world.create(replace(REQUEST, tags={"team": "red"}))
    await world.until_status(one, InstanceStatus.RUNNING, within=400)
    await world.pass_time(600, step=20)
    change = InstanceChange(frozenset({"tags"}), tags={"team": "blue"})
    await world.do(world.app.changes.change(one, change, actor=TESTER))
    await world.pass_time(600, step=20)

    async def amounts(tag: str | None) -> dict[str, int]:
        wanted = CostsWanted(began, world.clock.now(), GroupBy.KEY, tag)
        report = await world.app.costs.report(wanted)
        assert sum(row.amount for row in report.rows) == report.total
        return {row.key: row.amount for row in report.rows}

    teams = await amounts("team")
    assert set(teams) == {"red", "blue"}
    assert all(amount > 0 for amount in teams.values())
    assert await amounts(None) == {TESTER.key_id: sum(teams.values())}


@on_both_stores
async def test_a_look_from_before_a_surplus_instance_does_not_end_it(world: World) -> None:
    """It goes on costing, up to the time at which it was itself last seen, until a later look."""
    one, upstream_id = await running(world), "up-surplus"
    began_at = world.clock.now()

    def buy(connection: Connection) -> None:
        when = Bounds(began_at, began_at + 1_000)
        book = Book.bought(one, upstream_id, 500, when, Labels())
        billing.save(connection, [(None, book)])

    async def look(at: int) -> bool:
        def watch(connection: Connection) -> bool:
            ledger.watch(connection, {}, Look(at, at + 500), complete=True)
            return upstream_id in {one.state.upstream_id for one in billing.watched(connection)}

        return await world.app.database.write(watch)

    await world.app.database.write(buy)
    assert await look(began_at - 10_000)
    await cost(world, one)
    assert not await look(began_at + 5_000)
    await cost(world, one)


async def test_costs_are_a_bound_while_novita_is_away(world: World) -> None:
    """What runs unseen may be billed up to now."""
    began, one = world.clock.now(), await running(world)
    await fault(world, kind="call", path="*", status=503)
    await world.pass_time(900, step=30)
    report = await world.app.costs.report(CostsWanted(began, world.clock.now() + 1))
    bill = await billed(world, one)
    assert report.total * UNIT < bill <= report.total_at_most * UNIT


@on_both_stores
async def test_sums_follow_corrected_times(world: World) -> None:
    """A clock that was ahead moves closed spans, and what they add up to."""
    one = await running(world)
    await world.pass_time(600, step=20)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    before = await cost(world, one)
    earlier = world.clock.now() - 400_000

    def correct(connection: Connection) -> None:
        future_times.pull_back(connection, earlier, placement_deadline=7_200_000)

    await world.app.database.write(correct)
    after = await cost(world, one)
    gpu = [span for span in after.spans if span.kind is SpanKind.GPU]
    assert max(span.ended_by or 0 for span in gpu) <= earlier
    assert after.by_kind[SpanKind.GPU] < before.by_kind[SpanKind.GPU]


TELLS_ALL: dict[str, Any] = {"startStopTimes": True, "releaseTimes": True}
TELLS_DAYS: dict[str, Any] = {"startStopTimes": False, "releaseTimes": False}
WIDE: Final = replace(REQUEST, rootfs_size=500)
HOURS: Final = 3_600.0


async def purged(world: World, told: dict[str, Any]) -> str:
    """Have an instance that has been stopped for 8 days; its disk was purged after 7."""
    await world.emulator.call("PATCH", "settings", json={**told, "exitedStoragePrice": 250})
    one = await world.create(WIDE)
    await world.until_status(one, InstanceStatus.RUNNING, within=400)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    await world.pass_listing()
    await world.end()
    await world.pass_alone(8 * 24 * HOURS)
    await world.open()
    await world.pass_time(120, step=20)
    return one


@on_both_stores
@pytest.mark.parametrize("told", [TELLS_ALL, TELLS_DAYS])
async def test_a_purged_disk_is_not_billed(world: World, told: dict[str, Any]) -> None:
    """Every sum ends with the purge of the disk, though nothing is written then."""
    began, one = world.clock.now(), await purged(world, told)
    found, bill = await cost(world, one), await billed(world, one)
    assert found.cost.least <= bill <= found.cost.most < 1.01 * found.cost.least
    now = world.clock.now()

    def read(connection: Connection) -> tuple[int, int, int]:
        spent = sum(one.exact for one in budgets.spent(connection, began, now))
        late = sum(one.exact for one in budgets.spent(connection, now - DAY_MS // 2, now))
        return spent, late, billing.burn(connection, now)

    assert await world.app.database.read(read) == (found.cost.most, 0, 0)
    assert (await world.app.costs.report(CostsWanted(now - DAY_MS // 2, now))).rows == []
    report = await world.app.costs.report(CostsWanted(began, now))
    assert report.total * UNIT <= bill <= (report.total_at_most + 1) * UNIT

    await ask(world, OperationKind.DELETE, one)
    await world.until_status(one, InstanceStatus.TERMINATED, within=900)
    ended = (await cost(world, one)).cost
    assert (ended.least, ended.most) == (found.cost.least, found.cost.most)
    assert await billed(world, one) == bill


@pytest.mark.parametrize("told", [TELLS_ALL, TELLS_DAYS])
async def test_another_disk_is_billed_after_a_purge(world: World, told: dict[str, Any]) -> None:
    """An upgrade brings a purged instance up again; a start is refused."""
    one = await purged(world, told)
    upstream_id = (await world.view(one))["upstreamId"]
    before = await cost(world, one)
    await directly(world, "upgrade", {"instanceId": upstream_id, "imageUrl": "ubuntu:24.04"})
    await world.pass_time(3_600, step=60)
    found, bill = await cost(world, one), await billed(world, one)
    # The bill is of now, which is after the last listing.
    now = world.clock.now()
    most = sum((one.rate or 0) * one.most(now) for one in found.spans)
    assert found.cost.least <= bill <= most < 1.02 * found.cost.least
    assert found.by_kind[SpanKind.DISK][0] > before.by_kind[SpanKind.DISK][0]


async def test_a_jump_of_the_clock_moves_the_purge(world: World) -> None:
    """It moves with the stop; if the jump is not known, the next listing tells it again."""
    one = await purged(world, TELLS_ALL)

    def disk(connection: Connection) -> LedgerSpan:
        [book] = billing.books_of(connection, [one])[one]
        assert book.disk is not None
        return book.disk

    before = await world.app.database.read(disk)
    now = world.clock.now()
    await world.app.database.write(
        lambda connection: future_times.shift_runs(connection, 5_000, now=now)
    )
    moved = await world.app.database.read(disk)
    assert moved.least(now) == before.least(now)
    assert moved.expires_by == (before.expires_by or 0) + 5_000

    def correct(connection: Connection) -> None:
        # As if the purge had been noted while the clock was far ahead.
        wrong = {"expires_after": now + DAY_MS, "expires_by": now + DAY_MS, "began_by": now + 9_000}
        mine = billing_spans.c.instance_id == one, billing_spans.c.ended_by.is_(None)
        connection.execute(update(billing_spans).where(*mine).values(wrong))
        future_times.pull_back(connection, now, placement_deadline=7_200_000)

    await world.app.database.write(correct)
    assert (await world.app.database.read(disk)).expires_by is None
    await world.pass_time(120, step=20)
    told = await world.app.database.read(disk)
    assert told.expires_by is not None
    assert abs(told.expires_by - (before.expires_by or 0)) <= 5_000
