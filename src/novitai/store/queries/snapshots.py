# SPDX-License-Identifier: Apache-2.0
"""Reads instances with their unfinished operations and the time of the last listing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, Select, and_, bindparam, func, select, tuple_

from novitai.domain.instance import Instance
from novitai.domain.operation import Operation, OperationKind
from novitai.store.engine.chunks import chunks
from novitai.store.queries.instances import SHOWN, Filter, conditions, from_row, place
from novitai.store.tables import Record, instances, listings, operations

_WIDTH: Final = len(SHOWN)
_OPERATION: Final = (
    operations.c.id,
    operations.c.kind,
    operations.c.phase,
    operations.c.created_at,
    operations.c.updated_at,
)
_VERSION: Final = (instances.c.changed_in, func.coalesce(operations.c.changed_in, -1))
_LISTED: Final = (
    select(listings.c.complete_at)
    .where(listings.c.name == "last")
    .scalar_subquery()
    .label("listed_at")
)
_SOURCE: Final = instances.outerjoin(
    operations, and_(operations.c.instance_id == instances.c.id, ~operations.c.done)
)
# Built once, because half of its cost is SQLAlchemy's cache key for so wide a statement.
_QUERY: Final = (
    select(*SHOWN, *_OPERATION, *_VERSION, _LISTED)
    .select_from(_SOURCE)
    .where(
        instances.c.id.in_(bindparam("wanted", expanding=True)), instances.c.removed_at.is_(None)
    )
)

Version = tuple[int, int]
"""The numbers of the last changes of an instance and of its unfinished operation, -1 if it has
none. If they are equal, so are the views."""


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """A row that `read` returned."""

    row: Record

    @property
    def version(self) -> Version:
        """The version of the view."""
        return (self.row[-3], self.row[-2])

    @property
    def listed_at(self) -> int | None:
        """When the last complete listing began, in Unix milliseconds."""
        began_at: int | None = self.row[-1]
        return began_at

    def instance(self) -> Instance:
        """Return the instance."""
        return from_row(self.row)

    def operation(self) -> Operation | None:
        """Return the unfinished operation, with only the fields that the view shows."""
        found, kind, phase, created_at, updated_at = self.row[_WIDTH : _WIDTH + len(_OPERATION)]
        if found is None:
            return None
        return Operation(found, OperationKind(kind), None, phase, created_at, updated_at)


@dataclass(frozen=True, slots=True)
class PageRow:
    """Where an instance stands in a list, and the version of its view."""

    id: str
    created_at: int
    version: Version


def versions() -> Select[str, int, int]:
    """Select the IDs and versions of instances; to be limited by the caller."""
    return select(instances.c.id, *_VERSION).select_from(_SOURCE)


def read(connection: Connection, ids: Sequence[str]) -> list[InstanceSnapshot]:
    """Read instances, in any order; those that do not exist are left out."""
    return [
        InstanceSnapshot(row)
        for chunk in chunks(ids)
        for row in connection.execute(_QUERY, {"wanted": chunk})
    ]


def heads(
    connection: Connection, wanted: Filter, *, after: tuple[int, str] | None, limit: int
) -> list[PageRow]:
    """List the heads of the instances that meet a filter, newest first, after those of a cursor."""
    query = select(instances.c.id, instances.c.created_at, *_VERSION).select_from(_SOURCE)
    query = query.where(*conditions(wanted))
    created_at, instance_id = place(wanted)
    if after is not None:
        query = query.where(tuple_(created_at, instance_id) < after)
    query = query.order_by(created_at.desc(), instance_id.desc()).limit(limit)
    return [
        PageRow(one, at, (changed_in, running_changed_in))
        for one, at, changed_in, running_changed_in in connection.execute(query)
    ]
