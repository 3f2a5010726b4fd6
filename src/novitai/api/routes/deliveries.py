# SPDX-License-Identifier: Apache-2.0
"""Deliveries of webhook messages: list them and send one again."""

from __future__ import annotations

from typing import Annotated, Final

from pydantic import Field
from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import reply
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.lists import listed
from novitai.api.routing.queries import OneOf, PageQuery
from novitai.api.routing.router import Route, RouteCall
from novitai.api.schemas.webhooks import AttemptView, DeliveryView, ListDeliveriesResponse
from novitai.api.schemas.wire import NoFields, absent
from novitai.domain.api_key import Scope
from novitai.domain.webhook import Delivery, DeliveryStatus, Try
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import Reply
from novitai.lifecycle.webhooks.deliveries import Deliveries, DeliveryPage
from novitai.urls import masked_login

NO_WEBHOOK: Final = NotFound("Webhook 'whk_1' not found", code="WEBHOOK_NOT_FOUND")
SWITCHED_OFF: Final = Conflict(
    "The webhook is switched off: enable it first", details={"reason": "gone"}
)

_NO_DELIVERY: Final = NotFound("Delivery 'msg_1' not found", code="DELIVERY_NOT_FOUND")


class DeliveriesQuery(PageQuery):
    """Which deliveries to list."""

    status: Annotated[DeliveryStatus, Field(description="Only this status"), OneOf("Status")] = (
        absent()
    )


class DeliveryRoutes:
    """Handlers of the delivery routes."""

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

    def routes(self) -> list[Route]:
        """Declare the routes."""
        return [
            Route(
                method="GET",
                path=f"{paths.INSTANCE}/deliveries",
                id="listInstanceDeliveries",
                handler=self.of_instance,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List an instance's deliveries",
                answers={200: ListDeliveriesResponse},
                errors=[NO_INSTANCE, BAD_QUERY],
            ),
            Route(
                method="GET",
                path="/api/webhooks/{webhookId:id}/deliveries",
                id="listWebhookDeliveries",
                handler=self.of_webhook,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List a webhook's deliveries",
                answers={200: ListDeliveriesResponse},
                errors=[NO_WEBHOOK, BAD_QUERY],
            ),
            Route(
                method="GET",
                path="/api/deliveries",
                id="listDeliveries",
                handler=self.page,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List the deliveries to all receivers",
                answers={200: ListDeliveriesResponse},
                errors=[BAD_QUERY],
            ),
            Route(
                method="POST",
                path="/api/deliveries/{deliveryId:id}/redeliver",
                id="redeliverMessage",
                handler=self.redeliver,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Send a message again",
                answers={202: DeliveryView},
                errors=[_NO_DELIVERY, SWITCHED_OFF],
            ),
        ]

    async def of_instance(self, call: RouteCall, query: PageQuery) -> Response:
        """List the messages about an instance to all receivers, oldest event first."""
        page = await self._deliveries.of_instance(
            call.named("instanceId"), limit=query.most, cursor=query.cursor
        )
        return _listed(call, page)

    async def of_webhook(self, call: RouteCall, query: DeliveriesQuery) -> Response:
        """List the messages to a standing webhook, newest event first."""
        page = await self._deliveries.of_webhook(
            call.named("webhookId"), limit=query.most, cursor=query.cursor, status=query.status
        )
        return _listed(call, page)

    async def page(self, call: RouteCall, query: DeliveriesQuery) -> Response:
        """List the messages to all receivers, newest event first."""
        page = await self._deliveries.page(
            limit=query.most, cursor=query.cursor, status=query.status
        )
        return _listed(call, page)

    async def redeliver(self, call: RouteCall, body: NoFields) -> Response:
        """Send a message again at once, with the same ID, whether or not it was delivered.

        If it fails, the retry schedule starts from the beginning. Pending messages about the same
        instance to the same receiver are sent after it.
        """
        return await call.run_once(self._deliveries.redeliver(call.named("deliveryId")), _accepted)


def show_try(made: Try) -> AttemptView:
    """Convert an attempt to its schema."""
    return AttemptView.model_validate(made)


def _accepted(delivery: Delivery) -> Reply:
    return reply(_show(delivery), 202)


def _listed(call: RouteCall, page: DeliveryPage) -> Response:
    shown = [_show(one) for one in page.deliveries]
    return listed(call, ListDeliveriesResponse(deliveries=shown, next_cursor=page.next_cursor))


def _show(delivery: Delivery) -> DeliveryView:
    return DeliveryView(
        id=delivery.id,
        event_id=delivery.event_id,
        type=delivery.event_type,
        instance_id=delivery.instance_id,
        webhook_id=delivery.webhook_id if delivery.standing else None,
        url=masked_login(delivery.url),
        status=delivery.status,
        created_at=delivery.created_at,
        next_attempt_at=delivery.due_at if delivery.status is DeliveryStatus.PENDING else None,
        ended_at=delivery.ended_at,
        attempts=[show_try(made) for made in delivery.attempts],
    )
