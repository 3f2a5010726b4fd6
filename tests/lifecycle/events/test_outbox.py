# SPDX-License-Identifier: Apache-2.0
"""Which events are enqueued for which receivers."""

from __future__ import annotations

import pytest
from sqlalchemy import Connection

from novitai.domain.event import EventType
from novitai.domain.requests import WebhookRequest
from novitai.store.engine.database import Database
from novitai.testing import ManualClock
from tests.lifecycle.webhooks.delivery_rig import FIRST, SECOND, Rig


@pytest.fixture
async def rig(database: Database, clock: ManualClock) -> Rig:
    """Deliveries on each store in turn."""
    return Rig(database, clock)


async def test_a_new_instance_brings_its_url_back(rig: Rig) -> None:
    """A URL that answered 410 gets messages again when a new instance names it."""
    first = await rig.instance()
    rig.receivers.reactions[FIRST] = 410
    await rig.work()
    await rig.happen(first, EventType.STARTING)
    rig.receivers.reactions[FIRST] = 200
    second = await rig.instance()
    await rig.happen(second, EventType.STARTING)
    await rig.work()
    assert await rig.statuses(first) == ["dead"]
    assert await rig.statuses(second) == ["delivered", "delivered"]


async def test_only_what_is_wanted_is_told(rig: Rig) -> None:
    """No delivery is made for unwanted types, webhooks that are off, and internal events."""
    await rig.do(rig.webhooks.create(WebhookRequest(FIRST, (EventType.RUNNING,))))
    await rig.do(rig.webhooks.create(WebhookRequest(SECOND, enabled=False)))
    own = "http://93.184.215.3/hook"
    instance_id = await rig.instance(own)
    await rig.happen(
        instance_id, EventType.STARTING, EventType.RUNNING, EventType.DRIFT, EventType.CLEANED_UP
    )
    await rig.work()
    assert rig.receivers.types(FIRST) == ["running"]
    assert rig.receivers.types(own) == ["created", "starting", "running"]
    assert not rig.receivers.at(SECOND)


async def test_no_event_no_message(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    """A message is never sent if the transaction of its event is rolled back."""
    instance_id = await rig.instance()
    await rig.work()
    with monkeypatch.context() as patched:
        patched.setattr(rig.outbox, "_jobs", _Failing())
        with pytest.raises(ZeroDivisionError):
            await rig.happen(instance_id, EventType.STARTING)
    await rig.work()
    assert rig.receivers.types() == ["created"]
    assert await rig.log(instance_id) == ["instance.created"]


class _Failing:
    def nudge(self, connection: object, name: str, key: str) -> None:
        raise ZeroDivisionError


async def test_events_about_the_account_go_to_standing_webhooks(rig: Rig) -> None:
    """Account events go neither to instance URLs nor to webhooks for other types."""
    await rig.do(rig.webhooks.create(WebhookRequest(FIRST)))
    await rig.do(rig.webhooks.create(WebhookRequest(SECOND, (EventType.RUNNING,))))
    own = "http://93.184.215.3/hook"
    await rig.instance(own)
    await rig.work()

    def happen(connection: Connection) -> None:
        data = {"held": False, "message": "The account matches the records again"}
        rig.recorder.append_account(connection, EventType.ACCOUNT_CHANGED, data)

    await rig.database.write(happen)
    await rig.work()
    assert rig.receivers.types(FIRST) == ["created", "account.changed"]
    assert rig.receivers.types(own) == ["created"]
    assert not rig.receivers.at(SECOND)
