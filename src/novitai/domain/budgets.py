# SPDX-License-Identifier: Apache-2.0
"""Budgets: for which instances they are, their periods, and what they admit. Pure.

Amounts that end in `exact` are rates times milliseconds (see `novitai.domain.billing`); the others
are 1/100000 USD. Times are Unix milliseconds.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Final
from zoneinfo import ZoneInfo

from novitai.domain.billing import HOUR_MS, UNIT, gpu_rate
from novitai.domain.billing_periods import Bucket, begin_of, end_of
from novitai.domain.instance import InstanceStatus
from novitai.domain.tags import Tags

MAX_BUDGETS: Final = 100
"""The most budgets at a time; each start is compared with all of them."""
MAX_ALERTS: Final = 10
RESERVED_AT_MOST: Final = HOUR_MS
"""The longest run that is reserved in advance, in milliseconds."""
_MINUTE: Final = 60_000
_UTC: Final = ZoneInfo("UTC")


class BudgetPeriod(StrEnum):
    """After which time a budget begins again; `total` never does."""

    DAY = "day"
    WEEK = "week"
    MONTH = "month"
    TOTAL = "total"


class BudgetAction(StrEnum):
    """The effect of a budget that has no room left, besides its events."""

    ALERT = "alert"
    """None."""
    REFUSE = "refuse"
    """Creates, starts and changes of tags that do not fit are refused."""
    STOP = "stop"
    """The same; and once the budget is spent, its running instances are stopped."""


@dataclass(frozen=True, slots=True)
class Payer:
    """By what the costs of an instance are assigned to budgets.

    Attributes:
        key_id: The API key that created it; None if it was adopted.
        tags: Its tags.
    """

    key_id: str | None
    tags: Tags


@dataclass(frozen=True, slots=True)
class BudgetScope:
    """The instances of a budget: all, those that one key has created, or those with one tag."""

    key_id: str | None = None
    tag: tuple[str, str] | None = None

    def covers(self, payer: Payer) -> bool:
        """Return whether an instance belongs to it."""
        if self.key_id is not None:
            return payer.key_id == self.key_id
        if self.tag is not None:
            name, value = self.tag
            return payer.tags.get(name) == value
        return True


@dataclass(frozen=True, slots=True)
class BudgetTerms:
    """The settings of a budget.

    Attributes:
        name: Any text.
        amount: The most that may be spent in a period.
        period: After which time it begins again.
        tz: The time zone of days, weeks and months.
        scope: Its instances.
        alert_at: The percentages of `amount` that are told when they are spent, ascending.
        on_limit: The effect of having no room left.
    """

    name: str
    amount: int
    period: BudgetPeriod
    tz: ZoneInfo = _UTC
    scope: BudgetScope = field(default_factory=BudgetScope)
    alert_at: tuple[int, ...] = (50, 80, 100)
    on_limit: BudgetAction = BudgetAction.ALERT

    def counts_as(self, other: BudgetTerms) -> bool:
        """Return whether the same spending is compared with the same amount."""
        return (self.amount, self.period, self.tz.key, self.scope) == (
            other.amount,
            other.period,
            other.tz.key,
            other.scope,
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """A stored budget.

    Attributes:
        terms: Its settings.
        told_since: The begin of the period of which `told` and `exceeded` speak.
        told: The thresholds that were told in that period.
        exceeded: Whether it was told in that period that the budget is spent.
        key_limit: Whether it is a limit of the key of its scope, so that it never changes.
    """

    id: str
    terms: BudgetTerms
    created_at: int
    updated_at: int
    told_since: int | None = None
    told: tuple[int, ...] = ()
    exceeded: bool = False
    key_limit: bool = False

    def period_start(self, now: int) -> int:
        """Return the begin of the present period; of a `total`, when the budget was created."""
        if self.terms.period is BudgetPeriod.TOTAL:
            return self.created_at
        return begin_of(Bucket(self.terms.period.value), now, self.terms.tz)

    def counts_since(self, now: int) -> int:
        """Return from when on spending counts in the present period.

        A key spends nothing before its own budget exists. So all such budgets without a period
        count from the same moment, and one query sums up for all of them.
        """
        if self.key_limit and self.terms.period is BudgetPeriod.TOTAL:
            return 0
        return self.period_start(now)

    def period_end(self, now: int) -> int | None:
        """Return the end of the present period; a `total` has none."""
        if self.terms.period is BudgetPeriod.TOTAL:
            return None
        return end_of(Bucket(self.terms.period.value), now, self.terms.tz)

    def changed(self, terms: BudgetTerms, now: int) -> Budget:
        """Return the budget with other terms; another amount or scope is told again."""
        changed = replace(self, terms=terms, updated_at=now)
        if terms.counts_as(self.terms):
            return changed
        return replace(changed, told_since=None, told=(), exceeded=False)

    def told_in(self, period_start: int) -> Budget:
        """Return the budget with what was told in the period that begins then."""
        if self.told_since == period_start:
            return self
        return replace(self, told_since=period_start, told=(), exceeded=False)


@dataclass(frozen=True, slots=True)
class SpendOf:
    """An amount that may have been spent, and by what it is assigned to budgets."""

    payer: Payer
    exact: int


@dataclass(frozen=True, slots=True)
class Reservation:
    """The possible cost of the first hour of a run, less what this run has spent of it already.

    Attributes:
        instance_id: The instance.
        payer: To which budgets it belongs.
        rate: The reserved rate, in 1/100000 USD per day.
        length: The reserved time in milliseconds.
        at: When it was made.
        spent_exact: The most that the GPUs of the instance have cost since then.
        run_began_at: The first moment at which the run may have billed, if it has.
        status: The status of the instance.
        bought: Whether the record has an upstream instance.
    """

    instance_id: str
    payer: Payer
    rate: int
    length: int
    at: int
    spent_exact: int
    run_began_at: int | None
    status: InstanceStatus
    bought: bool

    def left_exact(self, now: int) -> int:
        """Return the rest: 0 after the reserved time, the stop, or a failure without a purchase."""
        if self.status.ended or self.status is InstanceStatus.STOPPED:
            return 0
        if self.status is InstanceStatus.FAILED and not self.bought:
            return 0
        began_at = self.run_began_at
        if began_at is not None and now >= max(began_at, self.at) + self.length:
            return 0
        return max(0, self.rate * self.length - self.spent_exact)


@dataclass(frozen=True, slots=True)
class BudgetUse:
    """How much of a budget is spent and reserved in the present period, exactly."""

    amount: int
    spent_exact: int
    reserved_exact: int

    @property
    def spent(self) -> int:
        """The most that may be spent, rounded up."""
        return -(-self.spent_exact // UNIT)

    @property
    def reserved(self) -> int:
        """The reserved amount, rounded up."""
        return -(-self.reserved_exact // UNIT)

    @property
    def remaining(self) -> int:
        """The rest, rounded down; never below 0."""
        return max(0, self.amount - -(-(self.spent_exact + self.reserved_exact) // UNIT))

    def admits(self, exact: int) -> bool:
        """Return whether so much fits into the rest; nothing fits if all is spent."""
        used_exact = self.spent_exact + self.reserved_exact
        return not self.is_spent and used_exact + exact <= self.amount * UNIT

    def reached(self, thresholds: Iterable[int]) -> tuple[int, ...]:
        """Return the percentages that are spent."""
        return tuple(
            one for one in thresholds if self.spent_exact * 100 >= one * self.amount * UNIT
        )

    @property
    def is_spent(self) -> bool:
        """Whether all of it is spent."""
        return self.spent_exact >= self.amount * UNIT


def use_of(
    budget: Budget,
    spendings: Iterable[SpendOf],
    reservations: Iterable[Reservation],
    now: int,
) -> BudgetUse:
    """Sum up what belongs to a budget.

    Args:
        budget: The budget.
        spendings: The spending since the begin of its period.
        reservations: All reservations that count.
        now: The time.
    """
    covers = budget.terms.scope.covers
    return BudgetUse(
        budget.terms.amount,
        sum(one.exact for one in spendings if covers(one.payer)),
        sum(one.left_exact(now) for one in reservations if covers(one.payer)),
    )


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a start asks of the budgets: a price for the first hour, or for a shorter run.

    Attributes:
        hourly_price: Of the whole instance; 0 if it is unknown.
        length: Milliseconds.
    """

    hourly_price: int
    length: int

    @classmethod
    def of(cls, hourly_price: int | None, max_run_minutes: int | None) -> Wanted:
        """Return what is wanted for a price and the longest run that the limits allow."""
        length = RESERVED_AT_MOST
        if max_run_minutes is not None:
            length = min(length, max_run_minutes * _MINUTE)
        return cls(hourly_price or 0, length)

    @property
    def rate(self) -> int:
        """The price as a rate, in 1/100000 USD per day."""
        return gpu_rate(self.hourly_price) or 0

    @property
    def exact(self) -> int:
        """The amount."""
        return self.rate * self.length


def dearest(prices: Sequence[int], gpu_num: int, max_hourly_price: int | None) -> int | None:
    """Return the highest price per hour at which an instance may be bought.

    Args:
        prices: The prices per GPU-hour of the candidates.
        gpu_num: The number of GPUs.
        max_hourly_price: The price limit of the whole instance, used if there is no candidate.
    """
    return max(prices) * gpu_num if prices else max_hourly_price
