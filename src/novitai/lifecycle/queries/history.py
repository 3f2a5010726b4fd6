# SPDX-License-Identifier: Apache-2.0
"""Read events and operations, and wait for a status."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, Protocol

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import Event
from novitai.domain.instance import InstanceStatus
from novitai.domain.operation import Operation
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.queries.instances import Shown
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.lifecycle.queries.ready_views import unknown
from novitai.lifecycle.queries.status_watch import StatusWatch
from novitai.store.engine.database import Database
from novitai.store.queries import events, instances, operations

_ENDS: Final = frozenset(
    {
        InstanceStatus.FAILED.value,
        InstanceStatus.TERMINATED.value,
        InstanceStatus.RELEASED.value,
    }
)
"""The statuses that change only by a new request."""


@dataclass(frozen=True, slots=True)
class EventPage:
    """Events, and the ID of the last one as `next_cursor` if more follow."""

    events: Sequence[Event]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class OperationPage:
    """Operations, newest first, and the cursor of the next page."""

    operations: Sequence[Operation]
    next_cursor: str | None


@dataclass(frozen=True, slots=True)
class Waited:
    """How a wait ended: `reached`, `out_of_reach`, or neither if the time was up."""

    shown: Shown
    reached: bool
    out_of_reach: bool


class Reader(Protocol):
    """Reads single instances, such as `novitai.lifecycle.queries.instances.InstanceReader`."""

    async def get(self, instance_id: str) -> Shown:
        """Return one instance; raise `NotFound` if it does not exist."""
        ...


class History:
    """Reads events and operations."""

    def __init__(self, database: Database, clock: Clock, reader: Reader) -> None:
        self._database = database
        self._clock = clock
        self._reader = reader
        self._watch = StatusWatch(database, clock)

    async def of_instance(
        self, instance_id: str, *, cursor: str | None = None, limit: int = MAX_PAGE
    ) -> EventPage:
        """List an instance's events; this works after its termination too.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            ValidationFailed: the cursor is not the id of an event.
        """

        def load(connection: Connection) -> EventPage:
            if instances.load(connection, instance_id) is None:
                raise unknown(instance_id)
            after = _after(connection, cursor, "cursor")
            return _page(
                events.of_instance(connection, instance_id, after=after, limit=limit + 1), limit
            )

        return await self._database.read(load)

    async def since(
        self, event_id: str | None = None, *, limit: int = MAX_PAGE, field: str = "since"
    ) -> EventPage:
        """List the events of all instances after one of them.

        Args:
            event_id: The event before the first one to list; None lists from the beginning.
            limit: The most events to return.
            field: The request's name for the event ID, used in the error.

        Raises:
            ValidationFailed: the event does not exist.
        """

        def load(connection: Connection) -> EventPage:
            after = _after(connection, event_id, field)
            return _page(events.since(connection, after=after, limit=limit + 1), limit)

        return await self._database.read(load)

    async def latest(
        self, since: str | None = None, *, cursor: str | None = None, limit: int = MAX_PAGE
    ) -> EventPage:
        """List the events of all instances, newest first.

        Args:
            since: The event before the oldest one to list; None lists down to the beginning.
            cursor: The last event of the page before.
            limit: The most events to return.

        Raises:
            ValidationFailed: an event does not exist.
        """

        def load(connection: Connection) -> EventPage:
            after = _after(connection, since, "since")
            before = None if cursor is None else _after(connection, cursor, "cursor")
            found = events.latest(connection, after=after, before=before, limit=limit + 1)
            return _page(found, limit)

        return await self._database.read(load)

    async def feed_lag_seconds(self) -> float:
        """Return the age in seconds of the first stored event that `since` does not list yet.

        An event is held back while an open transaction may still write an earlier one. Returns 0 if
        no event is held back.
        """
        held_back = await self._database.read(events.held_back_since)
        return 0.0 if held_back is None else max(0.0, (self._clock.now() - held_back) / 1000)

    async def operation(self, operation_id: str) -> Operation:
        """Read an operation, running or ended.

        Raises:
            NotFound: `OPERATION_NOT_FOUND`.
        """
        found = await self._database.read(
            lambda connection: operations.load(connection, operation_id)
        )
        if found is None:
            raise NotFound(f"Operation '{operation_id}' not found", code="OPERATION_NOT_FOUND")
        return found

    async def operations(
        self,
        *,
        instance_id: str | None = None,
        done: bool | None = None,
        cursor: str | None = None,
        limit: int = MAX_PAGE,
    ) -> OperationPage:
        """List operations, newest first.

        Args:
            instance_id: Only operations of this instance.
            done: Only ended operations, or only running ones.
            cursor: From the page before.
            limit: The most operations to return.

        Raises:
            ValidationFailed: the cursor is invalid.
        """
        read = partial(
            operations.page,
            after=read_place(cursor),
            limit=limit + 1,
            instance_id=instance_id,
            done=done,
        )
        found = await self._database.read(read)
        return OperationPage(*cut(found, limit, lambda one: (one.created_at, one.id)))

    async def wait(self, instance_id: str, status: InstanceStatus, seconds: float) -> Waited:
        """Wait until an instance has a status or can no longer reach it, or the time is up.

        The status is out of reach once the instance is terminated, released or failed, because only
        a new request changes these; and `creating` once it is over. The call returns at most one
        polling interval late.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
        """
        end = self._clock.monotonic() + seconds
        while True:
            shown = await self._reader.get(instance_id)
            now = shown.view["status"]
            if now == status.value:
                return Waited(shown, reached=True, out_of_reach=False)
            if now in _ENDS or status is InstanceStatus.CREATING:
                return Waited(shown, reached=False, out_of_reach=True)
            if self._clock.monotonic() >= end:
                return Waited(shown, reached=False, out_of_reach=False)
            await self._until_other(instance_id, str(now), end)

    async def _until_other(self, instance_id: str, status: str, end: float) -> None:
        """Wait until the status changes, or until `end` on the monotonic clock."""
        while self._clock.monotonic() < end:
            if await self._watch.at_next_look(instance_id) != status:
                return


def _after(connection: Connection, event_id: str | None, field: str) -> int:
    if event_id is None:
        return 0
    sequence = events.sequence_of(connection, event_id)
    if sequence is None:
        raise ValidationFailed(
            "Validation failed",
            details=[FieldError(field, f"{field} must be the id of an event", event_id)],
        )
    return sequence


def _page(found: Sequence[Event], limit: int) -> EventPage:
    shown = found[:limit]
    return EventPage(shown, shown[-1].id if len(found) > limit else None)
