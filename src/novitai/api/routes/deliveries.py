# SPDX-License-Identifier: Apache-2.0
"""What was told to whom, what became of it, and sending it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from starlette.responses import Response

from novitai.api.http import paths
from novitai.api.http.answers import json_reply
from novitai.api.openapi.document import Parameter
from novitai.api.openapi.lifecycle_schemas import NoFields
from novitai.api.openapi.webhook_schemas import DeliveryView, ListDeliveriesResponse
from novitai.api.routes.instances import INSTANCE_ID
from novitai.api.routing.common_errors import BAD_QUERY, NO_INSTANCE
from novitai.api.routing.lists import LIMIT, PLACE_CURSOR, listed, only_page, read_page
from novitai.api.routing.once import run_once
from novitai.api.routing.queries import one_of, query_fields
from novitai.api.routing.router import Call, Operation
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.view import iso_or_none, masked_url, present
from novitai.domain.webhook import Delivery, DeliveryStatus, Try
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.commands.idempotency import Commands, Reply
from novitai.lifecycle.webhooks.deliveries import Deliveries, DeliveryPage

WEBHOOK_ID: Final = Parameter(
    "webhookId", "The webhook's id", {"type": "string", "maxLength": 64}, "path"
)
NO_WEBHOOK: Final = NotFound("Webhook 'whk_1' not found", code="WEBHOOK_NOT_FOUND")
SWITCHED_OFF: Final = Conflict(
    "The webhook is switched off: enable it first", details={"reason": "gone"}
)

_DELIVERY_ID: Final = Parameter(
    "deliveryId", "The delivery's id", {"type": "string", "maxLength": 64}, "path"
)
_NO_DELIVERY: Final = NotFound("Delivery 'msg_1' not found", code="DELIVERY_NOT_FOUND")
_STATUSES: Final = tuple(status.value for status in DeliveryStatus)


class DeliveryRoutes:
    """Handlers of the delivery routes."""

    def __init__(self, deliveries: Deliveries, commands: Commands) -> None:
        self._deliveries = deliveries
        self._commands = commands

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [
            Operation(
                method="GET",
                path=f"{paths.INSTANCE}/deliveries",
                handler=self.of_instance,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List what was told of an instance",
                answers={200: ListDeliveriesResponse},
                parameters=[INSTANCE_ID, LIMIT, PLACE_CURSOR],
                errors=[NO_INSTANCE, BAD_QUERY],
            ),
            Operation(
                method="GET",
                path="/api/webhooks/{webhookId:id}/deliveries",
                handler=self.of_webhook,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List what a webhook was told",
                answers={200: ListDeliveriesResponse},
                parameters=[
                    WEBHOOK_ID,
                    Parameter(
                        "status", "Only this status", {"type": "string", "enum": list(_STATUSES)}
                    ),
                    LIMIT,
                    PLACE_CURSOR,
                ],
                errors=[NO_WEBHOOK, BAD_QUERY],
            ),
            Operation(
                method="POST",
                path="/api/deliveries/{deliveryId:id}/redeliver",
                handler=self.redeliver,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Send a message again",
                answers={202: DeliveryView},
                body=NoFields,
                parameters=[_DELIVERY_ID],
                errors=[_NO_DELIVERY, SWITCHED_OFF],
            ),
        ]

    async def of_instance(self, call: Call) -> Response:
        """List the messages about an instance, to whomever they go, oldest event first."""
        most, after = only_page(call)
        page = await self._deliveries.of_instance(
            call.request.path_params["instanceId"], limit=most, cursor=after
        )
        return _listed(call, page)

    async def of_webhook(self, call: Call) -> Response:
        """List the messages to a standing webhook, newest event first."""
        fields = query_fields(call)
        status = fields.read("status", one_of("Status", _STATUSES), "")
        most, after = read_page(fields)
        fields.finish()
        page = await self._deliveries.of_webhook(
            call.request.path_params["webhookId"],
            limit=most,
            cursor=after,
            status=DeliveryStatus(status) if status else None,
        )
        return _listed(call, page)

    async def redeliver(self, call: Call) -> Response:
        """Send a message again, at once and with its own id, whatever became of it.

        If it fails, it is tried by the table from the beginning. Messages about the same instance
        that wait for the same receiver go after it.
        """
        body = await call.no_fields()
        command = self._deliveries.redeliver(call.request.path_params["deliveryId"])
        return await run_once(self._commands, call, body, command, _accepted)


def show_try(made: Try) -> Mapping[str, object]:
    """Show one try."""
    return present(
        {
            "at": iso(made.at),
            "statusCode": made.status_code,
            "error": made.error,
            "durationMs": made.duration_ms,
            "response": made.response,
        }
    )


def _accepted(delivery: Delivery) -> Reply:
    return json_reply(_show(delivery), 202)


def _listed(call: Call, page: DeliveryPage) -> Response:
    return listed(call, "deliveries", [_show(one) for one in page.deliveries], page.next_cursor)


def _show(delivery: Delivery) -> Mapping[str, object]:
    waits = delivery.status is DeliveryStatus.PENDING
    return present(
        {
            "id": delivery.id,
            "eventId": delivery.event_id,
            "type": delivery.event_type.value,
            "instanceId": delivery.instance_id,
            "webhookId": delivery.webhook_id if delivery.standing else None,
            "url": masked_url(delivery.url),
            "status": delivery.status.value,
            "createdAt": iso(delivery.created_at),
            "nextAttemptAt": iso(delivery.due_at) if waits else None,
            "endedAt": iso_or_none(delivery.ended_at),
            "attempts": [show_try(made) for made in delivery.attempts],
        }
    )
