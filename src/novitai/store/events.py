# SPDX-License-Identifier: Apache-2.0
"""Queries on `events`, the one log that history, webhooks and the live stream read."""

from __future__ import annotations

from collections.abc import Mapping

import orjson
from sqlalchemy import Connection, select

from novitai.domain.event import Event, EventType
from novitai.store.tables import events as table


def append(
    connection: Connection,
    *,
    event_id: str,
    instance_id: str,
    event_type: EventType,
    at: int,
    data: Mapping[str, object],
) -> None:
    """Append an event, in the transaction of what it tells of.

    The caller holds the instance's row lock, which is what fixes the order per instance.
    """
    connection.execute(
        table.insert().values(
            id=event_id,
            instance_id=instance_id,
            type=event_type.value,
            at=at,
            data=orjson.dumps(data).decode(),
        )
    )


def of_instance(
    connection: Connection, instance_id: str, *, after: int = 0, limit: int = 1000
) -> list[Event]:
    """List the events of an instance after a sequence number, oldest first."""
    rows = connection.execute(
        select(
            table.c.id,
            table.c.sequence,
            table.c.instance_id,
            table.c.type,
            table.c.at,
            table.c.data,
        )
        .where(table.c.instance_id == instance_id, table.c.sequence > after)
        .order_by(table.c.sequence)
        .limit(limit)
    )
    return [
        Event(row[0], row[1], row[2], EventType(row[3]), row[4], orjson.loads(row[5]))
        for row in rows
    ]
