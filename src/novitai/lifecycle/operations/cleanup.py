# SPDX-License-Identifier: Apache-2.0
"""The verb *reap*: an instance that failed is never silently left to bill.

Under the policy `stop`, what ever ran is stopped, so that its data is kept; what never ran, or
cannot be stopped, is deleted, since nothing of its user's is on it.
"""

from __future__ import annotations

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.cleanup_plan import ReapPlan
from novitai.lifecycle.operations.delete import is_over, look_twice, seems_over
from novitai.lifecycle.operations.runner import (
    Again,
    Announcement,
    Claimed,
    Done,
    Step,
    first_tried,
)
from novitai.lifecycle.operations.upstream_call import (
    LOOK_ANYWAY,
    MAX_ASKS,
    PATIENCE,
    STOP_DEADLINE,
    ask,
    asked_at,
    asks,
    was_accepted,
    without_effect,
)
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient


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
        if claimed.operation.phase == ReapPlan.DELETE and is_over(claimed):
            return _cleaned_up("deleted")
        if claimed.operation.phase == ReapPlan.DELETE and seems_over(claimed):
            now = self._clock.now()
            looked = await look_twice(claimed, self._client, now)
            if looked.proven:
                return _cleaned_up("deleted")
            return Again(ReapPlan.DELETE, looked.again_at, memory=looked.memory)
        if claimed.operation.phase == ReapPlan.STOP:
            return await self._stop(claimed)
        return await self._delete(claimed)

    async def _stop(self, claimed: Claimed) -> Step:
        now = self._clock.now()
        seen = read_word(claimed.instance.observed.status)
        if seen is Observation.EXITED and claimed.seen_since_acted:
            return _cleaned_up("stopped")
        if seen is Observation.MIGRATING:
            # Its data are on the way somewhere: nothing is asked for before they have arrived.
            return Again(ReapPlan.STOP, now + LOOK_ANYWAY, memory=claimed.operation.memory)
        if asked_at(claimed.operation) is not None:
            if not without_effect(claimed, now):
                return Again(ReapPlan.STOP, now + LOOK_ANYWAY, memory=claimed.operation.memory)
            late = claimed.is_late(first_tried(claimed.operation, now) + STOP_DEADLINE, now)
            if late and asks(claimed.operation) >= MAX_ASKS:
                return _cannot_be_stopped(claimed, seen, now)
        try:
            asked = await ask(claimed, self._client.stop, self._clock)
        except upstream.Refused as error:
            refused = ("STOP_REFUSED", str(error))
            if was_accepted(claimed.operation) and seen is not Observation.RUNNING:
                # It was taken before and may be under way: its time is not over yet.
                memory = {
                    **claimed.operation.memory,
                    "asked_at": self._clock.now(),
                    "asks": asks(claimed.operation) + 1,
                }
                return Again(ReapPlan.STOP, now + LOOK_ANYWAY, memory=memory, error=refused)
            return Again(ReapPlan.DELETE, now, error=refused)
        return asked.then(ReapPlan.STOP, self._clock.now() + LOOK_ANYWAY)

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
        return done.then(ReapPlan.DELETE, self._clock.now() + LOOK_ANYWAY)


def _cannot_be_stopped(claimed: Claimed, seen: Observation, now: int) -> Step:
    """Delete what was asked to stop, again and again, and did not."""
    if seen is not Observation.UNKNOWN:
        return Again(ReapPlan.DELETE, now)
    # Nothing is deleted for a word that means nothing to us. Its next word begins this anew.
    word = claimed.instance.observed.status
    return Done(
        Outcome.FAILED,
        error=("STOP_TIMEOUT", f"It was asked to stop, and Novita shows it as '{word}'"),
        announcements=(Announcement(EventType.CLEANED_UP, {"cleanup": "none"}),),
    )


def _cleaned_up(action: str) -> Done:
    return Done(
        Outcome.SUCCEEDED,
        announcements=(Announcement(EventType.CLEANED_UP, {"cleanup": action}),),
    )
