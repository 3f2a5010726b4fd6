# SPDX-License-Identifier: Apache-2.0
"""Deliveries are signed, in order, and retried on schedule, in spite of faulty receivers."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from sqlalchemy import Connection
from standardwebhooks import WebhookVerificationError

from novitai.clock import iso
from novitai.domain.actor import SYNC, Actor
from novitai.domain.event import EventType
from novitai.domain.requests import WebhookRequest
from novitai.domain.webhook import PAUSES
from novitai.store.engine.database import Database
from novitai.store.queries import webhook_lines
from novitai.testing import ManualClock
from tests.lifecycle.webhooks.delivery_rig import FIRST, SECOND, SECRET, Rig, verify

DAY = 86_400.0


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> Rig:
    """Deliveries, on each store in turn."""
    return Rig(database, clock)


async def test_a_message_arrives_signed_and_whole(rig: Rig) -> None:
    """The body is type, timestamp and view; the independent verifier accepts it."""
    instance_id = await rig.instance()
    await rig.work()
    (message,) = rig.receivers.received
    verify(message, SECRET)
    assert set(message.json) == {"type", "timestamp", "data"}
    assert message.json["type"] == "instance.created"
    assert message.json["data"]["id"] == instance_id
    (delivery,) = await rig.deliveries(instance_id)
    assert (delivery.id, delivery.status, delivery.url) == (message.id, "delivered", FIRST)
    (made,) = delivery.attempts
    assert (made.at, made.status_code, made.error) == (rig.clock.now(), 200, None)
    assert made.response == "seen"


async def test_a_message_has_no_name_of_a_key(rig: Rig) -> None:
    """`actor` and `createdBy` have the ID of the key alone; a part of novitai is named."""
    key = Actor("key_1", "Ann's laptop")
    recorder, rig.recorder = rig.recorder, rig.recorder.by(key)
    instance_id = await rig.instance(created_by=key)
    rig.recorder = recorder.by(SYNC)
    await rig.happen(instance_id, EventType.STARTING)
    rig.recorder = recorder
    await rig.happen(instance_id, EventType.RUNNING)
    await rig.work()
    by_key, by_sync, by_none = (one.json["data"] for one in rig.receivers.received)
    assert by_key["actor"] == {"keyId": "key_1"}
    assert by_sync["actor"] == {"system": "sync"}
    assert "actor" not in by_none
    for data in (by_key, by_sync, by_none):
        assert data["createdBy"] == {"keyId": "key_1"}
        assert data["tags"] == {}


async def test_what_was_tampered_with_is_refused(rig: Rig) -> None:
    """The verifier rejects a changed byte, an old timestamp and a wrong secret."""
    await rig.instance()
    await rig.work()
    (message,) = rig.receivers.received
    changed = message.body.replace(b"my-instance", b"my-instancE")
    with pytest.raises(WebhookVerificationError, match="No matching"):
        verify(replace(message, body=changed), SECRET)
    with pytest.raises(WebhookVerificationError, match="too old"):
        verify(replace(message, at=message.at + 301_000), SECRET)
    with pytest.raises(WebhookVerificationError, match="No matching"):
        verify(message, SECRET[:-1] + "9")


async def test_the_retry_table(rig: Rig) -> None:
    """Tries follow at once, then after 5 s to 24 h (±10 %); then the message is dead."""
    instance_id = await rig.instance()
    await rig.happen(instance_id, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 500
    await rig.work()
    assert list(PAUSES) == [5, 300, 1800, 7200, 18_000, 36_000, 50_400, 72_000, 86_400]
    for number, pause in enumerate(PAUSES, start=1):
        assert len(rig.receivers.received) == number
        await rig.after(pause * 0.89)
        assert len(rig.receivers.received) == number, f"came before {pause} s"
        await rig.after(pause * 0.22)
    assert rig.receivers.types() == ["created"] * 10 + ["starting"]
    assert await rig.statuses(instance_id) == ["dead", "pending"]
    assert len({one.id for one in rig.receivers.received[:10]}) == 1
    assert len({one.body for one in rig.receivers.received[:10]}) == 1
    for message in rig.receivers.received:
        verify(message, SECRET)


async def test_order_is_kept_per_instance_and_receiver(rig: Rig) -> None:
    """A message waits for the one before it in its line only."""
    held = await rig.instance()
    other = await rig.do(rig.webhooks.create(WebhookRequest(SECOND)))
    await rig.happen(held, EventType.STARTING, EventType.RUNNING)
    rig.receivers.reactions[FIRST] = 503
    await rig.work()
    assert rig.receivers.types(FIRST) == ["created"]
    assert rig.receivers.types(SECOND) == ["starting", "running"]
    rig.receivers.reactions[FIRST] = 204
    await rig.after(6)
    assert rig.receivers.types(FIRST) == ["created", "created", "starting", "running"]
    for message in rig.receivers.at(SECOND):
        verify(message, other.secret)


async def test_a_success_makes_what_waits_for_the_receiver_due_at_once(rig: Rig) -> None:
    """A success hurries the receiver's other lines, not other receivers'."""
    waiting, elsewhere = await rig.instance(), await rig.instance(SECOND)
    rig.receivers.reactions.update({FIRST: 500, SECOND: 500})
    await rig.work()
    await rig.after(6)
    assert len(rig.receivers.received) == 4
    rig.receivers.reactions.update({FIRST: 200, SECOND: 200})
    fresh = await rig.instance()
    await rig.after(1)
    assert await rig.statuses(waiting) == await rig.statuses(fresh) == ["delivered"]
    assert await rig.statuses(elsewhere) == ["pending"]


async def test_an_early_try_uses_up_none_of_the_table(rig: Rig) -> None:
    """Early tries do not count, and are not repeated in a loop."""
    refused = await rig.instance()

    async def refuse_that_one() -> int:
        return 500 if rig.receivers.received[-1].json["data"]["id"] == refused else 200

    rig.receivers.reactions[FIRST] = refuse_that_one
    await rig.work()
    await rig.after(6)
    for _ in range(40):
        await rig.instance()
        await rig.after(1)
    (delivery,) = await rig.deliveries(refused)
    assert delivery.status == "pending"
    assert 4 <= len(delivery.attempts) <= 7
    assert 269_000 < delivery.due_at - delivery.attempts[1].at < 331_000


@pytest.mark.parametrize(
    ("value", "least", "most"),
    [
        ("60", 60, 60.2),
        ("1", 4.4, 5.6),
        ("nonsense", 4.4, 5.6),
        ("-5", 4.4, 5.6),
        ("999999999999", DAY, DAY + 1),
        ("date", 119, 121),
    ],
)
async def test_retry_after_is_honoured(rig: Rig, value: str, least: float, most: float) -> None:
    """No try is earlier than `Retry-After` (up to a day) or the schedule."""
    if value == "date":
        moment = datetime.fromtimestamp(rig.clock.now() / 1000 + 120, UTC)
        value = format_datetime(moment, usegmt=True)
    instance_id = await rig.instance()
    rig.receivers.reactions[FIRST] = (503, {"Retry-After": value})
    await rig.work()
    (delivery,) = await rig.deliveries(instance_id)
    assert least <= (delivery.due_at - rig.clock.now()) / 1000 <= most


@pytest.mark.parametrize("status", [301, 302, 307, 308, 400, 401, 404, 409, 422, 429, 500])
async def test_every_answer_but_2xx_is_tried_again(rig: Rig, status: int) -> None:
    """Redirects are not followed; every other status is retried."""
    instance_id = await rig.instance()
    rig.receivers.reactions[FIRST] = (status, {"Location": SECOND})
    await rig.work()
    await rig.after(6)
    assert len(rig.receivers.at(FIRST)) == 2
    assert not rig.receivers.at(SECOND)
    (delivery,) = await rig.deliveries(instance_id)
    assert [one.status_code for one in delivery.attempts] == [status, status]
    assert delivery.attempts[0].error == f"The receiver answered {status}"


async def test_410_ends_a_webhook(rig: Rig) -> None:
    """After a 410 pending messages are dead, an event is appended, and no more are written."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    instance_id = await rig.instance(None)
    await rig.happen(instance_id, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 410
    await rig.work()
    await rig.happen(instance_id, EventType.RUNNING)
    await rig.after(DAY)
    assert rig.receivers.types() == ["created"]
    assert await rig.statuses(instance_id) == ["dead", "dead"]
    assert (await rig.webhooks.get(made.webhook.id)).off_reason == "gone"
    assert (await rig.log(instance_id)).count("webhook.switched_off") == 1


async def test_five_days_of_failure_switch_a_receiver_off(rig: Rig) -> None:
    """With one event; a success in between restarts the count."""
    made = await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    instance_id = await rig.instance(None)
    rig.receivers.reactions[FIRST] = 500
    for _ in range(4):
        await rig.after(DAY)
        await rig.happen(instance_id, EventType.STARTING)
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    rig.receivers.reactions[FIRST] = 200
    await rig.after(DAY)
    rig.receivers.reactions[FIRST] = 500
    await rig.happen(instance_id, EventType.STARTING)
    for _ in range(4):
        await rig.after(DAY)
        await rig.happen(instance_id, EventType.STARTING)
    assert (await rig.webhooks.get(made.webhook.id)).enabled
    for _ in range(3):
        await rig.after(0.7 * DAY)
    shown = await rig.webhooks.get(made.webhook.id)
    assert (shown.enabled, shown.off_reason) == (False, "failing")
    assert (await rig.log(instance_id)).count("webhook.switched_off") == 1
    assert await rig.waiting() is None


async def test_a_line_is_worked_on_by_one_and_taken_over_when_its_lease_ends(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A result after the end of the lease is dropped."""
    instance_id = await rig.instance()
    await rig.happen(instance_id, EventType.STARTING)
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hang() -> int:
        begun.set()
        await gate.wait()
        return 500

    rig.receivers.reactions[FIRST] = hang
    (line_id,) = set(rig.engine.nudged)
    slow, quick = rig.deliverer, rig.another_deliverer()

    async def stand_still(_line: object) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(slow, "_renew", stand_still)
    sending = asyncio.create_task(slow.run(line_id))
    await begun.wait()
    await quick.run(line_id)
    assert rig.receivers.types() == ["created"]
    rig.receivers.reactions[FIRST] = 200
    await rig.after(8)
    assert rig.receivers.types() == ["created", "created", "starting"]
    gate.set()
    await sending
    assert await rig.statuses(instance_id) == ["delivered", "delivered"]
    assert slow.metrics.fenced == 1


async def test_the_lease_is_kept_while_a_receiver_takes_long(rig: Rig) -> None:
    """A delivery longer than a lease is not claimed by another worker."""
    await rig.instance()
    gate, begun = asyncio.Event(), asyncio.Event()

    async def hang() -> int:
        begun.set()
        await gate.wait()
        return 200

    rig.receivers.reactions[FIRST] = hang
    (line_id,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line_id))
    await begun.wait()
    for _ in range(6):
        await rig.clock.advance(2.5)
        await rig.at_work.rest()
        await rig.work()
    gate.set()
    await sending
    assert rig.receivers.types() == ["created"]
    assert rig.deliverer.metrics.fenced == 0


async def test_who_comes_to_send_too_late_does_not(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that stalls after its claim releases it without sending."""
    await rig.instance()
    (line_id,) = set(rig.engine.nudged)
    claim = rig.deliverer._claim
    sent_at_claims: list[int] = []

    def slow_at_first(connection: Connection, line_id: str) -> object:
        found = claim(connection, line_id)
        sent_at_claims.append(len(rig.receivers.received))
        if len(sent_at_claims) == 1:
            rig.clock._now_ms += 6000
        return found

    monkeypatch.setattr(rig.deliverer, "_claim", slow_at_first)
    assert await rig.deliverer.run(line_id) == rig.clock.now()
    await rig.deliverer.run(line_id)
    assert sent_at_claims == [0, 0]
    assert rig.receivers.types() == ["created"]


async def test_a_stop_gives_the_line_back(rig: Rig) -> None:
    """The line of a cancelled delivery can be claimed at once."""
    await rig.instance()
    begun = asyncio.Event()

    async def hang() -> int:
        begun.set()
        await asyncio.Event().wait()
        return 200

    rig.receivers.reactions[FIRST] = hang
    (line_id,) = set(rig.engine.nudged)
    sending = asyncio.create_task(rig.deliverer.run(line_id))
    await begun.wait()
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    rig.receivers.reactions[FIRST] = 200
    await rig.work()
    assert rig.receivers.types() == ["created", "created"]


async def test_leases_of_a_process_that_died_are_given_back_at_the_start(rig: Rig) -> None:
    """An embedded store releases all leases at the start."""
    await rig.instance()
    (line_id,) = set(rig.engine.nudged)
    now = rig.clock.now()
    await rig.database.write(lambda c: webhook_lines.claim(c, line_id, now=now, until=now + 60_000))
    await rig.work()
    assert not rig.receivers.received
    assert await rig.database.write(webhook_lines.release_all) == 1
    await rig.work()
    assert rig.receivers.types() == ["created"]


async def test_the_age_of_what_waits_is_known(rig: Rig) -> None:
    """The age of the oldest pending message is reported; 0 if there is none."""
    await rig.instance()
    rig.receivers.reactions[FIRST] = 500
    await rig.after(2)
    assert await rig.record.oldest_waiting_seconds() == 2.0
    rig.receivers.reactions[FIRST] = 200
    await rig.after(6)
    assert await rig.record.oldest_waiting_seconds() == 0.0
    assert rig.deliverer.metrics.snapshot() == {
        "delivered": 1,
        "refused": 1,
        "unreachable": 0,
        "gone": 0,
    }


async def test_a_message_keeps_the_time_of_its_event(rig: Rig) -> None:
    """The timestamp is the event's; the signature's is the current time."""
    began = rig.clock.now()
    await rig.instance()
    await rig.after(100)
    (message,) = rig.receivers.received
    assert message.json["timestamp"] == iso(began)
    assert message.headers["webhook-timestamp"] == str((began + 100_000) // 1000)


async def test_no_message_is_overlooked(rig: Rig) -> None:
    """A message written while its line is being closed is found due."""
    instance_id = await rig.instance()
    (line_id,) = set(rig.engine.nudged)
    for _ in range(10):
        await asyncio.gather(
            rig.happen(instance_id, EventType.STARTING),
            rig.engine.handler(line_id),
            rig.happen(instance_id, EventType.RUNNING),
            rig.engine.handler(line_id),
        )
    await rig.work()
    log = [word.removeprefix("instance.") for word in await rig.log(instance_id)]
    assert len(log) == 21
    assert rig.receivers.types() == log


async def test_concurrent_events_and_recoveries_do_not_block_each_other(rig: Rig) -> None:
    """Concurrent writes do not deadlock, and all messages arrive."""
    ids = [await rig.instance(url) for url in (FIRST, SECOND) * 5]
    for url in (FIRST, SECOND):
        await rig.do(rig.webhooks.create(WebhookRequest(url)))
    rig.receivers.reactions.update({FIRST: 500, SECOND: 500})
    await rig.work()
    rig.receivers.reactions.update({FIRST: 200, SECOND: 200})
    lines = sorted(set(rig.engine.nudged))
    for _ in range(3):
        await asyncio.gather(
            *(rig.happen(one, EventType.STARTING) for one in ids),
            *(rig.engine.handler(line) for line in lines),
            *(rig.deliverer.expedite(hook.id) for hook in (await rig.webhooks.page()).webhooks),
        )
        await rig.clock.advance(11)
    await rig.work()
    for one in ids:
        assert set(await rig.statuses(one)) == {"delivered"}
