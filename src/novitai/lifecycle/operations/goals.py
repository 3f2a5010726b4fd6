# SPDX-License-Identifier: Apache-2.0
"""The decisions of the verbs: the next action that brings an instance to a verb's goal.

Each function takes the claimed operation and the time, and returns one decision. It does no I/O.
The verbs carry out the decisions and define the effect of a failure. Novita's answers are hints
(upstream.md §1.1, §1.3): a listing that is newer than the call decides.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import dataclass, replace
from typing import Final

from novitai.domain.operation import Operation, OperationKind
from novitai.domain.status import Observation, is_gone, read_word
from novitai.lifecycle.operations.steps import Claimed

LOOK_SOON: Final = 5_000
LOOK_ANYWAY: Final = 30_000
"""Milliseconds after which a waiting operation takes its next step if nothing woke it earlier."""
PATIENCE: Final = 60_000
"""Milliseconds after which a call without an effect in the listing is repeated."""
URGENT_PATIENCE: Final = 10_000
"""The same for a stop that a limit demands."""
MAX_ASKS: Final = 3
"""The number of calls without effect after which an operation gives up."""
STOP_DEADLINE: Final = 600_000
"""Milliseconds within which an instance must have stopped."""
READINESS_DEADLINE: Final = 600_000
"""Milliseconds from the purchase or the start call within which an instance must be ready."""
MIGRATION_DEADLINE: Final = 3_600_000
"""Milliseconds within which a migration must have ended."""
LISTINGS_WITHOUT: Final = 2
"""After an accepted deletion, the complete listings in a row without the instance that prove it."""
INCOMPLETE_LISTINGS_WITHOUT: Final = 3
"""The same for listings whose totals do not match. After these, a look-up has to confirm it."""
TOLD_AFTER: Final = 3
"""Incomplete listings in a row after which operations waiting for a complete one show an error."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The goal is reached."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Make the verb's call."""


@dataclass(frozen=True, slots=True)
class ProbePorts:
    """Probe the watched ports."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Look the instance up: the listings alone do not prove that it is gone."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Wait until `at` (Unix milliseconds), or until the operation is woken."""

    at: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The goal can no longer be reached; `code` and `message` give the reason."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Novita did not carry out the call, so the instance returns to its previous status.

    If `unchanged`, its state has not changed since the call, so it is still ready if it was.
    """

    code: str
    message: str
    unchanged: bool


NOT_TAKEN: Final = TurnBack(
    "UPSTREAM_UNAVAILABLE", "Novita did not accept the call in time", unchanged=True
)


def without_effect(claimed: Claimed, now: int) -> bool:
    """Return whether `PATIENCE` has passed since the last call and the listing is newer than it."""
    at = claimed.call.asked_at
    patience = URGENT_PATIENCE if claimed.progress.urgent else PATIENCE
    return at is not None and claimed.seen_since_acted and now - at >= patience


def stopped(claimed: Claimed, now: int, *, insist: bool = False) -> Reached | Ask | Wait | GiveUp:
    """Decide the next action to stop an instance. A stop that a limit demands never gives up.

    Args:
        claimed: The operation and its instance, which is not gone.
        now: Unix milliseconds.
        insist: Whether the stop is a clean-up. Then it is called in every status but `migrating`,
            until both the deadline and the number of calls are exceeded.
    """
    seen, call = read_word(claimed.instance.observed.status), claimed.call
    if seen is Observation.EXITED and (claimed.seen_since_acted or not (insist or call.asks)):
        return Reached()
    if insist and seen is Observation.MIGRATING:
        return Wait(now + LOOK_ANYWAY)  # Novita is moving its data: wait until that has ended
    late = claimed.is_late(call.first_tried(now) + STOP_DEADLINE, now)
    urgent = claimed.progress.urgent
    if late and not insist and not urgent:
        return GiveUp("STOP_TIMEOUT", "It did not stop in time")
    if call.asked_at is None:
        return Ask()
    if not without_effect(claimed, now) or not (insist or seen is Observation.RUNNING):
        rarely = (insist or claimed.seen_since_acted) and not urgent
        return Wait(now + (LOOK_ANYWAY if rarely else LOOK_SOON))
    if call.asks < MAX_ASKS or (insist and not late) or urgent:
        return Ask()
    return GiveUp("STOP_FAILED", "It was asked to stop and kept running")


def removed(claimed: Claimed, now: int) -> Reached | Ask | LookUp | Wait:
    """Decide the next action to delete an instance. It never gives up, to end the billing."""
    if is_gone(claimed.instance) or _unlisted(claimed):
        return Reached()
    if _left_out(claimed):
        return LookUp()
    asked = claimed.call.asked_at
    removing = read_word(claimed.instance.observed.status) is Observation.REMOVING
    if asked is not None and (removing or now - asked < PATIENCE):
        return Wait(now + LOOK_SOON)
    return Ask()


def started(
    claimed: Claimed, now: int, *, kind: OperationKind, give_up_at: int
) -> Ask | ProbePorts | Wait | GiveUp | TurnBack:
    """Decide the next action to start or restart an instance and get it ready.

    Args:
        claimed: The operation and its instance, after `note_moved` and `note_detours`.
        now: Unix milliseconds.
        kind: Start or restart.
        give_up_at: Unix milliseconds by which it must be ready.
    """
    instance, call, progress = claimed.instance, claimed.call, claimed.progress
    if call.asked_at is None:
        return NOT_TAKEN if claimed.is_late(give_up_at, now) else Ask()
    if not claimed.seen_since_acted:
        return _until_seen(claimed, now, give_up_at)
    if instance.observed.error and instance.observed.error != progress.known_error:
        return GiveUp("INSTANCE_FAILED", f"Novita reports: {instance.observed.error}")
    if read_word(instance.observed.status) is Observation.EXITED:
        if not without_effect(claimed, now):
            return _until_seen(claimed, now, give_up_at)
        if call.asks < MAX_ASKS:
            return _ask_in_time(claimed, now, give_up_at)
        return TurnBack("START_FAILED", "It was asked to start and stayed stopped", unchanged=False)
    if kind is OperationKind.RESTART and not progress.moved:
        if not without_effect(claimed, now):
            # The listed status `running` may be from before the call.
            return _until_seen(claimed, now, give_up_at)
        if call.unsure:
            return _ask_in_time(claimed, now, give_up_at) if call.asks < MAX_ASKS else NOT_TAKEN
    return serving(claimed, now, give_up_at=give_up_at)


def serving(claimed: Claimed, now: int, *, give_up_at: int) -> ProbePorts | Wait | GiveUp:
    """Decide the next action to get a started instance ready: wait for `running`, then probe.

    Args:
        claimed: The operation and its instance, after `note_detours`.
        now: Unix milliseconds.
        give_up_at: Unix milliseconds by which it must be ready.
    """
    migrating_since = claimed.progress.migrating_since
    if migrating_since is not None:
        until = migrating_since + MIGRATION_DEADLINE
        if claimed.is_late(until, now):
            return GiveUp("MIGRATION_TIMEOUT", "The migration did not end in an hour")
        return Wait(next_look(until, now))
    if read_word(claimed.instance.observed.status) is Observation.RUNNING:
        return ProbePorts()
    if claimed.is_late(give_up_at, now):
        return not_ready("it was not seen running")
    return Wait(next_look(give_up_at, now))


def not_ready(why: str) -> GiveUp:
    """Return the failure of an instance that was not ready in time, for the reason `why`."""
    minutes = READINESS_DEADLINE // 60_000
    return GiveUp("READINESS_TIMEOUT", f"Not ready within {minutes} minutes: {why}")


def next_look(deadline: int, now: int) -> int:
    """Return when to check again: at the deadline, or soon if it has passed (Unix milliseconds)."""
    return now + LOOK_SOON if now >= deadline else min(deadline, now + LOOK_ANYWAY)


def note_detours(
    claimed: Claimed, now: int, *, detours: Set[Observation] = frozenset({Observation.MIGRATING})
) -> Claimed:
    """Record since when the instance has been migrating, and when it was last in a detour status.

    The readiness deadline starts again at the end of a detour.
    """
    seen, progress = read_word(claimed.instance.observed.status), claimed.progress
    since = None
    if seen is Observation.MIGRATING:
        since = now if progress.migrating_since is None else progress.migrating_since
    detour_at = now if seen in detours else progress.detour_at
    return claimed.remembering(replace(progress, detour_at=detour_at, migrating_since=since))


def note_moved(claimed: Claimed) -> Claimed:
    """Record that the instance was seen in another status than `running` since the call.

    If the outcome of the call is unknown, any change counts: a restart may take place between two
    listings and change only the ports.
    """
    runs = read_word(claimed.instance.observed.status) is Observation.RUNNING
    if not claimed.changed_since_acted or (runs and not claimed.call.unsure):
        return claimed
    return claimed.remembering(replace(claimed.progress, moved=True))


def last_detour(operation: Operation) -> int:
    """Return when the instance was last in a detour status, in Unix milliseconds; 0 if never."""
    return operation.progress.detour_at or 0


def incomplete_error(claimed: Claimed) -> tuple[str, str] | None:
    """Return the error of an operation that waits for a complete listing; None if it does not."""
    count = claimed.looked.incomplete_count
    if count < TOLD_AFTER:
        return None
    return (
        "LISTING_INCOMPLETE",
        f"Novita's list of instances was incomplete {count} times in a row",
    )


def _until_seen(claimed: Claimed, now: int, give_up_at: int) -> Wait | GiveUp | TurnBack:
    """Wait until the deadline for a listing that is newer than the call."""
    if claimed.is_late(give_up_at, now):
        if claimed.call.unsure and not claimed.progress.moved:
            return NOT_TAKEN
        return GiveUp("READINESS_TIMEOUT", "It was not seen running in time")
    pause = LOOK_ANYWAY if claimed.seen_since_acted else LOOK_SOON
    return Wait(now + LOOK_SOON if now >= give_up_at else min(give_up_at, now + pause))


def _ask_in_time(claimed: Claimed, now: int, give_up_at: int) -> Ask | TurnBack:
    return NOT_TAKEN if claimed.is_late(give_up_at, now) else Ask()


def _unlisted(claimed: Claimed) -> bool:
    """Return whether two complete listings since an accepted deletion lack the instance."""
    observed, call = claimed.instance.observed, claimed.call
    return (
        call.accepted
        and call.asked_at is not None
        and observed.missing_count >= LISTINGS_WITHOUT
        and (observed.missing_since or 0) > call.asked_at
    )


def _left_out(claimed: Claimed) -> bool:
    """Return whether three incomplete listings in a row since an accepted deletion lack it."""
    observed, call = claimed.instance.observed, claimed.call
    return (
        call.accepted
        and call.asked_at is not None
        and claimed.looked.incomplete_count > 0
        and observed.unlisted_count >= INCOMPLETE_LISTINGS_WITHOUT
        and (observed.unlisted_since or 0) > call.asked_at
    )
