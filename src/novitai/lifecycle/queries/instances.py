# SPDX-License-Identifier: Apache-2.0
"""Read instances from the database. Novita is never called here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from novitai.domain.instance import InstanceStatus
from novitai.domain.view import View, view
from novitai.lifecycle.queries.details_cache import Details, Rendered, observed_at, unknown
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.store.engine.database import Database
from novitai.store.queries import coordination, instances, operations, snapshots
from novitai.store.queries.instances import Filter


@dataclass(frozen=True, slots=True)
class Shown:
    """The view of an instance. `observed_at` is separate because it changes with each listing."""

    view: View
    observed_at: int | None


@dataclass(frozen=True, slots=True)
class InstanceQuery:
    """The filters of a list; without `limit` a page has up to `MAX_PAGE` instances."""

    status: InstanceStatus | None = None
    region: str | None = None
    name: str | None = None
    include_terminated: bool = False
    limit: int | None = None
    cursor: str | None = None


@dataclass(frozen=True, slots=True)
class InstancePage:
    """A page of a list. `total` counts all matches; `next_cursor` is None on the last page."""

    views: Sequence[View]
    total: int
    next_cursor: str | None


class InstanceReader:
    """Reads the records of instances."""

    def __init__(self, database: Database, details: Details) -> None:
        self._database = database
        self._details = details

    async def get(self, instance_id: str) -> Shown:
        """Return the view of an instance from its record.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        read = partial(snapshots.read, instance_id=instance_id)
        snapshot = await self._database.read(read)
        if snapshot is None:
            raise unknown(instance_id)
        instance = snapshot.instance()
        return Shown(
            view(instance, snapshot.operation()), observed_at(instance, snapshot.listed_at)
        )

    async def details(self, instance_id: str) -> Rendered:
        """Return the view of an instance from its record, as JSON.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        return await self._details.read(instance_id)

    async def page(self, query: InstanceQuery) -> InstancePage:
        """List instances, newest first.

        Raises:
            ValidationFailed: the cursor is invalid.
        """
        after = read_place(query.cursor)
        limit = min(query.limit or MAX_PAGE, MAX_PAGE)
        wanted = Filter(query.status, query.region, query.name, query.include_terminated)

        def load(connection: Connection) -> InstancePage:
            found = instances.page(connection, wanted, after=after, limit=limit + 1)
            total = instances.count(connection, wanted)
            listed_at = coordination.listed_at(connection)
            shown, more = cut(found, limit, lambda one: (one.created_at, one.id))
            running = operations.running_of(connection, [one.id for one in shown])
            views = [view(one, running.get(one.id), observed_at(one, listed_at)) for one in shown]
            return InstancePage(views, total, more)

        return await self._database.read(load, snapshot=True)
