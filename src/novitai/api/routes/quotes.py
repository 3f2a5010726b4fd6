# SPDX-License-Identifier: Apache-2.0
"""`/api/quotes`: what a create would buy now."""

from __future__ import annotations

import math

from starlette.responses import Response

from novitai.api.http.answers import reply
from novitai.api.routes.instances import UNPLACEABLE
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.instances import QuoteRequest
from novitai.api.schemas.quotes import (
    QuoteBudget,
    QuoteCandidate,
    QuoteKeyLimit,
    QuoteRefusal,
    QuoteResponse,
)
from novitai.domain.api_key import Scope
from novitai.domain.product import usd
from novitai.domain.quote import storage_per_day
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.commands.quotes import Quoted, Quotes


class QuoteRoutes:
    """Handlers of the quote routes."""

    def __init__(self, quotes: Quotes) -> None:
        self._quotes = quotes

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="POST",
                path="/api/quotes",
                id="createQuote",
                handler=self.make,
                scope=Scope.READ,
                tag="Quotes",
                summary="Quote an instance",
                answers={201: QuoteResponse},
                errors=UNPLACEABLE,
            )
        ]

    async def make(self, call: RouteCall, body: QuoteRequest) -> Response:
        """Say what a create with this body would buy now, and at which prices.

        Nothing is bought or reserved. Any number of creates may name the quote for 5 minutes.
        """
        return await call.run_once(self._quotes.make(body.wanted(), actor=call.actor), _quoted)


def _quoted(quoted: Quoted) -> Reply:
    quote = quoted.quote
    terms = quote.terms
    made = QuoteResponse(
        quote_id=quote.id,
        expires_at=quote.expires_at,
        candidates=[
            QuoteCandidate(
                product_id=offer.product_id,
                region=offer.region,
                hourly_price=usd(offer.price * terms.gpu_num),
                storage_per_day=usd(storage_per_day(terms.rootfs_size)),
                estimated_ready_seconds=math.ceil(quoted.ready_within / 1000),
            )
            for offer in quote.offers
        ],
        refused=[
            QuoteRefusal(
                product_id=one.offer.product_id,
                region=one.offer.cluster.region,
                reason=one.reason.value,
                message=one.message,
            )
            for one in quoted.placement.rejections
        ],
        budgets=[
            QuoteBudget(id=one.id, remaining=usd(one.remaining), allows=one.allows)
            for one in quoted.budgets
        ],
        key_limits=[
            QuoteKeyLimit(
                limit=one.limit, allowed=one.allowed, wanted=one.wanted, allows=one.allows
            )
            for one in quoted.key_limits
        ]
        or None,
        message="Nothing was bought or reserved",
    )
    return reply(made, 201)
