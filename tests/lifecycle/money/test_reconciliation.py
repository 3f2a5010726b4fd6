# SPDX-License-Identifier: Apache-2.0
"""The ledger of a whole control plane, compared with the bills of the emulator."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from typing import Any

import orjson
import pytest
from sqlalchemy import Connection, delete, select, update

from novitai.domain.account import AccountState
from novitai.domain.billing import DAY_MS, HOUR_MS
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.reconciliation import BillState, Comparison
from novitai.domain.requests import WebhookRequest
from novitai.lifecycle.money.reconciliation import (
    LONGEST_WINDOW,
    PASS_EVERY,
    ReconciliationReport,
)
from novitai.store.queries import account, deliveries, events, leases
from novitai.store.queries import reconciliation as bills
from novitai.store.queries.reconciliation import BillReading
from novitai.store.tables import (
    bill_readings,
    billed_days,
    billing_spans,
    billing_states,
    listed_instances,
)
from tests.lifecycle.actions import adopt, ask, directly, fault, heal
from tests.lifecycle.world import REQUEST, World, on_both_stores

HOUR = 3_600.0
LIST = "/openapi/v1/billing/bill/list"
MATCHED = BillState.MATCHED
HOURLY = 30_000 * DAY_MS
"""The exact amount of an hour of a seeded instance: $0.30."""


@pytest.fixture(autouse=True)
async def _at_noon(world: World) -> None:
    """It is noon by the emulator's clock; bills were read, and the account listed, for days."""
    now = world.emulator.app.state.emulator.clock.now()
    noon = (24 * HOUR - now % (24 * HOUR)) + 12 * HOUR
    await world.emulator.call("POST", "clock", json={"advance": noon})
    await world.emulator.call("PATCH", "settings", json={"billListsPerMinute": 0})

    async def has_read() -> bool:
        stored = await world.app.database.read(bills.load_reading)
        return stored is not None and stored.reached is not None

    await world.until(has_read, within=60)

    def write(connection: Connection) -> None:
        account.note_listed(connection, {"long-ago": None}, world.clock.now() - 5 * DAY_MS)
        reached = bill_readings.c.reached - 3 * DAY_MS
        connection.execute(update(bill_readings).values(reached=reached))

    await world.app.database.write(write)


async def seed(world: World, hours: float, name: str = "theirs", **more: Any) -> str:
    """Have an instance that has been billed for so many hours; it is listed."""
    given = {"names": [name], "ageSeconds": hours * HOUR, **more}
    made = await world.emulator.call("POST", "seed", json=given)
    await world.pass_listing()
    upstream_id: str = made["ids"][0]
    return upstream_id


async def bought(world: World, upstream_id: str, *, late: float = 0) -> str:
    """Make the ledger know an instance as one that was bought when its bills begin.

    Args:
        world: The world.
        upstream_id: The instance.
        late: By how many hours the begin in the ledger is too late.
    """
    one = await adopt(world, upstream_id)
    billed = await world.emulator.call("GET", f"instances/{upstream_id}/billing")
    age = world.emulator.app.state.emulator.clock.now() - billed["starts"][0]
    began = world.clock.now() - round(age * 1000) + round(late * HOUR_MS)
    states, spans = billing_states.c, billing_spans.c

    def write(connection: Connection) -> None:
        connection.execute(
            update(billing_spans)
            .where(spans.upstream_id == upstream_id)
            .values(began_after=began, began_by=began)
        )
        connection.execute(
            update(billing_states)
            .where(states.upstream_id == upstream_id)
            .values(since=began, adopted=False)
        )

    await world.app.database.write(write)
    return one


async def forget(world: World, upstream_id: str) -> None:
    """Have an instance that no listing has ever shown, and none will show."""
    await directly(world, "delete", {"instanceId": upstream_id})
    await world.pass_listing()

    def write(connection: Connection) -> None:
        connection.execute(
            delete(listed_instances).where(listed_instances.c.upstream_id == upstream_id)
        )

    await world.app.database.write(write)


async def report(world: World, since: float = 24 * 30, until: float = 0) -> ReconciliationReport:
    """Compare a time; it is given in hours before now."""
    now = world.clock.now()
    return await world.app.reconciliation.report(
        now - round(since * HOUR_MS), now - round(until * HOUR_MS)
    )


async def found(world: World, upstream_id: str, *times: float) -> Comparison:
    """Return the comparison of one owner."""
    [one] = [one for one in (await report(world, *times)).owners if one.upstream_id == upstream_id]
    return one.found


async def told(world: World) -> list[tuple[str, Any]]:
    """Return the types of the events about costs, and their owners."""

    def read(connection: Connection) -> list[tuple[str, Any]]:
        return [
            (one.type.value.removeprefix("cost."), one.data.get("upstreamId"))
            for one in events.since(connection)
            if one.type.value.startswith("cost.")
        ]

    return await world.app.database.read(read)


async def reading(world: World) -> BillReading:
    """Return how far the bills were read."""
    stored = await world.app.database.read(bills.load_reading)
    assert stored is not None
    return stored


async def lists(world: World) -> int:
    """Count the lists of bills."""
    counts: dict[str, int] = (await world.emulator.call("GET", "counts"))["counts"]
    return counts.get(f"GET {LIST}", 0)


async def read_now(world: World) -> bool:
    """Read the bills now; virtual time passes."""
    reading = asyncio.create_task(world.app.reconciliation.once())
    while not reading.done():
        await world.pass_time(1)
    return await reading


@on_both_stores
async def test_a_whole_life_agrees_with_its_bills(world: World) -> None:
    """Price change, stop, start, thrown away attempt, deletion: each window of hours agrees."""
    await fault(world, kind="outcome", operation="create", result="exited", times=1)
    lost = await world.create(replace(REQUEST, name="lost"))
    await world.until_status(lost, InstanceStatus.FAILED, within=900)
    one = await world.create(replace(REQUEST, rootfs_size=500))
    await world.until_status(one, InstanceStatus.RUNNING, within=900)
    product = (await world.view(one))["productId"]
    prices = {"price": 99_000, "instancesFollow": True}
    await world.pass_time(HOUR, step=60)
    await world.emulator.call("PATCH", f"products/{product}", json=prices)
    await world.pass_time(600, step=60)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    await world.pass_time(600, step=60)
    await ask(world, OperationKind.START, one)
    await world.until_status(one, InstanceStatus.RUNNING, within=600)
    await world.pass_time(600, step=60)
    upstream_id = (await world.view(one))["upstreamId"]
    await ask(world, OperationKind.DELETE, one)
    await world.until_status(one, InstanceStatus.TERMINATED, within=900)
    await world.pass_time(3.5 * HOUR, step=300)

    whole = await found(world, upstream_id)
    sums = await world.emulator.call("GET", f"instances/{upstream_id}/billing")
    assert whole.state is MATCHED
    assert whole.pending == 0
    assert whole.billed == sums["units"] * 864_000_000 > 0
    assert whole.most is not None
    assert whole.most < 1.15 * whole.least
    for begin in range(1, 8):
        for one_report in [await report(world, begin, begin - 1), await report(world, begin)]:
            assert {each.found.state for each in one_report.owners} <= {MATCHED}
    assert await told(world) == []
    assert await lists(world) >= 4


async def test_what_an_adopted_instance_has_cost_before(world: World) -> None:
    """Bills from before the adoption are shown apart, and the rest agrees."""
    upstream_id = await seed(world, 10)
    one = await adopt(world, upstream_id)
    await world.pass_time(3 * HOUR, step=60)
    await read_now(world)
    adopted = await found(world, upstream_id)
    sums = await world.emulator.call("GET", f"instances/{upstream_id}/billing")
    assert adopted.state is MATCHED
    assert adopted.before_adoption == pytest.approx(10 * HOURLY, rel=0.01)
    assert adopted.billed == pytest.approx(HOURLY, rel=0.05)
    assert adopted.billed + adopted.before_adoption <= sums["gpuExact"]
    [row] = (await report(world)).owners
    assert row.record is not None
    assert row.record[0] == one
    assert await told(world) == []


async def test_unmanaged_instances_are_no_unknown_owners(world: World) -> None:
    """Bills of an instance that a listing has shown are summed up apart, also after its end."""
    ours = await seed(world, 10, "ours")
    await bought(world, ours)
    theirs = await seed(world, 10)
    await directly(world, "delete", {"instanceId": theirs})
    await world.pass_listing()
    assert await read_now(world)
    shown = await report(world)
    assert [one.upstream_id for one in shown.owners] == [ours]
    assert shown.unmanaged == pytest.approx(8 * HOURLY, rel=0.01)
    assert await told(world) == []


@on_both_stores
async def test_an_unknown_owner_is_told_once_a_day(world: World) -> None:
    """Neither another pass nor a restart tells it again; the event has an object of its own."""
    ours = await seed(world, 30, "ours")
    await bought(world, ours)
    theirs = await seed(world, 30)
    await forget(world, theirs)
    assert await read_now(world)
    # Noon: ten hours of today, and the rest yesterday.
    assert await told(world) == [("unknown_owner", theirs)] * 2
    assert await read_now(world)
    await world.reopen()
    await world.pass_time(30)
    assert await read_now(world)
    assert await told(world) == [("unknown_owner", theirs)] * 2
    assert (await found(world, theirs)).state is BillState.UNKNOWN_OWNER

    def read(connection: Connection) -> list[Any]:
        log = [one for one in events.since(connection) if one.type.value.startswith("cost.")]
        return [(one.data, one.actor) for one in log]

    [(first, actor), (second, _)] = await world.app.database.read(read)
    assert set(first) == {"upstreamId", "day", "billed"}
    assert first["day"] < second["day"]
    assert second["billed"] == 3.0
    assert actor is not None
    assert actor.view() == {"system": "reconciliation"}


async def test_events_about_costs_go_to_standing_webhooks(world: World) -> None:
    """A standing webhook gets the event, in the line of the account."""
    theirs = await seed(world, 10)
    await bought(world, await seed(world, 10, "ours"))
    await forget(world, theirs)
    made = await world.do(world.app.webhooks.create(WebhookRequest("https://example.com/hook")))
    await read_now(world)
    sent = await world.app.database.read(
        lambda c: deliveries.of_webhook(c, made.webhook.id, after=None, limit=100)
    )
    assert [one.event_type.value for one in sent] == ["cost.unknown_owner"]
    assert [one.instance_id for one in sent] == [None]


@pytest.mark.parametrize(("late", "state"), [(4, "over"), (0, "matched"), (-4, "under")])
async def test_a_difference_is_told(world: World, late: float, state: str) -> None:
    """More than the ledger has is told at once; less is told when no bill is late any more."""
    upstream_id = await seed(world, 44, "ours")
    await bought(world, upstream_id, late=late)
    await read_now(world)
    await read_now(world)
    assert await told(world) == ([("unexplained", upstream_id)] if late else [])
    comparison = await found(world, upstream_id)
    assert comparison.state.value == state
    assert comparison.difference == pytest.approx(late * HOURLY, rel=0.01)


async def test_a_missing_bill_is_not_told_while_it_may_be_late(world: World) -> None:
    """The same difference, a day younger, is no event yet."""
    upstream_id = await seed(world, 20, "ours")
    await bought(world, upstream_id, late=-4)
    await read_now(world)
    assert await told(world) == []
    assert (await found(world, upstream_id)).pending > 4 * HOURLY


@on_both_stores
async def test_where_no_owner_is_ours_only_that_is_told(world: World) -> None:
    """Strange owners are not told one by one if none of the bills is ours; once a day."""
    await bought(world, await seed(world, 1, "ours"), late=-70)
    for name in ("a", "b"):
        await forget(world, await seed(world, 30, name))
    await read_now(world)
    await read_now(world)
    assert await told(world) == [("reconciliation_unavailable", None)]


async def test_bills_that_come_too_fast_are_asked_for_later(world: World) -> None:
    """LIST_BILL_TOO_FAST is waited for, ever longer, and a pass goes on where it has come to."""
    await bought(world, await seed(world, 10, "ours"))
    await fault(
        world, kind="call", path=LIST, status=429, reason="LIST_BILL_TOO_FAST",
        queryContains="cloud_storage", times=3,
    )  # fmt: skip
    before = await lists(world)
    assert not await read_now(world)
    state = await reading(world)
    assert (state.failures, state.next_category, state.reached) == (1, 1, state.reached)
    first = state.due_at - world.clock.now()
    assert 50_000 < first <= 60_000
    assert not await read_now(world)
    assert (await reading(world)).due_at - world.clock.now() > 1.8 * first
    await world.pass_time(150)  # the worker itself
    await world.pass_time(300, step=5)
    state = await reading(world)
    assert (state.failures, state.pass_end) == (0, None)
    # Bills of GPUs were asked for once, those of disks until they came.
    assert await lists(world) - before == 1 + 4
    assert [one.found.state for one in (await report(world)).owners] == [MATCHED]
    assert not world.app.client.health().down


async def test_a_limit_of_one_list_a_minute_is_enough(world: World) -> None:
    """A pass comes to its end even if each list but one a minute is refused."""
    await bought(world, await seed(world, 10, "ours"))
    await world.emulator.call("PATCH", "settings", json={"billListsPerMinute": 1})
    assert not await read_now(world)
    await world.pass_time(300, step=5)
    assert (await reading(world)).pass_end is None
    assert [one.found.state for one in (await report(world)).owners] == [MATCHED]


async def test_an_upstream_that_is_away_switches_off_the_figure_alone(world: World) -> None:
    """Health stays up, what is known stays, and the bills are read when it is back."""
    await bought(world, await seed(world, 10, "ours"))
    await fault(world, kind="call", path=LIST, status=503)
    for _ in range(12):
        assert not await read_now(world)
    state = await reading(world)
    assert state.due_at - world.clock.now() <= PASS_EVERY
    assert not world.app.client.health().down
    [row] = (await report(world)).owners
    assert row.found.state is BillState.NOT_BILLED_YET
    await heal(world)
    await world.pass_time(HOUR + 120, step=15)
    assert [one.found.state for one in (await report(world)).owners] == [MATCHED]
    assert await told(world) == []


@pytest.mark.parametrize(
    "body",
    [
        "<html>",
        "[]",
        '{"bills": "many"}',
        '{"bills": [1, null, "x", {}]}',
        '{"bills": [{"ownerID": "up", "startTime": "soon", "amount": "1"}]}',
        '{"bills": [], "total": 500}',
    ],
)
async def test_an_answer_that_is_no_list_of_bills_is_not_believed(world: World, body: str) -> None:
    """It is not taken for an empty list, and shorter windows are asked for afterwards."""
    await bought(world, await seed(world, 10, "ours"))
    await fault(world, kind="call", path=LIST, rawBody=body, contentType="application/json")
    assert not await read_now(world)
    assert not await read_now(world)
    assert (await reading(world)).window_ms == LONGEST_WINDOW // 4
    await heal(world)
    assert await read_now(world)
    assert [one.found.state for one in (await report(world)).owners] == [MATCHED]
    assert await told(world) == []


async def test_bills_that_cannot_be_read_are_left_out(world: World) -> None:
    """A text, a negative and a missing amount make their hours uncertain, and nothing else."""
    upstream_id = await seed(world, 40, "ours")
    await bought(world, upstream_id)
    begin = ((await reading(world)).reached or 0) + 3 * DAY_MS
    first = begin // 1000

    def line(number: int, **amount: object) -> dict[str, object]:
        return {"ownerID": upstream_id, "startTime": str(first - 3600 * number), **amount}

    words: list[object] = ["a lot", "-3000", "1e300", None, []]
    rows = [line(number, amount=word) for number, word in enumerate(words, start=1)]
    rows.append(line(6))
    rows += [line(number, amount=3000) for number in range(7, 39)]
    await fault(
        world, kind="call", path=LIST, queryContains="gpu", contentType="application/json",
        rawBody=orjson.dumps({"bills": rows}).decode(),
    )  # fmt: skip
    assert await read_now(world)
    comparison = await found(world, upstream_id, 39)
    assert (comparison.state, comparison.difference) == (MATCHED, 0)
    assert comparison.billed == pytest.approx(32 * HOURLY, rel=0.1)
    assert await told(world) == []


@on_both_stores
async def test_two_passes_at_once_tell_each_event_once(world: World) -> None:
    """One process reads at a time; the one that comes late does nothing."""
    await bought(world, await seed(world, 10, "ours"))
    theirs = await seed(world, 10)
    await forget(world, theirs)
    worlds = [world]
    url = world.settings.database_url
    assert url is not None
    if url.get_secret_value().startswith("postgresql"):
        worlds.append(World(world.settings, world.clock, world.emulator, seed=99))
        await worlds[1].open(work=False)
    passes = [asyncio.create_task(one.app.reconciliation.once()) for one in worlds * 2]
    while not all(one.done() for one in passes):
        await world.pass_time(1)
    assert any([await one for one in passes])
    for one in worlds[1:]:
        assert await read_now(one)
        await one.end()
    assert await told(world) == [("unknown_owner", theirs)]


async def test_another_process_has_the_lease(world: World) -> None:
    """While another process reads, no bill is asked for and nothing is written."""
    now = world.clock.now()
    await world.app.database.write(
        lambda c: leases.take(c, "reconciliation", "other", now=now, until=now + 30_000)
    )
    before = await lists(world)
    assert not await world.app.reconciliation.once()
    assert await lists(world) == before
    await world.pass_time(31)
    assert await read_now(world)


@on_both_stores
async def test_a_pass_that_was_killed_goes_on(world: World) -> None:
    """The next process keeps the bills that were read, and tells once what was not told."""
    await bought(world, await seed(world, 10, "ours"))
    theirs = await seed(world, 10)
    await forget(world, theirs)
    running = asyncio.create_task(world.app.reconciliation.once())

    async def halfway() -> bool:
        return (await reading(world)).next_category == 1

    await world.until(halfway, within=30, step=0.5)
    world.at_work.crash()
    await world.pass_time(5)
    await asyncio.gather(running, return_exceptions=True)
    await world.end()
    before = await lists(world)
    await world.pass_alone(31)
    await world.open()
    state = await reading(world)
    assert (state.next_category, state.pass_end is None) == (1, False)
    assert await told(world) == []
    await world.pass_time(10)
    assert await read_now(world)
    assert await lists(world) - before == 1
    assert await told(world) == [("unknown_owner", theirs)]


async def test_the_worker_reads_once_an_hour(world: World) -> None:
    """The next pass comes an hour after the one before, by its row, also after a restart."""
    first = await reading(world)
    assert first.reached is not None
    count = await lists(world)
    await world.reopen()
    await world.pass_time(HOUR - 120, step=60)
    assert await lists(world) == count == 2
    await world.pass_time(180, step=15)
    assert await lists(world) == 4
    second = await reading(world)
    assert second.reached == first.reached + 3 * DAY_MS + HOUR_MS
    assert second.due_at - world.clock.now() <= PASS_EVERY


async def test_a_hold_of_the_account_reads_no_bills(world: World) -> None:
    """The bills may be those of another account, so the worker waits for the end of the hold."""
    await world.pass_time(30)
    count = await lists(world)
    state = AccountState(keys=("k",), restored_at=world.clock.now())
    await world.app.database.write(lambda connection: account.save_state(connection, state))
    await make_due(world)
    await world.pass_time(60, step=5)
    assert await lists(world) == count


async def make_due(world: World) -> None:
    """Make a pass due now."""

    def write(connection: Connection) -> None:
        connection.execute(update(bill_readings).values(due_at=0))

    await world.app.database.write(write)


async def test_bills_wait_for_a_listing(world: World) -> None:
    """After a downtime the account is listed before any bill is judged."""
    await world.end()
    await world.pass_alone(3 * HOUR)
    await fault(world, kind="call", path="/gpu/instances", status=503, times=20)
    await world.open()
    count = await lists(world)
    await world.pass_time(30, step=5)
    assert await lists(world) == count
    await heal(world)
    await world.pass_time(180, step=5)
    assert await lists(world) == count + 2


async def test_a_clock_of_novita_that_has_moved_tells_nothing(world: World) -> None:
    """If hours of the bills cannot be found in the ledger, the pass compares nothing."""
    await bought(world, await seed(world, 10, "ours"))
    await read_now(world)
    await world.emulator.call("POST", "clock", json={"advance": 5 * HOUR})
    await world.pass_time(120, step=5)
    await read_now(world)
    assert await told(world) == []
    assert not (await reading(world)).comparable


async def test_an_account_without_anything_of_ours(world: World) -> None:
    """Instances from before the first listing, and those of others, lead to no event."""
    theirs = await seed(world, 10)
    gone = await seed(world, 80, "gone")
    await forget(world, gone)

    def write(connection: Connection) -> None:
        connection.execute(
            delete(listed_instances).where(listed_instances.c.upstream_id == "long-ago")
        )

    await world.app.database.write(write)
    await read_now(world)
    assert await told(world) == []
    assert theirs not in [one.upstream_id for one in (await report(world)).owners]


async def test_bills_that_change_replace_those_before(world: World) -> None:
    """The bills of the last two days are read again, and lists of one window do not add up."""
    upstream_id = await seed(world, 10, "ours")
    await bought(world, upstream_id)
    await read_now(world)
    once = await found(world, upstream_id)
    await read_now(world)
    assert (await found(world, upstream_id)).billed == once.billed
    await fault(
        world, kind="call", path=LIST, rawBody='{"bills": []}', contentType="application/json"
    )
    await read_now(world)
    rows = await world.app.database.read(lambda c: c.execute(select(billed_days.c.hours)).all())
    assert {row[0] for row in rows} == {"{}"}


async def test_a_purged_disk_agrees_with_its_bills(world: World) -> None:
    """Of an instance that was stopped for longer than Novita keeps its disk."""
    one = await world.create(replace(REQUEST, rootfs_size=500))
    await world.until_status(one, InstanceStatus.RUNNING, within=400)
    await ask(world, OperationKind.STOP, one)
    await world.until_status(one, InstanceStatus.STOPPED, within=300)
    upstream_id = (await world.view(one))["upstreamId"]
    await world.end()
    await world.pass_alone(10 * 24 * HOUR)
    await world.open()
    await world.pass_time(HOUR, step=60)
    compared = await found(world, upstream_id)
    # 440 GB for 7 days at 0.0025 USD each is 7.70 USD; 10 days are 11 USD.
    assert compared.billed > 7 * 100_000 * DAY_MS
    assert (compared.state, compared.difference) == (MATCHED, 0)
