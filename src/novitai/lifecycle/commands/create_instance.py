# SPDX-License-Identifier: Apache-2.0
"""Accept a request for an instance: commit instance, operation, first event and answer together."""

from __future__ import annotations

import asyncio
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from sqlalchemy import Connection

from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus, LaunchSpec
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.placement import Wish, spelling
from novitai.domain.product import ANY_REGION, DEFAULT_REGION, is_any_region
from novitai.domain.requests import CreateRequest
from novitai.errors import (
    ApiError,
    Conflict,
    FieldError,
    UpstreamTimeout,
    ValidationFailed,
)
from novitai.lifecycle.catalogue.catalogue import Catalogue, nearest_names
from novitai.lifecycle.catalogue.upstream_errors import to_api_error
from novitai.lifecycle.commands.idempotency import Command
from novitai.lifecycle.core import Core
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.create import CreateVerb
from novitai.store.queries import instances, operations
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
class Created:
    """An accepted request. `estimated_ready_at` is in Unix milliseconds."""

    instance_id: str
    estimated_ready_at: int


class CreateCommand:
    """Accepts requests for instances."""

    def __init__(
        self,
        core: Core,
        catalogue: Catalogue,
        *,
        placement_deadline: float,
    ) -> None:
        self._catalogue = catalogue
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._placement_deadline = placement_deadline

    def create(self, request: CreateRequest) -> Command[Created]:
        """Accept a request: instance, operation and first event in one commit.

        Nothing is bought here; the operation's steps do that after the answer.

        Args:
            request: The request; each field has been validated.

        Raises:
            ValidationFailed: the region, product or template is unknown.
            Conflict: `NO_CAPACITY`: no offer fits.
            UpstreamUnavailable: the catalogue was needed and could not be read.
        """

        async def resolve(deadline: int | None) -> Callable[[Connection], Created]:
            placed, spec = await self._resolve(request, deadline)
            instance, operation = self._make(placed)
            sealed = launch_spec.seal(self._vault, spec)
            return partial(self._commit, instance=instance, operation=operation, sealed=sealed)

        return Command(resolve)

    async def _resolve(
        self, request: CreateRequest, deadline: int | None
    ) -> tuple[CreateRequest, LaunchSpec]:
        """Check the request against the catalogue; one error reports all wrong fields."""
        seconds = _CATALOGUE_SECONDS
        if deadline is not None:
            left = (deadline - self._clock.now() - _ANSWER_WITHIN) / 1000
            seconds = max(0.0, min(seconds, left))
        refusals: list[ApiError] = []
        placed = template = None
        try:
            async with asyncio.timeout(seconds):
                try:
                    placed = await self._place(request)
                except ApiError as refusal:
                    refusals.append(refusal)
                try:
                    template = await self._catalogue.template(request.template_id)
                except ValidationFailed as refusal:
                    refusals.append(refusal)
        except TimeoutError:
            raise UpstreamTimeout("Novita did not answer in time") from None
        except UpstreamError as error:
            raise to_api_error(error) from error
        if placed is None or template is None:
            raise _joined(refusals)
        return placed, launch_spec.resolve(template, request)

    async def _place(self, request: CreateRequest) -> CreateRequest:
        """Check that an offer fits now; return the request with names in Novita's spelling."""
        # Other regions are allowed if the request says so, or if it names no region.
        falls_back = request.region_fallback or request.region is None
        wanted = request.region or DEFAULT_REGION
        anywhere = is_any_region(wanted)
        wrong: list[ApiError] = []
        try:
            regions = await self._catalogue.allowed_regions(wanted, fallback=falls_back)
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
            any_region=anywhere,
        )
        placement = await self._catalogue.placement(wish)
        if not placement.product_exists:
            names = await self._catalogue.product_names()
            wrong.append(_unknown_product(request.product_name, names))
        if wrong:
            raise _joined(wrong)
        if not placement.candidates:
            raise Conflict(
                f"No offer of '{request.product_name}' fits this request now",
                code="NO_CAPACITY",
                details=[rejection.details() for rejection in placement.rejections],
            )
        spelt = spelling(placement.candidates[0].offer, request.product_name)
        region = ANY_REGION if anywhere else regions[0]
        return replace(request, region=region, product_name=spelt, region_fallback=falls_back)

    def _make(self, request: CreateRequest) -> tuple[Instance, Operation]:
        now = self._clock.now()
        instance = Instance(
            id=self._ids.instance(now),
            name=request.name,
            status=InstanceStatus.CREATING,
            product_name=request.product_name,
            template_id=request.template_id,
            gpu_num=request.gpu_num,
            rootfs_size=request.rootfs_size,
            region=request.region or DEFAULT_REGION,
            billing_mode=request.billing_mode,
            created_at=now,
            updated_at=now,
            region_fallback=request.region_fallback,
            max_hourly_price=request.max_hourly_price,
            webhook_url=request.webhook_url,
        )
        operation = Operation.begin(
            self._ids.prefixed("op"),
            OperationKind.CREATE,
            instance.id,
            CreateVerb.first_phase,
            now,
            deadline_at=now + int(self._placement_deadline * 1000),
        )
        return instance, operation

    def _commit(
        self, connection: Connection, instance: Instance, operation: Operation, sealed: bytes
    ) -> Created:
        instances.insert(connection, instance, sealed)
        operations.insert(connection, operation)
        self._recorder.append(connection, instance, operation, EventType.CREATED)
        self._jobs.nudge(connection, operation.kind.job, operation.id)
        return Created(instance.id, instance.created_at + _estimate(connection, instance))


def _estimate(connection: Connection, instance: Instance) -> int:
    """Return the median duration of the product's last creations, in milliseconds."""
    durations = instances.ready_durations(connection, instance.product_name, ESTIMATE_FROM)
    return int(statistics.median(durations)) if durations else ESTIMATE_UNKNOWN


def _unknown_product(name: str, names: Sequence[str]) -> ValidationFailed:
    """Make the error for an unknown product; it suggests the most similar names."""
    nearest = nearest_names(name, names)
    hint = f"; the nearest are {', '.join(nearest)}" if nearest else ""
    return ValidationFailed(
        f"Product '{name}' does not exist{hint}",
        code="INVALID_PRODUCT_NAME",
        details=[FieldError("productName", f"Product does not exist{hint}", name)],
    )


def _joined(refusals: Sequence[ApiError]) -> ApiError:
    """Join errors into one, as validation does; a single wrong field keeps its error code."""
    wrong = [one for one in refusals if isinstance(one, ValidationFailed)]
    if len(wrong) <= 1:
        return (wrong or refusals)[0]
    details = [one for refusal in wrong for one in refusal.details or ()]
    fields = [one for one in details if isinstance(one, FieldError)]
    fields.sort(key=lambda one: _REFERENCE_ORDER.index(one.field))
    return ValidationFailed("Validation failed", details=fields)
