# SPDX-License-Identifier: Apache-2.0
"""Wait for a status: one shared query at a time for all waiting clients."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.instance import InstanceStatus
from novitai.store.engine.database import Database
from novitai.store.queries import instances

LOOK_EVERY: Final = 0.25
"""Seconds between queries. If each of 1,000 clients polled on its own, that would be 4,000 queries
a second."""


@dataclass(slots=True)
class _Look:
    """A scheduled query: the instances to read, and the number of callers waiting for it."""

    ids: set[str] = field(default_factory=set)
    waiting: int = 0
    task: asyncio.Task[dict[str, InstanceStatus]] | None = None


class StatusWatch:
    """Polls the statuses of instances while at least one caller waits."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._next: _Look | None = None

    async def at_next_look(self, instance_id: str) -> InstanceStatus | None:
        """Return an instance's status at the next query; None if it does not exist."""
        look = self._next
        if look is None or look.task is None:
            look = self._next = _Look()
            look.task = asyncio.create_task(self._take(look), name="status-look")
        look.ids.add(instance_id)
        look.waiting += 1
        try:
            found = await asyncio.shield(look.task)
        finally:
            look.waiting -= 1
            if look.waiting == 0:
                look.task.cancel()
                self._forget(look)
        return found.get(instance_id)

    async def _take(self, look: _Look) -> dict[str, InstanceStatus]:
        await self._clock.sleep(LOOK_EVERY)
        self._forget(look)  # later callers wait for the next query

        def read(connection: Connection) -> dict[str, InstanceStatus]:
            return instances.statuses(connection, sorted(look.ids))

        return await self._database.read(read)

    def _forget(self, look: _Look) -> None:
        if self._next is look:
            self._next = None
