# SPDX-License-Identifier: Apache-2.0
"""The verb *reap*, a clean-up: stop or delete an instance that failed, so that it stops billing.

Under the policy `stop`, an instance that ever ran is stopped, which keeps its data. An instance
that never ran holds no user data, so it is deleted, as is one that cannot be stopped. A protected
instance is never deleted.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

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

_PROTECTED: Final = ("INSTANCE_PROTECTED", "It does not stop, and its protection forbids a delete")


class ReapVerb:
    """Runs the steps of a clean-up."""

    kind = OperationKind.REAP

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Call stop or delete, then watch until it has taken effect."""
        if claimed.instance.upstream_id is None or is_gone(claimed.instance):
            return _cleaned_up("deleted")
        if claimed.operation.phase == Cleanup.STOP or claimed.instance.protected:
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
            # An earlier call was accepted and may still take effect, so wait for it again.
            call = replace(call, asked_at=self._clock.now(), asks=call.asks + 1)
            progress = replace(claimed.progress, call=call)
            return Again(Cleanup.STOP, now + LOOK_ANYWAY, progress=progress, error=refused)
        if claimed.instance.protected:
            return Again(Cleanup.STOP, now + LOOK_ANYWAY, progress=Progress(), error=refused)
        return Again(Cleanup.DELETE, now, progress=Progress(), error=refused)


def _cannot_be_stopped(claimed: Claimed, now: int) -> Step:
    """Delete an instance that did not stop after several calls."""
    if claimed.instance.protected:
        # It is asked again and again: a protected instance is not deleted, and must not bill on.
        return Again(Cleanup.STOP, now + LOOK_ANYWAY, progress=Progress(), error=_PROTECTED)
    word = claimed.instance.observed.status
    if read_word(word) is not Observation.UNKNOWN:
        return Again(Cleanup.DELETE, now, progress=Progress())
    # An undocumented status is no reason to delete. The next status begins a new clean-up.
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
