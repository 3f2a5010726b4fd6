# SPDX-License-Identifier: Apache-2.0
"""Budgets: made, changed, read with what is spent of them, and told about when they run out."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.clock import iso
from novitai.domain.actor import BUDGETS
from novitai.domain.budgets import (
    MAX_BUDGETS,
    Budget,
    BudgetAction,
    BudgetScope,
    BudgetTerms,
    BudgetUse,
)
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, Origin
from novitai.domain.product import usd
from novitai.domain.status import Observation, read_word
from novitai.domain.view import present
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money.admission import payer_of, uses
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.store.queries import budgets, instances, limits

_AT_REST: Final = frozenset({Observation.EXITED, Observation.REMOVING, Observation.REMOVED})

TermsChange = Callable[[BudgetTerms], BudgetTerms]
"""Returns the terms after a change."""


@dataclass(frozen=True, slots=True)
class BudgetShown:
    """A budget with what is spent and reserved of it in the present period.

    Attributes:
        period_end: Unix milliseconds; None for a budget that never begins again.
    """

    budget: Budget
    use: BudgetUse
    period_start: int
    period_end: int | None


@dataclass(frozen=True, slots=True)
class BudgetPage:
    """A page of budgets, newest first, and the cursor of the next page."""

    budgets: Sequence[BudgetShown]
    next_cursor: str | None


def too_many_budgets() -> Conflict:
    """Return the error for a budget beyond the limit."""
    return Conflict(
        f"There are {MAX_BUDGETS} budgets, which is the most; delete one first",
        code="TOO_MANY_BUDGETS",
        details={"limit": MAX_BUDGETS},
    )


def limit_of_key(budget_id: str, key_id: str) -> Conflict:
    """Return the error for a change of a budget that is a limit of a key."""
    return Conflict(
        f"Budget '{budget_id}' is a limit of the API key '{key_id}' and cannot be changed: "
        "create another key, and revoke this one",
        details={"key": key_id},
    )


class Budgets:
    """Keeps the budgets and tells about them."""

    def __init__(self, core: Core, reviews: LimitReviews) -> None:
        self._reviews = reviews
        self._database = core.database
        self._clock = core.clock
        self._ids = core.ids
        self._recorder = core.recorder.by(BUDGETS)

    def create(self, terms: BudgetTerms) -> Transaction[BudgetShown]:
        """Create a budget. Spending from before in its period counts.

        Raises:
            Conflict: `TOO_MANY_BUDGETS`; limits of keys do not count.
        """
        now = self._clock.now()
        budget = Budget(self._ids.prefixed("bud"), terms, now, now)

        def act(connection: Connection) -> BudgetShown:
            if budgets.lock_count(connection) >= MAX_BUDGETS:
                raise too_many_budgets()
            budgets.insert(connection, budget)
            return self._shown(connection, [budget])[0]

        return act

    async def get(self, budget_id: str) -> BudgetShown:
        """Return a budget.

        Raises:
            NotFound: `BUDGET_NOT_FOUND`.
        """

        def load(connection: Connection) -> BudgetShown:
            budget = budgets.load(connection, budget_id)
            if budget is None:
                raise _unknown(budget_id)
            return self._shown(connection, [budget])[0]

        return await self._database.read(load, snapshot=True)

    async def page(self, *, limit: int = MAX_PAGE, cursor: str | None = None) -> BudgetPage:
        """List budgets, newest first.

        Raises:
            ValidationFailed: `cursor` is invalid.
        """
        after = read_place(cursor)

        def load(connection: Connection) -> BudgetPage:
            found = budgets.page(connection, limit=limit + 1, after=after)
            page, following = cut(found, limit, lambda one: (one.created_at, one.id))
            return BudgetPage(self._shown(connection, page), following)

        return await self._database.read(load, snapshot=True)

    def change(self, budget_id: str, change: TermsChange) -> Transaction[BudgetShown]:
        """Change the terms of a budget.

        Raises:
            NotFound: `BUDGET_NOT_FOUND`.
            Conflict: `INVALID_STATE`: it is a limit of a key.
        """

        def act(connection: Connection) -> BudgetShown:
            budget = _changeable(connection, budget_id)
            changed = budget.changed(change(budget.terms), self._clock.now())
            budgets.write(connection, changed)
            return self._shown(connection, [changed])[0]

        return act

    def delete(self, budget_id: str) -> Transaction[BudgetShown]:
        """Delete a budget; return it as it was.

        Raises:
            NotFound: `BUDGET_NOT_FOUND`.
            Conflict: `INVALID_STATE`: it is a limit of a key.
        """

        def act(connection: Connection) -> BudgetShown:
            budget = _changeable(connection, budget_id)
            shown = self._shown(connection, [budget])[0]
            budgets.remove(connection, budget_id)
            return shown

        return act

    async def sweep(self) -> None:
        """Do what time alone leads to.

        Clear the reservations that have ended, append the events that are due, and have the
        instances of spent budgets stopped, the most expensive first.
        """
        await self._database.write(partial(_clear, now=self._clock.now()))
        for budget_id in await self._database.read(self._news, snapshot=True):
            await self._database.write(partial(self._tell, budget_id=budget_id))
        for instance_id in await self._database.read(self._to_review, snapshot=True):
            await self._database.write(partial(self._review, instance_id=instance_id))

    def _news(self, connection: Connection) -> list[str]:
        """List the budgets of which there is something to tell."""
        shown = self._shown(connection, budgets.load_all(connection))
        return [one.budget.id for one in shown if any(_untold(one))]

    def _tell(self, connection: Connection, budget_id: str) -> None:
        for budget in budgets.lock(connection, [budget_id]):
            (shown,) = self._shown(connection, [budget])
            thresholds, exceeded = _untold(shown)
            told = budget.told_in(shown.period_start)
            told = replace(told, told=(*told.told, *thresholds), exceeded=told.exceeded or exceeded)
            budgets.write(connection, told)
            for threshold in thresholds:
                data = {**_described(shown), "threshold": threshold}
                self._recorder.append_account(connection, EventType.BUDGET_ALERT, data)
            if exceeded:
                data = _described(shown)
                self._recorder.append_account(connection, EventType.BUDGET_EXCEEDED, data)

    def _to_review(self, connection: Connection) -> list[str]:
        """List the instances that spent budgets stop, or no longer do."""
        spent = self._spent(connection)
        known = limits.stopped_by_budgets(connection)
        if not spent and not known:
            return []
        live = instances.load_many(connection, instances.live_ids(connection))
        running = [one for one in live.values() if _is_stopped_by(spent, one)]
        running.sort(key=lambda one: (-(one.current_hourly_price or 0), one.id))
        chosen = [one.id for one in running]
        return chosen + [one for one in known if one not in set(chosen)]

    def _review(self, connection: Connection, instance_id: str) -> None:
        instance = instances.lock(connection, instance_id)
        if instance is not None:
            spent, seen = self._spent(connection), read_word(instance.observed.status)
            if _is_stopped_by(spent, instance):
                self._reviews.budget_spent(connection, instance, spent=True)
            elif seen in _AT_REST or not _is_covered(spent, instance):
                self._reviews.budget_spent(connection, instance, spent=False)

    def _spent(self, connection: Connection) -> list[BudgetScope]:
        """List the scopes of the budgets that are spent and stop instances."""
        found = [
            one for one in budgets.load_all(connection) if one.terms.on_limit is BudgetAction.STOP
        ]
        used = uses(connection, found, self._clock.now())
        return [one.terms.scope for one in found if used[one.id].is_spent]

    def _shown(self, connection: Connection, found: Sequence[Budget]) -> list[BudgetShown]:
        now = self._clock.now()
        used = uses(connection, found, now)
        return [
            BudgetShown(one, used[one.id], one.period_start(now), one.period_end(now))
            for one in found
        ]


def _is_stopped_by(spent: Sequence[BudgetScope], instance: Instance) -> bool:
    """Return whether an instance runs and one of these scopes covers it."""
    seen = read_word(instance.observed.status)
    return seen is Observation.RUNNING and _is_covered(spent, instance)


def _is_covered(spent: Sequence[BudgetScope], instance: Instance) -> bool:
    """Return whether one of these scopes stops an instance when it runs.

    An adopted instance is stopped only if somebody has set limits or auto-stop on it.
    """
    untouched = instance.limits is None and instance.auto_stop is None
    if instance.origin is Origin.ADOPTED and untouched:
        return False
    payer = payer_of(instance)
    return any(scope.covers(payer) for scope in spent)


def _clear(connection: Connection, now: int) -> None:
    budgets.forget_reservations(connection, now)


def _untold(shown: BudgetShown) -> tuple[tuple[int, ...], bool]:
    """Return the thresholds that are to be told, and whether it is to be told that it is spent."""
    budget, use = shown.budget.told_in(shown.period_start), shown.use
    thresholds = use.reached(budget.terms.alert_at)
    fresh = tuple(one for one in thresholds if one not in budget.told)
    return fresh, use.is_spent and not budget.exceeded


def _described(shown: BudgetShown) -> dict[str, object]:
    terms = shown.budget.terms
    return present(
        {
            "budgetId": shown.budget.id,
            "name": terms.name,
            "amount": usd(terms.amount),
            "spent": usd(shown.use.spent),
            "onLimit": terms.on_limit.value,
            "period": terms.period.value,
            "periodStart": iso(shown.period_start),
            "periodEnd": None if shown.period_end is None else iso(shown.period_end),
        }
    )


def _changeable(connection: Connection, budget_id: str) -> Budget:
    """Load a budget and lock its row; refuse one that is a limit of a key."""
    found = budgets.lock(connection, [budget_id])
    if not found:
        raise _unknown(budget_id)
    if found[0].key_limit:
        raise limit_of_key(budget_id, found[0].terms.scope.key_id or "")
    return found[0]


def _unknown(budget_id: str) -> NotFound:
    return NotFound(f"There is no budget '{budget_id}'", code="BUDGET_NOT_FOUND")
