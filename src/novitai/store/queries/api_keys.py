# SPDX-License-Identifier: Apache-2.0
"""Queries on `api_keys`. Only digests are stored; rows are revoked, never deleted."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, Row, exists, or_, select, text, tuple_, update

from novitai.domain.api_key import ApiKey, Scope, in_order
from novitai.store.tables import api_keys as table

_COLUMNS: Final = (
    table.c.id,
    table.c.name,
    table.c.scopes,
    table.c.created_at,
    table.c.expires_at,
    table.c.revoked_at,
    table.c.last_used_at,
)


def insert(connection: Connection, key: ApiKey, digest: str) -> None:
    """Store a new key under its digest."""
    connection.execute(
        table.insert().values(
            id=key.id,
            name=key.name,
            scopes=" ".join(in_order(key.scopes)),
            digest=digest,
            created_at=key.created_at,
            expires_at=key.expires_at,
        )
    )


def lock(connection: Connection) -> None:
    """Keep other processes from adding keys until the transaction ends.

    On SQLite write transactions are serialized anyway.
    """
    if connection.dialect.name == "postgresql":
        connection.execute(text("LOCK TABLE api_keys IN SHARE ROW EXCLUSIVE MODE"))


def by_digest(connection: Connection, digest: str) -> ApiKey | None:
    """Find a key by its digest, even if it is revoked or expired."""
    row = connection.execute(select(*_COLUMNS).where(table.c.digest == digest)).first()
    return None if row is None else _key(row)


def by_id(connection: Connection, key_id: str) -> ApiKey | None:
    """Find a key by its ID."""
    row = connection.execute(select(*_COLUMNS).where(table.c.id == key_id)).first()
    return None if row is None else _key(row)


def page(
    connection: Connection, *, limit: int, after: tuple[int, str] | None = None
) -> list[ApiKey]:
    """List keys, including revoked and expired ones, newest first, after a (created_at, id)."""
    query = select(*_COLUMNS).order_by(table.c.created_at.desc(), table.c.id.desc()).limit(limit)
    if after is not None:
        query = query.where(tuple_(table.c.created_at, table.c.id) < after)
    return [_key(row) for row in connection.execute(query)]


def revoke(connection: Connection, key_id: str, now: int) -> ApiKey | None:
    """Revoke a key and return it; None if there is none. A second call keeps the first time."""
    connection.execute(
        update(table)
        .where(table.c.id == key_id, table.c.revoked_at.is_(None))
        .values(revoked_at=now)
    )
    return by_id(connection, key_id)


def touch(connection: Connection, key_id: str, *, now: int, unless_since: int) -> None:
    """Record that a key was used, unless that was recorded at or after `unless_since`."""
    connection.execute(
        update(table)
        .where(
            table.c.id == key_id,
            or_(table.c.last_used_at.is_(None), table.c.last_used_at < unless_since),
        )
        .values(last_used_at=now)
    )


def any_usable(connection: Connection, now: int) -> bool:
    """Whether there is a key that is neither revoked nor expired."""
    usable = select(table.c.id).where(
        table.c.revoked_at.is_(None),
        or_(table.c.expires_at.is_(None), table.c.expires_at > now),
    )
    found: bool = connection.execute(select(exists(usable))).scalar_one()
    return bool(found)


def _key(row: Row[str, str, str, int, int | None, int | None, int | None]) -> ApiKey:
    scopes = frozenset(Scope(word) for word in row[2].split())
    return ApiKey(row[0], row[1], scopes, row[3], row[4], row[5], row[6])
