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
from novitai.domain.status import Observation, read_word
from novitai.lifecycle.steps import Again, Announcement, Claimed, Done, Step
from novitai.settings import FailedInstancePolicy
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

_LOOK_ANYWAY: Final = 30_000
_STOP_WITHIN: Final = 300_000
"""Milliseconds in which a stop must have worked, or the instance is deleted."""
_ASK_AGAIN: Final = 60_000
"""Milliseconds after which a call that shows no effect is made again."""


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
            return await self._stop(claimed, claimed.instance.upstream_id)
        return await self._delete(claimed, claimed.instance.upstream_id)

    async def _stop(self, claimed: Claimed, upstream_id: str) -> Step:
        now = self._clock.now()
        seen = read_word(claimed.instance.observed.status)
        if seen is Observation.EXITED:
            return _cleaned_up("stopped")
        if now - claimed.operation.created_at >= _STOP_WITHIN:
            return Again(ReapPlan.DELETE, now)
        if seen is Observation.STOPPING or not self._ask_again(claimed):
            return Again(ReapPlan.STOP, now + _LOOK_ANYWAY, memory=claimed.operation.memory)
        try:
            await self._client.stop(upstream_id)
        except (upstream.InvalidStateChange, upstream.Gone):
            pass  # It may have worked all the same; the next listings tell (docs/upstream.md §1.1).
        except upstream.Refused as error:
            return Again(ReapPlan.DELETE, now, error=("STOP_REFUSED", str(error)))
        return self._asked(ReapPlan.STOP)

    async def _delete(self, claimed: Claimed, upstream_id: str) -> Step:
        now = self._clock.now()
        seen = read_word(claimed.instance.observed.status)
        if seen is Observation.REMOVING or not self._ask_again(claimed):
            return Again(ReapPlan.DELETE, now + _LOOK_ANYWAY, memory=claimed.operation.memory)
        try:
            await self._client.delete(upstream_id)
        except upstream.Gone:
            pass  # Not proof of absence right after a create; sync proves it.
        except upstream.Refused as error:
            return Again(
                ReapPlan.DELETE,
                now + _ASK_AGAIN,
                error=("DELETE_REFUSED", str(error)),
            )
        return self._asked(ReapPlan.DELETE)

    def _ask_again(self, claimed: Claimed) -> bool:
        asked_at = claimed.operation.memory.get("asked_at")
        return not isinstance(asked_at, int) or self._clock.now() - asked_at >= _ASK_AGAIN

    def _asked(self, plan: ReapPlan) -> Again:
        now = self._clock.now()
        memory: Mapping[str, object] = {"asked_at": now}
        return Again(plan, now + _LOOK_ANYWAY, changes={"acted_at": now}, memory=memory)


def is_gone(instance: Instance) -> bool:
    """Whether an instance is proven to be gone, or shown as removed."""
    observed = instance.observed
    return observed.gone or read_word(observed.status) is Observation.REMOVED


def _cleaned_up(action: str) -> Done:
    return Done(
        Outcome.SUCCEEDED,
        announcements=(Announcement(EventType.CLEANED_UP, {"cleanup": action}),),
    )
