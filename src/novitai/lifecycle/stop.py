# SPDX-License-Identifier: Apache-2.0
"""The verb *stop*: ask, then watch until the listing says that it has stopped."""

from __future__ import annotations

from typing import Final

from novitai.clock import Clock
from novitai.domain.event import EventType
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.asking import (
    LOOK_ANYWAY,
    LOOK_SOON,
    MAX_ASKS,
    STOP_DEADLINE,
    as_before,
    ask,
    asked_at,
    asks,
    without_effect,
)
from novitai.lifecycle.error_columns import error_columns
from novitai.lifecycle.steps import Again, Announcement, Claimed, Done, Step, first_tried
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

WATCH: Final = "watch"


class StopVerb:
    """Takes the steps of a stop."""

    kind = OperationKind.STOP

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Ask for it, or look whether it has happened."""
        instance, operation, now = claimed.instance, claimed.operation, self._clock.now()
        if instance.upstream_id is None or is_gone(instance):
            return Done(Outcome.SUCCEEDED)
        seen = read_word(instance.observed.status)
        if seen is Observation.EXITED and (claimed.seen_since_acted or not asks(operation)):
            return Done(Outcome.SUCCEEDED)
        if claimed.is_late(first_tried(operation, now) + STOP_DEADLINE, now):
            return self._refused(claimed, "STOP_TIMEOUT", "It did not stop in time")
        if asked_at(operation) is None:
            return await self._ask(claimed)
        if seen is Observation.RUNNING and without_effect(claimed, now):
            if asks(operation) < MAX_ASKS:
                return await self._ask(claimed)
            return self._refused(claimed, "STOP_FAILED", "It was asked to stop and kept running")
        pause = LOOK_ANYWAY if claimed.seen_since_acted else LOOK_SOON
        return Again(WATCH, now + pause, memory=operation.memory)

    async def _ask(self, claimed: Claimed) -> Step:
        try:
            asked = await ask(claimed, self._client.stop, self._clock)
        except upstream.Refused as error:
            return self._refused(claimed, "UPSTREAM_REFUSED", str(error))
        return asked.then(WATCH, self._clock.now() + LOOK_SOON)

    def _refused(self, claimed: Claimed, code: str, message: str) -> Done:
        """Go back to running: it never stopped serving."""
        changes = as_before(claimed.operation) | error_columns(code, message, self._clock.now())
        return Done(
            Outcome.FAILED,
            changes=changes,
            error=(code, message),
            settled_upstream=True,
            announcements=(
                Announcement(EventType.STOP_REFUSED, {"reason": code, "message": message}),
            ),
        )
