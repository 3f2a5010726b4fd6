# SPDX-License-Identifier: Apache-2.0
"""Statements of novitai on PgQueuer's tables, each run inside the caller's transaction."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from sqlalchemy import Connection, text

KEEP_LOG_SECONDS: Final = 600

# The lock keeps the waiting job from being picked before this transaction has ended, so that its
# run sees what this transaction wrote. A job that is being picked is skipped and does not count as
# waiting. The table's trigger notifies the workers even if nothing is inserted.
_NUDGE: Final = text("""
    WITH waiting AS (
        SELECT FROM pgqueuer
        WHERE entrypoint = :name AND payload = :payload AND status = 'queued' AND headers IS NULL
        LIMIT 1
        FOR SHARE SKIP LOCKED
    )
    INSERT INTO pgqueuer (priority, entrypoint, payload, status)
    SELECT 0, :name, :payload, 'queued'
    WHERE NOT EXISTS (SELECT FROM waiting)
""")

_TRY_LOCK: Final = text(
    "SELECT pg_try_advisory_xact_lock(hashtext('novitai.jobs'), hashtext(:name))"
)

_ENQUEUE_DUE: Final = text("""
    INSERT INTO pgqueuer (priority, entrypoint, payload, headers, status)
    SELECT 0, :name, due.payload, jsonb_build_object('swept', true), 'queued'
    FROM (
        SELECT convert_to(key, 'UTF8') AS payload FROM unnest(CAST(:keys AS text[])) AS key
    ) AS due
    WHERE NOT EXISTS (
        SELECT FROM pgqueuer AS job
        WHERE job.entrypoint = :name AND job.payload = due.payload
          AND job.status IN ('queued', 'picked')
    )
""")

_QUEUE_SIZES: Final = text("""
    SELECT entrypoint, count(*) AS total FROM pgqueuer WHERE status = 'queued' GROUP BY entrypoint
""")

_PRUNE_LOG: Final = text("""
    DELETE FROM pgqueuer_log WHERE id IN (
        SELECT id FROM pgqueuer_log
        WHERE created < now() - make_interval(secs => :keep)
        ORDER BY created LIMIT :batch
        FOR UPDATE SKIP LOCKED
    )
""")


def nudge(connection: Connection, name: str, key: str) -> None:
    """Queue the key, unless a nudge of it already waits."""
    connection.execute(_NUDGE, {"name": name, "payload": key.encode()})


def try_lock(connection: Connection, name: str) -> bool:
    """Take the lock `name` until the transaction ends; False if another transaction has it."""
    return bool(connection.execute(_TRY_LOCK, {"name": name}).scalar_one())


def enqueue_due(connection: Connection, name: str, keys: Sequence[str]) -> None:
    """Queue those of the keys that are neither queued nor picked."""
    connection.execute(_ENQUEUE_DUE, {"name": name, "keys": list(keys)})


def queue_sizes(connection: Connection) -> dict[str, int]:
    """Count the queued jobs by name."""
    return {row.entrypoint: row.total for row in connection.execute(_QUEUE_SIZES)}


def prune_log(connection: Connection, batch: int) -> int:
    """Delete up to `batch` rows of PgQueuer's log older than ten minutes; return how many."""
    done = connection.execute(_PRUNE_LOG, {"keep": KEEP_LOG_SECONDS, "batch": batch})
    return done.rowcount
