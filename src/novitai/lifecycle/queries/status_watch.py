# SPDX-License-Identifier: Apache-2.0
"""Waiting for a status: one look at the records at a time, however many wait."""

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
"""Seconds between looks. A thousand clients that each looked for themselves would be 4,000 reads a
second."""


@dataclass(slots=True)
class _Look:
    """A look that is to come: at which instances, and how many wait for it."""

    ids: set[str] = field(default_factory=set)
    waiting: int = 0
    task: asyncio.Task[dict[str, InstanceStatus]] | None = None


class StatusWatch:
    """Tells statuses to those who wait for them. It looks only while somebody waits."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._next: _Look | None = None

    async def at_next_look(self, instance_id: str) -> InstanceStatus | None:
        """Tell an instance's status a moment from now; None if there is no such instance."""
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
        self._forget(look)  # who comes from now on waits for the look after this one

        def read(connection: Connection) -> dict[str, InstanceStatus]:
            return instances.statuses(connection, sorted(look.ids))

        return await self._database.read(read)

    def _forget(self, look: _Look) -> None:
        if self._next is look:
            self._next = None
