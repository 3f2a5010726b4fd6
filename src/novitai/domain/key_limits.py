# SPDX-License-Identifier: Apache-2.0
"""The limits of an API key: they bind every instance that the key creates, also once it is revoked.

They are set when the key is created and never change. The names of the stored keys never change
either, because old and new processes read each other's rows.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from novitai.domain.budgets import BudgetPeriod
from novitai.domain.limits import InheritedLimits


class KeyLimit(StrEnum):
    """The limit that a key exceeds, as errors name it."""

    MAX_INSTANCES = "maxInstances"
    MAX_HOURLY_PRICE = "maxHourlyPrice"
    MAX_RUN_MINUTES = "maxRunMinutes"
    BUDGET = "budget"
    TAGS = "tags"
    """No limit of its own: a key with limits does not change the tags that budgets name."""


@dataclass(frozen=True, slots=True)
class KeyBudget:
    """What the instances of a key may cost in a period of UTC: `amount` in 1/100000 USD."""

    amount: int
    period: BudgetPeriod


@dataclass(frozen=True, slots=True)
class KeyLimits:
    """The limits of a key; None is no limit.

    Attributes:
        max_instances: How many instances of the key may exist at a time.
        max_hourly_price: The most that one may cost when it is bought or started, in 1/100000 USD
            per hour for the whole instance.
        max_run_minutes: The longest run of each.
        budget: The most that all of them may cost in a period.
    """

    max_instances: int | None = None
    max_hourly_price: int | None = None
    max_run_minutes: int | None = None
    budget: KeyBudget | None = None

    def or_none(self) -> KeyLimits | None:
        """Return the limits; None if none is set."""
        return None if self == KeyLimits() else self

    def inherited(self) -> InheritedLimits | None:
        """Return what each instance of the key has of them; None if that is nothing."""
        return InheritedLimits(self.max_hourly_price, self.max_run_minutes).or_none()


@dataclass(frozen=True, slots=True)
class KeyRoom:
    """Whether a limit of a key allows a request.

    Attributes:
        limit: The limit.
        allowed: The most that it allows.
        wanted: What there would be with the request.
    """

    limit: KeyLimit
    allowed: int
    wanted: int

    @property
    def allows(self) -> bool:
        """Whether the limit allows the request."""
        return self.wanted <= self.allowed


def key_limits_to_json(limits: KeyLimits) -> dict[str, object]:
    """Return the JSON object to store."""
    budget = limits.budget
    return {
        "max_instances": limits.max_instances,
        "max_hourly_price": limits.max_hourly_price,
        "max_run_minutes": limits.max_run_minutes,
        "budget": budget and {"amount": budget.amount, "period": budget.period.value},
    }


def key_limits_from_json(stored: Mapping[str, object]) -> KeyLimits:
    """Read a stored JSON object.

    Raises:
        KeyError, TypeError, ValueError: it is none, which must not pass for a key without limits.
    """
    budget = stored["budget"]
    return KeyLimits(
        max_instances=_number(stored["max_instances"]),
        max_hourly_price=_number(stored["max_hourly_price"]),
        max_run_minutes=_number(stored["max_run_minutes"]),
        budget=KeyBudget(int(budget["amount"]), BudgetPeriod(budget["period"]))
        if isinstance(budget, Mapping)
        else None,
    )


def _number(value: object) -> int | None:
    if value is None or isinstance(value, int):
        return value
    raise TypeError("a limit of a key is a whole number")
