# SPDX-License-Identifier: Apache-2.0
"""Queries on `sessions` and `login_codes`. Only digests of the secrets are stored."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Final

from sqlalchemy import Connection, Select, delete, or_, select, update

from novitai.domain.session import IDLE_MS, LoginCode, Session
from novitai.store.engine.chunks import chunks
from novitai.store.tables import Record, login_codes
from novitai.store.tables import sessions as table

_COLUMNS: Final = (
    table.c.id,
    table.c.key_id,
    table.c.settings_key_digest,
    table.c.created_at,
    table.c.last_used_at,
    table.c.expires_at,
)


def insert(connection: Connection, session: Session, digest: str) -> None:
    """Store a new session under its digest."""
    connection.execute(
        table.insert().values(
            id=session.id,
            digest=digest,
            key_id=session.key_id,
            settings_key_digest=session.settings_key_digest,
            created_at=session.created_at,
            last_used_at=session.last_used_at,
            expires_at=session.expires_at,
        )
    )


def by_digest(connection: Connection, digests: Sequence[str]) -> Session | None:
    """Find a session by one of the digests of its secret, even if it has ended."""
    return _first(connection, select(*_COLUMNS).where(table.c.digest.in_(digests)))


def by_ids(connection: Connection, session_ids: Collection[str]) -> list[Session]:
    """Return those of some sessions that exist, even if they have ended."""
    return [
        _session(row)
        for chunk in chunks(sorted(session_ids))
        for row in connection.execute(select(*_COLUMNS).where(table.c.id.in_(chunk)))
    ]


def touch(connection: Connection, session_id: str, *, now: int) -> None:
    """Record that a session was used, unless a later use is recorded."""
    connection.execute(
        update(table)
        .where(table.c.id == session_id, table.c.last_used_at < now)
        .values(last_used_at=now)
    )


def remove(connection: Connection, session_id: str) -> None:
    """Delete a session."""
    connection.execute(delete(table).where(table.c.id == session_id))


def prune(connection: Connection, *, before: int, limit: int = 1000) -> int:
    """Delete up to `limit` sessions that ended earlier; return how many were deleted."""
    ended = or_(table.c.expires_at <= before, table.c.last_used_at <= before - IDLE_MS)
    old = select(table.c.id).where(ended).limit(limit)
    # Again outside: on PostgreSQL, a use may be recorded while the rows are looked for.
    return connection.execute(delete(table).where(table.c.id.in_(old), ended)).rowcount


def insert_code(connection: Connection, code: LoginCode, digest: str) -> None:
    """Store a new one-time code under its digest."""
    connection.execute(
        login_codes.insert().values(
            id=code.id,
            digest=digest,
            key_id=code.key_id,
            settings_key_digest=code.settings_key_digest,
            expires_at=code.expires_at,
        )
    )


def take_code(connection: Connection, digest: str, now: int) -> LoginCode | None:
    """Delete a valid one-time code and return it; of several that do so, one gets it."""
    row = connection.execute(
        delete(login_codes)
        .where(login_codes.c.digest == digest, login_codes.c.expires_at > now)
        .returning(
            login_codes.c.id,
            login_codes.c.key_id,
            login_codes.c.settings_key_digest,
            login_codes.c.expires_at,
        )
    ).first()
    return None if row is None else LoginCode(*row)


def prune_codes(connection: Connection, *, before: int, limit: int = 1000) -> int:
    """Delete up to `limit` codes that expired earlier; return how many were deleted."""
    old = select(login_codes.c.id).where(login_codes.c.expires_at <= before).limit(limit)
    return connection.execute(delete(login_codes).where(login_codes.c.id.in_(old))).rowcount


def _first(connection: Connection, query: Select[tuple[object, ...]]) -> Session | None:
    row = connection.execute(query).first()
    return None if row is None else _session(row)


def _session(row: Record) -> Session:
    return Session(row[0], row[1], row[2], row[3], row[4], row[5])
