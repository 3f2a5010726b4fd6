# SPDX-License-Identifier: Apache-2.0
"""Manual actions on webhooks: change, rotate, test, redeliver and replay."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from sqlalchemy import Connection
from standardwebhooks import WebhookVerificationError

from novitai.domain.event import EventType
from novitai.domain.requests import WebhookChange, WebhookRequest
from novitai.domain.webhook import DeliveryStatus, OffReason
from novitai.errors import Conflict, NotFound, RequestTimeout, ValidationFailed
from novitai.lifecycle.commands.idempotency import IdempotencyKey, Reply
from novitai.lifecycle.webhooks import endpoints as lifecycle_webhooks
from novitai.store.engine.database import Database
from novitai.store.queries import deliveries, webhooks
from novitai.testing import ManualClock
from tests.lifecycle.webhooks.delivery_rig import FIRST, SECOND, Rig, verify

DAY = 86_400.0


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> Rig:
    """Deliveries, on each store in turn."""
    return Rig(database, clock)


def count(number: int) -> Reply:
    """Render the number of messages of a replay."""
    return Reply(202, {}, str(number).encode())


async def all_dead(rig: Rig) -> tuple[str, str]:
    """Make a webhook with three dead messages of an instance; return both IDs."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    instance_id = await rig.instance(None)
    await rig.happen(instance_id, EventType.STARTING, EventType.RUNNING)
    rig.receivers.reactions[FIRST] = 410
    await rig.work()
    assert await rig.statuses(instance_id) == ["dead"] * 3
    rig.receivers.reactions[FIRST] = 200
    rig.receivers.received.clear()
    return made.webhook.id, instance_id


async def test_a_dead_message_can_be_sent_again(rig: Rig) -> None:
    """A dead message is sent with its ID once the webhook is enabled."""
    webhook_id, instance_id = await all_dead(rig)
    second = (await rig.deliveries(instance_id))[1]
    with pytest.raises(Conflict, match="switched off"):
        await rig.do(rig.record.redeliver(second.id))
    await rig.do(rig.webhooks.change(webhook_id, WebhookChange(enabled=True)))
    await rig.do(rig.record.redeliver(second.id))
    await rig.work()
    assert [one.id for one in rig.receivers.received] == [second.id]
    assert await rig.statuses(instance_id) == ["dead", "delivered", "dead"]


async def test_what_was_delivered_can_be_sent_again(rig: Rig) -> None:
    """A delivered message is sent again with the same ID and body."""
    instance_id = await rig.instance()
    await rig.work()
    (delivery,) = await rig.deliveries(instance_id)
    await rig.do(rig.record.redeliver(delivery.id))
    await rig.work()
    first, second = rig.receivers.received
    assert (first.id, first.body) == (second.id, second.body)
    (delivery,) = await rig.deliveries(instance_id)
    assert len(delivery.attempts) == 2
    with pytest.raises(NotFound, match="msg_none"):
        await rig.do(rig.record.redeliver("msg_none"))


async def test_sending_again_does_not_wait_for_the_table(rig: Rig) -> None:
    """A pending message and those before it are tried at once."""
    instance_id = await rig.instance()
    await rig.happen(instance_id, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 500
    await rig.work()
    await rig.after(6)
    rig.receivers.reactions[FIRST] = 200
    last = (await rig.deliveries(instance_id))[-1]
    await rig.do(rig.record.redeliver(last.id))
    await rig.work()
    assert rig.receivers.types() == ["created", "created", "created", "starting"]


async def test_the_url_of_an_instance_is_used_again_when_asked_for(rig: Rig) -> None:
    """Redelivery enables the URL of an instance again."""
    instance_id = await rig.instance()
    rig.receivers.reactions[FIRST] = 410
    await rig.work()
    rig.receivers.reactions[FIRST] = 200
    (delivery,) = await rig.deliveries(instance_id)
    await rig.do(rig.record.redeliver(delivery.id))
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    assert await rig.statuses(instance_id) == ["delivered", "delivered"]


async def test_a_replay_sends_everything_since_a_time_in_order(rig: Rig) -> None:
    """Delivered, dead and unsent events are sent, each with its ID."""
    began = rig.clock.now()
    webhook_id, instance_id = await all_dead(rig)
    ids = [one.id for one in await rig.deliveries(instance_id)]
    await rig.clock.advance(60)
    later = rig.clock.now()
    await rig.happen(instance_id, EventType.STOPPING)
    with pytest.raises(Conflict, match="switched off"):
        await rig.do(rig.webhooks.replay(webhook_id, began))
    await rig.do(rig.webhooks.change(webhook_id, WebhookChange(enabled=True)))
    assert await rig.do(rig.webhooks.replay(webhook_id, later)) == 1
    await rig.work()
    assert rig.receivers.types() == ["stopping"]
    assert await rig.do(rig.webhooks.replay(webhook_id, began)) == 4
    await rig.work()
    assert rig.receivers.types()[1:] == ["created", "starting", "running", "stopping"]
    assert [one.id for one in rig.receivers.received[1:4]] == ids


async def never_told(rig: Rig, count: int) -> tuple[str, list[str]]:
    """Make instances with two events each, and then a webhook; return their IDs."""
    ids = [await rig.instance(None) for _ in range(count)]
    for instance_id in ids:
        await rig.happen(instance_id, EventType.STARTING)
    return (await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))).webhook.id, sorted(ids)


async def test_a_replay_that_has_begun_is_finished(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The deadline applies only before the first page is written."""
    monkeypatch.setattr(lifecycle_webhooks, "_REPLAY_INSTANCES", 1)
    webhook_id, ids = await never_told(rig, 3)
    now = rig.clock.now()
    with pytest.raises(RequestTimeout):
        await rig.do(rig.webhooks.replay(webhook_id, 0), deadline=now - 1)
    assert not [await rig.deliveries(one) for one in ids if await rig.deliveries(one)]
    put = rig.outbox.put

    def slow(*given: Any) -> None:
        if ids[0] not in given:
            rig.clock._now_ms = now + 60_000
        put(*given)

    monkeypatch.setattr(rig.outbox, "put", slow)
    made = await rig.do(rig.webhooks.replay(webhook_id, 0), deadline=now + 30_000)
    assert made == 6
    await rig.work()
    assert len(rig.receivers.received) == 6


async def test_a_replay_keeps_the_order_while_things_happen(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Replayed events come before new ones of the same instance."""
    monkeypatch.setattr(lifecycle_webhooks, "_REPLAY_INSTANCES", 1)
    webhook_id, ids = await never_told(rig, 2)
    write, busy = rig.database.write, False

    async def meanwhile(fn: Callable[[Connection], Any], *, deadline: int | None = None) -> Any:
        nonlocal busy
        done = await write(fn, deadline=deadline)
        if not busy:
            busy = True
            for instance_id in ids:
                await rig.happen(instance_id, EventType.RUNNING)
            await rig.work()
            busy = False
        return done

    monkeypatch.setattr(rig.database, "write", meanwhile)
    await rig.do(rig.webhooks.replay(webhook_id, 0))
    await rig.work()
    told: dict[str, list[str]] = {}
    for message in rig.receivers.received:
        told.setdefault(message.json["data"]["id"], []).append(message.json["type"])
    first = [one.removeprefix("instance.") for one in told[ids[0]]]
    assert first[:3] == ["created", "starting", "running"]
    # The second instance's new event was sent first, so it is sent again in order.
    second = [one.removeprefix("instance.") for one in told[ids[1]]]
    assert second[second.index("created") :][:3] == ["created", "starting", "running"]


async def test_a_replay_ends_where_its_webhook_is_switched_off(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer counts the messages written until then."""
    monkeypatch.setattr(lifecycle_webhooks, "_REPLAY_INSTANCES", 1)
    webhook_id, ids = await never_told(rig, 3)
    put = rig.outbox.put

    def last(connection: Connection, *given: Any) -> None:
        put(connection, *given)
        webhooks.switch_off(connection, webhook_id, OffReason.REQUESTED, now=rig.clock.now())

    monkeypatch.setattr(rig.outbox, "put", last)
    assert await rig.do(rig.webhooks.replay(webhook_id, 0)) == 2
    assert [len(await rig.deliveries(one)) for one in ids] == [2, 0, 0]


async def test_a_test_message_of_a_webhook_that_is_being_deleted_is_signed(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Webhook and secret are read in one snapshot."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    loop = asyncio.get_running_loop()
    load = webhooks.load_sealed

    def after_the_deletion(connection: Connection, webhook_id: str) -> webhooks.Sealed:
        deleting = rig.do(rig.webhooks.delete(webhook_id))
        asyncio.run_coroutine_threadsafe(deleting, loop).result(10)
        return load(connection, webhook_id)

    monkeypatch.setattr(webhooks, "load_sealed", after_the_deletion)
    await rig.webhooks._send_test(made.webhook.id)
    (message,) = rig.receivers.received
    verify(message, made.secret)
    with pytest.raises(NotFound):
        await rig.webhooks._send_test(made.webhook.id)


async def test_a_replay_is_done_once_for_one_key(rig: Rig) -> None:
    """The same request with its `Idempotency-Key` sends no more messages."""
    webhook_id, _ = await all_dead(rig)
    await rig.do(rig.webhooks.change(webhook_id, WebhookChange(enabled=True)))
    key = IdempotencyKey("key_1", "POST /api/webhooks/x/replay", "once", "digest")
    for _ in range(2):
        await rig.commands.run(rig.webhooks.replay(webhook_id, 0), count, key=key)
        await rig.work()
    assert len(rig.receivers.received) == 3


async def test_two_secrets_sign_during_a_rotation(rig: Rig) -> None:
    """Messages have both signatures for 24 hours, then the new one only."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    rotated = await rig.do(rig.webhooks.rotate(made.webhook.id))
    assert rotated.secret != made.secret
    instance_id = await rig.instance(None)
    await rig.work()
    (message,) = rig.receivers.received
    assert len(message.headers["webhook-signature"].split(" ")) == 2
    verify(message, made.secret)
    verify(message, rotated.secret)
    await rig.clock.advance(DAY + 1)
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    message = rig.receivers.received[-1]
    verify(message, rotated.secret)
    with pytest.raises(WebhookVerificationError):
        verify(message, made.secret)


async def test_secrets_are_stored_sealed_and_shown_once(rig: Rig) -> None:
    """The row holds no secret in clear text, and a retry does not show it."""
    key = IdempotencyKey("key_1", "POST /api/webhooks", "once", "digest")

    def shown(made: lifecycle_webhooks.Revealed) -> Reply:
        seen.append(made)
        return Reply(201, {}, made.secret.encode(), secret_of=made.webhook.id)

    seen: list[lifecycle_webhooks.Revealed] = []
    answer = await rig.commands.run(rig.webhooks.create(WebhookRequest(FIRST)), shown, key=key)
    [made] = seen
    assert answer.body.decode() == made.secret
    sealed = await rig.database.read(lambda c: webhooks.load_sealed(c, made.webhook.id))
    assert sealed.secret is not None
    assert made.secret.encode() not in sealed.secret
    assert made.secret not in repr(made)
    with pytest.raises(Conflict) as caught:
        await rig.commands.run(rig.webhooks.create(WebhookRequest(FIRST)), shown, key=key)
    assert caught.value.code == "IDEMPOTENCY_NOT_REPLAYABLE"
    assert caught.value.details == {"id": made.webhook.id}


async def test_switching_off_gives_up_what_waits(rig: Rig) -> None:
    """Pending messages of a disabled or deleted webhook are never sent."""
    instance_id = await rig.instance(None)
    rig.receivers.reactions.update({FIRST: 500, SECOND: 500})
    off = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    gone = await rig.do(rig.webhooks.create(WebhookRequest(SECOND)))
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    await rig.do(rig.webhooks.change(off.webhook.id, WebhookChange(enabled=False)))
    await rig.do(rig.webhooks.delete(gone.webhook.id))
    await rig.after(DAY)
    assert len(rig.receivers.received) == 2
    assert await rig.statuses(instance_id) == ["dead", "dead"]
    assert (await rig.webhooks.get(off.webhook.id)).off_reason == "requested"
    with pytest.raises(NotFound):
        await rig.webhooks.get(gone.webhook.id)
    assert [one.id for one in (await rig.webhooks.page()).webhooks] == [off.webhook.id]


async def test_a_new_url_gets_what_waits_at_once(rig: Rig) -> None:
    """After a change of URL, pending messages are sent at once."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    rig.receivers.reactions[FIRST] = 404
    await rig.instance(None)
    await rig.work()
    await rig.after(6)
    await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND)))
    await rig.work()
    assert rig.receivers.types(SECOND) == ["created"]


async def test_a_new_url_is_not_blamed_for_the_old_one(rig: Rig) -> None:
    """Failures count per URL; setting the same URL resets nothing."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    rig.receivers.reactions.update({FIRST: 500, SECOND: 500})
    await rig.instance(None)
    await rig.work()
    began = rig.clock.now()
    await rig.clock.advance(6)
    same = await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(url=FIRST)))
    assert same.after.failing_since == began
    other = await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(description="moved")))
    assert other.after.failing_since == began
    moved = await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND)))
    assert moved.after.failing_since is None
    await rig.work()
    assert (await rig.webhooks.get(made.webhook.id)).failing_since == rig.clock.now()


async def test_what_the_old_url_answers_does_not_switch_the_new_one_off(rig: Rig) -> None:
    """A running try to the old URL does not affect the new one."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))

    async def move_meanwhile() -> int:
        await rig.do(rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND)))
        return 410

    rig.receivers.reactions[FIRST] = move_meanwhile
    instance_id = await rig.instance(None)
    await rig.work()
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    assert rig.receivers.types(SECOND)[-1:] == ["starting"]
    assert "webhook.switched_off" not in await rig.log(instance_id)


async def test_a_webhook_can_be_moved_and_switched_off_at_once(rig: Rig) -> None:
    """One request can change the URL and disable the webhook."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    changed = await rig.do(
        rig.webhooks.change(made.webhook.id, WebhookChange(url=SECOND, enabled=False))
    )
    assert (changed.after.url, changed.after.off_reason) == (SECOND, "requested")


async def test_a_test_message_is_sent_now_and_once(rig: Rig) -> None:
    """It returns its result, is signed, is not an event, and works while disabled."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST, enabled=False)))
    tested = await rig.webhooks._send_test(made.webhook.id)
    (message,) = rig.receivers.received
    verify(message, made.secret)
    assert message.json["type"] == "webhook.test"
    assert (tested.delivered, tested.attempt.status_code) == (True, 200)
    rig.receivers.reactions[FIRST] = 500
    tested = await rig.webhooks._send_test(made.webhook.id)
    assert (tested.delivered, tested.attempt.error) == (False, "The receiver answered 500")
    await rig.after(DAY)
    assert len(rig.receivers.received) == 2


async def test_deliveries_are_listed_in_pages(rig: Rig) -> None:
    """By instance oldest first, by webhook newest first; filtered and paged."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(SECOND)))
    instance_id = await rig.instance()
    await rig.happen(instance_id, EventType.STARTING, EventType.RUNNING)
    await rig.work()
    first = await rig.record.of_instance(instance_id, limit=4)
    rest = await rig.record.of_instance(instance_id, limit=4, cursor=first.next_cursor)
    assert rest.next_cursor is None
    both = [*first.deliveries, *rest.deliveries]
    types = [one.event_type.value.removeprefix("instance.") for one in both]
    assert types == ["created", "created", "starting", "starting", "running", "running"]
    newest = await rig.record.of_webhook(made.webhook.id, limit=1)
    assert newest.deliveries[0].event_type is EventType.RUNNING
    rest = await rig.record.of_webhook(made.webhook.id, cursor=newest.next_cursor)
    assert [one.event_type for one in rest.deliveries] == [EventType.STARTING, EventType.CREATED]
    dead = await rig.record.of_webhook(made.webhook.id, status=DeliveryStatus.DEAD)
    assert not dead.deliveries
    for wrong in ("x", "1.2.3", "99999999999999999999.a"):
        with pytest.raises(ValidationFailed):
            await rig.record.of_instance(instance_id, cursor=wrong)


async def test_no_more_tries_are_kept_than_anybody_reads(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only the latest tries of a message are stored."""
    assert deliveries.KEPT_ATTEMPTS == 50
    monkeypatch.setattr(deliveries, "KEPT_ATTEMPTS", 5)
    instance_id = await rig.instance()
    (delivery,) = await rig.deliveries(instance_id)
    for _ in range(8):
        await rig.do(rig.record.redeliver(delivery.id))
        await rig.after(1)
    (delivery,) = await rig.deliveries(instance_id)
    assert len(delivery.attempts) == 5
    assert delivery.attempts[-1].at == rig.clock.now()
