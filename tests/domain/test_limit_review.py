# SPDX-License-Identifier: Apache-2.0
"""Tables of the decisions about limits."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from novitai.domain.event import EventType
from novitai.domain.instance import Observed
from novitai.domain.limit_review import (
    BEGIN_AGAIN,
    LEAD_UNKNOWN,
    LONGEST_LEAD,
    PURGE_NOTICE,
    UNENFORCED_AFTER,
    UNENFORCED_AGAIN,
    Deadline,
    Situation,
    last_shown,
    next_deadline,
    review,
    stop_lead,
)
from novitai.domain.limits import MINUTE, LimitAction, LimitMemory, LimitSettings, StopReason
from novitai.domain.operation import OperationKind
from novitai.domain.spending import Spending
from novitai.testing import an_instance

NOW = 1_760_000_000_000
HOUR = 60 * MINUTE
STOP, DELETE = OperationKind.STOP, OperationKind.DELETE
REACHED, UNENFORCED = EventType.LIMIT_REACHED, EventType.LIMIT_UNENFORCED
HOURLY = LimitSettings(max_run_minutes=60)


def overrun(**more: Any) -> Situation:
    """Return the situation of an instance that has run for two hours, one more than it may."""
    given: dict[str, Any] = {
        "now": NOW,
        "limits": HOURLY,
        "word": "running",
        "seen_at": NOW - 1,
        "began_at": NOW - 2 * HOUR,
    }
    return Situation(**{**given, **more})


def stopped(**more: Any) -> Situation:
    """Return the situation of an instance stopped for two hours, one more than it may."""
    given: dict[str, Any] = {
        "now": NOW,
        "limits": LimitSettings(delete_after_stopped_minutes=60),
        "word": "exited",
        "seen_at": NOW - 1,
        "exited_at": NOW - 2 * HOUR,
    }
    return Situation(**{**given, **more})


def types(situation: Situation) -> list[EventType]:
    """List the types of the events of a review."""
    return [event.type for event in review(situation).events]


@pytest.mark.parametrize(
    ("durations", "lead"),
    [
        ([], LEAD_UNKNOWN),
        ([5_000], 5_000),
        ([1_000 * one for one in range(1, 21)], 19_000),
        ([10_000] * 19 + [900_000], 10_000),
        ([900_000] * 20, LONGEST_LEAD),
    ],
)
def test_the_stop_lead(durations: list[int], lead: int) -> None:
    """It is the 95th percentile of the last stops, 60 s without any, and bounded."""
    assert stop_lead(durations) == lead


@pytest.mark.parametrize(
    ("limits", "reason", "at"),
    [
        (LimitSettings(max_run_minutes=30), StopReason.MAX_RUN_MINUTES, NOW + 30 * MINUTE),
        (LimitSettings(stop_at=NOW + HOUR), StopReason.STOP_AT, NOW + HOUR),
        (
            LimitSettings(max_run_minutes=30, stop_at=NOW + HOUR),
            StopReason.MAX_RUN_MINUTES,
            NOW + HOUR / 2,
        ),
        (LimitSettings(max_run_minutes=90, stop_at=NOW + HOUR), StopReason.STOP_AT, NOW + HOUR),
        (
            LimitSettings(max_run_minutes=60, stop_at=NOW + HOUR),
            StopReason.MAX_RUN_MINUTES,
            NOW + HOUR,
        ),
        (LimitSettings(delete_after_stopped_minutes=5), None, None),
        (None, None, None),
    ],
)
def test_the_earliest_limit_wins(
    limits: LimitSettings | None, reason: StopReason | None, at: float | None
) -> None:
    """Of a run that has just begun."""
    found = next_deadline(Situation(now=NOW, limits=limits, began_at=NOW, word="running"))
    assert (found and found.reason) == reason
    assert (found and found.at) == at


def test_at_the_same_moment_a_stop_comes_before_a_delete() -> None:
    """A run that ends with a delete, and a stopped instance that is deleted: the order is fixed."""
    limits = LimitSettings(max_run_minutes=60, delete_after_stopped_minutes=60)
    both = overrun(limits=limits, exited_at=NOW - 2 * HOUR)
    assert review(both).begin is STOP


@pytest.mark.parametrize(
    ("limits", "acts_at"),
    [
        (LimitSettings(max_run_minutes=60), NOW + HOUR - LEAD_UNKNOWN),
        (LimitSettings(max_run_minutes=1), NOW + MINUTE // 2),
        (LimitSettings(stop_at=NOW + HOUR), NOW + HOUR - LEAD_UNKNOWN),
        (LimitSettings(stop_at=NOW + 20_000), NOW + 10_000),
        (LimitSettings(stop_at=NOW - 20_000), NOW - 20_000),
    ],
)
def test_a_stop_begins_early_enough(limits: LimitSettings, acts_at: int) -> None:
    """By the stop lead, and by half of what a short limit grants."""
    found = next_deadline(Situation(now=NOW, limits=limits, began_at=NOW, word="running"))
    assert found is not None
    assert found.acts_at == acts_at
    assert review(Situation(now=NOW, limits=limits, began_at=NOW)).due_at is not None


def test_nothing_happens_before_a_limit_is_due() -> None:
    """The next review is when it is near, then when its stop begins."""
    early = overrun(began_at=NOW, now=NOW)
    assert review(early).due_at == NOW + 48 * MINUTE
    assert not review(early).events
    near = replace(early, now=NOW + 48 * MINUTE)
    told = review(near)
    assert [one.type for one in told.events] == [EventType.LIMIT_NEAR]
    assert told.due_at == NOW + HOUR - LEAD_UNKNOWN
    assert told.begin is None
    assert not types(replace(near, memory=told.memory))


@pytest.mark.parametrize("word", ["running", "pulling", "restarting", "migrating", "exited", ""])
@pytest.mark.parametrize("action", list(LimitAction))
def test_nothing_is_done_on_old_news(word: str, action: LimitAction) -> None:
    """An observation that is not newer than the due moment begins no verb in any status."""
    limits = replace(HOURLY, on_limit=action)
    old = overrun(limits=limits, word=word, seen_at=NOW - HOUR - LEAD_UNKNOWN)
    assert review(old).begin is None
    assert types(old) == [UNENFORCED]
    assert review(replace(old, ever_ran=False)).begin is None


@pytest.mark.parametrize(
    ("word", "ever_ran", "action", "verb"),
    [
        ("running", True, LimitAction.STOP, STOP),
        ("running", False, LimitAction.STOP, STOP),
        ("running", True, LimitAction.DELETE, DELETE),
        ("pulling", False, LimitAction.STOP, DELETE),
        ("pulling", True, LimitAction.STOP, None),
        ("restarting", True, LimitAction.STOP, None),
        ("migrating", True, LimitAction.STOP, None),
        ("migrating", False, LimitAction.STOP, DELETE),
        ("migrating", True, LimitAction.DELETE, DELETE),
        ("freezing", True, LimitAction.STOP, None),
        ("freezing", False, LimitAction.STOP, None),
        ("freezing", True, LimitAction.DELETE, None),
        ("stopping", False, LimitAction.STOP, None),
    ],
)
def test_the_verb_by_what_novita_shows(
    word: str, ever_ran: bool, action: LimitAction, verb: OperationKind | None
) -> None:
    """Only a running instance is stopped; one that never ran and takes no stop is deleted."""
    limits = replace(HOURLY, on_limit=action)
    decided = review(overrun(limits=limits, word=word, ever_ran=ever_ran))
    assert decided.begin is verb
    assert ([one.type for one in decided.events] == [REACHED]) is (verb is not None)


@pytest.mark.parametrize("kind", [OperationKind.CREATE, OperationKind.START, OperationKind.RESTART])
def test_a_stop_replaces_what_brings_the_instance_up(kind: OperationKind) -> None:
    """The wait for readiness included."""
    assert review(overrun(running=kind, asked_at=NOW - 1)).begin is STOP


@pytest.mark.parametrize(
    ("asked_at", "verb"), [(None, STOP), (NOW - 1000, None)], ids=["not sent", "sent"]
)
def test_a_start_that_was_sent_is_awaited(asked_at: int | None, verb: OperationKind | None) -> None:
    """Its instance may still come up; then it is stopped."""
    limits = LimitSettings(stop_at=NOW - 1)
    starts = Situation(
        now=NOW,
        limits=limits,
        word="exited",
        seen_at=NOW,
        exited_at=NOW - HOUR,
        running=OperationKind.START,
        asked_at=asked_at,
    )
    assert review(starts).begin is verb


def test_a_create_that_has_bought_nothing_is_ended() -> None:
    """A `stopAt` that passes before the purchase leaves nothing to buy."""
    waits = Situation(
        now=NOW,
        limits=LimitSettings(stop_at=NOW - 1),
        ever_ran=False,
        seen_at=NOW,
        running=OperationKind.CREATE,
    )
    assert review(waits).begin is DELETE


@pytest.mark.parametrize("kind", [STOP, DELETE, OperationKind.REAP])
def test_a_verb_that_ends_it_already_is_left_to_work(kind: OperationKind) -> None:
    """A stop of a user is repeated as often as one of a limit."""
    decided = review(overrun(running=kind, asked_at=NOW - 1_000))
    assert decided.begin is None
    assert decided.hasten is (kind is STOP)
    assert not decided.unenforced


def test_a_delete_replaces_a_stop() -> None:
    """Where the limit deletes."""
    limits = replace(HOURLY, on_limit=LimitAction.DELETE)
    assert review(overrun(limits=limits, running=STOP)).begin is DELETE


@pytest.mark.parametrize(
    ("changes", "cause"),
    [
        ({"blocked": True}, "accountHeld"),
        ({"seen_at": 0}, "notObserved"),
        ({"word": "migrating"}, "cannotBeStopped"),
        ({"running": STOP}, "notStopped"),
        ({"running": STOP, "asked_at": NOW - 2 * LEAD_UNKNOWN}, "notStopped"),
    ],
)
def test_what_cannot_be_enforced_is_told(changes: dict[str, Any], cause: str) -> None:
    """After half a minute, and again every 15 minutes while it lasts."""
    stuck = overrun(**changes)
    first = review(stuck)
    assert first.unenforced
    assert [(one.type, one.data["cause"]) for one in first.events] == [(UNENFORCED, cause)]
    soon = replace(stuck, memory=first.memory, now=NOW + UNENFORCED_AGAIN - 1)
    assert not types(soon)
    assert review(soon).unenforced
    assert types(replace(soon, now=NOW + UNENFORCED_AGAIN)) == [UNENFORCED]
    fresh = replace(stuck, began_at=NOW - HOUR + LEAD_UNKNOWN - UNENFORCED_AFTER + 1)
    assert not types(fresh)
    assert not review(fresh).unenforced


def test_a_refused_stop_is_told_and_begun_again() -> None:
    """Not at once, and `instance.limit_reached` is not repeated."""
    first = review(overrun())
    assert [one.type for one in first.events] == [REACHED]
    refused = overrun(memory=first.memory, now=NOW + BEGIN_AGAIN - 1)
    assert review(refused).begin is None
    assert types(refused) == [UNENFORCED]
    again = replace(refused, now=NOW + BEGIN_AGAIN)
    assert review(again).begin is STOP
    assert types(again) == [UNENFORCED]


def test_a_limit_does_not_fall_due_before_it_is_set() -> None:
    """A setting that is late already still waits for a newer observation."""
    late = overrun(memory=LimitMemory(set_at=NOW - 10), seen_at=NOW - 20)
    assert review(late).begin is None
    assert review(replace(late, seen_at=NOW - 5)).begin is STOP


@pytest.mark.parametrize(
    ("changes", "verb"),
    [
        ({}, DELETE),
        ({"seen_at": NOW - HOUR}, None),
        ({"word": "running"}, None),
        ({"protected": True}, None),
        ({"blocked": True}, None),
        ({"running": OperationKind.START}, None),
        ({"exited_at": NOW - HOUR + 1}, None),
        ({"exited_at": None}, None),
        ({"memory": LimitMemory(delete_set_at=NOW - MINUTE)}, None),
    ],
)
def test_a_stopped_instance_is_deleted(changes: dict[str, Any], verb: OperationKind | None) -> None:
    """By `deleteAfterStoppedMinutes`, if a new observation shows that it is stopped."""
    assert review(stopped(**changes)).begin is verb


@pytest.mark.parametrize(
    ("limits", "action"),
    list(itertools.product([HOURLY, LimitSettings(stop_at=NOW - 1)], LimitAction)),
)
def test_a_protected_instance_is_stopped_by_every_limit(
    limits: LimitSettings, action: LimitAction
) -> None:
    """A delete becomes a stop, and that is told."""
    situation = overrun(
        limits=replace(limits, on_limit=action), began_at=NOW - 61 * MINUTE, protected=True
    )
    assert review(situation).begin is STOP
    told = [UNENFORCED] if action is LimitAction.DELETE else []
    assert types(situation) == [*told, REACHED]


def test_a_protected_stopped_instance_stays_and_is_told() -> None:
    """It is unenforced for as long as the protection lasts."""
    decided = review(stopped(protected=True))
    assert decided.unenforced
    assert [one.data["cause"] for one in decided.events] == ["protected"]


def test_a_cost_ends_a_run_when_it_is_reached() -> None:
    """At the present rate, minus the stop lead; `keep` does not move it."""
    limits = LimitSettings(max_spend=100_000)
    # 1 USD an hour from the begin of the run on.
    spending = Spending(-100_000 * 24 * NOW, 100_000 * 24)
    runs = Situation(
        now=NOW, limits=limits, began_at=NOW, word="running", seen_at=NOW, spending=spending
    )
    found = next_deadline(runs)
    assert found == Deadline(
        NOW + HOUR, NOW + HOUR - LEAD_UNKNOWN, StopReason.MAX_SPEND, LimitAction.STOP
    )
    assert review(runs).due_at == NOW + 48 * MINUTE
    assert next_deadline(replace(runs, memory=LimitMemory().for_keep(60))) == found
    dearer = replace(runs, spending=Spending(-200_000 * 24 * NOW, 200_000 * 24))
    moved = next_deadline(dearer)
    assert moved is not None
    assert moved.at == NOW + HOUR // 2
    spent = replace(runs, now=NOW + HOUR, seen_at=NOW + HOUR - 1)
    assert review(spent).begin is STOP
    assert next_deadline(replace(spent, began_at=None, exited_at=NOW, word="exited")) is None


def test_a_cost_without_a_price_is_told() -> None:
    """Other limits still hold, and it is told again every 15 minutes."""
    limits = LimitSettings(max_spend=100_000, max_run_minutes=60)
    runs = Situation(
        now=NOW,
        limits=limits,
        began_at=NOW,
        word="running",
        seen_at=NOW,
        spending=Spending(0, 0, unknown=True),
    )
    told = review(runs)
    assert [one.data["cause"] for one in told.events] == ["priceUnknown"]
    assert told.unenforced
    assert not types(replace(runs, memory=told.memory, now=NOW + UNENFORCED_AGAIN - 1))
    assert types(replace(runs, memory=told.memory, now=NOW + UNENFORCED_AGAIN)) == [UNENFORCED]
    assert review(replace(runs, now=NOW + HOUR, seen_at=NOW + HOUR - 1)).begin is STOP


def test_a_run_that_was_kept_goes_on() -> None:
    """`keep` moves both limits of the run, and what was told about them is told again."""
    first = review(overrun())
    kept = first.memory.for_keep(90)
    longer = overrun(memory=kept)
    assert review(longer).begin is None
    assert review(longer).deadline is not None
    assert kept.reached is None
    moved = LimitSettings(stop_at=NOW).kept(90)
    assert moved.stop_at == NOW + 90 * MINUTE


def test_a_new_run_knows_nothing_of_the_one_before() -> None:
    """Neither that it was kept nor what was told."""
    before = LimitMemory(set_at=5, kept_minutes=60, extension_minutes=60, near=("stopAt",))
    assert before.for_new_run() == LimitMemory(set_at=5)


def test_an_ended_record_is_left_alone() -> None:
    """No limit outlives the record."""
    assert review(overrun(ended=True)).begin is None
    assert review(overrun(ended=True)).due_at is None


def test_a_purge_is_announced_a_day_before() -> None:
    """Once, by an observation that shows it stopped then."""
    purge_at = NOW + PURGE_NOTICE - 10
    situation = Situation(
        now=NOW, word="exited", seen_at=NOW - 1, exited_at=NOW - HOUR, purge_at=purge_at
    )
    told = review(situation)
    assert [one.type for one in told.events] == [EventType.DATA_PURGE_SCHEDULED]
    assert not types(replace(situation, memory=told.memory))
    assert not types(replace(situation, word="running"))
    assert not types(replace(situation, seen_at=NOW - HOUR))
    early = review(replace(situation, now=NOW - 20))
    assert not early.events
    assert early.due_at == purge_at - PURGE_NOTICE


def test_auto_stop_is_one_of_the_limits() -> None:
    """The earliest of all takes effect; its events have names of their own."""
    idle = overrun(limits=None, idle_at=NOW - 2, idle_action=LimitAction.STOP)
    found = review(idle)
    assert (found.begin, types(idle)) == (STOP, [EventType.AUTOSTOP_FIRED])
    assert found.deadline is not None
    assert (found.deadline.reason, found.deadline.acts_at) == (StopReason.AUTO_STOP, NOW - 2)
    both = overrun(limits=LimitSettings(stop_at=NOW - 1), idle_at=NOW - 2)
    first = next_deadline(both)
    assert first is not None
    assert first.reason is StopReason.AUTO_STOP
    first = next_deadline(replace(both, idle_at=NOW))
    assert first is not None
    assert first.reason is StopReason.STOP_AT
    assert review(replace(idle, seen_at=NOW - 2)).begin is None


def test_a_protected_instance_is_stopped_by_auto_stop() -> None:
    """It is not deleted, and that is told."""
    idle = overrun(limits=None, idle_at=NOW - 2, idle_action=LimitAction.DELETE, protected=True)
    assert review(idle).begin is STOP
    assert types(idle) == [EventType.AUTOSTOP_FAILED, EventType.AUTOSTOP_FIRED]
    assert review(replace(idle, protected=False)).begin is DELETE


def test_auto_stop_fires_again_after_a_stop_without_effect() -> None:
    """If the instance is used after a refused stop, the next idle time is a new one."""
    idle = overrun(limits=None, idle_at=NOW - 2)
    fired = review(idle).memory
    assert fired.reached is StopReason.AUTO_STOP
    used = review(replace(idle, memory=fired, idle_at=NOW + HOUR))
    assert used.memory.reached is None
    later = replace(idle, memory=used.memory, now=NOW + 2 * HOUR, seen_at=NOW + 2 * HOUR)
    assert EventType.AUTOSTOP_FIRED in types(replace(later, idle_at=NOW + HOUR))


def test_auto_stop_is_near_ten_minutes_before() -> None:
    """Once in a run, and not for an idle time that began with the run just now."""
    near = overrun(limits=None, idle_at=NOW + 10 * MINUTE)
    assert types(near) == [EventType.LIMIT_NEAR]
    assert types(replace(near, idle_at=NOW + 10 * MINUTE + 1)) == []
    assert types(replace(near, memory=review(near).memory)) == []
    assert types(replace(near, began_at=NOW, idle_at=NOW + 5 * MINUTE)) == []


@pytest.mark.parametrize(
    ("seen", "more", "whole_at", "shown"),
    [
        ({"at": 5}, {}, 9, 9),
        ({"at": 5}, {}, 0, 5),
        ({"at": 5}, {"acted_at": 7}, 9, 9),
        ({"at": 5}, {"acted_at": 9}, 9, 5),
        ({"at": 5, "missing_count": 1}, {}, 9, 5),
        ({"at": 5, "unlisted_count": 1}, {}, 9, 5),
        ({}, {}, 9, 0),
        ({}, {"upstream_id": None}, 9, 9),
    ],
)
def test_when_an_instance_was_last_shown(
    seen: dict[str, Any], more: dict[str, Any], whole_at: int, shown: int
) -> None:
    """A listing that lacks it, or that began before our last call, shows nothing of it."""
    instance = an_instance(observed=Observed(**seen), **more)
    assert last_shown(instance, whole_at) == shown
