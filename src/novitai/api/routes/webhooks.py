# SPDX-License-Identifier: Apache-2.0
"""`/api/webhooks`: standing webhooks, their secrets, test messages, and telling all again."""

from __future__ import annotations

from typing import Final

from starlette.responses import Response

from novitai.api.http.answers import json_answer, json_reply
from novitai.api.openapi.lifecycle_schemas import NoFields
from novitai.api.openapi.webhook_schemas import (
    ChangeWebhookRequest,
    CreateWebhookRequest,
    ListWebhooksResponse,
    ReplayRequest,
    ReplayResponse,
    RevealedWebhook,
    WebhookTestResponse,
    WebhookView,
)
from novitai.api.routes.deliveries import NO_WEBHOOK, SWITCHED_OFF, WEBHOOK_ID, show_try
from novitai.api.routing.common_errors import BAD_QUERY
from novitai.api.routing.lists import LIMIT, PLACE_CURSOR, listed, only_page
from novitai.api.routing.once import run_once
from novitai.api.routing.router import Call, Operation
from novitai.clock import Clock, iso
from novitai.domain.api_key import Scope
from novitai.domain.validation import PRIVATE_WEBHOOK, PRIVATE_WEBHOOKS_HINT
from novitai.domain.view import iso_or_none, masked_url, present
from novitai.domain.webhook import Webhook
from novitai.domain.webhook_requests import parse_replay, parse_webhook, parse_webhook_change
from novitai.errors import Conflict, FieldError, ValidationFailed
from novitai.lifecycle.commands.idempotency import Commands, Reply
from novitai.lifecycle.webhooks.endpoints import Revealed, Tested, Webhooks, too_many_webhooks

_PATH: Final = "/api/webhooks/{webhookId:id}"
_BAD_URL: Final = ValidationFailed(
    "Validation failed",
    code="INVALID_WEBHOOK_URL",
    details=[
        FieldError(
            "url",
            f"{PRIVATE_WEBHOOK}{PRIVATE_WEBHOOKS_HINT}",
            has_value=False,
        )
    ],
)
_BAD_SINCE: Final = ValidationFailed(
    "Validation failed",
    details=[FieldError("since", "Since must be in the past", "2999-01-01T00:00:00Z")],
)
_SHOWN_ALREADY: Final = Conflict(
    "This request was answered before; the secret in that answer is not shown again",
    code="IDEMPOTENCY_NOT_REPLAYABLE",
    details={"id": "whk_1"},
)


class WebhookRoutes:
    """Handlers of the webhook routes."""

    def __init__(
        self, webhooks: Webhooks, commands: Commands, clock: Clock, *, allow_private: bool
    ) -> None:
        self._webhooks = webhooks
        self._commands = commands
        self._clock = clock
        self._allow_private = allow_private

    def operations(self) -> list[Operation]:
        """Declare the routes."""
        return [*self._keeping(), *self._acting()]

    def _keeping(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path="/api/webhooks",
                handler=self.create,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Make a standing webhook",
                answers={201: RevealedWebhook},
                body=CreateWebhookRequest,
                errors=[_BAD_URL, too_many_webhooks(), _SHOWN_ALREADY],
            ),
            Operation(
                method="GET",
                path="/api/webhooks",
                handler=self.page,
                scope=Scope.READ,
                tag="Webhooks",
                summary="List standing webhooks",
                answers={200: ListWebhooksResponse},
                parameters=[LIMIT, PLACE_CURSOR],
                errors=[BAD_QUERY],
            ),
            Operation(
                method="GET",
                path=_PATH,
                handler=self.one,
                scope=Scope.READ,
                tag="Webhooks",
                summary="Read a webhook",
                answers={200: WebhookView},
                parameters=[WEBHOOK_ID],
                errors=[NO_WEBHOOK],
            ),
            Operation(
                method="PATCH",
                path=_PATH,
                handler=self.change,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Change a webhook",
                answers={200: WebhookView},
                body=ChangeWebhookRequest,
                parameters=[WEBHOOK_ID],
                errors=[_BAD_URL, NO_WEBHOOK],
            ),
            Operation(
                method="DELETE",
                path=_PATH,
                handler=self.delete,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Delete a webhook",
                answers={200: WebhookView},
                body=NoFields,
                parameters=[WEBHOOK_ID],
                errors=[NO_WEBHOOK],
            ),
        ]

    def _acting(self) -> list[Operation]:
        return [
            Operation(
                method="POST",
                path=f"{_PATH}/rotate",
                handler=self.rotate,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Give a webhook a new secret",
                answers={200: RevealedWebhook},
                body=NoFields,
                parameters=[WEBHOOK_ID],
                errors=[NO_WEBHOOK, _SHOWN_ALREADY],
            ),
            Operation(
                method="POST",
                path=f"{_PATH}/test",
                handler=self.test,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Send a test message",
                answers={200: WebhookTestResponse},
                body=NoFields,
                parameters=[WEBHOOK_ID],
                errors=[NO_WEBHOOK],
            ),
            Operation(
                method="POST",
                path=f"{_PATH}/replay",
                handler=self.replay,
                scope=Scope.WRITE,
                tag="Webhooks",
                summary="Tell a webhook everything again",
                answers={202: ReplayResponse},
                body=ReplayRequest,
                parameters=[WEBHOOK_ID],
                errors=[_BAD_SINCE, NO_WEBHOOK, SWITCHED_OFF],
            ),
        ]

    async def create(self, call: Call) -> Response:
        """Make a webhook that is told of the events of every instance.

        The answer is the only time that its secret is shown.
        """
        body = await call.body()
        request = parse_webhook(body.fields, allow_private=self._allow_private)
        return await run_once(self._commands, call, body, self._webhooks.create(request), _created)

    async def page(self, call: Call) -> Response:
        """List standing webhooks, newest first."""
        most, after = only_page(call)
        page = await self._webhooks.page(limit=most, cursor=after)
        return listed(call, "webhooks", [_show(one) for one in page.webhooks], page.next_cursor)

    async def one(self, call: Call) -> Response:
        """Read a standing webhook."""
        return json_answer(_show(await self._webhooks.get(_id(call))))

    async def change(self, call: Call) -> Response:
        """Change what is given.

        Switched off, it gives up what waits for it; `replay` brings that back. A new URL gets what
        waits at once.
        """
        body = await call.body(optional=True)
        change = parse_webhook_change(body.fields, allow_private=self._allow_private)
        command = self._webhooks.change(_id(call), change)
        changed = await self._commands.apply(command, deadline=call.context.deadline)
        return json_answer(_show(changed.after))

    async def delete(self, call: Call) -> Response:
        """Delete a webhook. What waits for it is given up; the record of deliveries stays."""
        body = await call.no_fields()
        return await run_once(
            self._commands,
            call,
            body,
            self._webhooks.delete(_id(call)),
            lambda webhook: json_reply(_show(webhook)),
        )

    async def rotate(self, call: Call) -> Response:
        """Give a webhook a new secret, shown this once; the old one signs beside it for 24 h."""
        body = await call.no_fields()
        return await run_once(
            self._commands, call, body, self._webhooks.rotate(_id(call)), _rotated
        )

    async def test(self, call: Call) -> Response:
        """Send a message of type `webhook.test` now, once, and tell what came of it."""
        body = await call.no_fields()
        return await run_once(self._commands, call, body, self._webhooks.test(_id(call)), _tested)

    async def replay(self, call: Call) -> Response:
        """Tell a webhook again, in order, every event since a time that it wants to be told.

        Messages that were sent before keep their ids; what it was not told, because it was off or
        not there yet, is told too.
        """
        body = await call.body()
        webhook_id = _id(call)
        since = parse_replay(body.fields, now=self._clock.now())
        return await run_once(
            self._commands,
            call,
            body,
            self._webhooks.replay(webhook_id, since),
            lambda count: json_reply({"webhookId": webhook_id, "messages": count}, 202),
        )


def _id(call: Call) -> str:
    webhook_id: str = call.request.path_params["webhookId"]
    return webhook_id


def _created(made: Revealed) -> Reply:
    return _reveal(made, 201, {"Location": f"/api/webhooks/{made.webhook.id}"})


def _rotated(made: Revealed) -> Reply:
    return _reveal(made, 200, {})


def _reveal(made: Revealed, status: int, headers: dict[str, str]) -> Reply:
    shown = {**_show(made.webhook), "secret": made.secret}
    headers = {**headers, "Cache-Control": "no-store"}
    return json_reply(shown, status, headers, secret_of=made.webhook.id)


def _tested(tested: Tested) -> Reply:
    body = {
        "messageId": tested.message_id,
        "delivered": tested.delivered,
        "attempt": show_try(tested.attempt),
    }
    return json_reply(body)


def _show(webhook: Webhook) -> dict[str, object]:
    return present(
        {
            "id": webhook.id,
            "url": masked_url(webhook.url),
            "eventTypes": [one.value for one in webhook.event_types],
            "enabled": webhook.enabled,
            "description": webhook.description,
            "createdAt": iso(webhook.created_at),
            "updatedAt": iso(webhook.updated_at),
            "failingSince": iso_or_none(webhook.failing_since),
            "disabledAt": iso_or_none(webhook.off_at),
            "disabledReason": webhook.off_reason.value if webhook.off_reason else None,
            "previousSecretValidUntil": iso_or_none(webhook.previous_secret_until),
        }
    )
