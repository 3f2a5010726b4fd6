# SPDX-License-Identifier: Apache-2.0
"""Costs, quotes and budgets. Amounts are in USD."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from novitai_client.models.instances import Cost
from novitai_client.wire import Model, Open
from novitai_client.words import BillState, BudgetAction, BudgetPeriod, KeyLimit, SpanKind


class CostPart(Model):
    """The bounds of a part of the costs: `accrued` rounded down, `accrued_at_most` rounded up."""

    accrued: float
    accrued_at_most: float


class BillingSpan(Model):
    """A time in which one rate is billed.

    It began after `began_after`, and by `began_by` at the latest; it ended after `ended_after`,
    and by `ended_by` at the latest. Without `began_by` it may not have begun at all; without an
    end it is open. Without `hourly_rate` the price is unknown.

    Attributes:
        hourly_rate: USD per hour.
    """

    kind: Open[SpanKind]
    hourly_rate: float | None = None
    began_after: datetime
    began_by: datetime | None = None
    ended_after: datetime | None = None
    ended_by: datetime | None = None


class InstanceCost(Cost):
    """The costs of an instance, with their parts and the spans of the ledger."""

    instance_id: str
    gpu: CostPart
    storage: CostPart
    spans: list[BillingSpan]


class CostRow(Model):
    """The costs of one group; `bucket` is when the period begins, if periods were asked for.

    Attributes:
        key: The group; empty for instances without the tag or the key.
        amount: USD that are certainly billed.
        amount_at_most: USD that may be billed.
        gpu_hours: GPU-hours that are certainly billed.
    """

    key: str
    bucket: datetime | None = None
    amount: float
    amount_at_most: float
    gpu_hours: float


class Costs(Model):
    """The costs of `[from, to)`. The rows add up to the totals exactly."""

    currency: str = "USD"
    from_: datetime = Field(alias="from")
    to: datetime
    total: float
    total_at_most: float
    rows: list[CostRow]


class CostSummary(Model):
    """What is spent now: `burn_per_hour`, and what this day and this month have certainly cost.

    `balance` is Novita's and at most a minute old; it is absent if Novita does not tell it.
    `runway_hours` is how long it lasts at the present burn.
    """

    currency: str = "USD"
    burn_per_hour: float
    today: float
    this_month: float
    balance: float | None = None
    runway_hours: float | None = None
    as_of: datetime


class ReconciledRow(Model):
    """The costs of an upstream instance, compared with Novita's bills for it. Amounts are in USD.

    `ours`, `ours_at_most`, `billed` and `difference` are of the hours whose bills are known.

    Attributes:
        upstream_id: The billed ID.
        instance_id: The record that pays it; absent for an unknown owner.
        ours: The amount that is certainly billed, by the ledger.
        ours_at_most: The amount that may be billed, by the ledger; absent if a price is
            unknown.
        billed: The sum of Novita's bills, before vouchers.
        difference: The amount billed above `ours_at_most`, or, negative, below `ours`; else
            0.
        before_adoption: The bills from before the adoption; not part of `billed`.
        pending: The certain amount of the hours that are not billed yet.
    """

    upstream_id: str
    instance_id: str | None = None
    name: str | None = None
    state: Open[BillState]
    ours: float
    ours_at_most: float | None = None
    billed: float
    difference: float
    before_adoption: float | None = None
    pending: float


class ReconciledTotals(Model):
    """The sums of the rows, and `unmanaged`: what was billed for instances while no record pays."""

    ours: float
    ours_at_most: float | None = None
    billed: float
    difference: float
    before_adoption: float
    pending: float
    unmanaged: float


class Reconciliation(Model):
    """The costs of the hours that begin in `[from, to)`, compared with Novita's bills.

    `from` and `to` are full hours. Bills are known until `bill_known_until`; it is absent
    before the first bill was read.
    """

    currency: str = "USD"
    from_: datetime = Field(alias="from")
    to: datetime
    bill_known_until: datetime | None = None
    totals: ReconciledTotals
    rows: list[ReconciledRow]


class QuoteCandidate(Model):
    """An offer that fits; the prices are in USD for the whole instance.

    Attributes:
        hourly_price: While it runs; a create with this quote never pays more.
        storage_per_day: For the part of the root filesystem that is not free.
    """

    product_id: str
    region: str
    hourly_price: float
    storage_per_day: float
    estimated_ready_seconds: int


class QuoteRefusal(Model):
    """An offer of the product that does not fit, and why."""

    product_id: str
    region: str
    reason: str
    message: str


class QuoteBudget(Model):
    """A budget that applies; `remaining` is in USD."""

    id: str
    remaining: float
    allows: bool


class QuoteKeyLimit(Model):
    """A limit of the API key: what it allows, and what there would be with this instance."""

    limit: Open[KeyLimit]
    allowed: int
    wanted: int
    allows: bool


class Quote(Model):
    """The offers that a create with this request would buy now, best first.

    Attributes:
        key_limits: Other limits of the API key, if it has any; its price limit is in
            `refused`, its budget in `budgets`.
    """

    quote_id: str
    expires_at: datetime
    candidates: list[QuoteCandidate]
    refused: list[QuoteRefusal]
    budgets: list[QuoteBudget]
    key_limits: list[QuoteKeyLimit] | None = None
    message: str


class BudgetTag(Model):
    """A tag that instances have."""

    name: str
    value: str


class BudgetScope(Model):
    """The instances of a budget; empty: all."""

    key_id: str | None = None
    tag: BudgetTag | None = None


class Budget(Model):
    """A budget, and what is spent and reserved of it in the present period, in USD.

    Attributes:
        spent: The most that may be billed.
        reserved: For the first hours of runs, less what they have spent.
        period_end: Absent for `total`.
        key_limit: `true` if it is a limit of the key, so that it cannot be changed.
    """

    id: str
    name: str
    amount: float
    period: Open[BudgetPeriod]
    tz: str
    scope: BudgetScope
    alert_at: list[int]
    on_limit: Open[BudgetAction]
    spent: float
    reserved: float
    remaining: float
    period_start: datetime
    period_end: datetime | None = None
    created_at: datetime
    updated_at: datetime
    key_limit: bool | None = None
