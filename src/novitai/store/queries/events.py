# SPDX-License-Identifier: Apache-2.0
"""Queries on `events`, the log behind the history, the webhooks and the live stream."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
from sqlalchemy import BigInteger, Connection, func, insert, literal_column, select, text
from sqlalchemy.sql import ColumnElement

from novitai.domain.actor import Actor
from novitai.domain.event import Event, EventType
from novitai.store.engine.database import Database, is_snapshot
from novitai.store.queries.actors import dump_actor, load_actor
from novitai.store.tables import events as table
from novitai.store.tables import instances

# Without RETURNING: no caller needs the number that the row gets.
_INSERT: Final = insert(table).inline()
_DRAWN: Final = text("SELECT coalesce(pg_sequence_last_value('events_sequence_seq'::regclass), 0)")
# The subquery refers to `drawn.number`, so that PostgreSQL reads the number before the locks.
_SETTLED_SQL: Final = """
    WITH drawn AS MATERIALIZED (
        SELECT coalesce(pg_sequence_last_value('events_sequence_seq'::regclass), 0) AS number
    )
    SELECT least(drawn.number, (
        SELECT min(((lock.classid::bigint & 65535) << 32) | lock.objid::bigint)
        FROM pg_locks AS lock
        WHERE lock.locktype = 'advisory' AND lock.objsubid = 1
          AND lock.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND lock.classid::bigint >> 16 = 25974  -- 0x6576, see migration 0005
          AND drawn.number IS NOT NULL
    ))
    FROM drawn
"""
_SETTLED: Final = text(_SETTLED_SQL)
SETTLED: Final = literal_column(f"({_SETTLED_SQL})", BigInteger)
"""On PostgreSQL, the number up to which no transaction can still commit an event. A snapshot that
is taken after the statement with this column sees all events up to it."""
_LAST: Final = select(func.coalesce(func.max(table.c.sequence), 0))
_COLUMNS: Final = (table.c.id, table.c.type, table.c.at, table.c.data, table.c.actor)


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """An event with its sequence number and the instance that it is about, if any."""

    sequence: int
    instance_id: str | None
    event: Event


def append(
    connection: Connection,
    *,
    event_id: str,
    instance_id: str | None,
    event_type: EventType,
    at: int,
    data: Mapping[str, object],
    actor: Actor | None,
) -> None:
    """Append an event, in the transaction of the change that it reports.

    The caller must hold the instance's row lock, which fixes the order of its events. An event
    about the account has no instance.
    """
    connection.execute(
        _INSERT,
        {
            "id": event_id,
            "instance_id": instance_id,
            "type": event_type.value,
            "at": at,
            "data": orjson.dumps(data).decode(),
            "actor": dump_actor(actor),
        },
    )
    Database.count(connection, lambda metrics: metrics.event(event_type))


def of_instance(
    connection: Connection, instance_id: str, *, after: int = 0, limit: int = 1000
) -> list[Event]:
    """List the events of an instance after a sequence number, oldest first."""
    return _list(connection, after, limit, table.c.instance_id == instance_id)


def since(connection: Connection, *, after: int = 0, limit: int = 1000) -> list[Event]:
    """List the events of all instances after a sequence number, oldest first.

    On PostgreSQL a transaction may commit after one that drew a higher number. So the list ends
    before the lowest number that may still be uncommitted, see `_settled`. A reader that continues
    from the last number it saw misses no event and sees none twice.

    Raises:
        RuntimeError: on PostgreSQL, the transaction is a snapshot read; the second statement must
            see later commits than the first.
    """
    return _list(connection, after, limit, *_up_to(_settled(connection)))


def latest(
    connection: Connection, *, after: int = 0, before: int | None = None, limit: int = 1000
) -> list[Event]:
    """List the events of all instances after a number and before another one, newest first.

    The newest event is the last one that `since` returns. So no event appears later below one that
    was listed. Raises the same as `since`.
    """
    conditions = [table.c.sequence > after, *_up_to(_settled(connection))]
    if before is not None:
        conditions.append(table.c.sequence < before)
    query = select(*_COLUMNS).where(*conditions).order_by(table.c.sequence.desc()).limit(limit)
    return [_event(*row) for row in connection.execute(query)]


def held_back_since(connection: Connection) -> int | None:
    """Return the time of the first stored event that `since` does not return yet.

    In Unix milliseconds; None if `since` returns all events. Raises the same as `since`.
    """
    settled = _settled(connection)
    if settled is None:
        return None
    held_back = select(table.c.at).where(table.c.sequence > settled)
    return connection.execute(held_back.order_by(table.c.sequence).limit(1)).scalar_one_or_none()


def settled(connection: Connection) -> int:
    """Return the number up to which no transaction can still commit an event.

    A stretch of the log up to it is complete. It may be lower than an earlier result, but never
    below the number of an event that is committed later. Raises the same as `since`.
    """
    number = _settled(connection)
    return last(connection) if number is None else number


def last(connection: Connection) -> int:
    """Return the number of the last event that was ever written, 0 if there was none.

    On PostgreSQL the event may be uncommitted or rolled back.
    """
    if connection.dialect.name == "postgresql":
        return int(connection.execute(_DRAWN).scalar_one())
    return int(connection.execute(_LAST).scalar_one())


def seen_beyond(connection: Connection, number: int) -> list[int]:
    """List the numbers after `number` of the events that this transaction sees, in order."""
    query = select(table.c.sequence).where(table.c.sequence > number)
    return list(connection.execute(query.order_by(table.c.sequence)).scalars())


def stretch(
    connection: Connection, *, after: int, until: int | None = None, limit: int
) -> list[LoggedEvent]:
    """List the events after a number, up to `until` if given, oldest first."""
    query = select(table.c.sequence, table.c.instance_id, *_COLUMNS).where(
        table.c.sequence > after, *_up_to(until)
    )
    rows = connection.execute(query.order_by(table.c.sequence).limit(limit))
    return [LoggedEvent(row[0], row[1], _event(*row[2:])) for row in rows]


def instances_since(
    connection: Connection, *, since: int, types: Sequence[EventType], after: str, limit: int
) -> list[str]:
    """List the IDs of instances with an event of these types since a time, after an ID."""
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
    """List the IDs of an instance's events of these types since a time, oldest first."""
    query = select(table.c.id).where(table.c.instance_id == instance_id, *_of_types(since, types))
    return list(connection.execute(query.order_by(table.c.sequence)).scalars())


def account_ids_since(
    connection: Connection, *, since: int, types: Sequence[EventType]
) -> list[str]:
    """List the IDs of events of these types about the account since a time, oldest first."""
    query = select(table.c.id).where(table.c.instance_id.is_(None), *_of_types(since, types))
    return list(connection.execute(query.order_by(table.c.sequence)).scalars())


def sequence_of(connection: Connection, event_id: str) -> int | None:
    """Return the sequence number of an event; None if there is no such event."""
    return connection.execute(
        select(table.c.sequence).where(table.c.id == event_id)
    ).scalar_one_or_none()


def _of_types(since: int, types: Sequence[EventType]) -> tuple[ColumnElement[bool], ...]:
    return table.c.at >= since, table.c.type.in_([one.value for one in types])


def _settled(connection: Connection) -> int | None:
    """Return the number up to which no transaction can still commit an event.

    None on SQLite, which has a single writer. On PostgreSQL a transaction that writes events holds
    a shared advisory lock from before it draws its first number until its commit is visible. The
    lock's key is lower than all numbers of the transaction (migration 0005); only locks in this
    database count. The order matters: read the last number drawn, then the locks, and then, in
    another statement, the events.
    """
    if connection.dialect.name != "postgresql":
        return None
    if is_snapshot(connection):
        raise RuntimeError("the feed cannot be read in a snapshot")
    return int(connection.execute(_SETTLED).scalar_one())


def _up_to(settled: int | None) -> tuple[ColumnElement[bool], ...]:
    return () if settled is None else (table.c.sequence <= settled,)


def _list(
    connection: Connection, after: int, limit: int, *conditions: ColumnElement[bool]
) -> list[Event]:
    rows = connection.execute(
        select(*_COLUMNS)
        .where(table.c.sequence > after, *conditions)
        .order_by(table.c.sequence)
        .limit(limit)
    )
    return [_event(*row) for row in rows]


def _event(event_id: str, event_type: str, at: int, data: str, actor: str | None) -> Event:
    return Event(event_id, EventType(event_type), at, orjson.loads(data), load_actor(actor))
