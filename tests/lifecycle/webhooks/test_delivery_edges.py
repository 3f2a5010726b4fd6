# SPDX-License-Identifier: Apache-2.0
"""Races of deliveries: errors and places, running tries and changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from novitai.domain.event import EventType
from novitai.domain.requests import WebhookChange, WebhookRequest
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.queries import webhook_lines
from novitai.testing import ManualClock
from tests.lifecycle.webhooks.delivery_rig import FIRST, SECOND, Rig

HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> Rig:
    """Deliveries, on each store in turn."""
    return Rig(database, clock)


def gated(status: int) -> tuple[Callable[[], Awaitable[int]], asyncio.Event, asyncio.Event]:
    """Make a reaction that starts, and answers once it is released."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def react() -> int:
        begun.set()
        await go.wait()
        return status

    return react, begun, go


async def next_due(rig: Rig, instance_id: str) -> float:
    """Return in how many seconds the first pending message of an instance is due."""
    waiting = [one for one in await rig.deliveries(instance_id) if one.status.value == "pending"]
    return (waiting[0].due_at - rig.clock.now()) / 1000


async def test_a_trouble_costs_no_place(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a database error all waiting lines of a host are sent."""
    ids = [await rig.instance() for _ in range(12)]
    write, away = rig.database.write, [True]

    async def stumbling(act: Any, **options: Any) -> Any:
        if away[0]:
            raise StoreUnavailable("away")
        return await write(act, **options)

    lines = sorted(set(rig.engine.nudged))
    monkeypatch.setattr(rig.database, "write", stumbling)
    results = await asyncio.gather(
        *(rig.deliverer.run(line) for line in lines), return_exceptions=True
    )
    assert any(isinstance(one, StoreUnavailable) for one in results)
    away[0] = False
    await rig.after(10)
    assert [await rig.statuses(one) for one in ids] == [["delivered"]] * 12


async def test_who_waits_is_offered_to_the_engine(rig: Rig) -> None:
    """Waiting lines are offered to the engine under their own key."""
    for _ in range(4):
        await rig.instance()
    lines = list(dict.fromkeys(rig.engine.nudged))
    react, _, go = gated(200)
    rig.receivers.reactions[FIRST] = react
    rig.engine.nudged.clear()
    sending = [asyncio.create_task(rig.deliverer.run(line)) for line in lines]
    # Two find no place and return; the others wait for the receiver.
    for ended in asyncio.as_completed(sending):
        await ended
        if sum(one.done() for one in sending) == 2:
            go.set()
    assert len(rig.receivers.received) == 2
    offered = set(rig.engine.nudged)
    assert len(offered) == 2
    assert offered < set(lines)
    await asyncio.gather(*(rig.deliverer.run(line) for line in offered))
    assert len(rig.receivers.received) == 4


async def test_a_hanging_receiver_holds_up_no_other_of_its_host(rig: Rig) -> None:
    """One URL of a shared host hangs; the other gets its message at once."""
    hanging, healthy = "http://93.184.215.9/a", "http://93.184.215.9/b"
    react, begun, go = gated(500)
    rig.receivers.reactions[hanging] = react
    for _ in range(20):
        await rig.instance(hanging)
    lines = sorted(set(rig.engine.nudged))
    sending = [asyncio.create_task(rig.deliverer.run(line)) for line in lines]
    await begun.wait()
    rig.engine.nudged.clear()
    await rig.instance(healthy)
    await rig.deliverer.run(rig.engine.nudged[0])
    assert len(rig.receivers.at(healthy)) == 1
    go.set()
    await asyncio.gather(*sending)


async def test_a_redelivery_during_the_last_try_counts(rig: Rig) -> None:
    """A redelivery during the last try gets all its tries."""
    instance_id = await rig.instance()
    rig.receivers.reactions[FIRST] = 500
    for _ in range(9):
        await rig.work()
        await rig.clock.advance(1.2 * DAY)
    react, begun, go = gated(500)
    rig.receivers.reactions[FIRST] = react
    (line,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line))
    await begun.wait()
    (message,) = await rig.deliveries(instance_id)
    await rig.do(rig.record.redeliver(message.id))
    go.set()
    await sending
    assert await rig.statuses(instance_id) == ["pending"]
    rig.receivers.reactions[FIRST] = 200
    await rig.work()
    assert await rig.statuses(instance_id) == ["delivered"]


async def test_the_end_of_an_old_url_is_not_that_of_a_new_one(rig: Rig) -> None:
    """A 410 of the old URL does not affect the new one."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    instance_id = await rig.instance(None)
    react, begun, go = gated(410)
    rig.receivers.reactions[FIRST] = react
    (line,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line))
    await begun.wait()
    await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND)))
    go.set()
    await sending
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    await rig.work()
    assert len(rig.receivers.at(SECOND)) == 1
    assert await rig.statuses(instance_id) == ["delivered"]


async def test_failures_that_lie_apart_switch_nothing_off(rig: Rig) -> None:
    """One failure thirty days after an outage does not switch it off."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    instance_id = await rig.instance(None)
    rig.receivers.reactions[FIRST] = 500
    for _ in range(10):
        await rig.after(1.05 * DAY / 3)
    await rig.after(30 * DAY)
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    assert (await rig.webhooks.get(made.webhook.id)).enabled


async def test_an_early_try_that_is_asked_to_wait_waits(rig: Rig) -> None:
    """`Retry-After` also applies to an early try."""
    first, second = await rig.instance(), await rig.instance()
    rig.receivers.reactions[FIRST] = 500
    await rig.work()
    await rig.after(6)
    rig.receivers.reactions[FIRST] = 429, {"Retry-After": "7200"}
    line = rig.engine.nudged[0]
    await rig.database.write(
        lambda connection: webhook_lines.set_next(connection, line, rig.clock.now())
    )
    await rig.work()
    assert max(await next_due(rig, first), await next_due(rig, second)) > 7000


async def test_a_success_elsewhere_does_not_end_a_pause_that_was_asked_for(rig: Rig) -> None:
    """Another message's success does not shorten `Retry-After: 600`."""
    first = await rig.instance()
    rig.receivers.reactions[FIRST] = 429, {"Retry-After": "600"}
    await rig.work()
    rig.receivers.reactions[FIRST] = 200
    await rig.clock.advance(1)
    second = await rig.instance()
    await rig.work()
    assert await rig.statuses(second) == ["delivered"]
    assert await rig.statuses(first) == ["pending"]
    await rig.after(600)
    assert await rig.statuses(first) == ["delivered"]


async def test_a_new_event_does_not_end_a_pause_that_was_asked_for(rig: Rig) -> None:
    """`Retry-After: 600` on one message: later messages of its instance wait behind it."""
    instance_id = await rig.instance()
    rig.receivers.reactions[FIRST] = 429, {"Retry-After": "600"}
    await rig.work()
    rig.receivers.reactions[FIRST] = 200
    await rig.clock.advance(1)
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    assert rig.receivers.types() == ["created"]
    await rig.after(600)
    assert rig.receivers.types() == ["created", "created", "starting"]


async def test_a_success_makes_the_next_of_its_own_line_due(rig: Rig) -> None:
    """After a success the next message of the line is due at once."""
    instance_id = await rig.instance()
    await rig.work()
    await rig.happen(instance_id, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 500
    for pause in (0, 6, 400, 2500):
        await rig.after(pause)
    assert await next_due(rig, instance_id) > HOUR
    rig.receivers.reactions[FIRST] = 200
    created = (await rig.deliveries(instance_id))[0]
    await rig.do(rig.record.redeliver(created.id))
    await rig.work()
    assert await rig.statuses(instance_id) == ["delivered", "delivered"]


async def test_one_hiccup_does_not_cost_the_lease(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failed renewal is retried before the lease of a slow delivery expires."""
    await rig.instance()
    react, begun, go = gated(200)
    rig.receivers.reactions[FIRST] = react
    (line,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line))
    await begun.wait()
    write, hiccups = rig.database.write, [1]

    async def stumbling(act: Any, **options: Any) -> Any:
        if hiccups[0]:
            hiccups[0] -= 1
            raise StoreUnavailable("away")
        return await write(act, **options)

    monkeypatch.setattr(rig.database, "write", stumbling)
    for _ in range(12):
        await rig.clock.advance(1)
        await rig.at_work.rest()
    await rig.work()
    go.set()
    await sending
    assert rig.receivers.types() == ["created"]
