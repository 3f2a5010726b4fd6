# SPDX-License-Identifier: Apache-2.0
"""Check a request for an instance against the catalogue, for a create and for a quote alike."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.budgets import Wanted, dearest
from novitai.domain.instance import LaunchSpec
from novitai.domain.key_limits import KeyLimits
from novitai.domain.limits import least
from novitai.domain.placement import Candidate, Placement, QuotedOffer, Rejection, Wish, spelling
from novitai.domain.product import ANY_REGION, DEFAULT_REGION, is_any_region
from novitai.domain.requests import CreateRequest
from novitai.errors import FieldError, UpstreamTimeout, ValidationFailed
from novitai.lifecycle.catalogue.catalogue import Catalogue, nearest_names
from novitai.lifecycle.catalogue.upstream_errors import to_api_error
from novitai.lifecycle.operations import launch_spec
from novitai.store.engine.database import Database
from novitai.store.queries import api_keys, instances
from novitai.upstream.errors import UpstreamError

ESTIMATE_FROM: Final = 20
ESTIMATE_UNKNOWN: Final = 240_000
"""Milliseconds that a creation is expected to take if the product has no earlier one."""
_CATALOGUE_SECONDS: Final = 25.0
_REFERENCE_ORDER: Final = ("productName", "templateId", "region")
"""The fields checked against the catalogue, in the order of the API reference's table."""
_ANSWER_WITHIN: Final = 2_000
"""Milliseconds before the request's deadline that are reserved for the commit and the answer."""


@dataclass(frozen=True, slots=True)
class Placed:
    """A request whose fields exist in the catalogue; possibly no offer fits it now.

    Attributes:
        request: The request, with names in Novita's spelling and an explicit region.
        placement: The offers that fit and those that do not.
        launch: The launch settings of the template, overridden by the request's.
        key_limits: The limits of the API key that asks.
    """

    request: CreateRequest
    placement: Placement
    launch: LaunchSpec
    key_limits: KeyLimits | None = None


class RequestPlacer:
    """Checks requests against the catalogue, and against the limits of keys that bound prices."""

    def __init__(self, catalogue: Catalogue, database: Database, clock: Clock) -> None:
        self._catalogue = catalogue
        self._database = database
        self._clock = clock

    async def place(
        self,
        request: CreateRequest,
        deadline: int | None,
        *,
        key_id: str | None,
        quoted: tuple[QuotedOffer, ...] | None = None,
    ) -> Placed:
        """Find what a request would buy now; one error reports all wrong fields.

        Args:
            request: The request; each field has been validated.
            deadline: When the request must be answered, in Unix milliseconds.
            key_id: The API key that asks.
            quoted: The only offers that may be used, if a quote binds the request.

        Raises:
            ValidationFailed: the region, product or template is unknown.
            UpstreamUnavailable: the catalogue was needed and could not be read.
        """
        seconds = _CATALOGUE_SECONDS
        if deadline is not None:
            left = (deadline - self._clock.now() - _ANSWER_WITHIN) / 1000
            seconds = max(0.0, min(seconds, left))
        limits = await self._database.read(partial(api_keys.limits_of, key_id=key_id))
        refusals: list[ValidationFailed] = []
        found = template = None
        try:
            async with asyncio.timeout(seconds):
                try:
                    found = await self._find(request, quoted, limits)
                except ValidationFailed as refusal:
                    refusals.append(refusal)
                try:
                    template = await self._catalogue.template(request.template_id)
                except ValidationFailed as refusal:
                    refusals.append(refusal)
        except TimeoutError:
            raise UpstreamTimeout("Novita did not answer in time") from None
        except UpstreamError as error:
            raise to_api_error(error) from error
        if found is None or template is None:
            raise _joined(refusals)
        return Placed(*found, launch_spec.resolve(template, request), limits)

    async def _find(
        self,
        request: CreateRequest,
        quoted: tuple[QuotedOffer, ...] | None,
        limits: KeyLimits | None,
    ) -> tuple[CreateRequest, Placement]:
        """Place the request; return it with names in Novita's spelling."""
        wanted = request.region or DEFAULT_REGION
        anywhere = is_any_region(wanted)
        wrong: list[ValidationFailed] = []
        try:
            regions = await self._catalogue.allowed_regions(wanted, fallback=request.falls_back)
        except ValidationFailed as refusal:
            wrong.append(refusal)
            regions = await self._catalogue.regions()
        wish = Wish(
            product_name=request.product_name,
            billing_mode=request.billing_mode,
            gpu_num=request.gpu_num,
            rootfs_size=request.rootfs_size,
            regions=regions,
            max_hourly_price=request.max_hourly_price,
            key_max_hourly_price=limits.max_hourly_price if limits else None,
            any_region=anywhere,
            quoted=quoted,
        )
        placement = await self._catalogue.placement(wish)
        if not placement.product_exists:
            names = await self._catalogue.product_names()
            wrong.append(_unknown_product(request.product_name, names))
        if wrong:
            raise _joined(wrong)
        judged: list[Candidate | Rejection] = [*placement.candidates, *placement.rejections]
        spelt = replace(
            request,
            region=ANY_REGION if anywhere else regions[0],
            product_name=spelling(judged[0].offer, request.product_name),
            region_fallback=request.falls_back,
        )
        return spelt, placement


def estimate_ready(connection: Connection, product_name: str) -> int:
    """Return the median duration of the product's last creations, in milliseconds."""
    durations = instances.ready_durations(connection, product_name, ESTIMATE_FROM)
    return int(statistics.median(durations)) if durations else ESTIMATE_UNKNOWN


def wanted_for(placed: Placed) -> Wanted:
    """Return what the first hour of a request may cost: the price of its dearest candidate."""
    request = placed.request
    prices = [one.price for one in placed.placement.candidates]
    highest = dearest(prices, request.gpu_num, instances.to_units(request.max_hourly_price))
    own, of_key = request.limits, placed.key_limits
    longest = least(
        own.max_run_minutes if own else None, of_key.max_run_minutes if of_key else None
    )
    return Wanted.of(highest, longest)


def _unknown_product(name: str, names: Sequence[str]) -> ValidationFailed:
    """Make the error for an unknown product; it suggests the most similar names."""
    nearest = nearest_names(name, names)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    return ValidationFailed(
        f"Product '{name}' does not exist{hint}",
        code="INVALID_PRODUCT_NAME",
        details=[FieldError("productName", f"Product does not exist{hint}", name)],
    )


def _joined(refusals: Sequence[ValidationFailed]) -> ValidationFailed:
    """Join errors into one, as validation does; a single wrong field keeps its error code."""
    if len(refusals) == 1:
        return refusals[0]
    details = [one for refusal in refusals for one in refusal.details or ()]
    fields = [one for one in details if isinstance(one, FieldError)]
    fields.sort(key=lambda one: _REFERENCE_ORDER.index(one.field))
    return ValidationFailed("Validation failed", details=fields)
