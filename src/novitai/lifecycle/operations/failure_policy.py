# SPDX-License-Identifier: Apache-2.0
"""The policy for failed instances: end an operation in failure and plan the clean-up."""

from __future__ import annotations

from enum import StrEnum

from novitai.clock import Clock
from novitai.domain.actor import CLEANUP
from novitai.domain.instance import Instance, Origin
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.status import is_gone
from novitai.ids import Ids
from novitai.lifecycle.operations.steps import Done
from novitai.settings import FailedInstancePolicy
from novitai.store.queries import instances


class Cleanup(StrEnum):
    """The clean-up of a failed instance, as in the event `instance.failed`."""

    NONE = "none"
    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"

    @property
    def acts(self) -> bool:
        """Whether the clean-up makes a call."""
        return self in {Cleanup.STOP, Cleanup.DELETE}


def plan_cleanup(instance: Instance, policy: FailedInstancePolicy) -> Cleanup:
    """Decide the clean-up of a failed instance.

    An adopted instance is always kept, and a protected one is stopped rather than deleted.
    """
    if instance.upstream_id is None or is_gone(instance):
        return Cleanup.NONE
    if policy is FailedInstancePolicy.KEEP or instance.origin is Origin.ADOPTED:
        return Cleanup.KEEP
    if instance.protected or (policy is FailedInstancePolicy.STOP and instance.ever_ran):
        return Cleanup.STOP
    return Cleanup.DELETE


class FailurePolicy:
    """Ends operations in failure and begins the clean-up."""

    def __init__(self, clock: Clock, ids: Ids, policy: FailedInstancePolicy) -> None:
        self._clock = clock
        self._ids = ids
        self._policy = policy

    def end(self, instance: Instance, code: str, message: str) -> Done:
        """End the operation of an instance that has failed.

        Args:
            instance: The failed instance.
            code: The error code shown with the instance.
            message: The error message, one sentence.
        """
        cleanup, now = plan_cleanup(instance, self._policy), self._clock.now()
        next_operation = None
        if cleanup.acts:
            next_operation = Operation.begin(
                self._ids.prefixed("op"),
                OperationKind.REAP,
                instance.id,
                cleanup.value,
                now,
                actor=CLEANUP,
            )
        return Done(
            Outcome.FAILED,
            changes={"failed": True, **instances.error_columns(code, message, now)},
            error=(code, message),
            also={"cleanup": cleanup.value},
            next_operation=next_operation,
        )
