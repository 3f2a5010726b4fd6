# SPDX-License-Identifier: Apache-2.0
"""Failing: how an operation ends in failure, and what becomes of the instance then."""

from __future__ import annotations

from novitai.clock import Clock
from novitai.domain.instance import Instance
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.ids import Ids
from novitai.lifecycle.error_columns import error_columns
from novitai.lifecycle.reapplan import plan_reap
from novitai.lifecycle.steps import Done
from novitai.settings import FailedInstancePolicy


class Failing:
    """Ends operations in failure, and hands over what there is to be reaped."""

    def __init__(self, clock: Clock, ids: Ids, policy: FailedInstancePolicy) -> None:
        self._clock = clock
        self._ids = ids
        self._policy = policy

    def end(self, instance: Instance, code: str, message: str) -> Done:
        """End the operation of an instance that has failed.

        Args:
            instance: What has failed.
            code: The error's code, shown with the instance.
            message: What happened, in a sentence.
        """
        plan, now = plan_reap(instance, self._policy), self._clock.now()
        follow = None
        if plan.acts:
            follow = Operation(
                id=self._ids.prefixed("op"),
                kind=OperationKind.REAP,
                instance_id=instance.id,
                phase=plan.value,
                created_at=now,
                updated_at=now,
                next_step_at=now,
            )
        return Done(
            Outcome.FAILED,
            changes={"failed": True, **error_columns(code, message, now)},
            error=(code, message),
            also={"cleanup": plan.value},
            follow=follow,
        )
