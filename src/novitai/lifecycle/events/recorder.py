# SPDX-License-Identifier: Apache-2.0
"""Writes statuses and appends events. No other module does.

An operation or the reconciler that changes an instance calls `refresh_status` as the last statement
of its transaction. It derives the status and appends the event in the same commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Final

import structlog
from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.crash_points import CrashPoint, reach
from novitai.domain.actor import Actor
from novitai.domain.event import EventType, of_status
from novitai.domain.instance import GONE, Instance, InstanceStatus
from novitai.domain.operation import Operation
from novitai.domain.status import derive
from novitai.domain.view import view
from novitai.ids import Ids
from novitai.lifecycle.events.outbox import Outbox
from novitai.lifecycle.money import ledger
from novitai.store.engine.database import Database
from novitai.store.queries import events, instances, operations

_log = structlog.get_logger(__name__)

_GRAVE: Final = frozenset(
    {
        EventType.FAILED,
        EventType.IDENTITY_UNCONFIRMED,
        EventType.DELETE_INEFFECTIVE,
        EventType.ACCOUNT_CHANGED,
        EventType.ORPHAN_FOUND,
        EventType.ORPHAN_DELETED,
        EventType.BUDGET_ALERT,
        EventType.BUDGET_EXCEEDED,
        EventType.COST_UNEXPLAINED,
        EventType.COST_UNKNOWN_OWNER,
        EventType.COST_RECONCILIATION_UNAVAILABLE,
        EventType.SURPLUS_DELETED,
        EventType.DRIFT,
        EventType.LIMIT_UNENFORCED,
        EventType.AUTOSTOP_FAILED,
        EventType.AUTOSTOP_SIGNAL_LOST,
        EventType.DATA_PURGE_SCHEDULED,
    }
)
"""The event types logged as warnings."""
_LOGGED: Final = (
    "previousStatus",
    "cleanup",
    "drift",
    "reason",
    "message",
    "attempt",
    "cancelled",
    "surplusUpstreamId",
    "action",
    "cause",
    "minutes",
    "purgeAt",
    "signal",
    "previousHourlyPrice",
)
"""The fields of an event, besides the view, that are logged with it."""


class Recorder:
    """Derives statuses and writes the event log.

    Args:
        clock: The clock for the times of events.
        ids: Makes the IDs of events.
        outbox: Writes the messages of events to webhooks.
        actor: Who causes the events; None if that is not known.
    """

    def __init__(self, clock: Clock, ids: Ids, outbox: Outbox, actor: Actor | None = None) -> None:
        self._clock = clock
        self._ids = ids
        self._outbox = outbox
        self._actor = actor

    def by(self, actor: Actor | None) -> Recorder:
        """Return a recorder whose events name this actor."""
        return Recorder(self._clock, self._ids, self._outbox, actor)

    def refresh_status(
        self,
        connection: Connection,
        instance_id: str,
        *,
        also: Mapping[str, object] | None = None,
    ) -> Instance:
        """Derive the status from the row and its operation; append an event if it changed.

        The caller holds the row's lock.

        Args:
            connection: The write transaction in which the row was changed.
            instance_id: The instance.
            also: Fields to add to the view in the event, if one is appended.
        """
        return self.refresh_statuses(connection, [instance_id], also=also)[instance_id]

    def refresh_statuses(
        self,
        connection: Connection,
        instance_ids: Sequence[str],
        *,
        also: Mapping[str, object] | None = None,
    ) -> dict[str, Instance]:
        """Call `refresh_status` for many instances at once; return them by ID."""
        found = instances.load_many(connection, instance_ids)
        running = operations.running_of(connection, instance_ids)
        moving: dict[InstanceStatus, list[str]] = {}
        for instance_id in instance_ids:
            instance, operation = found[instance_id], running.get(instance_id)
            status = derive(instance, operation.kind if operation else None)
            if status is not instance.status:
                moving.setdefault(status, []).append(instance_id)
        now = self._clock.now()
        ledger.follow(connection, list(found.values()), now)
        for status, ids in moving.items():
            columns = {"status": status.value, **_times(status, now)}
            instances.update_columns_of(connection, ids, columns)
            if status is InstanceStatus.TERMINATED:
                _mark_absent(connection, [found[one] for one in ids], now)
            for instance_id, instance in instances.load_many(connection, ids).items():
                previous, found[instance_id] = found[instance_id].status, instance
                self.append(
                    connection,
                    instance,
                    running.get(instance_id),
                    of_status(status),
                    also={"previousStatus": previous.value, **(also or {})},
                )
        return found

    def revive(self, connection: Connection, instance_id: str) -> Instance:
        """Give a record that has ended, or was to be deleted, its current status; append the event.

        Only this method leaves `terminated`, for an instance that was not gone, and `terminating`,
        for a delete of a limit that is withdrawn. The caller holds the row's lock and has cleared
        the columns that ended the record.
        """
        before = instances.load_many(connection, [instance_id])[instance_id]
        running = operations.running(connection, instance_id)
        begun_again = replace(before, status=InstanceStatus.STARTING)
        status = derive(begun_again, running.kind if running else None)
        columns = {"status": status.value, **_times(status, self._clock.now())}
        instances.update_columns(connection, instance_id, columns)
        revived = instances.load_many(connection, [instance_id])[instance_id]
        self.append(
            connection,
            revived,
            running,
            of_status(status),
            also={"previousStatus": before.status.value},
        )
        return revived

    def append(
        self,
        connection: Connection,
        instance: Instance,
        operation: Operation | None,
        event_type: EventType,
        *,
        also: Mapping[str, object] | None = None,
    ) -> None:
        """Append an event with the current view of the instance and the fields of `also`."""
        reach(CrashPoint.EVENT_WRITING, event_type.value)
        event_id = self._ids.prefixed("evt")
        if event_type is EventType.CREATED:  # nothing was bought before
            cost = ledger.cost_before_purchase(instance)
        else:
            cost = ledger.costs_of(connection, [instance])[instance.id]
        events.append(
            connection,
            event_id=event_id,
            instance_id=instance.id,
            event_type=event_type,
            at=self._clock.now(),
            data={**view(instance, operation, cost=cost), **(also or {})},
            actor=self._actor,
        )
        self._outbox.emit(connection, instance, event_id, event_type)
        reach(CrashPoint.EVENT_WRITTEN, event_type.value)
        facts: dict[str, object] = {
            "instance_id": instance.id,
            "upstream_id": instance.upstream_id,
            "name": instance.name,
            "status": instance.status.value,
            "operation": operation.kind.value if operation else None,
        }
        if event_type is EventType.FAILED and instance.error is not None:
            facts |= {"code": instance.error.code, "message": instance.error.message}
        facts |= {_snake(name): also[name] for name in _LOGGED if also and name in also}
        _log_after_commit(connection, event_type, facts)

    def append_account(
        self, connection: Connection, event_type: EventType, data: Mapping[str, object]
    ) -> None:
        """Append an event about the account; `data` is its whole content."""
        reach(CrashPoint.EVENT_WRITING, event_type.value)
        event_id = self._ids.prefixed("evt")
        events.append(
            connection,
            event_id=event_id,
            instance_id=None,
            event_type=event_type,
            at=self._clock.now(),
            data=data,
            actor=self._actor,
        )
        self._outbox.emit_account(connection, event_id, event_type)
        reach(CrashPoint.EVENT_WRITTEN, event_type.value)
        facts = {_snake(name): value for name, value in data.items()}
        _log_after_commit(connection, event_type, facts)


def _mark_absent(connection: Connection, ended: Sequence[Instance], now: int) -> None:
    """Set the error `GONE` on records that have just ended only by absence.

    Such a record is revived if its instance is seen again. A record that a user or novitai ended
    has `terminated_at` already; it is not revived, so the error of an earlier absence is removed.
    """
    absent = [one.id for one in ended if one.terminated_at is None and one.observed.gone]
    message = "The instance is no longer in the Novita account"
    instances.update_columns_of(connection, absent, instances.error_columns(GONE, message, now))
    marked = [
        one.id for one in ended if one.id not in absent and one.error and one.error.code == GONE
    ]
    instances.update_columns_of(connection, marked, instances.NO_ERROR)


def _log_after_commit(
    connection: Connection, event_type: EventType, facts: Mapping[str, object]
) -> None:
    """Log a change after the commit, so that a change that is rolled back is never logged."""
    present = {name: value for name, value in facts.items() if value is not None}
    name = event_type.value.replace(".", "_")
    log = _log.warning if event_type in _GRAVE else _log.info
    Database.after_commit(connection, partial(log, name, **present))


def _snake(name: str) -> str:
    return "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)


def _times(status: InstanceStatus, now: int) -> dict[str, object]:
    times: dict[str, object] = {"updated_at": now}
    if status is not InstanceStatus.RUNNING:
        # An instance that leaves `running` must be probed again before it counts as running.
        times["ready_at"] = None
    if not status.ended:
        times["terminated_at"] = None
    if status is InstanceStatus.RUNNING:
        times["started_at"] = now
    elif status is InstanceStatus.STOPPED:
        times["stopped_at"] = now
    elif status is InstanceStatus.TERMINATED:
        times["terminated_at"] = now
    return times
