# SPDX-License-Identifier: Apache-2.0
"""`/api/budgets`: what may be spent in a period, by all or by some instances."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http.answers import answer, reply
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import PageQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.budgets import (
    BudgetScopeView,
    BudgetTagView,
    BudgetView,
    ChangeBudgetRequest,
    CreateBudgetRequest,
    ListBudgetsResponse,
)
from novitai.api.schemas.wire import NoFields
from novitai.domain.api_key import Scope
from novitai.domain.budgets import BudgetScope
from novitai.domain.product import usd
from novitai.errors import FieldError, NotFound, ValidationFailed
from novitai.lifecycle.commands.budgets import (
    Budgets,
    BudgetShown,
    limit_of_key,
    too_many_budgets,
)
from novitai.lifecycle.commands.idempotency import Reply

_PATH: Final = "/api/budgets/{budgetId:id}"
_NO_BUDGET: Final = NotFound("There is no budget 'bud_1'", code="BUDGET_NOT_FOUND")
_OF_KEY: Final = limit_of_key("bud_1", "key_1")
_BAD_AMOUNT: Final = ValidationFailed(
    "Validation failed", details=[FieldError("amount", "Amount must be at least 0.01", 0)]
)


class BudgetRoutes:
    """Handlers of the budget routes."""

    def __init__(self, budgets: Budgets) -> None:
        self._budgets = budgets

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path="/api/budgets",
                id="createBudget",
                handler=self.create,
                scope=Scope.ADMIN,
                tag="Budgets",
                summary="Create a budget",
                answers={201: BudgetView},
                sends={"Location": "The path of the budget"},
                errors=[_BAD_AMOUNT, too_many_budgets()],
            ),
            Route(
                method="GET",
                path="/api/budgets",
                id="listBudgets",
                handler=self.page,
                scope=Scope.READ,
                tag="Budgets",
                summary="List budgets",
                answers={200: ListBudgetsResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="GET",
                path=_PATH,
                id="getBudget",
                handler=self.one,
                scope=Scope.READ,
                tag="Budgets",
                summary="Read a budget",
                answers={200: BudgetView},
                errors=[_NO_BUDGET],
            ),
            Route(
                method="PATCH",
                path=_PATH,
                id="updateBudget",
                handler=self.change,
                scope=Scope.ADMIN,
                tag="Budgets",
                summary="Change a budget",
                answers={200: BudgetView},
                errors=[_BAD_AMOUNT, _NO_BUDGET, _OF_KEY],
            ),
            Route(
                method="DELETE",
                path=_PATH,
                id="deleteBudget",
                handler=self.delete,
                scope=Scope.ADMIN,
                tag="Budgets",
                summary="Delete a budget",
                answers={200: BudgetView},
                errors=[_NO_BUDGET, _OF_KEY],
            ),
        ]

    async def create(self, call: RouteCall, body: CreateBudgetRequest) -> Response:
        """Create a budget. Spending from before in its present period counts.

        A budget of the period `total` counts from its creation.
        """
        return await call.run_once(self._budgets.create(body.wanted()), _created)

    async def page(self, call: RouteCall, query: PageQuery) -> Response:
        """List budgets, newest first."""
        page = await self._budgets.page(limit=query.most, cursor=query.cursor)
        shown = [_show(one) for one in page.budgets]
        return listed(call, ListBudgetsResponse(budgets=shown, next_cursor=page.next_cursor))

    async def one(self, call: RouteCall) -> Response:
        """Read a budget with what is spent and reserved of it."""
        return answer(_show(await self._budgets.get(call.named("budgetId"))))

    async def change(self, call: RouteCall, body: ChangeBudgetRequest) -> Response:
        """Change the fields that are sent."""
        change = self._budgets.change(call.named("budgetId"), body.applied)
        return answer(_show(await call.apply(change)))

    async def delete(self, call: RouteCall, body: NoFields) -> Response:
        """Delete a budget."""
        command = self._budgets.delete(call.named("budgetId"))
        return await call.run_once(command, lambda shown: reply(_show(shown)))


def _created(shown: BudgetShown) -> Reply:
    return reply(_show(shown), 201, {"Location": f"/api/budgets/{shown.budget.id}"})


def _show(shown: BudgetShown) -> BudgetView:
    budget, terms, use = shown.budget, shown.budget.terms, shown.use
    return BudgetView(
        id=budget.id,
        name=terms.name,
        amount=usd(terms.amount),
        period=terms.period,
        tz=terms.tz.key,
        scope=_scope(terms.scope),
        alert_at=list(terms.alert_at),
        on_limit=terms.on_limit,
        spent=usd(use.spent),
        reserved=usd(use.reserved),
        remaining=usd(use.remaining),
        period_start=shown.period_start,
        period_end=shown.period_end,
        created_at=budget.created_at,
        updated_at=budget.updated_at,
        key_limit=budget.key_limit or None,
    )


def _scope(scope: BudgetScope) -> BudgetScopeView:
    tag = None if scope.tag is None else BudgetTagView(name=scope.tag[0], value=scope.tag[1])
    return BudgetScopeView(key_id=scope.key_id, tag=tag)
