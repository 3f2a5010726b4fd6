# SPDX-License-Identifier: Apache-2.0
"""Nothing hangs: whatever must not last, and has no operation, gets one that sees it through."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.ids import Ids
from novitai.jobs.port import JobEngine
from novitai.store import operations

FOLLOWED: Final = frozenset(
    {InstanceStatus.STARTING, InstanceStatus.STOPPING, InstanceStatus.MIGRATING}
)
"""The statuses that must not last."""


class Follower:
    """Begins operations of the kind `follow`."""

    def __init__(self, clock: Clock, ids: Ids, jobs: JobEngine) -> None:
        self._clock = clock
        self._ids = ids
        self._jobs = jobs

    def ensure(self, connection: Connection, instance: Instance) -> None:
        """Follow an instance that is on its way by itself; the caller holds its lock."""
        if instance.status not in FOLLOWED or instance.upstream_id is None:
            return
        if operations.running(connection, instance.id) is not None:
            return
        now = self._clock.now()
        operation = Operation(
            id=self._ids.prefixed("op"),
            kind=OperationKind.FOLLOW,
            instance_id=instance.id,
            phase="watch",
            created_at=now,
            updated_at=now,
            next_step_at=now,
        )
        operations.insert(connection, operation)
        self._jobs.nudge(connection, operation.kind.job, operation.id)
