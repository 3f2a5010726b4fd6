# SPDX-License-Identifier: Apache-2.0
"""Budgets: periods, scopes, reservations, and what fits."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from zoneinfo import ZoneInfo

import pytest

from novitai.domain.billing import HOUR_MS, UNIT
from novitai.domain.budgets import (
    Budget,
    BudgetPeriod,
    BudgetScope,
    BudgetTerms,
    BudgetUse,
    Payer,
    Reservation,
    SpendOf,
    Wanted,
    dearest,
    use_of,
)
from novitai.domain.instance import InstanceStatus
from novitai.domain.limit_review import Situation, review
from novitai.domain.limits import LimitMemory, StopReason, memory_from_json, memory_to_json
from novitai.domain.operation import OperationKind

BERLIN = ZoneInfo("Europe/Berlin")
PAYER = Payer("key_1", {"team": "vision", "project": "x"})
TERMS = BudgetTerms("b", 100_000, BudgetPeriod.DAY)
RATE = 24 * 50_000
"""The rate of 0.50 USD per hour."""
HALF_A_DOLLAR = 50_000 * UNIT


def at(text: str, tz: ZoneInfo = BERLIN) -> int:
    """Return a local time in Unix milliseconds."""
    return int(datetime.fromisoformat(text).replace(tzinfo=tz).timestamp() * 1000)


def budget(terms: BudgetTerms = TERMS) -> Budget:
    """Make a budget."""
    return Budget("bud_1", terms, at("2025-01-15T12:00"), at("2025-01-15T12:00"))


def reservation(
    *,
    spent_exact: int = 0,
    run_began_at: int | None = None,
    status: InstanceStatus = InstanceStatus.STARTING,
    bought: bool = True,
) -> Reservation:
    """Make a reservation of an hour at 0.50 USD, made at 0."""
    return Reservation("i", PAYER, RATE, HOUR_MS, 0, spent_exact, run_began_at, status, bought)


@pytest.mark.parametrize(
    ("period", "now", "start", "end"),
    [
        ("day", "2025-03-30T12:00", "2025-03-30T00:00", "2025-03-31T00:00"),
        ("day", "2025-10-26T23:59", "2025-10-26T00:00", "2025-10-27T00:00"),
        ("week", "2025-03-30T12:00", "2025-03-24T00:00", "2025-03-31T00:00"),
        ("week", "2025-03-31T00:00", "2025-03-31T00:00", "2025-04-07T00:00"),
        ("month", "2025-12-31T23:59", "2025-12-01T00:00", "2026-01-01T00:00"),
        ("total", "2025-12-31T23:59", "2025-01-15T12:00", None),
    ],
)
def test_a_period_follows_the_zone(period: str, now: str, start: str, end: str | None) -> None:
    """Weeks begin on Monday; a total begins with the budget and never ends."""
    one = budget(replace(TERMS, period=BudgetPeriod(period), tz=BERLIN))
    assert one.period_start(at(now)) == at(start)
    assert one.period_end(at(now)) == (None if end is None else at(end))


def test_a_day_has_23_or_25_hours_at_a_change_of_the_clock() -> None:
    """The length of a day is that of the zone."""
    one = budget(replace(TERMS, tz=BERLIN))

    def hours(day: str) -> int:
        return ((one.period_end(at(day)) or 0) - one.period_start(at(day))) // HOUR_MS

    assert [hours(d) for d in ("2025-03-30T12:00", "2025-10-26T12:00", "2025-10-27T12:00")] == [
        23,
        25,
        24,
    ]


@pytest.mark.parametrize(
    ("scope", "payer", "covered"),
    [
        (BudgetScope(), PAYER, True),
        (BudgetScope(), Payer(None, {}), True),
        (BudgetScope(key_id="key_1"), PAYER, True),
        (BudgetScope(key_id="key_2"), PAYER, False),
        (BudgetScope(key_id="key_1"), Payer(None, {}), False),
        (BudgetScope(tag=("team", "vision")), PAYER, True),
        (BudgetScope(tag=("team", "speech")), PAYER, False),
        (BudgetScope(tag=("team", "vision")), Payer(None, {"team": "vision"}), True),
        (BudgetScope(tag=("team", "")), Payer("key_1", {}), False),
    ],
)
def test_a_scope_covers_its_instances(scope: BudgetScope, payer: Payer, covered: bool) -> None:
    """An adopted instance has no key, and an instance without the tag not even an empty one."""
    assert scope.covers(payer) is covered


@pytest.mark.parametrize(
    ("price", "minutes", "exact"),
    [
        (50_000, None, HALF_A_DOLLAR),
        (50_000, 30, HALF_A_DOLLAR // 2),
        (50_000, 60, HALF_A_DOLLAR),
        (50_000, 600, HALF_A_DOLLAR),
        (None, None, 0),
    ],
)
def test_a_start_wants_an_hour_or_a_shorter_run(
    price: int | None, minutes: int | None, exact: int
) -> None:
    """Never more than the longest run that the limits allow."""
    assert Wanted.of(price, minutes).exact == exact


def test_the_dearest_candidate_counts() -> None:
    """The price limit counts only if no candidate is known."""
    assert dearest([30_000, 33_000, 31_000], 2, 90_000) == 66_000
    assert dearest([], 2, 90_000) == 90_000
    assert dearest([], 2, None) is None


@pytest.mark.parametrize(
    ("one", "now", "left"),
    [
        (reservation(), 10 * HOUR_MS, HALF_A_DOLLAR),
        (reservation(spent_exact=HALF_A_DOLLAR // 5), 1, HALF_A_DOLLAR * 4 // 5),
        (reservation(spent_exact=HALF_A_DOLLAR * 2), 1, 0),
        (reservation(run_began_at=5), HOUR_MS + 4, HALF_A_DOLLAR),
        (reservation(run_began_at=5), HOUR_MS + 5, 0),
        (reservation(run_began_at=-HOUR_MS), 1, HALF_A_DOLLAR),
        (reservation(run_began_at=-HOUR_MS), HOUR_MS, 0),
        (reservation(status=InstanceStatus.STOPPED), 1, 0),
        (reservation(status=InstanceStatus.TERMINATED), 1, 0),
        (reservation(status=InstanceStatus.RELEASED), 1, 0),
        (reservation(status=InstanceStatus.STOPPING), 1, HALF_A_DOLLAR),
        (reservation(status=InstanceStatus.FAILED, bought=False), 1, 0),
        (reservation(status=InstanceStatus.FAILED), 1, HALF_A_DOLLAR),
        (reservation(status=InstanceStatus.CREATING, bought=False), 1, HALF_A_DOLLAR),
    ],
)
def test_a_reservation_shrinks_and_ends(one: Reservation, now: int, left: int) -> None:
    """It ends with the first hour, the stop, or a failure without a purchase."""
    assert one.left_exact(now) == left


def test_what_does_not_fit_is_not_admitted() -> None:
    """To the last unit; spending and reservations of others are left out."""
    spendings = [SpendOf(PAYER, 1), SpendOf(Payer("key_2", {}), 10**12)]
    others = reservation()
    scoped = budget(replace(TERMS, scope=BudgetScope(key_id="key_1")))
    use = use_of(scoped, spendings, [others], 1)
    assert (use.spent, use.reserved, use.remaining) == (1, 50_000, 49_999)
    assert use.admits(HALF_A_DOLLAR - 1)
    assert not use.admits(HALF_A_DOLLAR)


@pytest.mark.parametrize(
    ("spent", "reached", "spent_up"),
    [
        (49_999, (), False),
        (50_000, (50,), False),
        (99_999, (50,), False),
        (100_000, (50, 100), True),
    ],
)
def test_thresholds_are_reached_by_spending_alone(
    spent: int, reached: tuple[int, ...], spent_up: bool
) -> None:
    """A reserved amount may never be spent."""
    use = BudgetUse(100_000, spent * UNIT, 100_000 * UNIT)
    assert use.reached((50, 100)) == reached
    assert use.is_spent is spent_up
    assert replace(use, reserved_exact=0).admits(0) is not spent_up
    assert use.remaining == 0


def test_what_was_told_belongs_to_a_period_and_to_an_amount() -> None:
    """Another period, amount, scope or zone is told again; another name is not."""
    told = replace(budget(), told_since=5, told=(50,), exceeded=True)
    assert told.told_in(5) == told
    assert told.told_in(6) == replace(told, told_since=6, told=(), exceeded=False)
    assert told.changed(replace(TERMS, name="other"), 9).told == (50,)
    for terms in (
        replace(TERMS, amount=1),
        replace(TERMS, scope=BudgetScope(key_id="key_1")),
        replace(TERMS, tz=BERLIN),
        replace(TERMS, period=BudgetPeriod.WEEK),
    ):
        changed = told.changed(terms, 9)
        assert (changed.told_since, changed.told, changed.exceeded) == (None, (), False)


@pytest.mark.parametrize(
    ("word", "ever_ran", "seen_at", "begun"),
    [
        ("running", True, 11, OperationKind.STOP),
        ("running", False, 11, OperationKind.STOP),
        ("running", True, 10, None),
        ("pulling", False, 11, None),
        ("migrating", False, 11, None),
    ],
)
def test_a_spent_budget_stops_and_never_deletes(
    word: str, ever_ran: bool, seen_at: int, begun: OperationKind | None
) -> None:
    """It acts on an observation from after it was spent, and waits until a stop is possible."""
    situation = Situation(
        now=20,
        memory=LimitMemory(budget_spent_at=10),
        ever_ran=ever_ran,
        word=word,
        seen_at=seen_at,
        began_at=1,
    )
    decided = review(situation)
    assert decided.begin is begun
    assert decided.deadline is not None
    assert decided.deadline.reason is StopReason.BUDGET


@pytest.mark.parametrize(
    ("spent_at", "runs", "reached"),
    [
        (None, True, None),
        (None, False, StopReason.BUDGET),
        (30, True, None),
    ],
)
def test_the_reason_stays_after_the_stop_alone(
    spent_at: int | None, runs: bool, reached: StopReason | None
) -> None:
    """A run that is not to be stopped any more, or is stopped again, has none from before."""
    memory = LimitMemory(budget_spent_at=10, reached=StopReason.BUDGET, begun_at=11)
    after = memory.for_budget(spent_at, runs=runs)
    assert (after.budget_spent_at, after.reached) == (spent_at, reached)
    assert memory_from_json(memory_to_json(after)) == after
