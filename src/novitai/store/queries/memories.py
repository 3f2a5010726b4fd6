# SPDX-License-Identifier: Apache-2.0
"""Queries of what is remembered of a setting of instances, and of when it is looked at again."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final, Generic, Protocol, Self, TypeVar

import orjson
from sqlalchemy import Column, Connection, Select, bindparam, func, select, update

from novitai.store.tables import instances as table


class SettingMemory(Protocol):
    """A stored memory; a clock that was set back leaves times of the future in it."""

    def pulled_back(self, latest: int, now: int) -> Self:
        """Return it with the times after `latest` set to `now`."""
        ...


M = TypeVar("M", bound=SettingMemory)
_PRICE: Final = func.coalesce(table.c.obs_hourly_price, table.c.hourly_price, 0)


@dataclass(frozen=True, slots=True)
class Memories(Generic[M]):
    """The memories of one setting.

    Attributes:
        memory: The column of the memory, as JSON.
        looked: The column of when to look again.
        read: Reads a memory from the stored object.
        write: Returns the object to store.
    """

    memory: Column[Any]
    looked: Column[Any]
    read: Callable[[dict[str, object]], M]
    write: Callable[[M], dict[str, object]]
    _due: Select[str] = field(init=False)

    def __post_init__(self) -> None:
        """Build what the sweep runs each second: that costs more than running it."""
        due = select(table.c.id).where(self.looked <= bindparam("now"))
        order = due.order_by(self.looked, _PRICE.desc(), table.c.id).limit(bindparam("most"))
        object.__setattr__(self, "_due", order)

    def due(self, connection: Connection, now: int, limit: int) -> list[str]:
        """List the IDs of instances that are due, the longest due first, then the dearest."""
        return list(connection.execute(self._due, {"now": now, "most": limit}).scalars())

    def due_at(self, connection: Connection, instance_id: str) -> int | None:
        """Return when an instance is due; None if that is not planned."""
        at: int | None = self._value(connection, self.looked, instance_id)
        return at

    def load(self, connection: Connection, instance_id: str) -> M:
        """Load the memory of an instance."""
        return self.read(orjson.loads(self._value(connection, self.memory, instance_id)))

    def store(self, connection: Connection, instance_id: str, memory: M) -> None:
        """Store the memory of an instance; the caller holds its lock."""
        columns = {self.memory.name: self.dump(memory)}
        connection.execute(update(table).where(table.c.id == instance_id).values(columns))

    def dump(self, memory: M) -> str:
        """Serialize a memory for its column."""
        return orjson.dumps(self.write(memory)).decode()

    def pull_back(self, connection: Connection, *, latest: int, now: int) -> int:
        """Set the times that lie after `latest` to `now`; return how many rows changed."""
        changed = 0
        known = select(table.c.id, self.memory).where(self.memory != "{}")
        for instance_id, text in connection.execute(known).all():
            before = self.read(orjson.loads(text))
            after = before.pulled_back(latest, now)
            if after != before:
                columns = {self.memory.name: self.dump(after), "review_due_at": now}
                connection.execute(update(table).where(table.c.id == instance_id).values(columns))
                changed += 1
        return changed

    @staticmethod
    def _value(connection: Connection, column: Column[Any], instance_id: str) -> Any:
        return connection.execute(select(column).where(table.c.id == instance_id)).scalar()
