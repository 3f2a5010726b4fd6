# SPDX-License-Identifier: Apache-2.0
"""Queries on `events`, the one log that history, webhooks and the live stream read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import orjson
from sqlalchemy import Connection, select, text
from sqlalchemy.sql import ColumnElement

from novitai.domain.event import Event, EventType
from novitai.store.tables import events as table
from novitai.store.tables import instances


def append(
    connection: Connection,
    *,
    event_id: str,
    instance_id: str | None,
    event_type: EventType,
    at: int,
    data: Mapping[str, object],
) -> None:
    """Append an event, in the transaction of what it tells of.

    The caller holds the instance's row lock, which is what fixes the order per instance. An event
    about the account has no instance.
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
    return _list(connection, after, limit, table.c.instance_id == instance_id)


def since(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[Event]:
    """List the events of all instances after a sequence number, oldest first.

    On PostgreSQL a transaction may commit after one that got a higher number. So only events are
    given before which nothing can still appear: those of transactions older than every running
    one. A reader that goes on from the last number it saw misses nothing.
    """
    if connection.dialect.name == "postgresql":
        oldest_running = text("pg_snapshot_xmin(pg_current_snapshot())::text::bigint")
        return _list(connection, after, limit, table.c.transaction_id < oldest_running)
    return _list(connection, after, limit)


def instances_since(
    connection: Connection, *, since: int, types: Sequence[EventType], after: str, limit: int
) -> list[str]:
    """List the instances with an event of these types since a time, by id, behind an id."""
    has_one = (
        select(table.c.sequence)
        .where(table.c.instance_id == instances.c.id, *_of_types(since, types))
        .exists()
    )
    query = select(instances.c.id).where(instances.c.id > after, has_one)
    return list(connection.execute(query.order_by(instances.c.id).limit(limit)).scalars())


def ids_since(
    connection: Connection, instance_id: str, *, since: int, types: Sequence[EventType]
) -> list[str]:
    """List the ids of an instance's events of these types since a time, oldest first."""
    query = select(table.c.id).where(table.c.instance_id == instance_id, *_of_types(since, types))
    return list(connection.execute(query.order_by(table.c.sequence)).scalars())


def account_ids_since(
    connection: Connection, *, since: int, types: Sequence[EventType]
) -> list[str]:
    """List the ids of the account's own events of these types since a time, oldest first."""
    query = select(table.c.id).where(table.c.instance_id.is_(None), *_of_types(since, types))
    return list(connection.execute(query.order_by(table.c.sequence)).scalars())


def sequence_of(connection: Connection, event_id: str) -> int | None:
    """Find the sequence number of an event; None if there is no such event."""
    return connection.execute(
        select(table.c.sequence).where(table.c.id == event_id)
    ).scalar_one_or_none()


def _of_types(since: int, types: Sequence[EventType]) -> tuple[ColumnElement[bool], ...]:
    return table.c.at >= since, table.c.type.in_([one.value for one in types])


def _list(
    connection: Connection, after: int, limit: int, *conditions: ColumnElement[bool]
) -> list[Event]:
    rows = connection.execute(
        select(table.c.id, table.c.type, table.c.at, table.c.data)
        .where(table.c.sequence > after, *conditions)
        .order_by(table.c.sequence)
        .limit(limit)
    )
    return [Event(row[0], EventType(row[1]), row[2], orjson.loads(row[3])) for row in rows]
