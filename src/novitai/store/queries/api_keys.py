# SPDX-License-Identifier: Apache-2.0
"""Queries on `api_keys`. Only digests are stored; rows are revoked, never deleted."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

import orjson
from sqlalchemy import (
    ColumnElement,
    Connection,
    bindparam,
    exists,
    or_,
    select,
    text,
    tuple_,
    update,
)

from novitai.domain.api_key import ApiKey, Scope, in_order
from novitai.domain.key_limits import KeyLimits, key_limits_from_json, key_limits_to_json
from novitai.store.engine.chunks import chunks
from novitai.store.tables import Record
from novitai.store.tables import api_keys as table

_COLUMNS: Final = (
    table.c.id,
    table.c.name,
    table.c.scopes,
    table.c.created_at,
    table.c.expires_at,
    table.c.revoked_at,
    table.c.last_used_at,
    table.c.limits,
)

# Built once, because every create runs it.
_LIMITS: Final = select(table.c.limits).where(table.c.id == bindparam("wanted"))


def insert(
    connection: Connection, key: ApiKey, digest: str, *, secret_id: str | None = None
) -> None:
    """Store a new key under its digest, which was made with the secret key of `secret_id`."""
    connection.execute(
        table.insert().values(
            id=key.id,
            name=key.name,
            scopes=" ".join(in_order(key.scopes)),
            digest=digest,
            created_at=key.created_at,
            expires_at=key.expires_at,
            limits=_dump(key.limits),
            secret_id=secret_id,
        )
    )


def name_secret(connection: Connection, secret_id: str) -> None:
    """Name the secret key of the digests for which none is named yet."""
    unnamed = table.c.secret_id.is_(None)
    # A read is enough at nearly every start, and it need not wait for writers.
    if connection.execute(select(table.c.id).where(unnamed).limit(1)).first() is not None:
        connection.execute(update(table).where(unnamed).values(secret_id=secret_id))


def renew_digest(
    connection: Connection, key_id: str, *, before: str, digest: str, secret_id: str
) -> None:
    """Store the digest of a key that was made with the present secret key."""
    connection.execute(
        update(table)
        .where(table.c.id == key_id, table.c.digest == before)
        .values(digest=digest, secret_id=secret_id)
    )


def of_other_secrets(connection: Connection, secret_id: str, now: int) -> list[ApiKey]:
    """List the usable keys whose digest was made with another secret key, oldest first."""
    other = table.c.secret_id.is_not(None) & (table.c.secret_id != secret_id)
    query = select(*_COLUMNS).where(other, *_usable(now)).order_by(table.c.created_at, table.c.id)
    return [_key(row) for row in connection.execute(query)]


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


def limits_of(connection: Connection, key_id: str | None) -> KeyLimits | None:
    """Load the limits of a key, even if it is revoked; None if it has none or is not stored."""
    return _limits(connection.execute(_LIMITS, {"wanted": key_id}).scalar())


def lock_one(connection: Connection, key_id: str) -> None:
    """Keep other transactions that lock the same key waiting until this one ends.

    A transaction locks instances before keys, and keys before budgets.
    """
    connection.execute(select(table.c.id).where(table.c.id == key_id).with_for_update())


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
    usable = select(table.c.id).where(*_usable(now))
    found: bool = connection.execute(select(exists(usable))).scalar_one()
    return bool(found)


def oldest_admin(connection: Connection, now: int) -> str | None:
    """Return the ID of the oldest usable key with the scope `admin`; None if there is none."""
    # Scopes are stored in the order of their ranks, so `admin` comes last.
    found: str | None = connection.execute(
        select(table.c.id)
        .where(table.c.scopes.endswith(Scope.ADMIN.value), *_usable(now))
        .order_by(table.c.created_at, table.c.id)
        .limit(1)
    ).scalar()
    return found


def usable_of(connection: Connection, key_ids: Collection[str], now: int) -> set[str]:
    """Return those of some keys that are neither revoked nor expired."""
    return {
        key_id
        for chunk in chunks(sorted(key_ids))
        for key_id in connection.execute(
            select(table.c.id).where(table.c.id.in_(chunk), *_usable(now))
        ).scalars()
    }


def _usable(now: int) -> tuple[ColumnElement[bool], ...]:
    return (
        table.c.revoked_at.is_(None),
        or_(table.c.expires_at.is_(None), table.c.expires_at > now),
    )


def _key(row: Record) -> ApiKey:
    scopes = frozenset(Scope(word) for word in row[2].split())
    return ApiKey(row[0], row[1], scopes, row[3], row[4], row[5], row[6], _limits(row[7]))


def _dump(limits: KeyLimits | None) -> str | None:
    return None if limits is None else orjson.dumps(key_limits_to_json(limits)).decode()


def _limits(text: str | None) -> KeyLimits | None:
    return None if text is None else key_limits_from_json(orjson.loads(text))
