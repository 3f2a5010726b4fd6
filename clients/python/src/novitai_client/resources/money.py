# SPDX-License-Identifier: Apache-2.0
"""Quotes, costs and budgets. Amounts are in USD."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final, Literal, Unpack

from novitai_client.models.money import Budget, Costs, CostSummary, Quote, Reconciliation
from novitai_client.requests import BudgetChangeFields, BudgetFields, QuoteFields, Time
from novitai_client.surface import IteratorMethod, Method, Mode, Resource
from novitai_client.wire import body, path, query

_BUDGETS: Final = "/api/budgets"
Bucket = Literal["hour", "day", "week", "month"]


class Quotes(Resource[Mode]):
    """Quotes: what a create would buy now, and at which price."""

    @Method
    async def create(
        self, *, idempotency_key: str | None = None, **fields: Unpack[QuoteFields]
    ) -> Quote:
        """Ask for the offers that fit, best first. Nothing is bought or reserved.

        Example:
            quote = client.quotes.create(
                name="trainer", product_name="gpu-basic", template_id="tmpl-12345"
            )
            print(quote.candidates[0].hourly_price)
        """
        return await self._api.fetch(
            Quote, "POST", "/api/quotes", content=body(fields), key=idempotency_key
        )


class CostReports(Resource[Mode]):
    """Costs of the account."""

    @Method
    async def get(
        self,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        group_by: str | None = None,
        bucket: Bucket | None = None,
        tz: str | None = None,
    ) -> Costs:
        """Read the costs of a time.

        Args:
            from_: By default, the first of this month.
            to: By default, now.
            group_by: `instance` (default), `product`, `region`, `billingMode`, `key` or
                `tag:<name>`.
            bucket: One row for each period.
            tz: The IANA name of a time zone.

        Example:
            for row in client.costs.get(group_by="tag:team").rows:
                print(row.key, row.amount)
        """
        wanted = query(from_=from_, to=to, group_by=group_by, bucket=bucket, tz=tz)
        return await self._api.fetch(Costs, "GET", "/api/costs", query=wanted)

    @Method
    async def csv(
        self,
        *,
        from_: Time | None = None,
        to: Time | None = None,
        group_by: str | None = None,
        bucket: Bucket | None = None,
        tz: str | None = None,
    ) -> str:
        """Read the costs of a time as CSV; the arguments are those of `get`.

        Example:
            print(client.costs.csv(bucket="day"))
        """
        wanted = query(from_=from_, to=to, group_by=group_by, bucket=bucket, tz=tz)
        accept = {"Accept": "text/csv"}
        answer = await self._api.send("GET", "/api/costs", query=wanted, headers=accept)
        return answer.content.decode()

    @Method
    async def summary(self, *, tz: str | None = None) -> CostSummary:
        """Read what is spent now, today and this month.

        Example:
            print(client.costs.summary().burn_per_hour)
        """
        return await self._api.fetch(CostSummary, "GET", "/api/costs/summary", query=query(tz=tz))

    @Method
    async def reconciliation(
        self, *, from_: Time | None = None, to: Time | None = None
    ) -> Reconciliation:
        """Compare the costs with Novita's bills.

        Example:
            print(client.costs.reconciliation().totals.difference)
        """
        place, wanted = "/api/costs/reconciliation", query(from_=from_, to=to)
        return await self._api.fetch(Reconciliation, "GET", place, query=wanted)


class Budgets(Resource[Mode]):
    """Budgets."""

    @Method
    async def create(
        self, *, idempotency_key: str | None = None, **fields: Unpack[BudgetFields]
    ) -> Budget:
        """Create a budget.

        Example:
            client.budgets.create(name="ci", amount=20, period="day", on_limit="refuse")
        """
        return await self._api.fetch(
            Budget, "POST", _BUDGETS, content=body(fields), key=idempotency_key
        )

    @IteratorMethod
    async def list(self, *, limit: int | None = None) -> AsyncGenerator[Budget, None]:
        """Iterate over all budgets, newest first.

        Example:
            for budget in client.budgets.list():
                print(budget.name, budget.remaining)
        """
        async for one in self._api.pages(Budget, _BUDGETS, "budgets", query(limit=limit)):
            yield one

    @Method
    async def get(self, budget_id: str) -> Budget:
        """Read a budget.

        Example:
            print(client.budgets.get("bud_1").spent)
        """
        return await self._api.fetch(Budget, "GET", path("api", "budgets", budget_id))

    @Method
    async def update(self, budget_id: str, **changes: Unpack[BudgetChangeFields]) -> Budget:
        """Change a budget. None restores a default; others are kept.

        Example:
            client.budgets.update("bud_1", amount=50)
        """
        return await self._api.fetch(
            Budget,
            "PATCH",
            path("api", "budgets", budget_id),
            content=body(changes, nulls=True),
            headers={"Content-Type": "application/merge-patch+json"},
        )

    @Method
    async def delete(self, budget_id: str, *, idempotency_key: str | None = None) -> Budget:
        """Delete a budget.

        Example:
            client.budgets.delete("bud_1")
        """
        place = path("api", "budgets", budget_id)
        return await self._api.fetch(Budget, "DELETE", place, key=idempotency_key)
