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
from novitai.lifecycle.operations.failure_policy import Failing
from novitai.lifecycle.operations.runner import Again, Claimed, Done, Step
from novitai.lifecycle.operations.startup import (
    READINESS_DEADLINE,
    WATCH,
    Rising,
    TooLate,
    last_detour,
    noting_detours,
)
from novitai.lifecycle.operations.upstream_call import LOOK_ANYWAY

_DETOURS: Final = frozenset({Observation.MIGRATING, Observation.STOPPING})


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
        begun_at = claimed.operation.created_at
        claimed = noting_detours(claimed, now, detours=_DETOURS)
        if seen is Observation.STOPPING:
            late = claimed.is_late(begun_at + READINESS_DEADLINE, now)
            # It may stop yet, and nothing else can be said of it: looked at until it does.
            return Again(
                WATCH,
                now + LOOK_ANYWAY,
                memory=claimed.operation.memory,
                error=("STOP_TIMEOUT", "It does not stop") if late else None,
            )
        rising_since = max(begun_at, last_detour(claimed.operation))
        look = await self._rising.look(claimed, give_up_at=rising_since + READINESS_DEADLINE)
        if isinstance(look, TooLate):
            return self._failing.end(instance, look.code, look.message)
        return look
