# SPDX-License-Identifier: Apache-2.0
"""Decide what the limits of an instance do now, and when to look again. Pure.

All times are Unix milliseconds. `review` looks at the record, at its limits and at the last
observation, and returns the verb to begin, the events to append, and when to look again. It begins
no verb on an observation older than the moment at which the limit fell due.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

from novitai.clock import iso
from novitai.domain.event import EventType
from novitai.domain.instance import Instance
from novitai.domain.limits import (
    MINUTE,
    InheritedLimits,
    LimitAction,
    LimitMemory,
    LimitSettings,
    StopReason,
)
from novitai.domain.operation import OperationKind
from novitai.domain.spending import Spending
from novitai.domain.status import Observation, read_word

LEAD_UNKNOWN: Final = 60_000
"""The stop lead where no stop has been seen."""
LEAD_SAMPLES: Final = 20
LONGEST_LEAD: Final = 300_000
"""The longest stop lead, so that stops that waited for an outage do not shorten every run."""
NEAR_SHARE: Final = 0.8
"""The share of `maxSpend` or `maxRunMinutes` after which the limit is near."""
NEAR_BEFORE: Final = 10 * MINUTE
"""How long before `stopAt`, and before an auto-stop, the limit is near."""
UNENFORCED_AFTER: Final = 30_000
"""How long a due limit may be without effect before it counts as unenforced."""
UNENFORCED_AGAIN: Final = 15 * MINUTE
"""The time between two events about the same limit that cannot be enforced."""
LOOK_WHILE_DUE: Final = 5_000
"""The time between two reviews of a limit that is due."""
BEGIN_AGAIN: Final = 30_000
"""The time after which a verb that Novita refused is begun again."""
PURGE_NOTICE: Final = 24 * 60 * MINUTE
"""How long before the disk of a stopped instance is purged its user is told."""


_PASSING: Final = frozenset({"accountHeld", "notObserved", "cannotBeStopped"})
"""Obstacles that say nothing of whether the limit still asks for its verb."""


@dataclass(frozen=True, slots=True)
class Situation:
    """The input of a review.

    Attributes:
        now: The time.
        limits: The limits of the instance, if it has any.
        inherited: Its limits from the key that created it, if it has any.
        memory: The effects of its limits so far.
        ended: Whether the record has ended.
        protected: Whether the instance must not be deleted.
        ever_ran: Whether anything of its user may be on its disk.
        word: Novita's last status.
        seen_at: When that was last true, by a listing or a look-up.
        began_at: The first moment at which its run may have billed; None while none is known.
        exited_at: Since when it has been stopped; None unless it is.
        purge_at: When Novita purges the disk of the stopped instance, if known.
        running: The verb that is running, if any.
        asked_at: When the first call of that verb was made; None if none was.
        blocked: Whether the account is on hold.
        lead: The stop lead in milliseconds.
        idle_at: When auto-stop ends its run, if that is known.
        idle_action: Whether auto-stop stops or deletes it.
        spending: The costs of the instance; None if it has no limit of them.
    """

    now: int
    limits: LimitSettings | None = None
    inherited: InheritedLimits | None = None
    memory: LimitMemory = field(default_factory=LimitMemory)
    ended: bool = False
    protected: bool = False
    ever_ran: bool = True
    word: str | None = None
    seen_at: int = 0
    began_at: int | None = None
    exited_at: int | None = None
    purge_at: int | None = None
    running: OperationKind | None = None
    asked_at: int | None = None
    blocked: bool = False
    lead: int = LEAD_UNKNOWN
    idle_at: int | None = None
    idle_action: LimitAction = LimitAction.STOP
    spending: Spending | None = None

    @property
    def starts(self) -> bool:
        """Whether a verb that a person requested is bringing the instance up."""
        return self.running in _BRINGS_UP

    @property
    def ends(self) -> bool:
        """Whether a verb is ending the run."""
        return self.running is not None and self.running.brings_down

    @property
    def key_ends_at(self) -> int | None:
        """When the run must have ended by the limits of the key that created the instance."""
        if self.inherited is None or self.began_at is None:
            return None
        return self.inherited.ends_at(self.began_at, self.memory.key_extension_minutes)


@dataclass(frozen=True, slots=True)
class Deadline:
    """The limit that takes effect next.

    Attributes:
        at: When the instance must have stopped, or is deleted.
        acts_at: When the verb is begun, so that this is reached.
        reason: The limit.
        action: Whether the instance is stopped or deleted.
    """

    at: int
    acts_at: int
    reason: StopReason
    action: LimitAction


@dataclass(frozen=True, slots=True)
class LimitEvent:
    """An event to append."""

    type: EventType
    data: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Review:
    """The result of a review.

    Attributes:
        memory: The memory to store.
        deadline: The limit that takes effect next, if any.
        fired_at: When that limit fell due; None if it has not, or if no listing can matter to it.
        unenforced: Whether it is due and without effect.
        begin: The verb to begin now, if any.
        hasten: Whether the running stop is to be repeated as often as one of a limit.
        events: The events to append.
        due_at: When to review the instance again; None if only a change can matter.
    """

    memory: LimitMemory
    deadline: Deadline | None = None
    fired_at: int | None = None
    unenforced: bool = False
    begin: OperationKind | None = None
    hasten: bool = False
    events: tuple[LimitEvent, ...] = ()
    due_at: int | None = None


_BRINGS_UP: Final = frozenset({OperationKind.CREATE, OperationKind.START, OperationKind.RESTART})
_ORDER: Final = tuple(StopReason)


def stop_lead(durations: Sequence[int]) -> int:
    """Return how long before a limit its stop is begun: the 95th percentile of the last stops.

    Args:
        durations: How long the last stops took, in milliseconds, at most `LEAD_SAMPLES`.
    """
    if not durations:
        return LEAD_UNKNOWN
    ranked = sorted(durations)
    return min(LONGEST_LEAD, ranked[math.ceil(0.95 * len(ranked)) - 1])


def last_shown(instance: Instance, whole_at: int) -> int:
    """Return when Novita last showed an instance as it is recorded; 0 if never.

    A listing whose pages were all read shows an unchanged instance, unless the instance counts as
    missing or the listing began before our last call.

    Args:
        instance: The instance.
        whole_at: When the last such listing began, in Unix milliseconds; 0 if there was none.
    """
    seen = instance.observed
    if instance.upstream_id is None:
        return whole_at
    silent = seen.at is None or seen.missing_count or seen.unlisted_count
    if silent or whole_at <= (instance.acted_at or 0):
        return seen.at or 0
    return max(seen.at or 0, whole_at)


def next_deadline(situation: Situation) -> Deadline | None:
    """Return the limit that takes effect first; at the same moment a stop comes before a delete.

    The stop is begun earlier by the stop lead, but by at most half of the time that the limit
    grants: a limit of one minute would otherwise stop the instance at once.
    """
    memory = situation.memory
    limits = situation.limits or LimitSettings()
    if situation.ended:
        return None
    found: list[Deadline] = []
    if situation.idle_at is not None:
        at, action = situation.idle_at, situation.idle_action
        found.append(Deadline(at, at, StopReason.AUTO_STOP, action))

    def add(reason: StopReason, at: int, since: int, action: LimitAction) -> None:
        lead = min(situation.lead, max(0, at - since) // 2)
        found.append(Deadline(at, at - lead, reason, action))

    began_at = situation.began_at
    spent_at = _spent_at(situation, limits.max_spend)
    if began_at is not None and spent_at is not None:
        add(StopReason.MAX_SPEND, spent_at, began_at, limits.on_limit)
    if began_at is not None and limits.max_run_minutes is not None:
        minutes = limits.max_run_minutes + memory.extension_minutes
        at = began_at + minutes * MINUTE
        add(StopReason.MAX_RUN_MINUTES, at, began_at, limits.on_limit)
    if limits.stop_at is not None and (began_at is not None or situation.starts):
        since = max(began_at or 0, memory.set_at)
        add(StopReason.STOP_AT, limits.stop_at, since, limits.on_limit)
    key_ends_at = situation.key_ends_at
    if began_at is not None and key_ends_at is not None:
        add(StopReason.KEY_LIMIT, key_ends_at, began_at, LimitAction.STOP)
    spent_at = memory.budget_spent_at
    if spent_at is not None and (began_at is not None or situation.starts):
        found.append(Deadline(spent_at, spent_at, StopReason.BUDGET, LimitAction.STOP))
    minutes_stopped = limits.delete_after_stopped_minutes
    if situation.exited_at is not None and minutes_stopped is not None and not situation.starts:
        # A limit that is set on a stopped instance must not delete it at once.
        at = max(situation.exited_at, memory.delete_set_at) + minutes_stopped * MINUTE
        found.append(Deadline(at, at, StopReason.DELETE_AFTER_STOPPED, LimitAction.DELETE))
    return min(found, key=_rank, default=None)


def _spent_at(situation: Situation, units: int | None) -> int | None:
    """Return when an amount in 1/100000 USD is spent; None if it is not, or has no price."""
    if units is None or situation.spending is None:
        return None
    return situation.spending.reaches(units)


def _rank(deadline: Deadline) -> tuple[int, bool, int]:
    return deadline.at, deadline.action is LimitAction.DELETE, _ORDER.index(deadline.reason)


def review(situation: Situation) -> Review:
    """Decide what the limits of an instance do now, and when to look again."""
    now, memory = situation.now, situation.memory
    if situation.ended:
        return Review(memory)
    deadline = next_deadline(situation)
    events: list[LimitEvent] = []
    looks: list[int] = []
    memory = _told_of_purge(situation, memory, events, looks)
    memory = _told_near(situation, memory, deadline, events, looks)
    if deadline is None or now < deadline.acts_at:
        priceless = _is_priceless(situation)
        if priceless and _may_tell_again(memory.unenforced_told_at, now):
            memory = replace(memory, unenforced_told_at=now)
            told = {"reason": StopReason.MAX_SPEND.value, "cause": "priceUnknown"}
            events.append(LimitEvent(EventType.LIMIT_UNENFORCED, told))
        if priceless:
            looks.append((memory.unenforced_told_at or now) + UNENFORCED_AGAIN)
        else:
            memory = replace(memory, unenforced_told_at=None)
        if memory.reached is StopReason.AUTO_STOP and situation.began_at is not None:
            # Its stop had no effect, and the instance is in use again.
            memory = replace(memory, reached=None, begun_at=None)
        if deadline is not None:
            looks.append(deadline.acts_at)
        return Review(
            memory,
            deadline,
            unenforced=priceless,
            events=tuple(events),
            due_at=min(looks, default=None),
        )
    return _enforce(situation, memory, deadline, events)


def withdraws(situation: Situation, verb: OperationKind) -> bool:
    """Whether the limits no longer ask for a verb that they have begun and that has no effect yet.

    Args:
        situation: The situation without that verb.
        verb: The verb.
    """
    deadline = next_deadline(situation)
    if deadline is None or situation.now < deadline.acts_at:
        return True
    fired_at = max(deadline.acts_at, situation.memory.set_at)
    wanted, obstacle = _verb(situation, deadline, fired_at)
    if obstacle in _PASSING and deadline.reason is not StopReason.DELETE_AFTER_STOPPED:
        return False
    return wanted is not verb


def _is_priceless(situation: Situation) -> bool:
    """Whether the instance runs under a limit of its cost, and its price is unknown."""
    limits, spending = situation.limits, situation.spending
    limited = limits is not None and limits.max_spend is not None
    unknown = spending is not None and spending.unknown
    return limited and unknown and situation.began_at is not None


def _enforce(
    situation: Situation, memory: LimitMemory, deadline: Deadline, events: list[LimitEvent]
) -> Review:
    """Decide on a limit that is due."""
    now = situation.now
    fired_at = max(deadline.acts_at, memory.set_at)
    verb, obstacle = _verb(situation, deadline, fired_at)
    told = {"reason": deadline.reason.value, "at": iso(deadline.at)}
    idle = deadline.reason is StopReason.AUTO_STOP
    reached = EventType.AUTOSTOP_FIRED if idle else EventType.LIMIT_REACHED
    failed = EventType.AUTOSTOP_FAILED if idle else EventType.LIMIT_UNENFORCED
    if verb is not None and memory.reached is deadline.reason:
        obstacle = "refused"  # the verb that was begun before has ended without effect
        begun_at = memory.begun_at
        if begun_at is not None and begun_at <= now < begun_at + BEGIN_AGAIN:
            verb = None
    elif verb is not None:
        if deadline.action is LimitAction.DELETE and verb is OperationKind.STOP:
            events.append(LimitEvent(failed, {**told, "cause": "protected"}))
        events.append(LimitEvent(reached, {**told, "action": verb.value}))
    if verb is not None:
        memory = replace(memory, reached=deadline.reason, begun_at=now)
    told_at = memory.unenforced_told_at
    asked_at = situation.asked_at
    works = situation.ends and asked_at is not None
    works = works and now - (asked_at or 0) < LEAD_UNKNOWN
    unenforced = now - fired_at >= UNENFORCED_AFTER and not works
    if works:
        told_at = None
    elif unenforced and obstacle is not None and _may_tell_again(told_at, now):
        told_at = now
        events.append(LimitEvent(failed, {**told, "cause": obstacle}))
    # No listing changes a protection, so nothing needs to be watched closely.
    lasts = obstacle == "protected"
    return Review(
        replace(memory, unenforced_told_at=told_at),
        deadline,
        None if lasts else fired_at,
        unenforced,
        begin=verb,
        hasten=verb is None and situation.running is OperationKind.STOP,
        events=tuple(events),
        due_at=now + (MINUTE if lasts else LOOK_WHILE_DUE),
    )


def _may_tell_again(told_at: int | None, now: int) -> bool:
    """Whether 15 minutes have passed since the last event; a time in the future does not count."""
    return told_at is None or not told_at <= now < told_at + UNENFORCED_AGAIN


def _verb(
    situation: Situation, deadline: Deadline, fired_at: int
) -> tuple[OperationKind | None, str | None]:
    """Return the verb that enforces a due limit now, and what prevents its effect, if anything."""
    deletes = deadline.action is LimitAction.DELETE and not situation.protected
    stops = situation.running is OperationKind.STOP
    if situation.ends and not (deletes and stops):
        return None, "notStopped"
    if situation.blocked:
        return None, "accountHeld"
    if situation.seen_at <= fired_at:
        return None, "notObserved"
    seen = read_word(situation.word)
    exited = seen is Observation.EXITED
    if deadline.reason is StopReason.DELETE_AFTER_STOPPED:
        if situation.protected:
            return None, "protected"
        return (OperationKind.DELETE, None) if exited else (None, "notObserved")
    if exited:
        # A start whose call was not made is cancelled; after its call the instance may come up.
        cancels = situation.starts and situation.asked_at is None
        return (OperationKind.STOP, None) if cancels else (None, "cannotBeStopped")
    if situation.word and seen is Observation.UNKNOWN:
        return None, "cannotBeStopped"
    if deletes:
        return OperationKind.DELETE, None
    if seen is Observation.RUNNING:
        return OperationKind.STOP, None
    disposable = not situation.ever_ran and deadline.reason is not StopReason.BUDGET
    if disposable and seen is not Observation.STOPPING:
        # Novita takes no stop before `running`, and nothing of the user's is on it.
        return OperationKind.DELETE, None
    return None, "cannotBeStopped"


def _told_near(
    situation: Situation,
    memory: LimitMemory,
    deadline: Deadline | None,
    events: list[LimitEvent],
    looks: list[int],
) -> LimitMemory:
    """Append `instance.limit_near`, once for each limit in a run."""
    if situation.ends or deadline is None or situation.now >= deadline.acts_at:
        return memory
    for reason, at, near_at in _near(situation):
        if reason.value in memory.near:
            continue
        if situation.now < near_at:
            looks.append(near_at)
            continue
        memory = replace(memory, near=(*memory.near, reason.value))
        events.append(LimitEvent(EventType.LIMIT_NEAR, {"reason": reason.value, "at": iso(at)}))
    return memory


def _near(situation: Situation) -> list[tuple[StopReason, int, int]]:
    """Return the limits that end this run: each with its moment, and from when on it is near."""
    limits, began_at = situation.limits or LimitSettings(), situation.began_at
    if began_at is None:
        return []
    found = []
    idle_at = situation.idle_at
    if idle_at is not None and idle_at - NEAR_BEFORE > began_at:
        found.append((StopReason.AUTO_STOP, idle_at, idle_at - NEAR_BEFORE))
    spent_at = _spent_at(situation, limits.max_spend)
    if limits.max_spend is not None and spent_at is not None:
        near_at = _spent_at(situation, int(limits.max_spend * NEAR_SHARE))
        found.append((StopReason.MAX_SPEND, spent_at, near_at or 0))
    if limits.max_run_minutes is not None:
        length = (limits.max_run_minutes + situation.memory.extension_minutes) * MINUTE
        near_at = began_at + int(length * NEAR_SHARE)
        found.append((StopReason.MAX_RUN_MINUTES, began_at + length, near_at))
    key_ends_at = situation.key_ends_at
    if key_ends_at is not None:
        near_at = began_at + int((key_ends_at - began_at) * NEAR_SHARE)
        found.append((StopReason.KEY_LIMIT, key_ends_at, near_at))
    if limits.stop_at is not None:
        found.append((StopReason.STOP_AT, limits.stop_at, limits.stop_at - NEAR_BEFORE))
    return found


def _told_of_purge(
    situation: Situation, memory: LimitMemory, events: list[LimitEvent], looks: list[int]
) -> LimitMemory:
    """Append `instance.data_purge_scheduled`, once for each moment of a purge."""
    purge_at = situation.purge_at
    exited = read_word(situation.word) is Observation.EXITED
    if purge_at is None or not exited or memory.purge_told == purge_at:
        return memory
    told_from = purge_at - PURGE_NOTICE
    if situation.now < told_from:
        looks.append(told_from)
        return memory
    if situation.seen_at <= told_from or situation.starts:
        looks.append(situation.now + LOOK_WHILE_DUE)
        return memory
    events.append(LimitEvent(EventType.DATA_PURGE_SCHEDULED, {"purgeAt": iso(purge_at)}))
    return replace(memory, purge_told=purge_at)
