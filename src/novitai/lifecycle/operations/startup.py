# SPDX-License-Identifier: Apache-2.0
"""Rising: an instance that was asked to run is watched and probed until it serves."""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from novitai.clock import Clock
from novitai.domain.operation import Operation, Outcome
from novitai.domain.status import Observation, read_word
from novitai.jobs.port import JobEngine
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.probes import Prober
from novitai.lifecycle.operations.runner import Again, Claimed, Done
from novitai.lifecycle.operations.upstream_call import LOOK_ANYWAY, LOOK_SOON
from novitai.store.engine.database import Database
from novitai.store.queries import instances
from novitai.store.vault import Vault

WATCH: Final = "watch"
PROBE: Final = "probe"
READINESS_DEADLINE: Final = 600_000
"""Milliseconds from the purchase, or from the call, until an instance must be ready."""
_PROBE_PAUSE: Final = 1_000
_ROUND_PAUSE: Final = 4_000
"""Milliseconds after which a round of probes is looked at though its end has not woken the step."""
_ROUND_GRACE: Final = 60_000
"""Milliseconds beyond the deadline that a round which has begun gets to end. Endpoints that change
with every listing begin it again each time, and must not put the verdict off for ever."""

MIGRATION_DEADLINE: Final = 3_600_000
"""Milliseconds in which a migration must have ended."""


@dataclass(frozen=True, slots=True)
class TooLate:
    """It did not serve in time; `message` says what was missing."""

    message: str
    code: str = "READINESS_TIMEOUT"


def noting_detours(
    claimed: Claimed, now: int, *, detours: Set[Observation] = frozenset({Observation.MIGRATING})
) -> Claimed:
    """Remember since when it migrates, and when it was last seen on a detour.

    The time in which it has to serve counts anew from the end of one.
    """
    seen = read_word(claimed.instance.observed.status)
    memory = dict(claimed.operation.memory)
    if seen in detours:
        memory["detour_at"] = now
    if seen is Observation.MIGRATING:
        memory.setdefault("migrating_since", now)
    else:
        memory.pop("migrating_since", None)
    return replace(claimed, operation=replace(claimed.operation, memory=memory))


def last_detour(operation: Operation) -> int:
    """Tell when it was last seen on a detour, in Unix milliseconds; 0 if never."""
    at = operation.memory.get("detour_at")
    return at if isinstance(at, int) else 0


class Rising:
    """Looks at an instance on its way up."""

    def __init__(
        self, database: Database, prober: Prober, vault: Vault, clock: Clock, jobs: JobEngine
    ) -> None:
        self._database = database
        self._jobs = jobs
        self._prober = prober
        self._vault = vault
        self._clock = clock

    async def look(self, claimed: Claimed, *, give_up_at: int) -> Again | Done | TooLate:
        """Look once: wait for `running`, then for every port that was asked for.

        Args:
            claimed: The operation and its instance.
            give_up_at: Unix milliseconds by which it must be ready.
        """
        instance, now = claimed.instance, self._clock.now()
        memory = claimed.operation.memory
        migrating_since = memory.get("migrating_since")
        if isinstance(migrating_since, int):
            until = migrating_since + MIGRATION_DEADLINE
            if claimed.is_late(until, now):
                return TooLate("The migration did not end in an hour", "MIGRATION_TIMEOUT")
            return Again(WATCH, next_look(until, now), memory=memory)
        if read_word(instance.observed.status) is not Observation.RUNNING:
            if claimed.is_late(give_up_at, now):
                return _too_late("it was not seen running")
            return Again(WATCH, next_look(give_up_at, now), memory=memory)
        sealed = await self._database.read(
            lambda connection: instances.load_launch(connection, instance.id)
        )
        operation = claimed.operation
        silent = await self._prober.poll(
            operation.id,
            instance,
            launch_spec.unseal(self._vault, sealed),
            wake=partial(self._jobs.offer, operation.kind.job, operation.id),
        )
        now = self._clock.now()
        if silent is None:
            if claimed.is_late(give_up_at + _ROUND_GRACE, now):
                return _too_late("its ports kept the probes waiting")
            return Again(PROBE, now + _ROUND_PAUSE, changes={"ever_ran": True}, memory=memory)
        if not silent:
            return Done(Outcome.SUCCEEDED, changes={"ready_at": now, "ever_ran": True})
        if claimed.is_late(give_up_at, now):
            ports = ", ".join(
                f"{one.port.port}/{one.port.type.value} ({one.why})" for one in silent
            )
            return _too_late(f"no answer from port {ports}")
        return Again(PROBE, now + _PROBE_PAUSE, changes={"ever_ran": True}, memory=memory)


def next_look(deadline: int, now: int) -> int:
    """Tell when to look again, in Unix milliseconds: in time, and soon once it is late."""
    return now + LOOK_SOON if now >= deadline else min(deadline, now + LOOK_ANYWAY)


def _too_late(why: str) -> TooLate:
    return TooLate(f"Not ready within {READINESS_DEADLINE // 60_000} minutes: {why}")
