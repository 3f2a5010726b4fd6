# SPDX-License-Identifier: Apache-2.0
"""The verb *reap*: an instance that failed is never silently left to bill.

Under the policy `stop`, what ever ran is stopped, so that its data is kept; what never ran, or
cannot be stopped, is deleted, since nothing of its user's is on it.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.operation import Operation, OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.asking import (
    LOOK_ANYWAY,
    MAX_ASKS,
    PATIENCE,
    Asked,
    ask,
    asked_at,
    asks,
    without_effect,
)
from novitai.lifecycle.steps import Again, Announcement, Claimed, Done, Step
from novitai.settings import FailedInstancePolicy
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient


class ReapPlan(StrEnum):
    """What is to become of a failed instance; the event `instance.failed` says which."""

    NONE = "none"
    KEEP = "keep"
    STOP = "stop"
    DELETE = "delete"

    @property
    def acts(self) -> bool:
        """Whether there is anything to do."""
        return self in {ReapPlan.STOP, ReapPlan.DELETE}


def plan_reap(instance: Instance, policy: FailedInstancePolicy) -> ReapPlan:
    """Decide what becomes of an instance that has failed."""
    if instance.upstream_id is None or is_gone(instance):
        return ReapPlan.NONE
    if policy is FailedInstancePolicy.KEEP:
        return ReapPlan.KEEP
    if policy is FailedInstancePolicy.STOP and instance.ever_ran:
        return ReapPlan.STOP
    return ReapPlan.DELETE


def failed(
    instance: Instance, code: str, message: str, *, plan: ReapPlan, operation_id: str, now: int
) -> Done:
    """End an operation in failure, and hand over what there is to be reaped.

    Args:
        instance: What has failed.
        code: The error's code, shown with the instance.
        message: What happened, in a sentence.
        plan: What becomes of it; the event says which.
        operation_id: The id of the operation that carries the plan out.
        now: Unix milliseconds.
    """
    follow = None
    if plan.acts:
        follow = Operation(
            id=operation_id,
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


def error_columns(code: str, message: str, now: int) -> dict[str, object]:
    """Write an instance's error as columns."""
    return {"error_code": code, "error_message": message, "error_at": now}


NO_ERROR: Final[Mapping[str, object]] = {
    "error_code": None,
    "error_message": None,
    "error_at": None,
}
"""The columns of an instance with which nothing is wrong."""


class ReapVerb:
    """Takes the steps of ending what a failed instance costs."""

    kind = OperationKind.REAP

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Ask for the stop or the deletion, then watch until it has happened."""
        if claimed.instance.upstream_id is None or is_gone(claimed.instance):
            return _cleaned_up("deleted")
        if claimed.operation.phase == ReapPlan.STOP:
            return await self._stop(claimed)
        return await self._delete(claimed)

    async def _stop(self, claimed: Claimed) -> Step:
        now = self._clock.now()
        seen = read_word(claimed.instance.observed.status)
        if seen is Observation.EXITED and claimed.seen_since_acted:
            return _cleaned_up("stopped")
        if asked_at(claimed.operation) is not None:
            runs_on = seen is Observation.RUNNING and without_effect(claimed, now)
            if not runs_on:
                return Again(ReapPlan.STOP, now + LOOK_ANYWAY, memory=claimed.operation.memory)
            if asks(claimed.operation) >= MAX_ASKS:
                # It was asked for, and seen to run on, three times: it cannot be stopped.
                return Again(ReapPlan.DELETE, now)
        try:
            asked = await ask(claimed, self._client.stop, self._clock)
        except upstream.Refused as error:
            return Again(ReapPlan.DELETE, now, error=("STOP_REFUSED", str(error)))
        return _asked(ReapPlan.STOP, asked, self._clock.now())

    async def _delete(self, claimed: Claimed) -> Step:
        now, asked = self._clock.now(), asked_at(claimed.operation)
        removing = read_word(claimed.instance.observed.status) is Observation.REMOVING
        if asked is not None and (removing or now - asked < PATIENCE):
            return Again(ReapPlan.DELETE, now + LOOK_ANYWAY, memory=claimed.operation.memory)
        try:
            done = await ask(claimed, self._client.delete, self._clock)
        except upstream.Refused as error:
            memory = claimed.operation.memory
            return Again(
                ReapPlan.DELETE, now + PATIENCE, memory=memory, error=("DELETE_REFUSED", str(error))
            )
        return _asked(ReapPlan.DELETE, done, self._clock.now())


def _asked(plan: ReapPlan, asked: Asked, now: int) -> Again:
    return Again(
        plan,
        now + LOOK_ANYWAY,
        changes=asked.changes,
        memory=asked.memory,
        attempts=asked.attempts,
    )


def _cleaned_up(action: str) -> Done:
    return Done(
        Outcome.SUCCEEDED,
        announcements=(Announcement(EventType.CLEANED_UP, {"cleanup": action}),),
    )
