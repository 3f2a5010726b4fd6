# SPDX-License-Identifier: Apache-2.0
"""The verb *delete*: it wins over everything, and ends when nothing is left that could bill.

Over a creation whose attempt is still ambiguous it first finds out what was bought. It is over
when two complete listings no longer show the instance: an answer of "not found" proves nothing
right after a create (upstream.md §1.3).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from novitai.clock import Clock
from novitai.domain.operation import AttemptState, OperationKind, Outcome
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.runner import Again, Claimed, Done, Step
from novitai.lifecycle.operations.upstream_call import (
    LOOK_SOON,
    PATIENCE,
    ask,
    asked_at,
    was_accepted,
)
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient

FIND_OUT: Final = "find_out"
REMOVE: Final = "remove"
LISTINGS_WITHOUT: Final = 2
INCOMPLETE_LISTINGS_WITHOUT: Final = 3
LOOK_UPS_APART: Final = 60_000
"""Milliseconds between the two look-ups that stand in for complete listings."""
TOLD_AFTER: Final = 3
"""So many incomplete listings in a row are shown on the operations that wait for a complete one."""


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
        if is_over(claimed):
            return Done(Outcome.SUCCEEDED, changes={"terminated_at": now})
        if seems_over(claimed):
            looked = await look_twice(claimed, self._client, now)
            if looked.proven:
                return Done(Outcome.SUCCEEDED, changes={"terminated_at": now})
            return Again(
                REMOVE, looked.again_at, memory=looked.memory, error=incomplete_error(claimed)
            )
        return await self._remove(claimed, now)

    def _find_out(self, claimed: Claimed, now: int) -> Step:
        for attempt in claimed.attempts:
            if attempt.state is AttemptState.BOUGHT:
                changes = {
                    "upstream_id": attempt.upstream_id,
                    "acted_at": now,
                    "bought_at": now,
                    "confirmed_at": None,
                }
                return Again(REMOVE, now, changes=changes, memory=claimed.operation.memory)
        if any(not attempt.state.settled for attempt in claimed.attempts):
            return Again(
                FIND_OUT,
                now + LOOK_SOON,
                memory=claimed.operation.memory,
                error=incomplete_error(claimed),
            )
        return Done(Outcome.SUCCEEDED, changes={"terminated_at": now})

    async def _remove(self, claimed: Claimed, now: int) -> Step:
        operation = claimed.operation
        asked = asked_at(operation)
        removing = read_word(claimed.instance.observed.status) is Observation.REMOVING
        if asked is not None and (removing or now - asked < PATIENCE):
            return Again(
                REMOVE,
                now + LOOK_SOON,
                memory=operation.memory,
                error=incomplete_error(claimed),
            )
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


@dataclass(frozen=True, slots=True)
class Looked:
    """What a look-up of an instance that is no longer listed has shown.

    Attributes:
        proven: Whether two look-ups, a minute apart, have not found it.
        memory: What the operation remembers from now on.
        again_at: When to look again, in Unix milliseconds.
    """

    proven: bool
    memory: Mapping[str, object]
    again_at: int


def is_over(claimed: Claimed) -> bool:
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


def seems_over(claimed: Claimed) -> bool:
    """Whether it was taken, and three listings in a row whose totals do not add up lack it."""
    observed, asked = claimed.instance.observed, asked_at(claimed.operation)
    return (
        was_accepted(claimed.operation)
        and asked is not None
        and claimed.looked.incomplete_count > 0
        and observed.unlisted_count >= INCOMPLETE_LISTINGS_WITHOUT
        and (observed.unlisted_since or 0) > asked
    )


async def look_twice(claimed: Claimed, client: NovitaClient, now: int) -> Looked:
    """Ask upstream for an instance that no listing shows any more.

    Listings whose totals do not add up prove less than complete ones. So two look-ups, a minute
    apart, have to say "not found" as well.

    Raises:
        UpstreamError: it could not be asked for.
    """
    memory = dict(claimed.operation.memory)
    first = memory.get("not_found_at")
    if isinstance(first, int) and now - first < LOOK_UPS_APART:
        return Looked(proven=False, memory=memory, again_at=first + LOOK_UPS_APART)
    try:
        await client.instance(claimed.instance.upstream_id or "")
    except upstream.Gone:
        if isinstance(first, int):
            return Looked(proven=True, memory=memory, again_at=now)
        memory["not_found_at"] = now
        return Looked(proven=False, memory=memory, again_at=now + LOOK_UPS_APART)
    memory.pop("not_found_at", None)
    return Looked(proven=False, memory=memory, again_at=now + PATIENCE)


def incomplete_error(claimed: Claimed) -> tuple[str, str] | None:
    """Say that an operation waits for a complete listing, if that is what keeps it waiting."""
    count = claimed.looked.incomplete_count
    if count < TOLD_AFTER:
        return None
    return (
        "LISTING_INCOMPLETE",
        f"Novita's list of instances did not add up {count} times in a row; it proves nothing",
    )
