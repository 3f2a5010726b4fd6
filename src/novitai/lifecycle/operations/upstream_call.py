# SPDX-License-Identifier: Apache-2.0
"""Asking upstream for a change: once, and again only where listings show that nothing came of it.

Upstream answers "invalid state change" to calls that worked, and "not found" to calls on what is
only not listed yet (upstream.md §1.1, §1.3). So an answer is a hint; the listing decides.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, Protocol

from novitai.clock import Clock
from novitai.domain.instance import Instance
from novitai.domain.operation import Operation
from novitai.lifecycle.operations.runner import Again, Claimed, IdentityOpen, first_tried
from novitai.upstream import errors as upstream
from novitai.upstream.window import SendWindow

STOP_DEADLINE: Final = 600_000
"""Milliseconds in which a stop must have happened, or it is given up."""
PATIENCE: Final = 60_000
"""Milliseconds after which a call that shows no effect in the listing is made again."""
MAX_ASKS: Final = 3
LOOK_SOON: Final = 5_000
LOOK_ANYWAY: Final = 30_000
"""Milliseconds after which a waiting operation is looked at though nothing woke it."""


@dataclass(frozen=True, slots=True)
class Asked:
    """The call was made: columns of the instance and memory of the operation to keep."""

    changes: Mapping[str, object]
    memory: Mapping[str, object]
    attempts: int

    def then(self, phase: str, at: int) -> Again:
        """Go on in `phase`, and look again at `at`, in Unix milliseconds."""
        return Again(phase, at, self.changes, self.memory, attempts=self.attempts)


def remember(instance: Instance) -> dict[str, object]:
    """Keep in an operation's memory what accepting it changes, as columns of the instance."""
    error = instance.error
    return {
        "before": {
            "ready_at": instance.ready_at,
            "failed": instance.failed,
            "error_code": error.code if error else None,
            "error_message": error.message if error else None,
            "error_at": error.at if error else None,
        },
        "told": instance.observed.error,
    }


def as_before(operation: Operation) -> dict[str, object]:
    """Recall those columns; empty where nothing was kept."""
    before = operation.memory.get("before")
    return dict(before) if isinstance(before, dict) else {}


def was_accepted(operation: Operation) -> bool:
    """Whether upstream ever took the call, rather than finding nothing to do it to."""
    return operation.memory.get("accepted") is True


def asks(operation: Operation) -> int:
    """Count how often the call was made."""
    count = operation.memory.get("asks", 0)
    return count if isinstance(count, int) else 0


def asked_at(operation: Operation) -> int | None:
    """Tell when the call was last made, in Unix milliseconds; None if never."""
    at = operation.memory.get("asked_at")
    return at if isinstance(at, int) else None


def without_effect(claimed: Claimed, now: int) -> bool:
    """Whether the call was made so long ago that what is listed still must be the answer."""
    at = asked_at(claimed.operation)
    return at is not None and claimed.seen_since_acted and now - at >= PATIENCE


def is_unsure(operation: Operation) -> bool:
    """Whether nothing is known of what came of the last call."""
    return operation.memory.get("unsure") is True


def intend(claimed: Claimed, now: int) -> Asked:
    """Say what is to be committed before a call that must not be made twice.

    Until its answer is known, it counts as made, and the listing has to tell what came of it.
    """
    operation = claimed.operation
    count = asks(operation) + 1
    memory = {
        **operation.memory,
        "asked_at": now,
        "asks": count,
        "accepted": was_accepted(operation),
        "unsure": True,
        "tried_at": first_tried(operation, now),
        "stumbles": 0,
    }
    return Asked({"acted_at": now}, memory, count)


class WriteCall(Protocol):
    """A write call on one instance, such as `NovitaClient.stop`."""

    async def __call__(self, instance_id: str, *, window: SendWindow) -> None:
        """Make the call, if its window still allows it to be sent."""
        ...


async def ask(
    claimed: Claimed,
    call: WriteCall,
    clock: Clock,
    *,
    intent: Asked | None = None,
) -> Asked:
    """Make the call once.

    Args:
        claimed: The operation and its instance.
        call: Given the upstream id.
        clock: Time.
        intent: What was committed before the call, where making it again does harm. Then only an
            answer that says so counts as taken, and a call whose end says nothing as unsure.

    Raises:
        IdentityOpen: it is not established that the upstream id is the record's own.
        Refused: upstream declined for a reason other than the state of the instance.
        UpstreamError: nothing is known to have come of it; the step is taken again later.
    """
    accepted, found = False, True
    if claimed.instance.unconfirmed:
        raise IdentityOpen
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
    if intent is not None:
        said = {"accepted": True, "unsure": False} if accepted else {}
        # It may have waited for its turn: patience counts from the call itself.
        return replace(intent, memory={**intent.memory, "asked_at": clock.now(), **said})
    done = intend(claimed, clock.now())
    said = {"accepted": accepted or was_accepted(claimed.operation), "unsure": False}
    # What was not found was not acted upon: its absence from listings goes on counting.
    return replace(done, memory={**done.memory, **said}, changes=done.changes if found else {})
