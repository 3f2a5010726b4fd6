# SPDX-License-Identifier: Apache-2.0
"""The verb *reap*, a clean-up: an instance that failed is never silently left to bill.

Under the policy `stop`, an instance that ever ran is stopped, so that its data is kept. One that
never ran, or cannot be stopped, is deleted: nothing of the user's is on it.
"""

from __future__ import annotations

from dataclasses import replace

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.progress import Progress
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.delete import remove
from novitai.lifecycle.operations.failure_policy import Cleanup
from novitai.lifecycle.operations.goals import LOOK_ANYWAY, GiveUp, Reached, Wait, stopped
from novitai.lifecycle.operations.steps import Again, Announcement, Claimed, Done, Step
from novitai.lifecycle.operations.upstream_call import ask
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient


class CleanupVerb:
    """Takes the steps of ending what a failed instance costs."""

    kind = OperationKind.REAP

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Ask for the stop or the deletion, then watch until it has happened."""
        if claimed.instance.upstream_id is None or is_gone(claimed.instance):
            return _cleaned_up("deleted")
        if claimed.operation.phase == Cleanup.STOP:
            return await self._stop(claimed)
        step = await remove(claimed, self._client, self._clock, Cleanup.DELETE)
        return _cleaned_up("deleted") if isinstance(step, Reached) else step

    async def _stop(self, claimed: Claimed) -> Step:
        now = self._clock.now()
        match stopped(claimed, now, insist=True):
            case Reached():
                return _cleaned_up("stopped")
            case Wait(at):
                return Again(Cleanup.STOP, at)
            case GiveUp():
                return _cannot_be_stopped(claimed, now)
        try:
            asked = await ask(claimed, self._client.stop, self._clock)
        except upstream.Refused as error:
            return self._refused(claimed, str(error), now)
        return asked.then(Cleanup.STOP, self._clock.now() + LOOK_ANYWAY)

    def _refused(self, claimed: Claimed, message: str, now: int) -> Again:
        refused, call = ("STOP_REFUSED", message), claimed.call
        runs = read_word(claimed.instance.observed.status) is Observation.RUNNING
        if call.accepted and not runs:
            # An earlier call was accepted and may be under way: its time is not over yet.
            call = replace(call, asked_at=self._clock.now(), asks=call.asks + 1)
            progress = replace(claimed.progress, call=call)
            return Again(Cleanup.STOP, now + LOOK_ANYWAY, progress=progress, error=refused)
        return Again(Cleanup.DELETE, now, progress=Progress(), error=refused)


def _cannot_be_stopped(claimed: Claimed, now: int) -> Step:
    """Delete an instance that was asked to stop several times and did not."""
    word = claimed.instance.observed.status
    if read_word(word) is not Observation.UNKNOWN:
        return Again(Cleanup.DELETE, now, progress=Progress())
    # Nothing is deleted because of a status that we do not know. Its next status starts again.
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
