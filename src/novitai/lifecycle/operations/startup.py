# SPDX-License-Identifier: Apache-2.0
"""Startup: watch and probe an instance after a create or start call until it is ready."""

from __future__ import annotations

from functools import partial
from typing import Final

from novitai.domain.operation import Outcome
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.goals import GiveUp, Wait, not_ready, serving
from novitai.lifecycle.operations.probes import Prober
from novitai.lifecycle.operations.steps import Again, Claimed, Done
from novitai.store.queries import instances

WATCH: Final = "watch"
PROBE: Final = "probe"
_PROBE_PAUSE: Final = 1_000
_ROUND_PAUSE: Final = 4_000
"""Milliseconds after which a round of probes is checked, even if its end did not wake the step."""
_ROUND_GRACE: Final = 60_000
"""Milliseconds after the deadline within which a running round may end. Without this limit,
endpoints that change with every listing would restart the round forever."""


class StartupWatcher:
    """Watches an instance from its create or start call until it is ready."""

    def __init__(self, core: Core, prober: Prober) -> None:
        self._database = core.database
        self._jobs = core.jobs
        self._prober = prober
        self._vault = core.vault
        self._clock = core.clock

    async def look(self, claimed: Claimed, *, give_up_at: int) -> Again | Done | GiveUp:
        """Check once: wait for `running`, then probe every watched port.

        Args:
            claimed: The operation and its instance; its progress is part of the result.
            give_up_at: Unix milliseconds by which the instance must be ready.
        """
        decision = serving(claimed, self._clock.now(), give_up_at=give_up_at)
        if isinstance(decision, GiveUp):
            return decision
        if isinstance(decision, Wait):
            return Again(WATCH, decision.at, progress=claimed.progress)
        return await self.probe(claimed, give_up_at=give_up_at)

    async def probe(self, claimed: Claimed, *, give_up_at: int) -> Again | Done | GiveUp:
        """Probe every watched port once, without waiting for slow ports.

        Args:
            claimed: The operation and its instance, which is running at Novita.
            give_up_at: Unix milliseconds by which the instance must be ready.
        """
        instance, operation = claimed.instance, claimed.operation
        sealed = await self._database.read(
            lambda connection: instances.load_launch(connection, instance.id)
        )
        silent = await self._prober.poll(
            operation.id,
            instance,
            launch_spec.unseal(self._vault, sealed),
            wake=partial(self._jobs.offer, operation.kind.job, operation.id),
        )
        now, ran = self._clock.now(), {"ever_ran": True}
        if silent is None:
            if claimed.is_late(give_up_at + _ROUND_GRACE, now):
                return not_ready("the probes of its ports did not finish")
            return Again(PROBE, now + _ROUND_PAUSE, changes=ran, progress=claimed.progress)
        if not silent:
            return Done(Outcome.SUCCEEDED, changes={"ready_at": now, **ran})
        if claimed.is_late(give_up_at, now):
            ports = ", ".join(
                f"{one.port.port}/{one.port.type.value} ({one.why})" for one in silent
            )
            return not_ready(f"no answer from port {ports}")
        return Again(PROBE, now + _PROBE_PAUSE, changes=ran, progress=claimed.progress)
