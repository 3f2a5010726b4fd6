# SPDX-License-Identifier: Apache-2.0
"""The goals of the verbs, as pure decisions: what to do next so that an instance reaches one.

Each function takes what was claimed and the time, and returns one decision. It does no I/O. The
verbs carry the decisions out and give a failure their own meaning. Upstream's answers are hints
(upstream.md §1.1, §1.3): what the listing shows decides, once it is newer than the call.
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
"""Milliseconds after which a waiting operation is looked at although nothing woke it."""
PATIENCE: Final = 60_000
"""Milliseconds after which a call that shows no effect in the listing is made again."""
MAX_ASKS: Final = 3
"""Calls that are made before an operation gives up on one that shows no effect."""
STOP_DEADLINE: Final = 600_000
"""Milliseconds in which a stop must have happened."""
READINESS_DEADLINE: Final = 600_000
"""Milliseconds from the purchase, or from the call, until an instance must be ready."""
MIGRATION_DEADLINE: Final = 3_600_000
"""Milliseconds in which a migration must have ended."""
LISTINGS_WITHOUT: Final = 2
"""Complete listings in a row that must lack an instance whose deletion was accepted."""
INCOMPLETE_LISTINGS_WITHOUT: Final = 3
"""The same for listings whose totals do not add up, which prove less."""
TOLD_AFTER: Final = 3
"""Incomplete listings in a row after which the operations that wait for a complete one say so."""


@dataclass(frozen=True, slots=True)
class Reached:
    """The goal is reached."""


@dataclass(frozen=True, slots=True)
class Ask:
    """Make the verb's call."""


@dataclass(frozen=True, slots=True)
class ProbePorts:
    """ProbePorts the ports that were asked for."""


@dataclass(frozen=True, slots=True)
class LookUp:
    """Ask upstream for the instance itself: the listings alone do not prove that it is gone."""


@dataclass(frozen=True, slots=True)
class Wait:
    """Do nothing until something wakes the operation, or until `at` (Unix milliseconds)."""

    at: int


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The goal cannot be reached any more; `code` and `message` say why."""

    code: str
    message: str


@dataclass(frozen=True, slots=True)
class TurnBack:
    """Upstream did not take the call: the instance is what it was before.

    `unchanged` says that nothing happened since the call, so what was ready still is.
    """

    code: str
    message: str
    unchanged: bool


NOT_TAKEN: Final = TurnBack(
    "UPSTREAM_UNAVAILABLE", "Novita did not take the call in time", unchanged=True
)


def without_effect(claimed: Claimed, now: int) -> bool:
    """Tell whether the last call had time to show an effect, and the listing is newer than it."""
    at = claimed.call.asked_at
    return at is not None and claimed.seen_since_acted and now - at >= PATIENCE


def stopped(claimed: Claimed, now: int, *, insist: bool = False) -> Reached | Ask | Wait | GiveUp:
    """Decide how to get an instance stopped.

    Args:
        claimed: The operation and its instance, which is not gone.
        now: Unix milliseconds.
        insist: Whether the stop is a clean-up, which nobody may refuse: it is asked for in every
            status but `migrating`, until its time is over and it was asked for often enough.
    """
    seen, call = read_word(claimed.instance.observed.status), claimed.call
    if seen is Observation.EXITED and (claimed.seen_since_acted or not (insist or call.asks)):
        return Reached()
    if insist and seen is Observation.MIGRATING:
        return Wait(now + LOOK_ANYWAY)  # its data are under way: wait until they have arrived
    late = claimed.is_late(call.first_tried(now) + STOP_DEADLINE, now)
    if late and not insist:
        return GiveUp("STOP_TIMEOUT", "It did not stop in time")
    if call.asked_at is None:
        return Ask()
    if not without_effect(claimed, now) or not (insist or seen is Observation.RUNNING):
        return Wait(now + (LOOK_ANYWAY if insist or claimed.seen_since_acted else LOOK_SOON))
    if call.asks < MAX_ASKS or (insist and not late):
        return Ask()
    return GiveUp("STOP_FAILED", "It was asked to stop and kept running")


def removed(claimed: Claimed, now: int) -> Reached | Ask | LookUp | Wait:
    """Decide how to get an instance deleted. It never gives up: what is left would bill."""
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
    """Decide how to get an instance started or restarted, and serving.

    Args:
        claimed: The operation and its instance, with what `note_progress` noted.
        now: Unix milliseconds.
        kind: Start or restart.
        give_up_at: Unix milliseconds by which it must be ready.
    """
    instance, call, progress = claimed.instance, claimed.call, claimed.progress
    if call.asked_at is None:
        return NOT_TAKEN if claimed.is_late(give_up_at, now) else Ask()
    if not claimed.seen_since_acted:
        return _until_seen(claimed, now, give_up_at)
    if instance.observed.error and instance.observed.error != progress.told_error:
        return GiveUp("INSTANCE_FAILED", f"Novita reports: {instance.observed.error}")
    if read_word(instance.observed.status) is Observation.EXITED:
        if not without_effect(claimed, now):
            return _until_seen(claimed, now, give_up_at)
        if call.asks < MAX_ASKS:
            return _ask_in_time(claimed, now, give_up_at)
        return TurnBack("START_FAILED", "It was asked to start and stayed stopped", unchanged=False)
    if kind is OperationKind.RESTART and not progress.moved:
        if not without_effect(claimed, now):
            # The `running` that is listed may still be from before the call.
            return _until_seen(claimed, now, give_up_at)
        if call.unsure:
            return _ask_in_time(claimed, now, give_up_at) if call.asks < MAX_ASKS else NOT_TAKEN
    return serving(claimed, now, give_up_at=give_up_at)


def serving(claimed: Claimed, now: int, *, give_up_at: int) -> ProbePorts | Wait | GiveUp:
    """Decide how to get an instance that was asked to run serving: running first, then probed.

    Args:
        claimed: The operation and its instance, with what `note_progress` noted.
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
    """Give up on an instance that was not ready in time; `why` says what was missing."""
    minutes = READINESS_DEADLINE // 60_000
    return GiveUp("READINESS_TIMEOUT", f"Not ready within {minutes} minutes: {why}")


def next_look(deadline: int, now: int) -> int:
    """Tell when to look again, in Unix milliseconds: at the deadline, and soon once it passed."""
    return now + LOOK_SOON if now >= deadline else min(deadline, now + LOOK_ANYWAY)


def note_detours(
    claimed: Claimed, now: int, *, detours: Set[Observation] = frozenset({Observation.MIGRATING})
) -> Claimed:
    """Note since when the instance has been migrating, and when it was last seen on a detour.

    The time in which it has to serve starts again at the end of a detour.
    """
    seen, progress = read_word(claimed.instance.observed.status), claimed.progress
    since = None
    if seen is Observation.MIGRATING:
        since = now if progress.migrating_since is None else progress.migrating_since
    detour_at = now if seen in detours else progress.detour_at
    return claimed.remembering(replace(progress, detour_at=detour_at, migrating_since=since))


def note_moved(claimed: Claimed) -> Claimed:
    """Note that the instance was seen in another status than `running` since the call.

    If the outcome of the call is unknown, any news counts: a restart may be over between two
    listings and leave nothing but other ports.
    """
    runs = read_word(claimed.instance.observed.status) is Observation.RUNNING
    if not claimed.changed_since_acted or (runs and not claimed.call.unsure):
        return claimed
    return claimed.remembering(replace(claimed.progress, moved=True))


def last_detour(operation: Operation) -> int:
    """Tell when the instance was last seen on a detour, in Unix milliseconds; 0 if never."""
    return operation.progress.detour_at or 0


def incomplete_error(claimed: Claimed) -> tuple[str, str] | None:
    """Say that an operation waits for a complete listing, if that is what it waits for."""
    count = claimed.looked.incomplete_count
    if count < TOLD_AFTER:
        return None
    return (
        "LISTING_INCOMPLETE",
        f"Novita's list of instances did not add up {count} times in a row; it proves nothing",
    )


def _until_seen(claimed: Claimed, now: int, give_up_at: int) -> Wait | GiveUp | TurnBack:
    """Wait for a listing that is newer than the call, until the time is over."""
    if claimed.is_late(give_up_at, now):
        if claimed.call.unsure and not claimed.progress.moved:
            return NOT_TAKEN
        return GiveUp("READINESS_TIMEOUT", "It was not seen running in time")
    pause = LOOK_ANYWAY if claimed.seen_since_acted else LOOK_SOON
    return Wait(now + LOOK_SOON if now >= give_up_at else min(give_up_at, now + pause))


def _ask_in_time(claimed: Claimed, now: int, give_up_at: int) -> Ask | TurnBack:
    return NOT_TAKEN if claimed.is_late(give_up_at, now) else Ask()


def _unlisted(claimed: Claimed) -> bool:
    """Tell whether a deletion was accepted and two complete listings since lack the instance."""
    observed, call = claimed.instance.observed, claimed.call
    return (
        call.accepted
        and call.asked_at is not None
        and observed.missing_count >= LISTINGS_WITHOUT
        and (observed.missing_since or 0) > call.asked_at
    )


def _left_out(claimed: Claimed) -> bool:
    """Tell whether a deletion was accepted and three incomplete listings in a row lack it."""
    observed, call = claimed.instance.observed, claimed.call
    return (
        call.accepted
        and call.asked_at is not None
        and claimed.looked.incomplete_count > 0
        and observed.unlisted_count >= INCOMPLETE_LISTINGS_WITHOUT
        and (observed.unlisted_since or 0) > call.asked_at
    )
