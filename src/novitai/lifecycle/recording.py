# SPDX-License-Identifier: Apache-2.0
"""The one place where a status is written and events are appended.

Whoever changes an instance's columns, an operation or sync, calls `settle` as the last statement
of its transaction: the status is derived anew, and what changed is told in the same commit.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.event import EventType, of_status
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Operation
from novitai.domain.status import derive
from novitai.domain.view import view
from novitai.ids import Ids
from novitai.lifecycle.outbox import Outbox
from novitai.store import events, instances, operations


class Recorder:
    """Derives statuses and writes the event log."""

    def __init__(self, clock: Clock, ids: Ids, outbox: Outbox) -> None:
        self._clock = clock
        self._ids = ids
        self._outbox = outbox

    def settle(
        self,
        connection: Connection,
        instance_id: str,
        *,
        also: Mapping[str, object] | None = None,
    ) -> Instance:
        """Derive the status from what the row and its operation say now; tell if it changed.

        The caller holds the row's lock.

        Args:
            connection: The write transaction in which the row was changed.
            instance_id: Whose status.
            also: Facts to put beside the view into the event, if there is one.
        """
        return self.settle_many(connection, [instance_id], also=also)[instance_id]

    def settle_many(
        self,
        connection: Connection,
        instance_ids: Sequence[str],
        *,
        also: Mapping[str, object] | None = None,
    ) -> dict[str, Instance]:
        """Do for many instances what `settle` does for one; return them by id, as they are now."""
        found = instances.load_many(connection, instance_ids)
        running = operations.running_of(connection, instance_ids)
        moving: dict[InstanceStatus, list[str]] = {}
        for instance_id in instance_ids:
            instance, operation = found[instance_id], running.get(instance_id)
            status = derive(instance, operation.kind if operation else None)
            if status is not instance.status:
                moving.setdefault(status, []).append(instance_id)
        now = self._clock.now()
        for status, ids in moving.items():
            columns = {"status": status.value, **_times(status, now)}
            instances.update_columns_of(connection, ids, columns)
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

    def append(
        self,
        connection: Connection,
        instance: Instance,
        operation: Operation | None,
        event_type: EventType,
        *,
        also: Mapping[str, object] | None = None,
    ) -> None:
        """Append an event that shows the instance as it is now, and `also` beside it."""
        event_id = self._ids.prefixed("evt")
        events.append(
            connection,
            event_id=event_id,
            instance_id=instance.id,
            event_type=event_type,
            at=self._clock.now(),
            data={**view(instance, operation), **(also or {})},
        )
        self._outbox.tell(connection, instance, event_id, event_type)


def _times(status: InstanceStatus, now: int) -> dict[str, object]:
    times: dict[str, object] = {"updated_at": now}
    if status is not InstanceStatus.RUNNING:
        # Whoever leaves `running` has to be probed anew before it counts as running again.
        times["ready_at"] = None
    if status is InstanceStatus.RUNNING:
        times["started_at"] = now
    elif status is InstanceStatus.STOPPED:
        times["stopped_at"] = now
    elif status is InstanceStatus.TERMINATED:
        times["terminated_at"] = now
    return times
