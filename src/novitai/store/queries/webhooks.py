# SPDX-License-Identifier: Apache-2.0
"""Queries on `webhooks`: standing webhooks, and the receivers of instances' `webhook_url`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import orjson
from sqlalchemy import (
    Connection,
    bindparam,
    case,
    func,
    or_,
    select,
    true,
    tuple_,
    union_all,
    update,
)

from novitai.domain.event import EventType
from novitai.domain.webhook import OffReason, Webhook
from novitai.store.engine import upsert
from novitai.store.tables import Record
from novitai.store.tables import webhooks as table

_COLUMNS: Final = (
    table.c.id,
    table.c.standing,
    table.c.url,
    table.c.event_types,
    table.c.enabled,
    table.c.created_at,
    table.c.updated_at,
    table.c.description,
    table.c.failing_since,
    table.c.off_at,
    table.c.off_reason,
    table.c.previous_secret_until,
    table.c.deleted_at,
)
# Run for every event; built once, because building them costs more than running them.
_STANDING: Final = select(*_COLUMNS).where(table.c.standing & table.c.enabled)
_LISTENING: Final = _STANDING.order_by(table.c.id)
_LISTENING_AND_ONE: Final = union_all(
    _STANDING, select(*_COLUMNS).where(table.c.id == bindparam("also"))
)


@dataclass(frozen=True, slots=True)
class Sealed:
    """The sealed secrets of a webhook; a receiver of an instance's `webhook_url` has none."""

    secret: bytes | None = field(repr=False)
    previous: bytes | None = field(repr=False)
    previous_until: int | None


def insert(connection: Connection, webhook: Webhook, sealed: bytes | None) -> None:
    """Insert a receiver; an existing one is not changed."""
    connection.execute(
        upsert.insert(table, connection.dialect.name)
        .values(
            id=webhook.id,
            standing=webhook.standing,
            url=webhook.url,
            event_types=_types(webhook.event_types),
            enabled=webhook.enabled,
            created_at=webhook.created_at,
            updated_at=webhook.updated_at,
            description=webhook.description,
            secret_sealed=sealed,
            off_at=webhook.off_at,
            off_reason=webhook.off_reason.value if webhook.off_reason else None,
        )
        .on_conflict_do_nothing()
    )


def count_standing(connection: Connection) -> int:
    """Count the standing webhooks; other transactions wait with their count until this one ends."""
    if connection.dialect.name == "postgresql":
        # On SQLite write transactions are serialized anyway.
        connection.execute(select(func.pg_advisory_xact_lock(func.hashtext("novitai.webhooks"))))
    found = connection.execute(
        select(func.count())
        .select_from(table)
        .where(table.c.standing, table.c.deleted_at.is_(None))
    ).scalar_one()
    return int(found)


def load(connection: Connection, webhook_id: str) -> Webhook | None:
    """Load a receiver, even if it is deleted; None if it does not exist."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == webhook_id)).first()
    return None if row is None else _webhook(row)


def load_sealed(connection: Connection, webhook_id: str) -> Sealed:
    """Load the sealed secrets of a receiver that exists."""
    row = connection.execute(
        select(
            table.c.secret_sealed, table.c.previous_secret_sealed, table.c.previous_secret_until
        ).where(table.c.id == webhook_id)
    ).one()
    secret, previous = (None if value is None else bytes(value) for value in row[:2])
    return Sealed(secret, previous, row[2])


def listening(connection: Connection, also: str | None) -> list[Webhook]:
    """List the enabled standing webhooks, and the receiver `also` in any state.

    They are ordered by ID, the order in which their lines must be locked.
    """
    if also is None:
        return [_webhook(row) for row in connection.execute(_LISTENING)]
    rows = connection.execute(_LISTENING_AND_ONE, {"also": also})
    return sorted((_webhook(row) for row in rows), key=lambda webhook: webhook.id)


def page(
    connection: Connection, *, limit: int, after: tuple[int, str] | None = None
) -> list[Webhook]:
    """List the standing webhooks, newest first, after a (created_at, id) if given."""
    query = (
        select(*_COLUMNS)
        .where(table.c.standing, table.c.deleted_at.is_(None))
        .order_by(table.c.created_at.desc(), table.c.id.desc())
        .limit(limit)
    )
    if after is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < after)
    return [_webhook(row) for row in connection.execute(query)]


def change(
    connection: Connection,
    webhook_id: str,
    *,
    now: int,
    url: str | None = None,
    event_types: Sequence[EventType] | None = None,
    description: str | None = None,
    remove_description: bool = False,
) -> None:
    """Set the given columns. A new URL also clears `failing_since`."""
    values: dict[str, object] = {"updated_at": now}
    if url is not None:
        values["url"] = url
        values["failing_since"] = case((table.c.url == url, table.c.failing_since))
    if event_types is not None:
        values["event_types"] = _types(event_types)
    if description is not None or remove_description:
        values["description"] = description
    connection.execute(update(table).where(table.c.id == webhook_id).values(**values))


def switch_on(connection: Connection, webhook_id: str, *, now: int) -> bool:
    """Enable a receiver and clear its failures; return whether it was off."""
    return bool(
        connection.execute(
            update(table)
            .where(table.c.id == webhook_id, ~table.c.enabled, table.c.deleted_at.is_(None))
            .values(enabled=True, off_at=None, off_reason=None, failing_since=None, updated_at=now)
        ).rowcount
    )


def switch_off(
    connection: Connection,
    webhook_id: str,
    reason: OffReason,
    *,
    now: int,
    url: str | None = None,
) -> bool:
    """Switch a receiver off; return whether it was on.

    With `url`, do nothing if the receiver has another URL by now.
    """
    its_own = table.c.url == url if url is not None else true()
    return bool(
        connection.execute(
            update(table)
            .where(table.c.id == webhook_id, table.c.enabled, its_own)
            .values(enabled=False, off_at=now, off_reason=reason.value, updated_at=now)
        ).rowcount
    )


def rotate(
    connection: Connection, webhook_id: str, *, sealed: bytes, now: int, overlap_until: int
) -> None:
    """Replace the secret; messages are also signed with the previous one until `overlap_until`."""
    connection.execute(
        update(table)
        .where(table.c.id == webhook_id)
        .values(
            previous_secret_sealed=table.c.secret_sealed,
            previous_secret_until=overlap_until,
            secret_sealed=sealed,
            updated_at=now,
        )
    )


def delete(connection: Connection, webhook_id: str, *, now: int) -> None:
    """Mark a webhook as deleted and erase its secrets; its messages are kept."""
    connection.execute(
        update(table)
        .where(table.c.id == webhook_id)
        .values(
            enabled=False,
            deleted_at=now,
            updated_at=now,
            secret_sealed=None,
            previous_secret_sealed=None,
            previous_secret_until=None,
        )
    )


def note_failure(connection: Connection, webhook_id: str, *, now: int, apart: int) -> int:
    """Record that a receiver has failed.

    Args:
        connection: A write transaction.
        webhook_id: The receiver.
        now: Unix milliseconds.
        apart: Milliseconds; a failure that follows the last one after a longer time starts a new
            period of failure.

    Returns:
        When the current period of failure began, in Unix milliseconds.
    """
    is_new = or_(table.c.failing_since.is_(None), table.c.failed_at < now - apart)
    since: int = connection.execute(
        update(table)
        .where(table.c.id == webhook_id)
        .values(failing_since=case((is_new, now), else_=table.c.failing_since), failed_at=now)
        .returning(table.c.failing_since)
    ).scalar_one()
    return since


def note_recovery(connection: Connection, webhook_id: str) -> None:
    """Record that a receiver works again."""
    connection.execute(
        update(table)
        .where(table.c.id == webhook_id, table.c.failing_since.is_not(None))
        .values(failing_since=None)
    )


def _types(event_types: Sequence[EventType]) -> str:
    return orjson.dumps([event_type.value for event_type in event_types]).decode()


def _webhook(row: Record) -> Webhook:
    return Webhook(
        id=row[0],
        standing=bool(row[1]),
        url=row[2],
        event_types=tuple(EventType(word) for word in orjson.loads(row[3])),
        enabled=bool(row[4]),
        created_at=row[5],
        updated_at=row[6],
        description=row[7],
        failing_since=row[8],
        off_at=row[9],
        off_reason=None if row[10] is None else OffReason(row[10]),
        previous_secret_until=row[11],
        deleted_at=row[12],
    )
