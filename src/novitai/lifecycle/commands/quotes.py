# SPDX-License-Identifier: Apache-2.0
"""Quotes: say what a request would buy now, and bind later creates to these prices."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.budgets import Payer
from novitai.domain.key_limits import KeyRoom
from novitai.domain.placement import Placement, QuotedOffer
from novitai.domain.quote import VALID_FOR, BudgetRoom, Quote, QuotedTerms
from novitai.domain.requests import CreateRequest
from novitai.errors import Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Command
from novitai.lifecycle.commands.placing import Placed, RequestPlacer, estimate_ready, wanted_for
from novitai.lifecycle.core import Core
from novitai.lifecycle.money import admission, key_limits
from novitai.store.queries import quotes


@dataclass(frozen=True, slots=True)
class Quoted:
    """A stored quote, with the placement it was made from.

    Attributes:
        quote: The quote.
        placement: The candidates and the rejected offers.
        ready_within: How long a creation is expected to take, in milliseconds.
        budgets: The budgets that apply.
        key_limits: The limits of the key, and whether each allows the request.
    """

    quote: Quote
    placement: Placement
    ready_within: int
    budgets: tuple[BudgetRoom, ...]
    key_limits: tuple[KeyRoom, ...] = ()


class Quotes:
    """Makes and checks quotes. A quote buys and reserves nothing."""

    def __init__(self, core: Core, placer: RequestPlacer) -> None:
        self._database = core.database
        self._clock = core.clock
        self._ids = core.ids
        self._placer = placer

    def make(self, request: CreateRequest, *, actor: Actor) -> Command[Quoted]:
        """Store what a request would buy now, with the price of each candidate.

        The quote has no candidates if no offer fits now.

        Args:
            request: The request; each field has been validated.
            actor: Who makes it; the budgets and limits of its key apply.

        Raises:
            ValidationFailed: the region, product or template is unknown.
            UpstreamUnavailable: the catalogue was needed and could not be read.
        """

        async def prepare(deadline: int | None) -> Callable[[Connection], Quoted]:
            placed = await self._placer.place(request, deadline, key_id=actor.key_id)
            payer = Payer(actor.key_id, request.tags)
            return partial(self._commit, placed=placed, quote=self._quote(placed), payer=payer)

        return Command(prepare)

    async def valid(self, quote_id: str, request: CreateRequest) -> Quote:
        """Return the quote that a request names.

        Raises:
            Conflict: `QUOTE_EXPIRED`: it has expired or does not exist.
            ValidationFailed: `QUOTE_MISMATCH`: the request differs from the quoted one.
        """
        quote = await self._database.read(lambda connection: quotes.load(connection, quote_id))
        if quote is None or quote.expires_at <= self._clock.now():
            raise Conflict(
                "The quote has expired or does not exist; ask for another one",
                code="QUOTE_EXPIRED",
            )
        wrong = quote.terms.differences(QuotedTerms.of(request))
        if wrong:
            raise ValidationFailed(
                "The request differs from the quoted one",
                code="QUOTE_MISMATCH",
                details=[
                    FieldError(field, f"Must be as quoted: {quoted}", has_value=False)
                    for field, quoted in wrong
                ],
            )
        return quote

    def _quote(self, placed: Placed) -> Quote:
        now = self._clock.now()
        return Quote(
            id=self._ids.prefixed("quote"),
            created_at=now,
            expires_at=now + VALID_FOR,
            terms=QuotedTerms.of(placed.request),
            offers=tuple(
                QuotedOffer(*candidate.key, candidate.offer.cluster.region, candidate.price)
                for candidate in placed.placement.candidates
            ),
        )

    def _commit(self, connection: Connection, placed: Placed, quote: Quote, payer: Payer) -> Quoted:
        quotes.insert(connection, quote)
        ready_within = estimate_ready(connection, placed.request.product_name)
        rooms = admission.rooms(connection, payer, wanted_for(placed), quote.created_at)
        of_key = key_limits.rooms(connection, payer.key_id, placed.key_limits, placed.request)
        return Quoted(quote, placed.placement, ready_within, rooms, of_key)
