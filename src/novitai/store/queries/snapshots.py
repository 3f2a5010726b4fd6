# SPDX-License-Identifier: Apache-2.0
"""Reads an instance, its unfinished operation and the time of the last listing in one statement."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from sqlalchemy import Connection, and_, bindparam, select

from novitai.domain.instance import Instance
from novitai.domain.operation import Operation, OperationKind
from novitai.store.queries.instances import SHOWN, from_row
from novitai.store.tables import Record, instances, listings, operations

_WIDTH: Final = len(SHOWN)
_OPERATION: Final = (
    operations.c.id,
    operations.c.kind,
    operations.c.phase,
    operations.c.created_at,
    operations.c.updated_at,
)
_LISTED: Final = (
    select(listings.c.complete_at)
    .where(listings.c.name == "last")
    .scalar_subquery()
    .label("listed_at")
)
# Built once, because half of its cost is SQLAlchemy's cache key for so wide a statement.
_QUERY: Final = (
    select(*SHOWN, *_OPERATION, _LISTED)
    .select_from(
        instances.outerjoin(
            operations, and_(operations.c.instance_id == instances.c.id, ~operations.c.done)
        )
    )
    .where(instances.c.id == bindparam("wanted"))
)


@dataclass(frozen=True, slots=True)
class InstanceSnapshot:
    """The row that `read` returned."""

    row: Record

    @property
    def facts(self) -> tuple[object, ...]:
        """All columns that affect the view; if they are equal, so are the views."""
        return tuple(self.row[:-1])

    @property
    def listed_at(self) -> int | None:
        """When the last complete listing began, in Unix milliseconds; not one of the `facts`."""
        began_at: int | None = self.row[-1]
        return began_at

    def instance(self) -> Instance:
        """Return the instance."""
        return from_row(self.row)

    def operation(self) -> Operation | None:
        """Return the unfinished operation, with only the fields that the view shows."""
        found, kind, phase, created_at, updated_at = self.row[_WIDTH:-1]
        if found is None:
            return None
        return Operation(found, OperationKind(kind), None, phase, created_at, updated_at)


def read(connection: Connection, instance_id: str) -> InstanceSnapshot | None:
    """Read an instance; None if it does not exist."""
    row = connection.execute(_QUERY, {"wanted": instance_id}).first()
    return None if row is None else InstanceSnapshot(row)
