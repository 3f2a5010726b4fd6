# SPDX-License-Identifier: Apache-2.0
"""The verb *delete*: it replaces every other verb, and ends when no instance is left that bills.

If the outcome of a create attempt is unknown, it is settled first. After a create, an answer "not
found" proves nothing (upstream.md §1.3), so listings prove the deletion.
"""

from __future__ import annotations

from typing import ClassVar, Final

from novitai.clock import Clock
from novitai.domain.operation import AttemptState, OperationKind, Outcome
from novitai.lifecycle.operations.goals import (
    LOOK_SOON,
    PATIENCE,
    LookUp,
    Reached,
    Wait,
    incomplete_error,
    removed,
)
from novitai.lifecycle.operations.steps import Again, Claimed, Done, Step
from novitai.lifecycle.operations.upstream_call import ask, look_again_at, prove_removed
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

FIND_OUT: Final = "find_out"
REMOVE: Final = "remove"


class DeleteVerb:
    """Runs the steps of a deletion."""

    kind = OperationKind.DELETE
    first_phase: ClassVar[str] = FIND_OUT

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Settle unknown attempts, delete the instance, and wait until it is gone."""
        now = self._clock.now()
        if claimed.instance.upstream_id is None:
            return self._find_out(claimed, now)
        step = await remove(claimed, self._client, self._clock, REMOVE)
        return self._gone() if isinstance(step, Reached) else step

    def _find_out(self, claimed: Claimed, now: int) -> Step:
        for attempt in claimed.attempts:
            if attempt.state is AttemptState.BOUGHT:
                changes = {
                    "upstream_id": attempt.upstream_id,
                    "acted_at": now,
                    "bought_at": now,
                    "confirmed_at": None,
                }
                return Again(REMOVE, now, changes=changes)
        if any(not attempt.state.settled for attempt in claimed.attempts):
            return Again(FIND_OUT, now + LOOK_SOON, error=incomplete_error(claimed))
        return self._gone()

    def _gone(self) -> Done:
        return Done(Outcome.SUCCEEDED, changes={"terminated_at": self._clock.now()})


async def remove(
    claimed: Claimed, client: NovitaClient, clock: Clock, phase: str
) -> Again | Reached:
    """Run one step of the deletion of an instance.

    Args:
        claimed: The operation and its instance, which has an upstream ID.
        client: Novita's API.
        clock: The clock.
        phase: The phase of the operation after the step.

    Raises:
        UpstreamError: a call is not known to have had an effect; the step is retried later.
    """
    now = clock.now()
    match removed(claimed, now):
        case Reached():
            return Reached()
        case Wait(at):
            return Again(phase, at, error=incomplete_error(claimed))
        case LookUp():
            looked = await prove_removed(claimed, client, now)
            if isinstance(looked, Reached):
                return looked
            at = look_again_at(looked.progress, now)
            return Again(phase, at, progress=looked.progress, error=incomplete_error(claimed))
    try:
        asked = await ask(claimed, client.delete, clock)
    except upstream.Refused as error:
        # The deletion is retried until it takes effect, because the instance bills until then.
        return Again(phase, now + PATIENCE, error=("DELETE_REFUSED", str(error)))
    return asked.then(phase, clock.now() + LOOK_SOON)
