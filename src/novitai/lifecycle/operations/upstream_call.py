# SPDX-License-Identifier: Apache-2.0
"""Make a verb's call to Novita and record its outcome.

Novita answers "invalid state change" to calls that worked, and "not found" to calls on instances
that are not listed yet (upstream.md §1.1, §1.3). So an answer is a hint; the listing decides.
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
"""Milliseconds between the two look-ups that replace the proof by complete listings."""


@dataclass(frozen=True, slots=True)
class Asked:
    """A call was made: the instance's columns and the operation's progress to store."""

    changes: Mapping[str, object]
    progress: Progress

    @property
    def attempts(self) -> int:
        """How many times the call has been made."""
        return self.progress.call.asks

    def then(self, phase: str, at: int) -> Again:
        """Return the step result that continues in `phase` at `at`, in Unix milliseconds."""
        return Again(phase, at, self.changes, self.progress, attempts=self.attempts)


class WriteCall(Protocol):
    """A write call on one instance, such as `NovitaClient.stop`."""

    async def __call__(self, instance_id: str, *, window: SendWindow) -> None:
        """Make the call, if its window is still open."""
        ...


def intend(claimed: Claimed, now: int) -> Asked:
    """Return what to commit before a call that must not be made twice.

    Until its answer is known, the call counts as made and the listing must show its outcome.
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
        call: The call; its argument is the upstream ID.
        clock: The clock.
        intent: The result of `intend`, committed before a call that must not be made twice. Such a
            call counts as accepted only by its answer; if the answer is ambiguous, as unsure.

    Raises:
        IdentityUnconfirmed: the upstream ID is not confirmed to belong to the record.
        Refused: Novita refused the call for another reason than the state of the instance.
        UpstreamError: the call is not known to have had an effect; the step is retried later.
    """
    accepted, found = False, True
    if claimed.instance.unconfirmed:
        raise IdentityUnconfirmed
    try:
        await call(claimed.instance.upstream_id or "", window=claimed.window)
        accepted = True
    except upstream.InvalidStateChange:
        pass  # the call may have worked
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
        # The call may have waited for the limiter, so `PATIENCE` counts from its end.
        made = replace(made, asked_at=clock.now())
        if accepted:
            made = replace(made, accepted=True, unsure=False)
    # A call that did not find the instance did not act on it, so `acted_at` stays: absence from
    # listings keeps counting.
    changes = asked.changes if found or intent is not None else {}
    return Asked(changes, replace(asked.progress, call=made))


async def prove_removed(claimed: Claimed, client: NovitaClient, now: int) -> Reached | Asked:
    """Look up an instance that incomplete listings no longer show.

    It counts as removed after two look-ups, a minute apart, that answer "not found".

    Returns:
        `Reached`, or the progress to store until the next look-up, at `look_again_at`.

    Raises:
        UpstreamError: the look-up failed.
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
    """Return when the next look-up is due, in Unix milliseconds."""
    first = progress.not_found_at
    return now + PATIENCE if first is None else first + LOOK_UPS_APART
