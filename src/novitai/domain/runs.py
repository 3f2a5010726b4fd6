# SPDX-License-Identifier: Apache-2.0
"""The runs of an instance as listings show them: since when it bills, and since when it is stopped.

Pure. All times are Unix milliseconds of our clock. A listing shows a change some time after it took
place, so each moment lies in an interval. A run begins at the earliest moment of its interval,
because limits must not let it run longer; a stop begins at the latest one, because nothing may be
deleted earlier than a limit says. Novita's own times narrow the interval if they lie in it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from novitai.domain.status import Observation, read_word

_FREE: Final = frozenset({"", "pending", "toCreate", "creating", "toStart", "starting"})
"""Novita's statuses before the first billable moment of a run (upstream.md §7 and §8)."""
_REMOVED_SOON: Final = frozenset({"toRemove", "removing"})
"""The statuses of a deletion: what was stopped before it does not run again."""
_MIGRATING: Final = "migrating"
_ENDED: Final = frozenset({Observation.EXITED, Observation.REMOVED})
_TRUNCATED: Final = 999
"""Milliseconds that Novita's times, in whole seconds, may lie before the true moment."""


@dataclass(frozen=True, slots=True)
class Run:
    """The current run or stop of an instance.

    Attributes:
        began_at: The first moment at which the current run may have billed; None without a run.
        exited_at: The last moment at which it may have stopped; None unless it is stopped.
    """

    began_at: int | None = None
    exited_at: int | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """The state of an instance in a listing.

    Attributes:
        word: Novita's status.
        at: When the listing began.
        after: The last moment at which the record is known to have been as it was before.
        started_at: Novita's time of the last start, if it sends one.
        stopped_at: Novita's time of the last stop, if it sends one.
    """

    word: str
    at: int
    after: int
    started_at: int | None = None
    stopped_at: int | None = None


def is_billable(word: str | None) -> bool:
    """Return whether an instance with Novita's status is in a run that bills for its GPUs."""
    return (word or "") not in _FREE and read_word(word) not in _ENDED


def follow_run(before: Run, previous_word: str | None, seen: Seen) -> Run:
    """Return the run or the stop after a listing.

    Args:
        before: The run or the stop before the listing.
        previous_word: Novita's status in the listing before.
        seen: Its state in the listing.
    """
    group = read_word(seen.word)
    if group is Observation.REMOVED:
        return Run()
    if group is Observation.EXITED:
        again = _later(seen.stopped_at, before.exited_at, seen)
        if before.exited_at is not None:
            return before if again is None else Run(exited_at=again)
        stopped_at = _narrowed(seen.stopped_at, seen)
        return Run(exited_at=seen.at if stopped_at is None else stopped_at)
    if seen.word in _REMOVED_SOON and before.exited_at is not None:
        return before
    if seen.word in _FREE:
        return before if _goes_on(before, previous_word, seen) else Run()
    if before.began_at is None:
        return Run(began_at=_began_at(previous_word, seen))
    # It may have been stopped and started between two listings.
    stopped_at = _later(seen.stopped_at, before.began_at, seen)
    started_at = _later(seen.started_at, stopped_at, seen)
    return Run(began_at=before.began_at if started_at is None else started_at)


def _goes_on(before: Run, previous_word: str | None, seen: Seen) -> bool:
    """Return whether a run goes on in a free status: a migration starts the instance again.

    It has ended if Novita tells a stop in it. If Novita tells no stops, it goes on after
    `migrating` alone.
    """
    if before.began_at is None:
        return False
    if seen.stopped_at is None:
        return previous_word == _MIGRATING
    return not before.began_at <= seen.stopped_at <= seen.at


def _began_at(previous_word: str | None, seen: Seen) -> int:
    if is_billable(previous_word):
        # The run began before its beginning was recorded.
        known = seen.started_at is not None and seen.started_at <= seen.at
        return seen.started_at if known and seen.started_at else min(seen.after, seen.at)
    started_at = _narrowed(seen.started_at, seen)
    return min(seen.after, seen.at) if started_at is None else started_at


def _narrowed(told: int | None, seen: Seen) -> int | None:
    """Return Novita's time if it lies in the interval of the change."""
    if told is None or not seen.after - _TRUNCATED <= told <= seen.at:
        return None
    return max(told, seen.after)


def _later(told: int | None, known: int | None, seen: Seen) -> int | None:
    """Return Novita's time if it shows another change, after a known one."""
    if told is None or known is None or not known <= told <= seen.at:
        return None
    return told
