# SPDX-License-Identifier: Apache-2.0
"""The failure policy: how an operation ends in failure, and what happens to the instance then."""

from __future__ import annotations

from enum import StrEnum

from novitai.clock import Clock
from novitai.domain.instance import Instance, Origin
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.status import is_gone
from novitai.ids import Ids
from novitai.lifecycle.operations.steps import Done
from novitai.settings import FailedInstancePolicy
from novitai.store.queries import instances


class Cleanup(StrEnum):
    """What happens to a failed instance; the event `instance.failed` says which."""

    NONE = "none"
    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return self in {Cleanup.STOP, Cleanup.DELETE}


def plan_cleanup(instance: Instance, policy: FailedInstancePolicy) -> Cleanup:
    """Decide what happens to an instance that has failed. An adopted one is always kept."""
    if instance.upstream_id is None or is_gone(instance):
        return Cleanup.NONE
    if policy is FailedInstancePolicy.KEEP or instance.origin is Origin.ADOPTED:
        return Cleanup.KEEP
    if policy is FailedInstancePolicy.STOP and instance.ever_ran:
        return Cleanup.STOP
    return Cleanup.DELETE


class FailurePolicy:
    """Ends operations in failure, and hands the instance over to a clean-up."""

    def __init__(self, clock: Clock, ids: Ids, policy: FailedInstancePolicy) -> None:
        self._clock = clock
        self._ids = ids
        self._policy = policy

    def end(self, instance: Instance, code: str, message: str) -> Done:
        """End the operation of an instance that has failed.

        Args:
            instance: The instance that has failed.
            code: The error's code, shown with the instance.
            message: What happened, in a sentence.
        """
        cleanup, now = plan_cleanup(instance, self._policy), self._clock.now()
        next_operation = None
        if cleanup.acts:
            next_operation = Operation.begin(
                self._ids.prefixed("op"), OperationKind.REAP, instance.id, cleanup.value, now
            )
        return Done(
            Outcome.FAILED,
            changes={"failed": True, **instances.error_columns(code, message, now)},
            error=(code, message),
            also={"cleanup": cleanup.value},
            next_operation=next_operation,
        )
