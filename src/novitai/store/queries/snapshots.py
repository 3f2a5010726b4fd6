# SPDX-License-Identifier: Apache-2.0
"""One instance at one moment, in one statement: its row, its unfinished operation, the listing."""

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
# Built once: half of what it costs is SQLAlchemy recognizing so wide a statement.
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
    """What was read."""

    row: Record

    @property
    def facts(self) -> tuple[object, ...]:
        """Everything that can be seen from outside; where it is equal, so is what is shown."""
        return tuple(self.row[:-1])

    @property
    def listed_at(self) -> int | None:
        """When the last listing began, in Unix milliseconds; no fact, as each listing moves it."""
        began_at: int | None = self.row[-1]
        return began_at

    def instance(self) -> Instance:
        """Map the instance."""
        return from_row(self.row)

    def operation(self) -> Operation | None:
        """Map the unfinished operation, as far as it is shown."""
        found, kind, phase, created_at, updated_at = self.row[_WIDTH:-1]
        if found is None:
            return None
        return Operation(found, OperationKind(kind), None, phase, created_at, updated_at)


def read(connection: Connection, instance_id: str) -> InstanceSnapshot | None:
    """Read an instance; None where there is none."""
    row = connection.execute(_QUERY, {"wanted": instance_id}).first()
    return None if row is None else InstanceSnapshot(row)
