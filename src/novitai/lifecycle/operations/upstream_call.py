# SPDX-License-Identifier: Apache-2.0
"""Make a verb's call to upstream, and write down what is known of its outcome.

Upstream answers "invalid state change" to calls that worked, and "not found" to calls on what is
only not listed yet (upstream.md §1.1, §1.3). So an answer is a hint, and the listing decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from novitai.clock import Clock
from novitai.domain.progress import Progress
from novitai.lifecycle.operations.goals import PATIENCE, Reached
from novitai.lifecycle.operations.steps import Again, Claimed, IdentityUnconfirmed
from novitai.upstream import errors as upstream
from novitai.upstream.client import NovitaClient
from novitai.upstream.window import SendWindow

LOOK_UPS_APART: Final = 60_000
"""Milliseconds between the two look-ups that stand in for complete listings."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The call was made: columns of the instance and progress of the operation to keep."""

    changes: Mapping[str, object]
    progress: Progress

    @property
    def attempts(self) -> int:
        """How often the call has been made."""
        return self.progress.call.asks

    def then(self, phase: str, at: int) -> Again:
        """Go on in `phase`, and look again at `at`, in Unix milliseconds."""
        return Again(phase, at, self.changes, self.progress, attempts=self.attempts)


class WriteCall(Protocol):
    """A write call on one instance, such as `NovitaClient.stop`."""

    async def __call__(self, instance_id: str, *, window: SendWindow) -> None:
        """Make the call, if its window still allows it to be sent."""
        ...


def intend(claimed: Claimed, now: int) -> Asked:
    """Make what is to be committed before a call that must not be made twice.

    Until its answer is known the call counts as made, and the listing has to show its outcome.
    """
    call = claimed.call
    made = replace(
        call,
        asked_at=now,
        asks=call.asks + 1,
        unsure=True,
        tried_at=call.first_tried(now),
        stumbles=0,
    )
    return Asked({"acted_at": now}, replace(claimed.progress, call=made))


async def ask(
    claimed: Claimed, call: WriteCall, clock: Clock, *, intent: Asked | None = None
) -> Asked:
    """Make the call once.

    Args:
        claimed: The operation and its instance.
        call: The call; it is given the upstream id.
        clock: Time.
        intent: What was committed before the call, where making it again does harm. Then only an
            answer that says so counts as accepted, and a call without a clear end as unsure.

    Raises:
        IdentityUnconfirmed: it is not known whether the upstream id is the record's own.
        Refused: upstream declined for a reason other than the state of the instance.
        UpstreamError: nothing is known to have come of it; the step is taken again later.
    """
    accepted, found = False, True
    if claimed.instance.unconfirmed:
        raise IdentityUnconfirmed
    try:
        await call(claimed.instance.upstream_id or "", window=claimed.window)
        accepted = True
    except upstream.InvalidStateChange:
        pass  # It may have worked all the same.
    except upstream.Gone:
        found = False
    except upstream.UpstreamError as error:
        if intent is None or not upstream.may_have_worked(error):
            raise
    asked = intent or intend(claimed, clock.now())
    made = asked.progress.call
    if intent is None:
        made = replace(made, accepted=accepted or made.accepted, unsure=False)
    else:
        # It may have waited for its turn: patience counts from the call itself.
        made = replace(made, asked_at=clock.now())
        if accepted:
            made = replace(made, accepted=True, unsure=False)
    # A call that did not find the instance did not act on it: its absence goes on counting.
    changes = asked.changes if found or intent is not None else {}
    return Asked(changes, replace(asked.progress, call=made))


async def prove_removed(claimed: Claimed, client: NovitaClient, now: int) -> Reached | Asked:
    """Look an instance up that incomplete listings no longer show.

    Two look-ups, a minute apart, have to say "not found" before it counts as removed.

    Returns:
        `Reached`, or what to remember until the next look, at `look_again_at`.

    Raises:
        UpstreamError: it could not be looked up.
    """
    progress, first = claimed.progress, claimed.progress.not_found_at
    if first is not None and now - first < LOOK_UPS_APART:
        return Asked({}, progress)
    try:
        await client.instance(claimed.instance.upstream_id or "")
    except upstream.Gone:
        if first is not None:
            return Reached()
        return Asked({}, replace(progress, not_found_at=now))
    return Asked({}, replace(progress, not_found_at=None))


def look_again_at(progress: Progress, now: int) -> int:
    """Tell when the next look-up is due, in Unix milliseconds."""
    first = progress.not_found_at
    return now + PATIENCE if first is None else first + LOOK_UPS_APART
