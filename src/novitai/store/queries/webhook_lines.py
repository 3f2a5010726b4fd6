# SPDX-License-Identifier: Apache-2.0
"""Queries on `webhook_lines`, the ordered messages of one instance to one receiver.

A worker claims a line to send its messages (see `leases`). To avoid deadlocks, every transaction
locks lines before deliveries and webhooks, and several lines in the order of (instance, webhook).
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cache
from typing import Final

from sqlalchemy import Connection, Executable, bindparam, func, or_, select, update
from sqlalchemy.sql import ColumnElement

from novitai.store.engine import upsert
from novitai.store.engine.chunks import CHUNK, chunks
from novitai.store.queries.leases import LeasedTable
from novitai.store.tables import webhook_lines as table

_leased: Final = LeasedTable.of(
    table,
    table.c.next_try_at,
    table.c.next_try_at <= bindparam("claimed_at"),
    returning=(table.c.instance_id, table.c.webhook_id, table.c.token),
)


@dataclass(frozen=True, slots=True)
class Line:
    """A claimed line; `lease_until` is in Unix milliseconds."""

    id: str
    instance_id: str | None
    webhook_id: str
    token: int
    lease_until: int


def open_line(
    connection: Connection,
    *,
    fresh_id: str,
    instance_id: str | None,
    webhook_id: str,
    host: str,
    now: int,
) -> str:
    """Create or lock the line, make it due now unless a message waits in it, and return its ID.

    The lock keeps messages from being missed on PostgreSQL: a worker that sets the line to not due
    has committed before this returns, or waits until the new message is committed.
    """
    values = {
        "line": fresh_id,
        "instance": instance_id,
        "webhook": webhook_id,
        "at": host,
        "now": now,
    }
    opening = _opening(connection.dialect.name, of_account=instance_id is None)
    line_id: str = connection.execute(opening, values).scalar_one()
    return line_id


@cache
def _opening(dialect: str, *, of_account: bool) -> Executable:
    """Build the statement once: that costs more than running it, and it runs for every event."""
    statement = upsert.insert(table, dialect).values(
        id=bindparam("line"),
        instance_id=bindparam("instance"),
        webhook_id=bindparam("webhook"),
        host=bindparam("at"),
        next_try_at=bindparam("now"),
    )
    changes = {
        "next_try_at": func.coalesce(table.c.next_try_at, statement.excluded.next_try_at),
        "host": statement.excluded.host,
    }
    if of_account:
        return statement.on_conflict_do_update(
            index_elements=[table.c.webhook_id],
            index_where=table.c.instance_id.is_(None),
            set_=changes,
        ).returning(table.c.id)
    return statement.on_conflict_do_update(
        index_elements=[table.c.instance_id, table.c.webhook_id], set_=changes
    ).returning(table.c.id)


def claim(connection: Connection, line_id: str, *, now: int, until: int) -> Line | None:
    """Claim a due line; None if it is not due or already claimed."""
    row = _leased.claim(connection, line_id, now=now, until=until)
    return None if row is None else Line(line_id, row[0], row[1], row[2], until)


def held_until(connection: Connection, line_id: str, *, now: int) -> int | None:
    """Return when the lease on a due line expires; None if it is not due or has no lease."""
    return connection.execute(
        select(table.c.lease_until).where(
            table.c.id == line_id, table.c.next_try_at <= now, table.c.lease_until > now
        )
    ).scalar_one_or_none()


def hold(connection: Connection, line: Line) -> None:
    """Lock a claimed line and release its lease; call it first in a transaction on the line.

    Raises:
        Fenced: the claim is over; the transaction must be rolled back.
    """
    _leased.hold(connection, line, lease_until=None)


def renew(connection: Connection, line: Line, *, until: int) -> bool:
    """Renew the lease on a claimed line until `until`; False if the claim is over."""
    return _leased.renew(connection, line, until=until)


def set_next(connection: Connection, line_id: str, next_try_at: int | None) -> None:
    """Set when a locked line is due; None if no message waits in it."""
    connection.execute(update(table).where(table.c.id == line_id).values(next_try_at=next_try_at))


def release(connection: Connection, line: Line, *, next_try_at: int) -> None:
    """Release the lease without a result; does nothing if the claim is over."""
    _leased.release(connection, line, due_at=next_try_at)


def release_all(connection: Connection) -> int:
    """Release every lease; only for SQLite, whose single process calls it at its start."""
    return _leased.release_all(connection)


def ends_of(connection: Connection, line_id: str) -> tuple[str, str] | None:
    """Return the host and the webhook ID of a line; None if there is no such line."""
    row = connection.execute(
        select(table.c.host, table.c.webhook_id).where(table.c.id == line_id)
    ).first()
    return None if row is None else (row[0], row[1])


def due(
    connection: Connection,
    now: int,
    limit: int,
    *,
    except_hosts: Collection[str] = (),
    except_webhooks: Collection[str] = (),
) -> list[str]:
    """List the IDs of due lines that have no current lease, the longest due first."""
    query = _leased.due
    if except_hosts:
        query = query.where(table.c.host.not_in(sorted(except_hosts)[:CHUNK]))
    if except_webhooks:
        query = query.where(table.c.webhook_id.not_in(sorted(except_webhooks)[:CHUNK]))
    return list(connection.execute(query, {"now": now, "most": limit}).scalars())


def hold_back(connection: Connection, line_id: str, *, until: int) -> None:
    """Exempt a locked line from `expedite` until a time, even if its receiver recovers."""
    connection.execute(update(table).where(table.c.id == line_id).values(spared_until=until))


def is_held_back(connection: Connection, line_id: str, *, now: int) -> bool:
    """Whether a line is exempt from `expedite`."""
    until: int | None = connection.execute(
        select(table.c.spared_until).where(table.c.id == line_id)
    ).scalar_one()
    return until is not None and until > now


def any_to_expedite(connection: Connection, webhook_id: str, *, now: int) -> bool:
    """Whether a receiver has a waiting line that is not held back."""
    waiting = (
        select(table.c.id)
        .where(table.c.webhook_id == webhook_id, table.c.next_try_at > now, _not_held_back(now))
        .limit(1)
    )
    return connection.execute(waiting).first() is not None


def expedite(
    connection: Connection,
    webhook_id: str,
    *,
    now: int,
    then_held_back_until: int | None,
    limit: int,
) -> list[str]:
    """Make waiting lines of a receiver due now, and return their IDs.

    Args:
        connection: A write transaction that has locked no other line.
        webhook_id: The receiver.
        now: Unix milliseconds.
        then_held_back_until: Skip the lines that are held back, and hold the others back until
            then, so that a refused message is not retried after every success of the receiver.
            None expedites all lines.
        limit: Maximum number of lines.
    """
    query = (
        select(table.c.id)
        .where(table.c.webhook_id == webhook_id, table.c.next_try_at > now)
        .order_by(table.c.instance_id)
        .limit(limit)
        .with_for_update()
    )
    if then_held_back_until is not None:
        query = query.where(_not_held_back(now))
    ids = list(connection.execute(query).scalars())
    for chunk in chunks(ids):
        connection.execute(
            update(table)
            .where(table.c.id.in_(chunk))
            .values(next_try_at=now, spared_until=then_held_back_until)
        )
    return ids


def _not_held_back(now: int) -> ColumnElement[bool]:
    return or_(table.c.spared_until.is_(None), table.c.spared_until <= now)


def move(connection: Connection, webhook_id: str, host: str) -> None:
    """Set the host of all lines of a receiver, after its URL changed."""
    ids = list(
        connection.execute(
            select(table.c.id)
            .where(table.c.webhook_id == webhook_id)
            .order_by(table.c.instance_id)
            .with_for_update()
        ).scalars()
    )
    for chunk in chunks(ids):
        connection.execute(update(table).where(table.c.id.in_(chunk)).values(host=host))
