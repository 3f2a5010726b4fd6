# SPDX-License-Identifier: Apache-2.0
"""Queries on `idempotency_keys`: stored responses, replayed byte for byte."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import orjson
from sqlalchemy import Connection, delete, select

from novitai.store.engine import upsert
from novitai.store.tables import idempotency_keys as table


@dataclass(frozen=True, slots=True)
class Remembered:
    """A stored response, and the digest of the request body."""

    body_digest: str
    status: int
    headers: Mapping[str, str]
    body: bytes


def find(
    connection: Connection, *, api_key_id: str, route: str, key: str, since: int
) -> Remembered | None:
    """Find the response stored for a key at or after `since`; None if there is none."""
    row = connection.execute(
        select(table.c.body_digest, table.c.status, table.c.headers, table.c.body).where(
            table.c.api_key_id == api_key_id,
            table.c.route == route,
            table.c.key == key,
            table.c.created_at >= since,
        )
    ).first()
    return None if row is None else Remembered(row[0], row[1], orjson.loads(row[2]), bytes(row[3]))


def remember(
    connection: Connection,
    *,
    api_key_id: str,
    route: str,
    key: str,
    answer: Remembered,
    now: int,
    since: int,
) -> bool:
    """Store a response in the transaction of the change; False if another request was first.

    On PostgreSQL this waits for a concurrent transaction with the same key to end, so only one of
    the two changes commits. An expired entry is replaced.
    """
    connection.execute(
        delete(table).where(
            table.c.api_key_id == api_key_id,
            table.c.route == route,
            table.c.key == key,
            table.c.created_at < since,
        )
    )
    inserted = connection.execute(
        upsert.insert(table, connection.dialect.name)
        .values(
            api_key_id=api_key_id,
            route=route,
            key=key,
            body_digest=answer.body_digest,
            status=answer.status,
            headers=orjson.dumps(dict(answer.headers)).decode(),
            body=answer.body,
            created_at=now,
        )
        .on_conflict_do_nothing()
        .returning(table.c.key)
    )
    return inserted.first() is not None


def prune(connection: Connection, *, before: int, limit: int = 1000) -> int:
    """Delete up to `limit` responses older than `before`; return how many were deleted."""
    old = (
        select(table.c.api_key_id, table.c.route, table.c.key)
        .where(table.c.created_at < before)
        .limit(limit)
    )
    rows = connection.execute(old).all()
    for api_key_id, route, key in rows:
        connection.execute(
            delete(table).where(
                table.c.api_key_id == api_key_id,
                table.c.route == route,
                table.c.key == key,
                table.c.created_at < before,
            )
        )
    return len(rows)
