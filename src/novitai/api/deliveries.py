# SPDX-License-Identifier: Apache-2.0
"""What was told to whom, what became of it, and sending it again."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import orjson
from starlette.responses import Response

from novitai.api import paths
from novitai.api.answers import from_reply, json_answer
from novitai.api.documentation import Parameter
from novitai.api.instances import BAD_BODY, BAD_QUERY, IDEMPOTENCY, INSTANCE_ID, NOT_FOUND
from novitai.api.lifecycle_schemas import NoFields
from novitai.api.queries import (
    IDEMPOTENCY_KEY,
    LIMIT,
    MAX_LIMIT,
    PLACE_CURSOR,
    cursor,
    idempotency_key,
    limit,
    next_link,
    one_of,
    query_fields,
)
from novitai.api.routes import Call, Operation
from novitai.api.webhook_schemas import DeliveryView, ListDeliveriesResponse
from novitai.clock import iso
from novitai.domain.api_key import Scope
from novitai.domain.fields import Fields
from novitai.domain.view import masked_url
from novitai.domain.webhook import Delivery, DeliveryStatus, Try
from novitai.errors import Conflict, NotFound
from novitai.lifecycle.deliveries import Deliveries, DeliveryPage
from novitai.lifecycle.idempotency import Reply

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

    def __init__(self, deliveries: Deliveries) -> None:
        self._deliveries = deliveries

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
                errors=[NOT_FOUND, BAD_QUERY],
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
                body_optional=True,
                parameters=[_DELIVERY_ID, IDEMPOTENCY_KEY],
                errors=[_NO_DELIVERY, SWITCHED_OFF, *BAD_BODY, *IDEMPOTENCY],
            ),
        ]

    async def of_instance(self, call: Call) -> Response:
        """List the messages about an instance, to whomever they go, oldest event first."""
        fields = query_fields(call)
        most = fields.read("limit", limit, MAX_LIMIT)
        after = fields.read("cursor", cursor, None)
        fields.finish()
        page = await self._deliveries.of_instance(
            call.request.path_params["instanceId"], limit=most, cursor=after
        )
        return _listed(call, page)

    async def of_webhook(self, call: Call) -> Response:
        """List the messages to a standing webhook, newest event first."""
        fields = query_fields(call)
        status = fields.read("status", one_of("Status", _STATUSES), "")
        most = fields.read("limit", limit, MAX_LIMIT)
        after = fields.read("cursor", cursor, None)
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
        body = await call.body(optional=True)
        Fields(body.fields).finish()
        reply = await self._deliveries.redeliver(
            call.request.path_params["deliveryId"],
            reply=_accepted,
            idempotency=idempotency_key(call, body),
            deadline=call.context.deadline,
        )
        return from_reply(reply)


def show_try(made: Try) -> dict[str, object]:
    """Show one try."""
    shown: dict[str, object | None] = {
        "at": iso(made.at),
        "statusCode": made.status_code,
        "error": made.error,
        "durationMs": made.duration_ms,
        "response": made.response,
    }
    return {name: value for name, value in shown.items() if value is not None}


def _accepted(delivery: Delivery) -> Reply:
    return Reply(202, {}, orjson.dumps(_show(delivery)))


def _listed(call: Call, page: DeliveryPage) -> Response:
    body: dict[str, object] = {"deliveries": [_show(one) for one in page.deliveries]}
    if page.next_cursor is None:
        return json_answer(body)
    body["nextCursor"] = page.next_cursor
    return json_answer(body, headers={"Link": next_link(call, page.next_cursor)})


def _show(delivery: Delivery) -> Mapping[str, object]:
    waits = delivery.status is DeliveryStatus.PENDING
    shown: dict[str, object | None] = {
        "id": delivery.id,
        "eventId": delivery.event_id,
        "type": delivery.event_type.value,
        "instanceId": delivery.instance_id,
        "webhookId": delivery.webhook_id if delivery.standing else None,
        "url": masked_url(delivery.url),
        "status": delivery.status.value,
        "createdAt": iso(delivery.created_at),
        "nextAttemptAt": iso(delivery.due_at) if waits else None,
        "endedAt": None if delivery.ended_at is None else iso(delivery.ended_at),
        "attempts": [show_try(made) for made in delivery.attempts],
    }
    return {name: value for name, value in shown.items() if value is not None}
