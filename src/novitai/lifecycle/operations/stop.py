# SPDX-License-Identifier: Apache-2.0
"""The verb *stop*: call stop, then watch until the listing shows that the instance has stopped."""

from __future__ import annotations

from typing import ClassVar, Final

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import is_gone
from novitai.lifecycle.operations.goals import LOOK_SOON, GiveUp, Reached, Wait, stopped
from novitai.lifecycle.operations.steps import Again, Announcement, Claimed, Done, Step
from novitai.lifecycle.operations.upstream_call import ask
from novitai.store.queries import instances
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

WATCH: Final = "watch"


class StopVerb:
    """Runs the steps of a stop."""

    kind = OperationKind.STOP
    first_phase: ClassVar[str] = "ask"

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Call stop, or check whether the instance has stopped."""
        if claimed.instance.upstream_id is None or is_gone(claimed.instance):
            return Done(Outcome.SUCCEEDED)
        decision = stopped(claimed, self._clock.now())
        match decision:
            case Reached():
                return Done(Outcome.SUCCEEDED)
            case Wait(at):
                return Again(WATCH, at)
            case GiveUp(code, message):
                return self._refused(claimed, code, message)
        try:
            asked = await ask(claimed, self._client.stop, self._clock)
        except upstream.Refused as error:
            return self._refused(claimed, "UPSTREAM_REFUSED", str(error))
        return asked.then(WATCH, self._clock.now() + LOOK_SOON)

    def _refused(self, claimed: Claimed, code: str, message: str) -> Done:
        """Return to the previous status, because the instance is still running."""
        error = instances.error_columns(code, message, self._clock.now())
        return Done(
            Outcome.FAILED,
            changes=claimed.progress.previous_columns() | error,
            error=(code, message),
            decided_upstream=True,
            announcements=(
                Announcement(EventType.STOP_REFUSED, {"reason": code, "message": message}),
            ),
        )
