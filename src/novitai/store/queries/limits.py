# SPDX-License-Identifier: Apache-2.0
"""Queries of the review of limits: what is due, what was remembered, and how long stops take."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection, func, or_, select, update

from novitai.domain.instance import ENDED
from novitai.domain.limits import LimitMemory, StopReason, memory_from_json, memory_to_json
from novitai.domain.operation import OperationKind, Outcome
from novitai.store.queries.memories import Memories
from novitai.store.tables import instances as table
from novitai.store.tables import operations

_MEMORIES: Final[Memories[LimitMemory]] = Memories(
    table.c.limit_memory,
    table.c.review_due_at,
    memory_from_json,
    memory_to_json,
)
# Run every few seconds; built once, because building a statement costs more than running it.
_COUNT_FIRED: Final = (
    select(func.count())
    .select_from(table)
    .where(table.c.limit_fired_at.is_not(None), table.c.status.not_in(ENDED))
)
due: Final = _MEMORIES.due
due_at: Final = _MEMORIES.due_at
memory: Final = _MEMORIES.load
dump_memory: Final = _MEMORIES.dump
pull_back: Final = _MEMORIES.pull_back


def watched(connection: Connection) -> list[str]:
    """List the IDs of the live instances that have limits, auto-stop or a date of a purge.

    Limits are their own or those of the key that created them.
    """
    return list(
        connection.execute(
            select(table.c.id)
            .where(
                table.c.status.not_in(ENDED),
                or_(
                    table.c.limits.is_not(None),
                    table.c.inherited_limits.is_not(None),
                    table.c.auto_stop.is_not(None),
                    table.c.obs_purge_at.is_not(None),
                ),
            )
            .order_by(table.c.id)
        ).scalars()
    )


def stopped_by_budgets(connection: Connection) -> list[str]:
    """List the IDs of the live instances that a budget stops or has stopped."""
    return list(
        connection.execute(
            select(table.c.id)
            .where(table.c.status.not_in(ENDED), table.c.stop_reason == StopReason.BUDGET.value)
            .order_by(table.c.id)
        ).scalars()
    )


def stored(connection: Connection, instance_id: str) -> dict[str, object]:
    """Load the columns that a review writes, by name."""
    columns = (
        table.c.limit_memory,
        table.c.stops_at,
        table.c.stop_reason,
        table.c.unenforced,
        table.c.limit_fired_at,
        table.c.review_due_at,
        table.c.auto_stop_memory,
        table.c.auto_stop_state,
        table.c.auto_stops_at,
        table.c.sample_due_at,
    )
    row = connection.execute(select(*columns).where(table.c.id == instance_id)).one()
    return dict(zip([column.name for column in columns], row, strict=True))


def make_due(connection: Connection, now: int) -> None:
    """Make every planned review due now."""
    connection.execute(
        update(table).where(table.c.review_due_at.is_not(None)).values(review_due_at=now)
    )


def count_fired(connection: Connection) -> int:
    """Count the instances with a limit that is due and not enforced to the end."""
    return connection.execute(_COUNT_FIRED).scalar_one()


def count_unenforced(connection: Connection) -> int:
    """Count the instances with a limit that is due and without effect."""
    return connection.execute(
        select(func.count())
        .select_from(table)
        .where(table.c.unenforced, table.c.status.not_in(ENDED))
    ).scalar_one()


def stop_durations(connection: Connection, limit: int) -> list[int]:
    """List how long the last `limit` stops by a call took, in milliseconds."""
    rows = connection.execute(
        select(operations.c.created_at, operations.c.updated_at)
        .where(
            operations.c.kind == OperationKind.STOP.value,
            operations.c.outcome == Outcome.SUCCEEDED.value,
            operations.c.attempts > 0,
        )
        .order_by(operations.c.updated_at.desc())
        .limit(limit)
    )
    return [max(0, ended_at - created_at) for created_at, ended_at in rows]
