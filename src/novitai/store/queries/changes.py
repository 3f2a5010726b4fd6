# SPDX-License-Identifier: Apache-2.0
"""Which instances changed since a mark: by the numbers that triggers give to changed rows."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Final

from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Select,
    bindparam,
    func,
    literal,
    literal_column,
    null,
    select,
    union,
    update,
)

from novitai.store.engine.chunks import chunks
from novitai.store.queries.coordination import listed_at
from novitai.store.queries.events import SETTLED
from novitai.store.queries.snapshots import Version, versions
from novitai.store.tables import instances, operations

_XMIN: Final = literal_column("pg_snapshot_xmin(pg_current_snapshot())::text::bigint", BigInteger)
_XMAX: Final = literal_column("pg_snapshot_xmax(pg_current_snapshot())::text::bigint", BigInteger)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in the numbers of changes: the first numbers that may not have been read."""

    instances: int
    operations: int


@dataclass(frozen=True, slots=True)
class Changes:
    """The changes that were committed since a mark.

    Attributes:
        mark: From here on next time.
        versions: The versions of the instances that changed since the mark. On PostgreSQL some may
            have changed before it: those that the read before has returned with the same version.
        listed_at: When the last complete listing began, in Unix milliseconds.
        settled: On PostgreSQL, the number up to which each later snapshot sees all events.
    """

    mark: Mark
    versions: Mapping[str, Version]
    listed_at: int | None
    settled: int | None = None


_MARKS: Final = {
    "sqlite": select(
        select(func.coalesce(func.max(instances.c.changed_in), 0) + 1).scalar_subquery(),
        select(func.coalesce(func.max(operations.c.changed_in), 0) + 1).scalar_subquery(),
        null(),
    ),
    # A transaction that is running may commit later, with its number.
    "postgresql": select(_XMIN, _XMIN, SETTLED),
}


def _changed(end: ColumnElement[int]) -> Select[str, int, int]:
    """Select the versions of what changed since a mark; numbers from `end` on do not count."""
    ids = union(
        select(instances.c.id).where(
            instances.c.changed_in >= bindparam("instances"), instances.c.changed_in < end
        ),
        select(operations.c.instance_id).where(
            operations.c.changed_in >= bindparam("operations"), operations.c.changed_in < end
        ),
    )
    return versions().where(instances.c.id.in_(ids))


_CHANGED: Final = {
    "sqlite": _changed(literal((1 << 63) - 1, BigInteger)),
    # After a dump was restored on another server, numbers beyond those of the server are old.
    "postgresql": _changed(select(_XMAX).scalar_subquery()),
}


def note(connection: Connection, instance_ids: Collection[str]) -> None:
    """Number instances as changed, because rows of another table that their views show have."""
    for chunk in chunks(sorted(instance_ids)):
        same = {"changed_in": instances.c.changed_in}  # the trigger sets the number
        connection.execute(update(instances).where(instances.c.id.in_(chunk)).values(same))


def since(connection: Connection, mark: Mark | None) -> Changes:
    """Read what was committed since a mark; without one, begin with a mark."""
    name = connection.dialect.name
    # First, so that what is committed from now on is read next time.
    in_instances, in_operations, settled = connection.execute(_MARKS[name]).one()
    following = Mark(in_instances, in_operations)
    begin = mark or following
    places = {"instances": begin.instances, "operations": begin.operations}
    changed = {row[0]: (row[1], row[2]) for row in connection.execute(_CHANGED[name], places)}
    return Changes(following, changed, listed_at(connection), settled)
