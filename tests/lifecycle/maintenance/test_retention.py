# SPDX-License-Identifier: Apache-2.0
"""Retention removes what is old enough, and never what is still needed."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Any
from zoneinfo import ZoneInfo

import orjson
import pytest
from sqlalchemy import Connection, delete, func, insert, select, update

from novitai.domain.billing_periods import Bucket, begin_of, end_of
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import OperationKind
from novitai.domain.webhook import DeliveryStatus
from novitai.errors import NotFound
from novitai.lifecycle.maintenance import retention
from novitai.lifecycle.maintenance.retention import Retention
from novitai.lifecycle.money.costs import CostsWanted, GroupBy
from novitai.lifecycle.queries.instances import InstanceQuery
from novitai.store.queries import account, billing, leases
from novitai.store.tables import (
    attempts,
    billing_spans,
    billing_states,
    deliveries,
    events,
    instances,
    listed_instances,
    operations,
    webhook_lines,
    webhooks,
)
from novitai.testing import ManualClock
from tests.lifecycle.actions import ask, run_some
from tests.lifecycle.world import World, on_both_stores

DAY = 86_400_000
MINUTE = 60_000


async def apply(world: World, *, after_days: float, days: int = 90) -> int:
    """Apply the retention as a worker does so many days from now; return what was removed."""
    clock = ManualClock(round(world.clock.now() + after_days * DAY))
    task = asyncio.create_task(
        Retention(world.app.database, clock, days=days, holder="proc_test").once()
    )
    while not task.done():
        await world.at_work.rest()
        await clock.advance(retention.PAUSE)
    return await task


async def count(world: World, table: Any, *conditions: Any) -> int:
    """Count rows."""
    query = select(func.count()).select_from(table).where(*conditions)
    found: int = await world.app.database.read(lambda c: c.execute(query).scalar_one())
    return found


async def life(world: World) -> list[str]:
    """Let one of two instances end."""
    ids = await run_some(world, 2)
    await ask(world, OperationKind.DELETE, ids[0])
    await world.until_status(ids[0], InstanceStatus.TERMINATED, within=300)
    await world.pass_time(120)
    return ids


async def listed(world: World) -> list[str]:
    """List all instances, ended ones too."""
    page = await world.app.instances.page(InstanceQuery(include_terminated=True))
    return [one["id"] for one in orjson.loads(page.body)["instances"]]


@on_both_stores
async def test_an_ended_instance_is_removed_and_its_costs_stay(world: World) -> None:
    """After the time it is nowhere in the API; its costs and what is ours are still known."""
    ended, kept = await life(world)
    wanted = CostsWanted(0, world.clock.now() + DAY)
    before = await world.app.costs.report(wanted)
    assert await apply(world, after_days=89) == 0
    assert await apply(world, after_days=91) > 0

    assert await world.app.instances.details(kept) is not None
    for reading in (
        world.app.instances.details(ended),
        world.app.history.of_instance(ended),
        world.app.costs.of_instance(ended),
        world.app.operating.credentials(ended),
    ):
        with pytest.raises(NotFound):
            await reading
    assert await world.app.costs.report(wanted) == before
    assert {row.key for row in before.rows} == {ended, kept}
    assert await count(world, attempts, attempts.c.instance_id == ended) == 1
    row = await world.app.database.read(
        lambda c: c.execute(
            select(instances.c.launch_sealed, instances.c.obs_credentials_sealed).where(
                instances.c.id == ended
            )
        ).one()
    )
    assert tuple(row) == (b"", None)
    assert await apply(world, after_days=91) == 0
    await ask(world, OperationKind.STOP, kept)
    await world.until_status(kept, InstanceStatus.STOPPED, within=300)


async def test_old_events_go_and_the_last_one_stays(world: World) -> None:
    """Events that are too old are deleted with their deliveries; new ones get new numbers."""
    await life(world)
    total = await count(world, events)
    highest = await world.app.database.read(
        lambda c: c.execute(select(func.max(events.c.sequence))).scalar_one()
    )
    await apply(world, after_days=91)
    assert total > 5
    assert await count(world, events) == 1
    assert await count(world, events, events.c.sequence == highest) == 1
    fresh = (await run_some(world, 1))[0]
    assert await count(world, events, events.c.instance_id == fresh) >= 2
    assert await count(world, events, events.c.sequence <= highest) == 1


async def test_an_undelivered_message_keeps_its_event(world: World) -> None:
    """A message that is still to be delivered can be read; a delivered one goes."""
    ended, _ = await life(world)

    def write(connection: Connection) -> None:
        first, second = connection.execute(
            select(events.c.sequence)
            .where(events.c.instance_id == ended)
            .order_by(events.c.sequence)
            .limit(2)
        ).scalars()
        connection.execute(
            insert(webhooks).values(
                id="whk", standing=True, url="http://x", enabled=True, created_at=1, updated_at=1
            )
        )
        line = {"id": "line", "instance_id": ended, "webhook_id": "whk", "host": "x"}
        connection.execute(insert(webhook_lines).values(line))
        for number, status in ((first, DeliveryStatus.PENDING), (second, DeliveryStatus.DEAD)):
            connection.execute(
                insert(deliveries).values(
                    id=f"dlv_{status.value}",
                    line_id="line",
                    webhook_id="whk",
                    instance_id=ended,
                    event_sequence=number,
                    status=status.value,
                    created_at=1,
                    due_at=1 << 60,
                )
            )

    await world.app.database.write(write)
    await apply(world, after_days=91)
    assert await count(world, deliveries) == 1
    assert await count(world, deliveries, deliveries.c.id == "dlv_pending") == 1
    assert await count(world, events) == 2
    assert ended in await listed(world)


async def test_finished_operations_go_except_the_last_of_each_kind(world: World) -> None:
    """The operations stay that the status and the verbs of a live instance depend on."""
    (one,) = await run_some(world, 1)
    for _ in range(2):
        await ask(world, OperationKind.STOP, one)
        await world.until_status(one, InstanceStatus.STOPPED, within=300)
        await ask(world, OperationKind.START, one)
        await world.until_status(one, InstanceStatus.RUNNING, within=300)
    await apply(world, after_days=91)
    kinds = await world.app.database.read(
        lambda c: c.execute(select(operations.c.kind).order_by(operations.c.kind)).scalars().all()
    )
    assert list(kinds) == ["create", "start", "stop"]
    assert await world.status(one) == "running"


@on_both_stores
async def test_a_record_that_was_listed_lately_is_kept(world: World) -> None:
    """A record stays for 30 days after its upstream ID or its marker was last listed."""
    ended, kept = await life(world)
    assert await apply(world, after_days=29.9, days=1) > 0
    assert ended in await listed(world)
    found: dict[str, Any] = await world.app.database.read(
        lambda c: {row.instance_id: row for row in c.execute(select(attempts))}
    )
    mine, other = found[ended], found[kept]
    long_ago = world.clock.now()
    then = round(long_ago + 70 * DAY)

    def note(
        connection: Connection, upstream_id: str, attempt_id: str | None, *, bought: bool
    ) -> None:
        connection.execute(
            update(listed_instances).values(
                last_listed_at=long_ago, first_listed_at=long_ago, attempt_id=None
            )
        )
        connection.execute(
            update(attempts)
            .where(attempts.c.id == mine.id)
            .values(upstream_id=mine.upstream_id if bought else None)
        )
        account.note_listed(connection, {upstream_id: attempt_id}, then)

    for upstream_id, attempt_id, bought in (
        (mine.upstream_id, None, False),
        (mine.upstream_id, None, True),
        ("a-copy", mine.id, True),
    ):
        noting = partial(note, upstream_id=upstream_id, attempt_id=attempt_id, bought=bought)
        await world.app.database.write(noting)
        # The note may be a day older than the last listing.
        await apply(world, after_days=100.9)
        assert ended in await listed(world)

    def as_an_older_release(connection: Connection) -> None:
        row = {"upstream_id": mine.upstream_id, "first_listed_at": then}
        connection.execute(delete(listed_instances))
        connection.execute(insert(listed_instances).values(**row))

    await world.app.database.write(as_an_older_release)
    await apply(world, after_days=99.9)
    assert ended in await listed(world)

    noting = partial(note, upstream_id="a-copy-of-another", attempt_id=other.id, bought=True)
    await world.app.database.write(noting)
    await apply(world, after_days=100.9)
    assert ended not in await listed(world)


async def test_the_listing_notes_what_it_shows_once_a_day(world: World) -> None:
    """Each upstream ID is noted with the attempt in its marker, again after a day or another."""
    (one,) = await run_some(world, 1)

    async def noted() -> tuple[int, str]:
        row = await world.app.database.read(
            lambda c: c.execute(
                select(listed_instances.c.last_listed_at, listed_instances.c.attempt_id)
            ).one()
        )
        return row[0], row[1]

    first, attempt_id = await noted()
    assert attempt_id == await world.app.database.read(
        lambda c: c.execute(select(attempts.c.id).where(attempts.c.instance_id == one)).scalar_one()
    )
    await world.pass_time(600)
    assert await noted() == (first, attempt_id)

    def age(connection: Connection) -> None:
        connection.execute(update(listed_instances).values(last_listed_at=first - DAY))

    await world.app.database.write(age)
    await world.pass_time(120)
    again, attempt_again = await noted()
    assert again > first
    assert attempt_again == attempt_id

    def forget(connection: Connection) -> None:
        connection.execute(update(listed_instances).values(attempt_id=None))

    await world.app.database.write(forget)
    await world.pass_time(120)
    assert (await noted())[1] == attempt_id


async def test_nothing_is_removed_with_zero_days_or_by_two_processes(world: World) -> None:
    """0 keeps everything; a process that has not got the lease leaves the work to the other."""
    await life(world)
    assert await apply(world, after_days=4000, days=0) == 0
    later = world.clock.now() + 91 * DAY
    await world.app.database.write(
        lambda c: leases.take(c, retention.LEASE, "another", now=later, until=later + 60_000)
    )
    assert await apply(world, after_days=91) == 0
    assert await apply(world, after_days=91.1) > 0


async def test_large_logs_are_deleted_in_small_steps(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No transaction deletes more than a batch, and all that is old goes."""
    monkeypatch.setattr(retention, "_BATCH", 10)
    await life(world)

    def fill(connection: Connection) -> None:
        row = {"type": "instance.running", "at": 1, "data": "{}"}
        connection.execute(insert(events), [{**row, "id": f"evt_{n}"} for n in range(95)])
        connection.execute(update(events).values(at=1))

    await world.app.database.write(fill)
    steps: list[int] = []
    write = world.app.database.write

    async def counted(fn: Any, **options: Any) -> Any:
        result = await write(fn, **options)
        if isinstance(getattr(result, "deleted", None), int):
            steps.append(result.deleted)
        return result

    monkeypatch.setattr(world.app.database, "write", counted)
    await apply(world, after_days=91)
    assert max(steps) == 10
    assert await count(world, events) == 1


@on_both_stores
@pytest.mark.parametrize("days", [90, 0])
async def test_old_months_of_the_ledger_are_folded(world: World, days: int) -> None:
    """Their rows become one per rate, key and tags; no sum of a record or a month changes."""
    one = (await run_some(world, 1))[0]
    month = begin_of(Bucket.MONTH, world.clock.now(), ZoneInfo("UTC"))
    end = end_of(Bucket.MONTH, month, ZoneInfo("UTC"))
    runs = [
        # Begin, length, width of both edges, rate, key: in minutes from the begin of the month.
        *((at, 50, at % 7, 624_000, "key_a") for at in range(0, 20_000, 60)),
        (20_000, 30, 2, 999_000, "key_a"),
        (20_100, 30, 2, 624_000, "key_b"),
        # It goes on into the next month.
        (int((end - month) / MINUTE) - 10, 40, 1, 624_000, "key_a"),
        *((at, 20, 1, 624_000, "key_a") for at in range(50_000, 50_200, 60)),
    ]

    def write(connection: Connection) -> None:
        upstream_id = connection.execute(select(billing_states.c.upstream_id)).scalar_one()
        connection.execute(
            insert(billing_spans),
            [
                {
                    "instance_id": one,
                    "upstream_id": upstream_id,
                    "kind": "gpu",
                    "rate": rate,
                    "key_id": key,
                    "began_after": month + at * MINUTE,
                    "began_by": month + (at + width) * MINUTE,
                    "ended_after": month + (at + length - width) * MINUTE,
                    "ended_by": month + (at + length) * MINUTE,
                }
                for at, length, width, rate, key in runs
            ],
        )
        books = [(one, upstream_id)]
        billing.recount(connection, books)

    await world.app.database.write(write)

    async def sums() -> list[object]:
        by_key = CostsWanted(month, end, group_by=GroupBy.KEY)
        cost = (await world.app.costs.of_instance(one)).cost
        after = CostsWanted(end, end + 31 * DAY)
        reports = [await world.app.costs.report(wanted) for wanted in (by_key, after)]
        return [*reports, cost.least, cost.most]

    before, rows = await sums(), await count(world, billing_spans)
    assert await apply(world, after_days=399, days=0) == 0
    await apply(world, after_days=440, days=days)
    assert await sums() == before
    folded = {len([run for run in runs[:-5] if run[3:] == key]) for key in {r[3:] for r in runs}}
    assert await count(world, billing_spans) == rows - sum(size - 1 for size in folded)
    assert await apply(world, after_days=440, days=0) == 0
    # The month after is whole once it is old, too.
    await apply(world, after_days=475, days=days)
    assert await sums() == before
