# SPDX-License-Identifier: Apache-2.0
"""The verb *delete*: it wins over everything, and ends when nothing is left that could bill.

Over a creation whose attempt is still ambiguous it first finds out what was bought. It is over
when two complete listings no longer show the instance: an answer of "not found" proves nothing
right after a create (docs/upstream.md §1.3).
"""

from __future__ import annotations

from typing import Final

from novitai.clock import Clock
from novitai.domain.operation import AttemptState, OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.asking import LOOK_SOON, PATIENCE, ask, asked_at, was_accepted
from novitai.lifecycle.steps import Again, Claimed, Done, Step
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

FIND_OUT: Final = "find_out"
REMOVE: Final = "remove"
LISTINGS_WITHOUT: Final = 2


class DeleteVerb:
    """Takes the steps of a deletion."""

    kind = OperationKind.DELETE

    def __init__(self, client: NovitaClient, clock: Clock) -> None:
        self._client = client
        self._clock = clock

    async def step(self, claimed: Claimed) -> Step:
        """Find out what there is to delete, delete it, and wait until it is gone."""
        now = self._clock.now()
        if claimed.instance.upstream_id is None:
            return self._find_out(claimed, now)
        if self._is_over(claimed):
            return Done(Outcome.SUCCEEDED, changes={"terminated_at": now})
        return await self._remove(claimed, now)

    def _find_out(self, claimed: Claimed, now: int) -> Step:
        for attempt in claimed.attempts:
            if attempt.state is AttemptState.BOUGHT:
                changes = {"upstream_id": attempt.upstream_id, "acted_at": now, "bought_at": now}
                return Again(REMOVE, now, changes=changes)
        if any(not attempt.state.settled for attempt in claimed.attempts):
            return Again(FIND_OUT, now + LOOK_SOON)
        return Done(Outcome.SUCCEEDED, changes={"terminated_at": now})

    async def _remove(self, claimed: Claimed, now: int) -> Step:
        operation = claimed.operation
        asked = asked_at(operation)
        removing = read_word(claimed.instance.observed.status) is Observation.REMOVING
        if asked is not None and (removing or now - asked < PATIENCE):
            return Again(REMOVE, now + LOOK_SOON, memory=operation.memory)
        try:
            done = await ask(claimed, self._client.delete, self._clock)
        except upstream.Refused as error:
            # Nothing may be left to bill: it is asked for until it is done.
            return Again(
                REMOVE,
                now + PATIENCE,
                memory=operation.memory,
                error=("DELETE_REFUSED", str(error)),
            )
        return done.then(REMOVE, now + LOOK_SOON)

    @staticmethod
    def _is_over(claimed: Claimed) -> bool:
        """Whether nothing is left: proven by sync, or taken and twice not listed since."""
        if is_gone(claimed.instance):
            return True
        observed, asked = claimed.instance.observed, asked_at(claimed.operation)
        return (
            was_accepted(claimed.operation)
            and asked is not None
            and observed.missing_count >= LISTINGS_WITHOUT
            and (observed.missing_since or 0) > asked
        )
