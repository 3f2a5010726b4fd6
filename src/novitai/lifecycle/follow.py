# SPDX-License-Identifier: Apache-2.0
"""The verb *follow*: what was begun behind our back is seen through, so that nothing hangs.

An instance that somebody else started is probed before it counts as running, and one that never
arrives has failed. Whatever a user asks for takes its place.
"""

from __future__ import annotations

from typing import Final

from novitai.clock import Clock
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.asking import LOOK_ANYWAY
from novitai.lifecycle.failing import Failing
from novitai.lifecycle.rising import READINESS_DEADLINE, WATCH, Rising, TooLate
from novitai.lifecycle.steps import Again, Claimed, Done, Step

MIGRATION_DEADLINE: Final = 3_600_000
"""Milliseconds in which a migration must have ended."""


class FollowVerb:
    """Takes the steps of following."""

    kind = OperationKind.FOLLOW

    def __init__(self, rising: Rising, clock: Clock, failing: Failing) -> None:
        self._rising = rising
        self._clock = clock
        self._failing = failing

    async def step(self, claimed: Claimed) -> Step:
        """Look how far it is."""
        instance, now = claimed.instance, self._clock.now()
        seen = read_word(instance.observed.status)
        if is_gone(instance) or seen in {Observation.EXITED, Observation.REMOVING}:
            return Done(Outcome.SUCCEEDED)
        began_at = claimed.operation.created_at
        if seen is Observation.MIGRATING:
            return self._migrating(claimed, began_at + MIGRATION_DEADLINE, now)
        if seen is Observation.STOPPING:
            if now < began_at + READINESS_DEADLINE:
                return Again(WATCH, now + LOOK_ANYWAY)
            # It may stop yet, and nothing else can be said of it: looked at until it does.
            return Again(WATCH, now + LOOK_ANYWAY, error=("STOP_TIMEOUT", "It does not stop"))
        look = await self._rising.look(claimed, give_up_at=began_at + READINESS_DEADLINE)
        if isinstance(look, TooLate):
            return self._failing.end(claimed.instance, "READINESS_TIMEOUT", look.message)
        return look

    def _migrating(self, claimed: Claimed, give_up_at: int, now: int) -> Step:
        if now < give_up_at:
            return Again(WATCH, min(give_up_at, now + LOOK_ANYWAY))
        return self._failing.end(
            claimed.instance, "MIGRATION_TIMEOUT", "The migration did not end in an hour"
        )
