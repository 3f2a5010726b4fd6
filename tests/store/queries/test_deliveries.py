# SPDX-License-Identifier: Apache-2.0
"""Queries on lines and messages, on each store."""

from __future__ import annotations

from functools import partial

import pytest
from sqlalchemy import Connection
from sqlalchemy.exc import IntegrityError

from novitai.domain.event import EventType
from novitai.domain.instance import InstanceStatus
from novitai.domain.webhook import Webhook, host_of, id_of_url
from novitai.store.engine.database import Database
from novitai.store.queries import deliveries, events, instances, webhook_lines, webhooks
from novitai.store.queries.leases import Fenced
from novitai.testing import ManualClock, an_instance

NOW = 1_000_000


def have(connection: Connection, names: tuple[str, ...]) -> list[str]:
    """Insert an instance and a receiver with one message for each name; return the lines."""
    lines = []
    for name in names:
        instance = an_instance(InstanceStatus.CREATING, id=f"inst_1_{name}", name=name)
        instances.insert(connection, instance, b"sealed")
        events.append(
            connection,
            event_id=f"evt_{name}",
            instance_id=instance.id,
            event_type=EventType.CREATED,
            at=NOW,
            data={},
            actor=None,
        )
        url = f"https://{name}.example.com/"
        webhook = Webhook(id_of_url(url), False, url, (), True, NOW, NOW)
        webhooks.insert(connection, webhook, None)
        line_id = webhook_lines.open_line(
            connection,
            fresh_id=f"line_{name}",
            instance_id=instance.id,
            webhook_id=webhook.id,
            host=host_of(url),
            now=NOW,
        )
        deliveries.insert(
            connection,
            delivery_id=f"msg_{name}",
            line_id=line_id,
            webhook_id=webhook.id,
            instance_id=instance.id,
            event_id=f"evt_{name}",
            now=NOW,
        )
        lines.append(line_id)
    return lines


async def test_what_is_due(database: Database) -> None:
    """`due` lists lines that are due, not leased, and whose host is not excluded."""
    await database.write(partial(have, names=("a", "b", "c", "d")))

    def some_wait(connection: Connection) -> None:
        webhook_lines.set_next(connection, "line_b", NOW + 1)
        webhook_lines.set_next(connection, "line_c", NOW - 1)
        assert webhook_lines.claim(connection, "line_d", now=NOW, until=NOW + 5)

    await database.write(some_wait)

    async def due(now: int, limit: int = 9, *hosts: str) -> list[str]:
        return await database.read(
            lambda connection: webhook_lines.due(connection, now, limit, except_hosts=hosts)
        )

    assert await due(NOW) == ["line_c", "line_a"]
    assert await due(NOW, 1) == ["line_c"]
    assert await due(NOW, 9, "c.example.com:443") == ["line_a"]
    assert set(await due(NOW + 5)) == {"line_a", "line_b", "line_c", "line_d"}


async def test_a_claim(database: Database) -> None:
    """A due line can be claimed once, and later writes must name the token of the claim."""
    await database.write(partial(have, names=("a",)))

    def claim(connection: Connection, now: int) -> webhook_lines.Line | None:
        return webhook_lines.claim(connection, "line_a", now=now, until=now + 10)

    assert await database.write(partial(claim, now=NOW - 1)) is None
    first = await database.write(partial(claim, now=NOW))
    assert first is not None
    assert await database.write(partial(claim, now=NOW + 9)) is None
    assert await database.write(lambda c: webhook_lines.renew(c, first, until=NOW + 20))
    assert await database.write(partial(claim, now=NOW + 19)) is None
    second = await database.write(partial(claim, now=NOW + 20))
    assert second is not None
    assert second.token == first.token + 1
    assert not await database.write(lambda c: webhook_lines.renew(c, first, until=NOW + 99))
    with pytest.raises(Fenced):
        await database.write(lambda c: webhook_lines.hold(c, first))
    await database.write(lambda c: webhook_lines.hold(c, second))


async def test_the_same_event_is_told_once_to_one_receiver(
    database: Database, clock: ManualClock
) -> None:
    """Inserting an event's message to a receiver again restarts it instead of adding another."""
    await database.write(partial(have, names=("a",)))
    webhook_id = id_of_url("https://a.example.com/")

    def again(connection: Connection) -> None:
        deliveries.insert(
            connection,
            delivery_id="msg_other",
            line_id="line_a",
            webhook_id=webhook_id,
            instance_id="inst_1_a",
            event_id="evt_a",
            now=clock.now(),
        )

    await database.write(again)
    (only,) = await database.read(
        lambda c: deliveries.of_instance(c, "inst_1_a", after=None, limit=9)
    )
    assert (only.id, only.due_at) == ("msg_a", clock.now())


async def test_an_event_that_is_not_there_cannot_be_told(database: Database) -> None:
    """The database refuses a message whose event does not exist."""
    await database.write(partial(have, names=("a",)))
    with pytest.raises(IntegrityError):
        await database.write(
            lambda c: deliveries.insert(
                c,
                delivery_id="msg_x",
                line_id="line_a",
                webhook_id=id_of_url("https://a.example.com/"),
                instance_id="inst_1_a",
                event_id="evt_none",
                now=NOW,
            )
        )
