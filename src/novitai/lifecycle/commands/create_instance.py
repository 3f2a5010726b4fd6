# SPDX-License-Identifier: Apache-2.0
"""Accept a request for an instance: commit instance, operation, first event and answer together."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from novitai.domain.actor import Actor
from novitai.domain.event import EventType
from novitai.domain.instance import Instance, InstanceStatus
from novitai.domain.key_limits import KeyLimit
from novitai.domain.operation import Operation, OperationKind
from novitai.domain.placement import RejectionReason
from novitai.domain.product import DEFAULT_REGION, usd
from novitai.domain.requests import CreateRequest
from novitai.errors import Conflict
from novitai.lifecycle.commands.idempotency import Command
from novitai.lifecycle.commands.placing import Placed, RequestPlacer, estimate_ready, wanted_for
from novitai.lifecycle.commands.quotes import Quotes
from novitai.lifecycle.core import Core
from novitai.lifecycle.limits.reviews import LimitReviews
from novitai.lifecycle.money import admission, key_limits
from novitai.lifecycle.operations import launch_spec
from novitai.lifecycle.operations.create import CreateVerb
from novitai.store.queries import instances, operations


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
        placer: RequestPlacer,
        quotes: Quotes,
        limits: LimitReviews,
        *,
        placement_deadline: float,
    ) -> None:
        self._placer = placer
        self._quotes = quotes
        self._limits = limits
        self._vault = core.vault
        self._clock = core.clock
        self._ids = core.ids
        self._jobs = core.jobs
        self._recorder = core.recorder
        self._placement_deadline = placement_deadline

    def create(self, request: CreateRequest, *, actor: Actor) -> Command[Created]:
        """Accept a request: instance, operation and first event in one commit.

        Nothing is bought here; the operation's steps do that after the answer.

        Args:
            request: The request; each field has been validated.
            actor: Who makes it.

        Raises:
            ValidationFailed: the region, product or template is unknown; `QUOTE_MISMATCH`: the
                request differs from the quoted one.
            Conflict: `NO_CAPACITY`: no offer fits; `QUOTE_EXPIRED`: the quote is too old or does
                not exist; `PRICE_ABOVE_QUOTE`: the offers that fit cost more than quoted;
                `BUDGET_EXCEEDED`: a budget has too little left for the first hour;
                `KEY_LIMIT_EXCEEDED`: the limits of the key do not allow it.
            UpstreamUnavailable: the catalogue was needed and could not be read.
        """

        async def resolve(deadline: int | None) -> Callable[[Connection], Created]:
            quoted = None
            if request.quote_id is not None:
                quoted = (await self._quotes.valid(request.quote_id, request)).offers
            placed = await self._placer.place(request, deadline, key_id=actor.key_id, quoted=quoted)
            key_limits.insist_on_run(actor.key_id, placed.key_limits, request)
            if not placed.placement.candidates:
                raise _nothing_fits(placed, actor)
            instance, operation = self._make(placed, actor)
            sealed = launch_spec.seal(self._vault, placed.launch)
            return partial(
                self._commit,
                instance=instance,
                operation=operation,
                sealed=sealed,
                placed=placed,
            )

        return Command(resolve)

    def _make(self, placed: Placed, actor: Actor) -> tuple[Instance, Operation]:
        now, request = self._clock.now(), placed.request
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
            quote_id=request.quote_id,
            webhook_url=request.webhook_url,
            limits=request.limits,
            inherited=placed.key_limits.inherited() if placed.key_limits else None,
            protected_reason=request.protected_reason,
            auto_stop=request.auto_stop,
            tags=request.tags,
            created_by=actor,
        )
        operation = Operation.begin(
            self._ids.prefixed("op"),
            OperationKind.CREATE,
            instance.id,
            CreateVerb.first_phase,
            now,
            actor=actor,
            deadline_at=now + int(self._placement_deadline * 1000),
        )
        return instance, operation

    def _commit(
        self,
        connection: Connection,
        instance: Instance,
        operation: Operation,
        sealed: bytes,
        placed: Placed,
    ) -> Created:
        instances.insert(connection, instance, sealed)
        key_limits.insist_on_number(connection, instance, placed.key_limits)
        admission.admit(connection, instance, wanted_for(placed), instance.created_at)
        operations.insert(connection, operation)
        instance = self._limits.created(connection, instance)
        recorder = self._recorder.by(operation.actor)
        recorder.append(connection, instance, operation, EventType.CREATED)
        self._jobs.nudge(connection, operation.kind.job, operation.id)
        estimated = estimate_ready(connection, instance.product_name)
        return Created(instance.id, instance.created_at + estimated)


def _nothing_fits(placed: Placed, actor: Actor) -> Conflict:
    """Make the error for a request that no offer fits now."""
    name, rejections = placed.request.product_name, placed.placement.rejections
    details = [rejection.details() for rejection in rejections]
    limits = placed.key_limits
    if any(one.reason is RejectionReason.PRICE_ABOVE_KEY_LIMIT for one in rejections) and limits:
        most = usd(limits.max_hourly_price or 0)
        return key_limits.exceeded(
            actor.key_id,
            KeyLimit.MAX_HOURLY_PRICE,
            f"The offers of '{name}' that fit cost more than the {most:g} USD an hour that this "
            "API key allows",
            allowed=most,
            offers=details,
        )
    if any(one.reason is RejectionReason.PRICE_ABOVE_QUOTE for one in rejections):
        return Conflict(
            f"No offer of '{name}' is available at its quoted price; ask for another quote",
            code="PRICE_ABOVE_QUOTE",
            details=details,
        )
    return Conflict(
        f"No offer of '{name}' fits this request now", code="NO_CAPACITY", details=details
    )
