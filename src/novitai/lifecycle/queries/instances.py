# SPDX-License-Identifier: Apache-2.0
"""Read instances from the database. Novita is never called here."""

from __future__ import annotations

from dataclasses import dataclass

from sqlalchemy import Connection

from novitai.domain.billing import Cost
from novitai.domain.instance import InstanceStatus
from novitai.domain.instance_details import InstanceDetails
from novitai.domain.view import view
from novitai.lifecycle.money import ledger
from novitai.lifecycle.queries.pagination import MAX_PAGE, read_place
from novitai.lifecycle.queries.ready_views import (
    ReadyAnswer,
    ReadyPage,
    ReadyViews,
    WantedPage,
    observed_at,
    unknown,
)
from novitai.store.engine.database import Database
from novitai.store.queries import snapshots
from novitai.store.queries.instances import Filter


@dataclass(frozen=True, slots=True)
class Shown:
    """The view of an instance; values that change with each listing are separate."""

    view: InstanceDetails
    observed_at: int | None
    cost: Cost | None = None


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """The filters of a list; without `limit` a page has up to `MAX_PAGE` instances."""

    status: InstanceStatus | None = None
    region: str | None = None
    name: str | None = None
    include_terminated: bool = False
    tags: tuple[tuple[str, str], ...] = ()
    limit: int | None = None
    cursor: str | None = None


class InstanceReader:
    """Reads the records of instances."""

    def __init__(self, database: Database, ready: ReadyViews) -> None:
        self._database = database
        self._ready = ready

    async def get(self, instance_id: str) -> Shown:
        """Return the view of an instance from its record.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """

        def load(connection: Connection) -> Shown:
            found = snapshots.read(connection, [instance_id])
            if not found:
                raise unknown(instance_id)
            (snapshot,) = found
            instance = snapshot.instance()
            return Shown(
                view(instance, snapshot.operation()),
                observed_at(instance, snapshot.listed_at),
                ledger.costs_of(connection, [instance])[instance.id],
            )

        return await self._database.read(load, snapshot=True)

    async def details(self, instance_id: str) -> ReadyAnswer:
        """Return the view of an instance as JSON.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        return await self._ready.one(instance_id)

    async def page(self, query: InstanceQuery) -> ReadyPage:
        """List instances, newest first.

        Raises:
            ValidationFailed: the cursor is invalid.
        """
        wanted = Filter(
            query.status, query.region, query.name, query.include_terminated, query.tags
        )
        limit = min(query.limit or MAX_PAGE, MAX_PAGE)
        return await self._ready.page(WantedPage(wanted, read_place(query.cursor), limit))
