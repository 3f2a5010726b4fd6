# SPDX-License-Identifier: Apache-2.0
"""The record of what was told to whom, and sending a message again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from sqlalchemy import Connection

from novitai.clock import Clock
from novitai.domain.webhook import Delivery, DeliveryStatus, Webhook
from novitai.errors import Conflict, NotFound
from novitai.jobs.port import JobEngine
from novitai.lifecycle.commands.idempotency import Transaction
from novitai.lifecycle.events.outbox import JOB
from novitai.lifecycle.queries.details_cache import unknown
from novitai.lifecycle.queries.pagination import MAX_PAGE, cut, read_place
from novitai.store.engine.database import Database
from novitai.store.queries import deliveries, instances, webhook_lines, webhooks


@dataclass(frozen=True, slots=True)
class DeliveryPage:
    """Messages; `next_cursor` is None on the last page."""

    deliveries: Sequence[Delivery]
    next_cursor: str | None


class Deliveries:
    """Shows and repeats deliveries."""

    def __init__(self, database: Database, clock: Clock, jobs: JobEngine) -> None:
        self._database = database
        self._clock = clock
        self._jobs = jobs

    def redeliver(self, delivery_id: str) -> Transaction[Delivery]:
        """Send one message again, at once and with all its tries before it, whatever became of it.

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
            # Nothing else could switch the URL of an instance on again.
            webhooks.switch_on(connection, webhook_id, now=now)
            self._jobs.nudge(connection, JOB, line_id)
            again = deliveries.load(connection, delivery_id)
            if again is None:
                raise LookupError(f"{delivery_id} has vanished")
            return again

        return act

    async def of_instance(
        self, instance_id: str, *, limit: int = MAX_PAGE, cursor: str | None = None
    ) -> DeliveryPage:
        """List what was told of an instance, oldest event first.

        Raises:
            NotFound: `INSTANCE_NOT_FOUND`.
            ValidationFailed: the cursor is not one of ours.
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
        """List what a standing webhook was told, newest event first.

        Raises:
            NotFound: `WEBHOOK_NOT_FOUND`.
            ValidationFailed: the cursor is not one of ours.
        """
        after = read_place(cursor)

        def load(connection: Connection) -> list[Delivery]:
            standing(connection, webhook_id)
            return deliveries.of_webhook(
                connection, webhook_id, after=after, limit=limit + 1, status=status
            )

        return _delivery_page(await self._database.read(load, snapshot=True), limit)

    async def oldest_waiting_seconds(self) -> float:
        """Return the age of the oldest message that still waits, in seconds; 0 if none does."""
        oldest = await self._database.read(deliveries.oldest_waiting)
        return 0.0 if oldest is None else max(0.0, (self._clock.now() - oldest) / 1000)


def standing(connection: Connection, webhook_id: str) -> Webhook:
    """Load a standing webhook.

    Raises:
        NotFound: `WEBHOOK_NOT_FOUND`: there is none of that id, or it was deleted.
    """
    webhook = webhooks.load(connection, webhook_id)
    if webhook is None or not webhook.standing or webhook.deleted_at is not None:
        raise NotFound(f"Webhook '{webhook_id}' not found", code="WEBHOOK_NOT_FOUND")
    return webhook


def switched_off(webhook: Webhook | None) -> Conflict:
    """Make the error of asking for a delivery to a webhook that is off."""
    reason = webhook.off_reason if webhook else None
    return Conflict(
        "The webhook is switched off: enable it first",
        details={} if reason is None else {"reason": reason.value},
    )


def _delivery_page(found: Sequence[Delivery], limit: int) -> DeliveryPage:
    return DeliveryPage(*cut(found, limit, lambda one: (one.event_sequence, one.id)))
