# SPDX-License-Identifier: Apache-2.0
"""List deliveries, and deliver a message again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.webhook import Delivery, DeliveryStatus, Webhook
from novitai.errors import Conflict, NotFound
from novitai.jobs.port import JobEngine
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.events.outbox import JOB
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.lifecycle.queries.ready_views import unknown
from novitai.store.engine.database import Database
from novitai.store.queries import deliveries, instances, webhook_lines, webhooks


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Messages; `next_cursor` is None on the last page."""

    deliveries: Sequence[Delivery]
    next_cursor: str | None


class Deliveries:
    """Lists and repeats deliveries."""

    def __init__(self, database: Database, clock: Clock, jobs: JobEngine) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs

    def redeliver(self, delivery_id: str) -> Transaction[Delivery]:
        """Deliver a message again at once, in any status, with the full number of tries.

        Raises:
            NotFound: `DELIVERY_NOT_FOUND`.
            Conflict: `INVALID_STATE`: its webhook is switched off.
        """

        def act(connection: Connection) -> Delivery:
            found = deliveries.line_of(connection, delivery_id)
            if found is None:
                raise NotFound(f"Delivery '{delivery_id}' not found", code="DELIVERY_NOT_FOUND")
            line_id, webhook_id = found
            now = self._clock.now()
            webhook = webhooks.load(connection, webhook_id)
            if webhook is None or (webhook.standing and not webhook.enabled):
                raise switched_off(webhook)
            webhook_lines.set_next(connection, line_id, now)
            deliveries.begin_anew(connection, delivery_id, now=now)
            # The URL of an instance has no other way to be switched on again.
            webhooks.switch_on(connection, webhook_id, now=now)
            self._jobs.nudge(connection, JOB, line_id)
            again = deliveries.load(connection, delivery_id)
            if again is None:
                raise LookupError(f"delivery {delivery_id} no longer exists")
            return again

        return act

    async def of_instance(
        self, instance_id: str, *, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> DeliveryPage:
        """List the deliveries of an instance's events, oldest event first.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            ValidationFailed: the cursor is invalid.
        """
        after = read_place(cursor)

        def load(connection: Connection) -> list[Delivery]:
            if instances.load(connection, instance_id) is None:
                raise unknown(instance_id)
            return deliveries.of_instance(connection, instance_id, after=after, limit=limit + 1)

        return _delivery_page(await self._database.read(load, snapshot=True), limit)

    async def of_webhook(
        self,
        webhook_id: str,
        *,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
        status: DeliveryStatus | None = None,
    ) -> DeliveryPage:
        """List the deliveries to a standing webhook, newest event first.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
            ValidationFailed: the cursor is invalid.
        """
        after = read_place(cursor)

        def load(connection: Connection) -> list[Delivery]:
            standing(connection, webhook_id)
            return deliveries.of_webhook(
                connection, webhook_id, after=after, limit=limit + 1, status=status
            )

        return _delivery_page(await self._database.read(load, snapshot=True), limit)

    async def page(
        self,
        *,
        limit: int = MAX_PAGE,
        cursor: str | None = None,
        status: DeliveryStatus | None = None,
    ) -> DeliveryPage:
        """List the deliveries to all receivers, newest event first.

        Raises:
            ValidationFailed: the cursor is invalid.
        """
        read = partial(deliveries.page, after=read_place(cursor), limit=limit + 1, status=status)
        return _delivery_page(await self._database.read(read, snapshot=True), limit)

    async def oldest_waiting_seconds(self) -> float:
        """Return the age of the oldest pending message in seconds; 0 if there is none."""
        oldest = await self._database.read(deliveries.oldest_waiting)
        return 0.0 if oldest is None else max(0.0, (self._clock.now() - oldest) / 1000)


def standing(connection: Connection, webhook_id: str) -> Webhook:
    """Load a standing webhook.

    Raises:
        NotFound: `WEBHOOK_NOT_FOUND`: it does not exist or was deleted.
    """
    webhook = webhooks.load(connection, webhook_id)
    if webhook is None or not webhook.standing or webhook.deleted_at is not None:
        raise NotFound(f"Webhook '{webhook_id}' not found", code="WEBHOOK_NOT_FOUND")
    return webhook


def switched_off(webhook: Webhook | None) -> Conflict:
    """Return the error for a delivery to a webhook that is switched off."""
    reason = webhook.off_reason if webhook else None
    return Conflict(
        "The webhook is switched off: enable it first",
        details={} if reason is None else {"reason": reason.value},
    )


def _delivery_page(found: Sequence[Delivery], limit: int) -> DeliveryPage:
    return DeliveryPage(*cut(found, limit, lambda one: (one.event_sequence, one.id)))
