# SPDX-License-Identifier: Apache-2.0
"""The verb *follow*: track a start, stop or migration that was begun outside novitai.

An instance that was started outside is probed before it counts as running, and fails if it is not
ready in time. Any verb that a user requests replaces this one.
"""

from __future__ import annotations

from typing import ClassVar, Final

from novitai.clock import Clock
from novitai.domain.operation import OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.failure_policy import FailurePolicy
from novitai.lifecycle.operations.goals import (
    LOOK_ANYWAY,
    READINESS_DEADLINE,
    GiveUp,
    last_detour,
    note_detours,
)
from novitai.lifecycle.operations.startup import WATCH, StartupWatcher
from novitai.lifecycle.operations.steps import Again, Claimed, Done, Step

_DETOURS: Final = frozenset({Observation.MIGRATING, Observation.STOPPING})


class FollowVerb:
    """Runs the steps of following an instance."""

    kind = OperationKind.FOLLOW
    first_phase: ClassVar[str] = WATCH

    def __init__(self, startup: StartupWatcher, clock: Clock, failure: FailurePolicy) -> None:
        self._startup = startup
        self._clock = clock
        self._failure = failure

    async def step(self, claimed: Claimed) -> Step:
        """Check the progress of the instance."""
        instance, now = claimed.instance, self._clock.now()
        seen = read_word(instance.observed.status)
        if is_gone(instance) or seen in {Observation.EXITED, Observation.REMOVING}:
            return Done(Outcome.SUCCEEDED)
        begun_at = claimed.operation.created_at
        claimed = note_detours(claimed, now, detours=_DETOURS)
        if seen is Observation.STOPPING:
            late = claimed.is_late(begun_at + READINESS_DEADLINE, now)
            # It may still stop, and there is no other way to end this: check until it has stopped.
            return Again(
                WATCH,
                now + LOOK_ANYWAY,
                progress=claimed.progress,
                error=("STOP_TIMEOUT", "It does not stop") if late else None,
            )
        since = max(begun_at, last_detour(claimed.operation))
        look = await self._startup.look(claimed, give_up_at=since + READINESS_DEADLINE)
        if isinstance(look, GiveUp):
            return self._failure.end(instance, look.code, look.message)
        return look
