# SPDX-License-Identifier: Apache-2.0
"""Schemas of quotes."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from novitai.api.schemas.wire import ResponseModel, Time, absent
from novitai.domain.key_limits import KeyLimit


class QuoteCandidate(ResponseModel):
    """An offer that fits."""

    product_id: str = Field(description="The product's ID at Novita")
    region: str = Field(description="The region of the offer")
    hourly_price: Annotated[
        float,
        Field(
            description="USD per hour for the whole instance while it runs; a create with this "
            "quote never pays more"
        ),
    ]
    storage_per_day: Annotated[
        float, Field(description="USD per day for the part of the root filesystem that is not free")
    ]
    estimated_ready_seconds: int = Field(
        description="How long it will probably take from the create until the instance serves"
    )


class QuoteRefusal(ResponseModel):
    """An offer of the product that does not fit, and why."""

    product_id: str = Field(description="The product's ID at Novita")
    region: str = Field(description="The region of the offer")
    reason: str = Field(description="Why it does not fit, for programs")
    message: str = Field(description="Why it does not fit, for people")


class QuoteBudget(ResponseModel):
    """A budget that would cover the instance."""

    id: str = Field(description="The budget's ID")
    remaining: float = Field(description="USD that are left of it in the present period")
    allows: bool = Field(description="Whether it has enough left for this instance")


class QuoteKeyLimit(ResponseModel):
    """A limit of the API key."""

    limit: KeyLimit = Field(description="The limit")
    allowed: int = Field(description="What it allows")
    wanted: int = Field(description="What there would be with this instance")
    allows: bool = Field(description="Whether it allows this instance")


class QuoteResponse(ResponseModel):
    """The offers that a create with this request would buy now, best first."""

    quote_id: str = Field(description="The quote's ID, which `quoteId` of a create takes")
    expires_at: Time = Field(description="Until when creates may name it")
    candidates: list[QuoteCandidate] = Field(
        description="The offers that fit, in the order in which a create "
        "tries them; empty if none fits"
    )
    refused: list[QuoteRefusal] = Field(description="The other offers of the product")
    budgets: list[QuoteBudget] = Field(description="The budgets that would cover the instance")
    key_limits: Annotated[
        list[QuoteKeyLimit] | None,
        Field(
            description="Other limits of the API key, if it has any; its price limit is in "
            "`refused`, its budget in `budgets`"
        ),
    ] = absent()
    message: Literal["Nothing was bought or reserved"] = Field(
        description="The result in one sentence"
    )
