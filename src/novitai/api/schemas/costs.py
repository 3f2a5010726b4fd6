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


@with_config(CLOSED)
class CostRowView(TypedDict, total=False):
    """The costs of one group, in one period if `bucket` is given."""

    key: Required[
        Annotated[
            str, Field(description="The group; empty for instances without the tag or the key")
        ]
    ]
    bucket: Annotated[
        IsoTime | None,
        Field(description="When the period begins; absent without `bucket` in the query"),
    ]
    amount: Required[Annotated[float, Field(description="USD that are certainly billed")]]
    amountAtMost: Required[Annotated[float, Field(description="USD that may be billed")]]
    gpuHours: Required[Annotated[float, Field(description="GPU-hours that are certainly billed")]]


CostsResponse = TypedDict(
    "CostsResponse",
    {
        "currency": Annotated[Literal["USD"], Field(description="The currency of all amounts")],
        "from": Annotated[
            IsoTime, Field(description="The begin of the interval, which belongs to it")
        ],
        "to": Annotated[IsoTime, Field(description="The end of the interval, which does not")],
        "total": Annotated[float, Field(description="The sum of `amount` over all rows")],
        "totalAtMost": Annotated[
            float, Field(description="The sum of `amountAtMost` over all rows")
        ],
        "rows": Annotated[
            list[CostRowView], Field(description="The costs of each group and period")
        ],
    },
)
CostsResponse.__doc__ = "The costs of `[from, to)`. The rows add up to the totals exactly."
with_config(CLOSED)(CostsResponse)


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


@with_config(CLOSED)
class ReconciledRow(TypedDict, total=False):
    """The costs of an upstream instance, compared with Novita's bills for it."""

    upstreamId: Required[Annotated[str, Field(description="The ID that Novita has billed")]]
    instanceId: Annotated[
        str | None, Field(description="The record that pays it; absent for an unknown owner")
    ]
    name: Annotated[str | None, Field(description="The name of that record")]
    state: Required[
        Annotated[
            BillState,
            Field(
                description="Whether the bill lies between the bounds, above or below "
                "them, is not there yet, or has no known owner"
            ),
        ]
    ]
    ours: Required[
        Annotated[
            float,
            Field(
                description="USD that are certainly billed, by the ledger, for the "
                "hours whose bills are known"
            ),
        ]
    ]
    oursAtMost: Annotated[
        float | None,
        Field(
            description="USD that may be billed, by the ledger, for the same hours; absent if a "
            "price is unknown"
        ),
    ]
    billed: Required[
        Annotated[
            float,
            Field(description="The sum of Novita's bills for these hours in USD, before vouchers"),
        ]
    ]
    difference: Required[
        Annotated[
            float,
            Field(description="USD billed above `oursAtMost`, or, negative, below `ours`; else 0"),
        ]
    ]
    beforeAdoption: Annotated[
        float | None,
        Field(
            description="USD billed before the adoption, not part of `billed`; absent if there is "
            "none"
        ),
    ]
    pending: Required[
        Annotated[
            float,
            Field(
                description="USD that are certainly billed, by the ledger, for the "
                "hours that have no bill yet"
            ),
        ]
    ]


@with_config(CLOSED)
class ReconciledTotals(TypedDict, total=False):
    """The sums of the rows, in USD, and what was billed for instances while no record paid them."""

    ours: Required[Annotated[float, Field(description="The sum of `ours`")]]
    oursAtMost: Annotated[
        float | None, Field(description="The sum of `oursAtMost`; absent if a price is unknown")
    ]
    billed: Required[Annotated[float, Field(description="The sum of `billed`")]]
    difference: Required[Annotated[float, Field(description="The sum of `difference`")]]
    beforeAdoption: Required[Annotated[float, Field(description="The sum of `beforeAdoption`")]]
    pending: Required[Annotated[float, Field(description="The sum of `pending`")]]
    unmanaged: Required[
        Annotated[
            float,
            Field(
                description="USD billed for instances while no record paid them; they have no rows"
            ),
        ]
    ]


ReconciliationResponse = TypedDict(
    "ReconciliationResponse",
    {
        "currency": Required[
            Annotated[Literal["USD"], Field(description="The currency of all amounts")]
        ],
        "from": Required[
            Annotated[IsoTime, Field(description="The begin of the interval, a full hour")]
        ],
        "to": Required[
            Annotated[IsoTime, Field(description="The end of the interval, a full hour")]
        ],
        "billKnownUntil": Annotated[
            IsoTime | None,
            Field(description="Until when bills are known; absent before the first one was read"),
        ],
        "totals": Required[Annotated[ReconciledTotals, Field(description="The sums of the rows")]],
        "rows": Required[
            Annotated[
                list[ReconciledRow],
                Field(description="The comparison of each upstream instance"),
            ]
        ],
    },
    total=False,
)
ReconciliationResponse.__doc__ = (
    "The costs of the hours that begin in `[from, to)`, compared with Novita's bills."
)
with_config(CLOSED)(ReconciliationResponse)
