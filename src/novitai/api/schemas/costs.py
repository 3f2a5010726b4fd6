# SPDX-License-Identifier: Apache-2.0
"""Schemas of costs. Amounts are in USD."""

from __future__ import annotations

from typing import Annotated, Literal, Required

from pydantic import Field, with_config
from typing_extensions import TypedDict

from novitai.api.schemas.wire import ResponseModel, Time, absent
from novitai.domain.billing import SpanKind
from novitai.domain.instance_details import CLOSED, CostView, IsoTime
from novitai.domain.reconciliation import BillState


@with_config(CLOSED)
class CostPart(TypedDict):
    """The bounds of a part of the costs."""

    accrued: Annotated[float, Field(description="USD that are certainly billed, rounded down")]
    accruedAtMost: Annotated[float, Field(description="USD that may be billed, rounded up")]


@with_config(CLOSED)
class SpanView(TypedDict, total=False):
    """A time in which one rate is billed.

    It began after `beganAfter`, and by `beganBy` at the latest; it ended after `endedAfter`, and by
    `endedBy` at the latest.
    """

    kind: Required[
        Annotated[SpanKind, Field(description="Whether the GPUs or the disk are billed")]
    ]
    hourlyRate: Annotated[
        float | None, Field(description="USD per hour; absent if the price is unknown")
    ]
    beganAfter: Required[
        Annotated[IsoTime, Field(description="The last moment at which it had certainly not begun")]
    ]
    beganBy: Annotated[
        IsoTime | None,
        Field(
            description="The first moment at which it had certainly begun; absent if it "
            "may not have begun at all"
        ),
    ]
    endedAfter: Annotated[
        IsoTime | None,
        Field(
            description="The last moment at which it had certainly not ended; absent "
            "while it is open"
        ),
    ]
    endedBy: Annotated[
        IsoTime | None,
        Field(
            description="The first moment at which it had certainly ended; absent while it is open"
        ),
    ]


@with_config(CLOSED)
class InstanceCostResponse(CostView):
    """The costs of an instance, with their parts and the spans of the ledger."""

    instanceId: Annotated[str, Field(description="The instance's ID")]
    gpu: Annotated[CostPart, Field(description="The costs of the GPUs")]
    storage: Annotated[CostPart, Field(description="The costs of the disk")]
    spans: Annotated[
        list[SpanView], Field(description="The times in which one rate is billed, oldest first")
    ]


class CostRowView(ResponseModel):
    """The costs of one group, in one period if `bucket` is given."""

    key: str = Field(description="The group; empty for instances without the tag or the key")
    bucket: Time | None = absent("When the period begins; absent without `bucket` in the query")
    amount: float = Field(description="USD that are certainly billed")
    amount_at_most: float = Field(description="USD that may be billed")
    gpu_hours: float = Field(description="GPU-hours that are certainly billed")


class CostsResponse(ResponseModel):
    """The costs of `[from, to)`. The rows add up to the totals exactly."""

    currency: Literal["USD"] = Field(description="The currency of all amounts")
    since: Annotated[
        Time, Field(alias="from", description="The begin of the interval, which belongs to it")
    ]
    until: Annotated[Time, Field(alias="to", description="The end of the interval, which does not")]
    total: float = Field(description="The sum of `amount` over all rows")
    total_at_most: float = Field(description="The sum of `amountAtMost` over all rows")
    rows: list[CostRowView] = Field(description="The costs of each group and period")


class CostSummaryResponse(ResponseModel):
    """The present burn, and the certain costs of this day and this month."""

    currency: Literal["USD"] = Field(description="The currency of all amounts")
    burn_per_hour: float = Field(description="USD per hour of everything that is billed now")
    today: float = Field(description="USD that this day has certainly cost, in the time zone `tz`")
    this_month: float = Field(
        description="USD that this month has certainly cost, in the time zone `tz`"
    )
    balance: float | None = absent(
        "Novita's balance in USD, at most a minute old; absent if Novita does not tell it"
    )
    runway_hours: float | None = absent(
        "How many hours the balance lasts at the present burn; absent without a balance or a burn"
    )
    as_of: Time = Field(
        description="When the last listing of the account began; the amounts are those up to then"
    )


class ReconciledRow(ResponseModel):
    """The costs of an upstream instance, compared with Novita's bills for it."""

    upstream_id: str = Field(description="The ID that Novita has billed")
    instance_id: str | None = absent("The record that pays it; absent for an unknown owner")
    name: str | None = absent("The name of that record")
    state: BillState = Field(
        description="Whether the bill lies between the bounds, above or below "
        "them, is not there yet, or has no known owner"
    )
    ours: float = Field(
        description="USD that are certainly billed, by the ledger, for the "
        "hours whose bills are known"
    )
    ours_at_most: float | None = absent(
        "USD that may be billed, by the ledger, for the same hours; absent if a price is unknown"
    )
    billed: float = Field(
        description="The sum of Novita's bills for these hours in USD, before vouchers"
    )
    difference: float = Field(
        description="USD billed above `oursAtMost`, or, negative, below `ours`; else 0"
    )
    before_adoption: float | None = absent(
        "USD billed before the adoption, not part of `billed`; absent if there is none"
    )
    pending: float = Field(
        description="USD that are certainly billed, by the ledger, for the "
        "hours that have no bill yet"
    )


class ReconciledTotals(ResponseModel):
    """The sums of the rows, in USD, and what was billed for instances while no record paid them."""

    ours: float = Field(description="The sum of `ours`")
    ours_at_most: float | None = absent("The sum of `oursAtMost`; absent if a price is unknown")
    billed: float = Field(description="The sum of `billed`")
    difference: float = Field(description="The sum of `difference`")
    before_adoption: float = Field(description="The sum of `beforeAdoption`")
    pending: float = Field(description="The sum of `pending`")
    unmanaged: float = Field(
        description="USD billed for instances while no record paid them; they have no rows"
    )


class ReconciliationResponse(ResponseModel):
    """The costs of the hours that begin in `[from, to)`, compared with Novita's bills."""

    currency: Literal["USD"] = Field(description="The currency of all amounts")
    since: Annotated[
        Time, Field(alias="from", description="The begin of the interval, a full hour")
    ]
    until: Annotated[Time, Field(alias="to", description="The end of the interval, a full hour")]
    bill_known_until: Time | None = absent(
        "Until when bills are known; absent before the first one was read"
    )
    totals: ReconciledTotals = Field(description="The sums of the rows")
    rows: list[ReconciledRow] = Field(description="The comparison of each upstream instance")
