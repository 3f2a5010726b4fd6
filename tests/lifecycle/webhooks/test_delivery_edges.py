# SPDX-License-Identifier: Apache-2.0
"""Deliveries when two things meet: a trouble and a place, a try under way and a change."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from novitai.clock import ManualClock
from novitai.domain.event import EventType
from novitai.domain.webhook_requests import WebhookChange, WebhookRequest
from novitai.lifecycle.commands.idempotency import Reply
from novitai.store.engine.database import Database
from novitai.store.engine.errors import StoreUnavailable
from novitai.store.queries import webhook_lines
from tests.lifecycle.webhooks.delivery_rig import FIRST, SECOND, Rig

HOUR, DAY = 3600.0, 86_400.0


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> Rig:
    """Deliveries on each store in turn."""
    return Rig(database, clock)


def plain(_thing: object) -> Reply:
    """Render nothing."""
    return Reply(202, {}, b"")


def gated(status: int) -> tuple[Callable[[], Awaitable[int]], asyncio.Event, asyncio.Event]:
    """Make a reaction that begins, and answers once it is let go."""
    begun, go = asyncio.Event(), asyncio.Event()

    async def react() -> int:
        begun.set()
        await go.wait()
        return status

    return react, begun, go


async def next_due(rig: Rig, instance_id: str) -> float:
    """Tell in how many seconds the first waiting message of an instance is due."""
    waiting = [one for one in await rig.deliveries(instance_id) if one.status.value == "pending"]
    return (waiting[0].due_at - rig.clock.now()) / 1000


async def test_a_trouble_costs_no_place(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """The database is away while lines of one host wait: afterwards all of them are sent."""
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
    """No line works under another's key, so news of each is looked at when it comes."""
    for _ in range(4):
        await rig.instance()
    lines = list(dict.fromkeys(rig.engine.nudged))
    react, _, go = gated(200)
    rig.receivers.reactions[FIRST] = react
    rig.engine.nudged.clear()
    sending = [asyncio.create_task(rig.deliverer.run(line)) for line in lines]
    # Two find no place and are done; the others wait for the receiver.
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
    """One URL of a shared gateway hangs; the other has its message at once."""
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
    """It was promised with all its tries before it: the try under way ends nothing."""
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
    await rig.record.redeliver(message.id, reply=plain)
    go.set()
    await sending
    assert await rig.statuses(instance_id) == ["pending"]
    rig.receivers.reactions[FIRST] = 200
    await rig.work()
    assert await rig.statuses(instance_id) == ["delivered"]


async def test_the_end_of_an_old_url_is_not_that_of_a_new_one(rig: Rig) -> None:
    """410 for a URL that has been changed meanwhile: the message goes to the new one."""
    made = await rig.webhooks.create(WebhookRequest(FIRST))
    instance_id = await rig.instance(None)
    react, begun, go = gated(410)
    rig.receivers.reactions[FIRST] = react
    (line,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line))
    await begun.wait()
    await rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND))
    go.set()
    await sending
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    await rig.work()
    assert len(rig.receivers.at(SECOND)) == 1
    assert await rig.statuses(instance_id) == ["delivered"]


async def test_failures_that_lie_apart_switch_nothing_off(rig: Rig) -> None:
    """A message died in a past outage; after thirty quiet days one hiccup means little."""
    made = await rig.webhooks.create(WebhookRequest(FIRST))
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
    """`Retry-After` counts also for a try made on the chance that the receiver is back."""
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
    """`Retry-After: 600` on one message: another's success leaves it alone for that long."""
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
    """The first message is sent again and arrives: the second need not wait for its schedule."""
    instance_id = await rig.instance()
    await rig.work()
    await rig.happen(instance_id, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 500
    for pause in (0, 6, 400, 2500):
        await rig.after(pause)
    assert await next_due(rig, instance_id) > HOUR
    rig.receivers.reactions[FIRST] = 200
    created = (await rig.deliveries(instance_id))[0]
    await rig.record.redeliver(created.id, reply=plain)
    await rig.work()
    assert await rig.statuses(instance_id) == ["delivered", "delivered"]


async def test_one_hiccup_does_not_cost_the_lease(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The renewal of a lease fails once while a receiver takes long: nobody else sends it."""
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
        await asyncio.sleep(0.05)  # the renewal is written on a thread, in real time
    await rig.work()
    go.set()
    await sending
    assert rig.receivers.types() == ["created"]
