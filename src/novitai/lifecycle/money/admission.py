# SPDX-License-Identifier: Apache-2.0
"""Admit creates, starts and changes of tags to the budgets, in the transaction that accepts them.

The budgets that may refuse are locked first, and each transaction sees what the one before it has
reserved. So of many requests at once, in any number of processes, only those that fit are accepted.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import replace

from sqlalchemy import Connection

from novitai.domain.budgets import (
    Budget,
    BudgetAction,
    BudgetUse,
    Payer,
    SpendOf,
    Wanted,
    use_of,
)
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.key_limits import KeyLimit
from novitai.domain.product import usd
from novitai.domain.quote import BudgetRoom
from novitai.domain.tags import Tags
from novitai.errors import Conflict
from novitai.lifecycle.money import key_limits, ledger
from novitai.store.queries import budgets
from novitai.store.queries.instances import to_units

_RESERVES_NOTHING = frozenset(
    {
        InstanceStatus.STOPPED,
        InstanceStatus.FAILED,
        InstanceStatus.TERMINATED,
        InstanceStatus.RELEASED,
    }
)


def admit(connection: Connection, instance: Instance, wanted: Wanted, now: int) -> None:
    """Reserve the first hour of a run of every budget that covers the instance.

    The caller holds the instance's lock, and has appended no event in this transaction.

    Args:
        connection: A write transaction.
        instance: The instance that is to be bought or started.
        wanted: What its first hour may cost.
        now: Unix milliseconds.

    Raises:
        Conflict: `BUDGET_EXCEEDED`; `KEY_LIMIT_EXCEEDED`: the budget is one of its key.
    """
    payer = payer_of(instance)
    _insist(connection, instance, wanted, now, lambda budget: budget.terms.scope.covers(payer))
    budgets.reserve(connection, instance.id, wanted, now)


def admit_tags(connection: Connection, instance: Instance, tags: Tags, now: int) -> None:
    """Admit an instance that runs, or soon will, to the budgets that its new tags bring it into.

    The caller holds the instance's lock, and has appended no event in this transaction.

    Raises:
        Conflict: `BUDGET_EXCEEDED`.
    """
    if instance.status in _RESERVES_NOTHING or tags == instance.tags:
        return
    before, after = payer_of(instance), payer_of(replace(instance, tags=tags))

    def joins(budget: Budget) -> bool:
        scope = budget.terms.scope
        return scope.covers(after) and not scope.covers(before)

    if any(joins(one) for one in budgets.of_payer(connection, before.key_id)):
        wanted = wanted_by(instance)
        _insist(connection, instance, wanted, now, joins)
        budgets.reserve(connection, instance.id, wanted, now)


def wanted_by(instance: Instance) -> Wanted:
    """Return what the next hour of an instance may cost: its price, or the most it may cost."""
    price = instance.current_hourly_price
    if price is None:
        price = instance.max_hourly_price
    return Wanted.of(to_units(price), instance.longest_minutes)


def wanted_at(instance: Instance, hourly_price: int | None) -> Wanted:
    """Return what the first hour of an instance costs at a price, in 1/100000 USD per hour."""
    return Wanted.of(hourly_price, instance.longest_minutes)


def rooms(connection: Connection, payer: Payer, wanted: Wanted, now: int) -> tuple[BudgetRoom, ...]:
    """List the budgets that would cover an instance, and whether each admits it."""
    found = budgets.of_payer(connection, payer.key_id)
    covering = [one for one in found if one.terms.scope.covers(payer)]
    used = uses(connection, covering, now)
    return tuple(
        BudgetRoom(
            one.id,
            used[one.id].remaining,
            one.terms.on_limit is BudgetAction.ALERT or used[one.id].admits(wanted.exact),
        )
        for one in covering
    )


def uses(
    connection: Connection, of: Sequence[Budget], now: int, *, without: str | None = None
) -> dict[str, BudgetUse]:
    """Return what is spent and reserved of budgets in their present periods, by their IDs.

    Args:
        connection: A transaction.
        of: The budgets.
        now: Unix milliseconds.
        without: An instance whose reservation does not count.
    """
    if not of:
        return {}
    spendings: dict[int, list[SpendOf]] = {}
    for since in {one.counts_since(now) for one in of}:
        spendings[since] = budgets.spent(connection, since, now)
    reserved = [one for one in budgets.reservations(connection, now) if one.instance_id != without]
    return {one.id: use_of(one, spendings[one.counts_since(now)], reserved, now) for one in of}


def payer_of(instance: Instance) -> Payer:
    """Return by what the costs of an instance are assigned to budgets from now on."""
    labels = ledger.labels_of(instance)
    return Payer(labels.key_id, instance.tags)


def _insist(
    connection: Connection,
    instance: Instance,
    wanted: Wanted,
    now: int,
    applies: Callable[[Budget], bool],
) -> None:
    key_id = payer_of(instance).key_id
    found = _refusing(budgets.of_payer(connection, key_id), applies)
    if not found:
        return
    # Read again under the lock: another transaction may have changed them.
    locked = _refusing(budgets.lock(connection, [one.id for one in found]), applies)
    used = uses(connection, locked, now, without=instance.id)
    for budget in locked:
        use = used[budget.id]
        if not use.admits(wanted.exact):
            raise _exceeded(budget, use)


def _refusing(found: Collection[Budget], applies: Callable[[Budget], bool]) -> list[Budget]:
    return [one for one in found if one.terms.on_limit is not BudgetAction.ALERT and applies(one)]


def _exceeded(budget: Budget, use: BudgetUse) -> Conflict:
    if budget.key_limit:
        return key_limits.exceeded(
            budget.terms.scope.key_id,
            KeyLimit.BUDGET,
            f"The budget of the API key has {usd(use.remaining):g} USD left, "
            "which is too little for this",
            budget=budget.id,
            allowed=usd(budget.terms.amount),
            spent=usd(use.spent),
            reserved=usd(use.reserved),
            remaining=usd(use.remaining),
        )
    return Conflict(
        f"The budget '{budget.terms.name}' has {usd(use.remaining):g} USD left, "
        "which is too little for this",
        code="BUDGET_EXCEEDED",
        details={
            "budget": budget.id,
            "limit": usd(budget.terms.amount),
            "spent": usd(use.spent),
            "reserved": usd(use.reserved),
            "remaining": usd(use.remaining),
        },
    )
