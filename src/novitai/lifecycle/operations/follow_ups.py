# SPDX-License-Identifier: Apache-2.0
"""Follow-ups: begin an operation for every instance in a transient status that has none."""

from __future__ import annotations

from typing import Final

from sqlalchemy import Connection

from novitai.domain.actor import CLEANUP, SYNC, Actor
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.status import Observation, read_word
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations.failure_policy import plan_cleanup
from novitai.settings import FailedInstancePolicy
from novitai.store.queries import operations

FOLLOWED: Final = frozenset(
    {InstanceStatus.STARTING, InstanceStatus.STOPPING, InstanceStatus.MIGRATING}
)
"""The transient statuses."""


class FollowUps:
    """Begins `follow` and `reap` operations for instances that have no operation."""

    def __init__(self, core: Core, policy: FailedInstancePolicy) -> None:
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._policy = policy

    def ensure(self, connection: Connection, instance: Instance) -> None:
        """Follow an instance in a transient status. The caller holds its lock."""
        if instance.status not in FOLLOWED or instance.upstream_id is None:
            return
        self._begin(connection, OperationKind.FOLLOW, instance, "watch", SYNC)

    def clean_up(self, connection: Connection, instance: Instance) -> None:
        """Clean up a failed instance that is listed as alive. The caller holds its lock."""
        if not instance.failed:
            return
        word = read_word(instance.observed.status)
        if word in {Observation.EXITED, Observation.REMOVING, Observation.REMOVED}:
            return
        cleanup = plan_cleanup(instance, self._policy)
        if cleanup.acts:
            self._begin(connection, OperationKind.REAP, instance, cleanup.value, CLEANUP)

    def _begin(
        self,
        connection: Connection,
        kind: OperationKind,
        instance: Instance,
        phase: str,
        actor: Actor,
    ) -> None:
        if operations.running(connection, instance.id) is not None:
            return
        operation = Operation.begin(
            self._ids.prefixed("op"), kind, instance.id, phase, self._clock.now(), actor=actor
        )
        operations.insert(connection, operation)
        self._jobs.nudge(connection, operation.kind.job, operation.id)
