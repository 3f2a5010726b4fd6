# SPDX-License-Identifier: Apache-2.0
"""Queries on `deliveries` and `delivery_attempts`: messages to receivers and their attempts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from typing import Final

from sqlalchemy import (
    ColumnElement,
    Connection,
    Executable,
    Select,
    bindparam,
    delete,
    func,
    select,
    tuple_,
    update,
)

from novitai.domain.actor import Actor
from novitai.domain.event import EventType
from novitai.domain.webhook import Delivery, DeliveryStatus, Try
from novitai.store.engine import upsert
from novitai.store.engine.chunks import chunks
from novitai.store.queries.actors import load_actor
from novitai.store.tables import Record, delivery_attempts, events, webhooks
from novitai.store.tables import deliveries as table

KEPT_ATTEMPTS: Final = 50
"""How many attempts of a message are kept; older ones are deleted."""

_PENDING: Final = DeliveryStatus.PENDING.value


@dataclass(frozen=True, slots=True)
class Head:
    """The first waiting message of a line, with its event; `data` is the event's JSON."""

    id: str
    event_type: str
    at: int
    data: str
    tries: int
    attempts: int
    due_at: int
    actor: Actor | None = None


def insert(
    connection: Connection,
    *,
    delivery_id: str,
    line_id: str,
    webhook_id: str,
    instance_id: str | None,
    event_id: str,
    now: int,
) -> None:
    """Insert a message, due now, into a line that the transaction has locked.

    If the receiver already has a message of the event, that message becomes pending again instead.
    """
    values = {
        "message": delivery_id,
        "line": line_id,
        "webhook": webhook_id,
        "instance": instance_id,
        "event": event_id,
        "now": now,
    }
    connection.execute(_inserting(connection.dialect.name), values)


@cache
def _inserting(dialect: str) -> Executable:
    """Build the statement once: that costs more than running it, and it runs for every event."""
    statement = upsert.insert(table, dialect).values(
        id=bindparam("message"),
        line_id=bindparam("line"),
        webhook_id=bindparam("webhook"),
        instance_id=bindparam("instance"),
        event_sequence=select(events.c.sequence)
        .where(events.c.id == bindparam("event"))
        .scalar_subquery(),
        status=_PENDING,
        created_at=bindparam("now"),
        due_at=bindparam("now"),
    )
    restart = {
        "status": _PENDING,
        "tries": 0,
        "due_at": statement.excluded.due_at,
        "ended_at": None,
    }
    return statement.on_conflict_do_update(
        index_elements=[table.c.webhook_id, table.c.event_sequence], set_=restart
    )


def head(connection: Connection, line_id: str) -> Head | None:
    """Load the first waiting message of a line; None if no message waits."""
    row = connection.execute(
        select(
            table.c.id,
            events.c.type,
            events.c.at,
            events.c.data,
            table.c.tries,
            table.c.attempts,
            table.c.due_at,
            events.c.actor,
        )
        .join(events, events.c.sequence == table.c.event_sequence)
        .where(table.c.line_id == line_id, table.c.status == _PENDING)
        .order_by(table.c.event_sequence)
        .limit(1)
    ).first()
    return None if row is None else Head(*row[:-1], load_actor(row[-1]))


def next_due(connection: Connection, line_id: str) -> int | None:
    """Return when the first waiting message of a line is due; None if no message waits."""
    return connection.execute(
        select(table.c.due_at)
        .where(table.c.line_id == line_id, table.c.status == _PENDING)
        .order_by(table.c.event_sequence)
        .limit(1)
    ).scalar_one_or_none()


def is_as_claimed(connection: Connection, head: Head) -> bool:
    """Whether a message has neither been restarted nor ended since it was claimed."""
    row = connection.execute(
        select(table.c.status, table.c.tries, table.c.due_at).where(table.c.id == head.id)
    ).first()
    return row is not None and tuple(row) == (_PENDING, head.tries, head.due_at)


def note_try(connection: Connection, head: Head, made: Try) -> None:
    """Store an attempt of a message, and delete those beyond `KEPT_ATTEMPTS`."""
    number = head.attempts + 1
    connection.execute(update(table).where(table.c.id == head.id).values(attempts=number))
    connection.execute(
        delivery_attempts.insert().values(
            delivery_id=head.id,
            number=number,
            at=made.at,
            duration_ms=made.duration_ms,
            status_code=made.status_code,
            error=made.error,
            response=made.response,
        )
    )
    if number > KEPT_ATTEMPTS:
        connection.execute(
            delete(delivery_attempts).where(
                delivery_attempts.c.delivery_id == head.id,
                delivery_attempts.c.number <= number - KEPT_ATTEMPTS,
            )
        )


def end(connection: Connection, delivery_id: str, status: DeliveryStatus, *, now: int) -> None:
    """Record that a message was delivered or given up."""
    connection.execute(
        update(table).where(table.c.id == delivery_id).values(status=status.value, ended_at=now)
    )


def postpone(connection: Connection, delivery_id: str, *, tries: int, due_at: int) -> None:
    """Set the number of failed attempts of a pending message, and when it is due again."""
    connection.execute(
        update(table)
        .where(table.c.id == delivery_id, table.c.status == _PENDING)
        .values(tries=tries, due_at=due_at)
    )


def give_up_line(connection: Connection, line_id: str, *, now: int) -> int:
    """Give up every waiting message of a line; return how many."""
    return connection.execute(
        update(table)
        .where(table.c.line_id == line_id, table.c.status == _PENDING)
        .values(status=DeliveryStatus.DEAD.value, ended_at=now)
    ).rowcount


def line_of(connection: Connection, delivery_id: str) -> tuple[str, str] | None:
    """Return the IDs of a message's line and webhook; None if there is no such message."""
    row = connection.execute(
        select(table.c.line_id, table.c.webhook_id).where(table.c.id == delivery_id)
    ).first()
    return None if row is None else (row[0], row[1])


def begin_anew(connection: Connection, delivery_id: str, *, now: int) -> None:
    """Make a message pending, due now, with all attempts left; the caller must lock its line."""
    connection.execute(
        update(table)
        .where(table.c.id == delivery_id)
        .values(status=_PENDING, tries=0, due_at=now, ended_at=None)
    )


def load(connection: Connection, delivery_id: str) -> Delivery | None:
    """Load a message with its attempts; None if it does not exist."""
    found = _list(connection, _select().where(table.c.id == delivery_id))
    return found[0] if found else None


def of_instance(
    connection: Connection, instance_id: str, *, after: tuple[int, str] | None, limit: int
) -> list[Delivery]:
    """List the messages about an instance, oldest event first, after `after` if given."""
    query = _select().where(table.c.instance_id == instance_id)
    if after is not None:
        query = query.where(tuple_(table.c.event_sequence, table.c.id) > after)
    return _list(connection, query.order_by(table.c.event_sequence, table.c.id).limit(limit))


def of_webhook(
    connection: Connection,
    webhook_id: str,
    *,
    after: tuple[int, str] | None,
    limit: int,
    status: DeliveryStatus | None = None,
) -> list[Delivery]:
    """List the messages to a receiver, newest event first, after `after` if given."""
    return _newest_first(connection, after, limit, status, table.c.webhook_id == webhook_id)


def page(
    connection: Connection,
    *,
    after: tuple[int, str] | None,
    limit: int,
    status: DeliveryStatus | None = None,
) -> list[Delivery]:
    """List the messages to all receivers, newest event first, after `after` if given."""
    return _newest_first(connection, after, limit, status)


def _newest_first(
    connection: Connection,
    after: tuple[int, str] | None,
    limit: int,
    status: DeliveryStatus | None,
    *conditions: ColumnElement[bool],
) -> list[Delivery]:
    query = _select().where(*conditions)
    if status is not None:
        query = query.where(table.c.status == status.value)
    if after is not None:
        query = query.where(tuple_(table.c.event_sequence, table.c.id) < after)
    order = (table.c.event_sequence.desc(), table.c.id.desc())
    return _list(connection, query.order_by(*order).limit(limit))


def oldest_waiting(connection: Connection) -> int | None:
    """Return when the oldest waiting message was written; None if no message waits."""
    oldest: int | None = connection.execute(
        select(func.min(table.c.created_at)).where(table.c.status == _PENDING)
    ).scalar_one()
    return oldest


def _select() -> Select[*tuple[object, ...]]:
    return (
        select(
            table.c.id,
            table.c.webhook_id,
            table.c.instance_id,
            events.c.id,
            table.c.event_sequence,
            events.c.type,
            webhooks.c.standing,
            webhooks.c.url,
            table.c.status,
            table.c.created_at,
            table.c.due_at,
            table.c.ended_at,
        )
        .join(events, events.c.sequence == table.c.event_sequence)
        .join(webhooks, webhooks.c.id == table.c.webhook_id)
    )


def _list(connection: Connection, query: Select[*tuple[object, ...]]) -> list[Delivery]:
    rows = connection.execute(query).all()
    tries = _tries(connection, [str(row[0]) for row in rows])
    return [_delivery(row, tries.get(str(row[0]), [])) for row in rows]


def _tries(connection: Connection, delivery_ids: Sequence[str]) -> dict[str, list[Try]]:
    columns = delivery_attempts.c
    found: dict[str, list[Try]] = {}
    for chunk in chunks(delivery_ids):
        rows = connection.execute(
            select(
                columns.delivery_id,
                columns.at,
                columns.duration_ms,
                columns.status_code,
                columns.error,
                columns.response,
            )
            .where(columns.delivery_id.in_(chunk))
            .order_by(columns.delivery_id, columns.number)
        )
        for row in rows:
            found.setdefault(row[0], []).append(Try(*row[1:]))
    return found


def _delivery(row: Record, tries: Sequence[Try]) -> Delivery:
    return Delivery(
        id=row[0],
        webhook_id=row[1],
        instance_id=row[2],
        event_id=row[3],
        event_sequence=row[4],
        event_type=EventType(row[5]),
        standing=bool(row[6]),
        url=row[7],
        status=DeliveryStatus(row[8]),
        created_at=row[9],
        due_at=row[10],
        ended_at=row[11],
        attempts=tries,
    )
